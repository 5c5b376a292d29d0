//! A key repository: numbered files in one directory, as Keystone's `fernet-keys`.
//!
//! ```text
//! 0        staged: accepted here, not yet used; becomes the primary at the next rotation
//! highest  primary: new tokens are made with it
//! between  secondary: still accepted
//! ```
//! Staging lets many schedulers share the directory by copying: a token made with the new primary is
//! readable wherever the last copy arrived.
use super::fernet::{KEY_BYTES, Key};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files of the repository that are read; more is a mistake.
const FILES_MAX: usize = 64;
const STAGED: u32 = 0;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("key repository {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("key repository {path}: {what}")]
    Broken { path: PathBuf, what: String },
}

/// What a repository can keep: something made at random that is written as one text.
pub trait RepositoryKey: Clone + Send + Sync + 'static {
    fn fresh() -> Result<Self, String>;
    fn to_text(&self) -> String;
    /// Says what is wrong with the text.
    fn of_text(text: &str) -> Result<Self, String>;
}

impl RepositoryKey for Key {
    fn fresh() -> Result<Self, String> {
        Ok(Key::generate())
    }
    fn to_text(&self) -> String {
        URL_SAFE.encode(self.bytes())
    }
    fn of_text(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE.decode(text.trim()).map_err(|_| "is not a key".to_owned())?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| "has the wrong length".to_owned())?;
        Ok(Key::new(bytes))
    }
}

/// Keys in the order they are tried: primary first.
pub type KeyRing<K = Key> = Arc<Vec<K>>;

/// One directory of keys.
pub struct KeyRepository<K = Key> {
    directory: PathBuf,
    max_active: usize,
    ring: RwLock<KeyRing<K>>,
    /// When the directory was changed as of the last refresh.
    stamp: RwLock<Option<std::time::SystemTime>>,
}

impl<K: RepositoryKey> std::fmt::Debug for KeyRepository<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRepository({}, {} keys)", self.directory.display(), self.ring.read().len())
    }
}

impl<K: RepositoryKey> KeyRepository<K> {
    /// Opens the directory, and fills it with a staged and a primary key if it is empty.
    pub fn open(directory: &Path, max_active: usize) -> Result<Self, KeyError> {
        let fail = |error| KeyError::Io { path: directory.to_owned(), error };
        if !directory.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(fail)?;
        let repository = KeyRepository {
            directory: directory.to_owned(),
            max_active: max_active.max(3),
            ring: RwLock::new(Arc::new(Vec::new())),
            stamp: RwLock::new(None),
        };
        if repository.read()?.is_empty() {
            repository.write(STAGED, &repository.fresh()?)?;
            repository.write(1, &repository.fresh()?)?;
        }
        repository.reload()?;
        Ok(repository)
    }

    /// The keys in use.
    pub fn ring(&self) -> KeyRing<K> {
        self.ring.read().clone()
    }

    /// Reads the directory again if another program rotated; a directory that is being written is left for later.
    pub fn refresh(&self) {
        let stamp = fs::metadata(&self.directory).and_then(|m| m.modified()).ok();
        if stamp.is_some() && *self.stamp.read() == stamp {
            return;
        }
        match self.reload() {
            Ok(()) => *self.stamp.write() = stamp,
            Err(error) => tracing::warn!(%error, "keys were not read again"),
        }
    }

    /// Reads the directory again.
    pub fn reload(&self) -> Result<(), KeyError> {
        let mut files = self.read()?;
        let staged = files.remove(&STAGED);
        let mut ring: Vec<K> = files.into_values().rev().collect();
        if ring.is_empty() {
            return Err(self.broken("there is no primary key"));
        }
        ring.extend(staged);
        *self.ring.write() = Arc::new(ring);
        Ok(())
    }

    /// The staged key becomes the primary, a new one is staged, the oldest beyond `max_active` go.
    pub fn rotate(&self) -> Result<(), KeyError> {
        let files = self.read()?;
        let staged = match files.get(&STAGED) {
            Some(staged) => staged.clone(),
            None => self.fresh()?,
        };
        let next = files.keys().max().copied().unwrap_or(STAGED) + 1;
        self.write(next, &staged)?;
        self.write(STAGED, &self.fresh()?)?;
        let mut numbers: Vec<u32> = self.read()?.into_keys().filter(|n| *n != STAGED).collect();
        let keep = self.max_active - 1;
        if numbers.len() > keep {
            numbers.truncate(numbers.len() - keep);
            for number in numbers {
                fs::remove_file(self.path(number)).map_err(|error| KeyError::Io { path: self.path(number), error })?;
            }
        }
        self.reload()
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn fresh(&self) -> Result<K, KeyError> {
        K::fresh().map_err(|what| self.broken(what))
    }

    fn broken(&self, what: impl Into<String>) -> KeyError {
        KeyError::Broken { path: self.directory.clone(), what: what.into() }
    }

    fn read(&self) -> Result<BTreeMap<u32, K>, KeyError> {
        let fail = |error| KeyError::Io { path: self.directory.clone(), error };
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if keys.len() >= FILES_MAX {
                return Err(self.broken("too many keys"));
            }
            let text = fs::read_to_string(entry.path()).map_err(fail)?;
            let key = K::of_text(&text).map_err(|what| self.broken(format!("file {number} {what}")))?;
            keys.insert(number, key);
        }
        Ok(keys)
    }

    /// Written beside and renamed: a reader never sees half a key.
    fn write(&self, number: u32, key: &K) -> Result<(), KeyError> {
        let (path, beside) = (self.path(number), self.directory.join(format!("{number}.new")));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(key.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error| KeyError::Io { path: path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fernet;
    use super::*;

    #[test]
    fn rotation_keeps_old_tokens_until_their_key_goes() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyRepository::<Key>::open(&dir.path().join("keys"), 3).unwrap();
        let first = fernet::seal(&keys.ring(), b"first", 1);
        keys.rotate().unwrap();
        assert_eq!(fernet::open(&keys.ring(), &first).unwrap().0, b"first");
        let second = fernet::seal(&keys.ring(), b"second", 2);
        keys.rotate().unwrap();
        assert!(fernet::open(&keys.ring(), &first).is_none(), "its key was the oldest of max_active");
        assert_eq!(fernet::open(&keys.ring(), &second).unwrap().0, b"second");
        assert_eq!(keys.ring().len(), 3);
    }

    #[test]
    fn a_staged_key_reads_what_the_next_primary_writes() {
        let dir = tempfile::tempdir().unwrap();
        let here = KeyRepository::<Key>::open(&dir.path().join("keys"), 3).unwrap();
        let before = here.ring();
        here.rotate().unwrap();
        let token = fernet::seal(&here.ring(), b"x", 1);
        assert!(fernet::open(&before, &token).is_some(), "whoever has the old copy can read new tokens");
    }

    #[test]
    fn files_are_private_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let token = fernet::seal(&KeyRepository::<Key>::open(&path, 3).unwrap().ring(), b"x", 1);
        assert!(fernet::open(&KeyRepository::<Key>::open(&path, 3).unwrap().ring(), &token).is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(path.join("1")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(path.join("2"), "short").unwrap();
        assert!(KeyRepository::<Key>::open(&path, 3).is_err());
    }
}
