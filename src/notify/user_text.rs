//! Texts of the messages to users: those of the build, or files of the operator.

use std::fs;
use std::path::{Path, PathBuf};

use crate::millis::rfc3339;
use crate::outgoing::{Piece, pieces, unknown_name};
use crate::port::{UserMessage, UserMessageKind, UserText};
use crate::sanitize;

/// Maximum size of a file, bytes.
const BYTES_MAX: u64 = 16 << 10;
const REVOKED: &str = include_str!("user_texts/revoked.txt");
const REVOKED_BY_MISTAKE: &str = include_str!("user_texts/revoked_by_mistake.txt");

/// The texts.
#[derive(Clone, Debug)]
pub struct UserTexts {
    /// Folder with files that replace the texts of the build.
    dir: Option<PathBuf>,
}

impl UserTexts {
    /// The texts of the build, or the files in `dir` that replace them.
    pub const fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The text of a message. If the file of the operator cannot be used, it is that of the build, with the problem.
    pub(crate) fn of(&self, message: &UserMessage) -> (UserText, Option<String>) {
        let shipped = match message.kind {
            UserMessageKind::Revoked => REVOKED,
            UserMessageKind::RevokedByMistake => REVOKED_BY_MISTAKE,
        };
        let file = self.dir.as_ref().map(|dir| dir.join(format!("{}.txt", message.kind.as_str())));
        let problem = match file.as_deref().map(|file| of_file(file, message)) {
            Some(Ok(Some(text))) => return (text, None),
            Some(Err(problem)) => Some(problem),
            Some(Ok(None)) | None => None,
        };
        // A test fills the texts of the build, so they cannot fail.
        let text = fill(shipped, message).unwrap_or_else(|_| UserText { subject: String::new(), body: String::new() });
        (text, problem)
    }
}

/// `None`: there is no such file. The error has the file and the problem.
fn of_file(file: &Path, message: &UserMessage) -> Result<Option<UserText>, String> {
    let wrong = |problem: &str| format!("{}: {problem}", file.display());
    match fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error.to_string())),
        Ok(about) if about.len() > BYTES_MAX => return Err(wrong(&format!("is larger than {BYTES_MAX} bytes"))),
        Ok(_) => {}
    }
    let text = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    fill(&text, message).map(Some).map_err(|problem| wrong(&problem))
}

fn fill(template: &str, message: &UserMessage) -> Result<UserText, String> {
    let mut text = String::new();
    for piece in pieces(template) {
        match piece {
            Piece::Text(fixed) => text.push_str(fixed),
            Piece::Name("time") => text.push_str(&rfc3339(message.at)),
            Piece::Name("incident") => text.push_str(&message.about.to_string()),
            Piece::Name(word) => return Err(unknown_name(word, ["time", "incident"].into_iter())),
        }
    }
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let subject = first.trim_end().strip_prefix("Subject: ").map(str::trim).filter(|subject| !subject.is_empty());
    let subject = subject.ok_or("the first line is not `Subject: …`")?;
    let body = rest.replace('\r', "");
    let body = body.trim();
    if body.is_empty() {
        return Err("there is no text after the subject".to_owned());
    }
    Ok(UserText { subject: sanitize::line(subject), body: format!("{}\n", sanitize::lines(body)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Reference;
    use crate::verdict::IncidentId;

    fn message(kind: UserMessageKind) -> UserMessage {
        UserMessage {
            kind,
            tenant_id: "https://evil.example".to_owned(),
            user_id: "ana@example.com".to_owned(),
            about: Reference::Incident(IncidentId(0x42)),
            at: 1_795_000_000_000,
        }
    }

    #[test]
    fn texts_of_the_build_have_no_link_and_no_value() {
        for kind in [UserMessageKind::Revoked, UserMessageKind::RevokedByMistake] {
            let (text, problem) = UserTexts::new(None).of(&message(kind));
            assert_eq!(problem, None);
            assert!(text.body.contains("2026-11-18T11:06:40Z") && text.body.contains("INC-0000000000000042"));
            let all = format!("{}{}", text.subject, text.body);
            assert!(!all.contains("http") && !all.contains("evil") && !all.contains("ana@"), "{all}");
        }
    }

    #[test]
    fn file_of_the_operator_replaces_the_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let texts = UserTexts::new(Some(folder.path().to_owned()));
        let write = |text: &str| fs::write(folder.path().join("revoked.txt"), text).expect("a file");
        let shipped = UserTexts::new(None).of(&message(UserMessageKind::Revoked)).0;
        assert_eq!(texts.of(&message(UserMessageKind::Revoked)), (shipped.clone(), None), "there is no file");
        write("Subject: Access ended\u{202e}\r\n\r\nSee {incident}.\r\n");
        let (text, problem) = texts.of(&message(UserMessageKind::Revoked));
        let expected =
            UserText { subject: "Access ended\u{fffd}".to_owned(), body: "See INC-0000000000000042.\n".to_owned() };
        assert_eq!((text, problem), (expected, None));
        for (wrong, expected) in [
            ("Subject: x\n\n{user_id} was hacked", "{user_id}"),
            ("Access ended\n\ntext", "first line"),
            ("Subject: x\n\n", "no text"),
            ("Subject: \n\ntext", "first line"),
        ] {
            write(wrong);
            let (text, problem) = texts.of(&message(UserMessageKind::Revoked));
            assert_eq!(text, shipped, "the text of the build is sent");
            let problem = problem.expect(wrong);
            assert!(problem.contains("revoked.txt: ") && problem.contains(expected), "{problem}");
        }
    }
}
