//! `/os-aggregates`
use super::ops;
use crate::{Compute, tables::Aggregate};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock, id};
use pilvi_store::{Query, Stored};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

fn aggregate(named: bool) -> Value {
    let mut schema = json!({"type": "object", "required": ["aggregate"], "additionalProperties": false, "properties": {
        "aggregate": {"type": "object", "minProperties": 1, "additionalProperties": false, "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"},
            "availability_zone": {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": "^[^:]*$"}}}}});
    if named {
        schema["properties"]["aggregate"]["required"] = json!(["name"]);
    }
    schema
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| aggregate(true)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| aggregate(false)));
static ACTION: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let host = json!({"type": "object", "required": ["host"], "additionalProperties": false,
            "properties": {"host": {"type": "string", "minLength": 1, "maxLength": 255}}});
        let metadata = json!({"type": "object", "required": ["metadata"], "additionalProperties": false, "properties": {"metadata": {
            "type": "object", "additionalProperties": false, "patternProperties": {"^.{1,255}$": {"type": ["string", "null"], "maxLength": 255}}}}});
        json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "properties": {"add_host": host, "remove_host": host, "set_metadata": metadata}})
    })
});

pub fn routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/os-aggregates";
    const ONE: &str = "/v2.1/os-aggregates/{id}";
    vec![
        Route::get(ALL, list).rule("os_compute_api:os-aggregates:index"),
        Route::post(ALL, create).rule("os_compute_api:os-aggregates:create").schema(&CREATE),
        Route::get(ONE, show).rule("os_compute_api:os-aggregates:show"),
        Route::put(ONE, update).rule("os_compute_api:os-aggregates:update").schema(&UPDATE),
        Route::delete(ONE, delete).rule("os_compute_api:os-aggregates:delete"),
        Route::post("/v2.1/os-aggregates/{id}/action", act)
            .rule("os_compute_api:os-aggregates:add_host")
            .schema(&ACTION)
            .actions(&[
                ("add_host", "os_compute_api:os-aggregates:add_host"),
                ("remove_host", "os_compute_api:os-aggregates:remove_host"),
                ("set_metadata", "os_compute_api:os-aggregates:set_metadata"),
            ]),
    ]
}

fn view(call: &Call, a: &Stored<Aggregate>) -> Value {
    let mut metadata = a.metadata.clone();
    if let Some(zone) = &a.zone {
        metadata.insert("availability_zone".into(), zone.clone());
    }
    let updated = (a.updated_us > a.created_us).then(|| clock::micros(a.updated_us));
    let mut out = json!({
        "id": a.number, "name": a.record.name, "availability_zone": a.zone, "hosts": a.hosts, "metadata": metadata,
        "created_at": clock::micros(a.created_us), "updated_at": updated, "deleted": false, "deleted_at": null,
    });
    if call.at_least(2, 41) {
        out["uuid"] = json!(a.record.id);
    }
    out
}

async fn found(svc: &Compute, call: &Call) -> Result<Stored<Aggregate>, Fault> {
    let text = call.param("id");
    let missing = || Fault::not_found(format!("Aggregate {text} could not be found."));
    let number: i64 = text.parse().map_err(|_| missing())?;
    svc.store.list::<Aggregate>(Query::all().eq("number", number)).await?.pop().ok_or_else(missing)
}

async fn change(
    svc: &Compute,
    call: &Call,
    change: impl Fn(&mut Aggregate) -> Result<(), Fault> + Clone + Send + Sync + 'static,
) -> Reply {
    let id = found(svc, call).await?.record.id;
    let changed = svc
        .store
        .write(move |tx| {
            let (id, change) = (id.clone(), change.clone());
            Box::pin(async move {
                let mut a =
                    tx.get::<Aggregate>(&id).await?.ok_or_else(|| Fault::not_found("The aggregate is gone."))?;
                change(&mut a.record)?;
                tx.update(&a).await.map_err(|e| ops::taken(e, &a.record.name))
            })
        })
        .await?;
    Ok(Response::ok(json!({"aggregate": view(call, &changed)})))
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let mut all = svc.store.list::<Aggregate>(Query::all()).await?;
    all.sort_by_key(|a| a.number);
    Ok(Response::ok(json!({"aggregates": all.iter().map(|a| view(&call, a)).collect::<Vec<_>>()})))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"aggregate": view(&call, &found(&svc, &call).await?)})))
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("aggregate")?;
    let new = Aggregate {
        id: id::new(),
        number: 0,
        name: body["name"].as_str().unwrap_or_default().trim().to_owned(),
        zone: body["availability_zone"].as_str().map(str::to_owned),
        hosts: Vec::new(),
        metadata: BTreeMap::new(),
    };
    let made = svc
        .store
        .write(move |tx| {
            let new = new.clone();
            Box::pin(async move { ops::insert_in(tx, new).await })
        })
        .await?;
    let mut shown = view(&call, &made);
    if let Some(object) = shown.as_object_mut() {
        object.shift_remove("hosts");
        object.shift_remove("metadata");
    }
    Ok(Response::ok(json!({"aggregate": shown})))
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("aggregate")?.clone();
    change(&svc, &call, move |a| {
        if let Some(name) = body["name"].as_str() {
            a.name = name.trim().to_owned();
        }
        if body.get("availability_zone").is_some() {
            a.zone = body["availability_zone"].as_str().map(str::to_owned);
        }
        Ok(())
    })
    .await
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let aggregate = found(&svc, &call).await?;
    if !aggregate.hosts.is_empty() {
        return Err(Fault::bad_request(format!("Cannot remove aggregate {}: it is not empty", aggregate.number)));
    }
    let id = aggregate.record.id;
    svc.store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.delete::<Aggregate>(&id).await?) })
        })
        .await?;
    Ok(Response::empty(200))
}

async fn act(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.body.clone();
    if let Some(metadata) = body["set_metadata"]["metadata"].as_object().cloned() {
        return change(&svc, &call, move |a| {
            for (key, value) in &metadata {
                match (key.as_str(), value.as_str()) {
                    ("availability_zone", zone) => a.zone = zone.map(str::to_owned),
                    (_, Some(value)) => {
                        a.metadata.insert(key.clone(), value.to_owned());
                    }
                    (_, None) => {
                        a.metadata.remove(key);
                    }
                }
            }
            Ok(())
        })
        .await;
    }
    let add = body.get("add_host").is_some();
    let host = body[if add { "add_host" } else { "remove_host" }]["host"].as_str().unwrap_or_default().to_owned();
    if svc.fleet.node_by_name(&host).await?.is_none() {
        return Err(Fault::not_found(format!("Compute host {host} could not be found.")));
    }
    change(&svc, &call, move |a| {
        let known = a.hosts.iter().position(|h| *h == host);
        match (add, known) {
            (true, None) => a.hosts.push(host.clone()),
            (true, Some(_)) => return Err(Fault::conflict(format!("Aggregate {} already has host {host}.", a.number))),
            (false, Some(at)) => {
                a.hosts.remove(at);
            }
            (false, None) => return Err(Fault::not_found(format!("Aggregate {} has no host {host}.", a.number))),
        }
        Ok(())
    })
    .await
}
