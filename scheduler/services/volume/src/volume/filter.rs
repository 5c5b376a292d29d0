//! Which volumes a list shows.
use crate::{fault, list, literal, tables::Volume, version as v, volume::ops::sees};
use pilvi_kit::{Call, Fault, call::boolean, clock};
use pilvi_store::{Query, Stored};
use std::collections::BTreeMap;

/// What users may filter by.
pub const FILTERS: &[&str] = &[
    "name~",
    "status",
    "metadata",
    "bootable",
    "migration_status",
    "availability_zone",
    "group_id",
    "size",
    "created_at",
    "updated_at",
    "consumes_quota",
];

/// What a list shows: a query, and what the query cannot say.
#[derive(Debug, Default)]
pub struct Filter {
    pub query: Query,
    rest: Vec<Rest>,
}

#[derive(Debug)]
enum Rest {
    Metadata(BTreeMap<String, String>),
    ImageMetadata(BTreeMap<String, String>),
    Migration(String),
    Description(String),
    Multiattach(bool),
    Attached(bool),
    /// Nothing has what is asked for.
    Nothing,
}

/// Names and values that filter, checked as the microversion wants it.
pub fn named<'a>(call: &'a Call, known: &[&str], kept_before: &[&str]) -> Result<Vec<(&'a str, &'a str)>, Fault> {
    let mut named: Vec<(&str, &str)> = call.query.0.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let counts = |key: &str| key == "with_count" && call.version >= v::COUNT;
    named.retain(|(key, _)| !list::PAGING.contains(key) && !counts(key));
    let is_admin = call.caller().has_role("admin");
    if is_admin {
        return Ok(named);
    }
    named.retain(|(key, _)| *key != "all_tenants");
    if call.version < v::STRICT_FILTERS {
        named.retain(|(key, _)| kept_before.contains(key));
        return Ok(named);
    }
    let like = call.version >= v::LIKE_FILTER;
    let fits = |key: &str| {
        let plain = key.strip_suffix('~').unwrap_or(key);
        let inside = known.contains(&format!("{plain}~").as_str());
        if key.ends_with('~') { like && inside } else { inside || known.contains(&key) }
    };
    let bad: Vec<&str> = named.iter().map(|(key, _)| *key).filter(|key| !fits(key)).collect();
    if bad.is_empty() {
        return Ok(named);
    }
    Err(Fault::bad_request(format!("Invalid filters {} are found in query options.", bad.join(","))))
}

/// Everything of the caller's project, or (for administrators who ask for it) of all.
pub fn of_projects(call: &Call) -> Query {
    let all = call.query.get("all_tenants").is_some_and(|text| boolean(text).unwrap_or(true));
    if all && call.caller().has_role("admin") { Query::all() } else { Query::all().project(call.ctx.project_id()) }
}

/// `created_at=gt:2026-01-01T00:00:00,lt:...`, or one time alone.
pub fn times(query: Query, column: &str, name: &str, wish: &str) -> Result<Query, Fault> {
    let mut query = query;
    for part in wish.split(',').take(8) {
        let (operator, time) =
            part.split_once(':').ok_or_else(|| Fault::bad_request(format!("Invalid {name} value")))?;
        let us = clock::parse(time).ok_or_else(|| Fault::bad_request(format!("Invalid {time} value")))?;
        query = match operator {
            "gt" => query.gt(column, us),
            "gte" => query.ge(column, us),
            "lt" => query.lt(column, us),
            "lte" => query.le(column, us),
            "eq" => query.eq(column, us),
            "neq" => query.ne(column, us),
            _ => return Err(Fault::bad_request(format!("Invalid {operator} operator"))),
        };
    }
    Ok(query)
}

/// Filters of users before unknown ones were refused.
const BEFORE: &[&str] = &[
    "name",
    "display_name",
    "status",
    "metadata",
    "bootable",
    "migration_status",
    "availability_zone",
    "group_id",
    "glance_metadata",
    "size",
    "created_at",
    "updated_at",
];

impl Filter {
    pub fn of(call: &Call) -> Result<Self, Fault> {
        let mut filter = Filter { query: of_projects(call), rest: Vec::new() };
        for (key, wish) in named(call, FILTERS, BEFORE)? {
            filter.add(call, key, wish)?;
        }
        Ok(filter)
    }

    fn add(&mut self, call: &Call, key: &str, wish: &str) -> Result<(), Fault> {
        let query = std::mem::take(&mut self.query);
        let since = |version| call.version >= version;
        self.query = match key {
            "all_tenants" => query,
            "name" | "display_name" => query.name(wish),
            "name~" | "display_name~" => query.contains("name", wish),
            "status" => query.state(wish),
            "id" => query.eq("id", wish),
            "project_id" | "user_id" | "source_volid" | "snapshot_id" => query.eq(column(key), wish),
            "availability_zone" => query.eq("zone", wish),
            "volume_type_id" => query.eq("volume_type", wish),
            "host" => query.eq("host", crate::host::backend::host_of(wish).unwrap_or(wish)),
            "group_id" if since(v::GROUP_FILTER) => query.eq("group_id", wish),
            "group_id" => query,
            "size" => query.eq("size", wish.parse::<i64>().unwrap_or(-1)),
            "bootable" => query.eq("bootable", bootable(wish, since(v::STRICT_BOOTABLE))?),
            "created_at" if since(v::TIME_FILTER) => times(query, "created", key, wish)?,
            "updated_at" if since(v::TIME_FILTER) => times(query, "updated", key, wish)?,
            "created_at" | "updated_at" => query,
            _ => {
                self.rest.extend(rest(key, wish, since(v::IMAGE_METADATA_FILTER)));
                query
            }
        };
        Ok(())
    }

    pub fn keeps(&self, call: &Call, volume: &Stored<Volume>) -> bool {
        sees(&call.ctx, &volume.project_id) && self.rest.iter().all(|rest| rest.holds(volume))
    }
}

fn column(key: &str) -> &str {
    if key == "project_id" { "project" } else { key }
}

fn bootable(wish: &str, strict: bool) -> Result<bool, Fault> {
    match wish.to_ascii_lowercase().as_str() {
        "false" | "0" => Ok(false),
        "true" | "1" => Ok(true),
        _ if strict => Err(fault::invalid_input(format!("bootable={wish}"))),
        _ => Ok(true),
    }
}

fn rest(key: &str, wish: &str, image_metadata: bool) -> Option<Rest> {
    let flag = |yes: fn(bool) -> Rest| boolean(wish).map_or(Rest::Nothing, yes);
    Some(match key {
        "metadata" => literal::dictionary(wish).map_or(Rest::Nothing, Rest::Metadata),
        "glance_metadata" if image_metadata => literal::dictionary(wish).map_or(Rest::Nothing, Rest::ImageMetadata),
        "glance_metadata" => return None,
        "migration_status" => Rest::Migration(wish.to_owned()),
        "description" | "display_description" => Rest::Description(wish.to_owned()),
        "multiattach" => flag(Rest::Multiattach),
        "consumes_quota" | "use_quota" if boolean(wish) == Some(true) => return None,
        "attach_status" => Rest::Attached(wish == "attached"),
        _ => Rest::Nothing,
    })
}

fn has(all: &BTreeMap<String, String>, wish: &BTreeMap<String, String>) -> bool {
    wish.iter().all(|(k, v)| all.get(k) == Some(v))
}

impl Rest {
    fn holds(&self, volume: &Volume) -> bool {
        match self {
            Rest::Metadata(wish) => has(&volume.metadata, wish),
            Rest::ImageMetadata(wish) => has(&volume.image_metadata, wish),
            Rest::Migration(wish) => volume.migration_status.as_deref() == Some(wish),
            Rest::Description(wish) => volume.description.as_deref() == Some(wish),
            Rest::Multiattach(wish) => volume.multiattach == *wish,
            Rest::Attached(wish) => (volume.status == super::model::Status::InUse) == *wish,
            Rest::Nothing => false,
        }
    }
}
