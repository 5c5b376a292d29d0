//! What hangs below a server: metadata, tags, addresses, diagnostics, security groups, interfaces.
use crate::{
    Compute,
    server::{api::owned, schema},
    tables::Server,
};
use pilvi_agent_api::v1;
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Compute>> {
    let mut routes = metadata_routes();
    routes.extend(tag_routes());
    routes.extend([
        Route::get("/v2.1/servers/{server_id}/ips", addresses).rule_by_handler("os_compute_api:ips:index"),
        Route::get("/v2.1/servers/{server_id}/ips/{network}", addresses_of).rule_by_handler("os_compute_api:ips:show"),
        Route::get("/v2.1/servers/{server_id}/diagnostics", diagnostics)
            .rule_by_handler("os_compute_api:os-server-diagnostics"),
        Route::get("/v2.1/servers/{server_id}/os-security-groups", security_groups)
            .rule_by_handler("os_compute_api:os-security-groups:list"),
    ]);
    routes
}

fn metadata_routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/servers/{server_id}/metadata";
    const ONE: &str = "/v2.1/servers/{server_id}/metadata/{key}";
    vec![
        Route::get(ALL, metadata).rule_by_handler("os_compute_api:server-metadata:index"),
        Route::post(ALL, metadata_add)
            .rule_by_handler("os_compute_api:server-metadata:create")
            .schema(&schema::METADATA),
        Route::put(ALL, metadata_replace)
            .rule_by_handler("os_compute_api:server-metadata:update_all")
            .schema(&schema::METADATA),
        Route::get(ONE, metadata_item).rule_by_handler("os_compute_api:server-metadata:show"),
        Route::put(ONE, metadata_set)
            .rule_by_handler("os_compute_api:server-metadata:update")
            .schema(&schema::META_ITEM),
        Route::delete(ONE, metadata_remove).rule_by_handler("os_compute_api:server-metadata:delete"),
    ]
}

fn tag_routes() -> Vec<Route<Compute>> {
    const ALL: &str = "/v2.1/servers/{server_id}/tags";
    const ONE: &str = "/v2.1/servers/{server_id}/tags/{tag}";
    vec![
        Route::get(ALL, tags).rule_by_handler("os_compute_api:os-server-tags:index").since(2, 26),
        Route::put(ALL, tags_replace)
            .rule_by_handler("os_compute_api:os-server-tags:update_all")
            .schema(&schema::TAGS)
            .since(2, 26),
        Route::delete(ALL, tags_clear).rule_by_handler("os_compute_api:os-server-tags:delete_all").since(2, 26),
        Route::get(ONE, tag).rule_by_handler("os_compute_api:os-server-tags:show").since(2, 26),
        Route::put(ONE, tag_set).rule_by_handler("os_compute_api:os-server-tags:update").since(2, 26),
        Route::delete(ONE, tag_remove).rule_by_handler("os_compute_api:os-server-tags:delete").since(2, 26),
    ]
}

/// Metadata items and tags that one server may have.
const ITEMS_MAX: usize = 128;
const TAGS_MAX: usize = 50;

async fn metadata(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"metadata": owned(&svc, &call).await?.metadata})))
}

/// Changes the metadata; the guest reads it, so the host is told.
async fn change_metadata(
    svc: &Compute,
    call: &Call,
    change: impl Fn(&mut Server) -> Result<(), Fault> + Clone + Send + Sync + 'static,
) -> Result<Value, Fault> {
    let server = owned(svc, call).await?;
    super::ops::refuse_if_locked(&call.ctx, &server)?;
    let changed = svc
        .change(&server.record.id, move |s| {
            change(s)?;
            if s.metadata.len() > ITEMS_MAX {
                return Err(Fault::forbidden(format!("Maximum number of metadata items exceeds {ITEMS_MAX}")));
            }
            s.wanted.generation += 1;
            Ok(true)
        })
        .await?;
    Ok(json!(changed.metadata))
}

async fn metadata_add(svc: Arc<Compute>, call: Call) -> Reply {
    let new = super::api::strings(call.body.get("metadata"));
    let all = change_metadata(&svc, &call, move |s| {
        s.metadata.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"metadata": all})))
}

async fn metadata_replace(svc: Arc<Compute>, call: Call) -> Reply {
    let new = super::api::strings(call.body.get("metadata"));
    let all = change_metadata(&svc, &call, move |s| {
        s.metadata.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"metadata": all})))
}

fn no_item() -> Fault {
    Fault::not_found("Metadata item was not found")
}

async fn metadata_item(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let key = call.param("key");
    let value = server.metadata.get(key).ok_or_else(no_item)?;
    Ok(Response::ok(json!({"meta": {key: value}})))
}

async fn metadata_set(svc: Arc<Compute>, call: Call) -> Reply {
    let (key, new) = (call.param("key").to_owned(), super::api::strings(call.body.get("meta")));
    if !new.contains_key(&key) {
        return Err(Fault::bad_request("Request body and URI mismatch"));
    }
    let shown = new.clone();
    change_metadata(&svc, &call, move |s| {
        s.metadata.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"meta": shown})))
}

async fn metadata_remove(svc: Arc<Compute>, call: Call) -> Reply {
    let key = call.param("key").to_owned();
    change_metadata(&svc, &call, move |s| s.metadata.remove(&key).map(|_| ()).ok_or_else(no_item)).await?;
    Ok(Response::no_content())
}

async fn tags(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"tags": owned(&svc, &call).await?.tags})))
}

async fn change_tags(
    svc: &Compute,
    call: &Call,
    change: impl Fn(&mut Server) -> Result<(), Fault> + Clone + Send + Sync + 'static,
) -> Result<Value, Fault> {
    let server = owned(svc, call).await?;
    let changed = svc
        .change(&server.record.id, move |s| {
            change(s)?;
            if s.tags.len() > TAGS_MAX {
                return Err(Fault::bad_request(format!("The number of tags exceeded the per-server limit {TAGS_MAX}")));
            }
            Ok(true)
        })
        .await?;
    Ok(json!(changed.tags))
}

async fn tags_replace(svc: Arc<Compute>, call: Call) -> Reply {
    let list = call.body["tags"].as_array().cloned().unwrap_or_default();
    let new: std::collections::BTreeSet<String> = list.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
    let all = change_tags(&svc, &call, move |s| {
        s.tags.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Response::ok(json!({"tags": all})))
}

async fn tags_clear(svc: Arc<Compute>, call: Call) -> Reply {
    change_tags(&svc, &call, |s| {
        s.tags.clear();
        Ok(())
    })
    .await?;
    Ok(Response::no_content())
}

fn no_tag(call: &Call) -> Fault {
    Fault::not_found(format!("Server {} has no tag '{}'", call.param("server_id"), call.param("tag")))
}

async fn tag(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    if server.tags.contains(call.param("tag")) { Ok(Response::no_content()) } else { Err(no_tag(&call)) }
}

async fn tag_set(svc: Arc<Compute>, call: Call) -> Reply {
    let new = call.param("tag").to_owned();
    if new.is_empty() || new.chars().count() > 60 || new.contains([',', '/']) {
        return Err(Fault::bad_request("A tag has 1 to 60 characters and neither ',' nor '/'."));
    }
    let known = owned(&svc, &call).await?.tags.contains(&new);
    change_tags(&svc, &call, move |s| {
        s.tags.insert(new.clone());
        Ok(())
    })
    .await?;
    if known {
        return Ok(Response::no_content());
    }
    Ok(Response::empty(201).header("location", format!("{}{}", call.base_url, call.path)))
}

async fn tag_remove(svc: Arc<Compute>, call: Call) -> Reply {
    let (old, missing) = (call.param("tag").to_owned(), no_tag(&call));
    change_tags(&svc, &call, move |s| if s.tags.remove(&old) { Ok(()) } else { Err(missing.clone()) }).await?;
    Ok(Response::no_content())
}

async fn addresses_value(svc: &Compute, call: &Call) -> Result<Value, Fault> {
    let id = owned(svc, call).await?.record.id;
    let mut all = pilvi_network::port::ops::addresses(&svc.store, std::slice::from_ref(&id)).await?;
    let mut shown = all.remove(&id).unwrap_or_else(|| json!({}));
    for list in shown.as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        for address in list.as_array_mut().into_iter().flatten() {
            *address = json!({"addr": address["addr"], "version": address["version"]});
        }
    }
    Ok(shown)
}

async fn addresses(svc: Arc<Compute>, call: Call) -> Reply {
    Ok(Response::ok(json!({"addresses": addresses_value(&svc, &call).await?})))
}

async fn addresses_of(svc: Arc<Compute>, call: Call) -> Reply {
    let all = addresses_value(&svc, &call).await?;
    let network = call.param("network");
    let list = all.get(network).ok_or_else(|| Fault::not_found("Instance is not a member of specified network"))?;
    Ok(Response::ok(json!({network: list})))
}

async fn diagnostics(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let host = server.host.clone().ok_or_else(|| Fault::conflict("The server has no host yet."))?;
    let node = svc.fleet.node_by_name(&host).await?.ok_or_else(|| Fault::conflict("The server's host was removed."))?;
    let question = v1::question::Body::Diagnostics(v1::Diagnostics { instance_id: server.record.id.clone() });
    let bytes = svc.fleet.ask(&node.record.id, question).await?;
    let raw: Value = serde_json::from_slice(&bytes).map_err(Fault::internal)?;
    if call.at_least(2, 48) {
        return Ok(Response::ok(diagnostics_of(&server, &raw)));
    }
    Ok(Response::ok(raw))
}

/// The uniform form since 2.48.
fn diagnostics_of(server: &Server, raw: &Value) -> Value {
    let nics: Vec<Value> = server.ports.iter().map(|p| json!({"mac_address": p.mac})).collect();
    json!({
        "state": if raw["state"].is_string() { raw["state"].clone() } else { json!("running") }, "driver": "libvirt",
        "hypervisor": raw["hypervisor"], "hypervisor_os": raw["hypervisor_os"], "uptime": raw["uptime"],
        "config_drive": server.config_drive, "num_cpus": server.flavor.vcpus, "num_nics": nics.len(), "num_disks": 1,
        "cpu_details": raw["cpu_details"].as_array().cloned().unwrap_or_default(), "nic_details": nics,
        "disk_details": raw["disk_details"].as_array().cloned().unwrap_or_default(),
        "memory_details": {"maximum": server.flavor.memory_mib, "used": raw["memory_used"]},
    })
}

async fn security_groups(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let list = pilvi_network::security_group::ops::compute_view(&svc.store, &server.security_groups).await?;
    Ok(Response::ok(json!({"security_groups": list})))
}
