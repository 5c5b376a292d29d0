//! Direct boot: finds the kernel that a disk image would start by itself, without firmware and boot loader.
//!
//! ```text
//!   disk ─► partitions.rs (GPT, MBR, or none) ─► ext4 (crate ext4-view) ─┐ entries.rs ─► kernel, initramfs, command line
//!                                         xfs.rs, btrfs/, fat.rs (tree.rs) ┴►  BLS entries │ grub.cfg │ /vmlinuz
//! ```
//! The image belongs to the guest and is read at every start, so a kernel that it has upgraded starts at the next reset.
//! Every number in it is hostile: this runs in the jail, the readers are memory safe, sizes are looked at before anything
//! is read. What is found is copied into memory files and goes the way of any kernel.

mod btrfs;
mod entries;
mod ext4;
mod fat;
mod partitions;
mod tree;
mod xfs;

use ext4_view::{Ext4, Ext4Read};
use partitions::Stretch;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

/// Largest kernel.
const KERNEL_BYTES_MAX: u64 = 256 << 20;
/// Largest initramfs.
const INITRAMFS_BYTES_MAX: u64 = 1 << 30;
/// Largest configuration file of a boot loader.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Why a disk does not boot by itself.
#[derive(Debug, thiserror::Error)]
pub enum DiskBootError {
    /// Nothing that we read.
    #[error("no partition of the disk has a kernel that can be started directly ({0})")]
    NoKernel(String),
    /// A file of the image.
    #[error("the disk's {path}: {problem}")]
    File {
        /// In the image.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The host.
    #[error("cannot keep the disk's kernel in memory: {0}")]
    Host(#[from] io::Error),
}

/// What the disk would start.
#[derive(Debug)]
pub struct Found {
    /// In a memory file.
    pub kernel: File,
    /// The same.
    pub initramfs: Option<File>,
    /// As the disk has it.
    pub cmdline: String,
}

/// A part of the disk as file system readers want it.
#[derive(Debug)]
struct Window {
    disk: File,
    stretch: Stretch,
}

impl Window {
    fn of(disk: &File, stretch: &Stretch) -> io::Result<Window> {
        Ok(Window { disk: disk.try_clone()?, stretch: stretch.clone() })
    }

    /// Reads inside the part.
    fn read_at(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= self.stretch.bytes);
        let at = end.and_then(|_| start.checked_add(self.stretch.start));
        self.disk.read_exact_at(bytes, at.ok_or_else(|| tree::nonsense("outside the partition"))?)
    }
}

impl Ext4Read for Window {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.read_at(start, bytes)?)
    }
}

/// What whoever partitioned the disk took for a sector: 4096 bytes where its table says so, else 512.
pub fn block_size(disk: &File) -> u32 {
    let table_at = |place: u64| {
        let mut magic = [0; 8];
        disk.read_exact_at(&mut magic, place).is_ok() && magic == *b"EFI PART"
    };
    if !table_at(512) && table_at(4096) { 4096 } else { 512 }
}

/// Whether the disk's first sector is one that a BIOS starts: marked, and with code (the table alone is none).
pub fn has_boot_sector(disk: &File) -> bool {
    const CODE: usize = 440;
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, 0).is_ok()
        && sector[510..] == [0x55, 0xaa]
        && sector[..CODE].iter().any(|byte| *byte != 0)
}

/// What a disk would start, looked at without keeping any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Path of the kernel in its file system.
    pub kernel: String,
    /// As the disk has it.
    pub cmdline: String,
}

/// Looks whether the disk has a kernel that can be started.
pub fn look(disk: &File, bytes: u64) -> Result<Looked, DiskBootError> {
    let (reader, entry) = entry_of(disk, bytes)?;
    let problem = |path: &String, text: &str| DiskBootError::File { path: path.clone(), problem: text.into() };
    if !is_kernel(&reader.read(&entry.kernel, KERNEL_BYTES_MAX)?) {
        return Err(problem(&entry.kernel, "is no kernel that can be started without firmware"));
    }
    match entry.initramfs.iter().find(|path| !reader.has(path)) {
        Some(path) => Err(problem(path, "is not there")),
        None => Ok(Looked { kernel: entry.kernel, cmdline: entry.cmdline }),
    }
}

/// An ELF file, or a bzImage that can be entered in 64-bit mode.
fn is_kernel(bytes: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);
    // Protocol 2.12 and later say by this bit that there is such an entry.
    let entered_in_64_bits = || bytes.get(0x236).is_some_and(|flags| flags & 1 != 0);
    at(0, b"\x7fELF\x02\x01") || (at(0x202, b"HdrS") && entered_in_64_bits())
}

/// Looks through the disk's file systems for a kernel.
pub fn find(disk: &File, bytes: u64) -> Result<Found, DiskBootError> {
    let (reader, entry) = entry_of(disk, bytes)?;
    reader.load_entry(&entry)
}

fn entry_of(disk: &File, bytes: u64) -> Result<(Reader, entries::Entry), DiskBootError> {
    let mut seen = Vec::new();
    for stretch in partitions::list(disk, bytes) {
        match Reader::load(disk, &stretch) {
            Ok(readers) => {
                let name = readers.first().map_or("nothing", Reader::name);
                for reader in readers {
                    if let Some(entry) = entries::choose(&reader, &stretch) {
                        return Ok((reader, entry));
                    }
                }
                seen.push(format!("{}: {name} without a boot entry", stretch.name));
            }
            Err(e) => seen.push(format!("{}: {e}", stretch.name)),
        }
    }
    Err(DiskBootError::NoKernel(seen.join("; ")))
}

/// A file system with bounds on what is read from it.
pub enum Reader {
    /// By its crate.
    Ext4(Ext4),
    /// Our own.
    Xfs(xfs::Xfs),
    /// Our own.
    Btrfs(btrfs::Btrfs),
    /// Our own.
    Fat(fat::Fat),
}

impl Reader {
    /// Whichever it is: a view of it, or several, in the order in which they are asked. What is said when it is none is
    /// of ext4.
    fn load(disk: &File, stretch: &Stretch) -> Result<Vec<Reader>, String> {
        let window = || Window::of(disk, stretch).map_err(|e| e.to_string());
        if let Ok(xfs) = xfs::Xfs::load(window()?) {
            return Ok(vec![Reader::Xfs(xfs)]);
        }
        let sound = ext4::check(&window()?).map_err(|e| e.to_string());
        match sound.and_then(|()| Ext4::load(Box::new(window()?)).map_err(|e| e.to_string())) {
            Ok(ext4) => Ok(vec![Reader::Ext4(ext4)]),
            // Its superblock lies further in, where others may have left it; its own maker leaves none of theirs.
            Err(_) if btrfs::is_there(&window()?) => {
                let views = btrfs::views(window()?).map_err(|e| e.to_string())?;
                Ok(views.into_iter().map(Reader::Btrfs).collect())
            }
            // Last, for its marks are the weakest.
            Err(e) => fat::Fat::load(window()?).map(|fat| vec![Reader::Fat(fat)]).map_err(|_| e),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Reader::Ext4(_) => "ext4",
            Reader::Xfs(_) => "xfs",
            Reader::Btrfs(_) => "btrfs",
            Reader::Fat(_) => "FAT",
        }
    }

    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, DiskBootError> {
        let contents = match self {
            Reader::Ext4(ext4) => match ext4.metadata(path).map(|metadata| metadata.len()) {
                Ok(length) if length > most => Err(format!("has {length} bytes, more than {most}")),
                Ok(_) => ext4.read(path).map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            },
            Reader::Xfs(xfs) => of_tree(xfs, path, most).map_err(|e| e.to_string()),
            Reader::Btrfs(btrfs) => {
                btrfs.find(path).and_then(|node| tree::contents(btrfs, &node, most)).map_err(|e| e.to_string())
            }
            Reader::Fat(fat) => of_tree(fat, path, most).map_err(|e| e.to_string()),
        };
        contents.map_err(|problem| DiskBootError::File { path: path.to_owned(), problem })
    }

    /// A small text; None where there is none.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path, TEXT_BYTES_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        match self {
            Reader::Ext4(ext4) => ext4.exists(path).unwrap_or(false),
            Reader::Xfs(xfs) => tree::walk(xfs, path).is_ok(),
            Reader::Btrfs(btrfs) => btrfs.find(path).is_ok(),
            Reader::Fat(fat) => tree::walk(fat, path).is_ok(),
        }
    }

    /// What a kernel must be told besides which partition has its root, with a space before it.
    pub fn root_flags(&self) -> &str {
        if let Reader::Btrfs(btrfs) = self { btrfs.root_flags() } else { "" }
    }

    /// Names in a folder, at most a thousand.
    pub fn names(&self, path: &str) -> Vec<String> {
        const MOST: usize = 1000;
        match self {
            Reader::Ext4(ext4) => {
                let entries = ext4.read_dir(path).into_iter().flatten().take(MOST);
                entries.filter_map(|entry| entry.ok()?.file_name().as_str().ok().map(str::to_owned)).collect()
            }
            Reader::Xfs(xfs) => tree::names(xfs, path, MOST),
            Reader::Btrfs(btrfs) => tree::names(btrfs, path, MOST),
            Reader::Fat(fat) => tree::names(fat, path, MOST),
        }
    }

    fn load_entry(&self, entry: &entries::Entry) -> Result<Found, DiskBootError> {
        let kernel = keep(&self.read(&entry.kernel, KERNEL_BYTES_MAX)?)?;
        let mut all = Vec::new();
        for path in &entry.initramfs {
            all.extend(self.read(path, INITRAMFS_BYTES_MAX - all.len() as u64)?);
            // Archives after one another begin at four bytes' bounds.
            all.resize(all.len().next_multiple_of(4), 0);
        }
        let initramfs = if all.is_empty() { None } else { Some(keep(&all)?) };
        Ok(Found { kernel, initramfs, cmdline: entry.cmdline.clone() })
    }
}

fn of_tree<T: tree::Tree>(tree: &T, path: &str, most: u64) -> io::Result<Vec<u8>> {
    tree::contents(tree, &tree::walk(tree, path)?, most)
}

/// A file in memory: the jail has no other place.
fn keep(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a constant C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"boot".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod tests;
