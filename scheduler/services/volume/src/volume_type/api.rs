//! `/types`: create, list, show, update, delete.
use super::ops::{self, DEFAULT};
use crate::{
    Volumes, fault,
    list::{Listing, Sorted, common_column},
    literal, route,
    schema::{flag, text as text_or_null},
    tables::{DefaultType, Group, Volume, VolumeType},
    version as v,
    volume::api::{text, truth},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, call::boolean, id};
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

pub fn routes() -> Vec<Route<Volumes>> {
    const ONE: &str = "/v3/types/{type_id}";
    vec![
        route::post("/v3/types", create).rule("volume_extension:type_create").schema(&CREATE),
        route::get("/v3/types", list).rule("volume_extension:type_get_all"),
        route::get(ONE, show).rule("volume_extension:type_get"),
        route::put(ONE, update).rule("volume_extension:type_update").schema(&UPDATE),
        route::delete(ONE, delete).rule("volume_extension:type_delete"),
    ]
}

fn specs_or_null() -> Value {
    json!({"type": "object", "additionalProperties": false, "patternProperties": {
        r"^[a-zA-Z0-9\-_:. /]{1,255}$": {"type": ["string", "null"], "maxLength": 255}}})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["volume_type"], "additionalProperties": false, "properties": {
            "volume_type": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"},
                "description": text_or_null(), "extra_specs": specs_or_null(),
                "os-volume-type-access:is_public": flag()}}}})
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["volume_type"], "additionalProperties": false, "properties": {
            "volume_type": {"type": "object", "additionalProperties": false, "properties": {
                "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "description": text_or_null(), "is_public": flag()}}}})
    })
});

/// Extra specs that users see: what they choose a type by.
const VISIBLE: [&str; 4] = ["RESKEY:availability_zones", "multiattach", "replication_enabled", "cacheable"];

/// The extra specs that the caller may see.
pub fn specs_for(call: &Call, of_type: &VolumeType) -> BTreeMap<String, String> {
    let mut specs = of_type.extra_specs.clone();
    if !call.may("volume_extension:types_extra_specs:read_sensitive", &call.target()) {
        specs.retain(|key, _| VISIBLE.contains(&key.as_str()));
    }
    specs
}

fn view(call: &Call, of_type: &VolumeType) -> Value {
    let target = call.target();
    let mut view = json!({"id": of_type.id, "name": of_type.name, "is_public": of_type.public,
        "description": of_type.description});
    if call.may("volume_extension:access_types_extra_specs", &target) {
        view["extra_specs"] = json!(specs_for(call, of_type));
    }
    if call.may("volume_extension:access_types_qos_specs_id", &target) {
        view["qos_specs_id"] = json!(of_type.qos_id);
    }
    if call.may("volume_extension:volume_type_access", &target) {
        view["os-volume-type-access:is_public"] = json!(of_type.public);
    }
    view
}

/// The type of the path; one that the caller may not use is not there.
pub async fn named(svc: &Volumes, call: &Call) -> Result<Stored<VolumeType>, Fault> {
    let id = call.param("type_id");
    let found = svc.store.get::<VolumeType>(id).await?;
    found.filter(|t| ops::may_use(&call.ctx, t)).ok_or_else(|| fault::no_type(id))
}

async fn create(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("volume_type")?;
    let specs = body.get("extra_specs").and_then(Value::as_object).into_iter().flatten();
    let new = VolumeType {
        id: id::new(),
        name: text(body, &["name"]).unwrap_or_default(),
        description: text(body, &["description"]),
        public: body.get("os-volume-type-access:is_public").is_none_or(|public| truth(Some(public))),
        extra_specs: specs.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect(),
        access: BTreeSet::new(),
        qos_id: None,
    };
    let name = new.name.clone();
    let made = svc.write(new, |tx, new| Box::pin(async move { Ok(tx.insert(&new).await?) })).await;
    let made = made.map_err(|fault| exists(fault, &name))?;
    let mut told = view(&call, &made);
    // A new one has none, and clients do not look for it.
    told.as_object_mut().and_then(|told| told.remove("qos_specs_id"));
    Ok(Response::ok(json!({"volume_type": told})))
}

fn exists(fault: Fault, name: &str) -> Fault {
    if fault.code() == 409 && fault.kind != "Conflict" {
        return Fault::conflict(format!("Volume Type {name} already exists."));
    }
    fault
}

const KEYS: &[&str] = &["id", "name", "created_at", "updated_at", "is_public", "description"];
const SORTED: Sorted<VolumeType> = Sorted {
    column: |key| match key {
        "is_public" => Some("public"),
        _ => common_column(key),
    },
    key: |of_type, _| json!(of_type.description),
};

/// `is_public` of administrators: true, false, none (both).
fn public(call: &Call) -> Result<Option<bool>, Fault> {
    match call.query.get("is_public") {
        None => Ok(Some(true)),
        Some(text) if text.eq_ignore_ascii_case("none") => Ok(None),
        Some(text) => {
            boolean(text).map(Some).ok_or_else(|| Fault::bad_request(format!("Invalid is_public filter [{text}]")))
        }
    }
}

async fn list(svc: Arc<Volumes>, call: Call) -> Reply {
    let listing = Listing::of(&call, KEYS)?;
    let is_admin = call.caller().has_role("admin");
    let wanted = if is_admin { public(&call)? } else { None };
    let specs = call.query.get("extra_specs").filter(|_| call.version >= v::TYPE_FILTER);
    let specs = specs.map(|text| literal::dictionary(text).unwrap_or_default());
    let secret = !call.may("volume_extension:types_extra_specs:read_sensitive", &call.target());
    let hidden = secret && specs.as_ref().is_some_and(|s| s.keys().any(|k| !VISIBLE.contains(&k.as_str())));
    let keep = |t: &Stored<VolumeType>| {
        let has = |wish: &BTreeMap<String, String>| wish.iter().all(|(k, v)| t.extra_specs.get(k) == Some(v));
        !hidden
            && ops::may_use(&call.ctx, t)
            && wanted.is_none_or(|public| t.public == public)
            && specs.as_ref().is_none_or(has)
    };
    let (found, more) = listing.select(&svc.store, Query::all(), SORTED, keep, fault::no_type).await?;
    let shown = found.iter().map(|t| view(&call, t)).collect();
    Ok(Response::ok(listing.document_of(&call, ("volume_types", "volume_type"), shown, &found, more)))
}

async fn show(svc: Arc<Volumes>, call: Call) -> Reply {
    if call.param("type_id") == "default" {
        let project = call.ctx.project_id().to_owned();
        let found = svc.write(project, |tx, id| Box::pin(async move { ops::default_in(tx, &id).await })).await?;
        return Ok(Response::ok(json!({"volume_type": view(&call, &found)})));
    }
    let found = named(&svc, &call).await?;
    Ok(Response::ok(json!({"volume_type": view(&call, &found)})))
}

async fn update(svc: Arc<Volumes>, call: Call) -> Reply {
    let body = call.member("volume_type")?.clone();
    let name = text(&body, &["name"]);
    if name.as_deref() == Some("") {
        return Err(Fault::bad_request("Volume type name can not be empty."));
    }
    let public = body.get("is_public").filter(|p| !p.is_null()).map(|p| truth(Some(p)));
    let description = text(&body, &["description"]);
    if name.is_none() && description.is_none() && public.is_none() {
        return Err(Fault::bad_request("Specify volume type name, description, is_public or a combination thereof."));
    }
    let with = (call.param("type_id").to_owned(), name.clone(), description, public);
    let changed = svc
        .write(with, |tx, (id, name, description, public)| {
            Box::pin(async move {
                let mut found = tx.get::<VolumeType>(&id).await?.ok_or_else(|| fault::no_type(&id))?;
                let record = &mut found.record;
                record.name = name.unwrap_or_else(|| record.name.clone());
                record.description = description.or(record.description.take());
                record.public = public.unwrap_or(record.public);
                Ok(tx.update(&found).await?)
            })
        })
        .await
        .map_err(|fault| exists(fault, &name.unwrap_or_default()))?;
    let mut told = view(&call, &changed);
    for name in ["qos_specs_id", "os-volume-type-access:is_public"] {
        told.as_object_mut().and_then(|told| told.remove(name));
    }
    Ok(Response::ok(json!({"volume_type": told})))
}

async fn delete(svc: Arc<Volumes>, call: Call) -> Reply {
    let id = call.param("type_id").to_owned();
    svc.write(id, |tx, id| Box::pin(async move { delete_in(tx, &id).await })).await?;
    Ok(Response::empty(202))
}

async fn delete_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    let found = tx.get::<VolumeType>(id).await?.ok_or_else(|| fault::no_type(id))?;
    let used = tx.count::<Volume>(Query::all().eq("volume_type", id)).await? > 0;
    let grouped = tx.list::<Group>(Query::all()).await?.iter().any(|g| g.volume_types.iter().any(|t| t == id));
    if used || grouped {
        return Err(Fault::bad_request("Target volume type is still in use."));
    }
    if found.name == DEFAULT {
        return Err(Fault::bad_request(format!(
            "The volume type {id} is a default volume type and cannot be deleted."
        )));
    }
    if tx.count::<DefaultType>(Query::all().eq("volume_type", id)).await? > 0 {
        return Err(Fault::bad_request(format!(
            "The volume type {id} is a project's default volume type and cannot be deleted."
        )));
    }
    tx.delete::<VolumeType>(id).await?;
    Ok(())
}
