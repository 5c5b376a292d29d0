//! The three steps by which a program comes to act for a user: ask, be authorized, collect.
use super::{
    consumer,
    signature::{Header, Signed, verify},
};
use crate::{
    Identity,
    directory::Area,
    fault, form,
    tables::{OauthAccessToken, OauthConsumer, OauthRequestToken, Place, Role},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock, id};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};
use subtle::ConstantTimeEq;

/// Roles of one authorization.
const ROLES_MAX: usize = 64;
/// A verifier is typed by people: letters and digits that do not look like others.
const VERIFIER_CHARACTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const VERIFIER_LENGTH: usize = 8;
const FORM: &str = "application/x-www-form-urlencoded";

fn authorize_schema() -> Value {
    let role = json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "properties": {"id": {"type": "string", "minLength": 1, "maxLength": 64}, "name": {"type": "string", "minLength": 1, "maxLength": 255}}});
    json!({"type": "object", "required": ["roles"],
        "properties": {"roles": {"type": "array", "items": role, "minItems": 1, "maxItems": ROLES_MAX}}})
}

static AUTHORIZE: LazyLock<Schema> = LazyLock::new(|| Schema::new(authorize_schema));

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::post("/v3/OS-OAUTH1/request_token", request)
            .public("the consumer's signature is the proof")
            .takes_bytes()
            .body_type("application/x-www-form-urlencoded")
            .summary("Ask for access to a project"),
        Route::put("/v3/OS-OAUTH1/authorize/{request_token_id}", authorize)
            .rule("identity:authorize_request_token")
            .schema(&AUTHORIZE)
            .summary("Let a consumer act for oneself"),
        Route::post("/v3/OS-OAUTH1/access_token", collect)
            .public("the consumer's signature and the user's verifier are the proof")
            .takes_bytes()
            .body_type("application/x-www-form-urlencoded")
            .summary("Exchange an authorized request token for an access token"),
    ]
}

fn refuse<T>(why: &str) -> Result<T, Fault> {
    Err(Fault::new(401, why))
}

/// The parameters of the request, which must be an OAuth one.
pub(super) fn header(call: &Call) -> Result<Header, Fault> {
    call.header("authorization")
        .and_then(Header::parse)
        .ok_or_else(|| Fault::bad_request("The request has no Authorization header with OAuth parameters."))
}

pub(super) fn need<'h>(header: &'h Header, name: &str) -> Result<&'h str, Fault> {
    header.get(name).filter(|v| v.len() <= 255 && !v.contains('\0')).ok_or_else(|| fault::expecting(name, "request"))
}

impl Identity {
    /// 401 unless the request was signed with these secrets, is of now, and was not seen before.
    pub(super) fn check_signature(
        &self,
        call: &Call,
        header: &Header,
        body: Vec<(String, String)>,
        secrets: (&str, &str),
    ) -> Result<(), Fault> {
        let once = header.check(clock::now_us() / 1_000_000).or_else(|why| refuse(&why))?;
        let url = call.url(&call.path);
        let mut fields = call.query.0.clone();
        fields.extend(body);
        if !verify(header, &Signed { method: call.method.as_str(), url: &url, fields }, secrets.0, secrets.1) {
            return refuse("Invalid signature");
        }
        // Kept only now: whoever cannot sign cannot fill the memory of those who can.
        let mut fresh = false;
        self.oauth_nonces.get_with(once, || fresh = true);
        if fresh { Ok(()) } else { refuse("The request was used before") }
    }

    pub(super) async fn consumer(&self, id: &str) -> Result<OauthConsumer, Fault> {
        Ok(self.store.get::<OauthConsumer>(id).await?.ok_or_else(|| consumer::missing(id))?.record)
    }

    async fn request_token(&self, id: &str) -> Result<OauthRequestToken, Fault> {
        let found = self.store.get::<OauthRequestToken>(id).await?;
        let token = found.ok_or_else(|| fault::missing("request token", id))?.record;
        if token.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return refuse("Request token is expired");
        }
        Ok(token)
    }
}

/// When something made now ends; 0 seconds: never.
fn expiry(seconds: u64) -> Option<i64> {
    let lasts = i64::try_from(seconds).ok().filter(|s| *s > 0)?;
    Some((clock::now_us() / 1_000_000).saturating_add(lasts).saturating_mul(1_000_000))
}

fn answer(id: &str, secret: &str, expires_us: Option<i64>) -> Response {
    let mut text = format!("oauth_token={id}&oauth_token_secret={secret}");
    if let Some(at) = expires_us {
        text.push_str("&oauth_expires_at=");
        text.push_str(&clock::micros_z(at));
    }
    Response::text(201, FORM, text)
}

async fn request(svc: Arc<Identity>, mut call: Call) -> Reply {
    let header = header(&call)?;
    let consumer_id = need(&header, "oauth_consumer_key")?;
    let project_id = call
        .header("requested-project-id")
        .filter(|p| !p.is_empty() && p.len() <= 64)
        .ok_or_else(|| fault::expecting("Requested-Project-Id", "request"))?
        .to_owned();
    let consumer = svc.consumer(consumer_id).await?;
    let body = form::fields(&mut call).await?;
    svc.check_signature(&call, &header, body, (&consumer.secret, ""))?;
    let project = svc.directory.project(&project_id).await?.ok_or_else(|| fault::missing("project", &project_id))?;
    let token = OauthRequestToken {
        id: id::hex(),
        secret: id::hex(),
        consumer_id: consumer.id,
        project_id: project.id.clone(),
        user_id: None,
        roles: Vec::new(),
        verifier: None,
        expires_us: expiry(svc.config.oauth1_request_seconds),
    };
    let reply = answer(&token.id, &token.secret, token.expires_us);
    svc.write(Area::Quiet, move |tx| {
        let token = token.clone();
        Box::pin(async move {
            tx.get::<OauthConsumer>(&token.consumer_id).await?.ok_or_else(|| consumer::missing(&token.consumer_id))?;
            tx.insert(&token).await?;
            Ok(())
        })
    })
    .await?;
    Ok(reply)
}

/// The ids of the roles that the user names.
async fn wanted_roles(svc: &Identity, call: &Call) -> Result<Vec<String>, Fault> {
    let graph = svc.directory.role_graph().await?;
    let mut out: Vec<String> = Vec::new();
    for wanted in call.body["roles"].as_array().into_iter().flatten() {
        let text = |name: &str| wanted.get(name).and_then(Value::as_str);
        let same = |role: &&Role| match (text("id"), text("name")) {
            (Some(id), _) => role.id == id,
            (None, Some(name)) => role.name == name && role.domain_id.is_none(),
            (None, None) => false,
        };
        let role = graph
            .roles
            .values()
            .find(same)
            .ok_or_else(|| fault::missing("role", text("id").or_else(|| text("name")).unwrap_or_default()))?;
        if !out.contains(&role.id) {
            out.push(role.id.clone());
        }
    }
    Ok(out)
}

fn new_verifier() -> String {
    let mut random = rand::rng();
    (0..VERIFIER_LENGTH)
        .map(|_| char::from(VERIFIER_CHARACTERS[random.random_range(0..VERIFIER_CHARACTERS.len())]))
        .collect()
}

async fn authorize(svc: Arc<Identity>, call: Call) -> Reply {
    let caller = call.caller();
    let delegated =
        caller.methods.iter().any(|m| ["oauth1", "application_credential", "ec2credential"].contains(&m.as_str()));
    if delegated || caller.trust_id.is_some() {
        return Err(Fault::forbidden("Cannot authorize a request token with a token issued via delegation."));
    }
    let token = svc.request_token(call.param("request_token_id")).await?;
    let roles = wanted_roles(&svc, &call).await?;
    let user_id = caller.user_id.clone();
    let held: HashSet<String> = svc.directory.role_ids_at(&user_id, &Place::Project(token.project_id.clone())).await?;
    if roles.iter().any(|id| !held.contains(id)) {
        return refuse("authorizing user does not have role required");
    }
    let verifier = new_verifier();
    let shown = json!({"token": {"oauth_verifier": verifier}});
    svc.write(Area::Quiet, move |tx| {
        let (id, user_id, roles, verifier) = (token.id.clone(), user_id.clone(), roles.clone(), verifier.clone());
        Box::pin(async move {
            let found = tx.get::<OauthRequestToken>(&id).await?;
            let mut stored = found.ok_or_else(|| fault::missing("request token", &id))?;
            if stored.user_id.as_ref().is_some_and(|other| *other != user_id) {
                return Err(Fault::forbidden("The request token was authorized by somebody else."));
            }
            (stored.record.user_id, stored.record.roles, stored.record.verifier) =
                (Some(user_id), roles, Some(verifier));
            tx.update(&stored).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::ok(shown))
}

async fn collect(svc: Arc<Identity>, mut call: Call) -> Reply {
    let header = header(&call)?;
    let consumer_id = need(&header, "oauth_consumer_key")?;
    let request_id = need(&header, "oauth_token")?;
    let verifier = need(&header, "oauth_verifier")?;
    let token = svc.request_token(request_id).await?;
    let Some(consumer) = svc.store.get::<OauthConsumer>(consumer_id).await? else {
        return refuse("Provided consumer does not exist.");
    };
    if token.consumer_id != consumer.id {
        return refuse("Provided consumer key does not match stored consumer key.");
    }
    let body = form::fields(&mut call).await?;
    svc.check_signature(&call, &header, body, (&consumer.secret, &token.secret))?;
    let Some(user_id) = token.user_id.clone() else {
        return refuse("Request Token does not have an authorizing user id.");
    };
    let right = token.verifier.as_ref().is_some_and(|v| bool::from(v.as_bytes().ct_eq(verifier.as_bytes())));
    if !right {
        return refuse("Provided verifier does not match stored verifier");
    }
    let access = OauthAccessToken {
        id: id::hex(),
        secret: id::hex(),
        consumer_id: token.consumer_id.clone(),
        project_id: token.project_id.clone(),
        user_id,
        roles: token.roles.clone(),
        expires_us: expiry(svc.config.oauth1_access_seconds),
    };
    let reply = answer(&access.id, &access.secret, access.expires_us);
    svc.write(Area::Quiet, move |tx| {
        let (request_id, access) = (token.id.clone(), access.clone());
        Box::pin(async move {
            // Used up: of two that race, one finds it gone.
            if !tx.delete::<OauthRequestToken>(&request_id).await? {
                return Err(fault::missing("request token", &request_id));
            }
            tx.insert(&access).await?;
            Ok(())
        })
    })
    .await?;
    Ok(reply)
}
