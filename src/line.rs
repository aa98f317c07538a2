//! Lines of a journal: a checksum and a record in JSON.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

/// Length of the checksum (XXH3, 64 bits, hexadecimal) and a space.
pub(super) const CHECKSUM_BYTES: usize = 17;

/// Options of files that only their owner may read, because they contain names and tokens.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

pub(crate) fn lines<T: Serialize>(records: &[T]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        let record = serde_json::to_vec(record)?;
        writeln!(lines, "{:016x} {}", xxh3_64(&record), String::from_utf8_lossy(&record))?;
    }
    Ok(lines)
}

/// The record in a line. `None` if it is damaged. A line of an earlier version has no checksum.
pub(crate) fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    if line.starts_with(b"{") {
        return serde_json::from_slice(line).ok();
    }
    let (checksum, record) = line.split_at_checked(CHECKSUM_BYTES)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    let is_whole = u64::from_str_radix(checksum, 16) == Ok(xxh3_64(record));
    if is_whole { serde_json::from_slice(record).ok() } else { None }
}
