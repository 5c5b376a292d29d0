//! Inventories in JSON.
use crate::{
    provider::model::{AMOUNT_MAX, Inventory, Provider},
    version,
};
use pilvi_kit::{Call, Fault};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn one(inventory: &Inventory) -> Value {
    json!({"total": inventory.total, "reserved": inventory.reserved, "min_unit": inventory.min_unit, "max_unit": inventory.max_unit,
        "step_size": inventory.step_size, "allocation_ratio": inventory.allocation_ratio})
}

pub fn one_with_generation(inventory: &Inventory, provider: &Provider) -> Value {
    let mut out = one(inventory);
    out["resource_provider_generation"] = json!(provider.generation);
    out
}

pub fn all(provider: &Provider) -> Value {
    let inventories: serde_json::Map<String, Value> =
        provider.inventories.iter().map(|(class, i)| (class.clone(), one(i))).collect();
    json!({"resource_provider_generation": provider.generation, "inventories": inventories})
}

/// One inventory from a body that passed the schema, with the defaults filled in.
/// `None` as call: the reshaper, which takes what 1.26 takes.
pub fn read(
    verb: &str,
    version: pilvi_kit::Version,
    uuid: &str,
    class: &str,
    body: &Value,
) -> Result<Inventory, Fault> {
    let whole = |name: &str, default: i64| body.get(name).and_then(Value::as_i64).unwrap_or(default);
    let inventory = Inventory {
        total: whole("total", 0),
        reserved: whole("reserved", 0),
        min_unit: whole("min_unit", 1),
        max_unit: whole("max_unit", AMOUNT_MAX),
        step_size: whole("step_size", 1),
        allocation_ratio: body.get("allocation_ratio").and_then(Value::as_f64).unwrap_or(1.0),
    };
    let (refused, than) = if version >= version::RESERVED_ALL {
        (inventory.capacity() < 0, "greater than total")
    } else {
        (inventory.capacity() <= 0, "greater than or equal to total")
    };
    if refused {
        return Err(Fault::bad_request(format!(
            "Unable to {verb} inventory for resource provider {uuid}: Invalid inventory for '{class}' on resource provider '{uuid}'. The reserved value is {than}."
        )));
    }
    Ok(inventory)
}

/// The inventories and the generation of a `PUT`.
pub fn read_all(call: &Call, uuid: &str, body: &Value) -> Result<(BTreeMap<String, Inventory>, i64), Fault> {
    let mut found = BTreeMap::new();
    for (class, item) in body["inventories"].as_object().into_iter().flatten() {
        found.insert(class.clone(), read("update", call.version, uuid, class, item)?);
    }
    Ok((found, generation(body).unwrap_or(-1)))
}

pub fn generation(body: &Value) -> Option<i64> {
    body.get("resource_provider_generation").and_then(Value::as_i64)
}
