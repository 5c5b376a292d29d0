//! `/os-security-groups` and `/os-security-group-rules`: the network service's groups in compute's old JSON.
//!
//! Only ingress rules exist here; a refusal that the network service calls a conflict is 400 where old
//! clients expect that (a group in use, the default group).
use crate::{Compute, network::api::OLD};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_network::{
    attribute::{Resource, Verb},
    security_group::{
        api::{GROUP, RULE},
        model::{SecurityGroup, SecurityGroupRule},
        ops,
    },
    tables::find,
};
use pilvi_store::{Query, Stored};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/os-security-groups";
    const ONE: &str = "/v2.1/os-security-groups/{id}";
    const RULES: &str = "/v2.1/os-security-group-rules";
    const RULE: &str = "/v2.1/os-security-group-rules/{id}";
    let mut routes = vec![
        Route::get(ALL, list).rule("os_compute_api:os-security-groups:get"),
        Route::post(ALL, create).rule("os_compute_api:os-security-groups:create").schema(&GROUP_BODY),
        Route::get(ONE, show).rule("os_compute_api:os-security-groups:show"),
        Route::put(ONE, update).rule("os_compute_api:os-security-groups:update").schema(&GROUP_BODY),
        Route::delete(ONE, delete).rule("os_compute_api:os-security-groups:delete"),
        Route::post(RULES, create_rule).rule("os_compute_api:os-security-groups:rule:create").schema(&RULE_BODY),
        Route::delete(RULE, delete_rule).rule("os_compute_api:os-security-groups:rule:delete"),
    ];
    for route in &mut routes {
        route.versions.1 = OLD;
    }
    routes
}

static GROUP_BODY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let text = json!({"type": ["string", "null"], "maxLength": 255});
        json!({"type": "object", "required": ["security_group"], "properties": {"security_group": {
            "type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"}, "description": text}}}})
    })
});

static RULE_BODY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let port = json!({"type": ["integer", "string", "null"]});
        let text = json!({"type": ["string", "null"], "maxLength": 255});
        json!({"type": "object", "required": ["security_group_rule"], "properties": {"security_group_rule": {
            "type": "object", "required": ["parent_group_id"], "properties": {
                "parent_group_id": {"type": ["string", "integer"]}, "ip_protocol": {"type": ["string", "integer", "null"]},
                "from_port": port, "to_port": port, "cidr": text, "group_id": text}}}})
    })
});

/// What old clients read as "bad request", the network service calls a conflict.
fn old_refusal(fault: Fault) -> Fault {
    if fault.code() == 409 && fault.kind != "Conflict" { Fault::bad_request(fault.message) } else { fault }
}

fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Security group {id} not found."))
}

async fn group(svc: &Compute, call: &Call, id: &str) -> Result<Stored<SecurityGroup>, Fault> {
    if !id::is_uuid(id) {
        return Err(Fault::bad_request("Security group id should be uuid"));
    }
    let found = svc.store.get::<SecurityGroup>(id).await?;
    let admin = call.caller().has_role("admin");
    found.filter(|g| admin || g.project_id == call.ctx.project_id()).ok_or_else(|| missing(id))
}

/// The groups in compute's JSON, ports filled in as old clients expect them.
async fn views(svc: &Compute, ids: &[String]) -> Result<Vec<Value>, Fault> {
    let mut groups = ops::compute_view(&svc.store, ids).await?;
    for group in &mut groups {
        group["rules"].as_array_mut().into_iter().flatten().for_each(fill_ports);
    }
    Ok(groups)
}

/// A protocol without ports means all of them.
fn fill_ports(rule: &mut Value) {
    let Some(protocol) = rule["ip_protocol"].as_str().map(str::to_ascii_lowercase) else { return };
    if rule["from_port"].is_null() && rule["to_port"].is_null() {
        let (from, to) = if matches!(protocol.as_str(), "tcp" | "udp") { (1, 65_535) } else { (-1, -1) };
        (rule["from_port"], rule["to_port"]) = (json!(from), json!(to));
    } else if rule["to_port"].is_null() {
        rule["to_port"] = json!(-1);
    }
}

async fn view(svc: &Compute, id: &str) -> Result<Value, Fault> {
    views(svc, &[id.to_owned()]).await?.pop().ok_or_else(|| missing(id))
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    ops::ensure_default(&svc.store, call.ctx.project_id()).await?;
    let everyone = call.caller().has_role("admin") && call.query.flag("all_tenants")?.unwrap_or(false);
    let query = if everyone { Query::all() } else { find::of_project(call.ctx.project_id()) };
    let mut found = svc.store.list::<SecurityGroup>(query).await?;
    found.sort_by(|a, b| (&a.record.name, &a.record.id).cmp(&(&b.record.name, &b.record.id)));
    let number = |key: &str, default: usize| match call.query.get(key) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| Fault::bad_request(format!("{key} must be a number of 0 or more"))),
    };
    let (offset, limit) = (number("offset", 0)?, number("limit", 1000)?.min(1000));
    let ids: Vec<String> = found.into_iter().skip(offset).take(limit).map(|g| g.record.id).collect();
    let mut shown = views(&svc, &ids).await?;
    shown.sort_by_key(|g| ids.iter().position(|id| g["id"] == json!(id)));
    Ok(Response::ok(json!({"security_groups": shown})))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let id = group(&svc, &call, call.param("id")).await?.record.id;
    Ok(Response::ok(json!({"security_group": view(&svc, &id).await?})))
}

/// Checked and filled in as the network service's own API would.
fn attributes(call: &Call, resource: &Resource, member: &Value, verb: Verb) -> Result<Map<String, Value>, Fault> {
    resource.parse(member, verb, call.ctx.project_id())
}

/// Name and description, and nothing else that a body may have.
fn described(call: &Call) -> Value {
    let body = &call.body["security_group"];
    json!({"name": body["name"].as_str().unwrap_or_default().trim(), "description": body["description"].as_str().unwrap_or_default()})
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let attrs = attributes(&call, &GROUP, &described(&call), Verb::Create)?;
    let made = svc
        .store
        .write(move |tx| {
            let attrs = attrs.clone();
            Box::pin(async move { ops::create_in(tx, &attrs).await })
        })
        .await
        .map_err(old_refusal)?;
    Ok(Response::ok(json!({"security_group": view(&svc, &made.record.id).await?})))
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let found = group(&svc, &call, call.param("id")).await?;
    let attrs = attributes(&call, &GROUP, &described(&call), Verb::Update)?;
    let id = found.record.id.clone();
    let key = id.clone();
    svc.store
        .write(move |tx| {
            let (attrs, id) = (attrs.clone(), key.clone());
            Box::pin(async move {
                let found = tx.get::<SecurityGroup>(&id).await?.ok_or_else(|| missing(&id))?;
                ops::update_in(tx, found, &attrs).await
            })
        })
        .await
        .map_err(old_refusal)?;
    Ok(Response::ok(json!({"security_group": view(&svc, &id).await?})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let id = group(&svc, &call, call.param("id")).await?.record.id;
    let ctx = call.ctx.clone();
    svc.store
        .write(move |tx| {
            let (ctx, id) = (ctx.clone(), id.clone());
            Box::pin(async move {
                let found = tx.get::<SecurityGroup>(&id).await?.ok_or_else(|| missing(&id))?;
                ops::delete_in(tx, &ctx, found).await
            })
        })
        .await
        .map_err(old_refusal)?;
    Ok(Response::empty(202))
}

/// A port, or an ICMP type or code; -1 is any.
fn port(body: &Value, key: &str) -> Result<Value, Fault> {
    let value = &body[key];
    if value.is_null() {
        return Ok(Value::Null);
    }
    let number = value.as_i64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
    match number {
        Some(-1) => Ok(Value::Null),
        Some(n) if (0..=65_535).contains(&n) => Ok(json!(n)),
        _ => Err(Fault::bad_request(format!("Invalid input for field/attribute {key}: it is no port."))),
    }
}

/// The network service's rule of what an old client sent.
fn rule_member(body: &Value, group: &str) -> Result<Value, Fault> {
    let protocol = match &body["ip_protocol"] {
        Value::String(s) => json!(s.to_ascii_lowercase()),
        other => other.clone(),
    };
    let (from, to) = (port(body, "from_port")?, port(body, "to_port")?);
    if body["group_id"].is_null() && (protocol.is_null() || body["from_port"].is_null() || body["to_port"].is_null()) {
        return Err(Fault::bad_request("Not enough parameters to build a valid rule."));
    }
    let mut rule = json!({"security_group_id": group, "direction": "ingress", "protocol": protocol,
        "port_range_min": from, "port_range_max": to});
    match (body["group_id"].as_str(), body["cidr"].as_str().filter(|c| !c.is_empty())) {
        (Some(remote), _) => rule["remote_group_id"] = json!(remote),
        (None, Some(cidr)) => {
            rule["remote_ip_prefix"] = json!(cidr);
            rule["ethertype"] = json!(if cidr.contains(':') { "IPv6" } else { "IPv4" });
        }
        (None, None) => rule["remote_ip_prefix"] = json!("0.0.0.0/0"),
    }
    Ok(rule)
}

async fn create_rule(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("security_group_rule")?;
    let parent = body["parent_group_id"].as_str().map_or_else(|| body["parent_group_id"].to_string(), str::to_owned);
    let parent = group(&svc, &call, &parent).await?.record;
    if let Some(remote) = body["group_id"].as_str() {
        group(&svc, &call, remote).await?;
    }
    let mut attrs = attributes(&call, &RULE, &rule_member(body, &parent.id)?, Verb::Create)?;
    attrs.insert("project_id".into(), json!(parent.project_id));
    let ctx = call.ctx.clone();
    let made = svc
        .store
        .write(move |tx| {
            let (ctx, attrs) = (ctx.clone(), attrs.clone());
            Box::pin(async move { ops::create_rule_in(tx, &ctx, &attrs).await })
        })
        .await?;
    let group = view(&svc, &parent.id).await?;
    let shown = group["rules"].as_array().and_then(|rules| rules.iter().find(|r| r["id"] == json!(made.record.id)));
    Ok(Response::ok(json!({"security_group_rule": shown})))
}

async fn delete_rule(svc: Arc<Compute>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    if !id::is_uuid(&id) {
        return Err(Fault::bad_request("Security group rule id should be uuid"));
    }
    let none = move |id: &str| Fault::not_found(format!("Rule ({id}) not found"));
    let admin = call.caller().has_role("admin");
    let project = call.ctx.project_id().to_owned();
    svc.store
        .write(move |tx| {
            let (id, project) = (id.clone(), project.clone());
            Box::pin(async move {
                let found = tx.get::<SecurityGroupRule>(&id).await?;
                let found = found.filter(|r| admin || r.project_id == project).ok_or_else(|| none(&id))?;
                ops::delete_rule_in(tx, found).await
            })
        })
        .await?;
    Ok(Response::empty(202))
}
