//! Regions, services and endpoints. A service that this cloud offers itself is left: its address is ours.
use super::{Import, ImportError, extra, row_error};
use crate::tables::{Endpoint, Region, Service};
use pilvi_kit::Fault;
use pilvi_store::Query;
use std::collections::HashSet;

impl Import<'_> {
    pub(super) async fn services(&mut self) -> Result<(), ImportError> {
        let mut regions = Vec::new();
        for row in self.dump.rows("region") {
            regions.push(Region {
                id: row.need("id").map_err(row_error)?,
                description: row.text("description").unwrap_or_default().to_owned(),
                parent_region_id: row.text("parent_region_id").map(str::to_owned),
                extra: extra(row),
            });
        }
        self.put("regions", regions).await?;
        let known = self.identity.store.list::<Service>(Query::all()).await.map_err(Fault::from)?;
        let (mut services, mut taken, mut left) = (Vec::new(), HashSet::new(), Vec::new());
        for row in self.dump.rows("service") {
            let (id, kind) = (row.need("id").map_err(row_error)?, row.need("type").map_err(row_error)?);
            if known.iter().any(|k| k.kind == kind && k.id != id) {
                left.push(format!("{kind}: this cloud offers it itself"));
                continue;
            }
            let mut extra = extra(row);
            let mut text = |name: &str| extra.shift_remove(name).and_then(|v| v.as_str().map(str::to_owned));
            let (name, description) = (text("name"), text("description"));
            taken.insert(id.clone());
            services.push(Service { id, kind, name, description, enabled: row.flag("enabled").unwrap_or(true), extra });
        }
        left.into_iter().for_each(|why| self.report.leave("services", why));
        self.put("services", services).await?;
        let (mut endpoints, mut skipped) = (Vec::new(), 0);
        for row in self.dump.rows("endpoint") {
            let service_id = row.need("service_id").map_err(row_error)?;
            if !taken.contains(&service_id) {
                skipped += 1;
                continue;
            }
            endpoints.push(Endpoint {
                id: row.need("id").map_err(row_error)?,
                service_id,
                region_id: row.text("region_id").map(str::to_owned),
                interface: row.need("interface").map_err(row_error)?,
                url: row.need("url").map_err(row_error)?,
                enabled: row.flag("enabled").unwrap_or(true),
                extra: extra(row),
            });
        }
        (0..skipped).for_each(|_| self.report.leave("endpoints", "their service was left"));
        self.put("endpoints", endpoints).await
    }
}
