//! Which channels get an incident or a notice.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::verdict::{Incident, RuleId, Severity};

/// Routes of alerts, and what happens if a channel fails. Without routes, every channel gets everything.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// In order: the first that matches decides, unless it continues.
    pub routes: Vec<Route>,
    /// Channels that get the messages of a channel that fails, in order.
    pub fallback: Vec<String>,
    /// Time for which a channel has failed when its messages go to the fallback.
    pub fallback_after: Duration,
}

/// One route.
#[derive(Clone, Debug, Default)]
pub struct Route {
    pub of: RouteOf,
    /// Names of channels.
    pub channels: Vec<String>,
    /// Whether later routes count as well.
    pub continues: bool,
}

/// What a route is for.
#[derive(Clone, Debug)]
pub enum RouteOf {
    /// Incidents that fulfil all conditions. `None`: any.
    Incidents {
        /// The lowest severity.
        severity: Option<Severity>,
        tenants: Option<BTreeSet<String>>,
        /// One of these rules fired.
        rules: Option<BTreeSet<RuleId>>,
    },
    /// Notices about the service.
    Notices,
}

impl Default for RouteOf {
    fn default() -> Self {
        Self::Incidents { severity: None, tenants: None, rules: None }
    }
}

impl RouteOf {
    fn matches(&self, incident: &Incident) -> bool {
        match self {
            Self::Notices => false,
            Self::Incidents { severity, tenants, rules } => {
                severity.is_none_or(|lowest| incident.severity >= lowest)
                    && tenants.as_ref().is_none_or(|tenants| tenants.contains(&incident.tenant_id))
                    && rules.as_ref().is_none_or(|rules| {
                        incident.signals.iter().any(|signal| signal.fired && rules.contains(&signal.rule))
                    })
            }
        }
    }
}

impl Routes {
    /// The lanes of `all` that get `incident`. All of them if no route matches.
    pub(super) fn of_incident(&self, incident: &Incident, all: &[String]) -> Vec<String> {
        self.chosen(all, |of| of.matches(incident))
    }

    /// The lanes of `all` that get a notice. All of them without a route for notices.
    pub(super) fn of_notice(&self, all: &[String]) -> Vec<String> {
        self.chosen(all, |of| matches!(of, RouteOf::Notices))
    }

    fn chosen(&self, all: &[String], matches: impl Fn(&RouteOf) -> bool) -> Vec<String> {
        let mut names = BTreeSet::new();
        for route in self.routes.iter().filter(|route| matches(&route.of)) {
            names.extend(route.channels.iter().map(String::as_str));
            if !route.continues {
                break;
            }
        }
        let chosen: Vec<_> = all.iter().filter(|lane| names.contains(name_of(lane))).cloned().collect();
        // A route must never silence an alert, for example if its channels have no lane.
        if chosen.is_empty() { all.to_vec() } else { chosen }
    }
}

/// Name of the channel of a lane, which may have one lane for each recipient.
pub(super) fn name_of(lane: &str) -> &str {
    lane.split_once(' ').map_or(lane, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::incident;

    fn lanes() -> Vec<String> {
        ["email a@x", "email b@x", "soc", "oncall"].map(str::to_owned).to_vec()
    }

    fn route(of: RouteOf, channels: &[&str]) -> Route {
        Route { of, channels: channels.iter().map(|name| (*name).to_owned()).collect(), continues: false }
    }

    fn incidents(severity: Option<Severity>, tenant: Option<&str>, rule: Option<RuleId>) -> RouteOf {
        RouteOf::Incidents {
            severity,
            tenants: tenant.map(|tenant| BTreeSet::from([tenant.to_owned()])),
            rules: rule.map(|rule| BTreeSet::from([rule])),
        }
    }

    fn chosen(routes: Vec<Route>, incident: &Incident) -> Vec<String> {
        Routes { routes, ..Routes::default() }.of_incident(incident, &lanes())
    }

    #[test]
    fn first_matching_route_decides() {
        let incident = incident();
        let critical = || route(incidents(Some(Severity::Critical), None, None), &["oncall"]);
        let high = || route(incidents(Some(Severity::High), Some("acme"), None), &["email"]);
        let reuse = || route(incidents(None, None, Some(RuleId::RefreshReuse)), &["oncall"]);
        let two_holders = || route(incidents(None, None, Some(RuleId::ConcurrentUse)), &["soc"]);
        // The rule of this signal did not fire.
        let client = || route(incidents(None, None, Some(RuleId::NewClient)), &["oncall"]);
        assert_eq!(chosen(vec![critical(), high(), two_holders()], &incident), ["email a@x", "email b@x"]);
        assert_eq!(chosen(vec![reuse(), client(), two_holders(), high()], &incident), ["soc"]);
        let then = Route { continues: true, ..two_holders() };
        assert_eq!(chosen(vec![then.clone(), critical(), high()], &incident), ["email a@x", "email b@x", "soc"]);
        assert_eq!(chosen(vec![then], &incident), ["soc"]);
        let other = route(incidents(None, Some("other"), None), &["oncall"]);
        assert_eq!(chosen(vec![other], &incident), lanes(), "no route matches");
    }

    #[test]
    fn no_route_silences_an_alert() {
        let incident = incident();
        assert_eq!(chosen(Vec::new(), &incident), lanes());
        for channels in [&[][..], &["removed"]] {
            assert_eq!(chosen(vec![route(RouteOf::default(), channels)], &incident), lanes(), "{channels:?}");
        }
    }

    #[test]
    fn notices_follow_their_own_routes() {
        let mut routes = Routes { routes: vec![route(RouteOf::default(), &["soc"])], ..Routes::default() };
        assert_eq!(routes.of_notice(&lanes()), lanes());
        routes.routes.push(route(RouteOf::Notices, &["oncall"]));
        assert_eq!(routes.of_notice(&lanes()), ["oncall"]);
        assert_eq!(routes.of_incident(&incident(), &lanes()), ["soc"]);
    }
}
