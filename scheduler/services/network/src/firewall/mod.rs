//! Firewalls (FWaaS v2): ordered rules beside the security groups, for ports of servers and for legs of routers.
//!
//! ```text
//!  rule --> policy: a list of rules, the first that fits decides --> group: a policy each way --> ports
//! ```
//! A group without ports or without policies does nothing (`INACTIVE`); one that is down lets nothing pass (`DOWN`). What no rule
//! allows is refused; flows that were allowed are answered. Each project has a group `default`, made when it first looks
//! ([`preset`]). A port is in one group; hosts hear of the groups of their ports and of the legs that those reach
//! ([`crate::host`]).
pub mod group;
pub mod model;
pub mod policy;
pub mod preset;
pub mod rule;

use crate::{list::Raw, network::ops::sees_all};
use pilvi_kit::{Ctx, Fault};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn text<'a>(attrs: &'a Raw, name: &str) -> &'a str {
    attrs.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn texts(attrs: &Raw, name: &str) -> Vec<String> {
    let items = attrs.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A new record of these attributes.
fn made<R: DeserializeOwned>(attrs: &Raw) -> Result<R, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    serde_json::from_value(Value::Object(document)).map_err(Fault::internal)
}

/// Does the caller know of what this project has?
fn knows(ctx: &Ctx, project: &str, shared: bool) -> bool {
    shared || sees_all(ctx) || project == ctx.project_id()
}
