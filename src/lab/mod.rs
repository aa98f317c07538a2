//! Tools for measuring and building, which the service does not import: the simulator, the evaluation and the writer
//! of GeoIP files. Only [`cli`](crate::cli) imports this module.

pub mod evaluate;
pub mod mmdb_source;
pub mod mmdb_writer;
pub mod simulate;
