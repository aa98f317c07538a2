//! The configured API for users.

use std::sync::Arc;

use super::delivery::wrong;
use super::failure::Failure;
use crate::config::Config;
use crate::port::{Clock, Revoker};
use crate::store::ClickHouse;
use crate::telemetry::Metrics;
use crate::user_api::{Parts, UserApi, objection};

/// Fails if users must not request revocations from `revoker`.
pub(super) fn check(config: &Config, revoker: &dyn Revoker) -> Result<(), Failure> {
    match (&config.user_api, objection(revoker)) {
        (Some(_), Some(problem)) => {
            let mistake = config.mistake("user_api", format!("`user_api` {problem}"));
            Err(Failure::Configuration(mistake.to_string()))
        }
        _ => Ok(()),
    }
}

/// Serves the API, if it is configured.
pub(super) async fn serve(
    config: &Config,
    revoker: Option<Arc<dyn Revoker>>,
    store: &Arc<ClickHouse>,
    (clock, metrics): (&Arc<dyn Clock>, &Arc<Metrics>),
) -> Result<(), Failure> {
    let (Some(settings), Some(revoker)) = (&config.user_api, revoker) else { return Ok(()) };
    check(config, &*revoker)?;
    let parts = Parts {
        store: Arc::clone(store),
        store_settings: config.store.clone(),
        revoker,
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
        folder: config.outbox.dir.clone(),
    };
    let api = UserApi::new(settings, parts).map_err(wrong(config, "user_api"))?;
    api.serve(settings.listen).await.map_err(|error| {
        Failure::Unavailable(format!("cannot listen on {} (user_api.listen): {error}", settings.listen))
    })
}
