//! Where messages come from: Kafka, files, standard input.

pub mod file;
mod records;
