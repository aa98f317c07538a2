//! `[alert]`: the channels, `[[alert.route]]`, and the fallback.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::tree::channel_hint;
use crate::deliver::{DigestSettings, Route, RouteOf, Routes};
use crate::notify::{ChannelSettings, EmailSettings, WebhookSettings};
use crate::verdict::{RuleId, Severity};

/// `[[alert.route]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RouteSettings {
    /// The lowest severity.
    severity: Option<Severity>,
    /// Tenants, or one of them.
    tenant: Option<Vec<String>>,
    /// Rules, one of which fired.
    rule: Option<Vec<RuleId>>,
    channels: Vec<String>,
    /// Later routes count as well.
    #[serde(rename = "continue")]
    continues: bool,
    /// The route is for notices, not for incidents.
    notices: bool,
}

/// Messages per hour that a channel for people gets one by one, unless `[alert.digest.NAME]` sets another number.
const FOR_PEOPLE_PER_HOUR: usize = 60;

/// `[alert.digest.NAME]`: from when on alerts of the channel NAME below a severity are collected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSection {
    /// Messages per hour and recipient that are sent one by one. 0: nothing is collected.
    max_per_hour: usize,
    /// Alerts of this or a higher severity are never collected.
    #[serde(default = "critical")]
    below: Severity,
    /// Time from the first collected alert to the digest.
    #[serde(default = "quarter_of_an_hour")]
    interval_ms: u64,
}

impl DigestSection {
    const FOR_PEOPLE: Self =
        Self { max_per_hour: FOR_PEOPLE_PER_HOUR, below: critical(), interval_ms: quarter_of_an_hour() };

    const fn settings(&self) -> DigestSettings {
        DigestSettings {
            messages_per_hour_max: self.max_per_hour,
            below: self.below,
            interval: Duration::from_millis(self.interval_ms),
        }
    }
}

const fn critical() -> Severity {
    Severity::Critical
}

const fn quarter_of_an_hour() -> u64 {
    900_000
}

/// Alert channels and routes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AlertSection {
    pub(crate) email: Option<EmailSettings>,
    pub(crate) webhook: Option<WebhookSettings>,
    /// Further channels by name.
    pub(crate) channel: BTreeMap<String, ChannelSettings>,
    /// Limits of messages, by name of the channel.
    digest: BTreeMap<String, DigestSection>,
    /// The first that matches an incident decides which channels get it.
    route: Vec<RouteSettings>,
    /// Names of channels that get the messages of a channel that fails, in order.
    fallback: Vec<String>,
    /// Time for which a channel has failed when its messages go to the fallback.
    fallback_after_ms: u64,
}

impl Default for AlertSection {
    fn default() -> Self {
        Self {
            email: None,
            webhook: None,
            channel: BTreeMap::new(),
            digest: BTreeMap::new(),
            route: Vec::new(),
            fallback: Vec::new(),
            fallback_after_ms: 900_000,
        }
    }
}

impl AlertSection {
    /// Names of all channels.
    fn names(&self) -> Vec<String> {
        let named = [("email", self.email.is_some()), ("webhook", self.webhook.is_some())];
        let named = named.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
        named.chain(self.channel.keys().cloned()).collect()
    }

    /// The error is the key and the problem.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let known = self.names();
        let unknown = |key: String, name: &str| {
            (key, format!("names `{name}`, which is no channel; {}", channel_hint(name, &known)))
        };
        for (at, route) in self.route.iter().enumerate() {
            let of = |key: &str| format!("alert.route[{at}].{key}");
            if route.channels.is_empty() {
                return Err((of("channels"), "is empty: a route must not silence alerts; name a channel".to_owned()));
            }
            if let Some((index, name)) = route.channels.iter().enumerate().find(|(_, name)| !known.contains(name)) {
                return Err(unknown(of(&format!("channels[{index}]")), name));
            }
            let is_empty = |list: Option<usize>| list == Some(0);
            if is_empty(route.tenant.as_ref().map(Vec::len)) {
                return Err((of("tenant"), "is empty, so the route matches nothing; remove the key".to_owned()));
            }
            if is_empty(route.rule.as_ref().map(Vec::len)) {
                return Err((of("rule"), "is empty, so the route matches nothing; remove the key".to_owned()));
            }
            let has_condition = route.severity.is_some() || route.tenant.is_some() || route.rule.is_some();
            if route.notices && has_condition {
                let problem = "is combined with a condition on incidents; use two routes".to_owned();
                return Err((of("notices"), problem));
            }
        }
        if let Some((index, name)) = self.fallback.iter().enumerate().find(|(_, name)| !known.contains(name)) {
            return Err(unknown(format!("alert.fallback[{index}]"), name));
        }
        for (name, digest) in &self.digest {
            let of = |key: &str| format!("alert.digest.{name}{key}");
            if !known.contains(name) {
                return Err(unknown(of(""), name));
            }
            if !(60_000..=86_400_000).contains(&digest.interval_ms) {
                let problem = "must be between 60000 (1 min) and 86400000 (1 day)".to_owned();
                return Err((of(".interval_ms"), problem));
            }
        }
        if !(1_000..=86_400_000).contains(&self.fallback_after_ms) {
            let problem = "must be between 1000 (1 s) and 86400000 (1 day)".to_owned();
            return Err(("alert.fallback_after_ms".to_owned(), problem));
        }
        Ok(())
    }

    /// Limits of messages, by name of the channel: those of the configuration, and the default of channels for people.
    pub(crate) fn digests(&self) -> BTreeMap<String, DigestSettings> {
        let named =
            self.channel.iter().filter(|(_, channel)| channel.kind.is_for_people()).map(|(name, _)| name.as_str());
        let for_people = self.email.iter().map(|_| "email").chain(named).map(|name| (name, &DigestSection::FOR_PEOPLE));
        let of_section = self.digest.iter().map(|(name, section)| (name.as_str(), section));
        let sections: BTreeMap<&str, &DigestSection> = for_people.chain(of_section).collect();
        let limited = sections.into_iter().filter(|(_, section)| section.max_per_hour > 0);
        limited.map(|(name, section)| (name.to_owned(), section.settings())).collect()
    }

    /// The routes. They are valid if [`Self::check`] accepts them.
    pub(crate) fn routes(&self) -> Routes {
        let route = |route: &RouteSettings| Route {
            of: if route.notices {
                RouteOf::Notices
            } else {
                RouteOf::Incidents {
                    severity: route.severity,
                    tenants: route.tenant.clone().map(BTreeSet::from_iter),
                    rules: route.rule.clone().map(BTreeSet::from_iter),
                }
            },
            channels: route.channels.clone(),
            continues: route.continues,
        };
        Routes {
            routes: self.route.iter().map(route).collect(),
            fallback: self.fallback.clone(),
            fallback_after: Duration::from_millis(self.fallback_after_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let channels = "[alert.channel.oncall]\nkind = 'alertmanager'\nurl = 'https://a.example'\n\
                        [alert.email]\nsmtp_url = 'smtps://m.example'\nfrom = 'w@example.com'\nto = ['a@example.com']\n";
        Config::from_text(&format!("{channels}{text}"), Path::new("t.toml"), []).map_err(|error| error.to_string())
    }

    fn mistake(text: &str) -> String {
        load(text).map(|_| ()).expect_err(text)
    }

    #[test]
    fn channel_errors_state_line_key_and_fix() {
        let channel = |keys: &str| mistake(&format!("[alert.channel.soc]\n{keys}"));
        insta::assert_snapshot!(channel("kind = 'slak'"), @"t.toml:9: unknown value `slak` of `alert.channel.soc.kind`; did you mean `slack`?");
        insta::assert_snapshot!(channel("kind = 'slack'\ntokne_file = 'secret'"), @"t.toml:10: unknown key `alert.channel.soc.tokne_file`; did you mean `token_file`?");
        insta::assert_snapshot!(channel("kind = 'teams'\nwebhook_url = 5"), @"t.toml:10: `alert.channel.soc.webhook_url` must be a string in quotes, not a value of another type");
        insta::assert_snapshot!(channel("url = 'https://a.example'"), @"t.toml:8: [alert.channel.soc] needs `kind`");
    }

    #[test]
    fn route_errors_state_line_key_and_fix() {
        insta::assert_snapshot!(mistake("[[alert.route]]\nchannels = ['email',\n'onccall']"), @"t.toml:10: `alert.route[0].channels[1]` names `onccall`, which is no channel; did you mean `oncall`?");
        insta::assert_snapshot!(mistake("[[alert.route]]\nseverity = 'high'\nchannels = []"), @"t.toml:10: `alert.route[0].channels` is empty: a route must not silence alerts; name a channel");
        insta::assert_snapshot!(mistake("[[alert.route]]\nseverity = 'high'"), @"t.toml:8: `alert.route[0].channels` is empty: a route must not silence alerts; name a channel");
        insta::assert_snapshot!(mistake("[[alert.route]]\nchannels = ['email']\n[[alert.route]]\nchanels = ['email']"), @"t.toml:11: unknown key `alert.route[1].chanels`; did you mean `channels`?");
        insta::assert_snapshot!(mistake("[[alert.route]]\nrule = ['refresh_resue']\nchannels = ['email']"), @"t.toml:9: unknown value `refresh_resue` of `alert.route[0].rule[0]`; did you mean `refresh_reuse`?");
        insta::assert_snapshot!(mistake("[[alert.route]]\nseverity = 'hi'\nchannels = ['email']"), @"t.toml:9: unknown value `hi` of `alert.route[0].severity`; did you mean `high`?");
        insta::assert_snapshot!(mistake("[[alert.route]]\ntenant = []\nchannels = ['email']"), @"t.toml:9: `alert.route[0].tenant` is empty, so the route matches nothing; remove the key");
        insta::assert_snapshot!(mistake("[[alert.route]]\nnotices = true\nseverity = 'high'\nchannels = ['email']"), @"t.toml:9: `alert.route[0].notices` is combined with a condition on incidents; use two routes");
        insta::assert_snapshot!(mistake("[alert]\nfallback = ['mail']"), @"t.toml:9: `alert.fallback[0]` names `mail`, which is no channel; did you mean `email`?");
        insta::assert_snapshot!(mistake("[alert]\nfallback_after_ms = 1"), @"t.toml:9: `alert.fallback_after_ms` must be between 1000 (1 s) and 86400000 (1 day)");
    }

    #[test]
    fn digest_errors_state_line_key_and_fix() {
        insta::assert_snapshot!(mistake("[alert.digest.oncal]\nmax_per_hour = 5"), @"t.toml:8: `alert.digest.oncal` names `oncal`, which is no channel; did you mean `oncall`?");
        insta::assert_snapshot!(mistake("[alert.digest.oncall]\nmax_per_hour = 1\ninterval_ms = 1"), @"t.toml:10: `alert.digest.oncall.interval_ms` must be between 60000 (1 min) and 86400000 (1 day)");
        insta::assert_snapshot!(mistake("[alert.digest.oncall]\nbelow = 'high'"), @"t.toml:8: [alert.digest.oncall] needs `max_per_hour`");
        let digests =
            load("[alert.digest.email]\nmax_per_hour = 5").expect("the configuration is right").alert.digests();
        let expected =
            DigestSettings { messages_per_hour_max: 5, below: Severity::Critical, interval: Duration::from_secs(900) };
        assert_eq!(digests["email"], expected);
    }

    #[test]
    fn channels_for_people_have_a_digest_by_default() {
        let teams = "[alert.channel.soc]\nkind = 'teams'\nwebhook_url = 'https://a.example'\n";
        let digests = |text: &str| load(&format!("{teams}{text}")).expect("the configuration is right").alert.digests();
        let default = digests("");
        assert_eq!(default.keys().collect::<Vec<_>>(), ["email", "soc"], "alertmanager groups alerts itself");
        assert!(default.values().all(|of| (of.messages_per_hour_max, of.below) == (60, Severity::Critical)));
        let changed = digests("[alert.digest.soc]\nmax_per_hour = 0\n[alert.digest.oncall]\nmax_per_hour = 5");
        assert_eq!(changed.keys().collect::<Vec<_>>(), ["email", "oncall"], "0 turns the digest off");
    }

    #[test]
    fn routes_have_their_conditions_and_channels() {
        let text = "[alert]\nfallback = ['email']\nfallback_after_ms = 60000\n[[alert.route]]\nseverity = 'critical'\n\
                    tenant = ['acme']\nrule = ['refresh_reuse']\nchannels = ['oncall']\ncontinue = true";
        let routes = load(text).expect("the configuration is right").alert.routes();
        assert_eq!((routes.routes.len(), routes.fallback_after.as_secs()), (1, 60));
        assert!(routes.routes[0].continues);
        assert_eq!(
            (&*routes.routes[0].channels, &*routes.fallback),
            (&["oncall".to_owned()][..], &["email".to_owned()][..])
        );
    }
}
