//! Limits on what a project may have: defaults by the operator, overrides by project.
//!
//! A service names its resources and counts its own usage; this module keeps the overrides and compares.
//! `-1` is no limit.
use crate::fault::Fault;
use pilvi_store::{Claim, Column, Query, Record, Store, Stored, Tx, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One project's override of one resource's limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuotaOverride {
    pub id: String,
    pub project_id: String,
    /// `compute`, or `class:compute` with the class in `project_id`.
    pub service: String,
    pub resource: String,
    pub limit: i64,
}

impl Record for QuotaOverride {
    const KIND: &'static str = "quota_override";
    const COLUMNS: &'static [Column] = &[Column::text("service")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.resource)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.service.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: format!("quota:{}:{}", self.service, self.project_id), value: self.resource.clone() }]
    }
}

/// The limits of one service.
#[derive(Debug, Clone)]
pub struct Quotas {
    pub service: &'static str,
    /// resource -> default limit
    pub defaults: BTreeMap<&'static str, i64>,
}

impl Quotas {
    pub fn new(service: &'static str, defaults: &[(&'static str, i64)]) -> Self {
        Quotas { service, defaults: defaults.iter().copied().collect() }
    }

    fn lay_over(&self, overrides: Vec<Stored<QuotaOverride>>) -> BTreeMap<String, i64> {
        let mut limits: BTreeMap<String, i64> = self.defaults.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        for o in overrides {
            if let Some(limit) = limits.get_mut(&o.record.resource) {
                *limit = o.record.limit;
            }
        }
        limits
    }

    /// All limits of a project.
    pub async fn limits(&self, store: &Store, project_id: &str) -> Result<BTreeMap<String, i64>, Fault> {
        Ok(self
            .lay_over(store.list::<QuotaOverride>(Query::all().project(project_id).eq("service", self.service)).await?))
    }

    /// The same, inside a transaction.
    pub async fn limits_in(&self, tx: &mut Tx, project_id: &str) -> Result<BTreeMap<String, i64>, Fault> {
        Ok(self.lay_over(tx.list::<QuotaOverride>(Query::all().project(project_id).eq("service", self.service)).await?))
    }

    /// Sets overrides.
    pub async fn set_in(&self, tx: &mut Tx, project_id: &str, limits: &[(String, i64)]) -> Result<(), Fault> {
        let mut found = tx.list::<QuotaOverride>(Query::all().project(project_id).eq("service", self.service)).await?;
        for (resource, limit) in limits {
            if let Some(known) = found.iter_mut().find(|o| o.record.resource == *resource) {
                known.record.limit = *limit;
                *known = tx.update(known).await?;
            } else {
                let record = QuotaOverride {
                    id: crate::id::new(),
                    project_id: project_id.to_owned(),
                    service: self.service.to_owned(),
                    resource: resource.clone(),
                    limit: *limit,
                };
                found.push(tx.insert(&record).await?);
            }
        }
        Ok(())
    }

    /// Back to the defaults.
    pub async fn clear_in(&self, tx: &mut Tx, project_id: &str) -> Result<(), Fault> {
        for o in tx.list::<QuotaOverride>(Query::all().project(project_id).eq("service", self.service)).await? {
            tx.delete::<QuotaOverride>(&o.record.id).await?;
        }
        Ok(())
    }
}
