//! Locations in JSON, and the requests that name them.
use crate::{
    Image,
    image::{self, model::Image as Record, model::Location},
    store::ImageStore,
};
use pilvi_kit::{Call, Fault};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;

/// Characters of a URL at most.
pub const URL_MAX: usize = 2048;

/// What is known of the bytes before they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub checksum: Option<String>,
    pub os_hash_value: Option<String>,
}

fn hexadecimal(name: &str, text: &str, bytes: usize) -> Result<String, Fault> {
    let decoded = hex::decode(text)
        .map_err(|_| Fault::bad_request(format!("{name} ({text}) is not a valid hexadecimal value")))?;
    if decoded.len() != bytes {
        return Err(Fault::bad_request(format!("{name} ({text}) is not the correct size (should be {bytes} bytes)")));
    }
    Ok(text.to_ascii_lowercase())
}

/// `validation_data`: hashes that the bytes must have.
pub fn expected(value: Option<&Value>) -> Result<Expected, Fault> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(Expected::default()) };
    let object = value.as_object().ok_or_else(|| Fault::bad_request("validation_data is an object"))?;
    let mut out = Expected::default();
    for (name, value) in object {
        let text = value.as_str().ok_or_else(|| Fault::bad_request(format!("{name} is text")))?;
        match name.as_str() {
            "checksum" => out.checksum = Some(hexadecimal(name, text, 16)?),
            "os_hash_algo" if text == "sha512" => {}
            "os_hash_algo" => {
                return Err(Fault::bad_request(format!("os_hash_algo must be sha512, not {text}")));
            }
            "os_hash_value" => out.os_hash_value = Some(hexadecimal(name, text, 64)?),
            other => return Err(Fault::bad_request(format!("validation_data has no member '{other}'"))),
        }
    }
    Ok(out)
}

/// A location as a patch names it: URL, metadata, what it should hold.
pub fn named(value: &Value) -> Result<(&str, Map<String, Value>, Expected), Fault> {
    let object = value.as_object().ok_or_else(|| Fault::bad_request("A location is an object."))?;
    let url = object.get("url").and_then(Value::as_str).ok_or_else(|| Fault::bad_request("A location has a url."))?;
    let metadata = match object.get("metadata") {
        Some(Value::Object(metadata)) => metadata.clone(),
        None => Map::new(),
        Some(_) => return Err(Fault::bad_request("The metadata of a location is an object.")),
    };
    Ok((url, metadata, expected(object.get("validation_data"))?))
}

/// The same place, for those who may know it.
pub fn one(store: Option<&ImageStore>, location: &Location) -> Value {
    let mut metadata: Map<String, Value> = location.metadata.clone();
    metadata.insert("store".to_owned(), json!(location.store));
    json!({"url": store.map(|s| s.driver.url(&location.key)), "metadata": metadata})
}

pub fn all(svc: &Image, image: &Record) -> Vec<Value> {
    image.locations.iter().map(|l| one(svc.stores.find(&l.store).map(AsRef::as_ref), l)).collect()
}

/// Adds `locations` and `direct_url` to an image in JSON, as far as they are shown here and to the caller.
pub async fn add(svc: &Image, call: &Call, stored: &Stored<Record>, shown: &mut Value) -> Result<(), Fault> {
    if !svc.config.show_locations && !svc.config.show_direct_url {
        return Ok(());
    }
    let target = image::ops::target(&svc.store, &call.ctx, stored).await?;
    let visible = call.may("get_image_location", &target);
    if svc.config.show_locations {
        shown["locations"] = json!(if visible { all(svc, stored) } else { Vec::new() });
    }
    if svc.config.show_direct_url && visible {
        let weight = |l: &&Location| Reverse(svc.stores.find(&l.store).map(|s| s.weight));
        let best = stored.locations.iter().min_by_key(weight);
        if let Some(store) = best.and_then(|l| svc.stores.find(&l.store).map(|s| (s, l))) {
            shown["direct_url"] = json!(store.0.driver.url(&store.1.key));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_checked_before_anything_is_read() {
        let sha = "ab".repeat(64);
        let good = json!({"os_hash_algo": "sha512", "os_hash_value": sha, "checksum": "0".repeat(32)});
        assert_eq!(expected(Some(&good)).unwrap().os_hash_value.as_deref(), Some(sha.as_str()));
        assert_eq!(expected(None).unwrap(), Expected::default());
        for bad in [
            json!({"os_hash_value": "xy"}),
            json!({"os_hash_value": "abcd"}),
            json!({"os_hash_algo": "md5"}),
            json!({"checksum": "12"}),
            json!({"checksum": 5}),
            json!({"other": "1"}),
            json!([]),
        ] {
            assert_eq!(expected(Some(&bad)).unwrap_err().code(), 400, "{bad}");
        }
    }
}
