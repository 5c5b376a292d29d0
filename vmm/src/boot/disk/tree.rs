//! Paths through a file system whose reader knows directories and links by number: one walk for all of them.
//!
//! Links are followed as a kernel with this file system as its root would, a bounded number of times; everything that is
//! read is bounded before it is.

use std::io;

/// Links in one path.
const LINKS_MAX: usize = 40;
/// Bytes of a link.
const LINK_BYTES_MAX: u64 = 4096;
/// Names of a directory.
const NAMES_MAX: usize = 100_000;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
    Other,
}

/// A file system, read only.
pub trait Tree {
    /// A file or directory.
    type Node: Clone;
    /// The top.
    fn root(&self) -> io::Result<Self::Node>;
    /// What it is, and its length.
    fn kind(&self, node: &Self::Node) -> (Kind, u64);
    /// Calls with each name and what it stands for, until that says to end.
    fn list(&self, directory: &Self::Node, each: &mut dyn FnMut(&str, Self::Node) -> bool) -> io::Result<()>;
    /// Whether two names are the same here.
    fn same(&self, one: &str, other: &str) -> bool {
        one == other
    }
    /// What a name in a directory stands for.
    fn child(&self, directory: &Self::Node, name: &str) -> io::Result<Self::Node> {
        let (mut found, mut seen) = (None, 0);
        self.list(directory, &mut |entry, node| {
            seen += 1;
            if self.same(entry, name) {
                found = Some(node);
            }
            found.is_none() && seen < NAMES_MAX
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    /// The contents, which are no longer than `most`.
    fn read(&self, node: &Self::Node, most: u64) -> io::Result<Vec<u8>>;
}

/// For what breaks the rules of its file system.
pub fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn too_long(found: u64, most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("has {found} bytes, more than {most}"))
}

/// What a path stands for, links followed.
pub fn walk<T: Tree>(tree: &T, path: &str) -> io::Result<T::Node> {
    let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut above = vec![tree.root()?];
    let mut links = 0;
    while let Some(name) = left.pop() {
        let here = above.last().cloned().ok_or_else(|| nonsense("no root"))?;
        match name.as_str() {
            "" | "." => continue,
            ".." if above.len() > 1 => drop(above.pop()),
            ".." => {}
            name => {
                if tree.kind(&here).0 != Kind::Directory {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                let node = tree.child(&here, name)?;
                if tree.kind(&node).0 != Kind::Link {
                    above.push(node);
                    continue;
                }
                links += 1;
                let target = contents(tree, &node, LINK_BYTES_MAX)?;
                let target = String::from_utf8_lossy(&target).into_owned();
                if links > LINKS_MAX || left.len() > LINK_BYTES_MAX as usize {
                    return Err(nonsense("links without end"));
                }
                if target.starts_with('/') {
                    above.truncate(1);
                }
                left.extend(target.split('/').rev().map(str::to_owned));
            }
        }
    }
    above.pop().ok_or_else(|| nonsense("no root"))
}

/// All of a file or link, when it is no longer than that.
pub fn contents<T: Tree>(tree: &T, node: &T::Node, most: u64) -> io::Result<Vec<u8>> {
    match tree.kind(node) {
        (Kind::Directory | Kind::Other, _) => Err(io::ErrorKind::IsADirectory.into()),
        (_, length) if length > most => Err(too_long(length, most)),
        _ => tree.read(node, most),
    }
}

/// Names in a directory, at most so many.
pub fn names<T: Tree>(tree: &T, path: &str, most: usize) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(node) = walk(tree, path) else { return names };
    // What was read before something makes no sense is there all the same.
    let _ = tree.list(&node, &mut |name, _| {
        names.push(name.to_owned());
        names.len() < most
    });
    names
}
