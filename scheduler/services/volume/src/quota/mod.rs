//! Quotas of volumes: defaults as Cinder's, usage counted from the records.
//!
//! ```text
//!  limit of a project = its own  <- the class "default"  <- DEFAULTS, or -1 for what is counted by type
//! ```
//! What is counted by type has the type's name in its own: `gigabytes_fast`.

pub mod api;

use crate::tables::{Group, Snapshot, Volume, VolumeType};
use pilvi_kit::{
    Fault,
    quota::{QuotaOverride, Quotas},
};
use pilvi_store::{Query, Store, Tx};
use std::collections::BTreeMap;

/// resource -> default limit
pub const DEFAULTS: &[(&str, i64)] = &[
    ("volumes", 10),
    ("snapshots", 10),
    ("gigabytes", 1000),
    ("backups", 10),
    ("backup_gigabytes", 1000),
    ("per_volume_gigabytes", -1),
    ("groups", 10),
];
/// What is counted by type too.
const BY_TYPE: [&str; 3] = ["volumes", "snapshots", "gigabytes"];
/// Where the limits of the class are kept: under a project id that no project has.
pub const CLASS: &str = "class:default";

/// Where the kit keeps our overrides.
pub fn kept() -> Quotas {
    Quotas::new("volume", DEFAULTS)
}

/// What a project has, or would have more.
pub type Amounts = BTreeMap<String, u64>;
pub type Limits = BTreeMap<String, i64>;

/// The records that usage is counted from.
#[derive(Debug, Default)]
struct Held {
    types: BTreeMap<String, String>,
    volumes: Vec<(String, u64)>,
    snapshots: Vec<(String, u64)>,
    groups: u64,
}

impl Held {
    fn count(&self) -> Amounts {
        let mut amounts: Amounts = DEFAULTS.iter().map(|(name, _)| ((*name).to_owned(), 0)).collect();
        amounts.extend(by_type(self.types.values()).map(|name| (name, 0)));
        for (counted, things) in [("volumes", &self.volumes), ("snapshots", &self.snapshots)] {
            for (of_type, size) in things {
                add(&mut amounts, counted, 1, self.types.get(of_type));
                add(&mut amounts, "gigabytes", *size, self.types.get(of_type));
            }
        }
        amounts.insert("groups".into(), self.groups);
        amounts
    }
}

fn by_type<'a>(types: impl Iterator<Item = &'a String>) -> impl Iterator<Item = String> {
    types.flat_map(|of_type| BY_TYPE.iter().map(move |name| format!("{name}_{of_type}")))
}

fn add(amounts: &mut Amounts, name: &str, amount: u64, of_type: Option<&String>) {
    *amounts.entry(name.to_owned()).or_default() += amount;
    if let Some(of_type) = of_type {
        *amounts.entry(format!("{name}_{of_type}")).or_default() += amount;
    }
}

/// Amounts of one call: `name` (volumes or snapshots) and their size.
pub fn asked(name: &str, count: u64, size_gib: u64, of_type: &str) -> Amounts {
    let (mut amounts, of_type) = (Amounts::new(), of_type.to_owned());
    if count > 0 {
        add(&mut amounts, name, count, Some(&of_type));
    }
    add(&mut amounts, "gigabytes", size_gib, Some(&of_type));
    amounts
}

fn lay_over<'a>(types: impl Iterator<Item = &'a String>, layers: [Vec<QuotaOverride>; 2]) -> Limits {
    let mut limits: Limits = DEFAULTS.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
    limits.extend(by_type(types).map(|name| (name, -1)));
    for set in layers.into_iter().flatten() {
        if let Some(limit) = limits.get_mut(&set.resource) {
            *limit = set.limit;
        }
    }
    limits
}

fn overrides_of(project: &str) -> Query {
    Query::all().project(project).eq("service", "volume")
}

/// The same reading twice: of the store, and inside of a transaction.
macro_rules! reading {
    ($held:ident, $limits:ident, $from:ty) => {
        async fn $held(from: $from, project: &str) -> Result<Held, Fault> {
            let types = from.list::<VolumeType>(Query::all()).await?;
            let volumes = from.list::<Volume>(Query::all().project(project)).await?;
            let snapshots = from.list::<Snapshot>(Query::all().project(project)).await?;
            Ok(Held {
                types: types.into_iter().map(|t| (t.record.id, t.record.name)).collect(),
                volumes: volumes.into_iter().map(|v| (v.record.volume_type, v.record.wanted.size_gib)).collect(),
                snapshots: snapshots.into_iter().map(|s| (s.record.volume_type, s.record.size_gib)).collect(),
                groups: from.count::<Group>(Query::all().project(project)).await?,
            })
        }

        /// All limits of a project.
        pub async fn $limits(from: $from, project: &str) -> Result<Limits, Fault> {
            let types = from.list::<VolumeType>(Query::all()).await?;
            let class = from.list::<QuotaOverride>(overrides_of(CLASS)).await?;
            let own = from.list::<QuotaOverride>(overrides_of(project)).await?;
            let layers = [class, own].map(|layer| layer.into_iter().map(|o| o.record).collect());
            Ok(lay_over(types.iter().map(|t| &t.record.name), layers))
        }
    };
}
reading!(held, limits, &Store);
reading!(held_in, limits_in, &mut Tx);

/// What a project has now.
pub async fn usage(store: &Store, project: &str) -> Result<Amounts, Fault> {
    Ok(held(store, project).await?.count())
}

/// The same, inside a transaction.
pub async fn usage_in(tx: &mut Tx, project: &str) -> Result<Amounts, Fault> {
    Ok(held_in(tx, project).await?.count())
}

/// 413 unless the project may have all of `more`.
pub async fn check_in(tx: &mut Tx, project: &str, more: &Amounts) -> Result<(), Fault> {
    let (limits, used) = (limits_in(tx, project).await?, usage_in(tx, project).await?);
    for (name, asked) in more.iter().filter(|(_, asked)| **asked > 0) {
        let limit = limits.get(name).copied().unwrap_or(-1);
        let have = used.get(name).copied().unwrap_or(0);
        if u64::try_from(limit).is_ok_and(|limit| have + asked > limit) {
            return Err(exceeded(name, *asked, have, limit));
        }
    }
    Ok(())
}

/// A volume of this size is one that the project may have at all: 400 unless.
pub async fn check_size_in(tx: &mut Tx, project: &str, size_gib: u64) -> Result<(), Fault> {
    let limit = limits_in(tx, project).await?.get("per_volume_gigabytes").copied().unwrap_or(-1);
    if u64::try_from(limit).is_ok_and(|limit| size_gib > limit) {
        return Err(Fault::too_large(format!(
            "VolumeSizeExceedsLimit: Requested volume size {size_gib} is larger than maximum allowed limit {limit}."
        )));
    }
    Ok(())
}

fn exceeded(name: &str, asked: u64, used: u64, limit: i64) -> Fault {
    Fault::too_large(if name.starts_with("gigabytes") {
        format!(
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {name} quota. Requested {asked}G, quota is {limit}G and {used}G has been consumed."
        )
    } else if name.starts_with("snapshots") {
        format!("SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded")
    } else if name == "groups" {
        format!("GroupLimitExceeded: Maximum number of groups allowed ({limit}) exceeded")
    } else {
        format!("VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{name}'.")
    })
    .kind("OverLimit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_by_type_and_snapshots_take_room_too() {
        let held = Held {
            types: [("t".to_owned(), "fast".to_owned())].into(),
            volumes: vec![("t".into(), 3), ("gone".into(), 1)],
            snapshots: vec![("t".into(), 2)],
            groups: 1,
        };
        let counted = held.count();
        let of = |name: &str| counted.get(name).copied();
        assert_eq!((of("volumes"), of("volumes_fast"), of("snapshots_fast")), (Some(2), Some(1), Some(1)));
        assert_eq!((of("gigabytes"), of("gigabytes_fast"), of("groups")), (Some(6), Some(5), Some(1)));
    }

    #[test]
    fn a_project_s_own_limit_wins_over_the_class_and_unknown_names_are_none() {
        let set = |resource: &str, limit| QuotaOverride {
            id: String::new(),
            project_id: String::new(),
            service: "volume".into(),
            resource: resource.into(),
            limit,
        };
        let class = vec![set("volumes", 3), set("snapshots", 4), set("volumes_gone", 1)];
        let limits = lay_over(["fast".to_owned()].iter(), [class, vec![set("volumes", 7)]]);
        assert_eq!((limits["volumes"], limits["snapshots"], limits["gigabytes_fast"]), (7, 4, -1));
        assert!(!limits.contains_key("volumes_gone"));
    }
}
