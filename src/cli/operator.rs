//! The person who runs a command, for the audit trail.

use clap::Args;

use super::failure::Failure;
use crate::sanitize;

/// Maximum length of a name, characters.
const NAME_CHARS_MAX: usize = 100;
/// Maximum length of a reason or note, characters.
const TEXT_CHARS_MAX: usize = 1_000;

/// Reason and author of a record that is kept.
#[derive(Debug, Args)]
pub(super) struct Author {
    /// Reason, kept with the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Name, kept with the record [default: the user of the operating system].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl Author {
    /// Name and reason. Both are checked texts.
    pub(super) fn checked(&self) -> Result<(String, String), Failure> {
        Ok((name(self.by.as_deref())?, text(&self.reason, "--reason")?))
    }
}

/// `--by`, or the user of the operating system: the name of the effective user id in `/etc/passwd`, or the number.
pub(super) fn name(by: Option<&str>) -> Result<String, Failure> {
    if let Some(by) = by {
        return checked(by, "--by", NAME_CHARS_MAX);
    }
    let uid = rustix::process::geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Ok(of_user(uid, &users))
}

/// A text for the audit trail. `option` is the name for the error.
pub(super) fn text(text: &str, option: &str) -> Result<String, Failure> {
    checked(text, option, TEXT_CHARS_MAX)
}

fn checked(text: &str, option: &str, chars_max: usize) -> Result<String, Failure> {
    let text = text.trim();
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.chars().count() > chars_max {
        format!("has more than {chars_max} characters")
    } else if text.chars().any(sanitize::is_unsafe) {
        "contains control or invisible characters".to_owned()
    } else {
        return Ok(text.to_owned());
    };
    Err(Failure::Usage(format!("{option} {problem}")))
}

fn of_user(uid: u32, users: &str) -> String {
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), |name| sanitize::name(name, NAME_CHARS_MAX).into_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_named_by_passwd() {
        let users = "root:x:0:0:root:/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\nbroken\n";
        assert_eq!([0, 1000, 7].map(|uid| of_user(uid, users)), ["root", "ana", "uid 7"]);
    }

    #[test]
    fn texts_of_the_audit_trail_are_plain() {
        assert_eq!(text(" stolen laptop ", "--reason").expect("accepted"), "stolen laptop");
        let wrong = |given: &str| text(given, "--reason").expect_err(given).to_string();
        assert_eq!(wrong(" "), "--reason is empty");
        assert_eq!(wrong("a\nb"), "--reason contains control or invisible characters");
        assert_eq!(wrong(&"x".repeat(1_001)), "--reason has more than 1000 characters");
    }
}
