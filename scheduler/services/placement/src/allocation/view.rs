//! Allocations in JSON; their shape changed with 1.8, 1.12, 1.28, 1.34 and 1.38.
use super::model::{Allocation, Claim, Consumer, INCOMPLETE, Known, UNKNOWN_TYPE};
use crate::{
    provider::{model::Amounts, view::uuid},
    version,
};
use pilvi_kit::{Call, Fault};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a consumer holds; `generations` of the providers by uuid.
pub fn of_consumer(
    call: &Call,
    consumer: Option<&Consumer>,
    held: &BTreeMap<String, Amounts>,
    generations: &BTreeMap<String, i64>,
) -> Value {
    let allocations: Map<String, Value> = held
        .iter()
        .map(|(provider, resources)| {
            (provider.clone(), json!({"generation": generations.get(provider), "resources": resources}))
        })
        .collect();
    let mut out = json!({"allocations": allocations});
    let Some(consumer) = consumer.filter(|_| !held.is_empty()) else { return out };
    if call.version >= version::ALLOCATIONS_BY_PROVIDER {
        out["project_id"] = json!(consumer.project_id);
        out["user_id"] = json!(consumer.user_id);
    }
    if call.version >= version::CONSUMER_GENERATIONS {
        out["consumer_generation"] = json!(consumer.generation);
    }
    if call.version >= version::CONSUMER_TYPES {
        out["consumer_type"] = json!(consumer.consumer_type.as_deref().unwrap_or(UNKNOWN_TYPE));
    }
    out
}

/// What is held of a provider, by consumer.
pub fn of_provider(
    call: &Call,
    generation: i64,
    rows: &[Stored<Allocation>],
    consumers: &BTreeMap<String, i64>,
) -> Value {
    let mut allocations = Map::new();
    for row in rows {
        let mut item = json!({"resources": row.resources});
        if call.version >= version::CONSUMER_GENERATIONS {
            item["consumer_generation"] = json!(consumers.get(&row.consumer));
        }
        allocations.insert(row.consumer.clone(), item);
    }
    json!({"allocations": allocations, "resource_provider_generation": generation})
}

/// Whether answers tell consumers' generations.
pub fn tells_generations(call: &Call) -> bool {
    call.version >= version::CONSUMER_GENERATIONS
}

fn amounts(resources: &Value) -> Amounts {
    resources
        .as_object()
        .into_iter()
        .flatten()
        .map(|(class, n)| (class.clone(), n.as_i64().unwrap_or(i64::MAX)))
        .collect()
}

/// One consumer's claim, from a body that passed the schema of its version.
pub fn claim(call: &Call, consumer: &str, body: &Value) -> Result<(Claim, Known), Fault> {
    let consumer = uuid(consumer).map_err(|_| Fault::bad_request(format!("Malformed consumer_uuid: {consumer}")))?;
    let mut allocations = BTreeMap::new();
    match &body["allocations"] {
        Value::Array(items) => {
            for item in items {
                let provider = uuid(item["resource_provider"]["uuid"].as_str().unwrap_or_default())?;
                allocations.insert(provider, amounts(&item["resources"]));
            }
        }
        Value::Object(items) => {
            for (provider, item) in items {
                allocations.insert(uuid(provider)?, amounts(&item["resources"]));
            }
        }
        _ => {}
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let known = match body.get("consumer_generation") {
        _ if call.version < version::CONSUMER_GENERATIONS => Known::Any,
        Some(Value::Number(n)) => Known::At(n.as_i64().unwrap_or(i64::MAX)),
        _ => Known::New,
    };
    let claim = Claim {
        consumer,
        project_id: text("project_id").unwrap_or(INCOMPLETE).to_owned(),
        user_id: text("user_id").unwrap_or(INCOMPLETE).to_owned(),
        consumer_type: text("consumer_type").unwrap_or_default().to_owned(),
        allocations,
    };
    Ok((claim, known))
}

/// The claims of several consumers, by their uuids.
pub fn claims(call: &Call, body: &Value) -> Result<Vec<(Claim, Known)>, Fault> {
    body.as_object().into_iter().flatten().map(|(consumer, item)| claim(call, consumer, item)).collect()
}
