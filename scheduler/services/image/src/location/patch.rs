//! Changes of `locations` in a JSON patch: `add /locations/N` or `/locations/-`, `replace /locations`,
//! `remove /locations/N`. URLs are read before; what is applied here is pure.
use super::{
    ops,
    view::{self, Said},
};
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
    let mut told = Said::default();
    for value in &named {
        let (url, metadata, said) = view::named(value)?;
        told = agree(image, told, said)?;
        let at = |l: &&Location| svc.stores.find(&l.store).is_some_and(|s| s.driver.url(&l.key) == url);
        let one = match image.locations.iter().find(at) {
            // It stays, and what it holds is known.
            Some(location) if change.op == Op::Replace => (Location { metadata, ..location.clone() }, None),
            Some(_) => return Err(Fault::bad_request("The image has this location already.")),
            None if change.op == Op::Replace && image.status == Status::Active => {
                return Err(Fault::bad_request("Locations are replaced by the same URLs: add and remove others."));
            }
            None => {
                let found = ops::find(svc, image, url, metadata, None).await?;
                (found.location, Some(found.digest))
            }
        };
        if found.iter().any(|(l, _)| l.store == one.0.store && l.key == one.0.key) {
            return Err(Fault::bad_request("The same location is named twice."));
        }
        found.push(one);
    }
    if change.op == Op::Replace && image.status == Status::Active && found.len() < image.locations.len() {
        return Err(Fault::bad_request("Locations are replaced by the same URLs: remove one by its place."));
    }
    let fill = if image.status == Status::Queued { judged(svc, image, &found, told)? } else { None };
    Ok(Prepared { op: change.op, at: change.at.clone(), found: found.into_iter().map(|(l, _)| l).collect(), fill })
}

/// What is said of one more location, after what was said of others: never something else than what the image shows.
fn agree(image: &Record, told: Said, said: Said) -> Result<Said, Fault> {
    let first = image.status == Status::Queued;
    let one = |name: &str, shown: &Option<String>, told: Option<String>, said: Option<String>| match said {
        None => Ok(told),
        Some(said) => {
            let known = if first { &told } else { shown };
            let free = first && known.is_none();
            if free || known.as_ref() == Some(&said) {
                Ok(Some(said))
            } else {
                Err(Fault::conflict(format!("The {name} that is given is not that of the image.")))
            }
        }
    };
    let out = Said {
        checksum: one("checksum", &image.checksum, told.checksum, said.checksum)?,
        os_hash_algo: one("os_hash_algo", &image.os_hash_algo, told.os_hash_algo, said.os_hash_algo)?,
        os_hash_value: one("os_hash_value", &image.os_hash_value, told.os_hash_value, said.os_hash_value)?,
    };
    if first {
        out.check()?;
    }
    Ok(out)
}

/// What a queued image is to say of the bytes that all its first locations hold: `told`, and nothing where nothing was.
/// That is how clients know patches of locations; what the bytes are is kept beside it.
fn judged(
    svc: &Image,
    image: &Record,
    found: &[(Location, Option<Digest>)],
    told: Said,
) -> Result<Option<Fill>, Fault> {
    let digests: Vec<&Digest> = found.iter().filter_map(|(_, digest)| digest.as_ref()).collect();
    let Some(first) = digests.first() else { return Ok(None) };
    if digests.iter().any(|digest| digest.sha512 != first.sha512) {
        return Err(Fault::conflict("The locations hold different bytes."));
    }
    if image.disk_format.is_none() || image.container_format.is_none() {
        return Err(Fault::bad_request("Properties disk_format, container_format must be set prior to saving data."));
    }
    let signed = signature::required(svc.config.certificates.as_deref(), image)?;
    let fill = data::ops::judge(svc, image, (*first).clone(), signed.as_ref())?;
    let content = first.sha512.clone();
    Ok(Some(Arc::new(move |image: &mut Record| {
        fill(image);
        image.checksum.clone_from(&told.checksum);
        image.os_hash_value.clone_from(&told.os_hash_value);
        image.os_hash_algo = told.os_hash_value.as_ref().map(|_| "sha512".to_owned());
        image.read_hash = Some(content.clone());
    })))
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
    if first {
        // What a failed import left named.
        image.locations.clear();
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
