//! From bytes to events and from verdicts to bytes.
