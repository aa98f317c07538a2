//! The process's own input, kept from libraries that read it unasked: the embedded ClickHouse engine takes whatever waits
//! on descriptor 0 for data of its first insert.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

static KEPT: OnceLock<OwnedFd> = OnceLock::new();

/// Takes descriptor 0 for ourselves and leaves an empty input in its place. To be called once, before anything reads.
pub fn keep() -> io::Result<()> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let _ = KEPT.set(own);
    Ok(())
}

/// What comes in on standard input.
pub fn open() -> io::Result<File> {
    let kept = KEPT.get().map_or_else(|| io::stdin().as_fd().try_clone_to_owned(), OwnedFd::try_clone)?;
    Ok(kept.into())
}
