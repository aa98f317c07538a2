//! Scoring of events: the state of one partition, and the step that scores an event and learns it.

mod ahead;
mod clock;
mod counters;
mod explain;
pub(crate) mod failpoint;
mod learn;
mod notes;
mod score;

pub use self::ahead::{GROUP, look_ahead};
use self::clock::{Clock, Range, Voter};
pub use self::counters::Counters;
use self::failpoint::{Failpoint, failpoint};
use self::notes::{expiry, is_dead, take_note};
use crate::decide::{self, Alarm, Budget, Cause, Incidents, Thresholds};
use crate::detector::{DetectorId, Lesson, Observation, Score, Setting, Standing, lifecycle};
use crate::enrichment::{EnrichedEvent, Keys};
use crate::event::{Event, Kind as EventKind};
use crate::memory::baselines::{Place, Seed};
use crate::memory::{Baseline, Ended, Kind, Memory, Minute, NetLevel, Recent, Sighting, Tenant};
use crate::policy::{self, Finding};
use crate::rule::RuleSet;
use crate::verdict::{Action, Incident, IncidentId, Mode, Outcome, RuleId, Severity, Signal, Target, Verdict, Victim};

/// What the operator decides about judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// π: log-odds of theft before looking (natural log); −7 is 1 token in 1,100.
    pub prior_log_odds: f64,
    /// New incidents a day and tenant, and a day of all tenants together beyond that.
    pub alert_budget_per_day: u32,
    pub alert_budget_total_per_day: u32,
    /// Events older than the newest of their baseline by more than this are scored only with what needs no order.
    pub lateness_ms_max: i64,
    /// An event whose time lies farther than this from the stream's moves no time, and is scored by what needs none.
    pub clock_skew_ms_max: i64,
    /// Ceiling over every rule's own mode.
    pub mode: Mode,
    /// Added to the log-odds that a behavioural revocation needs.
    pub revoke_margin: f64,
    /// Baselines kept, and users; beyond it a new one of few visits goes, else one of those least worth; counted.
    pub baselines_max: usize,
    /// Recent events kept to recognise duplicate deliveries.
    pub recent_event_ids_max: usize,
    /// Whether `confirmed` events are believed.
    pub confirmed: bool,
    /// Detectors that are left out of the sum, to measure what they contribute.
    pub without: Vec<DetectorId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prior_log_odds: -7.0,
            alert_budget_per_day: 20,
            alert_budget_total_per_day: 20,
            lateness_ms_max: 900_000,
            clock_skew_ms_max: 86_400_000,
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
        let share = |budget: u32| budget.div_ceil(partitions.max(1));
        Self {
            alert_budget_per_day: share(self.alert_budget_per_day),
            alert_budget_total_per_day: share(self.alert_budget_total_per_day),
            ..self.clone()
        }
    }
}

/// Open visits looked at, whether they are over, at each event: no fewer than need it, and no event pays for many.
const LOOKS: usize = 2;

/// Room for ids of attempts, as a part of that for events.
const ATTEMPTS_PART: usize = 8;

/// Visits from which on a baseline's events tell the time ([`Clock`]): names that somebody invents have no past.
const ESTABLISHED_VISITS: u32 = 4;

/// Everything one partition remembers.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    counters: Counters,
    memory: Memory,
    thresholds: Thresholds,
    budget: Budget,
    incidents: Incidents,
    /// The last events, by identity; attempts have room of their own, so that those who have no token push out no other.
    recent: Recent,
    recent_attempts: Recent,
    clock: Clock,
    /// When the last event took place, as it was scored.
    scored_at: i64,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The event was delivered before: nothing changed, nothing is to be written.
    Duplicate,
    Scored(Outcome),
}

impl State {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            counters: Counters::default(),
            memory: Memory::new(settings.baselines_max),
            thresholds: Thresholds::new(settings.alert_budget_per_day),
            budget: Budget::new(settings.alert_budget_per_day, settings.alert_budget_total_per_day),
            incidents: Incidents::default(),
            recent: Recent::new(settings.recent_event_ids_max),
            recent_attempts: Recent::new(settings.recent_event_ids_max / ATTEMPTS_PART),
            clock: Clock::new(settings.clock_skew_ms_max),
            scored_at: 0,
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

    /// When the last event took place, milliseconds since the epoch: by its own time if that is believed, else by the
    /// stream's.
    #[must_use]
    pub const fn scored_at(&self) -> i64 {
        self.scored_at
    }

    /// Ends the visits that are over, which tell how high the log-odds of honest visits go.
    fn let_time_pass(&mut self) {
        self.thresholds.pass_time(self.clock.watermark());
        for _ in 0..LOOKS {
            let Some(number) = self.memory.visits.next_ended(self.clock.watermark()) else { continue };
            let visit = self.memory.visits.get(number);
            let (tenant, log_odds) = (visit.tenant, f64::from(visit.log_odds_max));
            if log_odds.is_finite() {
                self.thresholds.learn(self.memory.others.tenants.get(tenant), log_odds);
            }
            self.memory.visits.close(number);
        }
    }
}

/// Judges one event and learns from it. Total: any event in any order has an outcome; the same events in the same
/// order have the same outcomes, byte for byte.
///
/// It first scores, and then learns. `score::score` reads only: a panic in it leaves the state as it was. Before it, the
/// step may count a vote on the time, and limit stored times that lie after the stream's.
pub fn step(state: &mut State, rules: &RuleSet, enriched: &EnrichedEvent<'_>) -> Step {
    let EnrichedEvent { event, keys, appended_at, .. } = enriched;
    let baseline = baseline_key(keys, &state.memory);
    // Before anything depends on it: memory is far away, and what is asked for at once comes at once.
    let place = state.memory.baselines.find(baseline);
    let is_attempt = event.is_attempt();
    let recent = if is_attempt { &state.recent_attempts } else { &state.recent };
    if recent.contains(keys.event) {
        state.counters.duplicates += 1;
        return Step::Duplicate;
    }
    let before = place.map(|place| Before::of(state.memory.baselines.get(place)));
    let voter = Voter {
        subject: keys.user.unwrap_or(baseline),
        tenant: keys.tenant,
        established: before.is_some_and(|before| before.visits >= ESTABLISHED_VISITS),
    };
    // An attempt does not advance the clock: anyone can send one.
    let tells_time = event.kind.is_sighting() && !is_attempt;
    let own_time = event.timestamp.millis();
    let mut range = state.clock.range(own_time, *appended_at);
    if range != Range::Within && tells_time {
        state.clock.consult(own_time, voter, *appended_at);
        range = state.clock.range(own_time, *appended_at);
    }
    let timed = range == Range::Within;
    let at = if timed { own_time } else { state.clock.newest().or(*appended_at).unwrap_or(own_time) };
    state.scored_at = at;
    let subject = Subject { baseline, place, before, at, timed, is_attempt };
    let outcome = if event.kind.is_sighting() {
        sighted(state, rules, enriched, subject)
    } else {
        if !is_attempt {
            take_note(state, event, keys, subject);
        }
        let tenant = state.memory.others.tenants.get(keys.tenant);
        quiet(state, tenant)
    };

    state.counters.events += 1;
    if !timed {
        state.counters.ahead += u64::from(range == Range::Ahead);
        state.counters.behind += u64::from(range == Range::Behind);
    }
    if is_attempt {
        state.counters.attempts += 1;
        state.counters.ids_reused += u64::from(state.recent_attempts.insert(keys.event, keys.event_id));
    } else {
        state.counters.ids_reused += u64::from(state.recent.insert(keys.event, keys.event_id));
        notes::reinstate(&mut state.memory.ends, event, keys);
        if timed && tells_time {
            state.clock.take(at, voter, *appended_at);
        }
        state.let_time_pass();
    }
    Step::Scored(outcome)
}

/// Whom an event is about, and when.
#[derive(Clone, Copy)]
struct Subject {
    /// Key of the baseline, and where it is; `None`: there is none yet.
    baseline: u64,
    place: Option<Place>,
    /// Of the baseline, as it was before the event.
    before: Option<Before>,
    /// The event's own time where that is believed (`timed`), else the stream's; milliseconds since the epoch.
    at: i64,
    timed: bool,
    is_attempt: bool,
}

/// What a step needs of a baseline besides its score: read at once.
#[derive(Clone, Copy)]
struct Before {
    last_at: i64,
    visits: u32,
    token: u32,
}

impl Before {
    const fn of(baseline: &Baseline) -> Self {
        Self { last_at: baseline.last_at, visits: baseline.visits, token: baseline.token }
    }
}

/// Judges the use of a token, or the attempt of one.
#[allow(clippy::inline_always, reason = "it is called in one place, and its outcome would be copied twice")]
#[inline(always)]
fn sighted(state: &mut State, rules: &RuleSet, enriched: &EnrichedEvent<'_>, subject: Subject) -> Outcome {
    let EnrichedEvent { event, keys, .. } = enriched;
    let Subject { baseline, place, before, at, timed, is_attempt } = subject;
    let tenant = state.memory.others.tenants.get(keys.tenant);
    let Some(sighting) = Sighting::of(enriched, at) else {
        return quiet(state, tenant);
    };
    let standing = if is_attempt && !is_reuse(&state.memory, enriched, &sighting, place) {
        Standing::Attempt
    } else if timed {
        Standing::Use
    } else {
        Standing::Untimed
    };
    let latest = state.clock.latest();
    let since = || state.memory.baselines.first_seen(baseline, place);
    let found = notes::ends(&mut state.memory.ends, enriched, subject, latest, since);
    let expiry = expiry(&state.memory, event, keys).filter(|_| timed);
    let ahead = if expiry.is_some_and(|expiry| expiry.at < at) { state.clock.ahead(at) } else { 0 };
    let mut observation = Observation {
        enriched,
        sighting: &sighting,
        tenant,
        standing,
        timed,
        now: state.clock.now().unwrap_or(at),
        newest: state.clock.newest().unwrap_or(at),
        seed: None,
        baseline,
        user: keys.user.unwrap_or(baseline),
        place,
        ended: found.ended,
        expiry,
        ahead,
    };
    let mut minute = None;
    let time = if timed { policy::Time::Known(at) } else { policy::Time::Unknown(at) };
    let findings = rules.violations(enriched, time, &mut || {
        // Of a rate only what was let in is a part.
        if standing != Standing::Use {
            return 0;
        }
        let mut running = state.memory.minutes.get(baseline).copied().unwrap_or_default();
        let calls = running.count(at);
        minute = Some(running);
        calls
    });
    let (seed, is_seed) = seed(&state.memory, &observation);
    observation.seed = seed;
    if is_seed && findings.is_empty() {
        note_minute(&mut state.memory, baseline, minute);
        learn_first_visit(&mut state.memory, &mut observation);
        if standing == Standing::Use {
            notes::learn_names(&mut state.memory.ends, enriched);
        }
        return quiet(state, tenant);
    }
    if standing == Standing::Use
        && let Some(place) = place
        && before.is_some_and(|before| before.last_at > latest)
    {
        state.memory.baselines.at(place).limit(at);
    }
    let mut lesson = None;
    let score = if is_seed {
        Score::nothing(state.settings.prior_log_odds)
    } else {
        score::score(&state.memory, &state.settings, &observation, &mut lesson)
    };
    state.counters.late += u64::from(score.late);
    let weighed = weighed(state, rules, &observation, (&score, lesson.as_ref()), findings);
    match standing {
        Standing::Use => {
            note_minute(&mut state.memory, baseline, minute);
            match &mut lesson {
                Some(lesson) => learn_scored(state, &mut observation, before, lesson),
                None => learn_first_visit(&mut state.memory, &mut observation),
            }
            notes::learn_use(&mut state.memory.ends, enriched, baseline, found);
            explain::learn_names(&mut state.memory.names, &observation, &score);
        }
        Standing::Attempt => {}
        Standing::Untimed => {
            if event.kind == EventKind::Refreshed
                && let Some(baseline) = state.memory.baselines.get_mut(baseline)
            {
                let refreshes = baseline.refreshes.get_or_insert_default();
                // What it says is in the verdict already.
                let _ = lifecycle::formula::refresh(refreshes, keys.token, at, sighting.address, sighting.agent);
            }
        }
    }
    decided(state, rules, &observation, &score, weighed)
}

/// Takes in a use of a token that has a baseline, or gets one.
fn learn_scored(state: &mut State, observation: &mut Observation<'_>, before: Option<Before>, lesson: &mut Lesson) {
    let memory = &mut state.memory;
    if before.map(|before| before.token) != Some(lesson.token) || lesson.begins_visit() || lesson.refreshes.is_some() {
        notes::learn_family(memory, observation.enriched);
    }
    let tenants = &mut memory.others.tenants;
    observation.tenant = tenants.admit(observation.tenant);
    if lesson.begins_visit() {
        tenants.count_visit(observation.sighting.tenant, state.thresholds.days());
    }
    learn::learn(memory, observation, lesson);
}

/// Whether an attempt shows that a refresh token is in two hands: it counts whatever the answer was.
fn is_reuse(memory: &Memory, enriched: &EnrichedEvent<'_>, sighting: &Sighting, place: Option<Place>) -> bool {
    if enriched.event.reuse_reported {
        return true;
    }
    let refreshes = place.and_then(|place| memory.baselines.get(place).refreshes.as_deref());
    let (EventKind::Refreshed, Some(refreshes)) = (enriched.event.kind, refreshes) else { return false };
    lifecycle::formula::refresh(
        &mut refreshes.clone(),
        enriched.keys.token,
        sighting.at,
        sighting.address,
        sighting.agent,
    ) > 0.0
}

/// Key of the baseline: the family's; if the event names none, that of the family or chain of tokens in which the token is
/// known; else that of the client whose tokens are nobody else's, or the token's own.
fn baseline_key(keys: &Keys, memory: &Memory) -> u64 {
    keys.family.unwrap_or_else(|| memory.lineages.get(keys.token).copied().unwrap_or(keys.baseline))
}

/// Nothing is said of this event.
fn quiet(state: &State, tenant: Tenant) -> Outcome {
    quiet_below(state, state.thresholds.alert_from(tenant))
}

/// The same, where the tenant's threshold is known.
fn quiet_below(state: &State, alert_from: f64) -> Outcome {
    Outcome {
        verdict: Verdict::Allow,
        log_odds: state.settings.prior_log_odds,
        prior_log_odds: state.settings.prior_log_odds,
        alert_from,
        by_policy: false,
        withheld: false,
        p_value: 1.0,
        signals: Vec::new(),
        incident_id: None,
        incident: None,
        action: Action::None,
        mode: state.settings.mode,
    }
}

/// The seed of a token without a baseline as it is with this event, and whether that is all it gets: it is in its first,
/// short visit and nothing is known of its user, so that a flood of new ids costs little and pushes nobody out.
fn seed(memory: &Memory, observation: &Observation<'_>) -> (Option<Seed>, bool) {
    let event = &observation.enriched.event;
    if observation.place.is_some() {
        return (None, false);
    }
    let mut seed = memory.baselines.seeds.get(observation.baseline).copied();
    let expired = observation.expiry.is_some_and(|expiry| expiry.at < observation.sighting.at);
    let is_plain = event.kind == EventKind::Use
        && !event.reuse_reported
        && event.binding.is_none()
        && !expired
        && observation.ended == Ended::default();
    if !is_plain {
        return (seed, false);
    }
    if let Some(seed) = &mut seed {
        let goes_on = seed.goes_on(observation.sighting);
        return (Some(*seed), goes_on);
    }
    let is_known = memory.users.known(observation.user).is_known();
    let kind = Kind::new(event.token_type, observation.sighting.device);
    let begins = (!is_known).then(|| Seed::new(kind, observation.sighting));
    (begins, !is_known)
}

/// Keeps the calls of the grant's running minute, where a ceiling asked for them.
fn note_minute(memory: &mut Memory, baseline: u64, minute: Option<Minute>) {
    if let Some(minute) = minute {
        memory.minutes.insert(baseline, minute);
    }
}

/// Takes in a use in a token's first visit.
fn learn_first_visit(memory: &mut Memory, observation: &mut Observation<'_>) {
    let Some(seed) = observation.seed.filter(|_| observation.standing == Standing::Use) else { return };
    notes::learn_family(memory, observation.enriched);
    observation.tenant = memory.others.tenants.admit(observation.tenant);
    if !memory.baselines.seeds.insert(observation.baseline, seed) {
        let user = memory.users.entry(observation.user, observation.sighting.at.min(observation.now));
        learn::learn_user(user, &mut memory.others.population, observation, seed.kind, 1.0);
    }
}

/// What comes of a judgement before anything is written of it.
struct Weighed {
    by_odds: Verdict,
    signals: Vec<Signal>,
    findings: Vec<Finding>,
}

/// From the judgement to the verdict by the odds, and its reasons in words.
fn weighed(
    state: &mut State,
    rules: &RuleSet,
    observation: &Observation<'_>,
    (score, lesson): (&Score, Option<&Lesson>),
    findings: Vec<Finding>,
) -> Weighed {
    failpoint(Failpoint::Words);
    let lifecycle = score.evidence[DetectorId::Lifecycle].get();
    let by_odds = if decide::is_quiet(score.log_odds, lifecycle) {
        Verdict::Allow
    } else {
        by_odds(state, rules, observation, score)
    };
    let told = score.changed || by_odds >= Verdict::Watch;
    let signals = lesson
        .filter(|_| told)
        .map_or_else(Vec::new, |lesson| explain::signals(&state.memory, rules, observation, (score, lesson)));
    Weighed { by_odds, signals, findings }
}

fn by_odds(state: &mut State, rules: &RuleSet, observation: &Observation<'_>, score: &Score) -> Verdict {
    let lifecycle = score.evidence[DetectorId::Lifecycle].get();
    let speaks = score.lifecycle_rule.map(|rule| rules.rule(rule)).is_some_and(|rule| rule.speaks(lifecycle));
    let evidence = decide::Evidence {
        log_odds: score.log_odds,
        lifecycle: if speaks { lifecycle } else { 0.0 },
        unspoken: if speaks { 0.0 } else { lifecycle },
        revoked_already: score.lifecycle_rule == Some(RuleId::UseAfterRevocation),
        dead: observation.ended.revoked_at != 0
            && is_dead(&mut state.memory.ends, observation.enriched, observation.sighting.at),
        fan: score.app_fan.max(0.0) + score.ip_fan.max(0.0),
        between: score.between,
        volume: score.shares[DetectorId::Volume],
        calls_at_home: if score.setting == Setting::Usual {
            score.shares[DetectorId::Route].max(0.0) + score.shares[DetectorId::Area].max(0.0) - score.between
        } else {
            0.0
        },
        by_hand: score.setting == Setting::ByHand,
        company: score.company,
        calls: score.visit_calls,
        unchecked: observation.enriched.event.is_unchecked(),
    };
    let (thresholds, margin) = (&state.thresholds, state.settings.revoke_margin);
    decide::verdict(evidence, thresholds.alert_from(observation.tenant), margin, thresholds.visits(observation.tenant))
}

/// From the judgement to what the outside is to see of it.
fn decided(
    state: &mut State,
    rules: &RuleSet,
    observation: &Observation<'_>,
    score: &Score,
    weighed: Weighed,
) -> Outcome {
    let Weighed { by_odds, mut signals, findings } = weighed;
    if by_odds == Verdict::Allow && signals.is_empty() && findings.is_empty() {
        // Most events: no incident, no budget, no action.
        let log_odds = score.log_odds;
        let (alert_from, p_value) = state.thresholds.alert_from_and_p_value(observation.tenant, log_odds);
        return Outcome { log_odds, p_value, mode: Mode::Shadow, ..quiet_below(state, alert_from) };
    }
    let most = if observation.standing == Standing::Attempt { Verdict::Watch } else { Verdict::Revoke };
    let by_odds = by_odds.min(most);
    let settings = &state.settings;
    let wanted = findings.first().map_or(Verdict::Allow, |finding| finding.verdict).min(most);
    let mut verdict = by_odds.max(wanted);
    let mode_of = |rule: RuleId| rules.rule(rule).mode;
    // Whoever comes to the verdict may do what their rule may: a policy in shadow holds nobody back.
    let modes = [
        signals.iter().find(|signal| signal.fired).filter(|_| by_odds == verdict).map(|signal| mode_of(signal.rule)),
        findings
            .iter()
            .filter(|finding| finding.verdict.min(most) == verdict)
            .map(|finding| mode_of(finding.rule))
            .max(),
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
        baseline: observation.baseline,
        causes: causes(observation, score),
        at: observation.sighting.at,
        severity: if verdict == Verdict::Revoke { severity.max(Severity::High) } else { severity },
        verdict,
        rules: fired.fold(0, |rules, signal| rules | 1 << signal.rule as u32),
        acts: verdict == Verdict::Revoke,
    };
    // An incident that people know of costs no attention, and neither a revocation nor a policy is withheld.
    let tenant = observation.sighting.tenant;
    let known = || state.memory.others.tenants.is_known(tenant).then_some(tenant);
    let withheld = verdict == Verdict::Alert
        && wanted < Verdict::Alert
        && !state.incidents.is_known(&alarm)
        && !state.budget.spend(known(), observation.now, score.log_odds);
    if withheld {
        verdict = Verdict::Watch;
    }
    let by_policy = wanted >= Verdict::Alert;
    let (incident_id, incident) = if verdict >= Verdict::Alert {
        let (id, incident) = state.join(observation, score, &alarm, &signals, (by_policy, mode));
        (Some(id), incident)
    } else if verdict == Verdict::Watch {
        // What the owner does meanwhile is no part of it.
        let open = state.incidents.of_baseline(observation.baseline, observation.sighting.at);
        (open.map(|open| open.id), None)
    } else {
        (None, None)
    };
    let (alert_from, p_value) = state.thresholds.alert_from_and_p_value(observation.tenant, score.log_odds);
    Outcome {
        verdict,
        log_odds: score.log_odds,
        prior_log_odds: state.settings.prior_log_odds,
        alert_from,
        by_policy,
        withheld,
        p_value,
        signals,
        incident_id,
        incident,
        action: action(verdict, observation.enriched),
        mode,
    }
}

/// What others may join an incident by: the place that an application is used from, and the address.
fn causes(observation: &Observation<'_>, score: &Score) -> [Cause; 2] {
    let &Sighting { tenant, app, network, address, .. } = observation.sighting;
    if score.net_level < NetLevel::KnownNetwork {
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
        observation: &Observation<'_>,
        score: &Score,
        alarm: &Alarm,
        signals: &[Signal],
        (by_policy, mode): (bool, Mode),
    ) -> (IncidentId, Option<Box<Incident>>) {
        let event = &observation.enriched.event;
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
        let target = target(observation.enriched);
        let incident = Incident {
            id,
            opened_at: timestamp(joined.open.opened_at, event),
            updated_at: timestamp(joined.open.updated_at, event),
            severity: joined.open.severity(),
            verdict: joined.open.verdict(),
            baseline: crate::event::BaselineId(observation.baseline),
            subject: target.id().to_owned(),
            tenant_id: text(&event.tenant_id),
            token_id: event.token_id.as_str().to_owned(),
            family_id: text(&event.family_id),
            user_id: text(&event.user_id),
            app_id: text(&event.app_id),
            event_id: event.event_id.to_string(),
            change: observation.enriched.keys.event,
            campaign_id: joined.open.campaign,
            victims: self.incidents.victims(id).to_vec(),
            victims_total: joined.open.baselines(),
            tenant_is_new: !self.memory.others.tenants.is_known(observation.sighting.tenant),
            log_odds: score.log_odds,
            reason: explain::sentence(
                signals,
                &explain::Sum {
                    log_odds: score.log_odds,
                    prior: self.settings.prior_log_odds,
                    threshold: self.thresholds.alert_from(observation.tenant),
                    by_policy,
                    baselines: joined.open.baselines(),
                },
            ),
            signals: signals.to_vec(),
            action: action(alarm.verdict, observation.enriched),
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
