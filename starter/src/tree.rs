//! A file tree in memory: what a file system or an initrd of the image shall hold, in a fixed order, with owners
//! and modes of its own. Being a value (not a staging folder) it needs no root rights and no cleaning up, and two
//! builds cannot differ by the order in which a disk lists its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Dir,
    Bytes(Vec<u8>),
    /// A file of an unpacked package.
    File(PathBuf),
    Link(String),
}

/// One path with its owner and permission bits (set-user-id included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub content: Content,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
}

impl Node {
    /// The bytes of a file or the target of a link.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        match &self.content {
            Content::Dir => Ok(Vec::new()),
            Content::Bytes(bytes) => Ok(bytes.clone()),
            Content::Link(target) => Ok(target.clone().into_bytes()),
            Content::File(path) => std::fs::read(path).map_err(Error::io("read", path)),
        }
    }

    /// Type and permission bits as `stat` gives them.
    pub fn full_mode(&self) -> u32 {
        let kind = match self.content {
            Content::Dir => 0o040_000,
            Content::Link(_) => 0o120_000,
            Content::Bytes(_) | Content::File(_) => 0o100_000,
        };
        kind | u32::from(self.mode)
    }
}

/// Paths without a leading slash, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    #[cfg(test)]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    fn put(&mut self, path: &str, content: Content, mode: u16) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.0.contains_key(parent)
        {
            self.put(parent, Content::Dir, 0o755);
        }
        self.0.insert(path.to_owned(), Node { content, mode, uid: 0, gid: 0 });
    }

    pub fn dir(&mut self, path: &str, mode: u16) {
        self.put(path, Content::Dir, mode);
    }

    pub fn bytes(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u16) {
        self.put(path, Content::Bytes(bytes.into()), mode);
    }

    pub fn file(&mut self, path: &str, source: &Path, mode: u16) {
        self.put(path, Content::File(source.to_path_buf()), mode);
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Content::Link(target.to_owned()), 0o777);
    }

    /// A folder of an unpacked package with all that is below it; what may be run stays so.
    pub fn folder(&mut self, path: &str, source: &Path) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        self.dir(path, 0o755);
        for entry in std::fs::read_dir(source).map_err(Error::io("list", source))? {
            let entry = entry.map_err(Error::io("list", source))?;
            let (from, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let to = format!("{path}/{name}");
            let about = std::fs::symlink_metadata(&from).map_err(Error::io("look at", &from))?;
            if about.is_dir() {
                self.folder(&to, &from)?;
            } else if about.is_symlink() {
                let target = std::fs::read_link(&from).map_err(Error::io("read", &from))?;
                self.link(&to, &target.to_string_lossy());
            } else {
                let run = about.permissions().mode() & 0o111 != 0;
                self.file(&to, &from, if run { 0o755 } else { 0o644 });
            }
        }
        Ok(())
    }

    /// Gives one path to a user of the guest.
    pub fn own(&mut self, path: &str, uid: u32, gid: u32) {
        if let Some(node) = self.0.get_mut(path) {
            (node.uid, node.gid) = (uid, gid);
        }
    }
}

/// Where a path of a package lands in the guest, whose /bin, /sbin and /lib are links into /usr.
pub fn merged(path: &str) -> String {
    match path.split_once('/') {
        Some(("bin" | "sbin" | "lib" | "lib64", _)) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_keep_their_mode() {
        let mut tree = Tree::default();
        tree.dir("root", 0o700);
        tree.bytes("root/a/b", "x", 0o600);
        let paths: Vec<_> = tree.iter().map(|(p, _)| p).collect();
        assert_eq!(paths, ["root", "root/a", "root/a/b"]);
        assert_eq!(tree.get("root").unwrap().mode, 0o700);
        assert_eq!(tree.get("root/a/b").unwrap().full_mode(), 0o100_600);
    }

    #[test]
    fn old_paths_move_under_usr() {
        assert_eq!(merged("bin/lsblk"), "usr/bin/lsblk");
        assert_eq!(merged("lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(merged("usr/bin/x"), "usr/bin/x");
        assert_eq!(merged("etc/x"), "etc/x");
    }
}
