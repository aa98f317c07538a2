//! Metrics of the memory of the process and of the tables in it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label::Labels;

#[derive(Debug, Default)]
pub(super) struct MemoryMetrics {
    bytes: Family<Labels<1>, Gauge>,
    states_max: Gauge,
    resident: Gauge,
    max: Gauge,
    evictions: Family<Labels<1>, Counter>,
}

impl MemoryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register("memory_bytes", "Memory of the states of all partitions, by table", this.bytes.clone());
        registry.register(
            "memory_limit_bytes",
            "Limit of the states of all partitions, 0 without one",
            this.states_max.clone(),
        );
        registry.register("resident_bytes", "Resident memory of the process", this.resident.clone());
        registry.register(
            "resident_limit_bytes",
            "The value of detection.memory_mib_max, 0 without it",
            this.max.clone(),
        );
        let help = "Entries evicted because a limit of memory or number was reached, by table";
        registry.register("evictions", help, this.evictions.clone());
        this
    }

    /// Sets the limits of the process and of its states, bytes.
    pub(super) fn limits(&self, process: u64, states: u64) {
        self.max.set(process as i64);
        self.states_max.set(states as i64);
    }

    /// Sets the bytes of a table, and adds evictions.
    pub(super) fn table(&self, table: &'static str, bytes: usize, evictions: u64) {
        self.bytes.get_or_create(&[("table", table.into())]).set(bytes as i64);
        self.evictions.get_or_create(&[("table", table.into())]).inc_by(evictions);
    }

    pub(super) fn measure(&self) {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes as i64);
        }
    }
}

/// Resident memory of this process (proc(5)).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_that_of_this_process() {
        let before = resident_bytes().expect("Linux reports it");
        let held = vec![1_u8; 64 << 20];
        let after = resident_bytes().expect("Linux reports it");
        assert!(after >= before + (48 << 20) && held[before as usize % held.len()] == 1, "{before} {after}");
    }
}
