//! Files of lines, for journals: a checksum and a record in JSON per line. A crash may leave an incomplete last line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

/// Length of the checksum (XXH3, 64 bits, hexadecimal) and a space.
const CHECKSUM_BYTES: usize = 17;

/// Options of files that only their owner may read, because they contain names and tokens. A missing file is created; an
/// existing one keeps its content.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Writes a new file with `lines`, on disk before it returns.
pub(crate) fn write_new(path: &Path, lines: &[u8]) -> io::Result<File> {
    let mut file = private().truncate(true).open(path)?;
    file.write_all(lines)?;
    file.sync_all()?;
    Ok(file)
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

/// The part of `content` with whole lines. An append whose line is incomplete did not return.
pub(crate) fn whole(content: &[u8]) -> &[u8] {
    let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &content[..end]
}

/// The lines in `content`, without empty ones.
pub(crate) fn split(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn incomplete_last_line_is_left_out() {
        let content = lines(&["a", "b"]).expect("lines");
        for end in 0..content.len() {
            let found: Vec<_> = split(whole(&content[..end])).map(read::<String>).collect();
            let expected = content[..end].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(found.len(), expected, "cut at {end}");
            assert!(found.iter().all(Option::is_some));
        }
        assert_eq!(read::<String>(b"\"a\""), None, "no checksum");
        assert_eq!(read::<serde_json::Value>(b"{\"a\":1}"), Some(serde_json::json!({ "a": 1 })), "an earlier version");
    }

    #[test]
    fn private_file_is_for_its_owner_and_keeps_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        private().open(&path).expect("a file").write_all(b"kept").expect("written");
        drop(private().open(&path).expect("a file"));
        assert_eq!(std::fs::read(&path).expect("a file"), b"kept");
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    proptest::proptest! {
        #[test]
        fn changed_byte_of_a_line_is_found(at in 0_usize..10_000, byte in 0_u8..=255) {
            let content = lines(&["some-key"]).expect("a line");
            let line = &content[..content.len() - 1];
            let mut changed = line.to_vec();
            let at = at % changed.len();
            changed[at] = byte;
            let hex_case = at < CHECKSUM_BYTES && changed[at].eq_ignore_ascii_case(&line[at]);
            if byte != b'\n' {
                proptest::prop_assert_eq!(read::<String>(&changed).is_some(), changed == line || hex_case);
            }
        }
    }
}
