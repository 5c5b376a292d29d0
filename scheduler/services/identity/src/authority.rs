//! What the kit asks of identity: whose token is this?
use crate::{Identity, token::resolve::Refused};
use async_trait::async_trait;
use pilvi_kit::auth::{AuthError, Caller, TokenAuthority};

#[async_trait]
impl TokenAuthority for Identity {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        match self.validate(token, 0).await {
            Ok(resolved) => Ok(resolved.caller()),
            Err(Refused::Because(why)) => Err(AuthError::Refused(why)),
            Err(Refused::Fault(fault)) if fault.status.is_server_error() => {
                Err(AuthError::Unavailable(fault.to_string()))
            }
            Err(Refused::Fault(fault)) => Err(AuthError::Refused(fault.to_string())),
        }
    }

    fn epoch(&self) -> u64 {
        self.directory.epoch()
    }
}
