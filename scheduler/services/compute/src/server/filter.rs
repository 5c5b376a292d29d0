//! Which servers a list shows: Nova's query parameters, those of users and those of administrators.
use crate::{
    Compute,
    server::model::{self, VmState},
    tables::Server,
};
use pilvi_kit::{Call, Fault, call::boolean, clock};
use pilvi_store::{Query, Stored};
use regex::Regex;
use serde_json::Value;
use std::collections::HashMap;

/// Parameters that are ignored, not refused, when the caller may not use them.
const ADMIN_ONLY: [&str; 6] = ["host", "node", "hypervisor_hostname", "user_id", "project_id", "tenant_id"];

impl Compute {
    /// The servers that the query names, unsorted.
    pub async fn find_servers(&self, call: &Call) -> Result<Vec<Stored<Server>>, Fault> {
        let admin = call.may("os_compute_api:servers:detail:get_all_tenants", &call.target());
        let everyone = match call.query.get("all_tenants") {
            None => false,
            Some(text) => {
                boolean(text).ok_or_else(|| Fault::bad_request("Invalid input for query parameters all_tenants."))?
            }
        };
        if everyone && !admin {
            call.enforce("os_compute_api:servers:index:get_all_tenants", &call.target())?;
        }
        let mut query = Query::all();
        if !everyone {
            query = query.project(call.ctx.project_id());
        } else if let Some(project) = call.query.get("project_id").or_else(|| call.query.get("tenant_id")) {
            query = query.project(project);
        }
        let changes = time(call, "changes-since")?;
        let deleted = call.query.get("deleted").and_then(boolean).unwrap_or(false) && admin;
        if deleted {
            query = query.state(VmState::Deleted.as_str());
        } else if changes.is_none()
            && !call.query.get("status").is_some_and(|s| admin && s.eq_ignore_ascii_case("deleted"))
        {
            query = query.eq("alive", 1);
        }
        let mut servers = self.store.list::<Server>(query).await?;
        if let Some(after) = changes {
            servers.retain(|s| s.changed_us >= after);
        }
        if let Some(before) = time(call, "changes-before")? {
            servers.retain(|s| s.changed_us <= before);
        }
        self.narrow(call, admin, servers).await
    }

    async fn narrow(
        &self,
        call: &Call,
        admin: bool,
        mut servers: Vec<Stored<Server>>,
    ) -> Result<Vec<Stored<Server>>, Fault> {
        let statuses: Vec<&str> = call.query.all("status").collect();
        if !statuses.is_empty() {
            servers.retain(|s| statuses.iter().any(|w| has_status(s, w)));
        }
        for (key, wish) in &call.query.0 {
            if ADMIN_ONLY.contains(&key.as_str()) && !admin {
                continue;
            }
            if let Some(keep) = by_value(key, wish)? {
                servers.retain(|s| keep(s));
            }
        }
        tags(call, &mut servers);
        if call.query.has("ip") || call.query.has("ip6") {
            let ids: Vec<String> = servers.iter().map(|s| s.record.id.clone()).collect();
            let addresses = pilvi_network::port::ops::addresses(&self.store, &ids).await?;
            for (key, version) in [("ip", 4), ("ip6", 6)] {
                if let Some(wish) = call.query.get(key) {
                    let pattern = pattern(key, wish)?;
                    servers.retain(|s| has_address(&addresses, &s.record.id, version, &pattern));
                }
            }
        }
        Ok(servers)
    }
}

fn time(call: &Call, key: &str) -> Result<Option<i64>, Fault> {
    match call.query.get(key) {
        None => Ok(None),
        Some(text) => clock::parse(text).map(Some).ok_or_else(|| {
            Fault::bad_request(format!(
                "Invalid input for query parameters {key}. Value: {text}. '{text}' is not a 'date-time'"
            ))
        }),
    }
}

fn has_status(server: &Server, wish: &str) -> bool {
    model::states_of(wish).is_some_and(|states| states.contains(&server.vm_state))
        && (model::status(server.vm_state, None).eq_ignore_ascii_case(wish)
            || model::status(server.vm_state, server.task_state).eq_ignore_ascii_case(wish))
}

/// Bytes of a pattern that a client may send.
const PATTERN_MAX: usize = 255;

/// Clients send regular expressions, as databases match them. This engine has no back-tracking, so a
/// hostile one costs no more than a plain one.
fn pattern(key: &str, text: &str) -> Result<Regex, Fault> {
    let bad = || Fault::bad_request(format!("Invalid input for query parameters {key}. Value: {text}."));
    if text.len() > PATTERN_MAX {
        return Err(bad());
    }
    regex::RegexBuilder::new(text).case_insensitive(true).size_limit(1 << 20).build().map_err(|_| bad())
}

type Keep = Box<dyn Fn(&Server) -> bool>;

/// A filter on one attribute; `None` for parameters that are none.
fn by_value(key: &str, wish: &str) -> Result<Option<Keep>, Fault> {
    let wish = wish.to_owned();
    let keep: Keep = match key {
        "name" => {
            let pattern = pattern(key, &wish)?;
            Box::new(move |s| pattern.is_match(&s.name))
        }
        "hostname" | "display_name" => {
            let pattern = pattern(key, &wish)?;
            Box::new(move |s| pattern.is_match(&s.hostname))
        }
        "description" => {
            let pattern = pattern(key, &wish)?;
            Box::new(move |s| pattern.is_match(s.description.as_deref().unwrap_or_default()))
        }
        "image" => Box::new(move |s| s.image.as_ref().is_some_and(|i| i.id == wish)),
        "flavor" => Box::new(move |s| s.flavor.id == wish),
        "uuid" => Box::new(move |s| s.id == wish),
        "user_id" => Box::new(move |s| s.user_id == wish),
        "host" | "node" | "hypervisor_hostname" => Box::new(move |s| s.host.as_deref() == Some(&wish)),
        "availability_zone" => Box::new(move |s| s.zone.as_deref().unwrap_or("nova") == wish),
        "key_name" => Box::new(move |s| s.key.as_ref().is_some_and(|k| k.name == wish)),
        "reservation_id" => Box::new(move |s| s.reservation_id == wish),
        "vm_state" => Box::new(move |s| s.vm_state.as_str() == wish),
        "task_state" => Box::new(move |s| s.task_state.is_some_and(|t| t.as_str() == wish)),
        "power_state" => Box::new(move |s| (s.power_state as u8).to_string() == wish),
        "locked" => {
            let locked =
                boolean(&wish).ok_or_else(|| Fault::bad_request("Invalid input for query parameters locked."))?;
            Box::new(move |s| s.locked.is_some() == locked)
        }
        "config_drive" => {
            let drive = boolean(&wish).unwrap_or(false);
            Box::new(move |s| s.config_drive == drive)
        }
        _ => return Ok(None),
    };
    Ok(Some(keep))
}

fn tags(call: &Call, servers: &mut Vec<Stored<Server>>) {
    let wanted =
        |key: &str| -> Option<Vec<String>> { call.query.get(key).map(|t| t.split(',').map(str::to_owned).collect()) };
    if let Some(tags) = wanted("tags") {
        servers.retain(|s| tags.iter().all(|t| s.tags.contains(t)));
    }
    if let Some(tags) = wanted("tags-any") {
        servers.retain(|s| tags.iter().any(|t| s.tags.contains(t)));
    }
    if let Some(tags) = wanted("not-tags") {
        servers.retain(|s| !tags.iter().all(|t| s.tags.contains(t)));
    }
    if let Some(tags) = wanted("not-tags-any") {
        servers.retain(|s| !tags.iter().any(|t| s.tags.contains(t)));
    }
}

fn has_address(addresses: &HashMap<String, Value>, id: &str, version: u64, pattern: &Regex) -> bool {
    let Some(networks) = addresses.get(id).and_then(Value::as_object) else { return false };
    networks.values().filter_map(Value::as_array).flatten().any(|a| {
        a["version"].as_u64() == Some(version) && a["addr"].as_str().is_some_and(|text| pattern.is_match(text))
    })
}
