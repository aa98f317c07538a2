//! The key of the installation for token hashes, in a file that only its owner can read.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::secret_file;

const KEY_BYTES: usize = 32;

/// Reads the key in `file`. A missing file is created, with random bytes of the operating system. Two processes that
/// create it at the same time get the same key.
pub(super) fn read_or_make(file: &Path) -> Result<Vec<u8>> {
    match read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    // A hard link to a complete file is atomic: no process reads half a key, and the first link stays.
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut draft| {
        draft.write_all(&key)?;
        draft.sync_all()
    });
    let linked = written.and_then(|()| std::fs::hard_link(&draft, file));
    let _ = std::fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => read(file),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let key = secret_file::read(file)?;
    if key.len() < KEY_BYTES {
        Err(std::io::Error::new(ErrorKind::InvalidData, "the key is truncated"))
    } else {
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_file_is_created_once_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("outbox/token.key");
        let key = read_or_make(&file).expect("a key is created");
        assert_eq!(key.len(), KEY_BYTES);
        assert_ne!(key, [0; KEY_BYTES]);
        assert_eq!(read_or_make(&file).expect("the key is read"), key);
        assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("outbox")).expect("the folder").count(), 1);
    }

    #[test]
    fn truncated_key_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token.key");
        std::fs::write(&file, b"short").expect("a file");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("permissions");
        assert_eq!(read_or_make(&file).expect_err("the key is truncated").kind(), ErrorKind::InvalidData);
    }
}
