//! What an import asks for, from its body.
use super::ops::Source;
use pilvi_kit::{Fault, id};
use serde_json::Value;

/// The image that `glance-download` takes its bytes from.
pub fn source(method: &Value) -> Result<Source, Fault> {
    let text = |key: &str| method[key].as_str().map(str::to_owned);
    let image = text("glance_image_id")
        .ok_or_else(|| Fault::bad_request("'glance_image_id' needs to be set for glance-download"))?;
    if !id::is_uuid(&image) {
        return Err(Fault::bad_request(format!(
            "Remote image id does not look like a UUID: image id does not look like a UUID: {image}"
        )));
    }
    let region = text("glance_region")
        .ok_or_else(|| Fault::bad_request("'glance_region' needs to be set for glance-download"))?;
    let interface = text("glance_service_interface").unwrap_or_else(|| "public".to_owned());
    Ok(Source { image, region, interface })
}
