//! The states of a volume and the only rules by which they change. Pure.
//!
//! A user's verb sets a status and what the host shall make true; the host's observation ends it:
//!
//! ```text
//!            create             host: fetching              host: made
//!   (none) ---------> creating ---------------> downloading ----------> available <--> reserved, in-use, detaching
//!                        | no host, or it failed                          |   ^
//!                        v                                                |   | host: done
//!                      error                     extend, revert, reimage, v   |
//!                                                upload, clone of image: extending, reverting, downloading, uploading
//!                                                                         | host: failed
//!                                                                         v
//!                                                    error_extending, error   (an upload: back, and a message)
//!   any --delete--> deleting --host: gone--> (none)
//! ```
//!
//! While a server waits for it, a volume that is made goes on to `reserved` or `in-use`: what it rests in follows from
//! its attachments ([`Use`]).
use crate::tables::{Seen, Volume};
use pilvi_fleet::ImageStage;
use serde::{Deserialize, Serialize};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $(#[serde(rename = $text)] $variant),+ }
        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use names;

names! {
    /// As Cinder spells `status`.
    Status {
        Creating = "creating", Downloading = "downloading", Available = "available", Reserved = "reserved",
        Attaching = "attaching", InUse = "in-use", Detaching = "detaching", Maintenance = "maintenance",
        Extending = "extending", Reverting = "reverting", Uploading = "uploading", Retyping = "retyping",
        BackingUp = "backing-up", RestoringBackup = "restoring-backup",
        AwaitingTransfer = "awaiting-transfer", Deleting = "deleting", Error = "error", ErrorDeleting = "error_deleting",
        ErrorExtending = "error_extending", ErrorBackingUp = "error_backing-up", ErrorRestoring = "error_restoring",
        ErrorManaging = "error_managing", ErrorManagingDeleting = "error_managing_deleting", Managing = "managing",
    }
}

impl Status {
    /// Is it one of the states that nothing but an operator or a deletion leads out of?
    pub fn is_error(self) -> bool {
        self.as_str().starts_with("error")
    }
}

/// How its attachments use a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Nobody,
    /// Somebody will.
    Reserved,
    Attached,
}

/// What a volume is when nothing is being done with it.
pub fn resting(used: Use) -> Status {
    match used {
        Use::Nobody => Status::Available,
        Use::Reserved => Status::Reserved,
        Use::Attached => Status::InUse,
    }
}

/// What an observation came to, besides the new status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its bytes are there.
    Made,
    /// The size that is held in placement may be another now.
    Resized,
    NotMade,
    NotExtended,
    NotReverted,
    NotReimaged,
    Uploaded,
    NotUploaded,
}

/// Takes what the host said of a volume that is used like this.
pub fn settle(volume: &mut Volume, seen: Seen, used: Use, now_us: i64) -> Vec<Ended> {
    let wanted = &volume.wanted;
    let current = seen.settled && seen.generation >= wanted.generation;
    let failed = current && !seen.error.is_empty();
    let done =
        current && !failed && seen.bytes > 0 && seen.reverts >= wanted.reverts && seen.reimages >= wanted.reimages;
    // What is made of an image is fetched first.
    let fetching = volume.image.is_some() && seen.step == MAKING;
    volume.seen = Some(seen);
    let mut ended = Vec::new();
    if volume.wanted.delete {
        return ended;
    }
    ended.extend(settle_upload(volume, used));
    if done {
        ended.extend(completed(volume, used, now_us));
    } else if failed {
        ended.extend(refused(volume));
    } else if fetching && volume.status == Status::Creating {
        volume.status = Status::Downloading;
    }
    ended
}

/// What a host calls it when it makes a volume.
const MAKING: &str = "making";

fn completed(volume: &mut Volume, used: Use, now_us: i64) -> Option<Ended> {
    let first = !std::mem::replace(&mut volume.made, true);
    match volume.status {
        // One that failed at first may be made after all, as long as nobody removes it.
        Status::Creating | Status::Downloading | Status::Error if first => {
            volume.status = resting(used);
            volume.launched_us = Some(now_us);
            Some(Ended::Made)
        }
        Status::Extending => {
            volume.size_gib = volume.wanted.size_gib;
            volume.previous_status = None;
            volume.status = resting(used);
            Some(Ended::Resized)
        }
        // Made anew of an image, or of a snapshot.
        Status::Downloading | Status::Reverting | Status::RestoringBackup if volume.previous_status.is_some() => {
            volume.previous_status = None;
            volume.status = resting(used);
            Some(Ended::Made)
        }
        _ => None,
    }
}

fn refused(volume: &mut Volume) -> Option<Ended> {
    let (status, ended) = match volume.status {
        Status::Creating | Status::Downloading if !volume.made => (Status::Error, Ended::NotMade),
        Status::Extending => {
            // Not asked for again: the host keeps what it has.
            volume.wanted.size_gib = volume.size_gib;
            volume.wanted.generation += 1;
            (Status::ErrorExtending, Ended::NotExtended)
        }
        Status::Reverting => (Status::Error, Ended::NotReverted),
        Status::Downloading => (Status::Error, Ended::NotReimaged),
        Status::RestoringBackup => (Status::ErrorRestoring, Ended::NotReimaged),
        _ => return None,
    };
    (volume.status, volume.previous_status) = (status, None);
    Some(ended)
}

fn settle_upload(volume: &mut Volume, used: Use) -> Option<Ended> {
    let upload = volume.wanted.upload.clone().filter(|u| !u.failed)?;
    let seen = volume.seen.as_ref()?.upload.as_ref().filter(|s| s.image_id == upload.image_id)?;
    let ended = match &seen.stage {
        ImageStage::Packing | ImageStage::Uploading => return None,
        ImageStage::Done | ImageStage::Gone => {
            volume.wanted.upload = None;
            Ended::Uploaded
        }
        // The image is still there: the reconciler removes it.
        ImageStage::Failed(_) => {
            volume.wanted.upload = Some(crate::tables::Upload { failed: true, ..upload });
            Ended::NotUploaded
        }
    };
    if matches!(volume.status, Status::Uploading | Status::BackingUp) {
        volume.previous_status = None;
        volume.status = resting(used);
    }
    Some(ended)
}

/// States in which a volume may be deleted without force.
pub const DELETABLE: &[Status] =
    &[Status::Available, Status::Error, Status::ErrorRestoring, Status::ErrorExtending, Status::ErrorManaging];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tables::{Upload, Wanted};
    use pilvi_fleet::{ImageFile, SeenImage};

    pub fn volume() -> Volume {
        Volume {
            id: "v".into(),
            project_id: "p".into(),
            user_id: "u".into(),
            name: None,
            description: None,
            size_gib: 1,
            status: Status::Creating,
            previous_status: None,
            migration_status: None,
            bootable: false,
            multiattach: false,
            read_only: None,
            volume_type: "t".into(),
            zone: "nova".into(),
            zone_pinned: false,
            host: Some("h".into()),
            pinned_host: None,
            same_host: vec![],
            different_host: vec![],
            snapshot_id: None,
            snapshot_volume_id: None,
            source_volid: None,
            image: None,
            image_metadata: Default::default(),
            metadata: Default::default(),
            group_id: None,
            wanted: Wanted { generation: 1, size_gib: 1, ..Wanted::default() },
            seen: None,
            made: false,
            launched_us: None,
            request_id: String::new(),
        }
    }

    fn well(volume: &Volume) -> Seen {
        Seen {
            generation: volume.wanted.generation,
            settled: true,
            bytes: volume.wanted.size_gib << 30,
            reverts: volume.wanted.reverts,
            reimages: volume.wanted.reimages,
            ..Seen::default()
        }
    }

    #[test]
    fn a_volume_of_an_image_is_fetched_made_and_rests_as_it_is_used() {
        let mut v = volume();
        let making = Seen { generation: 1, step: "making".into(), ..Seen::default() };
        assert_eq!(settle(&mut v, making.clone(), Use::Nobody, 5), vec![]);
        assert_eq!(v.status, Status::Creating);
        v.image = Some(ImageFile { id: "i".into(), sha512: "h".into(), size: 1, disk_format: "raw".into() });
        assert_eq!(settle(&mut v, making, Use::Nobody, 5), vec![]);
        assert_eq!(v.status, Status::Downloading);
        let seen = well(&v);
        assert_eq!(settle(&mut v, seen, Use::Reserved, 5), vec![Ended::Made]);
        assert_eq!((v.status, v.made, v.launched_us), (Status::Reserved, true, Some(5)));
    }

    #[test]
    fn what_cannot_be_made_is_an_error_until_it_is_made_after_all() {
        let mut v = volume();
        let seen = Seen { generation: 1, settled: true, error: "disk full".into(), ..Seen::default() };
        assert_eq!(settle(&mut v, seen, Use::Nobody, 5), vec![Ended::NotMade]);
        assert_eq!((v.status, v.made), (Status::Error, false));
        let seen = well(&v);
        assert_eq!(settle(&mut v, seen.clone(), Use::Nobody, 6), vec![Ended::Made]);
        // Once made, an error that an operator set stays.
        v.status = Status::Error;
        assert_eq!(settle(&mut v, seen, Use::Nobody, 7), vec![]);
        assert_eq!(v.status, Status::Error);
    }

    #[test]
    fn an_extension_shows_when_it_is_done_and_is_taken_back_when_it_fails() {
        let mut v = volume();
        (v.made, v.status, v.wanted.size_gib, v.wanted.generation) = (true, Status::Extending, 3, 2);
        let stale = Seen { generation: 1, ..well(&v) };
        assert_eq!(settle(&mut v, stale, Use::Attached, 5), vec![]);
        assert_eq!((v.size_gib, v.status), (1, Status::Extending));
        let seen = well(&v);
        assert_eq!(settle(&mut v, seen, Use::Attached, 5), vec![Ended::Resized]);
        assert_eq!((v.size_gib, v.status), (3, Status::InUse));
        (v.status, v.wanted.size_gib, v.wanted.generation) = (Status::Extending, 9, 3);
        let seen = Seen { error: "no space".into(), ..well(&v) };
        assert_eq!(settle(&mut v, seen, Use::Nobody, 5), vec![Ended::NotExtended]);
        assert_eq!((v.size_gib, v.wanted.size_gib, v.wanted.generation, v.status), (3, 3, 4, Status::ErrorExtending));
    }

    #[test]
    fn reverts_and_reimages_end_by_their_counters() {
        let mut v = volume();
        (v.made, v.status, v.previous_status) = (true, Status::Reverting, Some(Status::Available));
        (v.wanted.reverts, v.wanted.generation) = (1, 2);
        let early = Seen { reverts: 0, ..well(&v) };
        assert_eq!(settle(&mut v, early, Use::Nobody, 5), vec![]);
        let seen = well(&v);
        assert_eq!(settle(&mut v, seen, Use::Nobody, 5), vec![Ended::Made]);
        assert_eq!(v.status, Status::Available);
        (v.status, v.previous_status, v.wanted.reimages, v.wanted.generation) =
            (Status::Downloading, Some(Status::Reserved), 1, 3);
        let seen = Seen { error: "hash differs".into(), ..well(&v) };
        assert_eq!(settle(&mut v, seen, Use::Reserved, 5), vec![Ended::NotReimaged]);
        assert_eq!(v.status, Status::Error);
    }

    #[test]
    fn an_upload_ends_by_its_image_and_a_failed_one_leaves_it_to_be_removed() {
        let mut v = volume();
        (v.made, v.status) = (true, Status::Uploading);
        v.wanted.upload = Some(Upload { image_id: "i".into(), failed: false });
        let says = |v: &Volume, stage| Seen { upload: Some(SeenImage { image_id: "i".into(), stage }), ..well(v) };
        let seen = says(&v, ImageStage::Uploading);
        assert_eq!(settle(&mut v, seen, Use::Nobody, 5), vec![]);
        let seen = says(&v, ImageStage::Failed("cut off".into()));
        assert_eq!(settle(&mut v, seen.clone(), Use::Nobody, 5), vec![Ended::NotUploaded]);
        assert_eq!((v.status, v.wanted.upload.as_ref().map(|u| u.failed)), (Status::Available, Some(true)));
        // Said again, it ends nothing.
        assert_eq!(settle(&mut v, seen, Use::Nobody, 5), vec![]);
    }

    #[test]
    fn nothing_that_a_host_says_holds_up_a_deletion() {
        let mut v = volume();
        (v.wanted.delete, v.status) = (true, Status::Deleting);
        let seen = well(&v);
        assert_eq!(settle(&mut v, seen, Use::Nobody, 5), vec![]);
        assert_eq!(v.status, Status::Deleting);
    }
}
