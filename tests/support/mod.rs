//! Real servers for tests, on free loopback ports. Each ends with its test.

#![allow(dead_code, reason = "each test uses its part of this")]
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so"
)]

pub mod acl;
pub mod clock;
pub mod kafka;
pub mod observer;
pub mod process;
pub mod smtp;
pub mod web;
