//! The terms of the log-odds: one file a summand, each a pure function.
