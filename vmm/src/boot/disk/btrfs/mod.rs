//! btrfs, read only: the root of Fedora's, openSUSE's and others' images.
//!
//! ```text
//!   superblock.rs ─► chunks.rs: addresses ─► nodes.rs: trees of items ─┬─ tree of roots: subvolumes, which is the default
//!                                                                      └─ a subvolume: inodes, names, extents
//!                                        extents.rs ─► unpack.rs (zlib, zstd; LZO: lzo.rs) ─► contents
//! ```
//! Source: the kernel's documentation of btrfs' on-disk format and `btrfs_tree.h`. One device, whose chunks are kept once
//! or twice. Nodes are taken by their checksums, contents are not checked; a log that was not replayed is not looked at:
//! whoever unmounted the disk in disorder may see an older kernel. Numbers are little endian and hostile.
//!
//! What the guest has for its root is a subvolume as a rule. The default one is looked at first, then those whose names
//! distributions give to a root or boot folder. GRUB knows paths from the top of the file system: what a view has not is
//! looked for there.

mod chunks;
mod extents;
mod lzo;
mod nodes;
mod superblock;
mod unpack;

use super::Window;
use super::tree::{self, Kind, Tree, nonsense};
use nodes::{Key, Nodes, Root};
use std::io;
use std::rc::Rc;
use superblock::Superblock;

const INODE: u8 = 1;
/// Names by their hash, names in order, a subvolume's root.
const NAME: u8 = 84;
const INDEX: u8 = 96;
const SUBVOLUME: u8 = 132;
/// The subvolume that all others are in, the root of every subvolume, and where the tree of roots has its own names.
const TOP: u64 = 5;
const TOP_INODE: u64 = 256;
const ROOTS_NAMES: u64 = 6;

/// Subvolumes that are a root or boot folder: Ubuntu's, openSUSE's and Arch's, Debian's, Fedora's.
const ROOTS: [&str; 3] = ["@", "@rootfs", "root"];
const BOOTS: [&str; 2] = ["@boot", "boot"];

fn part(bytes: &[u8], at: usize, length: usize) -> io::Result<&[u8]> {
    at.checked_add(length).and_then(|end| bytes.get(at..end)).ok_or_else(|| nonsense("cut off"))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let part = part(bytes, at, 2)?;
    Ok(u16::from(part[1]) << 8 | u16::from(part[0]))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from(u16_at(bytes, at.saturating_add(2))?) << 16 | u32::from(u16_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    Ok(u64::from(u32_at(bytes, at.saturating_add(4))?) << 32 | u64::from(u32_at(bytes, at)?))
}

/// CRC-32C, a byte at a time.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut value, mut bit) = (n as u32, 0);
        while bit < 8 {
            value = if value & 1 == 0 { value >> 1 } else { value >> 1 ^ 0x82f6_3b78 };
            bit += 1;
        }
        table[n] = value;
        n += 1;
    }
    table
};

fn crc(begin: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(begin, |crc, byte| crc >> 8 ^ CRC[usize::from(crc as u8 ^ byte)])
}

fn checksum(bytes: &[u8]) -> u32 {
    !crc(!0, bytes)
}

/// What a name is found by.
fn hash(name: &str) -> u64 {
    crc(!1, name.as_bytes()).into()
}

/// An inode of a subvolume.
#[derive(Debug, Clone)]
pub struct Node {
    volume: Root,
    inode: u64,
    kind: Kind,
    bytes: u64,
}

/// The file system, as one of its subvolumes sees it.
#[derive(Debug, Clone)]
pub struct Btrfs {
    nodes: Rc<Nodes>,
    sector: usize,
    roots: Root,
    view: Node,
    /// For a kernel that is to have this root, where that is not the default.
    flags: String,
}

/// Whether there is one, whatever can be made of it.
pub(super) fn is_there(window: &Window) -> bool {
    superblock::is_there(window)
}

/// The views that may have a kernel, the likeliest first.
pub(super) fn views(window: Window) -> io::Result<Vec<Btrfs>> {
    let superblock = Superblock::load(&window)?;
    let nodes = Rc::new(Nodes::load(window, &superblock)?);
    let roots = Root { address: superblock.root, level: superblock.root_level };
    let top = top_of(&nodes, roots, TOP)?;
    let one = |view, flags| Btrfs { nodes: nodes.clone(), sector: superblock.sector, roots, view, flags };
    let top = one(top, String::new());
    let default = top.default().unwrap_or_else(|_| top.view.clone());
    let mut views = vec![one(default, String::new())];
    for name in ROOTS.iter().chain(&BOOTS) {
        let Ok(view) = top.child(&top.view, name) else { continue };
        let is_known = views.iter().any(|known| known.view.volume == view.volume);
        if view.inode == TOP_INODE && view.volume != top.view.volume && !is_known {
            let flags = if ROOTS.contains(name) { format!(" rootflags=subvol={name}") } else { String::new() };
            views.push(one(view, flags));
        }
    }
    Ok(views)
}

/// The root directory of a subvolume.
fn top_of(nodes: &Nodes, roots: Root, subvolume: u64) -> io::Result<Node> {
    let mut found = None;
    nodes.walk(roots, Key::new(subvolume, SUBVOLUME, 0), &mut |key, item| {
        if (key.object, key.kind) == (subvolume, SUBVOLUME) {
            found = Some(Root { address: u64_at(item, 176)?, level: part(item, 238, 1)?[0] });
        }
        Ok(false)
    })?;
    inode(nodes, found.ok_or_else(|| nonsense("no such subvolume"))?, TOP_INODE)
}

fn inode(nodes: &Nodes, volume: Root, inode: u64) -> io::Result<Node> {
    let item = nodes.item(volume, Key::new(inode, INODE, 0))?;
    let kind = match u32_at(&item, 52)? >> 12 {
        8 => Kind::File,
        4 => Kind::Directory,
        10 => Kind::Link,
        _ => Kind::Other,
    };
    Ok(Node { volume, inode, kind, bytes: u64_at(&item, 16)? })
}

/// Names of an item, of which several may have the same hash, and what they stand for.
fn names(item: &[u8]) -> io::Result<Vec<(String, Key)>> {
    const HEADER: usize = 30;
    let (mut names, mut at) = (Vec::new(), 0);
    while at < item.len() {
        let (data, length) = (usize::from(u16_at(item, at + 25)?), usize::from(u16_at(item, at + 27)?));
        let name = part(item, at + HEADER, length)?;
        names.push((String::from_utf8_lossy(name).into_owned(), Key::read(item, at)?));
        at += HEADER + length + data;
    }
    Ok(names)
}

impl Btrfs {
    /// What a path stands for in this view; else as from the top of the file system.
    pub(super) fn find(&self, path: &str) -> io::Result<Node> {
        tree::walk(self, path).or_else(|e| {
            let view = top_of(&self.nodes, self.roots, TOP).map_err(|_| e)?;
            tree::walk(&Btrfs { view, ..self.clone() }, path)
        })
    }

    /// What a kernel must be told, with a space before it, to have this view for its root.
    pub(super) fn root_flags(&self) -> &str {
        &self.flags
    }

    /// What is mounted where nothing else is said.
    fn default(&self) -> io::Result<Node> {
        let item = self.nodes.item(self.roots, Key::new(ROOTS_NAMES, NAME, hash("default")))?;
        let found = names(&item)?.into_iter().find(|(name, _)| name == "default");
        self.node(self.roots, found.ok_or(io::ErrorKind::NotFound)?.1)
    }

    /// What a name in a subvolume stands for: an inode there, or another subvolume.
    fn node(&self, volume: Root, place: Key) -> io::Result<Node> {
        match place.kind {
            INODE => inode(&self.nodes, volume, place.object),
            SUBVOLUME => top_of(&self.nodes, self.roots, place.object),
            _ => Err(nonsense("a name of nothing")),
        }
    }
}

impl Tree for Btrfs {
    type Node = Node;

    fn root(&self) -> io::Result<Node> {
        Ok(self.view.clone())
    }

    fn kind(&self, node: &Node) -> (Kind, u64) {
        (node.kind, node.bytes)
    }

    fn list(&self, directory: &Node, each: &mut dyn FnMut(&str, Node) -> bool) -> io::Result<()> {
        self.nodes.walk(directory.volume, Key::new(directory.inode, INDEX, 0), &mut |key, item| {
            if (key.object, key.kind) != (directory.inode, INDEX) {
                return Ok(false);
            }
            for (name, place) in names(item)? {
                // An inode that makes no sense is its own fault, not that of the names beside it.
                if self.node(directory.volume, place).is_ok_and(|node| !each(&name, node)) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// By its hash: the directory need not be read.
    fn child(&self, directory: &Node, name: &str) -> io::Result<Node> {
        let item = self.nodes.item(directory.volume, Key::new(directory.inode, NAME, hash(name)))?;
        let found = names(&item)?.into_iter().find(|(found, _)| found == name);
        self.node(directory.volume, found.ok_or(io::ErrorKind::NotFound)?.1)
    }

    fn read(&self, node: &Node, most: u64) -> io::Result<Vec<u8>> {
        extents::read(&self.nodes, self.sector, node, most)
    }
}

#[cfg(test)]
mod tests;
