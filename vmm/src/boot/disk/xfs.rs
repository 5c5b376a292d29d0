//! xfs, read only: the root of Red Hat's family.
//!
//! ```text
//!   superblock ─► inode ─┬─ in the inode     short directories and links
//!                        ├─ list of extents ─┐
//!                        └─ B+tree of extents ┴─► blocks: contents, or directory entries
//! ```
//! Source: "XFS Algorithms & Data Structures", 3rd edition. Versions 4 and 5; checksums are not looked at, a log that was
//! not replayed neither: whoever unmounted the disk in disorder may see an older kernel. Numbers are big endian and hostile:
//! trees have a bounded number of blocks, extents lie in ascending order, nothing is read that is not wanted.

use super::Window;
use super::tree::{Kind, Tree, nonsense};
use std::io;

/// Bytes of a directory's entries.
const DIRECTORY_BYTES_MAX: u64 = 16 << 20;
/// Where a directory's index begins in its own address space: entries lie below.
const DIRECTORY_INDEX: u64 = 32 << 30;
/// Extents of one file, and blocks of the tree that lists them.
const EXTENTS_MAX: usize = 1 << 18;
const TREE_BLOCKS_MAX: usize = 4096;
const EXTENT: usize = 16;

const VERSION5: u16 = 5;
const VERSION4_FTYPE: u32 = 0x200;
const INCOMPATIBLE_FTYPE: u32 = 1;
const INCOMPATIBLE_COUNTS: u32 = 1 << 5;

/// An inode with its data fork.
#[derive(Debug, Clone)]
pub struct Node {
    kind: Kind,
    bytes: u64,
    format: u8,
    extents: u64,
    fork: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    /// In blocks of the file.
    at: u64,
    /// In blocks of the file system.
    block: u64,
    count: u64,
}

/// The file system.
#[derive(Debug)]
pub struct Xfs {
    window: Window,
    block: u64,
    group_blocks: u64,
    group_bits: u32,
    groups: u64,
    inode: usize,
    inode_bits: u32,
    directory: u64,
    root: u64,
    version5: bool,
    has_types: bool,
    wide_counts: bool,
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let part = bytes.get(at..at + 2).and_then(|part| part.try_into().ok());
    part.map(u16::from_be_bytes).ok_or_else(|| nonsense("cut off"))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?))
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    Ok(u64::from(u32_at(bytes, at)?) << 32 | u64::from(u32_at(bytes, at + 4)?))
}

fn extent(record: &[u8]) -> io::Result<Extent> {
    let (high, low) = (u64_at(record, 0)?, u64_at(record, 8)?);
    // A flag (written or not), 54 bits of file block, 52 of block, 21 of count. What was never written reads as zeroes,
    // and a kernel that is installed is written.
    Ok(Extent { at: high << 1 >> 10, block: (high & 0x1ff) << 43 | low >> 21, count: low & 0x1f_ffff })
}

impl Xfs {
    /// Looks whether this is one.
    pub(super) fn load(window: Window) -> io::Result<Xfs> {
        let mut sb = [0; 512];
        window.read_at(0, &mut sb)?;
        if sb[..4] != *b"XFSB" {
            return Err(nonsense("no xfs"));
        }
        let version = u16_at(&sb, 100)? & 0xf;
        let (block, inode) = (u64::from(u32_at(&sb, 4)?), u16_at(&sb, 104)?);
        let (group_bits, inode_bits) = (u32::from(sb[124]), u32::from(sb[123]));
        let incompatible = u32_at(&sb, 216)?;
        let sizes = block.is_power_of_two() && (512..=65_536).contains(&block) && (256..=2048).contains(&inode);
        if !(4..=VERSION5).contains(&version) || !sizes || group_bits > 31 || inode_bits > 8 || sb[192] > 8 {
            return Err(nonsense("an xfs of another kind"));
        }
        let version5 = version == VERSION5;
        Ok(Xfs {
            window,
            block,
            group_blocks: u32_at(&sb, 84)?.into(),
            group_bits,
            groups: u32_at(&sb, 88)?.into(),
            inode: inode.into(),
            inode_bits,
            directory: (block << sb[192]).min(65_536),
            root: u64_at(&sb, 56)?,
            version5,
            has_types: if version5 {
                incompatible & INCOMPATIBLE_FTYPE != 0
            } else {
                u32_at(&sb, 200)? & VERSION4_FTYPE != 0
            },
            wide_counts: version5 && incompatible & INCOMPATIBLE_COUNTS != 0,
        })
    }

    /// Byte place of a block by its number, which has the group in its upper bits.
    fn place(&self, block: u64) -> io::Result<u64> {
        let (group, within) = (block >> self.group_bits, block & ((1 << self.group_bits) - 1));
        if group >= self.groups || within >= self.group_blocks {
            return Err(nonsense("a block outside the file system"));
        }
        // Both factors have 32 bits, and a window's length bounds what is read.
        (group * self.group_blocks + within).checked_mul(self.block).ok_or_else(|| nonsense("a block too far"))
    }

    fn node(&self, number: u64) -> io::Result<Node> {
        let place = self.place(number >> self.inode_bits)?;
        let within = number & ((1 << self.inode_bits) - 1);
        let mut inode = vec![0; self.inode];
        self.window.read_at(place + within * self.inode as u64, &mut inode)?;
        if inode[..2] != *b"IN" {
            return Err(nonsense("no inode"));
        }
        let core = if inode[4] >= 3 { 176 } else { 100 };
        let end = if inode[82] == 0 { self.inode } else { core + usize::from(inode[82]) * 8 };
        let fork = inode.get(core..end).ok_or_else(|| nonsense("an inode without room"))?.to_vec();
        let kind = match u16_at(&inode, 2)? >> 12 {
            8 => Kind::File,
            4 => Kind::Directory,
            10 => Kind::Link,
            _ => Kind::Other,
        };
        let extents = if self.wide_counts { u64_at(&inode, 24)? } else { u32_at(&inode, 76)?.into() };
        Ok(Node { kind, bytes: u64_at(&inode, 56)?, format: inode[5], extents, fork })
    }

    /// Where the contents are, in ascending order.
    fn extents(&self, node: &Node) -> io::Result<Vec<Extent>> {
        let mut out = Vec::new();
        match node.format {
            2 => {
                let count = usize::try_from(node.extents).unwrap_or(usize::MAX).min(node.fork.len() / EXTENT);
                out = node.fork.chunks_exact(EXTENT).take(count).map(extent).collect::<io::Result<_>>()?;
            }
            3 => {
                let most = node.fork.len().saturating_sub(4) / 16;
                let count = usize::from(u16_at(&node.fork, 2)?).min(most);
                let (mut left, first) = (TREE_BLOCKS_MAX, 4 + most * 8);
                for n in 0..count {
                    self.branch(u64_at(&node.fork, first + n * 8)?, u16_at(&node.fork, 0)?, &mut left, &mut out)?;
                }
            }
            _ => return Err(nonsense("contents kept in another way")),
        }
        match out.windows(2).all(|pair| pair[0].at.checked_add(pair[0].count).is_some_and(|end| end <= pair[1].at)) {
            true => Ok(out),
            false => Err(nonsense("extents out of order")),
        }
    }

    /// A block of the tree of extents, `level` above its leaves.
    fn branch(&self, block: u64, level: u16, left: &mut usize, out: &mut Vec<Extent>) -> io::Result<()> {
        *left = left.checked_sub(1).ok_or_else(|| nonsense("a tree of extents without end"))?;
        let mut bytes = vec![0; self.block as usize];
        self.window.read_at(self.place(block)?, &mut bytes)?;
        let (magic, header) = if self.version5 { (b"BMA3", 72) } else { (b"BMAP", 24) };
        let (found, count) = (u16_at(&bytes, 4)?, usize::from(u16_at(&bytes, 6)?));
        if bytes[..4] != *magic || found.checked_add(1) != Some(level) {
            return Err(nonsense("no tree of extents"));
        }
        let most = bytes.len().saturating_sub(header) / 16;
        if found == 0 {
            if out.len() > EXTENTS_MAX {
                return Err(nonsense("extents without end"));
            }
            let records = bytes.get(header..).unwrap_or_default().chunks_exact(EXTENT).take(count);
            out.extend(records.map(extent).collect::<io::Result<Vec<_>>>()?);
            return Ok(());
        }
        for n in 0..count.min(most) {
            self.branch(u64_at(&bytes, header + most * 8 + n * 8)?, found, left, out)?;
        }
        Ok(())
    }

    /// The first bytes; holes are zeroes.
    fn bytes(&self, node: &Node, wanted: u64) -> io::Result<Vec<u8>> {
        let mut out = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
        for extent in self.extents(node)? {
            let Some(start) = extent.at.checked_mul(self.block).filter(|start| *start < wanted) else { break };
            let length = (extent.count * self.block).min(wanted - start);
            // The last block of an extent must be in the same group as its first.
            self.place(extent.block + extent.count.saturating_sub(1))?;
            let part = &mut out[start as usize..(start + length) as usize];
            self.window.read_at(self.place(extent.block)?, part)?;
        }
        Ok(out)
    }

    /// Entries kept in the inode.
    fn short(&self, fork: &[u8], each: &mut dyn FnMut(&str, u64) -> bool) -> io::Result<()> {
        let cut = || nonsense("a directory that is cut off");
        let (count, wide) = (*fork.first().ok_or_else(cut)?, *fork.get(1).ok_or_else(cut)? > 0);
        let number = if wide { 8 } else { 4 };
        let mut at = 2 + number;
        for _ in 0..count {
            let length = usize::from(*fork.get(at).ok_or_else(cut)?);
            let name = fork.get(at + 3..at + 3 + length).ok_or_else(cut)?;
            at += 3 + length + usize::from(self.has_types);
            let inode = if wide { u64_at(fork, at)? } else { u32_at(fork, at)?.into() };
            at += number;
            if !each(&String::from_utf8_lossy(name), inode) {
                break;
            }
        }
        Ok(())
    }

    /// Entries of one block. False: no more are wanted.
    fn entries(&self, block: &[u8], each: &mut dyn FnMut(&str, u64) -> bool) -> io::Result<bool> {
        let (header, index) = match &block[..4] {
            b"XD2B" => (16, true),
            b"XD2D" => (16, false),
            b"XDB3" => (64, true),
            b"XDD3" => (64, false),
            _ => return Ok(true),
        };
        let mut end = block.len();
        if index {
            // The only block of a directory has its index at its end.
            let count = u32_at(block, end - 8)? as usize;
            end = count.checked_mul(8).and_then(|bytes| (end - 8).checked_sub(bytes)).unwrap_or(0);
        }
        let mut at = header;
        while at + 12 <= end {
            if u16_at(block, at)? == 0xffff {
                at += usize::from(u16_at(block, at + 2)?).max(8);
                continue;
            }
            let length = usize::from(block[at + 8]);
            let name = block.get(at + 9..at + 9 + length).ok_or_else(|| nonsense("a name that is cut off"))?;
            let own = [&b"."[..], b".."].contains(&name);
            if !own && !each(&String::from_utf8_lossy(name), u64_at(block, at)?) {
                return Ok(false);
            }
            at += (11 + length + usize::from(self.has_types)).next_multiple_of(8);
        }
        Ok(true)
    }
}

impl Tree for Xfs {
    type Node = Node;

    fn root(&self) -> io::Result<Node> {
        self.node(self.root)
    }

    fn kind(&self, node: &Node) -> (Kind, u64) {
        (node.kind, node.bytes)
    }

    fn list(&self, directory: &Node, each: &mut dyn FnMut(&str, Node) -> bool) -> io::Result<()> {
        // An inode that makes no sense is its own fault, not that of the names beside it.
        let mut each = |name: &str, number: u64| self.node(number).map_or(true, |node| each(name, node));
        if directory.format == 1 {
            self.short(&directory.fork, &mut each)?;
        } else {
            let wanted = directory.bytes.min(DIRECTORY_BYTES_MAX).min(DIRECTORY_INDEX);
            for block in self.bytes(directory, wanted)?.chunks_exact(self.directory as usize) {
                if !self.entries(block, &mut each)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn read(&self, node: &Node, most: u64) -> io::Result<Vec<u8>> {
        if node.format == 1 {
            let wanted = node.bytes.min(most) as usize;
            return node.fork.get(..wanted).map(<[u8]>::to_vec).ok_or_else(|| nonsense("a file that is cut off"));
        }
        let wanted = node.bytes.min(most);
        match node.kind {
            // Each block of a link begins with a header; links longer than one block of ours do not occur.
            Kind::Link if self.version5 => {
                const HEADER: u64 = 56;
                let mut bytes = self.bytes(node, (wanted + HEADER).min(self.block))?;
                if !bytes.starts_with(b"XSLM") {
                    return Err(nonsense("no link"));
                }
                Ok(bytes.split_off(HEADER as usize))
            }
            _ => self.bytes(node, wanted),
        }
    }
}
