//! The verbs on groups and their snapshots. A group's volumes lie where they lie: its snapshots are taken volume by
//! volume, all wished for in one transaction.
use crate::{
    Volumes, fault, quota,
    snapshot::{
        model::SnapshotStatus,
        ops::{self as snapshots, NewSnapshot},
    },
    tables::{Group, GroupSnapshot, GroupType, Snapshot, Volume},
    volume::{
        model::Status,
        ops::{self as volumes, Deletion, NewVolume, Source, sees},
    },
    volume_type::ops::{self as types, DEFAULT_GROUP_TYPE},
};
use pilvi_kit::{Ctx, Fault, id};
use pilvi_store::{Query, Stored, Tx};

/// States that an operator may set.
pub const STATUSES: &[&str] = &["available", "creating", "deleting", "error", "error_deleting", "updating", "in-use"];
pub const SNAPSHOT_STATUSES: &[&str] = &["available", "creating", "deleting", "error", "error_deleting", "updating"];

pub fn no_group(id: &str) -> Fault {
    Fault::not_found(format!("Group {id} could not be found.")).kind("GroupNotFound")
}

fn invalid(reason: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Invalid Group: {reason}"))
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Made {
    pub name: Option<String>,
    pub description: Option<String>,
    /// Id or name.
    pub group_type: String,
    /// Ids or names.
    pub volume_types: Vec<String>,
    pub zone: String,
}

/// Name and description.
pub type Named = (Option<String>, Option<String>);

async fn group_type_in(tx: &mut Tx, ctx: &Ctx, wish: &str) -> Result<GroupType, Fault> {
    let found = match tx.get::<GroupType>(wish).await? {
        Some(found) => Some(found),
        None => tx.list::<GroupType>(Query::all().name(wish).limit(1)).await?.pop(),
    };
    let usable =
        |t: &Stored<GroupType>| t.public || ctx.caller.has_role("admin") || t.access.contains(ctx.project_id());
    let found =
        found.filter(usable).ok_or_else(|| Fault::not_found(format!("Group type {wish} could not be found.")))?;
    if found.name == DEFAULT_GROUP_TYPE {
        return Err(Fault::bad_request(format!(
            "Group_type {} is reserved for migrating CGs to groups. Migrated group can only be operated by CG APIs.",
            found.record.id
        )));
    }
    Ok(found.record)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, made: Made) -> Result<Stored<Group>, Fault> {
    let group_type = group_type_in(tx, ctx, &made.group_type).await?;
    let mut volume_types = Vec::new();
    for wish in &made.volume_types {
        volume_types.push(types::usable_in(tx, ctx, wish).await?.record.id);
    }
    insert_in(tx, ctx, (made.name, made.description), (group_type.id, volume_types, made.zone), (None, None)).await
}

/// (type, types of volumes, zone); (group snapshot, group) that it is made of.
async fn insert_in(
    tx: &mut Tx,
    ctx: &Ctx,
    (name, description): Named,
    (group_type, volume_types, zone): (String, Vec<String>, String),
    (group_snapshot_id, source_group_id): (Option<String>, Option<String>),
) -> Result<Stored<Group>, Fault> {
    let more = quota::Amounts::from([("groups".to_owned(), 1)]);
    quota::check_in(tx, ctx.project_id(), &more).await?;
    let group = Group {
        id: id::new(),
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        name,
        description,
        group_type,
        volume_types,
        zone,
        status: "available".into(),
        group_snapshot_id,
        source_group_id,
    };
    Ok(tx.insert(&group).await?)
}

async fn visible_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<Group>, Fault> {
    tx.get::<Group>(id).await?.filter(|g| sees(ctx, &g.project_id)).ok_or_else(|| no_group(id))
}

/// Volumes of a group.
async fn members_in(tx: &mut Tx, id: &str) -> Result<Vec<Stored<Volume>>, Fault> {
    Ok(tx.list::<Volume>(Query::all().eq("group_id", id)).await?)
}

async fn snapshots_in(tx: &mut Tx, id: &str) -> Result<Vec<Stored<Snapshot>>, Fault> {
    Ok(tx.list::<Snapshot>(Query::all().eq("group_snapshot_id", id)).await?)
}

/// A group with a volume of each that the source has.
pub async fn create_from_in(
    tx: &mut Tx,
    svc: &Volumes,
    ctx: &Ctx,
    named: Named,
    (snapshot, group): (Option<String>, Option<String>),
) -> Result<Stored<Group>, Fault> {
    let mut sources = Vec::new();
    let source = match (&snapshot, &group) {
        (Some(id), _) => {
            let found = tx.get::<GroupSnapshot>(id).await?.filter(|s| sees(ctx, &s.project_id));
            let found = found.ok_or_else(|| Fault::not_found(format!("GroupSnapshot {id} could not be found.")))?;
            for one in snapshots_in(tx, id).await? {
                sources.push((Source::Snapshot(one.record.id), one.record.volume_type, one.record.name));
            }
            visible_in(tx, ctx, &found.group_id).await?
        }
        (None, Some(id)) => {
            for one in members_in(tx, id).await? {
                sources.push((Source::Volume(one.record.id), one.record.volume_type, one.record.name));
            }
            visible_in(tx, ctx, id).await?
        }
        (None, None) => return Err(invalid("a group snapshot or a group must be named as its source")),
    };
    if sources.is_empty() {
        return Err(invalid("its source has no volumes"));
    }
    let kind = (source.group_type.clone(), source.volume_types.clone(), source.zone.clone());
    let made = insert_in(tx, ctx, named, kind, (snapshot, group)).await?;
    for (source, volume_type, name) in sources {
        let new = NewVolume {
            name,
            source,
            volume_type: Some(volume_type),
            group_id: Some(made.record.id.clone()),
            ..NewVolume::default()
        };
        volumes::create_in(tx, svc, ctx, new).await?;
    }
    Ok(made)
}

pub async fn update_in(
    tx: &mut Tx,
    ctx: &Ctx,
    id: &str,
    (name, description): Named,
    (joining, leaving): (Vec<String>, Vec<String>),
) -> Result<(), Fault> {
    let mut group = visible_in(tx, ctx, id).await?;
    if group.status != "available" {
        return Err(invalid(format!("its status must be available, but is {}.", group.status)));
    }
    let nothing = name.is_none() && description.is_none() && joining.is_empty() && leaving.is_empty();
    if nothing {
        return Err(invalid(
            "name, description, add_volumes, and remove_volumes can not be all empty in the request body.",
        ));
    }
    if let Some(both) = joining.iter().find(|id| leaving.contains(id)) {
        return Err(invalid(format!("volume {both} can not be both in add and remove volume list.")));
    }
    for one in leaving {
        let found = tx.get::<Volume>(&one).await?.filter(|v| v.group_id.as_deref() == Some(id));
        let mut volume =
            found.ok_or_else(|| invalid(format!("cannot remove volume {one}: it is not in the group.")))?;
        volume.record.group_id = None;
        tx.update(&volume).await?;
    }
    for one in joining {
        let mut volume = volumes::visible_in(tx, ctx, &one)
            .await
            .map_err(|_| invalid(format!("cannot add volume {one} because it cannot be found.")))?;
        let fits = matches!(volume.status, Status::Available | Status::InUse);
        if !fits || volume.group_id.is_some() || volume.project_id != group.project_id {
            return Err(invalid(format!("cannot add volume {one}: it is {}, or in a group.", volume.status.as_str())));
        }
        if !group.volume_types.contains(&volume.volume_type) {
            return Err(invalid(format!("cannot add volume {one}: its type is none of the group's.")));
        }
        volume.record.group_id = Some(id.to_owned());
        tx.update(&volume).await?;
    }
    group.record.name = name.or(group.record.name.take());
    group.record.description = description.or(group.record.description.take());
    tx.update(&group).await?;
    Ok(())
}

/// Removes a group; gives the volumes that go with it.
pub async fn delete_in(tx: &mut Tx, id: &str, with_volumes: bool) -> Result<Vec<String>, Fault> {
    let group = tx.get::<Group>(id).await?.ok_or_else(|| no_group(id))?;
    if !matches!(group.status.as_str(), "available" | "error") && !with_volumes {
        return Err(invalid(format!("its status must be available or error, but is {}.", group.status)));
    }
    if tx.count::<GroupSnapshot>(Query::all().eq("group_id", id)).await? > 0 {
        return Err(invalid(format!("group {id} still has dependent group snapshots.")));
    }
    let members = members_in(tx, id).await?;
    if !members.is_empty() && !with_volumes {
        return Err(invalid(format!(
            "group {id} still contains volumes. The delete-volumes flag is required to delete it."
        )));
    }
    let mut gone = Vec::new();
    for mut volume in members {
        gone.push(volume.record.id.clone());
        volume.record.group_id = None;
        let volume = tx.update(&volume).await?;
        if !volume.wanted.delete {
            volumes::begin_delete_in(tx, volume, Deletion { cascade: false, force: true }).await?;
        }
    }
    tx.delete::<Group>(id).await?;
    Ok(gone)
}

/// A snapshot of each of a group's volumes.
pub async fn take_in(
    tx: &mut Tx,
    ctx: &Ctx,
    group_id: &str,
    (name, description): Named,
) -> Result<Stored<GroupSnapshot>, Fault> {
    let group = visible_in(tx, ctx, group_id).await?;
    let members = members_in(tx, group_id).await?;
    if members.is_empty() {
        return Err(invalid(format!("Group {group_id} is empty, so no group snapshot can be made of it.")));
    }
    let whole = GroupSnapshot {
        id: id::new(),
        project_id: ctx.project_id().to_owned(),
        user_id: ctx.user_id().to_owned(),
        group_id: group_id.to_owned(),
        group_type: group.group_type.clone(),
        name: name.clone(),
        description: description.clone(),
        status: "creating".into(),
    };
    let made = tx.insert(&whole).await?;
    for volume in members {
        let new = NewSnapshot {
            volume_id: volume.record.id,
            name: name.clone(),
            description: description.clone(),
            force: true,
            group_snapshot_id: Some(made.record.id.clone()),
            ..NewSnapshot::default()
        };
        snapshots::take_in(tx, ctx, new).await?;
    }
    Ok(made)
}

/// Marks a group's snapshot and all its parts for deletion; gives their volumes. Its record goes with the last part.
pub async fn drop_snapshot_in(tx: &mut Tx, id: &str) -> Result<Vec<String>, Fault> {
    let Some(mut whole) = tx.get::<GroupSnapshot>(id).await? else { return Ok(Vec::new()) };
    if !matches!(whole.status.as_str(), "available" | "error") {
        return Err(fault::invalid_snapshot(format!(
            "GroupSnapshot status must be available or error, but current status is: {}",
            whole.status
        )));
    }
    let mut touched = Vec::new();
    for part in snapshots_in(tx, id).await?.into_iter().filter(|s| !s.delete) {
        touched.push(part.volume_id.clone());
        snapshots::begin_delete_in(tx, part, true).await?;
    }
    if snapshots_in(tx, id).await?.is_empty() {
        tx.delete::<GroupSnapshot>(id).await?;
    } else {
        whole.record.status = "deleting".into();
        tx.update(&whole).await?;
    }
    Ok(touched)
}

/// The last part of a group's snapshot that goes takes it along.
pub(crate) async fn snapshot_gone_in(tx: &mut Tx, gone: &Snapshot) -> Result<(), Fault> {
    let Some(of) = &gone.group_snapshot_id else { return Ok(()) };
    let whole = tx.get::<GroupSnapshot>(of).await?;
    if whole.is_some_and(|w| w.status == "deleting") && snapshots_in(tx, of).await?.is_empty() {
        tx.delete::<GroupSnapshot>(of).await?;
    }
    Ok(())
}

/// A snapshot of a group's volume has another status: the group's own follows when all have ended.
pub(crate) async fn snapshot_settled_in(tx: &mut Tx, changed: &Stored<Snapshot>) -> Result<(), Fault> {
    let Some(of) = &changed.group_snapshot_id else { return Ok(()) };
    let Some(mut whole) = tx.get::<GroupSnapshot>(of).await? else { return Ok(()) };
    if whole.status != "creating" {
        return Ok(());
    }
    let all = snapshots_in(tx, of).await?;
    let status = |s: &Stored<Snapshot>| if s.record.id == changed.record.id { changed.status } else { s.status };
    if all.iter().any(|s| status(s) == SnapshotStatus::Creating) {
        return Ok(());
    }
    let failed = all.iter().any(|s| status(s) != SnapshotStatus::Available);
    whole.record.status = if failed { "error" } else { "available" }.to_owned();
    tx.update(&whole).await?;
    Ok(())
}
