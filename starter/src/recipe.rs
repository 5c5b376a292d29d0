//! What goes into the image, as data: the packages, the files that are taken out of them, the kernel modules,
//! and the sizes. Whoever wants another program in the guest edits this file, or `tools.rs`, and nothing else.

use crate::tools;

/// What the image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// As small as it can be: what a new cloud boots first.
    #[default]
    Starter,
    /// With the programs of `tools.rs` besides.
    Tools,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Starter, Kind::Tools];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Starter => "starter",
            Kind::Tools => "tools",
        }
    }

    pub fn image(self) -> String {
        format!("{}.img", self.name())
    }

    pub fn manifest(self) -> String {
        format!("{}.json", self.name())
    }

    /// Everything that is fetched besides the kernel.
    pub fn packages(self) -> Vec<&'static str> {
        self.with(PACKAGES, tools::PACKAGES)
    }

    /// (package, path in the package, mode).
    pub fn files(self) -> Vec<(&'static str, &'static str, u16)> {
        self.with(FILES, tools::FILES)
    }

    /// Folders that are taken whole: (package, path in the package).
    pub fn folders(self) -> Vec<(&'static str, &'static str)> {
        self.with(&[], tools::FOLDERS)
    }

    /// (path, target).
    pub fn links(self) -> Vec<(&'static str, &'static str)> {
        self.with(LINKS, tools::LINKS)
    }

    /// Programs of BusyBox that get no link.
    pub fn no_applets(self) -> Vec<&'static str> {
        self.with(NO_APPLETS, tools::NO_APPLETS)
    }

    /// Files of our own that stay out.
    pub fn left_out(self) -> Vec<&'static str> {
        self.with(&[], tools::LEFT_OUT)
    }

    /// Lines at the end of a file of our own.
    pub fn further(self, path: &str) -> &'static str {
        let lines = self.with(&[], tools::FURTHER);
        lines.iter().find(|(p, _)| *p == path).map_or("", |(_, lines)| lines)
    }

    pub fn root_size(self) -> u64 {
        match self {
            Kind::Starter => ROOT_SIZE,
            Kind::Tools => tools::ROOT_SIZE,
        }
    }

    fn with<T: Clone>(self, base: &[T], more: &[T]) -> Vec<T> {
        match self {
            Kind::Starter => base.to_vec(),
            Kind::Tools => [base, more].concat(),
        }
    }
}

/// The Debian release that the image is made of. One release for every host, so that the same recipe gives the
/// same guest on Debian, Ubuntu or inside a container.
pub const RELEASE: &str = "bookworm";

/// Raised when the meaning of the output files changes (not for changes of guest files: those are hashed).
pub const FORMAT: u32 = 1;

/// All times in the image (seconds since 1970): 2026-01-01T00:00:00Z. Fixed, so that equal packages give equal bits.
pub const EPOCH: u64 = 1_767_225_600;

/// The meta package whose dependency is the newest cloud kernel.
pub const KERNEL_META: &str = "linux-image-cloud-amd64";

/// Everything that is fetched besides the kernel: first what the guest runs, then the libraries of those programs,
/// then the tools that only make the image (they run from their unpacked packages, never from the host).
pub const PACKAGES: &[&str] = &[
    "busybox-static",
    "dropbear-bin",
    "openssh-sftp-server",
    "sudo",
    "util-linux",
    "e2fsprogs",
    "libaudit1",
    "libblkid1",
    "libc6",
    "libcap-ng0",
    "libcom-err2",
    "libcrypt1",
    "libext2fs2",
    "libmount1",
    "libpam-modules",
    "libpam0g",
    "libpcre2-8-0",
    "libselinux1",
    "libsmartcols1",
    "libss2",
    "libtomcrypt1",
    "libtommath1",
    "libgmp10",
    "libudev1",
    "libuuid1",
    "zlib1g",
    "mtools",
    "syslinux",
    "syslinux-common",
];

/// Programs and data of the guest: (package, path in the package, mode). Shared libraries follow by themselves.
pub const FILES: &[(&str, &str, u16)] = &[
    ("dropbear-bin", "usr/sbin/dropbear", 0o755),
    ("dropbear-bin", "usr/bin/dropbearkey", 0o755),
    ("dropbear-bin", "usr/bin/dbclient", 0o755),
    ("openssh-sftp-server", "usr/lib/openssh/sftp-server", 0o755),
    ("sudo", "usr/bin/sudo", 0o4755),
    ("sudo", "usr/libexec/sudo/sudoers.so", 0o644),
    ("libpam-modules", "lib/x86_64-linux-gnu/security/pam_permit.so", 0o644),
    ("util-linux", "bin/lsblk", 0o755),
    ("util-linux", "sbin/blkid", 0o755),
    ("util-linux", "sbin/mkfs", 0o755),
    ("e2fsprogs", "sbin/mke2fs", 0o755),
    ("e2fsprogs", "sbin/resize2fs", 0o755),
    ("e2fsprogs", "etc/mke2fs.conf", 0o644),
];

/// Symbolic links of the guest besides those to BusyBox: (path, target).
pub const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("var/run", "../run"),
    ("etc/mtab", "../proc/self/mounts"),
    ("etc/resolv.conf", "../run/resolv.conf"),
    ("usr/bin/ssh", "dbclient"),
    ("usr/lib/sftp-server", "openssh/sftp-server"),
    ("usr/sbin/mkfs.ext2", "mke2fs"),
    ("usr/sbin/mkfs.ext3", "mke2fs"),
    ("usr/sbin/mkfs.ext4", "mke2fs"),
    ("usr/sbin/mkfs.vfat", "mkdosfs"),
];

/// BusyBox programs that stay out: they would pretend to be something that the guest has not, or hide a real one.
pub const NO_APPLETS: &[&str] =
    &["busybox", "dpkg", "dpkg-deb", "rpm", "rpm2cpio", "mke2fs", "linuxrc", "svc", "svok", "lsblk", "blkid"];

/// Modules that the initrd loads, in this order, after what each depends on: just enough to see the root disk.
pub const BOOT_MODULES: &[&str] = &["virtio_pci", "virtio_mmio", "virtio_blk"];

/// Modules on the root disk: loaded by what the guest finds, or on demand through modprobe.
pub const ROOT_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "virtio_console",
    "virtio_balloon",
    "virtio_scsi",
    "virtiofs",
    "vmw_vsock_virtio_transport",
    "sd_mod",
    "sr_mod",
    "ata_piix",
    "button",
    "evdev",
    "isofs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_utf8",
    "8021q",
    "dummy",
    "loop",
    "xfs",
];

/// Modules that the initrd holds for roots that are not virtio disks.
pub const SPARE_BOOT_MODULES: &[&str] = &["virtio_scsi", "sd_mod", "ata_piix"];

/// What the kernel is told, for both ways to boot. `root=` is looked up by the initrd, first disk first.
pub const COMMAND_LINE: &str = "root=LABEL=pilvi-root console=ttyS0,115200 quiet loglevel=4 panic=10 no_timer_check";

/// Label of the root file system.
pub const ROOT_LABEL: &str = "pilvi-root";

/// One MiB: partitions start and end on such borders.
pub const MIB: u64 = 1 << 20;
/// First partition: boot loader, kernel, initrd (FAT16).
pub const BOOT_SIZE: u64 = 22 * MIB;
/// Second partition: the root (ext4), grown to the end of the disk in the guest.
pub const ROOT_SIZE: u64 = 40 * MIB;
/// Promise to the user: the raw image without tools is not larger than this.
pub const MAX_IMAGE: u64 = 64 * MIB;
