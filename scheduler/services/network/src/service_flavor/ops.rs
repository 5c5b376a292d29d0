//! The verbs of flavors and profiles; the only writer of both records.
use super::model::{Flavor, L3, SERVICE_TYPES, ServiceProfile, provider};
use crate::{attribute::overlay, fault, list::Raw, router::model::Router, tables::find};
use pilvi_kit::Fault;
use pilvi_store::{Query, Stored, Tx};
use serde_json::{Value, json};

/// Profiles of one flavor.
const PROFILES_MAX: usize = 64;

pub fn missing(id: &str) -> Fault {
    fault::missing("FlavorNotFound", "Flavor", id)
}

pub fn profile_missing(id: &str) -> Fault {
    fault::missing("ServiceProfileNotFound", "Service Profile", id)
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<Flavor>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let flavor: Flavor = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if !SERVICE_TYPES.contains(&flavor.service_type.as_str()) {
        return Err(fault::bad(
            "InvalidServiceType",
            format!("Invalid service type {}: this cloud has {SERVICE_TYPES:?}.", flavor.service_type),
        ));
    }
    check_profiles_in(tx, &flavor.service_profiles).await?;
    Ok(tx.insert(&flavor).await?)
}

async fn check_profiles_in(tx: &mut Tx, ids: &[String]) -> Result<(), Fault> {
    for id in ids {
        tx.get::<ServiceProfile>(id).await?.ok_or_else(|| profile_missing(id))?;
    }
    Ok(())
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<Flavor>, changes: &Raw) -> Result<(), Fault> {
    let after: Flavor = overlay(&found.record, changes)?;
    check_profiles_in(tx, &after.service_profiles).await?;
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

pub async fn delete_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    if tx.count::<Router>(find::with_flavor(id)).await? > 0 {
        return Err(fault::conflict("FlavorInUse", format!("Flavor {id} is used by some service instance.")));
    }
    tx.delete::<Flavor>(id).await?;
    Ok(())
}

/// A router asks for a flavor, which must be there, on, and for routers. Gives the kind that its routers are of: whether they are
/// distributed, and have a spare one.
pub async fn for_router_in(tx: &mut Tx, id: &str) -> Result<Option<(bool, bool)>, Fault> {
    let flavor = tx.get::<Flavor>(id).await?.ok_or_else(|| missing(id))?;
    if !flavor.enabled {
        return Err(fault::bad("FlavorDisabled", "Flavor is not enabled."));
    }
    if flavor.service_type != L3 {
        return Err(fault::bad("InvalidServiceType", format!("Flavor {id} is not for routers.")));
    }
    match first_profile_in(tx, &flavor).await? {
        Some(profile) if !profile.enabled => {
            Err(fault::bad("ServiceProfileDisabled", "Service Profile is not enabled."))
        }
        profile => Ok(profile.and_then(|p| kind_of(&p))),
    }
}

async fn first_profile_in(tx: &mut Tx, flavor: &Flavor) -> Result<Option<ServiceProfile>, Fault> {
    let Some(first) = flavor.service_profiles.first() else { return Ok(None) };
    Ok(tx.get::<ServiceProfile>(first).await?.map(|found| found.record))
}

fn kind_of(profile: &ServiceProfile) -> Option<(bool, bool)> {
    provider(&profile.driver).and_then(|p| p.kind)
}

/// A router of a flavor that says what its routers are remains so: who wants another kind wants another flavor.
pub async fn refuse_other_kind_in(tx: &mut Tx, flavor: &str, kind: (bool, bool)) -> Result<(), Fault> {
    let Some(flavor) = tx.get::<Flavor>(flavor).await? else { return Ok(()) };
    match first_profile_in(tx, &flavor).await?.and_then(|p| kind_of(&p)) {
        Some(has) if has != kind => Err(fault::invalid(
            "Changing the 'ha' and 'distributed' attributes on a router associated with a flavor is not supported",
        )),
        _ => Ok(()),
    }
}

pub async fn create_profile_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<ServiceProfile>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let profile: ServiceProfile = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    check_profile(&profile)?;
    Ok(tx.insert(&profile).await?)
}

fn check_profile(profile: &ServiceProfile) -> Result<(), Fault> {
    if profile.driver.is_empty() && profile.metainfo.is_empty() {
        return Err(fault::bad("ServiceProfileEmpty", "Empty service profile: it needs a driver or metainfo."));
    }
    if !profile.driver.is_empty() && provider(&profile.driver).is_none() {
        return Err(Fault::not_found(format!("Service Profile driver {} could not be found.", profile.driver))
            .kind("ServiceProfileDriverNotFound"));
    }
    Ok(())
}

async fn refuse_in_use(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    let flavors = tx.list::<Flavor>(Query::all()).await?;
    if flavors.iter().any(|f| f.service_profiles.iter().any(|p| p == id)) {
        return Err(fault::conflict(
            "ServiceProfileInUse",
            format!("Service Profile {id} is used by some service flavor."),
        ));
    }
    Ok(())
}

pub async fn update_profile_in(tx: &mut Tx, mut found: Stored<ServiceProfile>, changes: &Raw) -> Result<(), Fault> {
    refuse_in_use(tx, &found.id).await?;
    let after: ServiceProfile = overlay(&found.record, changes)?;
    check_profile(&after)?;
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

pub async fn delete_profile_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    refuse_in_use(tx, id).await?;
    tx.delete::<ServiceProfile>(id).await?;
    Ok(())
}

/// Puts a profile behind a flavor.
pub async fn bind_in(tx: &mut Tx, flavor_id: &str, profile_id: &str) -> Result<(), Fault> {
    let mut flavor = tx.get::<Flavor>(flavor_id).await?.ok_or_else(|| missing(flavor_id))?;
    tx.get::<ServiceProfile>(profile_id).await?.ok_or_else(|| profile_missing(profile_id))?;
    if flavor.service_profiles.iter().any(|p| p == profile_id) {
        return Err(fault::conflict(
            "FlavorServiceProfileBindingExists",
            format!("Service Profile {profile_id} is already associated with flavor {flavor_id}."),
        ));
    }
    if flavor.service_profiles.len() >= PROFILES_MAX {
        return Err(Fault::conflict(format!("Flavor {flavor_id} has {PROFILES_MAX} profiles already.")));
    }
    flavor.service_profiles.push(profile_id.to_owned());
    tx.update(&flavor).await?;
    Ok(())
}

pub async fn unbind_in(tx: &mut Tx, flavor_id: &str, profile_id: &str) -> Result<(), Fault> {
    let mut flavor = tx.get::<Flavor>(flavor_id).await?.ok_or_else(|| missing(flavor_id))?;
    let before = flavor.service_profiles.len();
    flavor.service_profiles.retain(|p| p != profile_id);
    if flavor.service_profiles.len() == before {
        return Err(Fault::not_found(format!(
            "Service Profile {profile_id} is not associated with flavor {flavor_id}."
        ))
        .kind("FlavorServiceProfileBindingNotFound"));
    }
    tx.update(&flavor).await?;
    Ok(())
}
