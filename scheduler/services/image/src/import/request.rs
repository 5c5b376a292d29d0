//! What an import asks for, from its body; pure.
use pilvi_kit::{Fault, id};
use serde_json::Value;

/// Ways that bytes come in by.
pub const METHODS: &[&str] = &["glance-direct", "web-download", "copy-image", "glance-download"];

/// An image of a cloud, as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub image: String,
    pub region: String,
    /// Of the catalogue: `public`, `internal` or `admin`.
    pub interface: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// What was staged.
    GlanceDirect,
    WebDownload {
        uri: String,
    },
    /// From the image service of a region.
    GlanceDownload(Source),
    /// The image's own bytes, to other stores.
    CopyImage,
}

impl Method {
    pub fn name(&self) -> &'static str {
        match self {
            Method::GlanceDirect => "glance-direct",
            Method::WebDownload { .. } => "web-download",
            Method::GlanceDownload(_) => "glance-download",
            Method::CopyImage => "copy-image",
        }
    }

    /// Does it take bytes from elsewhere, for an image that has none?
    pub fn downloads(&self) -> bool {
        matches!(self, Method::WebDownload { .. } | Method::GlanceDownload(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Ids of stores, as the client names them.
    pub stores: Vec<String>,
    pub all_stores: bool,
    /// One store that fails ends the import.
    pub all_must_succeed: bool,
}

/// Reads a body; 400 for a method that the operator has not enabled.
pub fn parse(body: &Value, enabled: &[String]) -> Result<Request, Fault> {
    let method = body.get("method").ok_or_else(|| Fault::bad_request("Import request requires a 'method' field."))?;
    let name = method.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Fault::bad_request("Import request requires a 'name' field."))?;
    if !enabled.iter().any(|known| known == name) {
        return Err(Fault::bad_request(format!("Unknown import method name '{name}'.")));
    }
    let flag = |key: &str, default: bool| match body.get(key) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Fault::bad_request(format!("'{key}' must be boolean value only"))),
    };
    let stores: Vec<String> =
        body["stores"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let all_stores = flag("all_stores", false)?;
    if all_stores && !stores.is_empty() {
        return Err(Fault::bad_request("'stores' and 'all_stores' cannot be used together"));
    }
    let method = match name {
        "glance-direct" => Method::GlanceDirect,
        "copy-image" => Method::CopyImage,
        "glance-download" => Method::GlanceDownload(source(method)?),
        _ => Method::WebDownload { uri: method["uri"].as_str().unwrap_or_default().to_owned() },
    };
    Ok(Request { method, stores, all_stores, all_must_succeed: flag("all_stores_must_succeed", true)? })
}

/// The image that `glance-download` takes its bytes from.
fn source(method: &Value) -> Result<Source, Fault> {
    let text = |key: &str| {
        let missing = || Fault::bad_request(format!("'{key}' needs to be set for glance-download import method"));
        method[key].as_str().map(str::to_owned).ok_or_else(missing)
    };
    let (region, image) = (text("glance_region")?, text("glance_image_id")?);
    if !id::is_uuid(&image) {
        return Err(Fault::bad_request(format!("Remote image id does not look like a UUID: {image}")));
    }
    let interface = method["glance_service_interface"].as_str().unwrap_or("public").to_owned();
    Ok(Source { image, region, interface })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Request, Fault> {
        parse(&body, &METHODS.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn bodies_are_read_and_refused() {
        let direct = read(json!({"method": {"name": "glance-direct"}, "stores": ["a", "b"]})).unwrap();
        assert_eq!((direct.method, direct.stores.len(), direct.all_must_succeed), (Method::GlanceDirect, 2, true));
        let web = read(json!({"method": {"name": "web-download", "uri": "http://x/"}, "all_stores": true, "all_stores_must_succeed": false})).unwrap();
        assert!(web.all_stores && !web.all_must_succeed && web.method.downloads());
        let uuid = "36d4b546-64a2-4bb9-bdd0-ba676aa48f2c";
        let remote =
            read(json!({"method": {"name": "glance-download", "glance_region": "R", "glance_image_id": uuid}}))
                .unwrap();
        assert_eq!(
            remote.method,
            Method::GlanceDownload(Source { image: uuid.into(), region: "R".into(), interface: "public".into() })
        );
        for bad in [
            json!({}),
            json!({"method": {}}),
            json!({"method": {"name": "magic"}}),
            json!({"method": {"name": "glance-direct"}, "all_stores": "yes"}),
            json!({"method": {"name": "glance-direct"}, "all_stores_must_succeed": 1}),
            json!({"method": {"name": "glance-direct"}, "all_stores": true, "stores": ["a"]}),
            json!({"method": {"name": "glance-download", "glance_region": "R", "glance_image_id": "foo"}}),
            json!({"method": {"name": "glance-download", "glance_image_id": uuid}}),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err().code(), 400, "{bad}");
        }
        assert_eq!(parse(&json!({"method": {"name": "copy-image"}}), &[]).unwrap_err().code(), 400);
    }
}
