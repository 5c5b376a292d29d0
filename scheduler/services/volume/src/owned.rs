//! The record that a path names, for whoever may do the route's rule to it. Somebody else's does not exist.
use crate::{Volumes, volume::ops::sees};
use pilvi_kit::{Call, Fault, call::owned_by};
use pilvi_store::{Record, Stored};

/// The record with the id in the path's segment of this name. `missing`: there is none for the caller.
pub async fn of_path<R: Record>(
    svc: &Volumes,
    call: &Call,
    segment: &str,
    missing: fn(&str) -> Fault,
) -> Result<Stored<R>, Fault> {
    let id = call.param(segment);
    judged(call, call.rule(), svc.store.get::<R>(id).await?, || missing(id))
}

/// What was found, if the caller may do `rule` to it.
pub fn judged<R: Record>(
    call: &Call,
    rule: &str,
    found: Option<Stored<R>>,
    missing: impl FnOnce() -> Fault,
) -> Result<Stored<R>, Fault> {
    let project = |record: &Stored<R>| record.record.project().unwrap_or_default().to_owned();
    let Some(record) = found.filter(|record| sees(&call.ctx, &project(record))) else {
        // The rule is asked all the same: whoever may do nothing here learns nothing.
        call.enforce(rule, &call.target())?;
        return Err(missing());
    };
    call.enforce(rule, &owned_by(&project(&record)))?;
    Ok(record)
}
