//! Members as readers of the topic of sightings, in a group of their own: a rebalance of one group does not move the
//! partitions of the other, and each member may have partitions of both.

use std::sync::Arc;

use super::KafkaSource;
use super::own_topic::OwnTopic;
use super::settings::{KafkaSettings, StateTopicUse, Topic};
use crate::feed::Feed;
use crate::port::{SourceError, SourceObserver};

/// Maximum number of sightings before the committed one that are read again when a partition is assigned. It is 16 times the
/// number that a stage keeps, because one tenant can send many that the stage drops.
const REMEMBERED: u32 = 1 << 20;

impl KafkaSource {
    /// Joins the group `<group_id>-sightings`, which reads the topic of sightings. Creates the topic if it is missing.
    pub(crate) fn of_sightings(
        settings: &KafkaSettings,
        observer: Arc<dyn SourceObserver>,
    ) -> Result<Self, SourceError> {
        let own = OwnTopic::sightings(settings)?;
        own.ensure()?;
        let mut properties = settings.properties.clone();
        // The first member reads what is there.
        properties.insert("auto.offset.reset".to_owned(), "earliest".to_owned());
        let settings = KafkaSettings {
            topics: vec![Topic { topic: own.name, feed: Feed::default() }],
            group_id: format!("{}-sightings", settings.group_id),
            properties,
            remember_messages_max: REMEMBERED,
            state_topic: StateTopicUse::Never,
            verdicts_topic: false,
            sightings_topic: false,
            rekey: false,
            ..settings.clone()
        };
        Self::open(&settings, observer)
    }
}
