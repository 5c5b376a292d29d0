//! A consumer and what it holds; pure.
use crate::provider::model::Amounts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Shown for a consumer that was made before types were known.
pub const UNKNOWN_TYPE: &str = "unknown";
/// Project and user of a consumer that was made before 1.8.
pub const INCOMPLETE: &str = "00000000-0000-0000-0000-000000000000";

/// Whoever holds allocations; it exists as long as it holds any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    pub uuid: String,
    pub project_id: String,
    pub user_id: String,
    /// `INSTANCE`, `MIGRATION`, ...
    pub consumer_type: Option<String>,
    /// Counts changes of its allocations.
    pub generation: i64,
}

/// What one consumer holds of one provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// `consumer.provider`
    pub id: String,
    pub consumer: String,
    pub provider: String,
    pub project_id: String,
    pub resources: Amounts,
}

impl Allocation {
    pub fn new(consumer: &Consumer, provider: &str, resources: Amounts) -> Self {
        Allocation {
            id: format!("{}.{provider}", consumer.uuid),
            consumer: consumer.uuid.clone(),
            provider: provider.to_owned(),
            project_id: consumer.project_id.clone(),
            resources,
        }
    }
}

/// What a consumer shall hold: it replaces all that it held before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claim {
    /// uuid of the consumer
    pub consumer: String,
    pub project_id: String,
    pub user_id: String,
    /// `INSTANCE` for servers; "" leaves the type as it is.
    pub consumer_type: String,
    /// provider uuid -> class -> amount; empty: everything is given back.
    pub allocations: BTreeMap<String, Amounts>,
}

/// Which generation of the consumer the caller knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The caller did not say.
    Any,
    /// The consumer must not exist.
    New,
    At(i64),
}
