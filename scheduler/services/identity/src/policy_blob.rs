//! Policies as the API keeps them: documents for other programs, never read here.
mod association;

use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    directory::Area,
    fault, listing,
    tables::{Policy, PolicyAssociation},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["blob", "type"];
/// Bytes of a policy with its envelope.
const LIMIT: usize = 128 * 1024;

fn properties() -> Value {
    json!({"blob": {"type": ["string", "object"]}, "type": types::name(255)})
}

static CREATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| body_schema("policy", properties(), &["blob", "type"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("policy", properties(), &[])));

pub(crate) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/policies/{policy_id}";
    let mut routes = association::routes();
    routes.extend([
        Route::get("/v3/policies", list).rule("identity:list_policies").summary("List policies"),
        Route::post("/v3/policies", create)
            .rule("identity:create_policy")
            .schema(&CREATE)
            .limit(LIMIT)
            .summary("Create a policy"),
        Route::get(ONE, show).rule("identity:get_policy").summary("Show a policy"),
        Route::patch(ONE, update)
            .rule("identity:update_policy")
            .schema(&UPDATE)
            .limit(LIMIT)
            .summary("Change a policy"),
        Route::delete(ONE, delete).rule("identity:delete_policy").summary("Delete a policy"),
    ]);
    routes
}

fn view(call: &Call, policy: &Policy) -> Value {
    let base = json!({"id": policy.id, "type": policy.kind, "blob": policy.blob, "links": listing::self_link(call, &format!("/v3/policies/{}", policy.id))});
    with_extra(base, &policy.extra)
}

fn missing(id: &str) -> Fault {
    fault::missing("policy", id)
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let policies = svc.store.list::<Policy>(Query::all()).await?;
    listing::answer(&svc, &call, "policies", policies.iter().map(|p| view(&call, p)).collect(), &["type"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("policy_id");
    let policy = svc.store.get::<Policy>(id).await?.ok_or_else(|| missing(id))?;
    Ok(Response::ok(json!({"policy": view(&call, &policy)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "policy")?;
    let policy = Policy {
        id: id::hex(),
        kind: wanted.need("type", "policy")?,
        blob: wanted.0.get("blob").cloned().unwrap_or(Value::Null),
        extra: wanted.extra(KNOWN),
    };
    let policy = svc
        .write(Area::Quiet, move |tx| {
            let policy = policy.clone();
            Box::pin(async move { Ok(tx.insert(&policy).await?.record) })
        })
        .await?;
    Ok(Response::created(json!({"policy": view(&call, &policy)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let (id, wanted) = (call.param("policy_id").to_owned(), Attributes::of(&call, "policy")?);
    let policy = svc
        .write(Area::Quiet, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Policy>(&id).await?.ok_or_else(|| missing(&id))?;
                if let Some(kind) = wanted.text("type") {
                    stored.record.kind = kind;
                }
                if let Some(blob) = wanted.0.get("blob") {
                    stored.record.blob = blob.clone();
                }
                wanted.merge_extra(&mut stored.record.extra, KNOWN);
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"policy": view(&call, &policy)})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let id = call.param("policy_id").to_owned();
    svc.write(Area::Quiet, move |tx| {
        let id = id.clone();
        Box::pin(async move {
            for association in tx.list::<PolicyAssociation>(PolicyAssociation::of_policy(&id)).await? {
                tx.delete::<PolicyAssociation>(&association.id).await?;
            }
            if tx.delete::<Policy>(&id).await? { Ok(()) } else { Err(missing(&id)) }
        })
    })
    .await?;
    Ok(Response::no_content())
}
