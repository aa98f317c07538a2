//! Providers that take tokens away.
