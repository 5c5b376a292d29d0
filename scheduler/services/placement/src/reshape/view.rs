//! The body of the reshaper.
use super::ops::Shape;
use crate::{inventory::view::read_all, provider::view::uuid};
use pilvi_kit::{Call, Fault};
use std::collections::BTreeMap;

pub fn shapes(call: &Call) -> Result<BTreeMap<String, Shape>, Fault> {
    let mut found = BTreeMap::new();
    for (provider, body) in call.body["inventories"].as_object().into_iter().flatten() {
        let provider = uuid(provider)?;
        let shape = read_all(call, &provider, body)?;
        found.insert(provider, shape);
    }
    Ok(found)
}
