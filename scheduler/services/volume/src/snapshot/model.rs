//! The states of a snapshot. Pure.
//!
//! ```text
//!  create --> creating --host: there--> available --delete--> deleting --host: not there any more--> (none)
//!                 '------host: failed--> error --------delete-----^
//! ```
use crate::{
    tables::{Seen, Snapshot},
    volume::model::names,
};
use serde::{Deserialize, Serialize};

names! {
    /// As Cinder spells `status`.
    SnapshotStatus {
        Creating = "creating", Available = "available", Deleting = "deleting", Error = "error",
        ErrorDeleting = "error_deleting", Restoring = "restoring", Unmanaging = "unmanaging", BackingUp = "backing-up",
    }
}

/// What the volume's observation makes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Stays,
    /// Its record has changed.
    Changed,
    Failed,
    /// The host has it no more.
    Gone,
}

/// Takes what the host said of the volume whose snapshot this is.
pub fn settle(snapshot: &mut Snapshot, seen: &Seen) -> Next {
    let there = seen.snapshots.iter().find(|s| s.id == snapshot.id);
    if snapshot.delete {
        let gone = there.is_none() && seen.settled && seen.generation >= snapshot.generation;
        return if gone { Next::Gone } else { Next::Stays };
    }
    match there {
        Some(there) if snapshot.status == SnapshotStatus::Creating && snapshot.progress != "100%" => {
            if !there.error.is_empty() {
                snapshot.status = SnapshotStatus::Error;
                return Next::Failed;
            }
            snapshot.status = SnapshotStatus::Available;
            snapshot.progress = "100%".to_owned();
            Next::Changed
        }
        _ => Next::Stays,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tables::SeenSnapshot;

    pub fn snapshot() -> Snapshot {
        Snapshot {
            id: "s".into(),
            project_id: "p".into(),
            user_id: "u".into(),
            volume_id: "v".into(),
            volume_type: "t".into(),
            size_gib: 1,
            name: None,
            description: None,
            status: SnapshotStatus::Creating,
            progress: "0%".into(),
            metadata: Default::default(),
            bootable: false,
            image_metadata: Default::default(),
            group_snapshot_id: None,
            delete: false,
            generation: 2,
            request_id: String::new(),
        }
    }

    fn says(generation: u64, there: Option<&str>) -> Seen {
        let snapshots =
            there.map(|error| SeenSnapshot { id: "s".into(), error: error.into(), bytes: 1 }).into_iter().collect();
        Seen { generation, settled: true, snapshots, ..Seen::default() }
    }

    #[test]
    fn it_is_there_when_the_host_says_so_and_gone_when_a_newer_wish_is_met() {
        let mut s = snapshot();
        assert_eq!(settle(&mut s, &says(2, None)), Next::Stays);
        assert_eq!(settle(&mut s, &says(2, Some(""))), Next::Changed);
        assert_eq!((s.status, s.progress.as_str()), (SnapshotStatus::Available, "100%"));
        // What an operator set stays.
        s.status = SnapshotStatus::Creating;
        assert_eq!(settle(&mut s, &says(2, Some(""))), Next::Stays);
        (s.delete, s.generation) = (true, 3);
        assert_eq!(settle(&mut s, &says(2, None)), Next::Stays);
        assert_eq!(settle(&mut s, &says(3, Some(""))), Next::Stays);
        assert_eq!(settle(&mut s, &says(3, None)), Next::Gone);
    }

    #[test]
    fn what_cannot_be_taken_is_an_error() {
        let mut s = snapshot();
        assert_eq!(settle(&mut s, &says(2, Some("no space"))), Next::Failed);
        assert_eq!(s.status, SnapshotStatus::Error);
    }
}
