//! Microversions of the volume API that change what a route does, newest first. Those that only bring routes stand with
//! the routes; those that change nothing here (encryption keys, shared targets that are null) are spoken all the same.
use pilvi_kit::{Microversions, Version};

pub const MIN: Version = Version(3, 0);
pub const MAX: Version = Version(3, 71);

/// Who extends a volume in use may say how it ended.
pub const EXTEND_COMPLETION: Version = Version(3, 71);
/// A volume may be made anew of an image.
pub const REIMAGE: Version = Version(3, 68);
/// Volumes in use have snapshots without `force`.
pub const SNAPSHOT_IN_USE: Version = Version(3, 66);
/// `consumes_quota` shown and filtered by.
pub const USE_QUOTA: Version = Version(3, 65);
/// `volume_type_id` shown.
pub const VOLUME_TYPE_ID: Version = Version(3, 63);
/// `cluster_name` shown to administrators.
pub const CLUSTER_NAME: Version = Version(3, 61);
/// Volumes filtered by comparing times.
pub const TIME_FILTER: Version = Version(3, 60);
/// `project_id` of groups and their snapshots.
pub const GROUP_PROJECT: Version = Version(3, 58);
/// Transfers say from whom to whom.
pub const TRANSFER_HISTORY: Version = Version(3, 57);
/// Transfers with snapshots, at a path of their own.
pub const TRANSFER_SNAPSHOTS: Version = Version(3, 55);
/// `mode` of a new attachment.
pub const ATTACH_MODE: Version = Version(3, 54);
/// Bodies with unknown members are refused.
pub const STRICT_BODIES: Version = Version(3, 53);
/// Types filtered by extra specs.
pub const TYPE_FILTER: Version = Version(3, 52);
/// `backend_state` shown of services.
pub const BACKEND_STATE: Version = Version(3, 49);
/// `shared_targets` and `service_uuid` shown.
pub const SHARED_TARGETS: Version = Version(3, 48);
/// `with_count`.
pub const COUNT: Version = Version(3, 45);
/// Volumes in use are extended.
pub const EXTEND_IN_USE: Version = Version(3, 42);
/// `user_id` of snapshots.
pub const SNAPSHOT_USER: Version = Version(3, 41);
/// A volume goes back to its newest snapshot.
pub const REVERT: Version = Version(3, 40);
/// Limits of another project.
pub const LIMITS_OF_PROJECT: Version = Version(3, 39);
/// The summary names all metadata.
pub const SUMMARY_METADATA: Version = Version(3, 36);
/// Pools filtered by type.
pub const POOL_TYPE: Version = Version(3, 35);
/// Filters that look inside (`name~`).
pub const LIKE_FILTER: Version = Version(3, 34);
/// Unknown filters are refused.
pub const STRICT_FILTERS: Version = Version(3, 31);
/// Pools filtered.
pub const POOL_FILTER: Version = Version(3, 28);
/// Groups list their volumes.
pub const GROUP_VOLUMES: Version = Version(3, 25);
/// Deletion by force.
pub const FORCED_DELETE: Version = Version(3, 23);
/// Snapshots filtered by metadata.
pub const SNAPSHOT_METADATA_FILTER: Version = Version(3, 22);
/// `provider_id` shown to administrators.
pub const PROVIDER_ID: Version = Version(3, 21);
/// Snapshots of groups, and groups of them.
pub const GROUP_SNAPSHOTS: Version = Version(3, 14);
/// Groups of volumes.
pub const GROUPS: Version = Version(3, 13);
/// Volumes filtered by group.
pub const GROUP_FILTER: Version = Version(3, 10);
/// Clusters.
pub const CLUSTERS: Version = Version(3, 7);
/// Messages page.
pub const MESSAGE_PAGES: Version = Version(3, 5);
/// Volumes filtered by image metadata.
pub const IMAGE_METADATA_FILTER: Version = Version(3, 4);
/// `bootable` is filtered by strictly.
pub const STRICT_BOOTABLE: Version = Version(3, 2);
/// Uploads say who may see the image.
pub const UPLOAD_VISIBILITY: Version = Version(3, 1);

pub fn versions() -> Microversions {
    Microversions { service_type: "volume", legacy_header: None, min: MIN, max: MAX, default: MIN }
}
