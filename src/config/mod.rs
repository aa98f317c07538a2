//! The configuration and the rule files.
