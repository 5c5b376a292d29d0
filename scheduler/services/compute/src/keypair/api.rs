//! `/os-keypairs`
use super::key;
use crate::{Compute, tables::Keypair, version as v};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route, Schema, Target, clock,
    page::{Page, PageRules},
};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["keypair"], "additionalProperties": false, "properties": {
            "keypair": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 255}, "public_key": {"type": ["string", "null"]},
                "type": {"type": "string", "enum": ["ssh", "x509"]}, "user_id": {"type": "string", "minLength": 1}}}}})
    })
});

pub fn routes() -> Vec<Route<Compute>> {
    const ONE: &str = "/v2.1/os-keypairs/{name}";
    vec![
        Route::get("/v2.1/os-keypairs", list).rule_by_handler("os_compute_api:os-keypairs:index"),
        Route::post("/v2.1/os-keypairs", create).rule_by_handler("os_compute_api:os-keypairs:create").schema(&CREATE),
        Route::get(ONE, show).rule_by_handler("os_compute_api:os-keypairs:show"),
        Route::delete(ONE, delete).rule_by_handler("os_compute_api:os-keypairs:delete"),
    ]
}

/// Whose keys are meant: the caller's, or since 2.10 those of a user an administrator names.
fn user(call: &Call, named: Option<&str>) -> Result<String, Fault> {
    let user = named.filter(|_| call.at_least(2, 10)).unwrap_or(call.ctx.user_id()).to_owned();
    let mut target = Target::new();
    target.insert("user_id".into(), user.clone().into());
    call.authorize(&target)?;
    Ok(user)
}

fn view(call: &Call, key: &Keypair) -> Value {
    let mut out = json!({"name": key.name, "fingerprint": key.fingerprint, "public_key": key.public_key});
    if call.at_least(2, 2) {
        out["type"] = json!(key.kind);
    }
    out
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let user = user(&call, call.query.get("user_id"))?;
    let mut keys = svc.store.list::<Keypair>(Query::all().eq("user_id", user)).await?;
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    let mut links = Vec::new();
    if call.at_least(2, 35) {
        let page = Page::of(&call, PageRules { max: Some(1000), default: None, keys: &[] })?;
        let (cut, more) = page.cut(keys, |k| &k.record.name, |_, _| Value::Null)?;
        links = page.links(&call, &cut, more, |k| &k.record.name).into_iter().filter(|l| l["rel"] == "next").collect();
        keys = cut;
    }
    let mut body = json!({"keypairs": keys.iter().map(|k| json!({"keypair": view(&call, k)})).collect::<Vec<_>>()});
    if !links.is_empty() {
        body["keypairs_links"] = json!(links);
    }
    Ok(Response::ok(body))
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("keypair")?;
    let user_id = user(&call, body["user_id"].as_str())?;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_- @.".contains(c);
    let valid = if call.version >= v::KEYS_IMPORTED_ONLY {
        name.chars().all(plain)
    } else {
        name.chars().all(|c| c.is_ascii_alphanumeric() || "_- ".contains(c))
    };
    if !valid || name.trim() != name {
        return Err(Fault::bad_request("Keypair data is invalid: Keypair name contains unsafe characters"));
    }
    let kind = body["type"].as_str().unwrap_or("ssh").to_owned();
    let (public_key, private_key) = match body["public_key"].as_str() {
        Some(text) => (text.trim().to_owned(), None),
        None if call.version >= v::KEYS_IMPORTED_ONLY => {
            return Err(Fault::bad_request(
                "Invalid input for field/attribute keypair. 'public_key' is a required property",
            ));
        }
        None if kind == "x509" => key::generate_x509(&user_id).map(|(public, private)| (public, Some(private)))?,
        None => key::generate(&format!("Generated-by-{}", "Pilvi")).map(|(public, private)| (public, Some(private)))?,
    };
    let fingerprint =
        if kind == "ssh" { key::ssh_fingerprint(&public_key)? } else { key::x509_fingerprint(&public_key)? };
    let record = Keypair {
        id: format!("{user_id}/{name}"),
        user_id: user_id.clone(),
        name: name.clone(),
        fingerprint,
        public_key,
        kind,
    };
    let limit = svc.quotas.limits(&svc.store, call.ctx.project_id()).await?.get("key_pairs").copied().unwrap_or(-1);
    let key = record.clone();
    svc.store
        .write(move |tx| {
            let key = key.clone();
            Box::pin(async move {
                let used = tx.count::<Keypair>(Query::all().eq("user_id", key.user_id.as_str())).await?;
                if limit >= 0 && used >= u64::try_from(limit).unwrap_or(0) {
                    return Err(Fault::forbidden("Quota exceeded, too many key pairs."));
                }
                tx.insert(&key).await.map_err(|e| match e {
                    pilvi_store::Error::Exists { .. } => {
                        Fault::conflict(format!("Key pair '{}' already exists.", key.name))
                    }
                    e => e.into(),
                })
            })
        })
        .await?;
    let mut shown = view(&call, &record);
    shown["user_id"] = json!(user_id);
    if let Some(private) = private_key {
        shown["private_key"] = json!(private);
    }
    let status = if call.at_least(2, 2) { 201 } else { 200 };
    Ok(Response::json(status, json!({"keypair": shown})))
}

async fn found(svc: &Compute, call: &Call) -> Result<Stored<Keypair>, Fault> {
    let user = user(call, call.query.get("user_id"))?;
    let name = call.param("name");
    let missing = || Fault::not_found(format!("Keypair {name} not found for user {user}"));
    svc.store.get::<Keypair>(&format!("{user}/{name}")).await?.ok_or_else(missing)
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let key = found(&svc, &call).await?;
    let mut out = view(&call, &key);
    out["user_id"] = json!(key.user_id);
    out["id"] = json!(number(&key));
    out["created_at"] = json!(clock::micros(key.created_us));
    out["deleted"] = json!(false);
    out["deleted_at"] = Value::Null;
    out["updated_at"] = Value::Null;
    Ok(Response::ok(json!({"keypair": out})))
}

/// Old clients want a number: the time of creation is one that stays.
fn number(key: &Stored<Keypair>) -> i64 {
    key.created_us / 1_000_000
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let id = found(&svc, &call).await?.record.id;
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.delete::<Keypair>(&id).await?) })
        })
        .await?;
    Ok(Response::empty(if call.at_least(2, 2) { 204 } else { 202 }))
}
