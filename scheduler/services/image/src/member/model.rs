//! A member of an image; pure.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceptance {
    Pending,
    Accepted,
    Rejected,
}

impl Acceptance {
    pub fn as_str(self) -> &'static str {
        match self {
            Acceptance::Pending => "pending",
            Acceptance::Accepted => "accepted",
            Acceptance::Rejected => "rejected",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Acceptance::Pending, Acceptance::Accepted, Acceptance::Rejected].into_iter().find(|a| a.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `image.project`
    pub id: String,
    pub image_id: String,
    /// Project id.
    pub member_id: String,
    pub status: Acceptance,
}

impl Member {
    pub fn new(image: &str, project: &str) -> Self {
        Member {
            id: key(image, project),
            image_id: image.to_owned(),
            member_id: project.to_owned(),
            status: Acceptance::Pending,
        }
    }
}

/// The id of a membership.
pub fn key(image: &str, project: &str) -> String {
    format!("{image}.{project}")
}
