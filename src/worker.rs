//! One worker a partition: epochs, the store, the checkpoint.
