//! `starter.json`: what was made, of what, and with which recipe. It is the last file to appear in the target folder
//! and the first to go, so its presence says that the files beside it belong together.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use crate::error::Error;
use crate::guest;
use crate::recipe::Kind;

/// A package that went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Of the package file, as the signed list of the release gives it.
    pub sha256: String,
}

/// A file that came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub sha256: String,
    /// Glance's default image hash.
    pub sha512: String,
}

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document's form.
    pub format: u32,
    /// SHA-256 over everything of the recipe that shapes the image.
    pub recipe: String,
    pub release: String,
    pub kernel_release: String,
    /// Kernel command line for a direct boot of `vmlinuz` and `initrd.img`.
    pub command_line: String,
    /// The guest's user, with key login and sudo.
    pub user: String,
    pub image: Output,
    pub kernel: Output,
    pub initrd: Output,
    pub packages: Vec<Package>,
}

/// The code that shapes the image. A change of it makes a new image, even one that turns out equal.
const SHAPING: &[&str] = &[
    include_str!("recipe.rs"),
    include_str!("tools.rs"),
    include_str!("rootfs.rs"),
    include_str!("modules.rs"),
    include_str!("cpio.rs"),
    include_str!("ext4.rs"),
    include_str!("fat.rs"),
    include_str!("mbr.rs"),
    include_str!("disk.rs"),
];

/// Identifies this recipe: another version of any guest file or of the shaping code gives another value.
pub fn recipe_digest(kind: Kind) -> String {
    let mut hash = Sha256::new();
    hash.update(kind.name());
    for text in SHAPING {
        hash.update(format!("\0{}\0{text}", text.len()));
    }
    for file in guest::ALL {
        hash.update(format!("\0{} {:o} {}\0", file.path, file.mode, file.content.len()));
        hash.update(file.content);
    }
    hex::encode(hash.finalize())
}

/// Lower-case hex SHA-256 of a file.
pub fn sha256(path: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new();
    each_block(path, |block| hash.update(block))?;
    Ok(hex::encode(hash.finalize()))
}

/// Size and hashes of one of the outputs.
pub fn describe(path: &Path, name: &str) -> Result<Output, Error> {
    let (mut short, mut long) = (Sha256::new(), Sha512::new());
    let size = each_block(path, |block| {
        short.update(block);
        long.update(block);
    })?;
    Ok(Output {
        name: name.to_owned(),
        size,
        sha256: hex::encode(short.finalize()),
        sha512: hex::encode(long.finalize()),
    })
}

fn each_block(path: &Path, mut seen: impl FnMut(&[u8])) -> Result<u64, Error> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let (mut block, mut total) = (vec![0u8; 1 << 18], 0);
    loop {
        let count = file.read(&mut block).map_err(Error::io("read", path))?;
        if count == 0 {
            return Ok(total);
        }
        seen(&block[..count]);
        total += count as u64;
    }
}

/// Writes a file under another name first, so that nobody ever reads half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write in", folder))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(Error::io("write", path))?;
    file.as_file().sync_all().map_err(Error::io("write", path))?;
    file.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_everybody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        write_whole(&path, b"abc").unwrap();
        assert_eq!(sha256(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let out = describe(&path, "abc").unwrap();
        assert_eq!((out.size, &out.sha512[..8]), (3, "ddaf35a1"));
    }

    #[test]
    fn the_digest_is_stable() {
        assert_eq!(recipe_digest(Kind::Starter), recipe_digest(Kind::Starter));
        assert_eq!(recipe_digest(Kind::Starter).len(), 64);
        assert_ne!(recipe_digest(Kind::Starter), recipe_digest(Kind::Tools));
    }
}
