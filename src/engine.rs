//! Judgement, whole: the state of one partition and the step that takes it from event to event.

mod ahead;
mod clock;
mod explain;
mod judge;
mod learn;
mod turn;

pub use self::ahead::{GROUP, look_ahead};
use self::clock::Clock;
use self::judge::{Judged, Scene, Sits};
use crate::decide::{self, Alarm, Budget, Cause, Incidents, Tail};
use crate::enrichment::{EnrichedEvent, Keys};
use crate::event::{Event, Kind as EventKind, TokenType};
use crate::memory::baselines::Seed;
use crate::memory::{Ended, Kind, Memory, Recent, Sighting};
use crate::policy::{self, Finding};
use crate::rule::RuleSet;
use crate::term::lifecycle::{self, Expiry};
use crate::term::{self, Term, net};
use crate::verdict::{Action, Incident, IncidentId, Mode, Outcome, RuleId, Severity, Signal, Target, Verdict, Victim};

/// What the operator decides about judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// π: log-odds of theft before looking (natural log); −7 is 1 token in 1,100.
    pub prior_log_odds: f64,
    pub alert_budget_per_day: u32,
    /// Events later than this behind the watermark are judged only with what needs no order.
    pub lateness_ms_max: i64,
    /// Ceiling over every rule's own mode.
    pub mode: Mode,
    /// Added to the log-odds that a behavioural revocation needs.
    pub revoke_margin: f64,
    /// Baselines kept, and users; beyond it a new one of few visits goes, else one of those least worth; counted.
    pub baselines_max: usize,
    /// Recent event ids kept to recognise duplicate deliveries.
    pub recent_event_ids_max: usize,
    /// Whether `confirmed` events are believed.
    pub confirmed: bool,
    /// Terms that are left out of the sum, to measure what they are worth.
    pub without: Vec<Term>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prior_log_odds: -7.0,
            alert_budget_per_day: 20,
            lateness_ms_max: 900_000,
            mode: Mode::Shadow,
            revoke_margin: 3.0,
            baselines_max: 10_000_000,
            recent_event_ids_max: 1 << 20,
            confirmed: false,
            without: Vec::new(),
        }
    }
}

impl Settings {
    /// For one of so many partitions, which share the alert budget evenly, rounded up: none waits for what another has
    /// spent, so that each judges as if it were alone.
    #[must_use]
    pub fn for_one_of(&self, partitions: u32) -> Self {
        Self { alert_budget_per_day: self.alert_budget_per_day.div_ceil(partitions.max(1)), ..self.clone() }
    }
}

/// Open visits looked at, whether they are over, at each event: no fewer than need it, and no event pays for many.
const LOOKS: usize = 2;

/// Counters of what judgement did, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub events: u64,
    pub duplicates: u64,
    pub late: u64,
    pub baselines: u64,
    pub baselines_evicted: u64,
    pub incidents: u64,
    /// Events a month ahead of all others: they are stored and not judged.
    pub far_ahead: u64,
    /// Confirmations by owners and analysts, and those of them that a suspicion worth an alert stood against.
    pub confirmed: u64,
    pub confirmed_alarms: u64,
}

/// Everything one partition remembers.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    counters: Counters,
    memory: Memory,
    tail: Tail,
    budget: Budget,
    incidents: Incidents,
    /// Ids of the last events.
    recent: Recent,
    clock: Clock,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The event's id was seen before: nothing changed, nothing is to be written.
    Duplicate,
    Judged(Outcome),
}

impl State {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            counters: Counters::default(),
            memory: Memory::new(settings.baselines_max),
            tail: Tail::default(),
            budget: Budget::new(settings.alert_budget_per_day),
            incidents: Incidents::default(),
            recent: Recent::new(settings.recent_event_ids_max),
            clock: Clock::default(),
            settings,
        }
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        let baselines = &self.memory.baselines;
        Counters { baselines: baselines.len() as u64, baselines_evicted: baselines.evicted(), ..self.counters }
    }

    /// Bytes held by baselines and what finds them, and their number: for the figure of bytes a baseline.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        (self.memory.baselines.bytes(), self.memory.baselines.len())
    }

    /// Log-odds from which an alert is raised now.
    #[must_use]
    pub const fn alert_threshold(&self) -> f64 {
        self.budget.threshold()
    }

    /// Ends the visits that are over, which tell how high the log-odds of honest visits go, and forgets who is in no
    /// company any more.
    fn let_time_pass(&mut self) {
        for _ in 0..LOOKS {
            let Some(number) = self.memory.visits.next_ended(self.clock.watermark()) else { continue };
            let log_odds = f64::from(self.memory.visits.get(number).log_odds_max);
            if log_odds.is_finite() {
                self.tail.learn(log_odds, Tail::honest(log_odds));
            }
            self.memory.visits.close(number);
        }
        self.budget.reckon(&self.tail, self.clock.watermark());
        self.memory.others.fleets.forget(self.clock.watermark(), || self.clock.now());
    }
}

/// Judges one event and learns from it. Total: any event in any order has an outcome; the same events in the same
/// order have the same outcomes, byte for byte.
pub fn step(state: &mut State, rules: &RuleSet, enriched: &EnrichedEvent<'_>) -> Step {
    let EnrichedEvent { event, keys, .. } = enriched;
    let baseline = baseline_key(keys, &state.memory);
    // Before anything depends on it: memory is far away, and what is asked for at once comes at once.
    let place = state.memory.baselines.find(baseline);
    if state.recent.insert(keys.event) {
        state.counters.duplicates += 1;
        return Step::Duplicate;
    }
    state.counters.events += 1;
    let at = event.timestamp.millis();
    state.clock.see(at);
    state.let_time_pass();
    if state.clock.is_far_ahead(at) {
        // Nothing may remember a time that is no time.
        state.counters.far_ahead += 1;
        return Step::Judged(quiet(state));
    }
    if !event.kind.is_sighting() {
        take_note(state, event, keys, baseline);
        return Step::Judged(quiet(state));
    }
    let Some(sighting) = Sighting::of(enriched) else {
        return Step::Judged(quiet(state));
    };
    let user = keys.user.unwrap_or(baseline);
    let ended = ended(&state.memory, event, keys, baseline);
    let expiry = expiry(&state.memory, event, keys);
    let ahead = if expiry.is_some_and(|expiry| expiry.at < at) { state.clock.ahead(at) } else { 0 };
    let scene = Scene { enriched, sighting, baseline, user, place, ended, expiry, ahead };
    let findings = policy::judge(rules, &mut state.memory.minutes, baseline, enriched);
    let seed = is_seed(&mut state.memory, &scene);
    if seed && findings.is_empty() {
        return Step::Judged(quiet(state));
    }
    let judged = if seed {
        Judged::nothing(state.settings.prior_log_odds)
    } else {
        judge::judge(&mut state.memory, &state.settings, &scene)
    };
    state.counters.late += u64::from(judged.late);
    Step::Judged(decided(state, rules, &scene, &judged, findings))
}

/// Key of the baseline: the family's; where producers name none, that of the chain of tokens it was issued in; else the
/// token's own.
fn baseline_key(keys: &Keys, memory: &Memory) -> u64 {
    keys.family.unwrap_or_else(|| memory.lineages.get(keys.token).copied().unwrap_or(keys.token))
}

/// Nothing is said of this event.
fn quiet(state: &State) -> Outcome {
    Outcome {
        verdict: Verdict::Allow,
        log_odds: state.settings.prior_log_odds,
        prior_log_odds: state.settings.prior_log_odds,
        alert_from: state.budget.threshold(),
        by_policy: false,
        p_value: 1.0,
        signals: Vec::new(),
        incident_id: None,
        incident: None,
        action: Action::None,
        mode: state.settings.mode,
    }
}

/// Takes in what happened to a token without anybody using it.
fn take_note(state: &mut State, event: &Event<'_>, keys: &Keys, baseline: u64) {
    let memory = &mut state.memory;
    let token = keys.token;
    let at = event.timestamp.millis();
    match event.kind {
        EventKind::Use | EventKind::Refreshed => {}
        EventKind::Issued => {
            // With a refresh token producers often name the end of the access token beside it (`expires_in`, RFC 6749
            // section 5.1).
            if let Some(expires_at) = event.expires_at
                && event.token_type != TokenType::Refresh
            {
                memory.expiries.insert(token, expires_at.millis());
            }
            let Some(parent) = &event.parent_token_id else { return };
            let parent = keys.scope.key(b't', parent.as_str());
            let mut family = baseline;
            if event.family_id.is_none() {
                family = memory.lineages.get(parent).copied().unwrap_or(parent);
                memory.lineages.insert(token, family);
                memory.lineages.insert(parent, family);
            }
            if event.token_type == TokenType::Refresh
                && let Some(baseline) = memory.baselines.get_mut(family)
            {
                lifecycle::succeed(baseline.refreshes.get_or_insert_default(), parent, token, at);
            }
        }
        EventKind::Revoked => {
            let ended = |memory: &mut Memory, key: u64| {
                let ended = memory.ended.entry(key, Ended::default);
                if ended.revoked_at == 0 || at < ended.revoked_at {
                    ended.revoked_at = at;
                }
            };
            ended(memory, token);
            // A refresh token's end is its grant's (RFC 7009 section 2.1).
            if event.token_type == TokenType::Refresh {
                ended(memory, baseline);
            }
        }
        EventKind::SessionEnded => {
            let key = session_key(event, keys).unwrap_or(token);
            memory.ended.entry(key, Ended::default).session_ended_at = at;
        }
        EventKind::Confirmed => {
            if !state.settings.confirmed {
                return;
            }
            let Some(baseline) = memory.baselines.get_mut(baseline) else { return };
            let suspected = baseline.contexts.iter().map(|holder| holder.log_odds.get()).fold(f64::MIN, f64::max);
            state.counters.confirmed += 1;
            state.counters.confirmed_alarms += u64::from(suspected >= state.budget.threshold());
            learn::confirm(baseline, at);
        }
        EventKind::CredentialChanged => {
            if let Some(user) = keys.user {
                memory.users.entry(user, at).change_credential(at);
            }
        }
    }
}

fn session_key(event: &Event<'_>, keys: &Keys) -> Option<u64> {
    event.session_id.as_deref().map(|session| keys.scope.key(b's', session))
}

/// When the event's token, family or session was ended, whichever came first of each.
fn ended(memory: &Memory, event: &Event<'_>, keys: &Keys, baseline: u64) -> Ended {
    if memory.ended.is_empty() {
        return Ended::default();
    }
    let mut ended = Ended::default();
    for key in [Some(keys.token), Some(baseline), session_key(event, keys)].into_iter().flatten() {
        if let Some(found) = memory.ended.get(key) {
            let earlier = |a: i64, b: i64| if a == 0 || b != 0 && b < a { b } else { a };
            ended.revoked_at = earlier(ended.revoked_at, found.revoked_at);
            ended.session_ended_at = earlier(ended.session_ended_at, found.session_ended_at);
        }
    }
    ended
}

/// When the event's token expires: as the event says, or else as was said when the token was issued.
fn expiry(memory: &Memory, event: &Event<'_>, keys: &Keys) -> Option<Expiry> {
    if let Some(at) = event.expires_at {
        return Some(Expiry { at: at.millis(), said_at_issue: false });
    }
    // What is exchanged is a refresh token, whatever the producer calls it.
    if memory.expiries.is_empty() || event.kind == EventKind::Refreshed {
        return None;
    }
    memory.expiries.get(keys.token).map(|at| Expiry { at: *at, said_at_issue: true })
}

/// Whether the token is in its first, short visit and nothing is known of its user: then a seed is all it gets, so
/// that a flood of new ids costs little and pushes nobody out.
fn is_seed(memory: &mut Memory, scene: &Scene<'_>) -> bool {
    let event = &scene.enriched.event;
    if scene.place.is_some() {
        return false;
    }
    let expired = scene.expiry.is_some_and(|expiry| expiry.at < scene.sighting.at);
    if event.kind == EventKind::Refreshed || event.binding.is_some() || expired || scene.ended != Ended::default() {
        return false;
    }
    if let Some(seed) = memory.baselines.seeds.get_mut(scene.baseline) {
        return seed.goes_on(&scene.sighting);
    }
    let user = memory.users.entry(scene.user, scene.sighting.at);
    if user.is_known() {
        return false;
    }
    let kind = Kind::new(event.token_type, scene.sighting.device);
    learn::learn_user(user, &mut memory.others.population, &scene.sighting, kind, 1.0);
    memory.baselines.seeds.insert(scene.baseline, Seed::new(kind, &scene.sighting));
    true
}

/// From the judgement to what the outside is to see of it.
fn decided(state: &mut State, rules: &RuleSet, scene: &Scene<'_>, judged: &Judged, findings: Vec<Finding>) -> Outcome {
    explain::learn_names(&mut state.memory.names, scene, judged);
    let lifecycle = judged.evidence.lifecycle.get();
    let speaks = judged.lifecycle_rule.map(|rule| rules.rule(rule)).is_some_and(|rule| rule.speaks(lifecycle));
    let evidence = decide::Evidence {
        log_odds: judged.log_odds,
        lifecycle: if speaks { lifecycle } else { 0.0 },
        unspoken: if speaks { 0.0 } else { lifecycle },
        revoked_already: judged.lifecycle_rule == Some(RuleId::UseAfterRevocation),
        dead: scene.ended.revoked_at != 0 && is_dead(&state.memory, scene),
        fan: judged.app_fan.max(0.0) + judged.ip_fan.max(0.0),
        amid: judged.amid,
        volume: judged.evidence.volume.get() + term::volume::BYTES_WEIGHT * judged.evidence.bytes.get(),
        calls_at_home: if judged.sits == Sits::AtHome {
            judged.evidence.route.get().max(0.0) + judged.evidence.area.get().max(0.0) - judged.amid
        } else {
            0.0
        },
        in_hands: judged.sits == Sits::AmongPeople,
        company: judged.company,
        calls: judged.visit_calls,
    };
    let settings = &state.settings;
    let by_odds = decide::verdict(evidence, state.budget.threshold(), settings.revoke_margin, state.tail.visits());
    let wanted = findings.first().map_or(Verdict::Allow, |finding| finding.verdict);
    let mut verdict = by_odds.max(wanted);
    let told = judged.changed || by_odds >= Verdict::Watch;
    let mut signals = if told { explain::signals(&mut state.memory, rules, scene, judged) } else { Vec::new() };
    let mode_of = |rule: RuleId| rules.rule(rule).mode;
    // Whoever comes to the verdict may do what their rule may: a policy in shadow holds nobody back.
    let modes = [
        signals.iter().find(|signal| signal.fired).filter(|_| by_odds == verdict).map(|signal| mode_of(signal.rule)),
        findings.iter().filter(|finding| finding.verdict == verdict).map(|finding| mode_of(finding.rule)).max(),
    ];
    let mode = modes.into_iter().flatten().max().unwrap_or(Mode::Shadow).min(settings.mode);
    if !findings.is_empty() {
        // What decided comes first.
        let place = if wanted > by_odds { 0 } else { signals.len() };
        signals.splice(place..place, findings.into_iter().map(Finding::signal));
    }
    let fired = signals.iter().filter(|signal| signal.fired);
    let severity = fired.clone().map(|signal| rules.rule(signal.rule).severity).max().unwrap_or(Severity::Medium);
    let alarm = Alarm {
        baseline: scene.baseline,
        causes: causes(scene, judged),
        at: scene.sighting.at,
        severity: if verdict == Verdict::Revoke { severity.max(Severity::High) } else { severity },
        verdict,
        rules: fired.fold(0, |rules, signal| rules | 1 << signal.rule as u32),
        acts: verdict == Verdict::Revoke,
    };
    // What people know of already costs no attention, and what is certain or was asked for is worth any.
    if verdict == Verdict::Alert
        && wanted < Verdict::Alert
        && !state.incidents.is_known(&alarm)
        && !state.budget.spend(state.clock.watermark(), judged.log_odds)
    {
        verdict = Verdict::Watch;
    }
    let by_policy = wanted >= Verdict::Alert;
    let (incident_id, incident) = if verdict >= Verdict::Alert {
        let (id, incident) = state.join(scene, judged, &alarm, &signals, (by_policy, mode));
        (Some(id), incident)
    } else if verdict == Verdict::Watch {
        // What the owner does meanwhile is no part of it.
        let open = state.incidents.of_baseline(scene.baseline, scene.sighting.at);
        (open.map(|open| open.id), None)
    } else {
        (None, None)
    };
    Outcome {
        verdict,
        log_odds: judged.log_odds,
        prior_log_odds: state.settings.prior_log_odds,
        alert_from: state.budget.threshold(),
        by_policy,
        p_value: state.tail.p_value(judged.log_odds),
        signals,
        incident_id,
        incident,
        action: action(verdict, scene.enriched),
        mode,
    }
}

/// Whether what a revocation would end, the grant or else the token, was ended before.
fn is_dead(memory: &Memory, scene: &Scene<'_>) -> bool {
    let Keys { family, token, .. } = scene.enriched.keys;
    let ended = memory.ended.get(family.unwrap_or(token));
    ended.is_some_and(|ended| ended.revoked_at != 0 && ended.revoked_at <= scene.sighting.at)
}

/// What others may join an incident by: the place that an application is used from, and the address.
fn causes(scene: &Scene<'_>, judged: &Judged) -> [Cause; 2] {
    let Sighting { tenant, app, network, address, .. } = scene.sighting;
    if judged.net_level < net::level::KNOWN_NETWORK {
        return [Cause::default(); 2];
    }
    [app ^ u64::from(network) << 8 ^ 1, u64::from(address) << 8 ^ 2]
        .map(|of_all| Cause { of_tenant: (of_all ^ tenant.rotate_left(32)).max(1), of_all })
}

/// The narrowest thing that stops the thief: the token, or where it is one of a grant's, which would only get the
/// next one, the grant.
fn target(enriched: &EnrichedEvent<'_>) -> Target {
    match &enriched.event.family_id {
        Some(family) => Target::Family(family.to_string()),
        None => Target::Token(enriched.event.token_id.as_str().to_owned()),
    }
}

fn action(verdict: Verdict, enriched: &EnrichedEvent<'_>) -> Action {
    match verdict {
        Verdict::Allow | Verdict::Watch => Action::None,
        Verdict::Alert => Action::Alert,
        Verdict::Revoke if enriched.event.family_id.is_some() => Action::RevokeFamily,
        Verdict::Revoke => Action::RevokeToken,
    }
}

impl State {
    /// Joins an alarming event to its incident; what is to be told of that where the event opened or changed it.
    fn join(
        &mut self,
        scene: &Scene<'_>,
        judged: &Judged,
        alarm: &Alarm,
        signals: &[Signal],
        (by_policy, mode): (bool, Mode),
    ) -> (IncidentId, Option<Box<Incident>>) {
        let event = &scene.enriched.event;
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
        let joined = self.incidents.join(alarm, || Victim {
            token_id: event.token_id.as_str().to_owned(),
            family_id: text(&event.family_id),
            user_id: text(&event.user_id),
            app_id: text(&event.app_id),
        });
        self.counters.incidents += u64::from(joined.tell);
        let id = joined.open.id;
        if !joined.tell {
            return (id, None);
        }
        let revokes = alarm.verdict == Verdict::Revoke;
        let target = target(scene.enriched);
        let incident = Incident {
            id,
            opened_at: timestamp(joined.open.opened_at, event),
            updated_at: timestamp(joined.open.updated_at, event),
            severity: joined.open.severity(),
            verdict: joined.open.verdict(),
            baseline: crate::event::BaselineId(scene.baseline),
            subject: target.id().to_owned(),
            tenant_id: text(&event.tenant_id),
            token_id: event.token_id.as_str().to_owned(),
            family_id: text(&event.family_id),
            user_id: text(&event.user_id),
            app_id: text(&event.app_id),
            event_id: event.event_id.to_string(),
            change: scene.enriched.keys.event,
            campaign_id: joined.open.campaign,
            victims: self.incidents.victims(id).to_vec(),
            victims_total: joined.open.baselines(),
            log_odds: judged.log_odds,
            reason: explain::sentence(
                signals,
                &explain::Sum {
                    log_odds: judged.log_odds,
                    prior: self.settings.prior_log_odds,
                    threshold: self.budget.threshold(),
                    by_policy,
                    baselines: joined.open.baselines(),
                },
            ),
            signals: signals.to_vec(),
            action: action(alarm.verdict, scene.enriched),
            mode,
            tell: joined.tell,
            revoke: revokes.then_some(target),
        };
        (id, Some(Box::new(incident)))
    }
}

fn timestamp(millis: i64, event: &Event<'_>) -> crate::event::Timestamp {
    crate::event::Timestamp::from_millis(millis).unwrap_or(event.timestamp)
}
