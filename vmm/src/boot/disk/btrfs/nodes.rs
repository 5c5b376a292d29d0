//! The B-trees that everything is kept in: items by key, found from a root downwards.
//!
//! A node counts when its checksum and its own idea of its address and level are right, in either copy. Levels fall with
//! each step, and all walks together come by a bounded number of nodes, so that a disk made for it costs seconds at most.

use super::super::Window;
use super::super::tree::nonsense;
use super::chunks::{CHUNK, Chunks, OBJECT};
use super::superblock::{CHECKSUM, Superblock};
use super::{checksum, part, u32_at, u64_at};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

const HEADER: usize = 101;
pub(super) const KEY: usize = 17;
const ITEM: usize = KEY + 8;
const POINTER: usize = KEY + 16;
const LEVEL_MAX: u8 = 7;
/// Nodes that are read, and that walks come by. A file of a quarter million pieces has 1300; looking for what to start
/// takes some thousands.
const READ_MAX: u32 = 1 << 15;
const VISITS_MAX: u32 = 1 << 20;
/// Nodes that are kept, so that the next walk need not read and check them again: 4 MiB at most.
const KEPT: usize = 64;

/// What an item is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub object: u64,
    pub kind: u8,
    pub offset: u64,
}

impl Key {
    pub(super) fn new(object: u64, kind: u8, offset: u64) -> Key {
        Key { object, kind, offset }
    }

    pub(super) fn read(bytes: &[u8], at: usize) -> io::Result<Key> {
        let key = part(bytes, at, KEY)?;
        Ok(Key::new(u64_at(key, 0)?, key[8], u64_at(key, 9)?))
    }
}

/// Where a tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    pub address: u64,
    pub level: u8,
}

/// Called with an item; says whether the next one is wanted.
pub(super) type Each<'a> = &'a mut dyn FnMut(Key, &[u8]) -> io::Result<bool>;

fn take(left: &Cell<u32>) -> io::Result<()> {
    left.set(left.get().checked_sub(1).ok_or_else(|| nonsense("trees without end"))?);
    Ok(())
}

/// The nodes of a file system.
#[derive(Debug)]
pub(super) struct Nodes {
    window: Window,
    chunks: Chunks,
    size: usize,
    kept: RefCell<Vec<(Root, Rc<[u8]>)>>,
    reads_left: Cell<u32>,
    visits_left: Cell<u32>,
}

impl Nodes {
    /// With all chunks that the file system has.
    pub(super) fn load(window: Window, superblock: &Superblock) -> io::Result<Nodes> {
        let chunks = Chunks::system(&superblock.system, superblock.device)?;
        let mut nodes = Nodes {
            window,
            chunks,
            size: superblock.node,
            kept: RefCell::default(),
            reads_left: Cell::new(READ_MAX),
            visits_left: Cell::new(VISITS_MAX),
        };
        let mut all = Chunks::default();
        let root = Root { address: superblock.chunks, level: superblock.chunks_level };
        nodes.walk(root, Key::new(OBJECT, CHUNK, 0), &mut |key, item| {
            let is_chunk = (key.object, key.kind) == (OBJECT, CHUNK);
            if is_chunk {
                all.add(key.offset, item, superblock.device)?;
            }
            Ok(is_chunk)
        })?;
        nodes.chunks = all;
        Ok(nodes)
    }

    /// Items from a key on, in the tree's order, until `each` has enough.
    pub(super) fn walk(&self, root: Root, from: Key, each: Each) -> io::Result<()> {
        self.below(root, from, each).map(drop)
    }

    /// The item with just this key.
    pub(super) fn item(&self, root: Root, wanted: Key) -> io::Result<Vec<u8>> {
        let mut found = None;
        self.walk(root, wanted, &mut |key, item| {
            found = (key == wanted).then(|| item.to_vec());
            Ok(false)
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// False: `each` has enough.
    fn below(&self, root: Root, from: Key, each: Each) -> io::Result<bool> {
        take(&self.visits_left)?;
        let node = self.node(root)?;
        let entry = if root.level == 0 { ITEM } else { POINTER };
        let count = (u32_at(&node, 96)? as usize).min((node.len() - HEADER) / entry);
        for at in (0..count).map(|n| HEADER + n * entry) {
            let key = Key::read(&node, at)?;
            let go_on = if root.level == 0 {
                if key < from {
                    continue;
                }
                let (start, length) = (u32_at(&node, at + KEY)? as usize, u32_at(&node, at + KEY + 4)? as usize);
                each(key, part(&node, HEADER.saturating_add(start), length)?)?
            } else {
                // What is below has no key beyond the next one's.
                let is_last = at + entry >= HEADER + count * entry;
                if !is_last && Key::read(&node, at + entry)? <= from {
                    continue;
                }
                let child = Root { address: u64_at(&node, at + KEY)?, level: root.level - 1 };
                self.below(child, from, each)?
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn node(&self, root: Root) -> io::Result<Rc<[u8]>> {
        if let Some((_, node)) = self.kept.borrow().iter().find(|(kept, _)| *kept == root) {
            return Ok(node.clone());
        }
        take(&self.reads_left)?;
        let node: Rc<[u8]> = self.copy(root, 0).or_else(|e| self.copy(root, 1).map_err(|_| e))?.into();
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((root, node.clone()));
        Ok(node)
    }

    fn copy(&self, root: Root, copy: usize) -> io::Result<Vec<u8>> {
        let (place, together) = self.chunks.place(root.address, copy)?;
        if root.level > LEVEL_MAX || together < self.size as u64 {
            return Err(nonsense("a tree that makes no sense"));
        }
        let mut node = vec![0; self.size];
        self.window.read_at(place, &mut node)?;
        if u32_at(&node, 0)? != checksum(&node[CHECKSUM..]) {
            return Err(nonsense("a damaged node of a tree"));
        }
        match u64_at(&node, 48)? == root.address && node[HEADER - 1] == root.level {
            true => Ok(node),
            false => Err(nonsense("a node of another tree")),
        }
    }

    /// Contents, which may go over several chunks.
    pub(super) fn contents(&self, mut address: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (place, together) = self.chunks.place(address, 0)?;
            let length = usize::try_from(together).unwrap_or(usize::MAX).min(bytes.len());
            let (here, rest) = bytes.split_at_mut(length);
            self.window.read_at(place, here)?;
            // A chunk ends within the addresses.
            address += length as u64;
            bytes = rest;
        }
        Ok(())
    }
}
