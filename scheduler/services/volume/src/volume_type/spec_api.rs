//! `/types/{id}/extra_specs`, and `/types/{id}/encryption`, which is not offered.
use super::api::{named, specs_for};
use crate::{
    Volumes, fault, route,
    tables::{Volume, VolumeType},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

const ENCRYPTION: &str = "/v3/types/{type_id}/encryption";
const ENCRYPTION_ONE: &str = "/v3/types/{type_id}/encryption/{encryption_id}";

pub fn routes() -> Vec<Route<Volumes>> {
    const ALL: &str = "/v3/types/{type_id}/extra_specs";
    const ONE: &str = "/v3/types/{type_id}/extra_specs/{key}";
    vec![
        route::get(ALL, list).rule("volume_extension:types_extra_specs:index"),
        route::post(ALL, create).rule("volume_extension:types_extra_specs:create").schema(&CREATE),
        route::get(ONE, show).rule("volume_extension:types_extra_specs:show"),
        route::put(ONE, update).rule("volume_extension:types_extra_specs:update").schema(&UPDATE),
        route::delete(ONE, delete).rule("volume_extension:types_extra_specs:delete"),
        route::get(ENCRYPTION, encryption).rule("volume_extension:volume_type_encryption:get"),
        route::post(ENCRYPTION, encrypt).rule("volume_extension:volume_type_encryption:create"),
        route::get(ENCRYPTION_ONE, encryption_of).rule("volume_extension:volume_type_encryption:get"),
        route::put(ENCRYPTION_ONE, encrypt).rule("volume_extension:volume_type_encryption:update"),
        route::delete(ENCRYPTION_ONE, unencrypt).rule("volume_extension:volume_type_encryption:delete"),
    ]
}

fn specs() -> Value {
    json!({"type": "object", "additionalProperties": false, "patternProperties": {
        r"^[a-zA-Z0-9\-_:.]{1,255}$": {"type": ["string", "null"], "maxLength": 255}}})
}
static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["extra_specs"], "additionalProperties": false,
            "properties": {"extra_specs": specs()}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let mut one = specs();
        (one["minProperties"], one["maxProperties"]) = (json!(1), json!(1));
        one
    })
});

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    Ok(Response::ok(json!({"extra_specs": specs_for(&call, &found)})))
}

fn missing(type_id: &str, key: &str) -> Fault {
    Fault::not_found(format!("Volume Type {type_id} has no extra specs with key {key}."))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    let (specs, key) = (specs_for(&call, &found), call.param("key"));
    let value = specs.get(key).ok_or_else(|| missing(&found.record.id, key))?;
    Ok(Response::ok(json!({ key: value })))
}

/// A change of a type's specs, which no volume of it may notice.
async fn change_in(
    tx: &mut Tx,
    id: &str,
    change: impl FnOnce(&mut VolumeType) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if tx.count::<Volume>(Query::all().eq("volume_type", id)).await? > 0 {
        return Err(Fault::bad_request("Volume Type is currently in use."));
    }
    let mut found = tx.get::<VolumeType>(id).await?.ok_or_else(|| fault::no_type(id))?;
    change(&mut found.record)?;
    let is = |name: &str| found.extra_specs.get(name).is_some_and(|v| v == "<is> True");
    if is("multiattach") && is("cacheable") {
        return Err(Fault::bad_request("cacheable cannot be set with multiattach."));
    }
    tx.update(&found).await?;
    Ok(())
}

async fn add(svc: &Volumes, call: &Call, new: BTreeMap<String, String>) -> Result<(), Fault> {
    svc.write((call.param("type_id").to_owned(), new), |tx, (id, new)| {
        Box::pin(async move {
            change_in(tx, &id, |of_type| {
                of_type.extra_specs.extend(new);
                Ok(())
            })
            .await
        })
    })
    .await
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    add(&svc, &call, texts(call.member("extra_specs")?)).await?;
    Ok(Response::ok(call.body))
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let new = texts(&call.body);
    if !new.contains_key(call.param("key")) {
        // A type that is not there comes first.
        named(&svc, &call).await?;
        return Err(Fault::bad_request("Request body and URI mismatch"));
    }
    add(&svc, &call, new).await?;
    Ok(Response::ok(call.body))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let with = (call.param("type_id").to_owned(), call.param("key").to_owned());
    svc.write(with, |tx, (id, key)| {
        Box::pin(async move {
            change_in(tx, &id, |of_type| of_type.extra_specs.remove(&key).map(|_| ()).ok_or_else(|| missing(&id, &key)))
                .await
        })
    })
    .await?;
    Ok(Response::empty(202))
}

/// No type has any.
async fn encryption(svc: Arc<Volumes>, call: Call) -> Reply {
    named(&svc, &call).await?;
    Ok(Response::ok(json!({})))
}

fn none(type_id: &str) -> Fault {
    Fault::not_found(format!("Volume type encryption for type {type_id} does not exist."))
}

async fn encryption_of(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    Err(none(&found.record.id))
}

async fn encrypt(svc: Arc<Volumes>, call: Call) -> Reply {
    named(&svc, &call).await?;
    Err(Fault::bad_request(
        "Volumes are not encrypted here: there is no key service that could keep their keys. Encrypt inside of the guest, or the disks of the hosts.",
    ))
}

async fn unencrypt(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    Err(none(&found.record.id))
}
