//! Which type a volume gets, and what types say.
use crate::{
    fault,
    tables::{DefaultType, GroupType, VolumeType},
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Query, Stored, Tx};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the type that there always is.
pub const DEFAULT: &str = "__DEFAULT__";
/// Its id: the same at every scheduler, as any may make it first.
const DEFAULT_ID: &str = "de0fa017-0000-4000-8000-000000000001";
/// The type of groups that clients of consistency groups know.
pub const DEFAULT_GROUP_TYPE: &str = "default_cgsnapshot_type";
const DEFAULT_GROUP_TYPE_ID: &str = "de0fa017-0000-4000-8000-000000000002";

/// Makes the default type unless it is there.
pub async fn ensure_default_in(tx: &mut Tx) -> Result<(), Fault> {
    if tx.get::<VolumeType>(DEFAULT_ID).await?.is_none() && named_in(tx, DEFAULT).await?.is_none() {
        let made = VolumeType {
            id: DEFAULT_ID.into(),
            name: DEFAULT.into(),
            description: Some("Default Volume Type".into()),
            public: true,
            extra_specs: BTreeMap::new(),
            access: BTreeSet::new(),
            qos_id: None,
        };
        tx.insert(&made).await?;
    }
    Ok(())
}

/// The same of groups.
pub async fn ensure_group_types_in(tx: &mut Tx) -> Result<(), Fault> {
    if tx.get::<GroupType>(DEFAULT_GROUP_TYPE_ID).await?.is_none() {
        let made = GroupType {
            id: DEFAULT_GROUP_TYPE_ID.into(),
            name: DEFAULT_GROUP_TYPE.into(),
            description: Some("Default group type for migrating cgsnapshot".into()),
            public: true,
            specs: BTreeMap::from([("consistent_group_snapshot_enabled".into(), "<is> True".into())]),
            access: BTreeSet::new(),
        };
        tx.insert(&made).await?;
    }
    Ok(())
}

pub async fn named_in(tx: &mut Tx, name: &str) -> Result<Option<Stored<VolumeType>>, Fault> {
    Ok(tx.list::<VolumeType>(Query::all().name(name).limit(1)).await?.pop())
}

/// By id or name, whoever asks.
pub async fn find_in(tx: &mut Tx, wish: &str) -> Result<Stored<VolumeType>, Fault> {
    if let Some(found) = tx.get::<VolumeType>(wish).await? {
        return Ok(found);
    }
    named_in(tx, wish).await?.ok_or_else(|| match pilvi_kit::id::is_uuid(wish) {
        true => fault::no_type(wish),
        false => {
            Fault::not_found(format!("Volume type with name {wish} could not be found.")).kind("VolumeTypeNotFound")
        }
    })
}

/// May the caller use it?
pub fn may_use(ctx: &Ctx, of_type: &VolumeType) -> bool {
    of_type.public || ctx.caller.has_role("admin") || of_type.access.contains(ctx.project_id())
}

/// By id or name; one that the caller may not use is not there.
pub async fn usable_in(tx: &mut Tx, ctx: &Ctx, wish: &str) -> Result<Stored<VolumeType>, Fault> {
    let found = find_in(tx, wish).await?;
    if may_use(ctx, &found) { Ok(found) } else { Err(fault::no_type(wish)) }
}

/// What a project's volumes get when nobody says: the project's own default, or everybody's.
pub async fn default_in(tx: &mut Tx, project_id: &str) -> Result<Stored<VolumeType>, Fault> {
    if let Some(own) = tx.get::<DefaultType>(project_id).await?
        && let Some(found) = tx.get::<VolumeType>(&own.volume_type).await?
    {
        return Ok(found);
    }
    named_in(tx, DEFAULT).await?.ok_or_else(|| Fault::internal("there is no default volume type"))
}

/// `<is> True`, as extra specs say it.
pub fn is_true(value: &str) -> bool {
    value.trim().strip_prefix("<is>").is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
}

/// May volumes of it be attached to several servers?
pub fn multiattach(of_type: &VolumeType) -> bool {
    of_type.extra_specs.get("multiattach").is_some_and(|v| is_true(v))
}
