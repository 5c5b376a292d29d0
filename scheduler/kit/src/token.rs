//! The tokens of one request: who calls, and which service speaks for him.
//!
//! `X-Auth-Token`, or `Authorization: Bearer` as OAuth 2 clients send it, is the caller's. `X-Service-Token` is a
//! service's own: its roles are there for rules to look at, and long work that a service does for a user goes on
//! for a while after his token has ended. A token that is bound to a client certificate is good only on
//! connections that show it.
use crate::{
    auth::{Authenticator, Caller, thumbprint},
    fault::Fault,
    server::PeerCertificate,
};
use http::HeaderMap;
use std::sync::Arc;

/// The role that makes a second token a service's.
const SERVICE_ROLE: &str = "service";

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn token(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-auth-token").or_else(|| {
        let (scheme, token) = text(headers, "authorization")?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    })
}

fn check_binding(caller: &Caller, certificate: Option<&PeerCertificate>) -> Result<(), Fault> {
    match &caller.certificate_thumbprint {
        Some(bound) if certificate.is_none_or(|c| thumbprint(&c.0) != *bound) => Err(Fault::unauthorized()),
        _ => Ok(()),
    }
}

/// Who calls: 401 for anything but good tokens.
pub(crate) async fn caller(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
) -> Result<Arc<Caller>, Fault> {
    let own = token(headers).ok_or_else(Fault::unauthorized)?;
    let Some(service) = text(headers, "x-service-token") else {
        let found = authenticator.caller(own).await?;
        check_binding(&found, certificate)?;
        return Ok(found);
    };
    let service = authenticator.caller(service).await?;
    check_binding(&service, certificate)?;
    let found = match authenticator.caller(own).await {
        Err(fault) if fault.code() == 401 && service.has_role(SERVICE_ROLE) => authenticator.expired(own).await?,
        // The binding is of the connection that the user made, and this one is the service's.
        other => other?,
    };
    let mut both = (*found).clone();
    both.service_roles = service.roles.iter().map(|(_, name)| name.clone()).collect();
    Ok(Arc::new(both))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{AuthError, TokenAuthority},
        clock,
    };
    use async_trait::async_trait;

    /// `old` has ended, `bound` needs the certificate `[1]`, `nova` is a service's.
    struct Known;

    fn made(name: &str) -> Caller {
        let role = if name == "nova" { "service" } else { "member" };
        Caller {
            user_id: name.into(),
            roles: vec![(role.into(), role.into())],
            expires_us: clock::now_us() + 1_000_000_000,
            certificate_thumbprint: (name == "bound").then(|| thumbprint(&[1])),
            ..Caller::default()
        }
    }

    #[async_trait]
    impl TokenAuthority for Known {
        async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
            match token {
                "user" | "bound" | "nova" => Ok(made(token)),
                _ => Err(AuthError::Refused("no".into())),
            }
        }
        async fn authenticate_expired(&self, token: &str) -> Result<Caller, AuthError> {
            if token == "old" { Ok(made(token)) } else { self.authenticate(token).await }
        }
        fn epoch(&self) -> u64 {
            0
        }
    }

    async fn asks(pairs: &[(&'static str, &str)], certificate: Option<&[u8]>) -> Result<Arc<Caller>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let certificate = certificate.map(|der| PeerCertificate(der.to_vec().into()));
        caller(&Authenticator::new(Arc::new(Known)), &headers, certificate.as_ref()).await.map_err(|f| f.code())
    }

    #[tokio::test]
    async fn tokens_come_in_two_headers() {
        assert_eq!(asks(&[("x-auth-token", "user")], None).await.unwrap().user_id, "user");
        assert_eq!(asks(&[("authorization", "bearer user")], None).await.unwrap().user_id, "user");
        for bad in [("authorization", "Basic user"), ("authorization", "user"), ("x-auth-token", "none")] {
            assert_eq!(asks(&[bad], None).await.unwrap_err(), 401, "{bad:?}");
        }
        assert_eq!(asks(&[], None).await.unwrap_err(), 401);
    }

    #[tokio::test]
    async fn a_bound_token_needs_its_certificate() {
        for (certificate, good) in [(Some(&[1_u8][..]), true), (Some(&[2]), false), (None, false)] {
            assert_eq!(asks(&[("x-auth-token", "bound")], certificate).await.is_ok(), good, "{certificate:?}");
        }
    }

    #[tokio::test]
    async fn a_service_goes_on_for_a_user_whose_token_has_ended() {
        let with = |service: &'static str| [("x-auth-token", "old"), ("x-service-token", service)];
        let found = asks(&with("nova"), None).await.unwrap();
        assert_eq!((found.user_id.as_str(), found.service_roles.as_slice()), ("old", &["service".to_owned()][..]));
        assert_eq!(asks(&with("user"), None).await.unwrap_err(), 401, "not a service");
        assert_eq!(asks(&with("none"), None).await.unwrap_err(), 401);
        assert_eq!(asks(&[("x-auth-token", "old")], None).await.unwrap_err(), 401);
        assert_eq!(asks(&[("x-auth-token", "none"), ("x-service-token", "nova")], None).await.unwrap_err(), 401);
    }
}
