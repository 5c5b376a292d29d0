//! Limits that all services may ask for: registered ones for every project, and own ones of projects and domains.
//!
//! Whether a limit stands for itself or within that of its domain is the operator's choice: see [`model`].
pub(crate) mod model;
mod own;
mod registered;

use crate::{
    Identity, fault,
    tables::{Region, Service},
};
use pilvi_kit::{Fault, Route};
use pilvi_store::Tx;

pub(crate) fn routes() -> Vec<Route<Identity>> {
    [registered::routes(), own::routes()].into_iter().flatten().collect()
}

/// The service must be there, and the region if one is named: 400 as Keystone, since the body is wrong.
async fn check_ends_in(tx: &mut Tx, service: &str, region: Option<&str>) -> Result<(), Fault> {
    let wrong = |attribute: &str| fault::expecting(attribute, "the service catalog");
    tx.get::<Service>(service).await?.ok_or_else(|| wrong("service_id"))?;
    if let Some(region) = region {
        tx.get::<Region>(region).await?.ok_or_else(|| wrong("region_id"))?;
    }
    Ok(())
}

/// Limits made by one request, at most.
const BATCH_MAX: usize = 1000;
