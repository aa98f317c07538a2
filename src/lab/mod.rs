//! Simulation and evaluation, which the service does not import: the simulator, the evaluation, the comparison of rule
//! sets and the writer of GeoIP files. Only [`cli`](crate::cli) imports this module.

pub mod evaluate;
pub mod mmdb_source;
pub mod mmdb_writer;
pub mod rule_diff;
pub mod simulate;
pub mod simulated_source;
