//! Alerts in a Kafka topic: each message is an OCSF Detection Finding.

use std::sync::Arc;

use async_trait::async_trait;

use super::ocsf;
use crate::port::{Accepted, Alert, DeliveryError, MessageTopic, Notifier};
use crate::sanitize;

/// Key of notices, so that they keep their order.
const NOTICES: &str = "notice";

/// Sends alerts to one topic.
pub(super) struct OcsfKafka {
    name: String,
    topic: Arc<dyn MessageTopic>,
}

impl OcsfKafka {
    pub(super) fn new(name: &str, topic: Arc<dyn MessageTopic>) -> Self {
        Self { name: name.to_owned(), topic }
    }
}

#[async_trait]
impl Notifier for OcsfKafka {
    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> String {
        format!("topic {}", self.topic.name())
    }

    /// The message key is the incident, so that its messages keep their order.
    async fn notify(&self, alert: Alert<'_>, key: &str) -> Result<Accepted, DeliveryError> {
        let body = sanitize::json(&ocsf::finding(alert, key).to_string());
        let of = match alert {
            Alert::Incident { incident, .. } => incident.id.to_string(),
            Alert::Notice(_) => NOTICES.to_owned(),
        };
        self.topic.send(&of, &body).await.map(|()| Accepted::default())
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        self.topic.probe().await
    }
}
