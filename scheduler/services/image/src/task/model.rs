//! A task and its states; pure.
//!
//! ```text
//! pending --> processing --> success
//!                       '--> failure
//! ```
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Processing,
    Success,
    Failure,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processing => "processing",
            Status::Success => "success",
            Status::Failure => "failure",
        }
    }
    pub fn ended(self) -> bool {
        matches!(self, Status::Success | Status::Failure)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub id: String,
    /// `api_image_import`
    pub kind: String,
    pub status: Status,
    /// Project id.
    pub owner: String,
    pub user_id: String,
    pub image_id: String,
    pub request_id: String,
    pub input: Value,
    pub message: String,
    /// Microseconds since 1970, when it ended.
    pub ended_us: Option<i64>,
}
