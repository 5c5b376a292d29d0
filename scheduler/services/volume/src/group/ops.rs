//! What a group's snapshots come to together.
use crate::{
    snapshot::model::SnapshotStatus,
    tables::{GroupSnapshot, Snapshot},
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Stored, Tx};

/// A snapshot of a group's volume has another status: the group's own follows when all have ended.
pub(crate) async fn snapshot_settled_in(tx: &mut Tx, changed: &Stored<Snapshot>) -> Result<(), Fault> {
    let Some(of) = &changed.group_snapshot_id else { return Ok(()) };
    let Some(mut whole) = tx.get::<GroupSnapshot>(of).await? else { return Ok(()) };
    if whole.status != "creating" {
        return Ok(());
    }
    let all = tx.list::<Snapshot>(Query::all().eq("group_snapshot_id", of.as_str())).await?;
    let status = |s: &Stored<Snapshot>| if s.record.id == changed.record.id { changed.status } else { s.status };
    if all.iter().any(|s| status(s) == SnapshotStatus::Creating) {
        return Ok(());
    }
    let failed = all.iter().any(|s| status(s) != SnapshotStatus::Available);
    whole.record.status = if failed { "error" } else { "available" }.to_owned();
    tx.update(&whole).await?;
    Ok(())
}
