//! Creates the configured alert channels, revoker and outbox.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::failure::Failure;
use super::{denylist, record_log, silence};
use crate::closing::Closing;
use crate::config::Config;
use crate::deliver::{Breakers, Deliverer, Outbox, Running, Settings, Silences, UserLimits, UserNotices};
use crate::denylist::{DenyingRevoker, IfLogFails, LOG_RETRY};
use crate::engine;
use crate::evidence::StoredRefutations;
use crate::notify::{Email, UserTexts, Webhook, open_channel, open_users};
use crate::port::{
    self, BreakerRecord, Clock, DenylistRecord, MessageTopic, Mistake, Notifier, RecordLog, Revoker, SilenceRecord,
    Store,
};
use crate::repeating::Repeating;
use crate::revoke::HttpRevoker;
use crate::rule::RuleSet;
use crate::source::kafka::AlertTopic;
use crate::store::ClickHouse;
use crate::telemetry::{Health, Metrics};
use crate::token::TokenIds;
use crate::verdict::Mode;

/// Outbox, alert channels, denylist and revoker.
pub(super) struct Delivery {
    outbox: Arc<Outbox>,
    notifiers: Vec<Arc<dyn Notifier>>,
    denylist: Option<Arc<dyn RecordLog<DenylistRecord>>>,
    revoker: Option<Arc<dyn Revoker>>,
    settings: Settings,
}

/// Creates the configured channels and revoker, and locks the outbox.
pub(super) fn open(
    config: &Config,
    rules: &watch::Receiver<Arc<RuleSet>>,
    clock: &Arc<dyn Clock>,
) -> Result<Delivery, Failure> {
    let notifiers = notifiers(config, rules, clock)?;
    let outbox = Outbox::open(&config.outbox.dir, &notifiers, Arc::clone(clock)).map_err(|error| {
        Failure::Unavailable(format!("cannot open the outbox {} (outbox.dir): {error}", config.outbox.dir.display()))
    })?;
    let settings = Settings { mode: config.revoke.mode, limits: config.revoke.limits(), ..Settings::default() };
    let silences = silences(config, clock)?;
    let outbox = outbox.with_routes(config.alert.routes()).with_digests(config.alert.digests());
    let outbox = outbox.with_silences(silences).with_breakers(breakers(config, clock)?);
    let outbox = Arc::new(outbox.with_users(users(config, clock)?));
    let denylist = denylist::open(config)?;
    let revoker = revoker(config, clock, denylist.clone(), IfLogFails::RetryEntry)?;
    Ok(Delivery { outbox, notifiers, denylist, revoker, settings })
}

/// Channels and texts of messages to users, if they are configured.
pub(super) fn users(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<UserNotices>>, Failure> {
    let Some(settings) = &config.notify_users else { return Ok(None) };
    let notifiers = open_users(settings, Arc::clone(clock)).map_err(wrong(config, "notify_users"))?;
    let texts = UserTexts::new(settings.templates_dir.clone());
    let limits = UserLimits { per_user_per_day: settings.per_user_per_day, per_hour: settings.max_per_hour };
    Ok(Some(Arc::new(UserNotices { notifiers, texts, limits })))
}

/// The silences, if they are configured.
fn silences(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Silences>>, Failure> {
    let Some(silence::Opened { log, limits }) = silence::open(config)? else { return Ok(None) };
    record_log::prepare::<SilenceRecord>(config, clock.now_millis())?;
    Ok(Some(Silences::follow(log, Arc::clone(clock), limits)))
}

/// The breakers, unless nothing may be revoked. If their log cannot be created, they work, and a stop cannot be lifted
/// until it exists.
fn breakers(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Breakers>>, Failure> {
    let Some(settings) = config.breakers() else { return Ok(None) };
    if let Err(error) = record_log::prepare::<BreakerRecord>(config, clock.now_millis()) {
        tracing::error!(%error, "stops of revocations cannot be lifted until their log exists");
    }
    let refutations = StoredRefutations::new(config.store.clone());
    Ok(Some(Breakers::follow(record_log::open(config)?, Arc::clone(clock), Some(Arc::new(refutations)), settings)))
}

/// Tasks that run until the process ends, if the configuration needs them.
pub(super) struct IncidentTasks {
    closing: Option<Closing>,
    repeating: Option<Repeating>,
}

impl IncidentTasks {
    pub(super) fn start(self, runtime: &Handle) {
        if let Some(closing) = self.closing {
            runtime.spawn(closing.run());
        }
        if let Some(repeating) = self.repeating {
            runtime.spawn(repeating.run());
        }
    }
}

impl Delivery {
    /// Settings that the operator may not have intended, a sentence each.
    pub(super) fn warnings(&self, config: &Config) -> Vec<Cow<'static, str>> {
        let mut warnings: Vec<Cow<'static, str>> = Vec::new();
        if self.notifiers.is_empty() {
            warnings.push(
                "alerts are not sent: no [alert.email], [alert.webhook] or [alert.channel.NAME] is configured".into(),
            );
        }
        if config.revoke.mode == Mode::Enforce && self.revoker.is_none() {
            warnings.push(
                "tokens cannot be revoked: revoke.mode is enforce, but [revoke.http] and [denylist] are missing".into(),
            );
        }
        if let Some(revoker) = &self.revoker {
            warnings.extend(doubts(config, &**revoker).map(Cow::Borrowed));
            warnings.extend(small_margin(config, &**revoker).map(Cow::Owned));
        }
        warnings
    }

    /// The log of the denylist, if one is configured.
    pub(super) fn denylist(&self) -> Option<Arc<dyn RecordLog<DenylistRecord>>> {
        self.denylist.clone()
    }

    /// The tasks that follow incidents after their alerts.
    pub(super) fn incident_tasks(
        &self,
        config: &Config,
        store: &Arc<ClickHouse>,
        clock: &Arc<dyn Clock>,
        health: &Arc<Health>,
    ) -> IncidentTasks {
        let after_days = config.incidents.close_after_days;
        // Without a provider, nothing is closed: entries of a denylist end, and then a token works again.
        let closing = (after_days > 0 && config.revoke.http.is_some()).then(|| Closing {
            settings: config.store.clone(),
            store: Arc::clone(store),
            outbox: Arc::clone(&self.outbox),
            clock: Arc::clone(clock),
            health: Arc::clone(health),
            after_days,
        });
        let outbox = Arc::clone(&self.outbox);
        let repeating = Repeating::new(config.store.clone(), outbox, &self.notifiers, Arc::clone(clock));
        IncidentTasks { closing, repeating }
    }

    /// The outbox, for notices.
    pub(super) fn outbox(&self) -> Arc<dyn port::Outbox> {
        Arc::clone(&self.outbox) as Arc<dyn port::Outbox>
    }

    /// What revokes, if it is configured.
    pub(super) fn revoker(&self) -> Option<Arc<dyn Revoker>> {
        self.revoker.clone()
    }

    /// Starts the deliverer. Returns the outbox for the worker, and a handle to stop the deliverer.
    pub(super) fn start<S: Store + 'static>(
        self,
        store: &Arc<S>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
        runtime: &Handle,
    ) -> (Arc<dyn port::Outbox>, Running)
    where
        S::Rows: 'static,
    {
        let outbox = Arc::clone(&self.outbox);
        let deliverer = Deliverer {
            outbox: self.outbox,
            notifiers: self.notifiers,
            revoker: self.revoker,
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            health: Arc::clone(health),
            settings: self.settings,
        };
        (outbox, deliverer.start(runtime))
    }
}

/// A notifier for each recipient of mail, and one for each other channel.
pub(super) fn notifiers(
    config: &Config,
    rules: &watch::Receiver<Arc<RuleSet>>,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<dyn Notifier>>, Failure> {
    let mut notifiers: Vec<Arc<dyn Notifier>> = Vec::new();
    if let Some(settings) = &config.alert.email {
        for email in
            Email::new("email", settings, rules.clone()).map_err(Mistake::from).map_err(wrong(config, "alert.email"))?
        {
            notifiers.push(Arc::new(email));
        }
    }
    if let Some(settings) = &config.alert.webhook {
        let webhook = Webhook::new("webhook", settings, Arc::clone(clock));
        notifiers.push(Arc::new(webhook.map_err(Mistake::from).map_err(wrong(config, "alert.webhook"))?));
    }
    let open_topic = |topic: &str| -> Result<Arc<dyn MessageTopic>, String> {
        let kafka = config.source.kafka.as_ref().ok_or("needs the brokers of [source.kafka], which is missing")?;
        Ok(Arc::new(AlertTopic::new(kafka, topic)?))
    };
    for (name, settings) in &config.alert.channel {
        let section = format!("alert.channel.{name}");
        let opened = open_channel(name, settings, rules.clone(), Arc::clone(clock), &open_topic);
        notifiers.extend(opened.map_err(Mistake::from).map_err(wrong(config, &section))?);
    }
    Ok(notifiers)
}

/// What revokes: the denylist and the provider, as far as they are configured. `log`: [`denylist::open`].
pub(super) fn revoker(
    config: &Config,
    clock: &Arc<dyn Clock>,
    log: Option<Arc<dyn RecordLog<DenylistRecord>>>,
    if_log_fails: IfLogFails,
) -> Result<Option<Arc<dyn Revoker>>, Failure> {
    let provider = provider(config, clock)?;
    let (Some(log), Some(section)) = (log, &config.denylist) else { return Ok(provider) };
    let (clock, lifetimes, waiting) = (Arc::clone(clock), denylist::lifetimes(section), Arc::default());
    Ok(Some(Arc::new(DenyingRevoker { log, clock, lifetimes, provider, if_log_fails, log_retry: LOG_RETRY, waiting })))
}

/// The provider that revokes, if one is configured.
pub(super) fn provider(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn Revoker>>, Failure> {
    let Some(settings) = &config.revoke.http else { return Ok(None) };
    let revoker = HttpRevoker::new(settings, Arc::clone(clock)).map_err(wrong(config, "revoke.http"))?;
    if let Some(Err((key, problem))) = revoker.radius().map(|radius| config.revoke.check_weight(radius)) {
        let key = format!("revoke.{key}");
        return Err(Failure::Configuration(config.mistake(&key, format!("`{key}` {problem}")).to_string()));
    }
    Ok(Some(Arc::new(revoker)))
}

/// Warnings about the requests to the provider.
pub(super) fn doubts(config: &Config, revoker: &dyn Revoker) -> impl Iterator<Item = &'static str> {
    let hashed = config.privacy.token_ids == TokenIds::Hashed && revoker.sends_token_ids();
    let hashed = hashed.then_some(
        "[revoke.http] sends token ids, and privacy.token_ids is \"hashed\": the provider cannot look up hashes; revoke \
         by family, or translate the hashes in a gateway",
    );
    let tenants = !revoker.tells_tenants_apart() && !config.source.has_one_tenant();
    let tenants = tenants.then_some(
        "[revoke.http] sends the tenant only in the header Tokenwarden-Tenant. If the provider ignores it, an event of one \
         tenant with the grant id or user id of another tenant can revoke there. Use {tenant_id} in url or body, or set \
         revoke.http.tenant",
    );
    hashed.into_iter().chain(tenants)
}

/// A warning if `detection.revoke_margin` is smaller than the default plus the logarithm of the number of revocations as
/// which a request counts.
pub(super) fn small_margin(config: &Config, revoker: &dyn Revoker) -> Option<String> {
    let radius = revoker.radius()?;
    let of_token = engine::Settings::default().revoke_margin;
    let margin = of_token + libm::log(f64::from(radius.weight()));
    let configured = config.detection.revoke_margin;
    // One digit, as the message shows it.
    (configured + 0.05 < margin).then(|| {
        format!(
            "a revocation with the radius `{}` counts as {} revocations, and detection.revoke_margin is {configured:.1}; set it \
             to at least {margin:.1}",
            radius.as_str(),
            radius.weight()
        )
    })
}

pub(super) fn wrong(config: &Config, section: &str) -> impl Fn(Mistake) -> Failure {
    move |Mistake { key, problem }| {
        let key = format!("{section}.{key}");
        Failure::Configuration(config.mistake(&key, format!("`{key}` {problem}")).to_string())
    }
}
