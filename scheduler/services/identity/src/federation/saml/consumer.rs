//! Where clients without a browser bring what their provider said (ECP), as Apache's Shibboleth module does it for
//! Keystone.
//!
//! ```text
//! GET .../protocols/{protocol}/auth, Accept: ..paos..  -> 200 envelope: AuthnRequest for the provider, RelayState
//! the client takes the request to its provider (and there proves who it is), and the answer
//! POST /Shibboleth.sso/SAML2/ECP                       -> 302 back, with a cookie
//! GET .../protocols/{protocol}/auth with the cookie    -> 201 a token   (endpoint)
//! ```
//! The relay state is sealed with our keys and names the request, so any scheduler can take the answer. Another
//! Keystone comes with an assertion at once; the client then knows by itself where to go with the cookie.
use super::{
    Saml,
    assertion::{Expected, Word, accept, relay_state},
    xml::{ASSERTION, ECP, PAOS, PROTOCOL, SOAP, escaped},
};
use crate::{
    Identity,
    directory::Area,
    fault,
    federation::{login::Said, mapping::engine::Assertion, segment},
    form,
    tables::{IdentityProvider, SamlAssertion, SamlSession},
    token::fernet,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock, id};
use pilvi_store::{Error, Query};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const PATH: &str = "/Shibboleth.sso/SAML2/ECP";
/// As Shibboleth tells Apache who the provider is: what `remote_ids` are compared with.
const REMOTE_ID: &str = "Shib-Identity-Provider";
/// The subject's name, as Apache calls it.
const REMOTE_USER: &str = "REMOTE_USER";
const COOKIE: &str = "pilvi_saml";
/// Time to get a token with the cookie, in seconds.
const SESSION_SECONDS: i64 = 300;
/// Time to sign on at the provider.
const REQUEST_SECONDS: i64 = 600;
const PAOS_TYPE: &str = "application/vnd.paos+xml";
/// Told apart from what else is sealed with the same keys.
const SEAL: &str = "saml request";

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::post(PATH, consume)
            .public("the provider's signature is the proof")
            .takes_bytes()
            .summary("Take the word of a SAML 2 identity provider"),
    ]
}

/// A request on its way to the provider.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    seal: String,
    id: String,
    idp: String,
    protocol: String,
    until_us: i64,
}

/// For the log, which strangers must not fill.
fn note(why: &str) {
    let why: String = why.chars().take(256).collect();
    tracing::warn!(why, "SAML assertion refused");
}

fn refuse<T>(why: &str) -> Result<T, Fault> {
    note(why);
    Err(fault::unauthorized())
}

/// The client can talk to its provider in our place.
fn is_enhanced(call: &Call) -> bool {
    call.header("accept").is_some_and(|accept| accept.to_ascii_lowercase().contains(PAOS_TYPE))
        && call.header("paos").is_some_and(|paos| paos.contains(PAOS))
}

fn cookie(call: &Call) -> Option<&str> {
    call.header("cookie")?.split(';').find_map(|c| c.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

impl Identity {
    fn seal_asked(&self, asked: &Asked) -> Result<String, Fault> {
        let text = serde_json::to_vec(asked).map_err(Fault::internal)?;
        let seconds = u64::try_from(clock::now_us() / 1_000_000).unwrap_or_default();
        Ok(fernet::seal(&self.credential_keys.ring(), &text, seconds))
    }

    fn unseal_asked(&self, state: &str) -> Option<Asked> {
        let (text, _) = fernet::open(&self.credential_keys.ring(), state)?;
        let asked: Asked = serde_json::from_slice(&text).ok()?;
        (asked.seal == SEAL && asked.until_us > clock::now_us()).then_some(asked)
    }

    /// A client that has nothing to show, and can ask its provider, is told what to ask.
    pub(in crate::federation) async fn saml_request(&self, call: &Call) -> Result<Option<Response>, Fault> {
        let Some(saml) = self.saml.as_ref().filter(|_| is_enhanced(call) && cookie(call).is_none()) else {
            return Ok(None);
        };
        let (idp, protocol) = (call.param("idp_id"), call.param("protocol_id"));
        let provider = self.trusted_provider(idp).await?;
        self.protocol(idp, protocol).await?;
        if !provider.remote_ids.iter().any(|name| saml.trusted(name).is_some()) {
            return Ok(None);
        }
        let asked = Asked {
            seal: SEAL.into(),
            id: format!("_{}", id::hex()),
            idp: idp.to_owned(),
            protocol: protocol.to_owned(),
            until_us: clock::now_us() + REQUEST_SECONDS * 1_000_000,
        };
        let envelope = request(saml, &asked.id, &self.seal_asked(&asked)?);
        Ok(Some(Response::text(200, PAOS_TYPE, envelope).header("cache-control", "no-store")))
    }

    /// What the provider said of whoever holds the cookie in `call`; `None` where there is no cookie.
    pub(in crate::federation) async fn saml_session(&self, call: &Call, idp_id: &str) -> Result<Option<Said>, Fault> {
        let Some(cookie) = cookie(call) else { return Ok(None) };
        let found = self.store.get::<SamlSession>(&SamlSession::key(cookie)).await?;
        let Some(session) = found.filter(|s| s.until_us > clock::now_us()) else {
            return refuse("the cookie is of no session, or of one that is over");
        };
        // The provider must be named, also where one without names would take anybody's word.
        let provider = self.trusted_provider(idp_id).await?;
        if !provider.remote_ids.contains(&session.issuer) {
            return Err(Fault::forbidden(
                "Incoming identity provider identifier not included among the accepted identifiers.",
            ));
        }
        Ok(Some(Said { assertion: Assertion(session.record.attributes), remote_id: REMOTE_ID }))
    }

    /// Remembers the assertion and makes a session of it; gives the cookie's text. The second time it is refused.
    async fn saml_remember(&self, word: Word) -> Result<String, Fault> {
        let cookie = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let mut attributes = word.attributes;
        if let Some(name) = word.name {
            attributes.insert(REMOTE_USER.into(), vec![name]);
        }
        attributes.insert(REMOTE_ID.into(), vec![word.issuer.clone()]);
        let seen = SamlAssertion { id: SamlAssertion::key(&word.issuer, &word.id), until_us: word.until_us };
        let session = SamlSession {
            id: SamlSession::key(&cookie),
            issuer: word.issuer,
            attributes,
            until_us: clock::now_us() + SESSION_SECONDS * 1_000_000,
        };
        let done = self.store.write(move |tx| {
            let (seen, session) = (seen.clone(), session.clone());
            Box::pin(async move {
                tx.insert(&seen).await?;
                tx.insert(&session).await?;
                Ok::<_, Error>(())
            })
        });
        match done.await {
            Ok(()) => Ok(cookie),
            Err(Error::Exists { .. }) => refuse("the assertion has been shown before"),
            Err(error) => Err(error.into()),
        }
    }

    /// The one protocol of the one provider that goes by this name.
    async fn saml_place(&self, issuer: &str) -> Result<Option<IdentityProvider>, Fault> {
        let all = self.store.list::<IdentityProvider>(Query::all()).await?;
        let mut named = all.into_iter().map(|p| p.record).filter(|p| p.remote_ids.iter().any(|r| r == issuer));
        Ok(named.next())
    }

    /// Forgets what can meet nobody any more.
    pub(crate) async fn prune_saml(&self) -> Result<(), Fault> {
        let now = clock::now_us();
        let seen = self.store.list::<SamlAssertion>(Query::all()).await?;
        let sessions = self.store.list::<SamlSession>(Query::all()).await?;
        let seen: Vec<_> = seen.into_iter().filter(|s| s.until_us < now).map(|s| s.record.id).collect();
        let sessions: Vec<_> = sessions.into_iter().filter(|s| s.until_us < now).map(|s| s.record.id).collect();
        if seen.is_empty() && sessions.is_empty() {
            return Ok(());
        }
        self.write(Area::Quiet, move |tx| {
            let (seen, sessions) = (seen.clone(), sessions.clone());
            Box::pin(async move {
                for id in &seen {
                    tx.delete::<SamlAssertion>(id).await?;
                }
                for id in &sessions {
                    tx.delete::<SamlSession>(id).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

/// What the provider is to be asked, and what the client has to know.
fn request(saml: &Saml, id: &str, state: &str) -> String {
    let (entity, here) = (escaped(&saml.config.sp_entity_id()), escaped(&saml.consumer()));
    let next = "soap:actor=\"http://schemas.xmlsoap.org/soap/actor/next\" soap:mustUnderstand=\"1\"";
    let now = clock::seconds_z(clock::now_us());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soap:Envelope xmlns:soap=\"{SOAP}\"><soap:Header>\
         <paos:Request xmlns:paos=\"{PAOS}\" {next} responseConsumerURL=\"{here}\" service=\"{ECP}\"/>\
         <ecp:Request xmlns:ecp=\"{ECP}\" {next} IsPassive=\"0\">\
         <saml:Issuer xmlns:saml=\"{ASSERTION}\">{entity}</saml:Issuer></ecp:Request>\
         <ecp:RelayState xmlns:ecp=\"{ECP}\" {next}>{state}</ecp:RelayState></soap:Header><soap:Body>\
         <samlp:AuthnRequest xmlns:samlp=\"{PROTOCOL}\" AssertionConsumerServiceURL=\"{here}\" ID=\"{id}\" \
         IssueInstant=\"{now}\" ProtocolBinding=\"urn:oasis:names:tc:SAML:2.0:bindings:PAOS\" Version=\"2.0\">\
         <saml:Issuer xmlns:saml=\"{ASSERTION}\">{entity}</saml:Issuer>\
         <samlp:NameIDPolicy AllowCreate=\"1\"/></samlp:AuthnRequest></soap:Body></soap:Envelope>"
    )
}

async fn consume(svc: Arc<Identity>, mut call: Call) -> Reply {
    let body = form::bytes(&mut call).await?;
    let saml = svc.saml()?;
    let Ok(text) = String::from_utf8(body) else { return Err(Fault::bad_request("The request body is no text.")) };
    let asked = match relay_state(&text) {
        Ok(state) => state.and_then(|state| svc.unseal_asked(&state)),
        Err(why) => {
            note(&why);
            return Err(Fault::bad_request("The request body is no SOAP envelope."));
        }
    };
    let here = saml.consumer();
    let audience = saml.config.sp_entity_id();
    let expected = Expected {
        recipient: &here,
        audience: &audience,
        request: asked.as_ref().map(|asked| asked.id.as_str()),
        now_us: clock::now_us(),
    };
    let word = match accept(&text, |name| saml.trusted(name), &expected) {
        Ok(word) => word,
        Err(why) => return refuse(&why),
    };
    let Some(provider) = svc.saml_place(&word.issuer).await? else {
        return refuse(&format!("no identity provider is registered that goes by the name {}", word.issuer));
    };
    let asked = asked.filter(|_| word.answers);
    let cookie = svc.saml_remember(word).await?;
    let base = format!("{}/identity/v3", saml.config.url);
    let location = match asked {
        Some(asked) if asked.idp == provider.id => format!(
            "{base}/OS-FEDERATION/identity_providers/{}/protocols/{}/auth",
            segment(&asked.idp),
            segment(&asked.protocol)
        ),
        // Another cloud's client goes where it was told to, not here.
        _ => base,
    };
    Ok(Response::empty(302)
        .header("location", location)
        .header("set-cookie", set_cookie(&saml.config.url, &cookie))
        .header("cache-control", "no-store"))
}

/// Sent to identity alone, and seen by no script.
fn set_cookie(url: &str, value: &str) -> String {
    let secure = if url.starts_with("https:") { "; Secure" } else { "" };
    let path = url::Url::parse(&format!("{url}/identity")).map_or("/identity".to_owned(), |u| u.path().to_owned());
    format!("{COOKIE}={value}; Path={path}; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax{secure}")
}
