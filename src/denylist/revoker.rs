//! A revoker that adds the target to the denylist and sends the request to the provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::Retryable as _;

use super::lifetimes::Lifetimes;
use crate::port::{
    Clock, Confirmation, DeliveryError, Denial, DeniedKey, DenylistRecord, Radius, RecordLog, RevokeRequest, Revoked,
    Revoker,
};
use crate::retry::RetryPolicy;
use crate::verdict::Target;

/// The limit of a revocation without a provider.
pub(crate) const DENIED_ONLY: &str = "There is no provider, so a token is only denied, for the hours of [denylist]. A token \
                                      without expiry, and a refresh token, work again afterwards.";
/// Retries of an entry that the log did not take.
pub(crate) const LOG_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(60));
/// Maximum number of entries that are retried at once. Beyond it, their revocations are.
const WAITING_MAX: usize = 10_000;

/// What to do if the provider has revoked and the log has not taken the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfLogFails {
    /// The revocation is done. The entry is retried in the background, until the process ends.
    RetryEntry,
    /// The revocation fails. For a command, which ends before the entry could be retried.
    Fail,
}

/// Adds each target to the log. Without a provider, this is the whole revocation.
pub(crate) struct DenyingRevoker {
    pub(crate) log: Arc<dyn RecordLog<DenylistRecord>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) provider: Option<Arc<dyn Revoker>>,
    pub(crate) if_log_fails: IfLogFails,
    /// Waits between two attempts to write an entry.
    pub(crate) log_retry: RetryPolicy,
    /// Number of entries that are retried.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl DenyingRevoker {
    /// Retries an entry until the log takes it. `false`: too many wait.
    fn retry(&self, record: DenylistRecord, reason: &str) -> bool {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return false;
        }
        tracing::error!(reason, "an entry of the denylist is not written; retrying");
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let (log, waiting, policy) = (Arc::clone(&self.log), Arc::clone(&self.waiting), self.log_retry);
        tokio::spawn(async move {
            let append = || log.append(record.clone());
            // The policy does not end, so there is no error.
            let _ = append.retry(policy).await;
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
        true
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

    fn fingerprint(&self) -> Option<String> {
        self.provider.as_ref().and_then(|provider| provider.fingerprint())
    }

    fn limits(&self) -> Vec<&str> {
        let Some(provider) = &self.provider else { return vec![DENIED_ONLY] };
        let mut limits = provider.limits();
        if matches!(self.radius(), Some(Radius::User | Radius::Role | Radius::App)) {
            limits.push("The denylist gets the token or grant of the request, not others that the provider revokes.");
        }
        limits
    }

    fn check(&self, request: &RevokeRequest<'_>) -> Result<(), String> {
        self.provider.as_ref().map_or(Ok(()), |provider| provider.check(request))
    }

    /// Neither waits for the other. A log that fails must not stop revocations at the provider, nor repeat them.
    async fn revoke(&self, request: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let at = self.clock.now_millis();
        let key = DeniedKey { tenant_id: request.tenant_id.to_owned(), target: request.target.clone() };
        let until = self.lifetimes.until(at, request.target, request.token_type, request.expires_at);
        let record = DenylistRecord { key, denial: Denial::Denied { at, until } };
        let ask = async {
            match &self.provider {
                Some(provider) => Some(provider.revoke(request).await),
                None => None,
            }
        };
        let (denied, revoked) = tokio::join!(self.log.append(record.clone()), ask);
        let Err(reason) = denied else {
            let confirmation = Confirmation::at(self.clock.now_millis());
            return revoked.unwrap_or(Ok(Revoked::Done { status: 0, confirmation }));
        };
        let failed = || DeliveryError::Retriable {
            reason: format!("the denylist is not written: {reason}"),
            status: 0,
            retry_after: None,
        };
        let revoked = revoked.unwrap_or_else(|| Err(failed()))?;
        let is_retried = self.if_log_fails == IfLogFails::RetryEntry && self.retry(record, &reason);
        if is_retried { Ok(revoked) } else { Err(failed()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use futures::FutureExt as _;

    use super::super::testing::{At, TestLog, denied};
    use super::*;

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
            Ok(Revoked::Done { status: 204, confirmation: Confirmation::at(5) })
        }
    }

    fn request(target: &Target) -> RevokeRequest<'_> {
        RevokeRequest {
            target,
            tenant_id: "acme",
            user_id: "ana",
            app_id: "crm",
            family_id: "g-1",
            session_id: "",
            token_id: "t-1",
            token_type: crate::event::TokenType::Other,
            expires_at: None,
            reason: "r",
            key: "k",
        }
    }

    fn start() -> (DenyingRevoker, Arc<TestLog>, Arc<Provider>) {
        let (log, provider) = (Arc::new(TestLog::default()), Arc::new(Provider::default()));
        let clock = Arc::new(At(5.into()));
        let denying = DenyingRevoker {
            log: Arc::clone(&log) as _,
            clock,
            lifetimes: Lifetimes { least: 100, of_type: BTreeMap::new() },
            provider: Some(Arc::clone(&provider) as _),
            if_log_fails: IfLogFails::RetryEntry,
            log_retry: RetryPolicy::every(Duration::from_millis(1)),
            waiting: Arc::default(),
        };
        (denying, log, provider)
    }

    #[tokio::test]
    async fn grant_is_denied_while_the_provider_is_away() {
        let (denying, log, provider) = start();
        provider.is_away.store(true, Ordering::Relaxed);
        let grant = Target::Family("g-1".to_owned());
        assert!(denying.revoke(request(&grant)).await.is_err());
        let denial = Denial::Denied { at: 5, until: 105 };
        assert_eq!(log.appended(), [DenylistRecord { denial, ..denied("acme", grant.clone(), 0) }]);
        assert_eq!(
            denying.revoke(request(&grant)).await.ok(),
            Some(Revoked::Done { status: 204, confirmation: Confirmation::at(5) })
        );
        assert_eq!(provider.calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn denylist_is_the_revocation_without_a_provider() {
        let (denying, log, _) = start();
        let token = Target::Token("t-1".to_owned());
        assert!(!denying.accepts(&token), "as the provider");
        let alone = DenyingRevoker { provider: None, ..denying };
        assert!(alone.accepts(&token));
        assert_eq!(
            alone.revoke(request(&token)).await.ok(),
            Some(Revoked::Done { status: 0, confirmation: Confirmation::at(5) })
        );
        assert_eq!(log.appended().len(), 1);
    }

    #[tokio::test]
    async fn denial_lasts_until_the_token_expires() {
        let (denying, log, _) = start();
        let grant = Target::Family("g-1".to_owned());
        let expires_at = crate::event::Timestamp::from_millis(4_711);
        denying.revoke(RevokeRequest { expires_at, ..request(&grant) }).await.expect("it is revoked");
        assert_eq!(log.appended()[0].denial, Denial::Denied { at: 5, until: 4_711 });
    }

    #[tokio::test]
    async fn failed_log_repeats_no_revocation() {
        let (denying, log, provider) = start();
        log.fails.store(true, Ordering::Relaxed);
        let grant = Target::Family("g-1".to_owned());
        assert_eq!(
            denying.revoke(request(&grant)).await.ok(),
            Some(Revoked::Done { status: 204, confirmation: Confirmation::at(5) })
        );
        while log.attempts.load(Ordering::Relaxed) < 5 {
            tokio::task::yield_now().await;
        }
        assert_eq!((log.appended().len(), denying.waiting.load(Ordering::Relaxed)), (0, 1));
        log.fails.store(false, Ordering::Relaxed);
        while denying.waiting.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((log.appended().len(), provider.calls.load(Ordering::Relaxed)), (1, 1));
    }

    #[tokio::test]
    async fn failed_log_fails_a_command_or_a_lone_denial() {
        let (denying, log, provider) = start();
        log.fails.store(true, Ordering::Relaxed);
        let fails = async |revoker: &DenyingRevoker| {
            let answer = revoker.revoke(request(&Target::Family("g-1".to_owned()))).await;
            let reason = "the denylist is not written: no broker answers";
            matches!(answer, Err(DeliveryError::Retriable { reason: found, .. }) if found == reason)
        };
        let of_command = DenyingRevoker { if_log_fails: IfLogFails::Fail, ..denying };
        assert!(fails(&of_command).await);
        assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
        assert!(fails(&DenyingRevoker { provider: None, if_log_fails: IfLogFails::RetryEntry, ..of_command }).await);
    }

    #[tokio::test]
    async fn provider_does_not_wait_for_the_log() {
        let (denying, log, provider) = start();
        log.hangs.store(true, Ordering::Relaxed);
        let grant = Target::Family("g-1".to_owned());
        let revoked = denying.revoke(request(&grant));
        assert!(revoked.now_or_never().is_none(), "the log is awaited");
        assert_eq!(provider.calls.load(Ordering::Relaxed), 1);
    }
}
