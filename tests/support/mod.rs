//! Real servers for tests, on free loopback ports. Each ends with its test.

#![allow(dead_code, reason = "each test uses its part of this")]
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so"
)]

pub(crate) mod acl;
pub(crate) mod actions;
pub(crate) mod broker;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod flood;
pub(crate) mod kafka;
pub(crate) mod observer;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod service;
pub(crate) mod smtp;
pub(crate) mod web;
