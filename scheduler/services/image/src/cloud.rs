//! What this service asks of the rest of the cloud; who puts the services together gives it.
use async_trait::async_trait;
use pilvi_kit::Fault;
use std::collections::BTreeMap;

#[async_trait]
pub trait Cloud: std::fmt::Debug + Send + Sync {
    /// What identity's limits let a project have of this service's resources, by their names. What nobody has
    /// registered is not limited.
    async fn limits(&self, project_id: &str) -> Result<BTreeMap<String, i64>, Fault>;
    /// Where the image service of a region is, by the catalogue's interface.
    async fn image_endpoint(&self, region: &str, interface: &str) -> Result<Option<String>, Fault>;
}
