//! What other services ask of identity, besides who somebody is: limits and addresses.
use crate::{
    Identity,
    tables::{Limit, RegisteredLimit},
};
use pilvi_kit::Fault;
use pilvi_store::Query;
use std::collections::BTreeMap;

impl Identity {
    /// What a project may have of the resources of a type of service in a region: its own limits, else the registered
    /// ones; those of the region before those of all. What nobody has registered is not limited.
    pub async fn limits_of(&self, kind: &str, region: &str, project: &str) -> Result<BTreeMap<String, i64>, Fault> {
        let records = self.directory.catalog_records().await?;
        let mut limits = BTreeMap::new();
        let here = |of: &Option<String>| of.as_deref().is_none_or(|of| of == region);
        for service in records.services.iter().filter(|service| service.kind == kind) {
            let registered = self.store.list::<RegisteredLimit>(Query::all().eq("service_id", service.id.as_str()));
            let mut registered: Vec<_> = registered.await?.into_iter().map(|stored| stored.record).collect();
            registered.retain(|limit| here(&limit.region_id));
            // What is said of the region comes last, and so stays.
            registered.sort_by_key(|limit| limit.region_id.is_some());
            limits.extend(registered.into_iter().map(|limit| (limit.resource_name, limit.default_limit)));
            if limits.is_empty() {
                continue;
            }
            let own = self.store.list::<Limit>(Query::all().eq("project_ref", project)).await?;
            let mut own: Vec<_> = own.into_iter().map(|stored| stored.record).collect();
            own.retain(|limit| limit.service_id == service.id && here(&limit.region_id));
            own.sort_by_key(|limit| limit.region_id.is_some());
            limits.extend(own.into_iter().map(|limit| (limit.resource_name, limit.resource_limit)));
        }
        Ok(limits)
    }

    /// Where a type of service is in a region, as the catalogue says: without anyone's project in it.
    pub async fn endpoint(&self, kind: &str, region: &str, interface: &str) -> Result<Option<String>, Fault> {
        let records = self.directory.catalog_records().await?;
        let of_kind = |id: &str| records.services.iter().any(|s| s.id == id && s.kind == kind && s.enabled);
        let found = records.endpoints.iter().find(|endpoint| {
            endpoint.enabled
                && endpoint.interface == interface
                && endpoint.region_id.as_deref() == Some(region)
                && of_kind(&endpoint.service_id)
        });
        Ok(found.map(|endpoint| endpoint.url.clone()))
    }
}
