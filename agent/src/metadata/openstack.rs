//! The OpenStack tree: `/openstack/<version>/...`.
use super::{Page, View};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use serde_json::{Map, Value, json};

/// Versions that are listed, oldest first; `latest` stands for the last one.
pub const VERSIONS: [&str; 9] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
];

const VENDOR_DATA: &str = "2013-10-17";
const PASSWORD: &str = "2013-04-04";
const NETWORK_DATA: &str = "2015-10-15";
const DEVICES: &str = "2016-06-30";
const VENDOR_DATA_2: &str = "2016-10-06";
const DEDICATED_CPUS: &str = "2020-10-14";

pub(super) fn page(parts: &[&str], view: &View) -> Option<Page> {
    match parts {
        [] => {
            let mut lines = VERSIONS.to_vec();
            lines.push("latest");
            Some(Page::lines(lines))
        }
        [version] => Some(Page::lines(files(resolve(version)?, view))),
        [version, name] => file(resolve(version)?, name, view),
        _ => None,
    }
}

/// The version's own name. Versions are dates, so that they compare as text.
fn resolve(version: &str) -> Option<&'static str> {
    if version == "latest" {
        return VERSIONS.last().copied();
    }
    VERSIONS.into_iter().find(|known| *known == version)
}

/// Names of the files of a version.
#[must_use]
pub fn files(version: &str, view: &View) -> Vec<&'static str> {
    let mut names = vec!["meta_data.json"];
    if !view.metadata.user_data.is_empty() {
        names.push("user_data");
    }
    if version >= PASSWORD {
        names.push("password");
    }
    if version >= VENDOR_DATA {
        names.push("vendor_data.json");
    }
    if version >= NETWORK_DATA {
        names.push("network_data.json");
    }
    if version >= VENDOR_DATA_2 {
        names.push("vendor_data2.json");
    }
    names
}

/// One file of a version.
#[must_use]
pub fn file(version: &str, name: &str, view: &View) -> Option<Page> {
    if !files(version, view).contains(&name) {
        return None;
    }
    Some(match name {
        "meta_data.json" => Page::json(&meta_data(version, view)),
        "user_data" => Page { content_type: "application/octet-stream", body: view.metadata.user_data.clone() },
        "password" => Page::text(view.password.clone()),
        "network_data.json" if !view.metadata.network_data.is_empty() => {
            Page { content_type: "application/json", body: view.metadata.network_data.clone().into_bytes() }
        }
        "network_data.json" => Page::json(&json!({"links": [], "networks": [], "services": []})),
        _ => Page::json(&json!({})),
    })
}

fn meta_data(version: &str, view: &View) -> Value {
    let about = &view.metadata;
    let mut doc = Map::new();
    doc.insert("uuid".into(), json!(about.uuid));
    doc.insert("availability_zone".into(), json!(about.availability_zone));
    doc.insert("hostname".into(), json!(about.hostname));
    doc.insert("launch_index".into(), json!(about.launch_index));
    doc.insert("name".into(), json!(about.name));
    if !about.meta.is_empty() {
        doc.insert("meta".into(), json!(about.meta));
    }
    if !about.keys.is_empty() {
        let short: Map<String, Value> =
            about.keys.iter().map(|key| (key.name.clone(), json!(key.public_key))).collect();
        doc.insert("public_keys".into(), short.into());
        let long = about.keys.iter().map(|key| {
            let kind = if key.r#type.is_empty() { "ssh" } else { &key.r#type };
            json!({"name": key.name, "type": kind, "data": key.public_key})
        });
        doc.insert("keys".into(), long.collect());
    }
    if version >= PASSWORD {
        let mut seed = [0; 512];
        rand::rng().fill_bytes(&mut seed);
        doc.insert("random_seed".into(), json!(STANDARD.encode(seed)));
    }
    if version >= NETWORK_DATA {
        doc.insert("project_id".into(), json!(about.project_id));
    }
    if version >= DEVICES {
        doc.insert("devices".into(), json!([]));
    }
    if version >= DEDICATED_CPUS {
        doc.insert("dedicated_cpus".into(), json!([]));
    }
    if !about.admin_password.is_empty() {
        doc.insert("admin_pass".into(), json!(about.admin_password));
    }
    doc.into()
}
