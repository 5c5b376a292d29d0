//! A task and its states; pure.
//!
//! ```text
//! pending --> processing --> success
//!                       '--> failure
//! ```
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kind of an import by the images API.
pub const IMPORT: &str = "api_image_import";
/// The kind of an import by the tasks API, which makes the image as well.
pub const TASK_IMPORT: &str = "import";

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
    /// [`IMPORT`] or [`TASK_IMPORT`]
    pub kind: String,
    pub status: Status,
    /// Project id.
    pub owner: String,
    pub user_id: String,
    pub image_id: String,
    pub request_id: String,
    /// As clients see it.
    pub input: Value,
    /// What the import was asked for, to begin it again after a stop.
    #[serde(default)]
    pub request: Value,
    pub message: String,
    /// What came of it.
    #[serde(default)]
    pub result: Option<Value>,
    /// Names of the caller's roles, which plug-ins may look at.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How far a download is.
    #[serde(default)]
    pub resume: Option<pilvi_kit::fetch::Progress>,
    /// Microseconds since 1970, when it ended.
    pub ended_us: Option<i64>,
}

impl Task {
    pub fn end(&mut self, status: Status, message: &str, result: Option<Value>, now_us: i64) {
        (self.status, self.message, self.result) = (status, message.to_owned(), result);
        self.ended_us = Some(now_us);
        self.resume = None;
    }
}
