//! Effects on the outside: alerts and revocations, kept on disk until they are delivered.
