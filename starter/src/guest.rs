//! The files of our own that go into the guest, one line each: where they land, who may run them, and their content.
//! They are plain files below `starter/guest/`, compiled in, so the program that builds the image is one file.

/// A file of the guest.
pub struct GuestFile {
    pub path: &'static str,
    pub mode: u16,
    pub content: &'static [u8],
}

macro_rules! guest_files {
    ($($path:literal $mode:literal $source:literal)*) => {
        &[$(GuestFile { path: $path, mode: $mode, content: include_bytes!(concat!("../guest/", $source)) }),*]
    };
}

/// Where the initrd's program lands in the initrd; every other path is on the root disk.
pub const INITRD_INIT: &str = "init";

/// All of them. The first is the initrd's.
pub const ALL: &[GuestFile] = guest_files! {
    "init" 0o755 "initrd/init"
    "usr/lib/starter/boot" 0o755 "lib/boot"
    "usr/lib/starter/say" 0o644 "lib/say"
    "usr/lib/starter/devices" 0o644 "lib/devices"
    "usr/lib/starter/network" 0o644 "lib/network"
    "usr/lib/starter/dhcp" 0o755 "lib/dhcp"
    "usr/lib/starter/source" 0o644 "lib/source"
    "usr/lib/starter/json.awk" 0o644 "lib/json.awk"
    "usr/lib/starter/identity" 0o644 "lib/identity"
    "usr/lib/starter/ssh" 0o644 "lib/ssh"
    "usr/lib/starter/user-data" 0o755 "lib/user-data"
    "usr/lib/starter/cloud-config" 0o755 "lib/cloud-config"
    "usr/lib/starter/cloud-config.awk" 0o644 "lib/cloud-config.awk"
    "usr/lib/starter/console" 0o755 "lib/console"
    "usr/bin/curl" 0o755 "bin/curl"
    "etc/passwd" 0o644 "etc/passwd"
    "etc/group" 0o644 "etc/group"
    "etc/shadow" 0o600 "etc/shadow"
    "etc/shells" 0o644 "etc/shells"
    "etc/hosts" 0o644 "etc/hosts"
    "etc/hostname" 0o644 "etc/hostname"
    "etc/nsswitch.conf" 0o644 "etc/nsswitch.conf"
    "etc/profile" 0o644 "etc/profile"
    "etc/sudoers" 0o440 "etc/sudoers"
    "etc/pam.d/sudo" 0o644 "etc/pam-sudo"
    "etc/inittab" 0o644 "etc/inittab"
    "etc/os-release" 0o644 "etc/os-release"
    "etc/issue" 0o644 "etc/issue"
    "etc/acpi/PWRF/00000080" 0o755 "etc/power-button"
};
