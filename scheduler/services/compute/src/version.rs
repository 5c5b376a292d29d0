//! Microversions of the compute API that change what this service does, newest first.
use pilvi_kit::{Microversions, Version};

pub const MIN: Version = Version(2, 1);
pub const MAX: Version = Version(2, 104);

/// Scheduler hints shown with a server.
pub const HINTS_SHOWN: Version = Version(2, 100);
/// Image properties shown with a server.
pub const IMAGE_PROPERTIES_SHOWN: Version = Version(2, 98);
/// `pinned_availability_zone` shown with a server.
pub const PINNED_ZONE: Version = Version(2, 96);
/// Key pairs are only imported, never made.
pub const KEYS_IMPORTED_ONLY: Version = Version(2, 92);
/// `hostname` may be asked for and is shown to its owner.
pub const HOSTNAME: Version = Version(2, 90);
/// Servers and rebuilds with strict query and uniform answers.
pub const UNIFORM_SERVERS: Version = Version(2, 75);
/// `host` and `hypervisor_hostname` may be asked for.
pub const NAMED_HOST: Version = Version(2, 74);
/// Lock with a reason.
pub const LOCK_REASON: Version = Version(2, 73);
/// `server_groups` shown with a server.
pub const SERVER_GROUPS_SHOWN: Version = Version(2, 71);
/// A live migration cannot be forced on a host any more.
pub const NOTHING_FORCED: Version = Version(2, 68);
/// `volume_type` of a block device.
pub const DEVICE_VOLUME_TYPE: Version = Version(2, 67);
/// `trusted_image_certificates`.
pub const TRUSTED_CERTIFICATES: Version = Version(2, 63);
/// Instance actions page and show `updated_at`.
pub const ACTION_PAGES: Version = Version(2, 58);
/// User data in rebuild; no personality.
pub const REBUILD_USER_DATA: Version = Version(2, 57);
/// A cold migration may name the host.
pub const COLD_MIGRATION_HOST: Version = Version(2, 56);
/// Key in rebuild.
pub const REBUILD_KEY: Version = Version(2, 54);
/// Tags at creation.
pub const TAGS_AT_CREATION: Version = Version(2, 52);
/// The flavor's content is part of the server.
pub const FLAVOR_EMBEDDED: Version = Version(2, 47);
/// Tags of block devices, after a pause.
pub const DEVICE_TAGS: Version = Version(2, 42);
/// No `networks` member is an error; `auto` and `none` are words.
pub const NETWORKS_NEEDED: Version = Version(2, 37);
/// A live migration is checked after it was accepted.
pub const MIGRATION_IN_BACKGROUND: Version = Version(2, 34);
/// Tags of block devices are left out again.
pub const NO_DEVICE_TAGS: Version = Version(2, 33);
/// Tags of block devices.
pub const FIRST_DEVICE_TAGS: Version = Version(2, 32);
/// A live migration may be forced on a host.
pub const FORCED_MIGRATION: Version = Version(2, 30);
/// Tags shown and filtered by.
pub const TAGS: Version = Version(2, 26);
/// `block_migration` may be left to the cloud.
pub const BLOCK_MIGRATION_AUTO: Version = Version(2, 25);
/// `description`.
pub const DESCRIPTION: Version = Version(2, 19);
/// `host_status` shown to administrators.
pub const HOST_STATUS: Version = Version(2, 16);
/// `locked` shown.
pub const LOCKED_SHOWN: Version = Version(2, 9);
/// Extended attributes of a server for administrators.
pub const EXTENDED_ATTRIBUTES: Version = Version(2, 3);

pub fn versions() -> Microversions {
    Microversions {
        service_type: "compute",
        legacy_header: Some("x-openstack-nova-api-version"),
        min: MIN,
        max: MAX,
        default: MIN,
    }
}
