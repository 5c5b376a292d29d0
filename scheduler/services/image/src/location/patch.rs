//! Changes of `locations` in a JSON patch: `add /locations/N` or `/locations/-`, `replace /locations`,
//! `remove /locations/N`. URLs are read before; what is applied here is pure.
use super::{ops, view};
use crate::{
    Image,
    data::{self, receive::Digest},
    image::{
        model::{Image as Record, Location, Status},
        patch::{Change, Op},
    },
    signature,
};
use pilvi_kit::{Call, Fault, Target};
use serde_json::Value;
use std::sync::Arc;

/// Locations of one image at most.
const LOCATIONS_MAX: usize = 10;

type Fill = Arc<dyn Fn(&mut Record) + Send + Sync>;

/// A change whose URLs were read.
#[derive(Clone)]
pub struct Prepared {
    op: Op,
    /// Where in the list.
    at: Option<String>,
    found: Vec<Location>,
    fill: Option<Fill>,
}

/// Asks the rules, reads what the patch names. In the order of the changes that are about locations.
pub async fn prepare(
    svc: &Image,
    call: &Call,
    target: &Target,
    image: &Record,
    changes: &[Change],
) -> Result<Vec<Prepared>, Fault> {
    let mut out = Vec::new();
    for change in changes.iter().filter(|c| c.name == "locations") {
        let verb = match change.op {
            Op::Add => "add",
            Op::Replace => "replace",
            Op::Remove => "remove",
        };
        if !svc.config.show_locations {
            return Err(Fault::forbidden(format!("It's not allowed to {verb} locations if locations are invisible.")));
        }
        call.enforce(if change.op == Op::Remove { "delete_image_location" } else { "set_image_location" }, target)?;
        let good = image.status == Status::Active || (change.op != Op::Remove && image.status == Status::Queued);
        if !good {
            let status = image.status.as_str();
            return Err(Fault::conflict(format!("It's not allowed to {verb} locations if image status is {status}.")));
        }
        out.push(read(svc, image, change).await?);
    }
    Ok(out)
}

async fn read(svc: &Image, image: &Record, change: &Change) -> Result<Prepared, Fault> {
    let named: Vec<Value> = match (change.op, &change.value) {
        (Op::Remove, _) => Vec::new(),
        (Op::Replace, Value::Array(all)) if all.is_empty() => {
            return Err(Fault::forbidden("Cannot set locations to empty list."));
        }
        (Op::Replace, Value::Array(all)) => all.clone(),
        (Op::Replace, _) => return Err(Fault::bad_request("locations is a list")),
        (Op::Add, one) => vec![one.clone()],
    };
    if named.len() > LOCATIONS_MAX {
        return Err(Fault::too_large(format!("An image has at most {LOCATIONS_MAX} locations.")));
    }
    let mut found: Vec<(Location, Option<Digest>)> = Vec::new();
    for value in &named {
        let (url, metadata, expected) = view::named(value)?;
        let at = |l: &&Location| svc.stores.find(&l.store).is_some_and(|s| s.driver.url(&l.key) == url);
        let one = match image.locations.iter().find(at) {
            // It stays, and what it holds is known.
            Some(location) if change.op == Op::Replace => (Location { metadata, ..location.clone() }, None),
            Some(_) => return Err(Fault::bad_request("The image has this location already.")),
            None => {
                let verified = ops::verify(svc, image, url, metadata, &expected).await?;
                (verified.location, Some(verified.digest))
            }
        };
        if found.iter().any(|(l, _)| l.store == one.0.store && l.key == one.0.key) {
            return Err(Fault::bad_request("The same location is named twice."));
        }
        found.push(one);
    }
    let fill = if image.status == Status::Queued { judged(svc, image, &found)? } else { None };
    Ok(Prepared { op: change.op, at: change.at.clone(), found: found.into_iter().map(|(l, _)| l).collect(), fill })
}

/// What a queued image is to say of the bytes that all its first locations hold.
fn judged(svc: &Image, image: &Record, found: &[(Location, Option<Digest>)]) -> Result<Option<Fill>, Fault> {
    let digests: Vec<&Digest> = found.iter().filter_map(|(_, digest)| digest.as_ref()).collect();
    let Some(first) = digests.first() else { return Ok(None) };
    if digests.iter().any(|digest| digest.sha512 != first.sha512) {
        return Err(Fault::conflict("The locations hold different bytes."));
    }
    if image.disk_format.is_none() || image.container_format.is_none() {
        return Err(Fault::bad_request("Properties disk_format, container_format must be set prior to saving data."));
    }
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    Ok(Some(Arc::new(data::ops::judge(svc, image, (*first).clone(), signed.as_ref())?)))
}

/// Where in a list of `length` a change is.
fn position(at: Option<&str>, length: usize, may_append: bool) -> Option<usize> {
    let end = if may_append { length } else { length.checked_sub(1)? };
    match at? {
        "-" => Some(end),
        text if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().ok().filter(|at| may_append || *at < length).map(|at: usize| at.min(end))
        }
        _ => None,
    }
}

/// Applies a change to the image as it is now, which may be another than the one that was read.
pub fn apply(image: &mut Record, change: &Prepared) -> Result<(), Fault> {
    let first = image.status == Status::Queued;
    if !first && image.status != Status::Active {
        return Err(Fault::conflict(format!(
            "It's not allowed to change locations if image status is {}.",
            image.status.as_str()
        )));
    }
    match change.op {
        Op::Replace => image.locations.clone_from(&change.found),
        Op::Add => {
            let at = position(change.at.as_deref(), image.locations.len(), true)
                .ok_or_else(|| Fault::bad_request("Invalid position for adding a location."))?;
            if let Some(location) = change.found.first() {
                image.locations.insert(at, location.clone());
            }
        }
        Op::Remove => {
            if image.locations.len() <= 1 {
                return Err(Fault::forbidden("Cannot remove last location in the image."));
            }
            let at = position(change.at.as_deref(), image.locations.len(), false)
                .ok_or_else(|| Fault::bad_request("Invalid position for removing a location."))?;
            image.locations.remove(at);
        }
    }
    if image.locations.len() > LOCATIONS_MAX {
        return Err(Fault::too_large(format!("An image has at most {LOCATIONS_MAX} locations.")));
    }
    if first {
        let fill = change.fill.as_ref().ok_or_else(|| Fault::conflict("The image was changed meanwhile."))?;
        fill(image);
        image.status = Status::Active;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_the_list_or_none() {
        for (at, append, want) in [
            ("-", true, Some(2)),
            ("-", false, Some(1)),
            ("0", false, Some(0)),
            ("2", true, Some(2)),
            ("9", true, Some(2)),
            ("2", false, None),
            ("x", true, None),
            ("99999999999999999999999", true, None),
        ] {
            assert_eq!(position(Some(at), 2, append), want, "{at}");
        }
        assert_eq!(position(None, 2, true), None);
        assert_eq!(position(Some("-"), 0, false), None);
    }
}
