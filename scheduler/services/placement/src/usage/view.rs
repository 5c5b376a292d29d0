//! Usages in JSON: one sum before 1.38, by consumer type since.
use super::ops::Sum;
use crate::{
    fault,
    provider::model::{Amounts, Provider},
    version,
};
use pilvi_kit::{Call, Fault};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Every class that the provider has, zeros included.
pub fn of_provider(provider: &Provider) -> Value {
    let usages: Amounts = provider.inventories.keys().map(|class| (class.clone(), provider.used_of(class))).collect();
    json!({"resource_provider_generation": provider.generation, "usages": usages})
}

/// Project, user and type asked about.
#[derive(Debug)]
pub struct Asked {
    pub project: String,
    pub user: Option<String>,
    pub consumer_type: Option<String>,
}

pub fn asked(call: &Call) -> Result<Asked, Fault> {
    let types = call.version >= version::CONSUMER_TYPES;
    fault::only_keys(call, |key| matches!(key, "project_id" | "user_id") || (types && key == "consumer_type"))?;
    let text = |key: &str| match call.query.get(key) {
        Some(value) if value.is_empty() || value.len() > 255 => {
            Err(Fault::bad_request(format!("Invalid query string parameters: {key} must have 1 to 255 characters")))
        }
        value => Ok(value.map(str::to_owned)),
    };
    let project = text("project_id")?
        .ok_or_else(|| Fault::bad_request("Invalid query string parameters: 'project_id' is a required property"))?;
    let consumer_type = text("consumer_type")?;
    if let Some(name) = &consumer_type {
        let custom = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !custom && name != "all" && name != "unknown" {
            return Err(Fault::bad_request(format!(
                "Invalid query string parameters: '{name}' is not a consumer type"
            )));
        }
    }
    Ok(Asked { project, user: text("user_id")?, consumer_type })
}

pub fn of_project(call: &Call, asked: &Asked, sums: BTreeMap<String, Sum>) -> Value {
    if call.version < version::CONSUMER_TYPES {
        return json!({"usages": together(sums.into_values()).used});
    }
    let item = |sum: &Sum| {
        let mut out: Map<String, Value> = sum.used.iter().map(|(class, n)| (class.clone(), json!(n))).collect();
        out.insert("consumer_count".into(), json!(sum.consumers));
        Value::Object(out)
    };
    let usages: Map<String, Value> = match asked.consumer_type.as_deref() {
        Some("all") => {
            let all = together(sums.into_values());
            if all.consumers == 0 { Map::new() } else { [("all".to_owned(), item(&all))].into_iter().collect() }
        }
        Some(name) => sums.iter().filter(|(key, _)| *key == name).map(|(key, sum)| (key.clone(), item(sum))).collect(),
        None => sums.iter().map(|(key, sum)| (key.clone(), item(sum))).collect(),
    };
    json!({"usages": usages})
}

fn together(sums: impl Iterator<Item = Sum>) -> Sum {
    sums.fold(Sum::default(), |mut all, sum| {
        all.consumers += sum.consumers;
        for (class, n) in sum.used {
            *all.used.entry(class).or_default() += n;
        }
        all
    })
}
