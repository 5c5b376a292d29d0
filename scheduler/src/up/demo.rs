//! The demo: what a first user would type, done through the public API.
//!
//! Administrator: project, user, flavors, image, external network. User: network, router, security group,
//! key, server, floating IP.
use super::{
    files::{self, First},
    guest,
    rest::{Login, Rest},
};
use crate::{
    cli::Up,
    config::Config,
    output::Progress,
    state::{self, State},
};
use anyhow::{Context, Result, bail};
use pilvi_starter::Built;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// User that the starter image makes.
const GUEST_USER: &str = "cirros";
const SERVER: &str = "demo";
const ACTIVE_PATIENCE: Duration = Duration::from_secs(180);
const SSH_PATIENCE: Duration = Duration::from_secs(180);

/// (id, name, MiB, vCPUs, GiB)
const FLAVORS: &[(&str, &str, u64, u64, u64)] = &[
    ("1", "m1.tiny", 256, 1, 1),
    ("2", "m1.small", 512, 1, 5),
    ("3", "m1.medium", 1024, 2, 10),
    ("4", "m1.large", 2048, 2, 20),
];

pub async fn run(state: &State, config: &Config, starter: &Built, arguments: &Up, progress: Progress) -> Result<First> {
    let open = Rest::new(&config.public_url(), &state.ca())?;
    let admin_password = state::read_secret(&state.admin_password())?;
    let admin = open.login(Login { user: "admin", password: &admin_password, project: "admin" }).await?;
    let demo_password = demo_password(state)?;
    project(&admin, &demo_password).await?;
    files::write_clouds(state, config, Some(&demo_password), &admin_password)?;
    files::write_ssh_config(state, GUEST_USER)?;
    flavors(&admin).await?;
    progress.step("project, user and flavors made");
    let image = images(&admin, starter, arguments.runtime.as_deref()).await?;
    progress.step("image uploaded");
    external(&admin, config).await?;
    let user = open.login(Login { user: "demo", password: &demo_password, project: "demo" }).await?;
    let network = network(&user).await?;
    open_ports(&user).await?;
    progress.step("network, router and security group rules made");
    let key = guest::key(state).await?;
    keypair(&user, &key).await?;
    let (server, fresh) = server(&user, &image, &network).await?;
    let id = text(&server, "id")?;
    let active = wait_active(&user, &id).await?;
    let active_s = progress.seconds();
    progress.step(&format!("server {SERVER} is ACTIVE"));
    let address = floating_ip(&user, &id).await?;
    progress.step(&format!("floating IP {address}"));
    let hostname = if runtime_has_ssh(arguments) {
        let said = guest::ssh(state, &address, "hostname", SSH_PATIENCE).await?;
        if fresh && said != SERVER {
            bail!("the guest at {address} calls itself {said}");
        }
        Some(said)
    } else {
        None
    };
    progress.step("ssh answers");
    drop(active);
    Ok(First { name: SERVER.into(), address, user: GUEST_USER, hostname, active_s, ready_s: progress.seconds() })
}

fn runtime_has_ssh(arguments: &Up) -> bool {
    arguments.runtime.as_deref() != Some("fake")
}

fn text(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("the answer has no {key}: {value}"))
}

fn demo_password(state: &State) -> Result<String> {
    let path = state.demo_password();
    if let Ok(known) = state::read_secret(&path) {
        return Ok(known);
    }
    let fresh = pilvi_identity::generate_password();
    state::write_secret(&path, &fresh)?;
    Ok(fresh)
}

async fn project(admin: &Rest, password: &str) -> Result<()> {
    let project = match admin.find("identity", "/projects?name=demo", "projects", "demo").await? {
        Some(known) => known,
        None => admin
            .post("identity", "/projects", json!({"project": {"name": "demo", "domain_id": "default"}}))
            .await?["project"]
            .clone(),
    };
    let user = match admin.find("identity", "/users?name=demo", "users", "demo").await? {
        Some(known) => known,
        None => {
            let new = json!({"user": {"name": "demo", "domain_id": "default", "password": password, "default_project_id": project["id"]}});
            admin.post("identity", "/users", new).await?["user"].clone()
        }
    };
    let role =
        admin.find("identity", "/roles?name=member", "roles", "member").await?.context("there is no role member")?;
    let path = format!("/projects/{}/users/{}/roles/{}", text(&project, "id")?, text(&user, "id")?, text(&role, "id")?);
    admin.put("identity", &path, Value::Null).await?;
    Ok(())
}

async fn flavors(admin: &Rest) -> Result<()> {
    for (id, name, ram, vcpus, disk) in FLAVORS {
        if admin.find("compute", "/flavors", "flavors", name).await?.is_none() {
            let new = json!({"flavor": {"id": id, "name": name, "ram": ram, "vcpus": vcpus, "disk": disk}});
            admin.post("compute", "/flavors", new).await?;
        }
    }
    Ok(())
}

/// Kernel, ramdisk and disk as three public images; the disk names the other two, so that it boots without
/// a boot loader where that is quicker.
async fn images(admin: &Rest, starter: &Built, runtime: Option<&str>) -> Result<String> {
    let kernel = image(admin, "starter-kernel", "aki", &starter.kernel, json!({})).await?;
    let ramdisk = image(admin, "starter-ramdisk", "ari", &starter.initrd, json!({})).await?;
    let mut properties = json!({"kernel_id": kernel, "ramdisk_id": ramdisk, "os_command_line": pilvi_starter::COMMAND_LINE,
        "hw_rng_model": "virtio", "os_distro": "debian"});
    if let Some(runtime) = runtime {
        properties["hw_pilvi_runtime"] = json!(runtime);
    }
    image(admin, "starter", "raw", &starter.image, properties).await
}

async fn image(admin: &Rest, name: &str, format: &str, file: &Path, properties: Value) -> Result<String> {
    let known = admin.find("image", &format!("/v2/images?name={name}"), "images", name).await?;
    let id = match known {
        Some(image) if image["status"] == "active" => return text(&image, "id"),
        Some(image) => text(&image, "id")?,
        None => {
            let container = if format == "raw" { "bare" } else { format };
            let mut new =
                json!({"name": name, "visibility": "public", "disk_format": format, "container_format": container});
            for (key, value) in properties.as_object().into_iter().flatten() {
                new[key] = value.clone();
            }
            text(&admin.post("image", "/v2/images", new).await?, "id")?
        }
    };
    admin.upload("image", &format!("/v2/images/{id}/file"), file).await.with_context(|| name.to_owned())?;
    Ok(id)
}

async fn made(rest: &Rest, list: &str, one: &str, name: &str, new: Value) -> Result<Value> {
    if let Some(known) = rest.find("network", &format!("/v2.0/{list}?name={name}"), list, name).await? {
        return Ok(known);
    }
    Ok(rest.post("network", &format!("/v2.0/{list}"), json!({one: new})).await?[one].clone())
}

async fn external(admin: &Rest, config: &Config) -> Result<()> {
    let new = json!({"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "external"});
    let network = made(admin, "networks", "network", "public", new).await?;
    let subnet = json!({
        "name": "public-subnet", "network_id": network["id"], "ip_version": 4, "cidr": config.external.cidr, "gateway_ip": config.external.gateway,
        "enable_dhcp": false, "allocation_pools": [{"start": config.external.first, "end": config.external.last}],
    });
    made(admin, "subnets", "subnet", "public-subnet", subnet).await?;
    Ok(())
}

async fn network(user: &Rest) -> Result<String> {
    let network = made(user, "networks", "network", "demo", json!({"name": "demo"})).await?;
    let subnet = json!({"name": "demo-subnet", "network_id": network["id"], "ip_version": 4, "cidr": "10.20.0.0/24"});
    let subnet = made(user, "subnets", "subnet", "demo-subnet", subnet).await?;
    let public = user
        .find("network", "/v2.0/networks?router:external=True", "networks", "public")
        .await?
        .context("there is no network public")?;
    let router = json!({"name": "demo", "external_gateway_info": {"network_id": public["id"]}});
    let router = made(user, "routers", "router", "demo", router).await?;
    let legs = user
        .get(
            "network",
            &format!("/v2.0/ports?device_id={}&device_owner=network:router_interface", text(&router, "id")?),
        )
        .await?;
    if legs["ports"].as_array().is_none_or(Vec::is_empty) {
        let path = format!("/v2.0/routers/{}/add_router_interface", text(&router, "id")?);
        user.put("network", &path, json!({"subnet_id": subnet["id"]})).await?;
    }
    text(&network, "id")
}

async fn open_ports(user: &Rest) -> Result<()> {
    let group = user
        .find("network", &format!("/v2.0/security-groups?project_id={}", user.project_id), "security_groups", "default")
        .await?
        .context("the project has no default security group")?;
    let rules = group["security_group_rules"].as_array().cloned().unwrap_or_default();
    for (protocol, port) in [("icmp", None), ("tcp", Some(22))] {
        let known = rules
            .iter()
            .any(|r| r["protocol"] == protocol && r["direction"] == "ingress" && r["port_range_min"].as_u64() == port);
        if !known {
            let rule = json!({"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": protocol,
                "port_range_min": port, "port_range_max": port});
            user.post("network", "/v2.0/security-group-rules", json!({"security_group_rule": rule})).await?;
        }
    }
    Ok(())
}

async fn keypair(user: &Rest, public_key: &str) -> Result<()> {
    let all = user.get("compute", "/os-keypairs").await?;
    let known = all["keypairs"].as_array().into_iter().flatten().any(|k| k["keypair"]["name"] == "demo");
    if !known {
        user.post(
            "compute",
            "/os-keypairs",
            json!({"keypair": {"name": "demo", "type": "ssh", "public_key": public_key}}),
        )
        .await?;
    }
    Ok(())
}

/// The server, and whether it is new.
async fn server(user: &Rest, image: &str, network: &str) -> Result<(Value, bool)> {
    if let Some(known) = user.find("compute", "/servers?name=demo", "servers", SERVER).await? {
        return Ok((known, false));
    }
    let new = json!({"server": {
        "name": SERVER, "imageRef": image, "flavorRef": "1", "key_name": "demo", "networks": [{"uuid": network}],
        "user_data": "IyEvYmluL3NoCmVjaG8gIj09PSB1c2VyIGRhdGEgcmFuID09PSIK",
    }});
    Ok((user.post("compute", "/servers", new).await?["server"].clone(), true))
}

async fn wait_active(user: &Rest, id: &str) -> Result<Value> {
    let until = tokio::time::Instant::now() + ACTIVE_PATIENCE;
    loop {
        let server = user.get("compute", &format!("/servers/{id}")).await?["server"].clone();
        match server["status"].as_str() {
            Some("ACTIVE") => return Ok(server),
            Some("ERROR") => bail!("the server is in ERROR: {}", server["fault"]["message"]),
            Some("SHUTOFF") => {
                user.post("compute", &format!("/servers/{id}/action"), json!({"os-start": null})).await?;
            }
            _ => {}
        }
        if tokio::time::Instant::now() > until {
            bail!("the server is still {} after {} s", server["status"], ACTIVE_PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn floating_ip(user: &Rest, server_id: &str) -> Result<String> {
    let ports = user.get("network", &format!("/v2.0/ports?device_id={server_id}")).await?;
    let port = text(&ports["ports"][0], "id")?;
    let known = user.get("network", &format!("/v2.0/floatingips?port_id={port}")).await?;
    if let Some(address) = known["floatingips"][0]["floating_ip_address"].as_str() {
        return Ok(address.to_owned());
    }
    let public = user
        .find("network", "/v2.0/networks?router:external=True", "networks", "public")
        .await?
        .context("there is no network public")?;
    let new = json!({"floatingip": {"floating_network_id": public["id"], "port_id": port}});
    text(&user.post("network", "/v2.0/floatingips", new).await?["floatingip"], "floating_ip_address")
}
