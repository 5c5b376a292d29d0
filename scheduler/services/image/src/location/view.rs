//! Locations in JSON, and the requests that name them.
use crate::{
    Image,
    image::{self, model::Image as Record, model::Location},
    signature::HashMethod,
    store::ImageStore,
};
use pilvi_kit::{Call, Fault};
use pilvi_store::Stored;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;

/// Characters of a URL at most.
pub const URL_MAX: usize = 2048;

/// What is said of the bytes of a location (`validation_data`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub checksum: Option<String>,
    pub os_hash_algo: Option<String>,
    pub os_hash_value: Option<String>,
}

/// A hash that the bytes must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub method: HashMethod,
    pub algorithm: String,
    /// In hex.
    pub value: String,
}

fn hexadecimal(name: &str, text: &str, bytes: usize) -> Result<String, Fault> {
    let decoded = hex::decode(text)
        .map_err(|_| Fault::bad_request(format!("{name} ({text}) is not a valid hexadecimal value")))?;
    if decoded.len() != bytes {
        return Err(Fault::bad_request(format!("{name} ({text}) is not the correct size (should be {bytes} bytes)")));
    }
    Ok(text.to_ascii_lowercase())
}

/// Reads `validation_data`; whether its members fit each other is asked by [`Said::check`] and [`expected`].
pub fn said(value: Option<&Value>) -> Result<Said, Fault> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(Said::default()) };
    let object = value.as_object().ok_or_else(|| Fault::bad_request("validation_data is an object"))?;
    let mut out = Said::default();
    for (name, value) in object {
        let text = value.as_str().filter(|text| text.len() <= 128);
        let text = text.ok_or_else(|| Fault::bad_request(format!("{name} is text of at most 128 characters")))?;
        match name.as_str() {
            "checksum" => out.checksum = Some(text.to_ascii_lowercase()),
            "os_hash_algo" => out.os_hash_algo = Some(text.to_owned()),
            "os_hash_value" => out.os_hash_value = Some(text.to_ascii_lowercase()),
            other => return Err(Fault::bad_request(format!("validation_data has no member '{other}'"))),
        }
    }
    Ok(out)
}

impl Said {
    /// 400 unless an image that has no hashes yet can say this of itself.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(checksum) = &self.checksum {
            hexadecimal("checksum", checksum, 16)?;
        }
        if let Some(algorithm) = self.os_hash_algo.as_deref().filter(|a| *a != "sha512") {
            return Err(Fault::bad_request(format!("os_hash_algo must be sha512, not {algorithm}")));
        }
        if let Some(value) = &self.os_hash_value {
            hexadecimal("os_hash_value", value, 64)?;
        }
        Ok(())
    }
}

/// The hash that whoever gives a location's bytes to an image asks for: algorithm and value, or neither.
pub fn expected(value: Option<&Value>) -> Result<Option<Expected>, Fault> {
    let Said { os_hash_algo, os_hash_value, .. } = said(value)?;
    let (algorithm, value) = match (os_hash_algo, os_hash_value) {
        (None, None) => return Ok(None),
        (Some(algorithm), Some(value)) => (algorithm, value),
        _ => return Err(Fault::bad_request("os_hash_algo and os_hash_value must both be given, or neither.")),
    };
    let method = HashMethod::of_algorithm(&algorithm)
        .ok_or_else(|| Fault::bad_request(format!("Invalid os_hash_algo: {algorithm}.")))?;
    let value = hexadecimal("os_hash_value", &value, method.length())?;
    Ok(Some(Expected { method, algorithm, value }))
}

/// A location as a patch names it: URL, metadata, what is said of its bytes.
pub fn named(value: &Value) -> Result<(&str, Map<String, Value>, Said), Fault> {
    let object = value.as_object().ok_or_else(|| Fault::bad_request("A location is an object."))?;
    let url = object.get("url").and_then(Value::as_str).ok_or_else(|| Fault::bad_request("A location has a url."))?;
    let metadata = match object.get("metadata") {
        Some(Value::Object(metadata)) => metadata.clone(),
        None => Map::new(),
        Some(_) => return Err(Fault::bad_request("The metadata of a location is an object.")),
    };
    Ok((url, metadata, said(object.get("validation_data"))?))
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
        let (long, short) = ("ab".repeat(64), "ab".repeat(32));
        for (algorithm, value) in [("sha512", &long), ("sha256", &short)] {
            let good = json!({"os_hash_algo": algorithm, "os_hash_value": value});
            assert_eq!(expected(Some(&good)).unwrap().unwrap().value, *value);
        }
        assert_eq!(expected(None).unwrap(), None);
        for bad in [
            json!({"os_hash_value": long}),
            json!({"os_hash_algo": "sha512"}),
            json!({"os_hash_algo": "sha512", "os_hash_value": short}),
            json!({"os_hash_algo": "sha256", "os_hash_value": long}),
            json!({"os_hash_algo": "md5", "os_hash_value": "ab".repeat(16)}),
            json!({"os_hash_algo": "sha512", "os_hash_value": "x".repeat(128)}),
            json!({"checksum": 5}),
            json!({"other": "1"}),
            json!([]),
        ] {
            assert_eq!(expected(Some(&bad)).unwrap_err().code(), 400, "{bad}");
        }
    }

    #[test]
    fn an_image_says_of_itself_what_its_hashes_can_be() {
        let of = |value: Value| said(Some(&value)).unwrap().check();
        let good = json!({"os_hash_algo": "sha512", "os_hash_value": "ab".repeat(64), "checksum": "0".repeat(32)});
        assert_eq!(of(good).map_err(|f| f.code()), Ok(()));
        for bad in [json!({"checksum": "12"}), json!({"os_hash_algo": "sha256"}), json!({"os_hash_value": "abcd"})] {
            assert_eq!(of(bad.clone()).unwrap_err().code(), 400, "{bad}");
        }
    }
}
