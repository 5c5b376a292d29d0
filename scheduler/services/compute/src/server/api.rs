//! `/servers`: create, list, show, update, delete.
use crate::{
    Compute,
    server::{
        create::{Networks, NewServer},
        schema,
        view::{self, Shape},
    },
    tables::{NetworkWish, Server},
    version as v,
    volume::mapping,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use pilvi_kit::{
    Call, Fault, Reply, Response, Route,
    call::{boolean, owned_by},
    page::{Page, PageRules},
};
use pilvi_store::Stored;
use rand::Rng;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::post("/v2.1/servers", create)
            .rule("os_compute_api:servers:create")
            .schema(&schema::CREATE)
            .summary("Create servers"),
        Route::get("/v2.1/servers", list).rule("os_compute_api:servers:index").summary("List servers"),
        Route::get("/v2.1/servers/detail", detail)
            .rule("os_compute_api:servers:detail")
            .summary("List servers with detail"),
        Route::get("/v2.1/servers/{server_id}", show)
            .rule_by_handler("os_compute_api:servers:show")
            .summary("Show a server"),
        Route::put("/v2.1/servers/{server_id}", update)
            .rule_by_handler("os_compute_api:servers:update")
            .schema(&schema::UPDATE)
            .summary("Update a server"),
        Route::delete("/v2.1/servers/{server_id}", delete)
            .rule_by_handler("os_compute_api:servers:delete")
            .summary("Delete a server"),
    ]
}

/// The server of the path, if the caller may do `rule` to it. Somebody else's server does not exist.
pub async fn owned(svc: &Compute, call: &Call) -> Result<Stored<Server>, Fault> {
    let server = svc.server(call.param("server_id")).await?;
    let target = owned_by(&server.project_id);
    let mine = call.ctx.project_id() == server.project_id;
    match call.authorize(&target) {
        Err(_) if !mine => Err(crate::fault::server_not_found(&server.record.id)),
        outcome => outcome.map(|()| server),
    }
}

const PAGES: PageRules = PageRules {
    max: Some(1000),
    default: None,
    keys: &[
        "id",
        "uuid",
        "name",
        "display_name",
        "created_at",
        "updated_at",
        "vm_state",
        "status",
        "host",
        "project_id",
        "user_id",
        "key_name",
        "launched_at",
        "display_description",
        "availability_zone",
        "image_ref",
        "instance_type_id",
        "locked",
        "power_state",
        "task_state",
        "terminated_at",
        "root_device_name",
        "config_drive",
        "hostname",
        "launch_index",
        "node",
        "access_ip_v4",
        "access_ip_v6",
        "auto_disk_config",
        "kernel_id",
        "ramdisk_id",
        "memory_mb",
        "vcpus",
        "root_gb",
        "ephemeral_gb",
        "default_ephemeral_device",
        "default_swap_device",
        "architecture",
        "cell_name",
        "vm_mode",
        "progress",
    ],
};

fn sort_value(server: &Stored<Server>, key: &str) -> Value {
    match key {
        "name" | "display_name" => json!(server.record.name),
        "created_at" => json!(server.created_us),
        "updated_at" => json!(server.changed_us),
        "vm_state" | "status" => json!(server.vm_state.as_str()),
        "task_state" => json!(server.task_state.map(|t| t.as_str())),
        "host" | "node" => json!(server.host),
        "hostname" => json!(server.hostname),
        "display_description" => json!(server.description),
        "project_id" => json!(server.project_id),
        "user_id" => json!(server.user_id),
        "key_name" => json!(server.key.as_ref().map(|k| &k.name)),
        "launched_at" => json!(server.launched_us),
        "terminated_at" => json!(server.terminated_us),
        "availability_zone" => json!(server.zone),
        "image_ref" => json!(server.image.as_ref().map(|i| &i.id)),
        "instance_type_id" => json!(server.flavor.id),
        "memory_mb" => json!(server.flavor.memory_mib),
        "vcpus" => json!(server.flavor.vcpus),
        "root_gb" => json!(server.flavor.disk_gib),
        "launch_index" => json!(server.launch_index),
        "power_state" => json!(server.power_state as u8),
        "locked" => json!(server.locked.is_some()),
        "config_drive" => json!(server.config_drive),
        "access_ip_v4" => json!(server.access_ip_v4),
        "access_ip_v6" => json!(server.access_ip_v6),
        _ => json!(server.record.id),
    }
}

async fn page_of(svc: &Compute, call: &Call) -> Result<(Vec<Stored<Server>>, Vec<Value>), Fault> {
    let mut page = Page::of(call, PAGES)?;
    if page.sort.is_empty() {
        page.sort = vec![("created_at".into(), pilvi_kit::page::Dir::Desc)];
    }
    let found = svc.find_servers(call).await?;
    let (servers, more) = page.cut(found, |s| &s.record.id, sort_value)?;
    let links = page.links(call, &servers, more, |s| &s.record.id);
    Ok((servers, links.into_iter().filter(|l| l["rel"] == "next").collect()))
}

fn listed(name: &str, servers: Vec<Value>, links: Vec<Value>) -> Response {
    let mut body = json!({name: servers});
    if !links.is_empty() {
        body[format!("{name}_links")] = json!(links);
    }
    Response::ok(body)
}

async fn list(svc: Arc<Compute>, call: Call) -> Reply {
    let (servers, links) = page_of(&svc, &call).await?;
    Ok(listed("servers", servers.iter().map(|s| view::brief(&call, s)).collect(), links))
}

async fn detail(svc: Arc<Compute>, call: Call) -> Reply {
    let (servers, links) = page_of(&svc, &call).await?;
    let around = svc.around(&servers).await?;
    Ok(listed("servers", servers.iter().map(|s| svc.view(&call, s, &around, Shape::Full)).collect(), links))
}

async fn show(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    Ok(Response::ok(json!({"server": svc.server_view(&call, &server, Shape::Full).await?})))
}

async fn delete(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    svc.delete_server(&call.ctx, &server.record.id).await?;
    Ok(Response::no_content())
}

async fn update(svc: Arc<Compute>, call: Call) -> Reply {
    let server = owned(&svc, &call).await?;
    let body = call.member("server")?.clone();
    let new = body.clone();
    let server = svc
        .change(&server.record.id, move |s| {
            apply(s, &new);
            Ok(true)
        })
        .await?;
    Ok(Response::ok(json!({"server": svc.server_view(&call, &server, Shape::Updated).await?})))
}

/// An address in its usual spelling.
fn address(text: &str) -> String {
    text.parse::<std::net::IpAddr>().map_or_else(|_| text.to_owned(), |a| a.to_string())
}

/// Sets what a body names; its schema has been checked.
pub fn apply(server: &mut Server, body: &Value) {
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Some(name) = text("name") {
        server.name = name.trim().to_owned();
    }
    if let Some(hostname) = text("hostname") {
        server.hostname = hostname;
        server.wanted.generation += 1;
    }
    if body.get("description").is_some() {
        server.description = text("description");
    }
    for (key, field) in [("accessIPv4", &mut server.access_ip_v4), ("accessIPv6", &mut server.access_ip_v6)] {
        if let Some(value) = body.get(key) {
            *field = address(value.as_str().unwrap_or_default());
        }
    }
    if let Some(config) = text("OS-DCF:diskConfig") {
        server.disk_config = config;
    }
}

async fn create(svc: Arc<Compute>, call: Call) -> Reply {
    let body = call.member("server")?.clone();
    let new = parse(&call, &body)?;
    let reservation = body.get("return_reservation_id").is_some_and(truth);
    let password = new.admin_password.clone();
    let servers = svc.create_servers(&call.ctx, new).await?;
    let first = servers.first().ok_or_else(|| Fault::internal("no server was made"))?;
    if reservation {
        return Ok(Response::accepted(json!({"reservation_id": first.reservation_id})));
    }
    let location = call.url(&format!("/v2.1/servers/{}", first.id));
    let asked: Vec<Value> = body.get("security_groups").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut shown = view::created(&call, first, Some(&password));
    if !asked.is_empty() {
        shown["security_groups"] = json!(asked);
    }
    Ok(Response::accepted(json!({"server": shown})).header("location", location))
}

/// A boolean in any spelling that the schemas let through.
pub fn truth(value: &Value) -> bool {
    value.as_bool().or_else(|| value.as_str().and_then(boolean)).unwrap_or(false)
}

fn number(body: &Value, key: &str) -> Result<Option<u32>, Fault> {
    const MOST: u64 = 1000;
    let Some(value) = body.get(key) else { return Ok(None) };
    let n = value.as_u64().or_else(|| value.as_str().and_then(|s| s.parse().ok())).unwrap_or(0);
    if n == 0 || n > MOST {
        return Err(Fault::bad_request(format!(
            "Invalid input for field/attribute {key}. It must be between 1 and {MOST}."
        )));
    }
    Ok(u32::try_from(n).ok())
}

fn parse(call: &Call, body: &Value) -> Result<NewServer, Fault> {
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let min_count = number(body, "min_count")?;
    let max_count = number(body, "max_count")?.or(min_count).unwrap_or(1);
    let min_count = min_count.unwrap_or(max_count.min(1)).max(1);
    if min_count > max_count {
        return Err(Fault::bad_request("min_count must be <= max_count"));
    }
    if call.version < v::TAGS_AT_CREATION && body.get("tags").is_some()
        || call.version < v::DESCRIPTION && body.get("description").is_some()
    {
        return Err(Fault::bad_request("Additional properties are not allowed at this microversion."));
    }
    let image = Some(id_of(body.get("imageRef"))).filter(|i| !i.is_empty());
    let mappings = mapping::parse(call, body, image.as_deref())?;
    let (zone, host) = place(call, &text("availability_zone"), body)?;
    Ok(NewServer {
        name: text("name").unwrap_or_default().trim().to_owned(),
        hostname: text("hostname").filter(|_| call.version >= v::HOSTNAME),
        description: text("description"),
        flavor: id_of(body.get("flavorRef")),
        image: image.or(mappings.local_image.clone()),
        mappings,
        networks: networks(call, body)?,
        security_groups: groups(body),
        key_name: text("key_name"),
        user_data: user_data(text("user_data"))?,
        config_drive: body.get("config_drive").is_some_and(truth),
        metadata: strings(body.get("metadata")),
        tags: body
            .get("tags")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|t| t.as_str().map(str::to_owned))
            .collect::<BTreeSet<_>>(),
        zone,
        host,
        admin_password: text("adminPass").unwrap_or_else(password),
        access_ip_v4: address(&text("accessIPv4").unwrap_or_default()),
        access_ip_v6: address(&text("accessIPv6").unwrap_or_default()),
        disk_config: text("OS-DCF:diskConfig").unwrap_or_else(|| "MANUAL".into()),
        trusted_certificates: None,
        hints: call
            .body
            .get("os:scheduler_hints")
            .or_else(|| call.body.get("OS-SCH-HNT:scheduler_hints"))
            .cloned()
            .unwrap_or(json!({})),
        min_count,
        max_count,
    })
}

/// Ids used to be URLs; the last segment counts.
fn id_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(n)) => n.to_string(),
        Some(Value::String(s)) => s.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

pub fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

fn groups(body: &Value) -> Vec<String> {
    let list = body.get("security_groups").and_then(Value::as_array);
    let names: BTreeSet<String> =
        list.into_iter().flatten().filter_map(|g| g["name"].as_str().map(str::to_owned)).collect();
    names.into_iter().collect()
}

pub fn user_data(text: Option<String>) -> Result<Option<String>, Fault> {
    if let Some(text) = &text {
        let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if STANDARD.decode(&plain).is_err() {
            return Err(Fault::bad_request("Invalid input for field/attribute user_data. It must be base64."));
        }
        return Ok(Some(plain));
    }
    Ok(text)
}

fn networks(call: &Call, body: &Value) -> Result<Networks, Fault> {
    let wish = |n: &Value| NetworkWish {
        network_id: n["uuid"].as_str().map(str::to_owned).filter(|_| !n["port"].is_string()),
        port_id: n["port"].as_str().map(str::to_owned),
        fixed_ip: n["fixed_ip"].as_str().map(str::to_owned),
        tag: n["tag"].as_str().map(str::to_owned),
    };
    match body.get("networks") {
        None if call.version >= v::NETWORKS_NEEDED => {
            Err(Fault::bad_request("Invalid input for field/attribute server. 'networks' is a required property"))
        }
        None => Ok(Networks::Auto),
        Some(Value::String(word)) if word == "none" => Ok(Networks::None),
        Some(Value::String(_)) => Ok(Networks::Auto),
        Some(Value::Array(list)) if list.is_empty() => Ok(Networks::Auto),
        Some(Value::Array(list)) => {
            let wishes: Vec<NetworkWish> = list.iter().map(wish).collect();
            if wishes.iter().any(|w| w.network_id.is_none() && w.port_id.is_none()) {
                return Err(Fault::bad_request("A network needs a uuid or a port."));
            }
            let ports: BTreeSet<_> = wishes.iter().filter_map(|w| w.port_id.clone()).collect();
            if ports.len() < wishes.iter().filter(|w| w.port_id.is_some()).count() {
                return Err(Fault::bad_request("A port is named twice."));
            }
            Ok(Networks::These(wishes))
        }
        Some(_) => Err(Fault::bad_request("Invalid input for field/attribute networks.")),
    }
}

/// `zone`, `zone:host` (administrators), or `host` since 2.74.
fn place(call: &Call, zone: &Option<String>, body: &Value) -> Result<(Option<String>, Option<String>), Fault> {
    let mut host =
        body.get("host").or_else(|| body.get("hypervisor_hostname")).and_then(Value::as_str).map(str::to_owned);
    if host.is_some() && call.version < v::NAMED_HOST {
        return Err(Fault::bad_request("Additional properties are not allowed ('host' was unexpected)"));
    }
    if host.is_some() {
        call.enforce("compute:servers:create:requested_destination", &call.target())?;
    }
    let mut zone = zone.clone();
    if let Some((z, h)) = zone.clone().as_deref().and_then(|z| z.split_once(':')) {
        call.enforce("os_compute_api:servers:create:forced_host", &call.target())?;
        host = h.split(':').find(|p| !p.is_empty()).map(str::to_owned);
        zone = Some(z.to_owned()).filter(|z| !z.is_empty());
    }
    Ok((zone, host))
}

/// A password for the guest's user, told once.
pub fn password() -> String {
    const LETTERS: &[u8] = b"23456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut rng = rand::rng();
    (0..12).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}
