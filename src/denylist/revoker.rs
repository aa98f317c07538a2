//! A revoker that adds the target to the denylist and then asks the provider.

use std::sync::Arc;

use async_trait::async_trait;

use crate::port::{
    Clock, DeliveryError, Denial, DeniedKey, DenylistLog, DenylistRecord, Radius, RevokeRequest, Revoked, Revoker,
};
use crate::verdict::Target;

/// Adds each target to the log. Without a provider, this is the whole revocation.
pub(crate) struct DenyingRevoker {
    log: Arc<dyn DenylistLog>,
    clock: Arc<dyn Clock>,
    /// Time for which a target is denied, milliseconds.
    keep_ms: i64,
    provider: Option<Arc<dyn Revoker>>,
}

impl DenyingRevoker {
    pub(crate) fn new(
        log: Arc<dyn DenylistLog>,
        clock: Arc<dyn Clock>,
        keep_ms: i64,
        provider: Option<Arc<dyn Revoker>>,
    ) -> Self {
        Self { log, clock, keep_ms, provider }
    }
}

#[async_trait]
impl Revoker for DenyingRevoker {
    /// With a provider, as the provider: a target that is only denied must not look revoked.
    fn accepts(&self, target: &Target) -> bool {
        self.provider.as_ref().is_none_or(|provider| provider.accepts(target))
    }

    fn sends_token_ids(&self) -> bool {
        self.provider.as_ref().is_some_and(|provider| provider.sends_token_ids())
    }

    fn tells_tenants_apart(&self) -> bool {
        self.provider.as_ref().is_none_or(|provider| provider.tells_tenants_apart())
    }

    fn radius(&self) -> Option<Radius> {
        self.provider.as_ref().and_then(|provider| provider.radius())
    }

    fn about(&self) -> Option<String> {
        let about = self.provider.as_ref().and_then(|provider| provider.about());
        let denies = "a revocation adds the token or grant to the denylist";
        Some(about.map_or_else(|| denies.to_owned(), |about| format!("{denies}; {about}")))
    }

    fn limits(&self) -> Vec<&str> {
        let mut limits = self.provider.as_ref().map_or_else(Vec::new, |provider| provider.limits());
        if matches!(self.radius(), Some(Radius::User | Radius::Role | Radius::App)) {
            limits.push("The denylist gets the token or grant of the request, not others that the provider revokes.");
        }
        limits
    }

    fn check(&self, request: &RevokeRequest<'_>) -> Result<(), String> {
        self.provider.as_ref().map_or(Ok(()), |provider| provider.check(request))
    }

    /// If the log fails, the provider is asked nevertheless, and the revocation is retried for the log.
    async fn revoke(&self, request: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let at = self.clock.now_millis();
        let key = DeniedKey { tenant_id: request.tenant_id.to_owned(), target: request.target.clone() };
        let denial = Denial { at, until: at.saturating_add(self.keep_ms) };
        let denied = self.log.append(DenylistRecord { key, denial: Some(denial) }).await;
        let revoked = match &self.provider {
            Some(provider) => provider.revoke(request).await?,
            None => Revoked::Done { status: 0 },
        };
        denied.map(|()| revoked).map_err(|reason| DeliveryError::Retriable {
            reason: format!("the denylist is not written: {reason}"),
            status: 0,
            retry_after: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::super::testing::{At, denied};
    use super::*;
    use crate::lock::unpoisoned;
    use crate::port::DenylistObserver;

    #[derive(Default)]
    struct TestLog {
        records: Mutex<Vec<DenylistRecord>>,
        fails: AtomicBool,
    }

    #[async_trait]
    impl DenylistLog for TestLog {
        async fn append(&self, record: DenylistRecord) -> Result<(), String> {
            if self.fails.load(Ordering::Relaxed) {
                return Err("no broker answers".to_owned());
            }
            unpoisoned(&self.records).push(record);
            Ok(())
        }

        fn follow(&self, _: Arc<dyn DenylistObserver>) {}
    }

    /// Revokes grants only. Answers 503 once if `is_away`.
    #[derive(Default)]
    struct Provider {
        calls: AtomicU32,
        is_away: AtomicBool,
    }

    #[async_trait]
    impl Revoker for Provider {
        fn accepts(&self, target: &Target) -> bool {
            matches!(target, Target::Family(_))
        }

        async fn revoke(&self, _: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.is_away.swap(false, Ordering::Relaxed) {
                return Err(DeliveryError::Retriable { reason: "503".to_owned(), status: 503, retry_after: None });
            }
            Ok(Revoked::Done { status: 204 })
        }
    }

    fn request(target: &Target) -> RevokeRequest<'_> {
        RevokeRequest {
            target,
            tenant_id: "acme",
            user_id: "ana",
            app_id: "crm",
            family_id: "g-1",
            token_id: "t-1",
            reason: "r",
            key: "k",
        }
    }

    fn start() -> (DenyingRevoker, Arc<TestLog>, Arc<Provider>) {
        let (log, provider) = (Arc::new(TestLog::default()), Arc::new(Provider::default()));
        let clock = Arc::new(At(5.into()));
        let revoker = DenyingRevoker::new(Arc::clone(&log) as _, clock, 100, Some(Arc::clone(&provider) as _));
        (revoker, log, provider)
    }

    #[tokio::test]
    async fn grant_is_denied_while_the_provider_is_away() {
        let (revoker, log, provider) = start();
        provider.is_away.store(true, Ordering::Relaxed);
        let grant = Target::Family("g-1".to_owned());
        assert!(revoker.revoke(request(&grant)).await.is_err());
        let mut expected = denied("acme", grant.clone(), 105);
        expected.denial = Some(Denial { at: 5, until: 105 });
        assert_eq!(*unpoisoned(&log.records), [expected]);
        assert_eq!(revoker.revoke(request(&grant)).await.ok(), Some(Revoked::Done { status: 204 }));
        assert_eq!(provider.calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn denylist_is_the_revocation_without_a_provider() {
        let (revoker, log, _) = start();
        let token = Target::Token("t-1".to_owned());
        assert!(!revoker.accepts(&token), "as the provider");
        let alone = DenyingRevoker { provider: None, ..revoker };
        assert!(alone.accepts(&token));
        assert_eq!(alone.revoke(request(&token)).await.ok(), Some(Revoked::Done { status: 0 }));
        assert_eq!(unpoisoned(&log.records).len(), 1);
    }

    #[tokio::test]
    async fn provider_is_asked_if_the_log_fails() {
        let (revoker, log, provider) = start();
        log.fails.store(true, Ordering::Relaxed);
        let answer = revoker.revoke(request(&Target::Family("g-1".to_owned()))).await;
        let reason = "the denylist is not written: no broker answers";
        assert!(matches!(answer, Err(DeliveryError::Retriable { reason: found, .. }) if found == reason));
        assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
    }
}
