//! An access token in the `Authorization` header: a program's way in.
use super::{REMOTE_ID, assertion, provider::Provider};
use crate::{Identity, federation::login::Said};
use pilvi_kit::{Call, Fault};
use serde_json::Value;

/// Longest access token, in bytes.
const TOKEN_MAX: usize = 64 * 1024;

/// 401 that tells a program how it could prove itself.
fn refuse(why: &str) -> Fault {
    tracing::warn!(why, "bearer token refused");
    Fault::unauthorized().header("www-authenticate", "Bearer")
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(call: &Call) -> Option<&str> {
    let (scheme, token) = call.header("authorization")?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_MAX).then_some(token)
}

async fn claims(provider: &Provider, token: &str) -> Result<Value, String> {
    let mut claims = match provider.config.introspect {
        true => provider.introspect(token).await?,
        false => provider.claims(token).await?,
    };
    if provider.config.userinfo {
        provider.add_user_info(token, &mut claims).await?;
    }
    Ok(claims)
}

impl Identity {
    /// What the provider says of the holder of the token in `call`.
    pub(in crate::federation) async fn openid_bearer(
        &self,
        call: &Call,
        idp_id: &str,
        protocol_id: &str,
    ) -> Result<Said, Fault> {
        let Some(provider) = self.openid.find(idp_id, protocol_id) else {
            return Err(refuse("no OpenID provider is configured for this identity provider and protocol"));
        };
        let Some(token) = bearer(call) else { return Err(refuse("the request has no bearer token")) };
        match claims(provider, token).await {
            Ok(claims) => Ok(Said { assertion: assertion(&claims), remote_id: REMOTE_ID }),
            Err(why) => Err(refuse(&why)),
        }
    }
}
