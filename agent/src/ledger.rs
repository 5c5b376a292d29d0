//! What this host shall run and how far it has come: on disk, so that the agent may die at any time.
//!
//! ```text
//! <state_dir>/lock                     held while an agent runs
//! <state_dir>/wanted                   the last wanted set that the scheduler sent
//! <state_dir>/neighbours               endpoints on other hosts, as of a second ago
//! <state_dir>/instances/<id>/doc       counters done, how its last start ended
//! <state_dir>/quarantine/              files that were not what had been written
//! ```
//! A damaged file is moved to quarantine and its content comes again from the scheduler. Nothing
//! that runs is ended because the ledger lost its name: only a wanted set that the scheduler sent
//! in this life of the agent can say that an instance shall go.
use crate::durable::{self, Loaded};
use crate::error::Error;
use crate::runtime::Kind;
use nix::fcntl::{Flock, FlockArg};
use pilvi_agent_api::v1;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far the verbs with a counter have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub hard_reboots: u64,
    pub soft_reboots: u64,
    pub rebuilds: u64,
    #[serde(default)]
    pub upgrades: u64,
}

/// The guest ended by itself (or was found gone) while it should have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Wanted generation of the instance when that was noticed: only a newer one starts it again.
    pub generation: u64,
    /// It was gone without having powered off.
    pub crashed: bool,
}

/// How a snapshot ended: without an error and not gone, all of it is with the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotEnd {
    pub image_id: String,
    /// The image was deleted meanwhile.
    pub gone: bool,
    /// Why it failed.
    pub error: String,
}

/// How a move between hosts ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveEnd {
    /// Not yet.
    #[default]
    Open,
    /// The guest is there.
    Done,
    /// It is not, and never was.
    Failed,
    /// It stands still here, and only the other host knows whether it runs there.
    Lost,
}

/// One move of an instance, to here or away from here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moving {
    /// The scheduler's name for it.
    pub id: String,
    pub end: MoveEnd,
    /// Why it failed.
    pub error: String,
}

/// How far one instance has come. Written before and after each thing that cannot be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Doc {
    /// What it was last started with.
    pub runtime: Option<Kind>,
    /// Why it is not the host's first runtime.
    pub runtime_note: String,
    /// Verbs done.
    pub done: Counters,
    /// A start is under way: a guest may or may not be there.
    pub starting: bool,
    /// Boot id of the host at the last start that went well; "" when it is not meant to run.
    pub started: String,
    /// Set when the guest ended unasked.
    pub ended: Option<Ended>,
    /// Its state lies in a file and the next start goes on from there.
    pub suspended: bool,
    /// Where the devices of the saved machine are on its bus.
    pub places: BTreeMap<String, u8>,
    /// Its removal has begun. It is carried through even when the same id is wanted anew: what is left of the old one
    /// says nothing about the new one.
    pub removing: bool,
    /// The newest snapshot that has ended.
    pub snapshot: Option<SnapshotEnd>,
    /// The move that brought it here, or shall.
    pub arrival: Option<Moving>,
    /// The newest move away from here.
    pub departure: Option<Moving>,
}

/// The state directory of one agent.
#[derive(Debug)]
pub struct Ledger {
    root: PathBuf,
    _lock: Flock<File>,
}

impl Ledger {
    /// Opens (and makes) the state directory and locks it.
    ///
    /// # Errors
    /// [`Error::Locked`] when another agent runs on it, [`Error::Io`] when it cannot be made.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for folder in ["", "instances", "images", "quarantine", "tls"] {
            let path = root.join(folder);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(Error::io(&path))?;
        }
        let path = root.join("lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(_) => Err(Error::Locked(root.to_owned())),
        }
    }

    /// The state directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one instance, made or not. `id` must have passed [`safe_name`].
    #[must_use]
    pub fn instance_dir(&self, id: &str) -> PathBuf {
        self.root.join("instances").join(id)
    }

    /// Names of the instance folders that are there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn instance_ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.root.join("instances"))? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| safe_name(name)) {
                ids.push(name.to_owned());
            }
        }
        Ok(ids)
    }

    /// The wanted set as it was last received; `None` when there is none or it was damaged.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn load_wanted(&self) -> io::Result<Option<v1::Wanted>> {
        let path = self.root.join("wanted");
        let Some(body) = self.load(&path)? else {
            return Ok(None);
        };
        match v1::Wanted::decode(body.as_slice()) {
            Ok(wanted) => Ok(Some(wanted)),
            Err(e) => {
                self.quarantine(&path, &e.to_string())?;
                Ok(None)
            }
        }
    }

    /// Keeps a wanted set.
    ///
    /// # Errors
    /// Whatever the file system says; the former set is then still there.
    pub fn save_wanted(&self, wanted: &v1::Wanted) -> io::Result<()> {
        durable::save(&self.root.join("wanted"), &wanted.encode_to_vec())
    }

    /// The endpoints on other hosts that were last written down; none when they are damaged.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn load_neighbours(&self) -> io::Result<Vec<v1::Remote>> {
        let path = self.root.join("neighbours");
        let Some(body) = self.load(&path)? else {
            return Ok(Vec::new());
        };
        match v1::HostNetwork::decode(body.as_slice()) {
            Ok(kept) => Ok(kept.remotes),
            Err(e) => {
                self.quarantine(&path, &e.to_string())?;
                Ok(Vec::new())
            }
        }
    }

    /// Keeps endpoints on other hosts.
    ///
    /// # Errors
    /// Whatever the file system says; the former ones are then still there.
    pub fn save_neighbours(&self, remotes: Vec<v1::Remote>) -> io::Result<()> {
        let kept = v1::HostNetwork { remotes, ..v1::HostNetwork::default() };
        durable::save(&self.root.join("neighbours"), &kept.encode_to_vec())
    }

    /// How far an instance has come; `None` when nothing is known.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn load_doc(&self, id: &str) -> io::Result<Option<Doc>> {
        let path = self.instance_dir(id).join("doc");
        let Some(body) = self.load(&path)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&body) {
            Ok(doc) => Ok(Some(doc)),
            Err(e) => {
                self.quarantine(&path, &e.to_string())?;
                Ok(None)
            }
        }
    }

    /// Keeps how far an instance has come; makes its folder.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn save_doc(&self, id: &str, doc: &Doc) -> io::Result<()> {
        let dir = self.instance_dir(id);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let body = serde_json::to_vec(doc).map_err(io::Error::other)?;
        durable::save(&dir.join("doc"), &body)
    }

    fn load(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match durable::load(path)? {
            Loaded::Missing => Ok(None),
            Loaded::Sound(body) => Ok(Some(body)),
            Loaded::Damaged(why) => {
                self.quarantine(path, &why)?;
                Ok(None)
            }
        }
    }

    fn quarantine(&self, path: &Path, why: &str) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |d| d.as_nanos());
        let shown = path.strip_prefix(&self.root).unwrap_or(path);
        let name = shown.to_string_lossy().replace('/', "-");
        let kept = self.root.join("quarantine").join(format!("{name}-{now}"));
        tracing::error!(file = %path.display(), why, kept = %kept.display(), "damaged file put aside");
        fs::rename(path, kept)
    }
}

/// Whether a name from outside may become a file name below the state directory.
#[must_use]
pub fn safe_name(name: &str) -> bool {
    let spelled = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_stay_inside() {
        for bad in ["", ".", "..", "a/b", ".hidden", "a\0b", "é", &"a".repeat(65)] {
            assert!(!safe_name(bad), "{bad:?}");
        }
        assert!(safe_name("3f1c2b1e-0000-4000-8000-000000000001") && safe_name("root"));
    }

    #[test]
    fn one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ledger::open(dir.path()).unwrap();
        assert!(matches!(Ledger::open(dir.path()), Err(Error::Locked(_))));
        drop(first);
        Ledger::open(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let wanted = v1::Wanted { generation: 7, ..Default::default() };
        ledger.save_wanted(&wanted).unwrap();
        assert_eq!(ledger.load_wanted().unwrap(), Some(wanted));
        fs::write(dir.path().join("wanted"), "rubbish").unwrap();
        assert_eq!(ledger.load_wanted().unwrap(), None);
        assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
        // It is gone from its place, so the next look finds nothing to complain about.
        assert_eq!(ledger.load_wanted().unwrap(), None);
    }

    #[test]
    fn docs_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.load_doc("a").unwrap(), None);
        let doc =
            Doc { runtime: Some(Kind::Fake), ended: Some(Ended { generation: 3, crashed: true }), ..Doc::default() };
        ledger.save_doc("a", &doc).unwrap();
        assert_eq!(ledger.load_doc("a").unwrap(), Some(doc));
        assert_eq!(ledger.instance_ids().unwrap(), ["a"]);
    }
}
