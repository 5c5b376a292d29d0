//! `/os-hypervisors`: what hosts have and what of it is used. And `/os-services`.
use super::service;
use crate::{Compute, host::part::servers_on};
use pilvi_fleet::Node;
use pilvi_kit::{
    Call, Fault, Reply, Response, Route,
    page::{Page, PageRules},
};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Compute>> {
    let mut routes = service::routes();
    routes.extend([
        Route::get("/v2.1/os-hypervisors", list).rule("os_compute_api:os-hypervisors:list"),
        Route::get("/v2.1/os-hypervisors/detail", detail).rule("os_compute_api:os-hypervisors:list-detail"),
        Route::get("/v2.1/os-hypervisors/statistics", statistics)
            .rule("os_compute_api:os-hypervisors:statistics")
            .until(2, 87),
        Route::get("/v2.1/os-hypervisors/{id}", show).rule("os_compute_api:os-hypervisors:show"),
        Route::get("/v2.1/os-hypervisors/{id}/uptime", uptime)
            .rule("os_compute_api:os-hypervisors:uptime")
            .until(2, 87),
        Route::get("/v2.1/os-hypervisors/{pattern}/search", search)
            .rule("os_compute_api:os-hypervisors:search")
            .until(2, 52),
        Route::get("/v2.1/os-hypervisors/{pattern}/servers", servers)
            .rule("os_compute_api:os-hypervisors:servers")
            .until(2, 52),
    ]);
    routes
}

fn brief(call: &Call, node: &Node) -> Value {
    json!({
        "id": if call.at_least(2, 53) { json!(node.id) } else { json!(service::number(node)) },
        "hypervisor_hostname": node.name, "state": if node.is_up() { "up" } else { "down" },
        "status": if node.disabled { "disabled" } else { "enabled" },
    })
}

/// The first usable runtime, as the hypervisor's type.
fn kind(node: &Node) -> String {
    let usable = node.inventory.runtimes.iter().find(|(_, usable, _)| *usable);
    usable.map_or_else(|| "none".to_owned(), |(name, _, _)| name.to_uppercase())
}

async fn whole(svc: &Compute, call: &Call, node: &Stored<Node>) -> Result<Value, Fault> {
    let servers = servers_on(svc, &node.name).await?;
    let inventory = &node.inventory;
    let used = |f: fn(&crate::tables::FlavorCopy) -> u64| -> u64 { servers.iter().map(|s| f(&s.flavor)).sum() };
    let (vcpus, memory, disk) =
        (used(|f| f.vcpus.into()), used(|f| f.memory_mib), used(|f| f.disk_gib + f.ephemeral_gib));
    let mut out = brief(call, node);
    let service_id = if call.at_least(2, 53) { json!(node.record.id) } else { json!(service::number(node)) };
    out["service"] = json!({"id": service_id, "host": node.name, "disabled_reason": node.disabled_reason});
    out["host_ip"] = json!(inventory.host_ip);
    out["hypervisor_type"] = json!(kind(node));
    out["hypervisor_version"] = json!(version_number(&inventory.hypervisor_version));
    if call.at_least(2, 88) {
        out["uptime"] = Value::Null;
    } else {
        let topology = json!({"arch": inventory.cpu_arch, "model": inventory.cpu_model, "vendor": "", "features": [],
            "topology": {"cores": inventory.vcpus, "sockets": 1, "threads": 1}});
        out["cpu_info"] = if call.at_least(2, 28) { topology } else { json!(topology.to_string()) };
        let free =
            |have: u64, used: u64| i64::try_from(have).unwrap_or(i64::MAX) - i64::try_from(used).unwrap_or(i64::MAX);
        let numbers = [
            ("vcpus", json!(inventory.vcpus)),
            ("vcpus_used", json!(vcpus)),
            ("memory_mb", json!(inventory.memory_mib)),
            ("memory_mb_used", json!(memory)),
            ("free_ram_mb", json!(free(inventory.memory_mib, memory))),
            ("local_gb", json!(inventory.disk_gib)),
            ("local_gb_used", json!(disk)),
            ("free_disk_gb", json!(free(inventory.disk_gib, disk))),
            ("disk_available_least", json!(free(inventory.disk_gib, disk))),
            ("running_vms", json!(servers.len())),
            ("current_workload", json!(0)),
        ];
        for (name, value) in numbers {
            out[name] = value;
        }
    }
    let listed = call.at_least(2, 75) || !servers.is_empty();
    if call.at_least(2, 53) && call.query.flag("with_servers")?.unwrap_or(false) && listed {
        out["servers"] =
            json!(servers.iter().map(|s| json!({"uuid": s.record.id, "name": s.record.name})).collect::<Vec<_>>());
    }
    Ok(out)
}

/// `7.2.3` as 7002003, as Nova counts.
fn version_number(text: &str) -> u64 {
    text.split('.')
        .take(3)
        .fold((0, 1_000_000), |(sum, unit), part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).take(3).collect();
            (sum + digits.parse::<u64>().unwrap_or(0) * unit, unit / 1000)
        })
        .0
}

async fn nodes(svc: &Compute, call: &Call) -> Result<(Vec<Stored<Node>>, Vec<Value>), Fault> {
    let mut nodes = svc.fleet.nodes().await?;
    if let Some(pattern) = call.query.get("hypervisor_hostname_pattern").filter(|_| call.at_least(2, 53)) {
        nodes.retain(|n| n.name.contains(pattern));
        if nodes.is_empty() {
            return Err(Fault::not_found(format!("No hypervisor matching '{pattern}' could be found.")));
        }
    }
    if !call.at_least(2, 33) {
        return Ok((nodes, Vec::new()));
    }
    let page = Page::of(call, PageRules { max: Some(1000), default: None, keys: &[] })?;
    let (nodes, more) = page.cut(nodes, |n| &n.record.id, |_, _| Value::Null)?;
    let links = page.links(call, &nodes, more, |n| &n.record.id).into_iter().filter(|l| l["rel"] == "next").collect();
    Ok((nodes, links))
}

fn listed(hypervisors: Vec<Value>, links: Vec<Value>) -> Response {
    let mut body = json!({"hypervisors": hypervisors});
    if !links.is_empty() {
        body["hypervisors_links"] = json!(links);
    }
    Response::ok(body)
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let (nodes, links) = nodes(&svc, &call).await?;
    Ok(listed(nodes.iter().map(|n| brief(&call, n)).collect(), links))
}

async fn detail(svc: Arc<Compute>, call: Call) -> Reply {
    let (nodes, links) = nodes(&svc, &call).await?;
    let mut out = Vec::new();
    for node in &nodes {
        out.push(whole(&svc, &call, node).await?);
    }
    Ok(listed(out, links))
}

async fn found(svc: &Compute, call: &Call) -> Result<Stored<Node>, Fault> {
    let wish = call.param("id");
    let nodes = svc.fleet.nodes().await?;
    nodes
        .into_iter()
        .find(|n| if call.at_least(2, 53) { n.record.id == wish } else { service::number(n).to_string() == wish })
        .ok_or_else(|| Fault::not_found(format!("Hypervisor with ID '{wish}' could not be found.")))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let node = found(&svc, &call).await?;
    Ok(Response::ok(json!({"hypervisor": whole(&svc, &call, &node).await?})))
}

async fn uptime(svc: Arc<Compute>, call: Call) -> Reply {
    let node = found(&svc, &call).await?;
    let mut out = brief(&call, &node);
    out["uptime"] = json!(format!("{} boot {}", node.inventory.host_ip, node.boot_id));
    Ok(Response::ok(json!({"hypervisor": out})))
}

async fn statistics(svc: Arc<Compute>, call: Call) -> Reply {
    const SUMMED: [&str; 11] = [
        "vcpus",
        "vcpus_used",
        "memory_mb",
        "memory_mb_used",
        "free_ram_mb",
        "local_gb",
        "local_gb_used",
        "free_disk_gb",
        "disk_available_least",
        "running_vms",
        "current_workload",
    ];
    let nodes: Vec<_> = svc.fleet.nodes().await?.into_iter().filter(|n| !n.disabled).collect();
    let mut sums = json!({"count": nodes.len()});
    for name in SUMMED {
        sums[name] = json!(0);
    }
    for node in &nodes {
        let one = whole(&svc, &call, node).await?;
        for name in SUMMED {
            sums[name] = json!(sums[name].as_i64().unwrap_or(0) + one[name].as_i64().unwrap_or(0));
        }
    }
    Ok(Response::ok(json!({"hypervisor_statistics": sums})))
}

async fn matching(svc: &Compute, call: &Call) -> Result<Vec<Stored<Node>>, Fault> {
    let pattern = call.param("pattern");
    let nodes: Vec<_> = svc.fleet.nodes().await?.into_iter().filter(|n| n.name.contains(pattern)).collect();
    if nodes.is_empty() {
        return Err(Fault::not_found(format!("No hypervisor matching '{pattern}' could be found.")));
    }
    Ok(nodes)
}

async fn search(svc: Arc<Compute>, call: Call) -> Reply {
    let nodes = matching(&svc, &call).await?;
    Ok(listed(nodes.iter().map(|n| brief(&call, n)).collect(), Vec::new()))
}

async fn servers(svc: Arc<Compute>, call: Call) -> Reply {
    let mut out = Vec::new();
    for node in matching(&svc, &call).await? {
        let mut shown = brief(&call, &node);
        let list = servers_on(&svc, &node.name).await?;
        if !list.is_empty() {
            shown["servers"] =
                json!(list.iter().map(|s| json!({"uuid": s.record.id, "name": s.record.name})).collect::<Vec<_>>());
        }
        out.push(shown);
    }
    Ok(listed(out, Vec::new()))
}
