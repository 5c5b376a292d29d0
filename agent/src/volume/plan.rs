//! What to do next for one volume: pure, from what is wanted and what is found.
//!
//! ```text
//!  found                            step
//!  not made yet                     Make (of its image, snapshot, volume, or empty), once
//!  made, but its file is gone       Lost: never made anew in silence
//!  a snapshot that is not wanted    Drop
//!  counters below the wanted ones   Reimage, Revert (while nobody uses it)
//!  smaller than wanted              Grow
//!  a snapshot never taken           Take (users held)
//!  an image never made of it        Copy (users held), Upload (in the background), Uploaded, Sweep
//! ```
//! One step, then another look: an agent that died between any two of them just goes on.
use super::doc::Doc;
use crate::snapshot::SnapshotStep;
use pilvi_agent_api::v1::Volume;

/// What was found of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub doc: Doc,
    /// Length of its file in bytes, if that is there.
    pub bytes: Option<u64>,
    /// What its way to an image needs next.
    pub upload: Option<SnapshotStep>,
}

/// One thing to do. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Make,
    /// It was made and has no file any more.
    Lost,
    Reimage,
    Revert,
    Grow,
    /// The volume as it is becomes the snapshot of this id.
    Take(String),
    Drop(String),
    /// On its way to becoming an image.
    Image(SnapshotStep),
}

impl Step {
    /// What the agent is doing, for the observation.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Make => "making",
            Self::Lost => "missing",
            Self::Reimage => "reimaging",
            Self::Revert => "reverting",
            Self::Grow => "growing",
            Self::Take(_) => "taking a snapshot",
            Self::Drop(_) => "removing a snapshot",
            Self::Image(_) => "becoming an image",
        }
    }
}

/// Plans the next step; none when all is as wanted.
#[must_use]
pub fn plan(wanted: &Volume, found: &Found) -> Option<Step> {
    let doc = &found.doc;
    if !doc.made {
        return Some(Step::Make);
    }
    let Some(bytes) = found.bytes else { return Some(Step::Lost) };
    if let Some(id) = doc.snapshots.keys().find(|id| !wanted.snapshots.contains(id)) {
        return Some(Step::Drop(id.clone()));
    }
    if wanted.reimages > doc.reimages {
        return Some(Step::Reimage);
    }
    if wanted.reverts > doc.reverts {
        return Some(Step::Revert);
    }
    if wanted.size_gib << 30 > bytes {
        return Some(Step::Grow);
    }
    if let Some(id) = wanted.snapshots.iter().find(|id| !doc.snapshots.contains_key(*id)) {
        return Some(Step::Take(id.clone()));
    }
    found.upload.map(Step::Image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::doc::Taken;

    fn found(bytes: u64) -> Found {
        Found { doc: Doc { made: true, ..Doc::default() }, bytes: Some(bytes), upload: None }
    }

    #[test]
    fn it_is_made_once() {
        let wanted = Volume { size_gib: 1, ..Volume::default() };
        assert_eq!(plan(&wanted, &Found::default()), Some(Step::Make));
        assert_eq!(plan(&wanted, &Found { bytes: Some(1), ..Found::default() }), Some(Step::Make));
        assert_eq!(plan(&wanted, &found(1 << 30)), None);
        assert_eq!(plan(&wanted, &Found { bytes: None, ..found(0) }), Some(Step::Lost));
    }

    #[test]
    fn it_grows_and_never_shrinks() {
        let wanted = |size_gib| Volume { size_gib, ..Volume::default() };
        assert_eq!(plan(&wanted(2), &found(1 << 30)), Some(Step::Grow));
        assert_eq!(plan(&wanted(1), &found(2 << 30)), None);
    }

    #[test]
    fn snapshots_follow_what_is_wanted() {
        let mut at = found(1 << 30);
        let wanted = Volume { size_gib: 1, snapshots: vec!["new".into()], ..Volume::default() };
        assert_eq!(plan(&wanted, &at), Some(Step::Take("new".into())));
        at.doc.snapshots.insert("new".into(), Taken { error: "no room".into(), bytes: 0 });
        assert_eq!(plan(&wanted, &at), None, "a failed one is not tried again");
        at.doc.snapshots.insert("old".into(), Taken::default());
        assert_eq!(plan(&wanted, &at), Some(Step::Drop("old".into())));
    }

    #[test]
    fn going_back_comes_before_growing() {
        let wanted = Volume { size_gib: 2, reverts: 1, reimages: 1, ..Volume::default() };
        let mut at = found(1 << 30);
        assert_eq!(plan(&wanted, &at), Some(Step::Reimage));
        at.doc.reimages = 1;
        assert_eq!(plan(&wanted, &at), Some(Step::Revert));
        at.doc.reverts = 1;
        assert_eq!(plan(&wanted, &at), Some(Step::Grow));
    }
}
