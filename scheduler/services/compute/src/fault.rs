//! How compute spells a fault: `{"itemNotFound": {"code": 404, "message": "..."}}`.
use pilvi_kit::{Fault, fault::compute_shape};
use serde_json::{Value, json};

/// The envelope. A microversion out of range has one of its own, as clients expect it.
pub fn shape(fault: &Fault, request_id: &str) -> Value {
    if fault.code() == 406 {
        return json!({"errors": [{
            "status": 406, "request_id": request_id, "code": "", "title": "Requested microversion is unsupported",
            "detail": fault.message, "max_version": fault.extra.get("max_version"), "min_version": fault.extra.get("min_version"),
            "links": [{"rel": "help", "href": "http://developer.openstack.org/api-guide/compute/microversions.html"}],
        }], "computeFault": {"code": 406, "message": fault.message}});
    }
    compute_shape(fault)
}

pub fn server_not_found(id: &str) -> Fault {
    Fault::not_found(format!("Instance {id} could not be found."))
}

pub fn over_quota(resource: &str, asked: u64, used: u64, limit: i64) -> Fault {
    Fault::forbidden(format!(
        "Quota exceeded for {resource}: Requested {asked}, but already used {used} of {limit} {resource}"
    ))
}
