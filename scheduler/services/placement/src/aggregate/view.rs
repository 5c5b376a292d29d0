//! Aggregates in JSON: a bare list before 1.19, with the provider's generation since.
use crate::{provider::model::Provider, version};
use pilvi_kit::{Call, Fault, id};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub fn answer(call: &Call, provider: &Provider) -> Value {
    let mut out = json!({"aggregates": provider.aggregates});
    if call.version >= version::AGGREGATE_GENERATION {
        out["resource_provider_generation"] = json!(provider.generation);
    }
    out
}

/// The aggregates and the generation the caller knew.
pub fn wanted(call: &Call) -> Result<(BTreeSet<String>, Option<i64>), Fault> {
    let (list, generation) = if call.version >= version::AGGREGATE_GENERATION {
        (call.member("aggregates")?, call.member("resource_provider_generation")?.as_i64())
    } else {
        (&call.body, None)
    };
    let mut found = BTreeSet::new();
    for item in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !id::is_uuid(item) {
            return Err(Fault::bad_request(format!("JSON does not validate: '{item}' is not a 'uuid'")));
        }
        found.insert(item.to_owned());
    }
    Ok((found, generation))
}
