//! The starter image: a small Linux guest that `pilvi image build` makes on the user's own machine out of Debian
//! packages, so that a new cloud has something to boot. Nothing binary is in our tree, nothing is installed on the
//! host, nothing needs root, and equal packages give equal bits.
//!
//! ```text
//! debian (fetch, verify) -> unpacked -> rootfs, modules (trees) -> cpio  -> initrd.img --.
//!                                                \-> ext4 ------------------------------+-> disk -> starter.img
//!                                                     fat (SYSLINUX, kernel, initrd) ---'
//!                                                                  starter.json appears last: the set is whole
//! ```
//!
//! A second kind, [`Kind::Tools`], is the same guest with the programs that people look for when they test a network
//! (`tools.rs`); its disk is `tools.img`, its manifest `tools.json`.
//!
//! The disk boots by SeaBIOS (SYSLINUX on a FAT partition) and, without a boot loader, from `vmlinuz` and
//! `initrd.img` with [`COMMAND_LINE`]. What the guest does after that is told in `starter/guest/`. By hand:
//!
//! ```text
//! cp --sparse=always starter.img disk && truncate -s 1G disk          # the guest grows into it
//! qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 256 -nodefaults -display none -serial stdio \
//!   -drive if=none,id=root,file=disk,format=raw -device virtio-blk-pci,drive=root -device virtio-rng-pci \
//!   -netdev user,id=net,hostfwd=tcp:127.0.0.1:2222-:22 -device virtio-net-pci,netdev=net,romfile= \
//!   [-kernel vmlinuz -initrd initrd.img -append "$COMMAND_LINE"]
//! ```
//!
//! Disks and NICs: virtio over PCI, or over MMIO if ACPI lists them (the kernel takes no MMIO devices from its command
//! line); IDE and virtio SCSI serve too, AHCI does not (Debian's cloud kernel has no driver). The console is ttyS0.

mod cpio;
mod debian;
mod disk;
mod elf;
mod error;
mod ext4;
mod fat;
mod guest;
mod manifest;
mod mbr;
mod modules;
mod recipe;
mod rootfs;
mod tool;
mod tools;
mod tree;
mod unpacked;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub use error::Error;
pub use manifest::{Manifest, Output, Package};
pub use recipe::{COMMAND_LINE, Kind};

use tool::Toolbox;
use unpacked::Unpacked;

const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";

/// What to build.
pub struct Request<'a> {
    pub kind: Kind,
    /// Folder for `starter.img`, `vmlinuz`, `initrd.img` and `starter.json`; made if missing. An older set is replaced.
    /// Each kind wants a folder of its own.
    pub out: PathBuf,
    /// Folder for downloads, kept between builds (about 45 MB of packages and 50 MB of package lists).
    pub cache: PathBuf,
    /// Called with a line for people at every step.
    pub progress: &'a dyn Fn(&str),
}

/// A whole set of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Raw disk with holes: 63 MiB, with tools 143.
    pub image: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub manifest: Manifest,
}

/// What the host must have: a program (or, with a leading slash, a file) and the Debian package that carries it.
pub fn needed_packages() -> &'static [(&'static str, &'static str)] {
    &[
        ("apt-get", "apt"),
        ("apt-cache", "apt"),
        ("dpkg-deb", "dpkg"),
        ("gpgv", "gpgv"),
        ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ]
}

/// The needed things that this host lacks: empty means that [`build`] can begin.
pub fn missing_packages() -> Vec<(&'static str, &'static str)> {
    let present = |program: &str| {
        if program.starts_with('/') { Path::new(program).exists() } else { tool::find(program).is_some() }
    };
    needed_packages().iter().copied().filter(|(program, _)| !present(program)).collect()
}

/// The set in `out`, if it is whole and was made by this version of the recipe. Sizes are compared, hashes are not:
/// see [`verify`].
pub fn cached(kind: Kind, out: &Path) -> Option<Built> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(out.join(kind.manifest())).ok()?).ok()?;
    let whole = [&manifest.image, &manifest.kernel, &manifest.initrd]
        .iter()
        .zip([&kind.image(), KERNEL, INITRD])
        .all(|(file, name)| file.name == name && fs::metadata(out.join(name)).is_ok_and(|m| m.len() == file.size));
    (whole && manifest.format == recipe::FORMAT && manifest.recipe == manifest::recipe_digest(kind))
        .then(|| built(kind, out, manifest))
}

/// Reads the three files and compares them with the manifest: `Ok(false)` if one was changed.
pub fn verify(built: &Built) -> Result<bool, Error> {
    for (path, wanted) in [
        (&built.image, &built.manifest.image),
        (&built.kernel, &built.manifest.kernel),
        (&built.initrd, &built.manifest.initrd),
    ] {
        if manifest::describe(path, &wanted.name)? != *wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the image; blocks for as long as it takes (half a minute with a fast network). Two builds into one folder
/// wait for each other, builds into different folders do not, and a killed one leaves the old set or none.
pub fn build(request: &Request<'_>) -> Result<Built, Error> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(Error::WrongMachine);
    }
    let (kind, out, progress) = (request.kind, absolute(&request.out)?, request.progress);
    let lock_path = out.join(".lock");
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    lock.lock().map_err(Error::io("lock", &lock_path))?;
    sweep(&out)?;
    let fetched = debian::fetch(kind, &absolute(&request.cache)?, progress)?;
    let work = tempfile::Builder::new().prefix(WORK).tempdir_in(&out).map_err(Error::io("create a folder in", &out))?;
    let manifest = assemble(kind, work.path(), fetched, progress)?;
    publish(kind, work.path(), &out, &manifest)?;
    progress(&format!("done: {} ({} MiB)", out.join(kind.image()).display(), manifest.image.size >> 20));
    Ok(built(kind, &out, manifest))
}

/// Prefix of working folders in the target folder.
const WORK: &str = ".starter-";

/// Removes what a killed build left. Called with the lock held.
fn sweep(out: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(out).map_err(Error::io("list", out))? {
        let entry = entry.map_err(Error::io("list", out))?;
        if entry.file_name().to_string_lossy().starts_with(WORK) {
            fs::remove_dir_all(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// The tools that make file systems, out of their packages.
fn toolbox(work: &Path, packages: &Unpacked) -> Result<Toolbox, Error> {
    let mtools = packages.file("mtools", "usr/bin/mtools")?;
    let programs = [
        ("mke2fs", packages.file("e2fsprogs", "sbin/mke2fs")?),
        ("debugfs", packages.file("e2fsprogs", "sbin/debugfs")?),
        ("e2fsck", packages.file("e2fsprogs", "sbin/e2fsck")?),
        ("syslinux", packages.file("syslinux", "usr/bin/syslinux")?),
        ("mformat", mtools.clone()),
        ("mcopy", mtools.clone()),
        ("mattrib", mtools.clone()),
        ("mmove", mtools.clone()),
        ("mdel", mtools),
    ];
    Toolbox::new(&work.join("tools"), &packages.loader()?, &packages.library_folders(), &programs)
}

/// Everything between the packages and the finished files, inside `work`.
fn assemble(kind: Kind, work: &Path, fetched: debian::Fetched, progress: &dyn Fn(&str)) -> Result<Manifest, Error> {
    progress("unpacking the packages");
    let packages = Unpacked::new(&work.join("packages"), &fetched.debs)?;
    let debian::Fetched { debs, lock } = fetched;
    drop(lock);
    let tools = toolbox(work, &packages)?;
    let kernel = modules::Kernel::open(&packages.kernel()?)?;
    let scratch = work.join("scratch");
    fs::create_dir(&scratch).map_err(Error::io("create", &scratch))?;
    let path = |name: &str| work.join(name);
    let (image, root_size) = (kind.image(), kind.root_size());

    fs::copy(&kernel.image, path(KERNEL)).map_err(Error::io("copy", &kernel.image))?;
    let initrd = cpio::archive(&rootfs::initrd(&packages, &kernel)?)?;
    fs::write(path(INITRD), initrd).map_err(Error::io("write", &path(INITRD)))?;

    progress(&format!("making the root file system (kernel {})", kernel.release));
    let config = packages.file("e2fsprogs", "etc/mke2fs.conf")?;
    ext4::make(&tools, &config, &rootfs::root(kind, &packages, &kernel)?, &path("root"), root_size, &scratch)?;

    progress("making the bootable disk");
    let start = disk::BOOT_START / mbr::SECTOR;
    fat::make(&tools, &path(KERNEL), &path(INITRD), &path("boot"), recipe::BOOT_SIZE, start, &scratch)?;
    let code_path = packages.file("syslinux-common", "usr/lib/syslinux/mbr/mbr.bin")?;
    let code = fs::read(&code_path).map_err(Error::io("read", &code_path))?;
    disk::make(&path(&image), &code, &path("boot"), &path("root"), root_size)?;
    Ok(Manifest {
        format: recipe::FORMAT,
        recipe: manifest::recipe_digest(kind),
        release: recipe::RELEASE.to_owned(),
        kernel_release: kernel.release,
        command_line: COMMAND_LINE.to_owned(),
        user: "cirros".to_owned(),
        image: manifest::describe(&path(&image), &image)?,
        kernel: manifest::describe(&path(KERNEL), KERNEL)?,
        initrd: manifest::describe(&path(INITRD), INITRD)?,
        packages: debs.iter().map(|d| d.package.clone()).collect(),
    })
}

/// Moves the files into place: the old manifest goes first, the new one comes last.
fn publish(kind: Kind, work: &Path, out: &Path, manifest: &Manifest) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let old = out.join(kind.manifest());
    match fs::remove_file(&old) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &old)(error)),
        _ => {}
    }
    for name in [&kind.image(), KERNEL, INITRD] {
        let target = out.join(name);
        fs::set_permissions(work.join(name), fs::Permissions::from_mode(0o644)).map_err(Error::io("open", &target))?;
        fs::rename(work.join(name), &target).map_err(Error::io("move into place", &target))?;
    }
    manifest::write_whole(&old, &serde_json::to_vec_pretty(manifest)?)
}

fn built(kind: Kind, out: &Path, manifest: Manifest) -> Built {
    Built { image: out.join(kind.image()), kernel: out.join(KERNEL), initrd: out.join(INITRD), manifest }
}

/// Makes the folder and gives its full path (tools run in other folders).
fn absolute(folder: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    fs::canonicalize(folder).map_err(Error::io("find", folder))
}
