//! A real SMTP server with TLS, a password and a certificate of a test authority.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::process::{Tied, cache, eventually, free_port, read, wait_for_port};

pub(crate) const USER: &str = "tokenwarden";
pub(crate) const PASSWORD: &str = "smtp-s3cret";

pub(crate) struct Smtp {
    _server: Tied,
    folder: tempfile::TempDir,
    pub port: u16,
}

impl Smtp {
    /// `tls`: `starttls` or `smtps`.
    pub(crate) fn start(tls: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let server = serve(folder.path(), port, tls);
        Self { _server: server, folder, port }
    }

    /// Certificate of the authority that signed the server's.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Received mails, each with the lines `X-Tls`, `X-Auth`, `X-From` and `X-To` of the server before it.
    pub(crate) fn mails(&self) -> Vec<String> {
        let mut mails = Vec::new();
        while let Ok(mail) = std::fs::read(self.folder.path().join(format!("{}.eml", mails.len() + 1))) {
            mails.push(String::from_utf8_lossy(&mail).into_owned());
        }
        mails
    }

    /// Holds further mails: their senders get no response until [`Self::answer`].
    pub(crate) fn hold(&self) {
        std::fs::write(self.folder.path().join("hold"), "").expect("a file");
    }

    pub(crate) fn answer(&self) {
        std::fs::remove_file(self.folder.path().join("hold")).expect("it was held");
    }

    /// Rejects further mails with `reply`, until [`Self::accept`].
    pub(crate) fn reject(&self, reply: &str) {
        std::fs::write(self.folder.path().join("reject"), reply).expect("a file");
    }

    pub(crate) fn accept(&self) {
        std::fs::remove_file(self.folder.path().join("reject")).expect("it was rejected");
    }

    /// Waits for at least `count` mails.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<String> {
        eventually(Duration::from_secs(30), "the mails arrive", || {
            Some(self.mails()).filter(|mails| mails.len() >= count)
        })
        .unwrap_or_else(|| panic!("{} mails came\n{}", self.mails().len(), read(&self.folder.path().join("log"))))
    }
}

fn serve(folder: &Path, port: u16, tls: &str) -> Tied {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("an authority");
    // The name must differ from that of the server's certificate, which otherwise counts as self-signed.
    authority.distinguished_name.push(DnType::CommonName, "authority of the tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, authority_key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).and_then(|c| c.signed_by(&key, &authority)).expect("a certificate");
    let keep = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).expect("a file");
        file.display().to_string()
    };
    keep("ca.pem", authority.pem());
    let certificate = keep("server.pem", certificate.pem());
    let key = keep("server.key", key.serialize_pem());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/smtp_server.py");
    let python = cache().join("venv/bin/python");
    assert!(python.exists(), "no {}: run deploy/setup.sh", python.display());
    let mails = folder.display().to_string();
    let log = folder.join("log");
    let arguments = [script, &port.to_string(), &mails, &certificate, &key, tls, USER, PASSWORD];
    let server = Tied::start(&python.display().to_string(), &arguments, &log);
    wait_for_port(port, &log);
    server
}
