//! The volumes whose bytes lie on this host: a file each, with snapshots beside it, that outlive the instances.
//!
//! ```text
//! <state>/volumes/<id>/data             what guests see, raw
//! <state>/volumes/<id>/snapshots/<id>   copies: shared extents where the file system can, else sparse
//! <state>/volumes/<id>/upload/          on its way to becoming an image
//! <state>/volumes/<id>/doc              how far it has come
//! ```
//! One task for each volume ([`keeper`]) does what [`plan`] says. Guests that use a volume are held while it is copied
//! ([`hold`]), so that a copy is what the guest had on its disk at one moment.
pub mod doc;
mod hold;
pub mod keeper;
pub mod plan;

use crate::error::Trouble;
use crate::ledger::safe_name;
use pilvi_agent_api::v1::Instance;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, watch};

/// Volumes of one host that are copied at the same time; others wait.
const COPIES: usize = 2;

/// What instances and volumes of a host know of each other.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    /// Of volumes that have a task: there for guests, or why not yet.
    ready: watch::Sender<BTreeMap<String, Result<bool, String>>>,
    /// Volume -> instances that shall have it.
    users: Mutex<BTreeMap<String, BTreeSet<String>>>,
    copies: Semaphore,
}

impl Volumes {
    /// The volumes below the folder `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        let ready = watch::Sender::new(BTreeMap::new());
        Self { dir, ready, users: Mutex::default(), copies: Semaphore::new(COPIES) }
    }

    /// The folder of a volume, made or not.
    ///
    /// # Errors
    /// When the id cannot be a file name.
    pub fn folder(&self, id: &str) -> Result<PathBuf, String> {
        if !safe_name(id) {
            return Err(format!("{id:?} is no volume id"));
        }
        Ok(self.dir.join(id))
    }

    /// The file that guests see, made or not.
    ///
    /// # Errors
    /// When the id cannot be a file name.
    pub fn file(&self, id: &str) -> Result<PathBuf, String> {
        self.folder(id).map(|folder| data(&folder))
    }

    /// Names of the volumes that have a folder.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: io::Result<Vec<String>> = names.collect();
        Ok(names?.into_iter().filter(|name| safe_name(name)).collect())
    }

    /// Takes up who shall have which volume.
    pub fn used_by(&self, instances: &[Instance]) {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for instance in instances {
            for volume in instance.disks.iter().filter_map(|disk| disk.volume.as_ref()) {
                users.entry(volume.id.clone()).or_default().insert(instance.id.clone());
            }
        }
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users;
    }

    /// Instances that shall have the volume, in a fixed order.
    #[must_use]
    pub fn users(&self, id: &str) -> BTreeSet<String> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    /// Whether guests can be given the volume.
    #[must_use]
    pub fn ready(&self, id: &str) -> bool {
        self.ready.borrow().get(id) == Some(&Ok(true))
    }

    /// Waits until guests can be given the volume.
    ///
    /// # Errors
    /// When it cannot be made, or this host knows nothing of it.
    pub async fn wait(&self, id: &str) -> Result<(), Trouble> {
        let mut ready = self.ready.subscribe();
        let known = ready.wait_for(|all| all.get(id) != Some(&Ok(false))).await;
        let known = known.map_err(|e| e.to_string())?;
        match known.get(id) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(format!("volume {id}: {error}").into()),
            // It may be named by the next wanted set.
            None => Err(Trouble::passing(format!("volume {id} is not on this host"))),
        }
    }

    fn set_ready(&self, id: &str, now: Option<Result<bool, String>>) {
        self.ready.send_if_modified(|all| match now {
            Some(now) => all.insert(id.to_owned(), now.clone()) != Some(now),
            None => all.remove(id).is_some(),
        });
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn snapshot(folder: &Path, id: &str) -> Result<PathBuf, String> {
    if !safe_name(id) {
        return Err(format!("{id:?} is no snapshot id"));
    }
    Ok(folder.join("snapshots").join(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilvi_agent_api::v1::{Disk, VolumeRef};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_guest_waits_for_its_volume() {
        let volumes = Arc::new(Volumes::new("/nowhere".into()));
        assert!(volumes.wait("a").await.unwrap_err().passing);
        volumes.set_ready("a", Some(Ok(false)));
        let waits = tokio::spawn({
            let volumes = volumes.clone();
            async move { volumes.wait("a").await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished() && !volumes.ready("a"));
        volumes.set_ready("a", Some(Ok(true)));
        waits.await.unwrap().unwrap();
        assert!(volumes.ready("a"));
        volumes.set_ready("a", Some(Err("no room".into())));
        assert!(volumes.wait("a").await.unwrap_err().text.contains("no room"));
    }

    #[test]
    fn names_from_outside_stay_inside() {
        let volumes = Volumes::new("/v".into());
        assert!(volumes.file("../x").is_err() && snapshot(Path::new("/v/a"), "../x").is_err());
        assert_eq!(volumes.file("a").unwrap(), Path::new("/v/a/data"));
        assert!(volumes.ids().unwrap().is_empty());
    }

    #[test]
    fn users_are_those_of_the_newest_set() {
        let volumes = Volumes::new("/v".into());
        let disk = Disk { volume: Some(VolumeRef { id: "v".into(), ..VolumeRef::default() }), ..Disk::default() };
        let one = Instance { id: "i".into(), disks: vec![Disk::default(), disk], ..Instance::default() };
        volumes.used_by(&[one]);
        assert_eq!(volumes.users("v"), ["i".to_owned()].into());
        volumes.used_by(&[]);
        assert!(volumes.users("v").is_empty());
    }
}
