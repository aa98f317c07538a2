//! From log-odds to a verdict, an incident and an action.
