//! Reads files with a secret. A file that other users can read or change is refused.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Mode bits of write access for the group and any access for others.
const GROUP_WRITE_OR_OTHERS: u32 = 0o027;
/// Mode bits of any access for group and others.
const GROUP_OR_OTHERS: u32 = 0o077;
const ROOT: u32 = 0;

/// Reads the file `path`. The permissions are checked on the opened file.
///
/// A file of the user of this process must have no access for group and others. A file of root may be readable by its
/// group, because systemd (`LoadCredential=`) and Kubernetes (`defaultMode: 0440` with `fsGroup`) provide such files.
///
/// # Errors
/// The error states the problem and its fix.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if let Some(problem) = exposure(&file.metadata()?, path) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    Ok(contents)
}

/// The problem, and its fix, if other users can read or change the file `path`; `about` is its metadata.
pub(super) fn exposure(about: &Metadata, path: &Path) -> Option<String> {
    let problem = problem(about.uid(), about.mode() & 0o777, rustix::process::geteuid().as_raw())?;
    let path = path.display();
    Some(match problem {
        Problem::Mode(mode) => format!("other users can read or change it (mode {mode:04o}); run `chmod 600 {path}`"),
        Problem::Owner(owner) => {
            format!(
                "its owner is user {owner}, who can read it; run `chown` to make the service's user or root own {path}"
            )
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Mode(u32),
    Owner(u32),
}

fn problem(owner: u32, mode: u32, ours: u32) -> Option<Problem> {
    let denied = match owner {
        ROOT => GROUP_WRITE_OR_OTHERS,
        owner if owner == ours => GROUP_OR_OTHERS,
        other => return Some(Problem::Owner(other)),
    };
    (mode & denied != 0).then_some(Problem::Mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secret_file_must_belong_to_the_user_or_root() {
        let (ours, other) = (1_000, 1_001);
        for (owner, mode) in [(ours, 0o600), (ours, 0o400), (ROOT, 0o600), (ROOT, 0o440), (ROOT, 0o640), (ROOT, 0o400)]
        {
            assert_eq!(problem(owner, mode, ours), None, "{owner} {mode:o}");
        }
        for (owner, mode) in [(ours, 0o644), (ours, 0o604), (ours, 0o640), (ours, 0o660), (ROOT, 0o644), (ROOT, 0o660)]
        {
            assert_eq!(problem(owner, mode, ours), Some(Problem::Mode(mode)), "{owner} {mode:o}");
        }
        assert_eq!(problem(other, 0o600, ours), Some(Problem::Owner(other)));
        assert_eq!(problem(ROOT, 0o640, ROOT), None, "a service that runs as root");
    }

    #[test]
    fn secret_file_readable_by_others_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret").expect("a file");
        let allow = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("permissions");
        allow(0o644);
        let error = read(&path).expect_err("others can read it").to_string();
        assert!(error.starts_with("other users can read or change it (mode 0644); run `chmod 600 /"), "{error}");
        allow(0o600);
        assert_eq!(read(&path).expect("only the owner can read it"), b"s3cret");
    }
}
