//! `/v2.0/trunks`, and what is in them.
use super::{
    model::{INHERIT, SubPort, Trunk, VLAN},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open, shown},
    check::{self, Checked, plain},
    crud::crud,
    list::{self, Raw},
    port::model::Port,
    tables::find,
    verbs::{Api, gate, raw_of},
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

pub static TRUNK: Resource = Resource {
    name: "trunk",
    collection: "trunks",
    missing: "TrunkNotFound",
    label: "Trunk",
    attrs: &[
        open("admin_state_up", check::boolean).absent(Absent::Bool(true)),
        once("port_id", check::uuid).required(),
        once("sub_ports", check_subports).absent(Absent::EmptyList),
        shown("status"),
    ],
    lacks: &[],
    below: "",
};

/// Ports with their tags, none twice.
fn check_subports(value: &Value) -> Checked {
    let items = value.as_array().filter(|a| a.len() <= ops::SUBPORTS_MAX);
    let items =
        items.ok_or_else(|| format!("'{}' is not a list of at most {} subports", plain(value), ops::SUBPORTS_MAX))?;
    let mut out: Vec<SubPort> = Vec::new();
    for item in items {
        let port = item.get("port_id").map(check::uuid).transpose()?.unwrap_or_default();
        let port_id = port.as_str().ok_or("A valid port UUID must be specified")?.to_owned();
        let kind = item.get("segmentation_type").and_then(Value::as_str);
        let kind = kind.ok_or("Invalid subport details: missing segmentation information")?;
        if kind == INHERIT {
            // Which tag its network has is looked up when it is put in.
            if out.iter().any(|o| o.port_id == port_id) {
                return Err(format!("Duplicate port in the list: '{port_id}'"));
            }
            out.push(SubPort { port_id, segmentation_type: kind.to_owned(), segmentation_id: 0 });
            continue;
        }
        if kind != VLAN {
            return Err(format!("Unknown segmentation_type '{kind}'; this cloud has: {VLAN}, {INHERIT}"));
        }
        let tag = item.get("segmentation_id").ok_or("Invalid subport details: missing segmentation information")?;
        let tag = check::int::<1, 4094>(tag)?.as_u64().and_then(|t| u16::try_from(t).ok()).unwrap_or(0);
        if out.iter().any(|o| o.port_id == port_id) {
            return Err(format!("Duplicate port in the list: '{port_id}'"));
        }
        if out.iter().any(|o| o.segmentation_id == tag) {
            return Err(format!("Segmentation ID '{tag}' is not unique"));
        }
        out.push(SubPort { port_id, segmentation_type: kind.to_owned(), segmentation_id: tag });
    }
    serde_json::to_value(out).map_err(|e| e.to_string())
}

static SUBPORTS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["sub_ports"], "properties": {"sub_ports": {"type": "array"}}}))
});

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = crud!(Trunk, TRUNK, "/v2.0/trunks", "trunk", "trunks", open);
    routes.extend([
        Route::put("/v2.0/trunks/{id}/add_subports", add)
            .rule_by_handler("add_subports")
            .schema(&SUBPORTS)
            .summary("Puts ports into a trunk"),
        Route::put("/v2.0/trunks/{id}/remove_subports", remove)
            .rule_by_handler("remove_subports")
            .schema(&SUBPORTS)
            .summary("Takes ports out of a trunk"),
        Route::get("/v2.0/trunks/{id}/get_subports", subports)
            .rule_by_handler("get_subports")
            .summary("Lists the ports of a trunk"),
    ]);
    routes
}

impl Api for Trunk {
    const RESOURCE: &'static Resource = &TRUNK;

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let ids: Vec<&str> = items.iter().map(|t| t.port_id.as_str()).collect();
        let mut parents: HashMap<String, Port> = HashMap::new();
        for chunk in ids.chunks(400) {
            let found = store.list::<Port>(Find::all().ids(chunk.iter().copied())).await?;
            parents.extend(found.into_iter().map(|p| (p.record.id.clone(), p.record)));
        }
        let raw = |item: &Stored<Trunk>| {
            let mut raw = list::raw(item)?;
            raw.insert("status".into(), json!(item.status(parents.get(&item.port_id))));
            Ok(raw)
        };
        items.iter().map(raw).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, &found).await
    }
}

async fn add(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, true).await
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    change(svc, call, false).await
}

async fn change(svc: Arc<Network>, call: Call, add: bool) -> Reply {
    let id = call.param("id").to_owned();
    let raw = raw_of::<Trunk>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, &TRUNK, &raw?)?;
    let sent = call.member("sub_ports")?;
    let refuse = |reason| Fault::bad_request(format!("Invalid input for sub_ports. Reason: {reason}."));
    let wishes: Vec<SubPort> = if add {
        serde_json::from_value(check_subports(sent).map_err(refuse)?).map_err(Fault::internal)?
    } else {
        named(sent).map_err(refuse)?
    };
    let (ctx, key) = (call.ctx.clone(), id.clone());
    svc.store
        .write(move |tx| {
            let (ctx, id, wishes) = (ctx.clone(), key.clone(), wishes.clone());
            Box::pin(async move {
                if add { ops::add_in(tx, &ctx, &id, wishes).await } else { ops::remove_in(tx, &id, &wishes).await }
            })
        })
        .await?;
    let raw = raw_of::<Trunk>(&svc.store, &call.ctx, &id).await?;
    Ok(Response::ok(Value::Object(list::view(&call, &TRUNK, &raw))))
}

/// Ports to take out: their ids suffice.
fn named(sent: &Value) -> Result<Vec<SubPort>, String> {
    let one = |item: &Value| {
        let port = check::uuid(item.get("port_id").unwrap_or(&Value::Null))?;
        let port_id = port.as_str().unwrap_or_default().to_owned();
        Ok(SubPort { port_id, segmentation_type: String::new(), segmentation_id: 0 })
    };
    sent.as_array().into_iter().flatten().take(ops::SUBPORTS_MAX).map(one).collect()
}

async fn subports(svc: Arc<Network>, call: Call) -> Reply {
    let raw = raw_of::<Trunk>(&svc.store, &call.ctx, call.param("id")).await;
    let _ = call.may(call.rule(), &call.target());
    let raw = raw?;
    gate(&call, &TRUNK, &raw)?;
    Ok(Response::ok(json!({"sub_ports": raw["sub_ports"]})))
}

/// What a parent port shows of its trunk.
pub async fn details(store: &Store, ports: &[Stored<Port>]) -> Result<HashMap<String, Value>, Fault> {
    let mut trunks: Vec<Trunk> = Vec::new();
    let ids: Vec<&str> = ports.iter().map(|p| p.id.as_str()).collect();
    for chunk in ids.chunks(400) {
        let found = store.list::<Trunk>(find::of_ports(chunk.iter().copied())).await?;
        trunks.extend(found.into_iter().map(|t| t.record));
    }
    let subports: Vec<&str> = trunks.iter().flat_map(|t| &t.sub_ports).map(|s| s.port_id.as_str()).collect();
    let mut macs: HashMap<String, String> = HashMap::new();
    for chunk in subports.chunks(400) {
        let found = store.list::<Port>(Find::all().ids(chunk.iter().copied())).await?;
        macs.extend(found.into_iter().map(|p| (p.record.id.clone(), p.record.mac_address)));
    }
    let details = |trunk: &Trunk| {
        let one = |s: &SubPort| {
            json!({"port_id": s.port_id, "segmentation_type": s.segmentation_type, "segmentation_id": s.segmentation_id,
                "mac_address": macs.get(&s.port_id)})
        };
        let all: Vec<Value> = trunk.sub_ports.iter().map(one).collect();
        (trunk.port_id.clone(), json!({"trunk_id": trunk.id, "sub_ports": all}))
    };
    Ok(trunks.iter().map(details).collect())
}
