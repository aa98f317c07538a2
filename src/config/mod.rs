//! The configuration and the rule files.
//!
//! The configuration is one TOML file. Environment variables override it, and every secret can be in a file of its own.
//!
//! The section of each adapter has the settings type of the adapter. Errors state file, line, key and the most similar
//! valid key. Relative paths in the file are relative to the file.

mod alert;
mod check;
mod key_file;
mod memory;
pub(crate) mod reload;
mod rule_change;
pub mod rule_file;
mod secret_file;
mod sections;
mod tree;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use serde::Deserialize;

pub(crate) use self::alert::AlertSection;
use self::rule_file::{LoadedRules, RuleFileError};
pub(crate) use self::sections::{
    Admin, DenylistSection, Detection, FeedbackSection, FileSection, IncidentsSection, Outbox, Privacy, Revoke,
    SilencesSection, SnapshotSection, SourceSection,
};
pub(crate) use self::tree::{ConfigError, channel_hint};
use self::tree::{Places, Tree};
use crate::deliver::BreakerSettings;
use crate::engine;
use crate::enrich::GeoSettings;
use crate::notify::UserNoticeSettings;
use crate::signals_receiver::SignalsReceiverSettings;
use crate::source::kafka::StateTopicUse;
use crate::store::{StoreSettings, library_in};
use crate::token::TokenHasher;
use crate::user_api::UserApiSettings;

/// Keys whose values are paths, without those of secrets.
const PATHS: [&str; 19] = [
    "rules_dir",
    "geoip.city",
    "geoip.asn",
    "store.library",
    "store.spool_dir",
    "alert.email.ca_file",
    "alert.webhook.ca_file",
    "notify_users.email.ca_file",
    "notify_users.templates_dir",
    "notify_users.webhook.ca_file",
    "revoke.http.ca_file",
    "revoke.http.preset_file",
    "source.file.path",
    "outbox.dir",
    "snapshots.dir",
    "user_api.jwt.jwks_file",
    "user_api.jwt.ca_file",
    "signals_receiver.jwks_file",
    "signals_receiver.ca_file",
];

/// The same of each `[alert.channel.NAME]`.
const CHANNEL_PATHS: [&str; 3] = ["ca_file", "path", "preset_file"];

/// The configuration. `docs/configuration.md` describes the keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Folder of rule files. Without it, the rules of the build are used.
    pub(crate) rules_dir: Option<PathBuf>,
    pub(crate) geoip: GeoSettings,
    pub(crate) source: SourceSection,
    pub(crate) store: StoreSettings,
    pub(crate) alert: AlertSection,
    pub(crate) revoke: Revoke,
    /// Without it, there is no denylist.
    pub(crate) denylist: Option<DenylistSection>,
    /// Without it, there are no silences.
    pub(crate) silences: Option<SilencesSection>,
    /// Without it, detection does not learn from feedback.
    pub(crate) feedback: Option<FeedbackSection>,
    pub(crate) incidents: IncidentsSection,
    /// Without it, users get no messages.
    pub(crate) notify_users: Option<UserNoticeSettings>,
    /// Without it, there is no API for users.
    pub(crate) user_api: Option<UserApiSettings>,
    /// Without it, the service does not listen for security events.
    pub(crate) signals_receiver: Option<SignalsReceiverSettings>,
    pub(crate) detection: Detection,
    pub(crate) outbox: Outbox,
    pub(crate) snapshots: SnapshotSection,
    pub(crate) privacy: Privacy,
    pub(crate) admin: Admin,
    #[serde(skip)]
    pub(crate) places: Places,
    /// Settings that the operator may not have intended, a sentence each.
    #[serde(skip)]
    pub(crate) warnings: Vec<String>,
    /// Key path of a secret whose value is in the configuration file itself.
    #[serde(skip)]
    pub(crate) secret_in_file: Option<String>,
}

impl Config {
    /// When revocations of a rule, an application or a tenant stop. `None` if nothing is requested.
    pub(crate) fn breakers(&self) -> Option<BreakerSettings> {
        self.revoke.breakers(self.source.has_one_tenant())
    }

    /// Reads the file at `path`, if there is one, and the environment variables, which override it.
    ///
    /// # Errors
    /// Returns the first error with its place.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (text, about) = match path {
            Some(path) => read_text(path)
                .map(|(text, about)| (text, Some(about)))
                .map_err(|error| ConfigError::new(path.display(), format!("cannot read the configuration: {error}")))?,
            None => (String::new(), None),
        };
        // The names of all variables of the configuration are ASCII.
        let environment =
            std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        let file = path.unwrap_or(Path::new("configuration"));
        let mut config = Self::from_text(&text, file, environment)?;
        if let (Some(key), Some(about)) = (&config.secret_in_file, &about)
            && let Some(problem) = secret_file::exposure(about, file)
        {
            let warning = format!("`{key}` is in {}, and {problem}, or use `{key}_file`", file.display());
            config.warnings.push(warning);
        }
        config.store.library = config.store.library.or_else(|| Some(library_in(&cache_folder()?)));
        Ok(config)
    }

    /// As [`Self::load`], with the contents of `file` and the environment as arguments.
    pub(crate) fn from_text(
        text: &str,
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let base = file.parent().unwrap_or(Path::new(""));
        let mut tree = Tree::parse(text, file)?;
        tree.override_from(environment)?;
        let secret_in_file = tree.secret_in_file();
        tree.read_secrets(base)?;
        let channels = tree.sections_in(&["alert", "channel"]);
        let of_channels =
            channels.iter().flat_map(|name| CHANNEL_PATHS.map(|key| format!("alert.channel.{name}.{key}")));
        for path in PATHS.map(str::to_owned).into_iter().chain(of_channels) {
            tree.resolve(&path, |text| (text != "-").then(|| base.join(text).to_string_lossy().into_owned()));
        }
        tree.resolve("store.url", |url| {
            let directory = url.strip_prefix("embedded:")?;
            Some(format!("embedded:{}", base.join(directory).display()))
        });
        let mut config: Self = tree.deserialize()?;
        config.places = tree.places().clone();
        config.secret_in_file = secret_in_file;
        if let (Some(kafka), Some(_)) = (&mut config.source.kafka, &config.snapshots.dir)
            && kafka.state_topic == StateTopicUse::IfPermitted
        {
            kafka.state_topic = StateTopicUse::Never;
        }
        if let Some(kafka) = &mut config.source.kafka {
            kafka.sightings_topic = config.detection.campaigns;
        }
        config.check().map_err(|(key, problem)| config.mistake(key, problem))?;
        config
            .alert
            .check()
            .and_then(|()| config.revoke.check())
            .map_err(|(key, problem)| config.mistake(&key, format!("`{key}` {problem}")))?;
        config.warnings.extend(config.memory_warning());
        if !config.admin.listen.ip().is_loopback() {
            let warning = "clients of `admin.listen` send `admin.token` unencrypted: use a TLS proxy, or listen on \
                           127.0.0.1";
            config.warnings.push(warning.to_owned());
        }
        Ok(config)
    }

    /// Error about the value of `key`, with the place of the value.
    pub(crate) fn mistake(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(self.places.of(key), problem)
    }

    /// Settings of the engine of all partitions together.
    pub(crate) fn engine_settings(&self) -> engine::Settings {
        engine::Settings {
            prior_log_odds: self.detection.prior_log_odds,
            alert_budget_per_day: self.detection.alert_budget_per_day,
            alert_budget_total_per_day: self.detection.alert_budget_total_per_day,
            lateness_ms_max: self.detection.lateness_ms_max,
            clock_skew_ms_max: self.detection.clock_skew_ms_max,
            mode: self.revoke.mode,
            revoke_margin: self.detection.revoke_margin,
            baselines_max: self.detection.baselines_max,
            recent_event_ids_max: self.detection.recent_event_ids_max,
            memory_bytes_max: self.detection.states_bytes(),
            confirmed: false,
            campaigns: self.detection.campaigns,
            without: Vec::new(),
        }
    }

    /// Loads the configured rules. The error lists all errors of all files.
    pub(crate) fn load_rules(&self) -> Result<LoadedRules, Vec<RuleFileError>> {
        self.rules_dir.as_deref().map_or_else(rule_file::shipped, rule_file::load)
    }

    /// Origin of the rules, for messages.
    pub(crate) fn rules_origin(&self) -> String {
        self.rules_dir.as_ref().map_or_else(|| "this build".to_owned(), |dir| dir.display().to_string())
    }

    /// Hasher of bearer values with the configured key, or with the key in the outbox folder, which is created if it does
    /// not exist. The hash of a token stays the same as long as the outbox folder is kept.
    pub(crate) fn token_hasher(&self) -> Result<TokenHasher, ConfigError> {
        let ids = self.privacy.token_ids;
        if let Some(key) = &self.privacy.token_key {
            return Ok(TokenHasher::new(key.expose_secret().as_bytes()).with_ids(ids));
        }
        let file = self.outbox.dir.join("token.key");
        let key = key_file::read_or_make(&file).map_err(|error| {
            let fix = "set privacy.token_key_file, or make outbox.dir writable";
            ConfigError::new(file.display(), format!("cannot read or create the key for token hashes: {error}; {fix}"))
        })?;
        Ok(TokenHasher::new(&key).with_ids(ids))
    }
}

fn read_text(path: &Path) -> std::io::Result<(String, std::fs::Metadata)> {
    let mut file = std::fs::File::open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, file.metadata()?))
}

/// Folder in which `deploy/setup.sh` stores its downloads: `TOKENWARDEN_CACHE`, or `tokenwarden` in the user's cache
/// folder. `None` if neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    folder("TOKENWARDEN_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("tokenwarden")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/tokenwarden")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::SecretString;

    use super::*;
    use crate::feed::{Feed, Tenant};
    use crate::verdict::Mode;
    use crate::wire::Format;

    fn load(text: &str) -> Result<Config, String> {
        load_with(text, &[])
    }

    fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Config::from_text(text, Path::new("etc/tokenwarden.toml"), environment).map_err(|error| error.to_string())
    }

    fn mistake(text: &str) -> String {
        load(text).expect_err("the configuration is wrong")
    }

    #[test]
    fn errors_state_file_line_key_and_similar_key() {
        insta::assert_snapshot!(mistake("rules_dri = 'x'"), @"etc/tokenwarden.toml:1: unknown key `rules_dri`; did you mean `rules_dir`?");
        insta::assert_snapshot!(mistake("[revoke]\nmode = 'shadow'\nmax_per_huor = 3"), @"etc/tokenwarden.toml:3: unknown key `revoke.max_per_huor`; did you mean `max_per_hour`?");
        insta::assert_snapshot!(mistake("[revoke]\nmode = 'enforced'"), @"etc/tokenwarden.toml:2: unknown value `enforced` of `revoke.mode`; did you mean `enforce`?");
        insta::assert_snapshot!(mistake("[revoke]\nmax_per_hour = 'many'"), @r#"etc/tokenwarden.toml:2: `revoke.max_per_hour` must be a whole number from 0, not string "many""#);
        insta::assert_snapshot!(mistake("[detection]\n\nlateness_ms_max = -5"), @"etc/tokenwarden.toml:3: `detection.lateness_ms_max` must be between 0 and 86400000 (1 day)");
        insta::assert_snapshot!(mistake("[detection]\nclock_skew_ms_max = 60000"), @"etc/tokenwarden.toml:2: `detection.clock_skew_ms_max` must be between 3600000 (1 hour) and 2592000000 (30 days)");
        insta::assert_snapshot!(mistake("[detction]\nlateness_ms_max = 5"), @"etc/tokenwarden.toml:1: unknown key `detction`; did you mean `detection`?");
        insta::assert_snapshot!(mistake("[revoke\nmode = 'shadow'"), @"etc/tokenwarden.toml:1: unclosed table, expected `]`");
        insta::assert_snapshot!(mistake("[admin]\nlisten = '0.0.0.0:9464'"), @"etc/tokenwarden.toml:2: `admin.listen` is reachable from other machines: set `admin.token_file`, or listen on 127.0.0.1");
        insta::assert_snapshot!(mistake("[admin]\nlisten = 'localhost'"), @"etc/tokenwarden.toml:2: `admin.listen`: expected ADDRESS:PORT, for example 127.0.0.1:9464");
        insta::assert_snapshot!(mistake("[snapshots]\ninterval_ms = 60"), @"etc/tokenwarden.toml:2: `snapshots.interval_ms` must be between 1000 (1 s) and 86400000 (1 day)");
        insta::assert_snapshot!(mistake("[snapshots]\ndri = 'x'"), @"etc/tokenwarden.toml:2: unknown key `snapshots.dri`; did you mean `dir`?");
        insta::assert_snapshot!(mistake("[store]\ncluster = 'c'"), @"etc/tokenwarden.toml:2: `store.cluster` needs a ClickHouse server: set store.url to http(s)://HOST:PORT of a node, or remove it");
        insta::assert_snapshot!(mistake("[store]\nurl = 'http://a:8123'\ncluster = \"c' ON\""), @"etc/tokenwarden.toml:3: `store.cluster` must be the name of a cluster in system.clusters: 1 to 100 letters, digits, `_`, `-`, `.`, or a macro such as {cluster}");
        insta::assert_snapshot!(mistake("[source.kafka]\nbrokers = 'x'\nstate_topic = true\n[snapshots]\ndir = 'x'"), @"etc/tokenwarden.toml:5: `snapshots.dir` and source.kafka.state_topic are both set; remove one");
        insta::assert_snapshot!(mistake("[source.kafka]\nbrokers = 'x'\n[detection]\ncampaigns = true"), @"etc/tokenwarden.toml:4: `detection.campaigns` with source.kafka needs `privacy.token_key_file`, the same for all members: they compare names by hashes under this key");
        insta::assert_snapshot!(mistake("admin = 5"), @"etc/tokenwarden.toml:1: `admin` must be a section, not integer `5`");
    }

    #[test]
    fn source_sets_confirmed_and_tenant() {
        let config = load(
            "[source.kafka]\nbrokers = 'x'\ntopics = ['a', { topic = 'b', format = 'okta', confirmed = true, tenant = 'acme' }]",
        );
        let feeds = config.expect("the configuration is right").source.kafka.expect("Kafka").feeds();
        let expected = Feed { format: Format::Okta, confirmed: true, tenant: Tenant::new("acme") };
        assert_eq!((feeds["a"], feeds["b"]), (Feed::default(), expected));
        let config = load("[source.file]\npath = '-'\nformat = 'okta'\nconfirmed = true\ntenant = 'acme'");
        assert_eq!(config.expect("the configuration is right").source.file.map(|file| file.feed()), Some(expected));
        insta::assert_snapshot!(mistake("[source.file]\npath = '-'\ntenant = ''"), @"etc/tokenwarden.toml:3: `source.file.tenant`: expected a tenant name of 1 to 1024 bytes without invisible characters");
        insta::assert_snapshot!(mistake("[source.kafka]\nbrokers = 'x'\ntopics = [{ topic = 'b', confirmd = true }]"), @"etc/tokenwarden.toml:3: unknown key `source.kafka.topics[0].confirmd`; did you mean `confirmed`?");
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        let error = mistake("[admin]\ntoken = 123456789");
        assert!(!error.contains("123456789"), "{error}");
        insta::assert_snapshot!(error, @"etc/tokenwarden.toml:2: `admin.token` must be a string in quotes, not a value of another type");
    }

    #[test]
    fn environment_overrides_values_of_every_type() {
        let config = load_with(
            "[detection]\nprior_log_odds = -6.0\n[revoke]\nmode = 'shadow'",
            &[
                ("TOKENWARDEN__DETECTION__PRIOR_LOG_ODDS", "-8"),
                ("TOKENWARDEN__DETECTION__TRUST_EVENT_GEO", "true"),
                ("TOKENWARDEN__REVOKE__MODE", "enforce"),
                ("TOKENWARDEN__ADMIN__TOKEN", "12345"),
                ("TOKENWARDEN__RULES_DIR", "12"),
                ("TOKENWARDEN_CACHE", "/tmp"),
            ],
        )
        .expect("the configuration is right");
        assert!((config.detection.prior_log_odds + 8.0).abs() < 1e-12);
        assert!(config.detection.trust_event_geo);
        assert_eq!(config.revoke.mode, Mode::Enforce);
        assert_eq!(config.admin.token.as_ref().map(SecretString::expose_secret), Some("12345"));
        assert_eq!(
            config.rules_dir.as_deref(),
            Some(Path::new("12")),
            "paths in the environment are relative to the working directory"
        );
    }

    #[test]
    fn errors_in_the_environment_name_the_variable() {
        let error = |name, text| load_with("", &[(name, text)]).expect_err("the environment is wrong");
        insta::assert_snapshot!(error("TOKENWARDEN__REVOKE__MODEE", "shadow"), @"environment variable TOKENWARDEN__REVOKE__MODEE: unknown key `revoke.modee`; did you mean `mode`?");
        insta::assert_snapshot!(error("TOKENWARDEN__REVOKE__MAX_PER_HOUR", "many"), @r#"environment variable TOKENWARDEN__REVOKE__MAX_PER_HOUR: `revoke.max_per_hour` must be a whole number from 0, not string "many""#);
        insta::assert_snapshot!(error("TOKENWARDEN__REVOKE__", "many"), @"environment variable TOKENWARDEN__REVOKE__: has no key; use the form TOKENWARDEN__SECTION__KEY");
    }

    #[test]
    fn secrets_are_read_from_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "s3cret\n").expect("a file");
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("permissions");
        let file = folder.path().join("tokenwarden.toml");
        let load = |text: &str, environment: &[(&str, &str)]| {
            let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            Config::from_text(text, &file, environment)
                .map(|config| config.admin.token.map(|token| token.expose_secret().to_owned()))
                .map_err(|error| error.problem)
        };
        assert_eq!(load("[admin]\ntoken_file = 'secret'", &[]), Ok(Some("s3cret".into())));
        let variable = [("TOKENWARDEN__ADMIN__TOKEN", "other")];
        assert_eq!(load("[admin]\ntoken_file = 'secret'", &variable), Ok(Some("other".into())));
        let file = folder.path().join("secret").display().to_string();
        let variable = [("TOKENWARDEN__ADMIN__TOKEN_FILE", file.as_str())];
        assert_eq!(load("[admin]\ntoken = 'x'", &variable), Ok(Some("s3cret".into())));
        assert_eq!(
            load("[admin]\ntoken = 'x'\ntoken_file = 'secret'", &[]),
            Err("both `token` and `token_file` are set; remove one".into())
        );
        assert!(
            load("[admin]\ntoken_file = 'none'", &[]).is_err_and(|error| error.contains("cannot read `token_file`"))
        );
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o604)).expect("permissions");
        let variable = [("TOKENWARDEN__ADMIN__TOKEN_FILE", file.as_str())];
        assert!(
            load("", &variable).is_err_and(|error| error.contains("other users can read or change it (mode 0604)"))
        );
    }

    #[test]
    fn secret_in_a_readable_configuration_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("t.toml");
        let warnings = |text: &str, mode| {
            std::fs::write(&file, text).expect("a file");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("permissions");
            Config::load(Some(&file)).expect("the configuration is right").warnings
        };
        let kafka = "[source.kafka]\nbrokers = 'kafka:9093'\n[source.kafka.properties]\n";
        let password = format!("{kafka}'sasl.password' = 's3cret'");
        for (text, key) in
            [(password.as_str(), "source.kafka.properties.sasl.password"), ("[admin]\ntoken = 's3cret'", "admin.token")]
        {
            let found = warnings(text, 0o644);
            assert!(found.len() == 1 && found[0].starts_with(&format!("`{key}` is in ")), "{found:?}");
            assert!(!found[0].contains("s3cret"), "{found:?}");
            assert_eq!(warnings(text, 0o600), [""; 0], "{key}");
        }
        assert_eq!(warnings(&format!("{kafka}'sasl.username' = 'me'"), 0o644), [""; 0]);
    }

    #[test]
    fn plaintext_credentials_must_be_allowed() {
        let kafka = |brokers: &str, more: &str| {
            load(&format!("[source.kafka]\nbrokers = '{brokers}'\n{more}")).err().unwrap_or_default()
        };
        let properties = "properties = { 'security.protocol' = 'SASL_PLAINTEXT', 'sasl.mechanism' = 'PLAIN' }";
        for brokers in ["kafka:9092", "127.0.0.1:9092,10.0.0.7:9092", "[fd00::7]:9092"] {
            assert!(kafka(brokers, properties).contains("credentials be sent unencrypted"), "{brokers}");
        }
        assert_eq!(kafka("127.0.0.1:9092, localhost:9093,[::1]:9094", properties), "");
        assert_eq!(kafka("kafka:9092", &format!("allow_plaintext = true\n{properties}")), "");
        assert_eq!(kafka("kafka:9092", &properties.replace("PLAINTEXT", "SSL")), "");
        let endpoint = "properties = { 'sasl.oauthbearer.token.endpoint.url' = 'http://id.example/token' }";
        assert!(kafka("kafka:9092", endpoint).contains("the client's secret"), "{}", kafka("kafka:9092", endpoint));
        assert_eq!(kafka("kafka:9092", &endpoint.replace("http:", "https:")), "");
        let open = load("[admin]\nlisten = '0.0.0.0:9464'\ntoken = 's3cret'").expect("it is right");
        assert!(open.warnings.iter().any(|warning| warning.contains("unencrypted")), "{:?}", open.warnings);
    }

    #[test]
    fn paths_in_the_file_are_relative_to_the_file() {
        let config = load("rules_dir = 'rules'\n[outbox]\ndir = '/var/outbox'").expect("the configuration is right");
        assert_eq!(config.rules_dir.as_deref(), Some(Path::new("etc/rules")));
        assert_eq!(config.outbox.dir, Path::new("/var/outbox"));
    }
}
