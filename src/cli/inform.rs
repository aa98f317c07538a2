//! Informs the receivers that keep a state of an incident: PagerDuty, Opsgenie and Alertmanager.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::delivery;
use super::failure::Failure;
use super::notify::{describe, problem};
use crate::config::Config;
use crate::port::{About, Alert, Clock, DeliveryError, Handled, HandledStep, Notice, Notifier};
use crate::rule::RuleSet;
use crate::telemetry::SystemClock;

/// Time limit for the answer of a receiver.
const WAIT: Duration = Duration::from_secs(60);

/// Sends the step to every receiver that can use it. Returns a line for each. Fails if one did not accept it.
pub(super) async fn inform(config: &Config, handled: Handled, by: &str) -> Result<String, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (_, rules) = watch::channel(Arc::new(RuleSet::builtin()));
    let (incident, now, step) = (handled.incident, clock.now_millis(), handled.step);
    let done = match step {
        HandledStep::Acknowledged => "acknowledged",
        HandledStep::Resolved => "resolved",
        HandledStep::Open => "open",
    };
    let title = format!("{incident} is {done}");
    let notice = Notice { title, text: format!("By {by}."), at: now, about: Some(Box::new(About::Handled(handled))) };
    let key = format!("notice-{done}-{incident}-{now}");
    let (mut text, mut refused) = (String::new(), String::new());
    let notifiers = delivery::notifiers(config, &rules, &clock)?;
    for notifier in notifiers.iter().filter(|notifier| notifier.handles(step)) {
        let what = describe(&**notifier);
        // Writing to a `String` cannot fail.
        let _ = match sent(&**notifier, &notice, &key).await {
            Ok(()) => writeln!(text, "{what}: {done}"),
            Err(error) => write!(refused, "\n{what}: {}", problem(&error)),
        };
    }
    if refused.is_empty() {
        return Ok(text);
    }
    let fix = "run the command again";
    Err(Failure::Unavailable(format!("{incident} is {done} in the store, and not at every receiver; {fix}:{refused}")))
}

async fn sent(notifier: &dyn Notifier, notice: &Notice, key: &str) -> Result<(), DeliveryError> {
    let late = || DeliveryError::Retriable {
        reason: format!("no answer within {} s", WAIT.as_secs()),
        status: 0,
        retry_after: None,
    };
    let answer = tokio::time::timeout(WAIT, notifier.notify(Alert::Notice(notice), key)).await;
    answer.unwrap_or_else(|_| Err(late())).map(drop)
}
