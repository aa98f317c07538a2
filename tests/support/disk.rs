//! A small file system that a test can fill.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounts the file system, reports it, and keeps it until the input ends.
const KEEP: &str = "mount -t tmpfs -o size=\"$1\",mode=700 tmpfs \"$2\" && echo mounted && cat >/dev/null";

/// A tmpfs in a mount namespace of its own, which ends with a process.
pub(crate) struct Disk {
    keeper: Child,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    /// A disk of `mib` MiB. Without the right to mount it, a test cannot make the fault that it is about, and fails.
    pub(crate) fn mount(mib: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("{mib}m");
        let mut reasons = String::new();
        // Within a user namespace, no rights are needed. Some systems forbid these to all but root, and others to root.
        for namespaces in [["--user", "--map-root-user", "--mount"].as_slice(), &["--mount"]] {
            let keeper = Command::new("unshare")
                .args(namespaces)
                .args(["sh", "-c", KEEP, "sh", &size])
                .arg(folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut keeper = keeper.expect("unshare (util-linux) runs");
            let mut line = String::new();
            let _ = BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut line);
            if line == "mounted\n" {
                let path = Path::new("/proc").join(keeper.id().to_string()).join("root");
                let path = path.join(folder.path().strip_prefix("/").expect("an absolute path"));
                return Self { keeper, path, _folder: folder };
            }
            let _ = keeper.stderr.take().expect("a pipe").read_to_string(&mut reasons);
            let _ = keeper.wait();
        }
        panic!("no file system can be mounted, so that no disk can be full: {reasons}");
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all free space.
    pub(crate) fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).expect("a file");
        let block = vec![0; 1 << 20];
        loop {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }

    /// Gives the space of [`Self::fill`] back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was full");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
