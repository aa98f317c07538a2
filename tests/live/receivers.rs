//! Receivers of alerts and revocations, and the messages about one theft.

use super::*;

/// Receivers of alerts and revocations: SMTP server, webhook receiver and revocation API.
pub(crate) struct Receivers {
    pub(crate) smtp: Smtp,
    pub(crate) hook: Web,
    pub(crate) api: Web,
}

impl Receivers {
    pub(crate) fn start() -> Self {
        Self { smtp: Smtp::start("smtps"), hook: Web::start(), api: Web::start() }
    }

    /// Configures the receivers in `folder`, with secrets in files, and sets `refresh_reuse` to `enforce`.
    pub(crate) fn configure(&self, folder: &Path) {
        let keep = |name: &str, text: &str| keep_secret(&folder.join(name), text);
        keep("smtp.password", &format!("{PASSWORD}\n"));
        keep("webhook.secret", WEBHOOK_SECRET);
        keep("api.token", "api-s3cret");
        let sections = format!(
            "[alert.email]\nsmtp_url = 'smtps://localhost:{}'\nfrom = 'warden@example.com'\n\
             to = ['security@example.com']\nusername = '{USER}'\npassword_file = 'smtp.password'\nca_file = '{}'\n\
             [alert.webhook]\nurl = '{}/alerts'\nsecret_file = 'webhook.secret'\n\
             [revoke]\nmode = 'enforce'\n\
             [revoke.http]\npreset = 'by_id'\nurl = '{}/grants'\ntoken_file = 'api.token'\n",
            self.smtp.port,
            self.smtp.ca_file().display(),
            self.hook.url,
            self.api.url
        );
        let file = folder.join("tokenwarden.toml");
        keep("tokenwarden.toml", &(read(&file) + &sections));
        let rule = read(&folder.join("rules/refresh_reuse.toml"));
        assert!(rule.contains("mode = \"shadow\""), "{rule}");
        keep("rules/refresh_reuse.toml", &rule.replace("mode = \"shadow\"", "mode = \"enforce\""));
    }

    /// Waits for mail, webhook and revocation of the theft of `person`'s token, and returns them.
    pub(crate) fn wait_for(&self, person: &str) -> Theft {
        let found = eventually(Duration::from_secs(60), "the theft is reported and revoked", || {
            let theft = self.of(person);
            (!theft.mails.is_empty() && !theft.hooks.is_empty() && !theft.revocations.is_empty()).then_some(theft)
        });
        found.unwrap_or_else(|| panic!("{person}: {:?}", self.of(person)))
    }

    /// Messages received so far about the theft of `person`'s token.
    pub(crate) fn of(&self, person: &str) -> Theft {
        let grant = format!("grant-{person}");
        // Joins quoted-printable lines and folded headers.
        let mails = self.smtp.mails().into_iter().map(|mail| mail.replace("=\r\n", "").replace("\r\n ", " "));
        Theft {
            mails: mails.filter(|mail| mail.contains(&grant)).collect(),
            hooks: self.hook.requests().into_iter().filter(|asked| asked.body.contains(&grant)).collect(),
            revocations: self.api.requests().into_iter().filter(|asked| asked.path.contains(&grant)).collect(),
        }
    }

    pub(crate) fn heard(&self) -> [usize; 3] {
        [self.smtp.mails().len(), self.hook.requests().len(), self.api.requests().len()]
    }
}

/// Messages about one theft.
#[derive(Debug)]
pub(crate) struct Theft {
    pub(crate) mails: Vec<String>,
    pub(crate) hooks: Vec<Asked>,
    pub(crate) revocations: Vec<Asked>,
}

impl Theft {
    pub(crate) fn message_ids(&self) -> BTreeSet<&str> {
        let id = |mail| str::lines(mail).find(|line| line.starts_with("Message-ID: "));
        self.mails.iter().map(|mail| id(mail).unwrap_or_else(|| panic!("no Message-ID in\n{mail}"))).collect()
    }

    pub(crate) fn webhook_ids(&self) -> BTreeSet<Option<&str>> {
        self.hooks.iter().map(|asked| asked.header("webhook-id")).collect()
    }

    pub(crate) fn revocation_keys(&self) -> BTreeSet<Option<&str>> {
        self.revocations.iter().map(|asked| asked.header("idempotency-key")).collect()
    }
}
