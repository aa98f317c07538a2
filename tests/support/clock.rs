//! A clock that only a test advances.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokenwarden::port::Clock;
use tokio::sync::watch;

/// Where every test clock starts: 2026-11-18 11:06:40 UTC, milliseconds since the epoch.
pub(crate) const START: i64 = 1_795_000_000_000;

pub(crate) struct TestClock {
    now: watch::Sender<i64>,
}

impl TestClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { now: watch::Sender::new(START) })
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += i64::try_from(by.as_millis()).expect("a duration"));
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now_millis(&self) -> i64 {
        *self.now.borrow()
    }

    async fn sleep(&self, wait: Duration) {
        let mut now = self.now.subscribe();
        let until = self.now_millis() + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 4);
        let _ = now.wait_for(|now| *now >= until).await;
    }
}
