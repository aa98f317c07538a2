//! Files that hold a secret: read only if nobody but their owner can read or change them.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bits of a mode that let the group write, and others do anything.
const GROUP_WRITE_OR_OTHERS: u32 = 0o027;
/// Bits of a mode that let anybody but the owner do anything.
const GROUP_OR_OTHERS: u32 = 0o077;
const ROOT: u32 = 0;

/// The contents of `path`, whose permissions are checked on the opened file.
///
/// Accepted are a file of this process's user with no access for group and others, and a file of root that a group may
/// read: so systemd (`LoadCredential=`) and Kubernetes (`defaultMode: 0440` with `fsGroup`) pass secrets on. The error
/// says what is wrong and what to do.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if let Some(problem) = exposure(&file.metadata()?, path) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    Ok(contents)
}

/// Who else can read or change the file `path` that `about` describes, and what to do about it.
pub(super) fn exposure(about: &Metadata, path: &Path) -> Option<String> {
    let problem = problem(about.uid(), about.mode() & 0o777, rustix::process::geteuid().as_raw())?;
    let path = path.display();
    Some(match problem {
        Problem::Mode(mode) => format!("others can read or change it (mode {mode:04o}); run `chmod 600 {path}`"),
        Problem::Owner(owner) => {
            format!(
                "it belongs to user {owner}, who can read it; run `chown` to give {path} to the service's user or root"
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
    fn secret_files_belong_to_us_or_root() {
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
    fn secret_file_open_to_others_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret").expect("a file");
        let allow = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("permissions");
        allow(0o644);
        let said = read(&path).expect_err("others can read it").to_string();
        assert!(said.starts_with("others can read or change it (mode 0644); run `chmod 600 /"), "{said}");
        allow(0o600);
        assert_eq!(read(&path).expect("it is ours alone"), b"s3cret");
    }
}
