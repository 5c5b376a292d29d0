//! The cache's directory: the only place that touches its files.
//!
//! ```text
//! <image>.<hash>        complete, verified; its modification time is that of the last read
//! <image>.<hash>.part   arriving
//! <image>.queued        to be fetched
//! ```
//!
//! A name holds the hash of the bytes, so that an image that has other bytes than those in the cache is not
//! served from it, whatever was missed. Only complete files have no ending, and they got their name after
//! they were durable: a crash at any moment leaves nothing to mistrust.
use crate::{
    data::files::{Writing, blocking, read_file},
    store::Bytestream,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};

/// Characters of the hash in a name.
const HASH_CHARS: usize = 40;

/// An image in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub image: String,
    pub size: u64,
    /// Reads since the service started.
    pub hits: u64,
    /// Seconds since 1970.
    pub last_accessed: f64,
    pub last_modified: f64,
}

#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    /// Bytes of all complete files at most.
    pub size_max: u64,
    hits: Mutex<BTreeMap<String, u64>>,
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Disk {
    pub fn open(directory: &Path, size_max: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".part") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Disk { directory: directory.to_owned(), size_max, hits: Mutex::new(BTreeMap::new()) })
    }

    fn name(image: &str, hash: &str) -> String {
        format!("{image}.{}", hash.get(..HASH_CHARS).unwrap_or(hash))
    }

    fn hits(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.hits.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes of a cached image; `None` when it is not cached.
    pub async fn read(&self, image: &str, hash: &str, offset: u64, length: u64) -> Option<Bytestream> {
        let path = self.directory.join(Self::name(image, hash));
        let bytes = read_file(path.clone(), offset, length).await.ok()?;
        *self.hits().entry(image.to_owned()).or_default() += 1;
        // The time of the last read decides what goes first; a failure costs that, no more.
        let _ = blocking(move || File::options().append(true).open(path)?.set_modified(SystemTime::now())).await;
        Some(bytes)
    }

    pub async fn has(&self, image: &str, hash: &str) -> bool {
        tokio::fs::try_exists(self.directory.join(Self::name(image, hash))).await.unwrap_or(false)
    }

    /// Begins to take an image; `None` when it is being taken already. Committing it makes it cached.
    pub fn begin(&self, image: &str, hash: &str) -> io::Result<Option<Writing>> {
        let to = self.directory.join(Self::name(image, hash));
        let from = to.with_file_name(format!("{}.part", Self::name(image, hash)));
        match File::options().write(true).create_new(true).mode(0o600).open(&from) {
            Ok(file) => Ok(Some(Writing::begin(file, from, to, self.directory.clone()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Complete files, the longest unread first, with their names.
    async fn files(&self) -> io::Result<Vec<(String, Entry)>> {
        let directory = self.directory.clone();
        let mut found = blocking(move || {
            let mut found = Vec::new();
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let Some((image, _)) =
                    name.split_once('.').filter(|(_, rest)| !rest.contains('.') && *rest != "queued")
                else {
                    continue;
                };
                let Ok(meta) = entry.metadata() else { continue };
                let read = meta.modified().map_or(0.0, seconds);
                let made = meta.created().map_or(meta.ctime() as f64, seconds);
                let entry = Entry {
                    image: image.to_owned(),
                    size: meta.len(),
                    hits: 0,
                    last_accessed: read,
                    last_modified: made,
                };
                found.push((name, entry));
            }
            Ok(found)
        })
        .await?;
        let hits = self.hits();
        for (_, entry) in &mut found {
            entry.hits = hits.get(&entry.image).copied().unwrap_or(0);
        }
        found.sort_by(|(_, a), (_, b)| a.last_accessed.total_cmp(&b.last_accessed));
        Ok(found)
    }

    /// What is cached, by image.
    pub async fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = self.files().await?.into_iter().map(|(_, entry)| entry).collect();
        entries.sort_by(|a, b| a.image.cmp(&b.image));
        Ok(entries)
    }

    async fn remove_name(&self, name: &str) -> io::Result<()> {
        match tokio::fs::remove_file(self.directory.join(name)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes an image; true when it was cached. Who reads it now reads on.
    pub async fn remove(&self, image: &str) -> io::Result<bool> {
        let mut was = false;
        for (name, entry) in self.files().await? {
            if entry.image == image {
                self.remove_name(&name).await?;
                was = true;
            }
        }
        self.hits().remove(image);
        Ok(was)
    }

    pub async fn clear(&self) -> io::Result<usize> {
        let files = self.files().await?;
        for (name, _) in &files {
            self.remove_name(name).await?;
        }
        self.hits().clear();
        Ok(files.len())
    }

    /// Removes the longest unread until the rest fits; gives how many, and how many bytes.
    pub async fn prune(&self) -> io::Result<(usize, u64)> {
        let files = self.files().await?;
        let mut total: u64 = files.iter().map(|(_, entry)| entry.size).sum();
        let (mut count, mut bytes) = (0, 0);
        for (name, entry) in files {
            if total <= self.size_max {
                break;
            }
            self.remove_name(&name).await?;
            total = total.saturating_sub(entry.size);
            (count, bytes) = (count + 1, bytes + entry.size);
        }
        Ok((count, bytes))
    }

    pub async fn queue(&self, image: &str) -> io::Result<()> {
        tokio::fs::write(self.directory.join(format!("{image}.queued")), b"").await
    }

    /// True when it was queued.
    pub async fn unqueue(&self, image: &str) -> io::Result<bool> {
        let name = format!("{image}.queued");
        let was = tokio::fs::try_exists(self.directory.join(&name)).await?;
        self.remove_name(&name).await?;
        Ok(was)
    }

    /// Images that are queued, by id.
    pub async fn queued(&self) -> io::Result<Vec<String>> {
        let directory = self.directory.clone();
        blocking(move || {
            let mut found = Vec::new();
            for entry in fs::read_dir(directory)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                found.extend(name.strip_suffix(".queued").map(str::to_owned));
            }
            found.sort();
            Ok(found)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Incoming;
    use bytes::Bytes;

    async fn fill(disk: &Disk, image: &str, hash: &str, size: usize) {
        let mut writing = disk.begin(image, hash).unwrap().unwrap();
        writing.write(Bytes::from(vec![7; size])).await.unwrap();
        Box::new(writing).commit().await.unwrap();
    }

    #[tokio::test]
    async fn the_longest_unread_goes_first() {
        let home = tempfile::tempdir().unwrap();
        let disk = Disk::open(home.path(), 250).unwrap();
        for image in ["a", "b", "c"] {
            fill(&disk, image, "h", 100).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(disk.read("a", "h", 0, 100).await.is_some());
        assert!(disk.read("a", "other", 0, 100).await.is_none(), "other bytes than those of the image");
        assert_eq!(disk.prune().await.unwrap(), (1, 100));
        let left: Vec<(String, u64)> = disk.entries().await.unwrap().into_iter().map(|e| (e.image, e.hits)).collect();
        assert_eq!(left, [("a".to_owned(), 1), ("c".to_owned(), 0)]);
        assert!(disk.remove("a").await.unwrap() && !disk.remove("a").await.unwrap());
        disk.queue("d").await.unwrap();
        assert_eq!(disk.queued().await.unwrap(), ["d"]);
        assert_eq!((disk.clear().await.unwrap(), disk.unqueue("d").await.unwrap()), (1, true));
    }

    #[tokio::test]
    async fn what_a_crash_cut_off_is_not_served() {
        let home = tempfile::tempdir().unwrap();
        let disk = Disk::open(home.path(), 1000).unwrap();
        std::fs::write(home.path().join("a.h.part"), b"half").unwrap();
        assert!(disk.begin("a", "h").unwrap().is_none(), "taken once at a time");
        let disk = Disk::open(home.path(), 1000).unwrap();
        assert!(!disk.has("a", "h").await);
        assert!(disk.begin("a", "h").unwrap().is_some(), "and may be taken again");
    }
}
