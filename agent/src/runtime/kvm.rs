//! pilvi-vmm as a runtime: one small process on KVM for each guest.
use super::choose::Offer;
use super::{Guest, Kind, Machine, Runtime, RuntimeError, Status};
use crate::config::Config;
use crate::process;
use async_trait::async_trait;

/// The KVM runtime.
#[derive(Debug)]
pub struct Kvm {
    command: Vec<String>,
}

impl Kvm {
    /// A runtime that starts VMMs as the configuration says.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { command: config.vmm_command.clone() }
    }
}

/// Finds out what KVM can really do here.
pub async fn probe(_config: &Config) -> Offer {
    Offer::unusable(Kind::Kvm, "not probed".into())
}

#[async_trait]
impl Runtime for Kvm {
    fn kind(&self) -> Kind {
        Kind::Kvm
    }
    async fn start(&self, _guest: &Guest, _machine: Machine) -> Result<(), RuntimeError> {
        Err(RuntimeError::Failed(format!("{:?} cannot be used yet", self.command)))
    }
    async fn status(&self, _guest: &Guest) -> Result<Status, RuntimeError> {
        Ok(Status::default())
    }
    async fn shutdown(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn kill(&self, guest: &Guest) -> Result<(), RuntimeError> {
        process::end(&guest.dir).await.map_err(|e| RuntimeError::Io("kill", e))
    }
    async fn pause(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unsupported(Kind::Kvm, "pause"))
    }
    async fn resume(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unsupported(Kind::Kvm, "resume"))
    }
    async fn suspend(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unsupported(Kind::Kvm, "suspend"))
    }
    async fn collect_console(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn diagnostics(&self, _guest: &Guest) -> Result<serde_json::Value, RuntimeError> {
        Ok(serde_json::json!({}))
    }
    async fn changed(&self, _guest: &Guest) {
        std::future::pending().await
    }
}
