//! Members in JSON.
use super::model::Member;
use pilvi_kit::clock;
use pilvi_store::Stored;
use serde_json::{Value, json};

pub fn one(stored: &Stored<Member>) -> Value {
    json!({
        "member_id": stored.member_id, "image_id": stored.image_id, "status": stored.status.as_str(),
        "created_at": clock::seconds_z(stored.created_us), "updated_at": clock::seconds_z(stored.updated_us),
        "schema": "/v2/schemas/member",
    })
}
