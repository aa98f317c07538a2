//! Sources of messages: Kafka, files, standard input.

pub mod file;
pub mod kafka;
mod records;
pub mod stdin;
