//! Where messages come from: Kafka, files, standard input.
