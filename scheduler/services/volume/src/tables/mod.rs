//! The records of the volume service: the only files that name a column.
mod backup;
mod catalogue;
mod group;
mod trail;
mod volume;

pub use backup::Backup;
pub use catalogue::{DefaultType, QosSpec, VolumeType};
pub use group::{Group, GroupSnapshot, GroupType};
pub use trail::{HostService, Message, Transfer};
pub use volume::{Attachment, Seen, SeenSnapshot, Snapshot, Upload, Volume, Wanted};

use pilvi_store::KindSpec;

pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<Volume>(),
        KindSpec::of::<Snapshot>(),
        KindSpec::of::<Attachment>(),
        KindSpec::of::<VolumeType>(),
        KindSpec::of::<QosSpec>(),
        KindSpec::of::<DefaultType>(),
        KindSpec::of::<Group>(),
        KindSpec::of::<GroupType>(),
        KindSpec::of::<GroupSnapshot>(),
        KindSpec::of::<Transfer>(),
        KindSpec::of::<Message>(),
        KindSpec::of::<HostService>(),
        KindSpec::of::<Backup>(),
    ]
}
