//! Keys that all schedulers of a cloud share: in the store, sealed with a master key that is not.
//!
//! ```text
//!  master key (a file that the operator copies) --opens--> keys.sealed in the store
//!        start:    store -> state directory, before anything reads it    (first start: the other way round)
//!        running:  a rotation here -> store -> the other schedulers' directories -> read again
//! ```
//! So a scheduler's directory holds nothing of its own but the master key: lost, it is made again from the store. The
//! files stay what every part of the program reads; this module only keeps them equal. Of two that rotate at the same
//! time the store takes one; the other's new keys were never used, since a key is staged before it signs.
//!
//! Only where the store can be shared (PostgreSQL). With a SQLite file the directory is the one place of the keys.
use crate::{
    config::Config,
    preflight::Refusal,
    state::{self, State},
};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use parking_lot::Mutex;
use pilvi_identity::{
    Identity,
    token::fernet::{self, Key},
};
use pilvi_store::{Error, Record, Store, Stored};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// All shared files, sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedKeys {
    pub id: String,
    /// A Fernet text of the map from paths to contents.
    pub sealed: String,
}

impl Record for SealedKeys {
    const KIND: &'static str = "sealed_keys";
    fn id(&self) -> &str {
        &self.id
    }
}

const ONE: &str = "keys";
/// Folders below the state directory that are shared whole, and single files.
const FOLDERS: [&str; 2] = ["pki", "identity"];
const FILES: [&str; 1] = ["admin-password"];
/// How often the directory is compared with what the store had last.
const COMPARE: Duration = Duration::from_secs(5);
/// Files in all, and bytes of one: more is a mistake.
const FILES_MAX: usize = 256;
const BYTES_MAX: u64 = 64 * 1024;

/// Path below the state directory -> content.
type Files = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct Known {
    rev: i64,
    files: Files,
}

/// The shared keys of this scheduler.
pub struct Vault {
    store: Store,
    root: PathBuf,
    master: Key,
    known: Mutex<Known>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// `None` where the store cannot be shared. Refused when the store has keys and the master key is not here.
    pub async fn open(store: &Store, state: &State, config: &Config) -> Result<Option<Arc<Self>>> {
        if !store.is_shared() {
            return Ok(None);
        }
        let path = config.master_key_file.clone().unwrap_or_else(|| state.master_key());
        let sealed = store.get::<SealedKeys>(ONE).await?.is_some();
        let master = match state::read_secret(&path) {
            Ok(text) => parse(&text).with_context(|| format!("{}: not a master key", path.display()))?,
            Err(_) if sealed => {
                return Err(Refusal(format!(
                    "the keys of this cloud are in its store, sealed with a master key that is not in {}. Copy that \
                     file from another scheduler of the cloud (mode 0600), or name it: master_key_file",
                    path.display()
                ))
                .into());
            }
            Err(_) => {
                let fresh = Key::generate();
                state::write_secret(&path, &format!("{}\n", URL_SAFE.encode(fresh.bytes())))?;
                fresh
            }
        };
        let known = Mutex::default();
        Ok(Some(Arc::new(Vault { store: store.clone(), root: state.root.clone(), master, known })))
    }

    /// Makes the directory what the store says, if that is newer; true when something was written.
    pub async fn pull(&self) -> Result<bool> {
        let Some(stored) = self.store.get::<SealedKeys>(ONE).await? else { return Ok(false) };
        if stored.rev == self.known.lock().rev {
            return Ok(false);
        }
        let files = self.unseal(&stored)?;
        let (root, wanted) = (self.root.clone(), files.clone());
        let changed = tokio::task::spawn_blocking(move || write_all(&root, &wanted)).await??;
        *self.known.lock() = Known { rev: stored.rev, files };
        Ok(changed)
    }

    /// Puts into the store what the directory has, if that differs and nobody was quicker.
    pub async fn push(&self) -> Result<()> {
        let root = self.root.clone();
        let files = tokio::task::spawn_blocking(move || read_all(&root)).await??;
        let rev = {
            let known = self.known.lock();
            if known.files == files {
                return Ok(());
            }
            known.rev
        };
        let text = serde_json::to_vec(&files)?;
        let sealed = fernet::seal(std::slice::from_ref(&self.master), &text, 0);
        let record = SealedKeys { id: ONE.into(), sealed };
        let written = self.store.write(move |tx| {
            let record = record.clone();
            Box::pin(async move {
                match tx.get::<SealedKeys>(ONE).await? {
                    None => tx.insert(&record).await.map(|stored| Some(stored.rev)),
                    Some(old) if old.rev == rev => {
                        let next = Stored { record, ..old };
                        tx.update(&next).await.map(|stored| Some(stored.rev))
                    }
                    Some(_) => Ok(None),
                }
            })
        });
        if let Some(rev) = written.await.map_err(|error: Error| anyhow::Error::new(error))? {
            tracing::info!("the cloud's keys were put into the store");
            *self.known.lock() = Known { rev, files };
        }
        Ok(())
    }

    fn unseal(&self, stored: &SealedKeys) -> Result<Files> {
        let opened = fernet::open(std::slice::from_ref(&self.master), &stored.sealed).ok_or_else(|| {
            Refusal(
                "the master key of this scheduler does not open the keys in this store: it is another cloud's".into(),
            )
        })?;
        Ok(serde_json::from_slice(&opened.0)?)
    }

    /// Keeps directory and store equal until `stop` turns true.
    pub async fn run(self: Arc<Self>, identity: Arc<Identity>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = pilvi_kit::server::stopped(&mut stop) => return,
                () = tokio::time::sleep(COMPARE) => {}
            }
            match self.pull().await {
                Ok(true) => {
                    tracing::info!("keys were changed by another scheduler");
                    if let Err(error) = identity.reload_keys() {
                        tracing::error!(%error, "the changed keys cannot be read");
                    }
                }
                Ok(false) => {
                    if let Err(error) = self.push().await {
                        tracing::warn!(%error, "the keys could not be put into the store");
                    }
                }
                Err(error) => tracing::warn!(%error, "the keys could not be read from the store"),
            }
        }
    }
}

fn parse(text: &str) -> Result<Key> {
    let bytes: [u8; fernet::KEY_BYTES] =
        URL_SAFE.decode(text)?.try_into().map_err(|_| anyhow::anyhow!("wrong length"))?;
    Ok(Key::new(bytes))
}

/// Files being written have such names until they are whole.
fn is_whole(name: &str) -> bool {
    !name.ends_with(".new") && !name.ends_with(".part")
}

fn read_all(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    for name in FILES {
        if let Ok(text) = fs::read_to_string(root.join(name)) {
            files.insert(name.to_owned(), text);
        }
    }
    let mut folders: Vec<String> = FOLDERS.iter().map(|f| (*f).to_owned()).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{name}");
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(path);
            } else if is_whole(&name) && meta.len() <= BYTES_MAX {
                files.insert(path, fs::read_to_string(entry.path())?);
            }
            anyhow::ensure!(files.len() + folders.len() <= FILES_MAX, "too many files of keys");
        }
    }
    Ok(files)
}

/// A path as [`read_all`] makes it: below one of ours, no way out.
fn is_ours(path: &str) -> bool {
    let below = FOLDERS.iter().any(|f| path.strip_prefix(f).is_some_and(|rest| rest.starts_with('/')));
    (below || FILES.contains(&path)) && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// New files first, then away with the old ones: there is always a key to read with. True when anything changed.
fn write_all(root: &Path, wanted: &Files) -> Result<bool> {
    let found = read_all(root)?;
    if found == *wanted {
        return Ok(false);
    }
    for (path, text) in wanted.iter().filter(|(path, text)| is_ours(path) && found.get(*path) != Some(*text)) {
        let target = root.join(path);
        if let Some(folder) = target.parent() {
            state::private_folder(folder)?;
        }
        state::write_secret(&target, text)?;
    }
    for path in found.keys().filter(|path| !wanted.contains_key(*path)) {
        fs::remove_file(root.join(path)).with_context(|| path.clone())?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_what_another_was() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(a.path().join("identity/fernet-keys")).unwrap();
        fs::create_dir_all(a.path().join("pki")).unwrap();
        for (path, text) in [("identity/fernet-keys/0", "zero"), ("pki/ca.key", "key"), ("admin-password", "pw\n")] {
            fs::write(a.path().join(path), text).unwrap();
        }
        fs::write(a.path().join("identity/fernet-keys/1.new"), "half").unwrap();
        let files = read_all(a.path()).unwrap();
        assert_eq!(files.len(), 3);
        assert!(write_all(b.path(), &files).unwrap());
        assert!(!write_all(b.path(), &files).unwrap());
        assert_eq!(read_all(b.path()).unwrap(), files);
        let mut less = files.clone();
        less.remove("identity/fernet-keys/0");
        less.insert("identity/fernet-keys/1".into(), "one".into());
        assert!(write_all(b.path(), &less).unwrap());
        assert_eq!(read_all(b.path()).unwrap(), less);
    }

    #[test]
    fn no_path_leads_out() {
        for bad in ["", "pki", "pki/", "pki/../x", "/etc/passwd", "other/x", "pki//x", "identity/./x"] {
            assert!(!is_ours(bad), "{bad}");
        }
        assert!(is_ours("identity/fernet-keys/0") && is_ours("admin-password"));
    }
}
