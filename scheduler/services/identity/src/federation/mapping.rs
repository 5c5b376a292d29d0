//! Mappings: rules from what a provider says of somebody to what he is here.
//!
//! Routes are here; [`schema`] says what a mapping may look like, [`engine`] applies one, with the regular
//! expressions of [`pattern`] and the texts of [`text`].
pub(crate) mod engine;
mod pattern;
mod schema;
mod text;

use super::{chosen_id, segment};
use crate::{Identity, attributes::Attributes, directory::Area, fault, listing, tables::Mapping};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// The body, before its version says which schema holds.
static BODY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        json!({"type": "object", "required": ["mapping"], "properties": {"mapping": {"type": "object", "required": ["rules"],
            "properties": {"rules": {"type": "array", "minItems": 1}, "schema_version": {"type": ["string", "null"]}}}}})
    })
});

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/OS-FEDERATION/mappings";
    const ONE: &str = "/v3/OS-FEDERATION/mappings/{mapping_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_mappings").summary("List mappings"),
        Route::put(ONE, create).rule("identity:create_mapping").schema(&BODY).summary("Create a mapping"),
        Route::get(ONE, show).rule("identity:get_mapping").summary("Show a mapping"),
        Route::patch(ONE, update).rule("identity:update_mapping").schema(&BODY).summary("Change a mapping"),
        Route::delete(ONE, delete).rule("identity:delete_mapping").summary("Delete a mapping"),
    ]
}

fn view(call: &Call, mapping: &Mapping) -> Value {
    json!({"id": mapping.id, "rules": mapping.rules, "schema_version": mapping.schema_version,
        "links": listing::self_link(call, &format!("/v3/OS-FEDERATION/mappings/{}", segment(&mapping.id)))})
}

fn missing(id: &str) -> Fault {
    fault::missing("mapping", id)
}

/// Rules and version of the body, checked.
fn wanted(call: &Call) -> Result<(Value, String), Fault> {
    let wanted = Attributes::of(call, "mapping")?;
    let version = wanted.text("schema_version").unwrap_or_else(|| schema::DEFAULT.to_owned());
    let mut document = call.body["mapping"].clone();
    document["schema_version"] = version.clone().into();
    if let Some(map) = document.as_object_mut() {
        map.retain(|k, _| k != "id" && k != "links");
    }
    schema::check(&document, &version)?;
    Ok((document["rules"].take(), version))
}

/// A mapping tried on an assertion without keeping anything: what it makes of somebody in Rust's notation, or why it
/// makes nothing of him. The fault is that of a mapping that would be refused.
pub fn rehearse(
    mapping: &Value,
    version: &str,
    assertion: BTreeMap<String, Vec<String>>,
) -> Result<Result<String, String>, Fault> {
    schema::check(mapping, version)?;
    let (rules, schema_version) = (mapping["rules"].clone(), version.to_owned());
    let mapping = Mapping { id: String::new(), rules, schema_version };
    Ok(engine::apply(&mapping, &engine::Assertion(assertion)).map(|mapped| format!("{mapped:?}")))
}

impl Identity {
    pub(crate) async fn mapping(&self, id: &str) -> Result<Mapping, Fault> {
        Ok(self.store.get::<Mapping>(id).await?.ok_or_else(|| missing(id))?.record)
    }
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let found = svc.store.list::<Mapping>(Query::all()).await?;
    listing::answer(&svc, &call, "mappings", found.iter().map(|m| view(&call, m)).collect(), &["id"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let mapping = svc.mapping(call.param("mapping_id")).await?;
    Ok(Response::ok(json!({"mapping": view(&call, &mapping)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let (rules, schema_version) = wanted(&call)?;
    let mapping = Mapping { id: chosen_id(&call, "mapping_id")?.to_owned(), rules, schema_version };
    let mapping = svc
        .write(Area::Quiet, move |tx| {
            let mapping = mapping.clone();
            Box::pin(async move {
                tx.insert(&mapping).await.map_err(|e| fault::named_twice(e, "mapping", &mapping.id, None))?;
                Ok(mapping)
            })
        })
        .await?;
    Ok(Response::created(json!({"mapping": view(&call, &mapping)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (rules, schema_version) = wanted(&call)?;
    let id = call.param("mapping_id").to_owned();
    let mapping = svc
        .write(Area::Quiet, move |tx| {
            let (id, rules, schema_version) = (id.clone(), rules.clone(), schema_version.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Mapping>(&id).await?.ok_or_else(|| missing(&id))?;
                (stored.record.rules, stored.record.schema_version) = (rules, schema_version);
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"mapping": view(&call, &mapping)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("mapping_id").to_owned();
    svc.write(Area::Quiet, move |tx| {
        let id = id.clone();
        Box::pin(async move { if tx.delete::<Mapping>(&id).await? { Ok(()) } else { Err(missing(&id)) } })
    })
    .await?;
    Ok(Response::no_content())
}
