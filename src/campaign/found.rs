//! A campaign with its victims, and its incident.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::evidence::{CampaignKey, order_of, share};
use super::window::Qualified;
use crate::appearance::Appearance;
use crate::event::{BaselineId, Timestamp};
use crate::math::exp;
use crate::rule::RuleSet;
use crate::verdict::{
    Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Signal, VICTIMS_MAX, Verdict, Victim,
};

/// Seeds of the numbers of incidents and campaigns.
const INCIDENT: u64 = 1;
const CAMPAIGN: u64 = 2;

/// A campaign of one tenant on one network and day: what is equal for each order of the appearances.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    pub id: IncidentId,
    /// The same for all tenants.
    pub campaign_id: CampaignId,
    pub tenant_id: String,
    /// Place and network of the first victim, for people.
    pub place: String,
    /// Time of the first victim.
    pub opened_at: Timestamp,
    /// The rules, and the largest number of users of each.
    pub rules: Vec<(RuleId, usize)>,
    /// Grants and tokens with the time of their first appearance, in its order.
    pub victims: Vec<(Timestamp, Victim)>,
}

/// Appearances that join a campaign.
#[derive(Debug, Default)]
pub(super) struct Joining<'a> {
    appearances: BTreeMap<(i64, u64), &'a Appearance>,
    /// The largest number of users.
    users: BTreeMap<RuleId, usize>,
}

impl<'a> Joining<'a> {
    pub(super) fn add(&mut self, rule: RuleId, qualified: Qualified<'a>) {
        self.appearances.extend(qualified.appearances.into_iter().map(|appearance| (order_of(appearance), appearance)));
        let most = self.users.entry(rule).or_default();
        *most = qualified.users.max(*most);
    }
}

/// A campaign and what was reported of it.
#[derive(Debug)]
pub(super) struct Found {
    key: CampaignKey,
    /// The first appearance of each grant or token.
    victims: BTreeMap<u64, Appearance>,
    /// Grants and tokens in the order of their first appearances.
    order: BTreeMap<(i64, u64), u64>,
    users: BTreeMap<RuleId, usize>,
    changed: u64,
    /// The tenant was known when one of them appeared.
    is_known: bool,
    /// It was within the alert budget.
    pub(super) is_reported: bool,
    /// It counts as withheld.
    pub(super) is_withheld: bool,
}

impl Found {
    pub(super) const fn new(key: CampaignKey) -> Self {
        Self {
            key,
            victims: BTreeMap::new(),
            order: BTreeMap::new(),
            users: BTreeMap::new(),
            changed: 0,
            is_known: false,
            is_reported: false,
            is_withheld: false,
        }
    }

    /// The tenant, if its name is not invented.
    pub(super) fn known_tenant(&self) -> Option<u64> {
        self.is_known.then_some(self.key.tenant)
    }

    /// The evidence of the largest number of users, nats.
    pub(super) fn log_odds(&self) -> f64 {
        self.users.values().copied().max().map_or(0.0, share)
    }

    /// A change of the incident for each victim.
    pub(super) fn incidents(&self, rules: &RuleSet, mode: Mode) -> Vec<Incident> {
        self.in_order().map(|victim| self.incident(victim, rules, mode)).collect()
    }

    /// Number of grants and tokens.
    pub(super) fn victims(&self) -> usize {
        self.victims.len()
    }

    /// Number of the last change of victims or rules.
    pub(super) const fn changed(&self) -> u64 {
        self.changed
    }

    /// Adds appearances. Returns the changes of the incident. `mode`: the upper limit.
    pub(super) fn join(&mut self, joining: Joining<'_>, rules: &RuleSet, (mode, change): (Mode, u64)) -> Vec<Incident> {
        let has_new_rule = joining.users.keys().any(|rule| !self.users.contains_key(rule));
        for (rule, users) in joining.users {
            let most = self.users.entry(rule).or_default();
            *most = users.max(*most);
        }
        let mut changes = Vec::new();
        for (order, appearance) in joining.appearances {
            self.is_known |= appearance.tenant_is_known;
            let known = self.victims.get(&appearance.grant).map(order_of);
            if known.is_some_and(|known| known <= order) {
                continue;
            }
            if let Some(known) = known {
                self.order.remove(&known);
            }
            self.order.insert(order, appearance.grant);
            self.victims.insert(appearance.grant, appearance.clone());
            if known.is_none() {
                changes.push(self.incident(appearance, rules, mode));
            }
        }
        if changes.is_empty()
            && has_new_rule
            && let Some(first) = self.in_order().next()
        {
            changes.push(self.incident(first, rules, mode));
        }
        if !changes.is_empty() {
            self.changed = change;
        }
        changes
    }

    fn in_order(&self) -> impl Iterator<Item = &Appearance> {
        self.order.values().filter_map(|grant| self.victims.get(grant))
    }

    fn id(&self) -> IncidentId {
        let CampaignKey { tenant, network, day } = self.key;
        IncidentId(number([tenant, network.into(), day as u64], INCIDENT))
    }

    fn campaign_id(&self) -> CampaignId {
        let CampaignKey { network, day, .. } = self.key;
        CampaignId(number([network.into(), day as u64], CAMPAIGN))
    }

    pub(super) fn campaign(&self) -> Campaign {
        let first = self.in_order().next();
        let text = |of: fn(&Appearance) -> &str| first.map_or_else(String::new, |first| of(first).to_owned());
        Campaign {
            id: self.id(),
            campaign_id: self.campaign_id(),
            tenant_id: text(|first| &first.tenant_id),
            place: text(|first| &first.place),
            opened_at: first.map_or(Timestamp::MIN, |first| first.at),
            rules: self.users.iter().map(|(rule, users)| (*rule, *users)).collect(),
            victims: self.in_order().map(|victim| (victim.at, (*victim.victim).clone())).collect(),
        }
    }

    /// The incident after `last` joined.
    fn incident(&self, last: &Appearance, rules: &RuleSet, mode: Mode) -> Incident {
        let mut signals: Vec<_> = self.users.iter().map(|(rule, users)| signal(*rule, *users, last)).collect();
        signals.sort_by(|one, other| other.share.total_cmp(&one.share));
        let fired = || self.users.keys().map(|rule| rules.rule(*rule));
        let log_odds = signals.first().map_or(0.0, |signal| signal.share);
        let reasons: Vec<_> = signals.iter().map(|signal| signal.reason.as_str()).collect();
        let rules_reported = self.users.keys().fold(0, |sum, rule| sum | 1 << *rule as u64);
        let Victim { token_id, family_id, user_id, app_id } = (*last.victim).clone();
        Incident {
            id: self.id(),
            opened_at: self.in_order().next().map_or(last.at, |first| first.at),
            // The largest, so that the last row in the table `incidents` has all victims.
            updated_at: self
                .order
                .keys()
                .next_back()
                .and_then(|(at, _)| Timestamp::from_millis(*at))
                .unwrap_or(last.at),
            severity: fired().map(|rule| rule.severity).max().unwrap_or(Severity::Medium),
            verdict: Verdict::Alert,
            baseline: BaselineId(last.grant),
            subject: if family_id.is_empty() { token_id.clone() } else { family_id.clone() },
            tenant_id: last.tenant_id.clone(),
            token_id,
            family_id,
            user_id,
            app_id,
            // Nothing is revoked, and the victims have different sessions.
            session_id: String::new(),
            token_type: last.token_type,
            expires_at: last.expires_at,
            event_id: last.event_id.clone(),
            change: number([last.event, rules_reported], INCIDENT),
            campaign_id: self.campaign_id(),
            victims: self.in_order().take(VICTIMS_MAX).map(|victim| victim.victim.clone()).collect(),
            victims_total: u32::try_from(self.victims.len()).unwrap_or(u32::MAX),
            tenant_is_new: !last.tenant_is_known,
            log_odds,
            reason: format!("{} grants or tokens with one cause: {}.", self.victims.len(), reasons.join("; ")),
            signals,
            // It has no evidence about the calls of one token beyond the first unusual one, so nothing is revoked.
            action: Action::Alert,
            mode: fired().map(|rule| rule.mode).max().unwrap_or(Mode::Shadow).min(mode),
            report: true,
            revoke: None,
        }
    }
}

fn signal(rule: RuleId, users: usize, last: &Appearance) -> Signal {
    let share = share(users);
    let what = match rule {
        RuleId::IpFanout => format!("from {}", last.from),
        _ => format!("through {}", last.victim.app_id),
    };
    let observed =
        format!("{users} users with unusual calls {what} within 2 hours, at a place new to each ({})", last.place);
    Signal {
        rule,
        share,
        // As for other likelihood ratios: by Markov's inequality, at most e^−share for honest users.
        p_value: exp(-share),
        fired: true,
        reason: observed.clone(),
        observed,
        expected: "each user at their own usual places, or with usual calls".to_owned(),
    }
}

/// A number of numbers. The first one is a keyed hash or a network.
fn number<const COUNT: usize>(numbers: [u64; COUNT], seed: u64) -> u64 {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    xxh3_64_with_seed(&bytes, seed)
}
