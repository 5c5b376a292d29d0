//! Small files that are either wholly there or not there at all.
//!
//! ```text
//! save:  .name.new (mode 0600) -> fsync -> rename over name -> fsync folder
//! load:  Missing | Sound(bytes) | Damaged(why)
//! ```
//! Each file opens with a line that holds the SHA-256 of the rest: a torn write of a disk that
//! lies about fsync, or a stray editor, is noticed instead of being taken for state.
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &str = "pilvi1 ";
/// Largest file that is read back, in bytes.
const LIMIT: u64 = 256 << 20;

/// What was found at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No such file.
    Missing,
    /// The bytes that were saved.
    Sound(Vec<u8>),
    /// Something else than what was saved.
    Damaged(String),
}

/// Replaces the file at `path` by a checksummed `body`; on return it survives a power cut.
///
/// # Errors
/// Whatever the file system says; the old file is then still in place.
pub fn save(path: &Path, body: &[u8]) -> io::Result<()> {
    let sum = hex::encode(Sha256::digest(body));
    replace(path, &[MAGIC.as_bytes(), sum.as_bytes(), b"\n", body])
}

/// Replaces the file at `path` by `body` as it is.
///
/// # Errors
/// Whatever the file system says; the old file is then still in place.
pub fn save_plain(path: &Path, body: &[u8]) -> io::Result<()> {
    replace(path, &[body])
}

fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("not a file path"));
    };
    let fresh: PathBuf = folder.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

/// Reads a file that [`save`] wrote.
///
/// # Errors
/// Only when the file system itself fails; wrong content is [`Loaded::Damaged`].
pub fn load(path: &Path) -> io::Result<Loaded> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Missing),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Ok(Loaded::Damaged("it is too large".into()));
    }
    let start = MAGIC.len() + 64 + 1;
    if bytes.len() < start || !bytes.starts_with(MAGIC.as_bytes()) {
        return Ok(Loaded::Damaged("its first line is not ours".into()));
    }
    let body = bytes.split_off(start);
    let said = &bytes[MAGIC.len()..start - 1];
    if hex::encode(Sha256::digest(&body)).as_bytes() != said {
        return Ok(Loaded::Damaged("its checksum does not match".into()));
    }
    Ok(Loaded::Sound(body))
}

/// Removes a file or a folder with all that is in it; that it is gone already is fine.
///
/// # Errors
/// Whatever the file system says.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match gone {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(&dir.path().join("x")).unwrap(), Loaded::Missing);
        remove(&dir.path().join("x")).unwrap();
    }

    #[test]
    fn the_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        save(&path, b"a").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_damage_is_noticed(body in proptest::collection::vec(any::<u8>(), 0..200), at in any::<u16>(), flip in 1u8..) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x");
            save(&path, &body).unwrap();
            prop_assert_eq!(load(&path).unwrap(), Loaded::Sound(body.clone()));
            let mut bytes = fs::read(&path).unwrap();
            let at = usize::from(at) % bytes.len();
            // The line feed behind the checksum is the one byte that carries nothing.
            prop_assume!(at != MAGIC.len() + 64);
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            prop_assert!(matches!(load(&path).unwrap(), Loaded::Damaged(_)));
            bytes.truncate(at);
            fs::write(&path, &bytes).unwrap();
            prop_assert!(!matches!(load(&path).unwrap(), Loaded::Sound(b) if b == body));
        }
    }
}
