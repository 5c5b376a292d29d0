//! A server in JSON, by microversion: the only place of this resource that looks at it.
use crate::{
    Compute,
    server::model::{PowerState, VmState, status},
    tables::{FlavorCopy, Server, ServerGroup, VolumeOf},
    version as v, volume,
};
use pilvi_fleet::Node;
use pilvi_kit::{Call, Fault, Version, clock};
use pilvi_store::{Query, Stored};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Which of Nova's shapes of a server is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Show and list with detail.
    Full,
    /// The answer to an update.
    Updated,
    /// The answer to a rebuild.
    Rebuilt,
}

/// What a page of servers needs besides the records, read in bulk.
#[derive(Debug, Default)]
pub struct Around {
    addresses: HashMap<String, Value>,
    nodes: HashMap<String, Stored<Node>>,
    group_names: HashMap<String, String>,
}

impl Compute {
    pub async fn around(&self, servers: &[Stored<Server>]) -> Result<Around, Fault> {
        let ids: Vec<String> = servers.iter().map(|s| s.record.id.clone()).collect();
        let mut groups: Vec<String> = servers.iter().flat_map(|s| s.security_groups.clone()).collect();
        groups.sort();
        groups.dedup();
        Ok(Around {
            addresses: pilvi_network::port::ops::addresses(&self.store, &ids).await?,
            nodes: self.fleet.nodes().await?.into_iter().map(|n| (n.name.clone(), n)).collect(),
            group_names: pilvi_network::security_group::ops::names(&self.store, &groups).await?,
        })
    }

    /// One server, whole.
    pub async fn server_view(&self, call: &Call, server: &Stored<Server>, shape: Shape) -> Result<Value, Fault> {
        let around = self.around(std::slice::from_ref(server)).await?;
        let mut view = self.view(call, server, &around, shape);
        if call.version >= v::SERVER_GROUPS_SHOWN && !(shape == Shape::Updated && call.version < v::UNIFORM_SERVERS) {
            let group = match &server.group {
                Some(id) => self.store.get::<ServerGroup>(id).await?.map(|g| g.record.id),
                None => None,
            };
            view["server_groups"] = json!(group.into_iter().collect::<Vec<_>>());
        }
        Ok(view)
    }

    /// A page of servers with detail.
    pub fn view(&self, call: &Call, server: &Stored<Server>, around: &Around, shape: Shape) -> Value {
        let mut out = basic(call, server, around);
        if shape != Shape::Full && call.version < v::UNIFORM_SERVERS {
            plain_addresses(&mut out);
        }
        let full = shape == Shape::Full || (call.version >= v::UNIFORM_SERVERS);
        if full {
            self.add_states(call, server, around, &mut out);
            self.add_attributes(call, server, around, &mut out);
        }
        add_by_version(call, server, shape, &mut out);
        if let Some(fault) = &server.fault
            && matches!(server.vm_state, VmState::Error | VmState::Deleted)
        {
            let mut shown =
                json!({"code": fault.code, "message": fault.message, "created": clock::seconds_z(fault.created_us)});
            if !fault.details.is_empty() && call.may("os_compute_api:servers:detail:fault_details", &call.target()) {
                shown["details"] = json!(fault.details);
            }
            out.insert("fault".into(), shown);
        }
        Value::Object(out)
    }

    fn add_states(&self, call: &Call, server: &Server, around: &Around, out: &mut Map<String, Value>) {
        let node = server.host.as_ref().and_then(|h| around.nodes.get(h));
        // Nobody knows the power of a guest on a host that is silent.
        let power = if node.is_some_and(|n| !n.is_up()) { PowerState::NoState } else { server.power_state };
        let time = |us: Option<i64>| us.map(clock::micros);
        out.insert("OS-EXT-AZ:availability_zone".into(), json!(self.zone_shown(server)));
        out.insert("OS-EXT-STS:task_state".into(), json!(server.task_state.map(|t| t.as_str())));
        out.insert("OS-EXT-STS:vm_state".into(), json!(server.vm_state.as_str()));
        out.insert("OS-EXT-STS:power_state".into(), json!(power as u8));
        out.insert("OS-SRV-USG:launched_at".into(), json!(time(server.launched_us)));
        out.insert("OS-SRV-USG:terminated_at".into(), json!(time(server.terminated_us)));
        out.insert("os-extended-volumes:volumes_attached".into(), volumes(call, server));
        out.insert("config_drive".into(), json!(if server.config_drive { "True" } else { "" }));
        out.insert("key_name".into(), json!(server.key.as_ref().map(|k| &k.name)));
        if !server.ports.is_empty() || server.host.is_none() {
            let names: Vec<Value> = server
                .security_groups
                .iter()
                .map(|id| json!({"name": around.group_names.get(id).unwrap_or(id)}))
                .collect();
            if !names.is_empty() {
                out.insert("security_groups".into(), json!(names));
            }
        }
        if call.version >= v::HOST_STATUS && call.may("os_compute_api:servers:show:host_status", &call.target()) {
            let shown = match node {
                None => "",
                Some(n) if n.forced_down => "DOWN",
                Some(n) if n.disabled => "MAINTENANCE",
                Some(n) if n.is_up() => "UP",
                // Silent: nobody knows.
                Some(_) => "UNKNOWN",
            };
            out.insert("host_status".into(), json!(shown));
        }
    }

    fn zone_shown(&self, server: &Server) -> String {
        match (&server.zone, &server.host) {
            (Some(zone), _) => zone.clone(),
            (None, Some(_)) => self.config.default_zone.clone(),
            (None, None) => String::new(),
        }
    }

    fn add_attributes(&self, call: &Call, server: &Server, _around: &Around, out: &mut Map<String, Value>) {
        const P: &str = "OS-EXT-SRV-ATTR:";
        let mut put = |name: &str, value: Value| out.insert(format!("{P}{name}"), value);
        let admin = call.may("os_compute_api:os-extended-server-attributes", &call.target());
        if admin {
            put("host", json!(server.host));
            put("hypervisor_hostname", json!(server.host));
            put("instance_name", json!(format!("instance-{}", &server.id[..8.min(server.id.len())])));
            if call.version >= v::EXTENDED_ATTRIBUTES {
                let image = server.image.as_ref();
                let file = |f: Option<&pilvi_fleet::ImageFile>| f.map_or(String::new(), |f| f.id.clone());
                put("reservation_id", json!(server.reservation_id));
                put("launch_index", json!(server.launch_index));
                put("kernel_id", json!(file(image.and_then(|i| i.kernel.as_ref()))));
                put("ramdisk_id", json!(file(image.and_then(|i| i.ramdisk.as_ref()))));
                put("root_device_name", json!("/dev/vda"));
                put("user_data", json!(server.user_data));
            }
        }
        if (admin && call.version >= v::EXTENDED_ATTRIBUTES) || call.version >= v::HOSTNAME {
            put("hostname", json!(server.hostname));
        }
        if call.version >= v::EXTENDED_ATTRIBUTES {
            out.insert("os-extended-volumes:volumes_attached".into(), volumes(call, server));
        }
    }
}

/// Members that every shape has at every microversion.
fn basic(call: &Call, server: &Stored<Server>, around: &Around) -> Map<String, Value> {
    let shown = status(server.vm_state, server.task_state);
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("id", json!(server.record.id));
    put("name", json!(server.record.name));
    put("status", json!(shown));
    put("tenant_id", json!(server.project_id));
    put("user_id", json!(server.user_id));
    put("metadata", json!(server.metadata));
    put("hostId", json!(host_id(server)));
    put("image", image(call, server));
    put("flavor", flavor(call, &server.flavor));
    put("created", json!(clock::seconds_z(server.created_us)));
    put("updated", json!(clock::seconds_z(server.changed_us)));
    put("addresses", around.addresses.get(&server.record.id).cloned().unwrap_or_else(|| json!({})));
    put("accessIPv4", json!(server.access_ip_v4));
    put("accessIPv6", json!(server.access_ip_v6));
    put("OS-DCF:diskConfig", json!(server.disk_config));
    put("links", links(call, &server.record.id));
    if matches!(shown, "ACTIVE" | "BUILD" | "REBUILD" | "RESIZE" | "VERIFY_RESIZE" | "REVERT_RESIZE") {
        put("progress", json!(0));
    }
    out
}

/// The older answers to updates and rebuilds know nothing of kinds and MACs of addresses.
fn plain_addresses(out: &mut Map<String, Value>) {
    let lists = out.get_mut("addresses").and_then(Value::as_object_mut).into_iter().flat_map(|o| o.values_mut());
    for address in lists.filter_map(Value::as_array_mut).flatten() {
        *address = json!({"addr": address["addr"], "version": address["version"]});
    }
}

fn add_by_version(call: &Call, server: &Server, shape: Shape, out: &mut Map<String, Value>) {
    let mut since = |version: Version, name: &str, value: Value| {
        if call.version >= version {
            out.insert(name.to_owned(), value);
        }
    };
    since(v::LOCKED_SHOWN, "locked", json!(server.locked.is_some()));
    since(v::DESCRIPTION, "description", json!(server.description));
    since(v::TAGS, "tags", json!(server.tags));
    since(v::TRUSTED_CERTIFICATES, "trusted_image_certificates", json!(server.trusted_certificates));
    since(v::LOCK_REASON, "locked_reason", json!(server.locked.as_ref().and_then(|l| l.reason.clone())));
    since(v::PINNED_ZONE, "pinned_availability_zone", json!(server.zone));
    since(v::HINTS_SHOWN, "scheduler_hints", if server.hints.is_object() { server.hints.clone() } else { json!({}) });
    if shape == Shape::Rebuilt {
        since(v::REBUILD_KEY, "key_name", json!(server.key.as_ref().map(|k| &k.name)));
        since(v::REBUILD_USER_DATA, "user_data", json!(server.user_data));
        if call.version >= v::UNIFORM_SERVERS {
            out.remove("OS-EXT-SRV-ATTR:user_data");
        }
    }
}

/// The same for all servers of a project on a host, and tells nobody which host it is.
fn host_id(server: &Server) -> String {
    match &server.host {
        Some(host) => hex::encode(Sha256::digest(format!("{}{host}", server.project_id)))[..56].to_owned(),
        None => String::new(),
    }
}

fn volumes(call: &Call, server: &Server) -> Value {
    let one = |volume: &VolumeOf| match call.version >= v::EXTENDED_ATTRIBUTES {
        true => json!({"id": volume.volume_id, "delete_on_termination": volume.delete_on_termination}),
        false => json!({"id": volume.volume_id}),
    };
    server.volumes.iter().map(one).collect()
}

fn image(call: &Call, server: &Server) -> Value {
    let Some(image) = server.image.as_ref().filter(|_| !volume::model::backed(server)) else { return json!("") };
    let href = format!("{}/images/{}", call.base_url, image.id);
    let mut out = json!({"id": image.id, "links": [{"rel": "bookmark", "href": href}]});
    if call.version >= v::IMAGE_PROPERTIES_SHOWN {
        out["properties"] = json!(image.properties);
    }
    out
}

fn flavor(call: &Call, flavor: &FlavorCopy) -> Value {
    if call.version >= v::FLAVOR_EMBEDDED {
        return json!({
            "original_name": flavor.name, "vcpus": flavor.vcpus, "ram": flavor.memory_mib, "disk": flavor.disk_gib,
            "ephemeral": flavor.ephemeral_gib, "swap": flavor.swap_mib, "extra_specs": flavor.extra_specs,
        });
    }
    json!({"id": flavor.id, "links": [{"rel": "bookmark", "href": format!("{}/flavors/{}", call.base_url, flavor.id)}]})
}

/// `self` and `bookmark`, as all of compute's resources have them.
pub fn links(call: &Call, id: &str) -> Value {
    json!([
        {"rel": "self", "href": format!("{}/v2.1/servers/{id}", call.base_url)},
        {"rel": "bookmark", "href": format!("{}/servers/{id}", call.base_url)},
    ])
}

/// A server in a list without detail.
pub fn brief(call: &Call, server: &Server) -> Value {
    json!({"id": server.id, "name": server.name, "links": links(call, &server.id)})
}

/// The newest ids first of what a multiple create made.
pub fn created(call: &Call, server: &Server, password: Option<&str>) -> Value {
    let mut out = json!({
        "id": server.id, "links": links(call, &server.id), "OS-DCF:diskConfig": server.disk_config,
        "security_groups": server.security_groups.iter().map(|_| json!({"name": "default"})).collect::<Vec<_>>(),
    });
    if let Some(password) = password {
        out["adminPass"] = json!(password);
    }
    out
}

/// All living servers of the caller's project, or of all.
pub fn alive() -> Query {
    Query::all().eq("alive", 1)
}
