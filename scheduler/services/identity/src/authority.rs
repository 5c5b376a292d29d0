//! What the kit asks of identity: whose token is this?
use crate::{Identity, token::resolve::Refused};
use async_trait::async_trait;
use pilvi_kit::auth::{AuthError, Caller, TokenAuthority};

#[async_trait]
impl TokenAuthority for Identity {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        self.within(token, 0).await
    }

    async fn authenticate_expired(&self, token: &str) -> Result<Caller, AuthError> {
        self.within(token, self.grace_us()).await
    }

    fn epoch(&self) -> u64 {
        self.directory.epoch()
    }

    async fn catch_up(&self) -> Result<(), AuthError> {
        self.store.catch_up().await.map_err(|error| AuthError::Unavailable(error.to_string()))
    }
}

impl Identity {
    /// How long after its end a token may still be validated for a service, in microseconds.
    pub(crate) fn grace_us(&self) -> i64 {
        i64::try_from(self.config.allow_expired_seconds).unwrap_or_default().saturating_mul(1_000_000)
    }

    async fn within(&self, token: &str, grace_us: i64) -> Result<Caller, AuthError> {
        match self.validate(token, grace_us).await {
            Ok(resolved) => Ok(resolved.caller()),
            Err(Refused::Because(why)) => Err(AuthError::Refused(why)),
            Err(Refused::Fault(fault)) if fault.status.is_server_error() => {
                Err(AuthError::Unavailable(fault.to_string()))
            }
            Err(Refused::Fault(fault)) => Err(AuthError::Refused(fault.to_string())),
        }
    }
}
