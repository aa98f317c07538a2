use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::SizeRange;

use super::evidence::{USERS_MIN, share};
use super::*;
use crate::appearance::Appearance;
use crate::event::{Timestamp, TokenType};
use crate::millis::{DAY_MS, MINUTE_MS};
use crate::rule::{Rule, RuleSet};
use crate::tally::Withheld;
use crate::verdict::{CampaignId, Mode, RuleId, Verdict, Victim};

const MONDAY: i64 = 20_780 * DAY_MS;
/// More than the campaigns of a test.
const BUDGET: (u32, u32) = (1_000_000, 0);

/// Numbers of an appearance: minute, tenant, user, application, network and last byte of the address.
type Numbers = (i64, u64, u64, u64, u32, u32);

fn appearance((minute, tenant, user, app, network, host): Numbers) -> Appearance {
    let event = (minute as u64) << 32 | tenant << 24 | user << 8 | app << 4 | u64::from(network);
    Appearance {
        at: Timestamp::from_millis(MONDAY + minute * MINUTE_MS).expect("a time"),
        event: event << 8 | u64::from(host),
        tenant,
        user: tenant << 32 | user,
        app: (app != 0).then_some(app),
        network,
        address: network << 8 | host,
        grant: tenant << 32 | user << 8 | app,
        tenant_is_known: true,
        tenant_id: format!("tenant-{tenant}"),
        victim: Victim {
            token_id: format!("token-{user}"),
            family_id: format!("grant-{user}-{app}"),
            user_id: format!("user-{user}"),
            app_id: if app == 0 { String::new() } else { format!("app-{app}") },
        }
        .into(),
        token_type: TokenType::Access,
        expires_at: None,
        event_id: format!("e{event}"),
        place: format!("AS{network}"),
        from: format!("192.0.2.{host}"),
    }
}

fn stage_of(appearances: impl IntoIterator<Item = Appearance>) -> Stage {
    let (rules, mut stage) = (RuleSet::builtin(), Stage::new(Mode::Enforce, BUDGET));
    for appearance in appearances {
        stage.add(&rules, appearance, MONDAY);
    }
    stage
}

fn campaigns_of(numbers: &[Numbers]) -> Vec<Campaign> {
    stage_of(numbers.iter().copied().map(appearance)).campaigns()
}

fn users(campaign: &Campaign) -> Vec<&str> {
    campaign.victims.iter().map(|(_, victim)| &*victim.user_id).collect()
}

#[test]
fn three_users_of_one_application_are_a_campaign() {
    let rules = RuleSet::builtin();
    let mut stage = Stage::new(Mode::Enforce, BUDGET);
    assert!(stage.add(&rules, appearance((0, 1, 1, 7, 9, 1)), MONDAY).is_empty());
    assert!(stage.add(&rules, appearance((60, 1, 2, 7, 9, 2)), MONDAY).is_empty());
    let found = stage.add(&rules, appearance((119, 1, 3, 7, 9, 3)), MONDAY);
    assert_eq!(found.iter().map(|incident| &*incident.user_id).collect::<Vec<_>>(), ["user-1", "user-2", "user-3"]);
    let last = found.last().expect("an incident");
    assert_eq!((last.victims_total, last.verdict, &last.revoke), (3, Verdict::Alert, &None));
    assert_eq!(last.fired().collect::<Vec<_>>(), [RuleId::AppFanout]);
    assert_eq!(last.opened_at.millis(), MONDAY);
    assert_eq!(
        last.signals[0].reason,
        "3 users with unusual calls through app-7 within 2 hours, at a place new to each (AS9)"
    );
    let next = stage.add(&rules, appearance((121, 1, 4, 7, 9, 4)), MONDAY);
    assert_eq!(next.len(), 1, "only the new victim is reported");
    assert_eq!((next[0].id, next[0].victims_total), (last.id, 4));
    assert!(stage.add(&rules, appearance((121, 1, 4, 7, 9, 4)), MONDAY).is_empty(), "a repetition");
}

#[test]
fn ip_fanout_counts_users_of_different_applications() {
    let found = campaigns_of(&[(0, 1, 1, 5, 9, 1), (1, 1, 2, 6, 9, 1), (2, 1, 3, 0, 9, 1)]);
    assert_eq!(found.iter().map(|found| found.rules.clone()).collect::<Vec<_>>(), [vec![(RuleId::IpFanout, 3)]]);
}

#[test]
fn users_without_a_common_cause_are_no_campaign() {
    let apart = [(0, 1, 1, 7, 9, 1), (60, 1, 2, 7, 9, 2), (121, 1, 3, 7, 9, 3)];
    let elsewhere = [(0, 1, 1, 7, 9, 1), (1, 1, 2, 7, 8, 2), (2, 1, 3, 7, 6, 3)];
    let apps = [(0, 1, 1, 7, 9, 1), (1, 1, 2, 6, 9, 2), (2, 1, 3, 5, 9, 3)];
    let no_app = [(0, 1, 1, 0, 9, 1), (1, 1, 2, 0, 9, 2), (2, 1, 3, 0, 9, 3)];
    let one_user = [(0, 1, 1, 7, 9, 1), (1, 1, 1, 7, 9, 2), (2, 1, 1, 7, 9, 3)];
    for numbers in [apart, elsewhere, apps, no_app, one_user] {
        assert_eq!(campaigns_of(&numbers), [], "{numbers:?}");
    }
}

#[test]
fn other_tenants_except_one_count() {
    let two_others = [(0, 1, 1, 7, 9, 1), (1, 2, 1, 7, 9, 2), (2, 3, 1, 7, 9, 3)];
    assert_eq!(campaigns_of(&two_others), []);
    let three_others = [(0, 1, 1, 7, 9, 1), (1, 2, 1, 7, 9, 2), (2, 3, 1, 7, 9, 3), (3, 4, 1, 7, 9, 4)];
    let found = campaigns_of(&three_others);
    assert_eq!(found.len(), 4, "one incident for each tenant");
    let ids: BTreeSet<CampaignId> = found.iter().map(|found| found.campaign_id).collect();
    assert_eq!(ids.len(), 1, "with one campaign");
}

#[test]
fn incidents_are_by_day_of_the_victim() {
    let night = DAY_MS / MINUTE_MS - 10;
    let found = campaigns_of(&[(night, 1, 1, 7, 9, 1), (night + 5, 1, 2, 7, 9, 2), (night + 15, 1, 3, 7, 9, 3)]);
    assert_eq!(found.iter().map(users).collect::<Vec<_>>(), [vec!["user-1", "user-2"], vec!["user-3"]]);
}

#[test]
fn threshold_of_the_rule_sets_the_number_of_users() {
    let users_from = |threshold: f64| (1..100).find(|users| *users >= USERS_MIN && share(*users) >= threshold);
    assert_eq!([1.5, 1.6, 5.0, 10.0, 20.0].map(|threshold| users_from(threshold).unwrap_or(0)), [3, 4, 6, 12, 24]);
    let rule = Rule { threshold: 3.5, ..RuleSet::builtin().rule(RuleId::AppFanout).clone() };
    let (rules, mut stage) = (RuleSet::new(vec![rule]), Stage::new(Mode::Enforce, BUDGET));
    for user in 1..=4 {
        assert!(stage.add(&rules, appearance((0, 1, user, 7, 9, user as u32)), MONDAY).is_empty());
    }
    assert_eq!(stage.add(&rules, appearance((0, 1, 5, 7, 9, 5)), MONDAY).len(), 5);
}

#[test]
fn tenant_evicts_its_own_appearances_only() {
    let victims = [(0, 2, 1, 7, 60, 1), (60, 2, 2, 7, 60, 2)];
    // All after the victims, so that the earliest appearances are theirs.
    let of_one = (0..70_000).map(|user| appearance((61, 1, user, 6, 1_000 + (user % 5_000) as u32, user as u32)));
    let invented = (100..70_100).map(|tenant| Appearance {
        tenant_is_known: false,
        ..appearance((61, tenant, 1, 6, 1_000 + (tenant % 5_000) as u32, tenant as u32))
    });
    let floods: [Vec<Appearance>; 2] = [of_one.collect(), invented.collect()];
    for flood in floods {
        let mut stage = stage_of(victims.into_iter().map(appearance).chain(flood));
        let (kept, dropped) = stage.appearances();
        assert_eq!((kept, dropped), (1 << 16, 70_002 - (1 << 16)));
        let found = stage.add(&RuleSet::builtin(), appearance((119, 2, 3, 7, 60, 3)), MONDAY);
        assert_eq!(found.len(), 3, "the appearances of the other tenant are kept");
    }
}

#[test]
fn appearances_of_a_tenant_on_a_network_are_limited() {
    let numbers = (0..1_000).map(|user| appearance((0, 1, user, 7, 9, 1)));
    assert_eq!(stage_of(numbers).appearances(), (256, 744));
    let invented =
        (0..1_000).map(|tenant| Appearance { tenant_is_known: false, ..appearance((0, tenant, 1, 7, 9, 1)) });
    assert_eq!(stage_of(invented).appearances(), (256, 744), "all unknown tenants count as one");
}

/// 1,000 appearances of a few accounts, on the network of the victims and in the same period.
#[test]
fn accounts_of_a_thief_hide_no_victim() {
    let victims = || (1..=3).map(|user| appearance((90 + user as i64, 1, user, 7, 9, user as u32)));
    // Two accounts with the application of the victims and one with another. Each call has another address.
    let of_three = |number: u64| Appearance {
        event: number,
        address: 1 << 24 | number as u32,
        ..appearance((number as i64 % 80, 1, 100 + number % 3, 7 - number % 3 / 2, 9, 0))
    };
    // An account for each call, without an application.
    let of_many = |number: u64| Appearance {
        event: number,
        address: 1 << 24 | number as u32,
        ..appearance((number as i64 % 80, 1, 100 + number, 0, 9, 0))
    };
    let floods: [Vec<_>; 2] = [(0..1_000).map(of_three).collect(), (0..1_000).map(of_many).collect()];
    for flood in floods {
        let found = stage_of(flood.into_iter().chain(victims())).campaigns();
        let found = found.iter().flat_map(users).collect::<BTreeSet<_>>();
        assert!(["user-1", "user-2", "user-3"].iter().all(|victim| found.contains(victim)), "{found:?}");
    }
}

/// The accounts of a thief fill the group of the first victim before and after its appearance.
#[test]
fn full_group_keeps_each_window() {
    let decoy = |number: u64| appearance((number as i64 % 80, 1, 100 + number, 7, 9, 100 + number as u32));
    let first = [appearance((118, 1, 1, 7, 9, 1))];
    let others = [appearance((200, 1, 2, 7, 9, 2)), appearance((210, 1, 3, 7, 9, 3))];
    let stage = stage_of((0..300).map(decoy).chain(first).chain((300..600).map(decoy)).chain(others));
    assert_eq!(stage.campaigns().iter().map(|found| found.victims.len()).collect::<Vec<_>>(), [603]);
    // A user with many calls counts in each window too.
    let of_one = (0..100).map(|number| appearance((number, 1, 1, 7, 9, 4 + number as u32)));
    let others = [appearance((200, 1, 2, 7, 9, 2)), appearance((218, 1, 3, 7, 9, 3))];
    let stage = stage_of(of_one.chain([appearance((101, 1, 1, 7, 9, 200))]).chain(others));
    assert_eq!(stage.appearances(), (18, 85));
    assert_eq!(stage.campaigns().iter().map(users).collect::<Vec<_>>(), [["user-1", "user-2", "user-3"]]);
}

#[test]
fn unknown_tenants_count_as_one() {
    let of = |tenant: u64, tenant_is_known| Appearance { tenant_is_known, ..appearance((0, tenant, 1, 7, 9, 1)) };
    let invented = || (10..14).map(|tenant| of(tenant, false));
    assert_eq!(stage_of(invented()).campaigns(), []);
    assert_eq!(stage_of(invented().chain([of(1, true), of(2, true)])).campaigns(), []);
    let found = stage_of(invented().chain([of(1, true), of(2, true), of(3, true)])).campaigns();
    assert_eq!(found.len(), 7, "three known tenants and the others");
    let own = (1..=3).map(|user| Appearance { tenant_is_known: false, ..appearance((0, 5, user, 7, 9, 1)) });
    assert_eq!(stage_of(own).campaigns().len(), 1, "a tenant counts its own users");
}

#[test]
fn invented_tenants_have_one_allowance() {
    let (rules, mut stage) = (RuleSet::builtin(), Stage::new(Mode::Enforce, (20, 20)));
    let mut add = |tenant: u64, users: u64, tenant_is_known, now| {
        let of = |user| appearance((0, tenant, user, 7, tenant as u32 % 128, 1));
        let mut found = Vec::new();
        for user in 1..=users {
            found.extend(stage.add(&rules, Appearance { tenant_is_known, ..of(user) }, now));
        }
        (found, stage.take_withheld())
    };
    let mut reported = BTreeSet::new();
    let mut withheld = Withheld::default();
    for tenant in 10..310 {
        let (found, more) = add(tenant, 3, false, MONDAY);
        reported.extend(found.iter().map(|incident| incident.id));
        withheld.add(more);
    }
    assert_eq!((reported.len(), withheld), (40, Withheld { alerts: 260, highest: share(3) }));
    assert_eq!(add(1, 3, true, MONDAY).0.len(), 3, "a known tenant has its own allowance");
    assert_eq!(add(309, 3, false, MONDAY).0.len(), 0, "a repetition");
    // It grows: it is the largest of the day, and each victim is reported.
    let (found, more) = add(309, 4, false, MONDAY);
    assert_eq!(
        found.iter().map(|incident| &*incident.user_id).collect::<Vec<_>>(),
        ["user-1", "user-2", "user-3", "user-4"]
    );
    assert_eq!(more, Withheld::default());
    assert_eq!(add(308, 4, false, MONDAY), (Vec::new(), Withheld { alerts: 0, highest: share(4) }));
    assert_eq!(add(307, 4, false, MONDAY + DAY_MS).0.len(), 4, "the next day");
}

fn some(count: impl Into<SizeRange>) -> impl Strategy<Value = Vec<Numbers>> {
    prop::collection::vec((0_i64..400, 1_u64..4, 0_u64..6, 0_u64..3, 1_u32..3, 1_u32..3), count)
}

proptest! {
    #[test]
    fn order_and_repetitions_do_not_matter(
        (numbers, mixed) in some(1..60).prop_flat_map(|numbers| {
            let twice: Vec<_> = numbers.iter().chain(&numbers).copied().collect();
            (Just(numbers), Just(twice).prop_shuffle())
        })
    ) {
        prop_assert_eq!(campaigns_of(&numbers), campaigns_of(&mixed));
    }

    #[test]
    fn no_appearance_removes_a_victim(numbers in some(1..40), decoys in some(1..40)) {
        let before = campaigns_of(&numbers);
        let with: Vec<_> = numbers.iter().chain(&decoys).copied().collect();
        let after = campaigns_of(&with);
        for campaign in before {
            let again = after.iter().find(|found| found.id == campaign.id);
            let victims = again.map(|found| found.victims.iter().map(|(_, victim)| victim).collect::<Vec<_>>());
            let victims = victims.unwrap_or_default();
            for (_, victim) in &campaign.victims {
                prop_assert!(victims.contains(&victim), "{:?} of {:?}", victim, campaign.id);
            }
        }
    }

    /// The topic is keyed by network.
    #[test]
    fn number_of_partitions_does_not_matter(numbers in some(1..60), partitions in 1_u32..5) {
        let whole = campaigns_of(&numbers);
        let mut parts: Vec<Campaign> = (0..partitions)
            .flat_map(|part| {
                let own: Vec<_> = numbers.iter().filter(|numbers| numbers.4 % partitions == part).copied().collect();
                campaigns_of(&own)
            })
            .collect();
        parts.sort_by_key(|campaign| (campaign.opened_at, campaign.id));
        prop_assert_eq!(whole, parts);
    }

    /// Each victim of a campaign is reported, and each change has a number of its own.
    #[test]
    fn reported_changes_name_every_victim(numbers in some(1..60)) {
        let (rules, mut stage) = (RuleSet::builtin(), Stage::new(Mode::Enforce, BUDGET));
        let mut reported = BTreeMap::<_, BTreeSet<String>>::new();
        let mut changes = BTreeSet::new();
        for numbers in numbers {
            for incident in stage.add(&rules, appearance(numbers), MONDAY) {
                prop_assert!(changes.insert((incident.id, incident.change)), "each change has its own number");
                prop_assert!(incident.revoke.is_none() && incident.log_odds.is_finite());
                reported.entry(incident.id).or_default().insert(incident.family_id);
            }
        }
        let found = stage.campaigns().into_iter().map(|campaign| {
            (campaign.id, campaign.victims.into_iter().map(|(_, victim)| victim.family_id).collect())
        });
        prop_assert_eq!(reported, found.collect::<BTreeMap<_, _>>());
    }
}
