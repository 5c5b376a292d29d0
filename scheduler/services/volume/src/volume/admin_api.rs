//! What administrators do with volumes: states set by hand, deletion by force, and what is refused with its reason.
use super::{
    api::text,
    attach_api::meant_in,
    model::Status,
    ops::{self, Deletion},
};
use crate::{Volumes, attachment::ops as attachments, fault, host::backend, tables::Volume};
use pilvi_kit::{Call, Fault, Reply, Response};
use pilvi_store::{Stored, Tx};
use serde_json::Value;

/// The verb has a rule of its own, which was asked.
pub async fn act(svc: &Volumes, call: &Call, volume: &Stored<Volume>, verb: &str, given: &Value) -> Reply {
    let id = volume.record.id.as_str();
    match verb {
        "os-reset_status" => reset(svc, id, given).await,
        "os-force_delete" => {
            svc.begin_delete(id, Deletion { cascade: false, force: true }).await?;
            Ok(Response::empty(202))
        }
        "os-force_detach" => {
            let named = text(given, &["attachment_id"]);
            svc.write((id.to_owned(), named, call.ctx.clone()), |tx, (id, named, ctx)| {
                Box::pin(async move {
                    let volume = ops::get_in(tx, &id).await?;
                    if let Some(attachment) = meant_in(tx, &ctx, &volume, named.as_deref()).await? {
                        attachments::detach_in(tx, &attachment.record.id, false).await?;
                    }
                    set_in(tx, &id, |volume| volume.status = Status::Attaching).await?;
                    attachments::rest_in(tx, &id).await
                })
            })
            .await?;
            Ok(Response::empty(202))
        }
        "os-migrate_volume" => migrate(volume, given),
        "os-migrate_volume_completion" => Err(fault::invalid_volume(
            "No migration of this volume is under way: volumes stay on the host that has them.",
        )),
        "os-extend_volume_completion" => Err(fault::invalid_volume(format!(
            "Volume {id} does not wait for an extension to be completed: its host extends it by itself."
        ))),
        _ => Err(fault::invalid_volume(
            "Volumes are files of their host alone: none is taken over, and none is let go of.",
        )),
    }
}

async fn set_in(tx: &mut Tx, id: &str, set: impl FnOnce(&mut Volume)) -> Result<(), Fault> {
    let mut volume = ops::get_in(tx, id).await?;
    set(&mut volume.record);
    tx.update(&volume).await?;
    Ok(())
}

/// States that an operator may set.
fn settable(text: &str) -> Result<Status, Fault> {
    let unknown = || {
        fault::invalid_input(format!(
            "Invalid input for field/attribute status. Value: {text}. '{text}' is not a 'volume_status'"
        ))
    };
    match Status::parse(&text.to_lowercase()).ok_or_else(unknown)? {
        Status::Deleting => Err(Fault::bad_request("Cannot reset-state to deleting")),
        Status::ErrorDeleting => Err(Fault::bad_request("Cannot reset-state to error_deleting")),
        Status::Reserved | Status::Managing | Status::Retyping | Status::Extending | Status::Reverting => {
            Err(unknown())
        }
        status => Ok(status),
    }
}

const MIGRATION: &[&str] = &["migrating", "error", "success", "completing", "none", "starting"];

async fn reset(svc: &Volumes, id: &str, given: &Value) -> Reply {
    let status = text(given, &["status"]).map(|s| settable(&s)).transpose()?;
    let attached = text(given, &["attach_status"]).map(|s| s.to_lowercase());
    if let Some(wish) = attached.as_deref().filter(|s| !matches!(*s, "attached" | "detached")) {
        return Err(fault::invalid_input(format!("Invalid input for field/attribute attach_status. Value: {wish}.")));
    }
    let migration = text(given, &["migration_status"]).map(|s| s.to_lowercase());
    if let Some(wish) = migration.as_deref().filter(|s| !MIGRATION.contains(s)) {
        return Err(fault::invalid_input(format!(
            "Invalid input for field/attribute migration_status. Value: {wish}."
        )));
    }
    if status.is_none() && attached.is_none() && migration.is_none() {
        return Err(fault::invalid_input("Must specify 'status', 'attach_status' or 'migration_status' for update."));
    }
    svc.write((id.to_owned(), status, attached, migration), |tx, (id, status, attached, migration)| {
        Box::pin(async move {
            if status == Some(Status::InUse) && attachments::of_in(tx, &id).await?.is_empty() {
                return Err(Fault::bad_request(
                    "Cannot reset-state to in-use because volume does not have any attachments.",
                ));
            }
            if attached.as_deref() == Some("detached") {
                attachments::forget_in(tx, &id).await?;
            }
            set_in(tx, &id, |volume| {
                if let Some(status) = status {
                    (volume.status, volume.previous_status) = (status, None);
                }
                if let Some(migration) = migration {
                    volume.migration_status = Some(migration).filter(|m| m != "none");
                }
            })
            .await
        })
    })
    .await?;
    Ok(Response::empty(202))
}

fn migrate(volume: &Stored<Volume>, given: &Value) -> Reply {
    let wish = text(given, &["host"]).unwrap_or_default();
    if wish.is_empty() {
        return Err(Fault::bad_request("Volume migration needs a host: there are no clusters."));
    }
    let there =
        volume.host.as_deref().is_some_and(|host| backend::pool_of(host) == wish || backend::service_of(host) == wish);
    if there {
        return Err(fault::invalid_input("Destination host must be different than the current host."));
    }
    Err(fault::invalid_input(format!(
        "Volumes are not moved to other hosts ({wish}): a volume is a file of the host that has it."
    )))
}
