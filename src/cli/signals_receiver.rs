//! The configured receiver of Shared Signals.

use std::sync::Arc;

use super::failure::Failure;
use crate::config::Config;
use crate::port::{Clock, EventSink, Mistake};
use crate::signals_receiver::SignalsReceiver;
use crate::source::kafka::EventTopic;
use crate::telemetry::Metrics;

/// Serves the endpoint, if it is configured.
pub(super) async fn serve(config: &Config, (clock, metrics): (&Arc<dyn Clock>, &Arc<Metrics>)) -> Result<(), Failure> {
    let (Some(settings), Some(kafka)) = (&config.signals_receiver, &config.source.kafka) else { return Ok(()) };
    let sink: Arc<dyn EventSink> = Arc::new(EventTopic::new(kafka, &settings.topic)?);
    let receiver = SignalsReceiver::new(settings, sink, Arc::clone(clock), Arc::clone(metrics));
    let receiver = receiver.map_err(|Mistake { key, problem }| {
        Failure::Configuration(config.mistake(key, format!("`{key}` {problem}")).to_string())
    })?;
    let served = receiver.serve(settings.listen).await;
    served.map(|_| ()).map_err(|error| {
        Failure::Unavailable(format!("cannot listen on {} (signals_receiver.listen): {error}", settings.listen))
    })
}
