//! Standard input, protected from libraries that read it: the embedded ClickHouse engine uses descriptor 0 as data of
//! its first insert.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

static KEPT: OnceLock<OwnedFd> = OnceLock::new();

/// Moves descriptor 0 and leaves an empty input in its place. Call it once, before anything reads.
pub fn keep() -> io::Result<()> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let _ = KEPT.set(own);
    Ok(())
}

/// Opens the moved standard input.
pub(crate) fn open() -> io::Result<File> {
    let kept = KEPT.get().map_or_else(|| io::stdin().as_fd().try_clone_to_owned(), OwnedFd::try_clone)?;
    Ok(kept.into())
}
