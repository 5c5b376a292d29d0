//! What can go wrong in the image service, spelled `{"message", "code": "404 Not Found", "title"}`.
use pilvi_kit::Fault;
use serde_json::{Value, json};

pub fn shape(fault: &Fault, _request_id: &str) -> Value {
    json!({"message": fault.message, "code": format!("{} {}", fault.code(), fault.title()), "title": fault.title()})
}

pub fn no_image(id: &str) -> Fault {
    Fault::not_found(format!("No image found with ID {id}"))
}

pub fn read_only(name: &str) -> Fault {
    Fault::forbidden(format!("Attribute '{name}' is read-only."))
}

pub fn reserved(name: &str) -> Fault {
    Fault::forbidden(format!("Attribute '{name}' is reserved."))
}

/// The bytes are not what they are said to be, or are what no host shall open.
pub fn bad_data(why: impl std::fmt::Display) -> Fault {
    Fault::new(415, format!("Image data is not acceptable: {why}"))
}
