//! Alerts in a file: one OCSF Detection Finding per line (NDJSON), as collectors of a SIEM read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::ocsf;
use super::settings::{ChannelSettings, required};
use crate::port::{Accepted, Alert, DeliveryError, Notifier};
use crate::sanitize;

/// Appends alerts to one file.
pub(super) struct OcsfFile {
    name: String,
    path: PathBuf,
}

impl OcsfFile {
    /// The error is the key in the section and the problem.
    pub(super) fn new(name: &str, settings: &ChannelSettings) -> Result<Self, (&'static str, String)> {
        let path = required("path", settings.path.as_ref())?.clone();
        if path.is_dir() {
            return Err(("path", "is a folder; use the path of a file".to_owned()));
        }
        Ok(Self { name: name.to_owned(), path })
    }
}

#[async_trait]
impl Notifier for OcsfFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> String {
        self.path.display().to_string()
    }

    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let line = sanitize::json(&ocsf::finding(alert, key).to_string()) + "\n";
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || append(&path, &line)).await;
        written.map_err(io::Error::other).flatten().map(|()| Accepted::default()).map_err(|error| failed(&error))
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        open(&self.path).map(|_| ()).map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> DeliveryError {
    let reason = format!("the file cannot be written: {error}");
    DeliveryError::Retriable { reason, status: 0, retry_after: None }
}

/// Opened for each line, so that the file may be rotated. Only the owner may read it, because alerts name people.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Appends `line` and waits until the disk has it. A line that could not be written as a whole is removed.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = open(path)?;
    let before = file.metadata()?.len();
    let written = separate(&mut file, before).and_then(|()| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        file.set_len(before)?;
        return Err(error);
    }
    file.sync_data()
}

/// Ends a line that a crash left without its end.
fn separate(file: &mut File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
    }
    if last == [b'\n'] { Ok(()) } else { file.write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::tests::incident;
    use super::*;
    use crate::port::{Progress, Revocation};

    #[tokio::test]
    async fn ocsf_file_gets_one_finding_per_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alerts.ndjson");
        let settings = toml::from_str(&format!("kind = 'ocsf_file'\npath = '{}'", path.display())).expect("settings");
        let file = OcsfFile::new("siem", &settings).expect("a channel");
        let mut incident = incident();
        incident.user_id = "ana\n{\"class_uid\":1}\r\u{2028}\u{1b}[2J".to_owned();
        let progress = Progress::of(Revocation::Done);
        let alert = Alert::Incident { incident: &incident, progress: &progress };
        for key in ["INC-42-a", "INC-42-b"] {
            assert_eq!(file.notify(alert, key).await.expect("it is written"), Accepted::default());
        }
        // A crash in the middle of a line.
        std::fs::OpenOptions::new().append(true).open(&path).expect("the file").write_all(b"{\"cla").expect("a write");
        file.notify(alert, "INC-42-c").await.expect("it is written");
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(!text.contains(|c| c != '\n' && sanitize::is_unsafe(c)), "{text}");
        let lines: Vec<Option<serde_json::Value>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
        let ids: Vec<_> = lines.iter().map(|line| line.as_ref()?["metadata"]["uid"].as_str()).collect();
        assert_eq!(ids, [Some("INC-42-a"), Some("INC-42-b"), None, Some("INC-42-c")]);
        let first = lines[0].as_ref().expect("JSON");
        assert_eq!(
            (&first["class_uid"], &first["incident"]["user_id"]),
            (&2004.into(), &incident.user_id.clone().into())
        );
        assert_eq!(path.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn ocsf_file_that_cannot_be_written_is_retried() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("none/alerts.ndjson");
        let settings = toml::from_str(&format!("kind = 'ocsf_file'\npath = '{}'", path.display())).expect("settings");
        let file = OcsfFile::new("siem", &settings).expect("a channel");
        assert!(matches!(file.probe().await, Err(DeliveryError::Retriable { .. })));
        let incident = incident();
        let progress = Progress::of(Revocation::Done);
        let alert = Alert::Incident { incident: &incident, progress: &progress };
        assert!(matches!(file.notify(alert, "INC-42-a").await, Err(DeliveryError::Retriable { .. })));
        std::fs::create_dir(folder.path().join("none")).expect("a folder");
        assert!(file.notify(alert, "INC-42-a").await.is_ok());
    }
}
