//! `detection.memory_mib_max`: the resident memory of the process in floods of events.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::support::flood::Flood;
use crate::{command, folder, stderr, write};

const LIMIT_MIB: u64 = 640;
/// Lines that are written at a time.
const LINES: u64 = 10_000;

/// Largest resident memory of a process so far, MiB (proc(5)).
fn peak_mib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib >> 10)
}

/// Replays `count` events of a flood, and returns the largest resident memory in MiB.
fn replay(folder: &Path, flood: Flood, count: u64) -> u64 {
    let mut child = command(folder, &["replay", "-", "--config", "t.toml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tokenwarden starts");
    let mut input = child.stdin.take().expect("a pipe");
    let (mut lines, mut peak) = (String::new(), 0);
    for number in 0..count {
        flood.write(number, count, &mut lines);
        if (number + 1).is_multiple_of(LINES) || number + 1 == count {
            input.write_all(lines.as_bytes()).expect("it reads");
            lines.clear();
            peak = peak.max(peak_mib(child.id()).unwrap_or_default());
        }
    }
    let process = child.id();
    drop(input);
    let watched = std::thread::spawn(move || {
        let mut peak = 0;
        while let Some(now) = peak_mib(process) {
            peak = now;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        peak
    });
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = stderr(&output);
    assert!(!summary.contains("dead letter:"), "{summary}");
    peak.max(watched.join().expect("it ends"))
}

#[allow(clippy::print_stdout, reason = "the peaks are a measurement")]
fn assert_within_limit(count: u64) {
    let folder = folder();
    write(folder.path(), "t.toml", format!("[source.file]\npath = '-'\n[detection]\nmemory_mib_max = {LIMIT_MIB}\n"));
    let peaks = Flood::ALL.map(|flood| {
        let peak = replay(folder.path(), flood, count);
        println!("{flood:?}: {count} events, at most {peak} MiB resident of {LIMIT_MIB} MiB");
        (flood, peak)
    });
    assert!(peaks.iter().all(|(_, peak)| *peak > 0 && *peak < LIMIT_MIB), "{peaks:?}");
}

/// Far from the limit: it shows that each flood is decoded and scored.
#[test]
fn floods_are_read_without_dead_letters() {
    assert_within_limit(5_000);
}

/// Without a limit, the memory of several of these floods is above it.
#[test]
#[ignore = "takes ten minutes"]
fn memory_stays_below_its_limit_in_large_floods() {
    let count = std::env::var("TOKENWARDEN_FLOOD").ok().and_then(|count| count.parse().ok());
    assert_within_limit(count.unwrap_or(3_000_000));
}
