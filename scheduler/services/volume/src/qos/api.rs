//! `/qos-specs`: kept and associated with types; no host acts on them yet.
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column},
    route,
    tables::{QosSpec, VolumeType},
    volume::api::text,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

const GET_ALL: &str = "volume_extension:qos_specs_manage:get_all";
const UPDATE: &str = "volume_extension:qos_specs_manage:update";
const DELETE: &str = "volume_extension:qos_specs_manage:delete";

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/qos-specs/{qos_id}";
    vec![
        route::post("/v3/qos-specs", create).rule("volume_extension:qos_specs_manage:create").schema(&CREATE),
        route::get("/v3/qos-specs", list).rule(GET_ALL),
        route::get(ONE, show).rule("volume_extension:qos_specs_manage:get"),
        route::put(ONE, update).rule(UPDATE).schema(&SET),
        route::delete(ONE, delete).rule(DELETE),
        route::put("/v3/qos-specs/{qos_id}/delete_keys", delete_keys).rule(DELETE).schema(&KEYS_GONE),
        route::get("/v3/qos-specs/{qos_id}/associations", associations).rule(GET_ALL),
        route::get("/v3/qos-specs/{qos_id}/associate", associate).rule(UPDATE),
        route::get("/v3/qos-specs/{qos_id}/disassociate", disassociate).rule(UPDATE),
        route::get("/v3/qos-specs/{qos_id}/disassociate_all", disassociate_all).rule(UPDATE),
    ]
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["qos_specs"], "additionalProperties": false, "properties": {"qos_specs": {
            "type": "object", "required": ["name"], "maxProperties": 128, "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"}}}}})
    })
});
static SET: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["qos_specs"], "additionalProperties": false, "properties": {"qos_specs": {
            "type": "object", "maxProperties": 128, "additionalProperties": false, "patternProperties": {
                r"^[a-zA-Z0-9\-_:. /]{1,255}$": {"type": ["string", "null"], "maxLength": 255}}}}})
    })
});
static KEYS_GONE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["keys"], "additionalProperties": false, "properties": {"keys": {
            "type": "array", "uniqueItems": true, "maxItems": 128,
            "items": {"type": "string", "minLength": 1, "maxLength": 255}}}})
    })
});

fn no_spec(id: &str) -> Fault {
    Fault::not_found(format!("No such QoS spec {id}."))
}

fn view(found: &QosSpec) -> Value {
    json!({"id": found.id, "name": found.name, "consumer": found.consumer, "specs": found.specs})
}

fn links(call: &Call, id: &str) -> Value {
    json!([{"rel": "self", "href": call.url(&format!("/v3/qos-specs/{id}"))},
        {"rel": "bookmark", "href": call.url(&format!("/qos-specs/{id}"))}])
}

/// What is promised, without the words that say what a spec is.
fn specs(body: &Value) -> BTreeMap<String, String> {
    let pairs = body.as_object().into_iter().flatten().filter(|(k, _)| !matches!(k.as_str(), "name" | "consumer"));
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    pairs.map(|(k, v)| (k.clone(), plain(v))).collect()
}

fn consumer(body: &Value) -> Result<Option<String>, Fault> {
    let Some(wish) = text(body, &["consumer"]) else { return Ok(None) };
    if matches!(wish.as_str(), "front-end" | "back-end" | "both") {
        return Ok(Some(wish));
    }
    Err(Fault::bad_request(format!(
        "Invalid qos specs: Valid consumer of QoS specs are: ['front-end', 'back-end', 'both'] (got {wish})"
    )))
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("qos_specs")?;
    let new = QosSpec {
        id: id::new(),
        name: text(body, &["name"]).unwrap_or_default(),
        consumer: consumer(body)?.unwrap_or_else(|| "back-end".into()),
        specs: specs(body),
    };
    let name = new.name.clone();
    let made = svc.write(new, |tx, new| Box::pin(async move { Ok(tx.insert(&new).await?) })).await;
    let made = made.map_err(|fault| match fault.code() {
        409 => Fault::conflict(format!("QoS Specs {name} already exists.")),
        _ => fault,
    })?;
    Ok(Response::ok(json!({"qos_specs": view(&made), "links": links(&call, &made.record.id)})))
}

const KEYS: &[&str] = &["id", "name", "created_at", "updated_at", "consumer"];
const SORTED: Sorted<QosSpec> = Sorted { column: common_column, key: |spec, _| json!(spec.consumer) };

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let listing = Listing::of(&call, KEYS)?;
    let wish = |name: &str| call.query.get(name).map(str::to_owned);
    let (id, name, consumer) = (wish("id"), wish("name"), wish("consumer"));
    let keep = |s: &Stored<QosSpec>| {
        id.as_ref().is_none_or(|w| *w == s.record.id)
            && name.as_ref().is_none_or(|w| *w == s.name)
            && consumer.as_ref().is_none_or(|w| *w == s.consumer)
    };
    let (found, more) = listing.select(&svc.store, Query::all(), SORTED, keep, no_spec).await?;
    let shown = found.iter().map(|s| view(s)).collect();
    Ok(Response::ok(listing.document(&call, "qos_specs", shown, &found, more)))
}

async fn named(svc: &Volumes, call: &Call) -> Result<Stored<QosSpec>, Fault> {
    let id = call.param("qos_id");
    svc.store.get::<QosSpec>(id).await?.ok_or_else(|| no_spec(id))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    Ok(Response::ok(json!({"qos_specs": view(&found), "links": links(&call, &found.record.id)})))
}

async fn change_in(tx: &mut Tx, id: &str, change: impl FnOnce(&mut QosSpec) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut found = tx.get::<QosSpec>(id).await?.ok_or_else(|| no_spec(id))?;
    change(&mut found.record)?;
    tx.update(&found).await?;
    Ok(())
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("qos_specs")?;
    let with = (call.param("qos_id").to_owned(), specs(body), consumer(body)?);
    svc.write(with, |tx, (id, specs, consumer)| {
        Box::pin(async move {
            change_in(tx, &id, |spec| {
                spec.specs.extend(specs);
                spec.consumer = consumer.unwrap_or_else(|| spec.consumer.clone());
                Ok(())
            })
            .await
        })
    })
    .await?;
    Ok(Response::ok(call.body))
}

async fn delete_keys(svc: Arc<Volumes>, call: Call) -> Reply {
    let keys = call.member("keys")?.as_array().into_iter().flatten();
    let keys: Vec<String> = keys.filter_map(|k| k.as_str().map(str::to_owned)).collect();
    svc.write((call.param("qos_id").to_owned(), keys), |tx, (id, keys)| {
        Box::pin(async move {
            change_in(tx, &id, |spec| {
                for key in keys {
                    spec.specs
                        .remove(&key)
                        .ok_or_else(|| Fault::not_found(format!("QoS spec {} has no spec with key {key}.", spec.id)))?;
                }
                Ok(())
            })
            .await
        })
    })
    .await?;
    Ok(Response::empty(202))
}

/// Types that a spec goes with.
async fn types_in(tx: &mut Tx, id: &str) -> Result<Vec<Stored<VolumeType>>, Fault> {
    Ok(tx.list::<VolumeType>(Query::all().eq("qos_id", id)).await?)
}

async fn part_in(tx: &mut Tx, types: Vec<Stored<VolumeType>>) -> Result<(), Fault> {
    for mut of_type in types {
        of_type.record.qos_id = None;
        tx.update(&of_type).await?;
    }
    Ok(())
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let force = call.query.flag("force")?.unwrap_or(false);
    svc.write((call.param("qos_id").to_owned(), force), |tx, (id, force)| {
        Box::pin(async move {
            tx.get::<QosSpec>(&id).await?.ok_or_else(|| no_spec(&id))?;
            let types = types_in(tx, &id).await?;
            if !types.is_empty() && !force {
                return Err(Fault::bad_request("Qos specs still in use."));
            }
            part_in(tx, types).await?;
            tx.delete::<QosSpec>(&id).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}

async fn associations(svc: Arc<Volumes>, call: Call) -> Reply {
    let found = named(&svc, &call).await?;
    let types = svc.store.list::<VolumeType>(Query::all().eq("qos_id", found.record.id.as_str())).await?;
    let shown: Vec<Value> =
        types.iter().map(|t| json!({"association_type": "volume_type", "name": t.name, "id": t.record.id})).collect();
    Ok(Response::ok(json!({"qos_associations": shown})))
}

fn type_id(call: &Call) -> Result<String, Fault> {
    let id = call.query.get("vol_type_id").filter(|id| !id.is_empty());
    id.map(str::to_owned).ok_or_else(|| Fault::bad_request("Volume Type id must not be None."))
}

/// Sets or clears the association of one type.
async fn set(svc: &Volumes, call: &Call, joins: bool) -> Reply {
    svc.write((call.param("qos_id").to_owned(), type_id(call)?, joins), |tx, (id, type_id, joins)| {
        Box::pin(async move {
            tx.get::<QosSpec>(&id).await?.ok_or_else(|| no_spec(&id))?;
            let mut of_type = tx.get::<VolumeType>(&type_id).await?.ok_or_else(|| fault::no_type(&type_id))?;
            let other = of_type.qos_id.as_ref().is_some_and(|known| *known != id);
            if joins && other {
                return Err(Fault::bad_request(format!(
                    "Invalid volume type: Type {type_id} is already associated with another qos specs: {}",
                    of_type.qos_id.as_deref().unwrap_or_default()
                )));
            }
            if joins || !other {
                of_type.record.qos_id = joins.then_some(id);
                tx.update(&of_type).await?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(Response::empty(202))
}

async fn associate(svc: Arc<Volumes>, call: Call) -> Reply {
    set(&svc, &call, true).await
}

async fn disassociate(svc: Arc<Volumes>, call: Call) -> Reply {
    set(&svc, &call, false).await
}

async fn disassociate_all(svc: Arc<Volumes>, call: Call) -> Reply {
    svc.write(call.param("qos_id").to_owned(), |tx, id| {
        Box::pin(async move {
            tx.get::<QosSpec>(&id).await?.ok_or_else(|| no_spec(&id))?;
            let types = types_in(tx, &id).await?;
            part_in(tx, types).await
        })
    })
    .await?;
    Ok(Response::empty(202))
}
