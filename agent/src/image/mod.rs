//! Images on this host: fetched once, verified, shared, forgotten after a while.
//!
//! ```text
//! <key>.part --resume, hash--> verified --judged--> raw, iso, aki, ari -----------------------> <key>.img
//!                                  |          '---> qcow2, vmdk, vhd, vhdx, vdi --made raw------'
//!                                  '-- not what it is said to be, or dangerous: thrown away
//! ```
//! `<key>` names the image and what it must hash to. Whoever asks while a fetch is under way waits
//! for that one. What does not hash to what the scheduler said is thrown away, never used.
use crate::durable;
use crate::error::Trouble;
use crate::turn::Turns;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use pilvi_agent_api::v1::ImageRef;
use pilvi_disk::convert::{self, Named, Unsettled, Wanted};
use pilvi_disk::{Format, Refusal, Rules};
use sha2::{Digest, Sha512};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// How long a fetch may stand still.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the largest disk: 16 TiB.
const LARGEST: u64 = 16 << 40;
/// How long a conversion may take.
const CONVERT_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Where image bytes come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// The bytes of image `id` from `offset` on.
    async fn fetch(&self, id: &str, offset: u64) -> Result<BoxStream<'static, Result<Bytes, String>>, String>;
}

/// The images of one host.
pub struct Cache {
    dir: PathBuf,
    source: Arc<dyn Source>,
    fetches: Semaphore,
    flights: Turns,
}

/// A file that holds an image's bytes as a guest shall see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// A raw file; shared, never written to.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
}

/// The name under which an image is kept.
///
/// # Errors
/// When id or hash are not spelled as such.
pub fn key(image: &ImageRef) -> Result<String, String> {
    if !crate::ledger::safe_name(&image.id) {
        return Err(format!("{:?} is no image id", image.id));
    }
    let hash = image.sha512.to_ascii_lowercase();
    if !hash.is_empty() && (hash.len() != 128 || !hash.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(format!("image {}: its SHA-512 is not 128 hexadecimal digits", image.id));
    }
    let start = hash.get(..16).unwrap_or("unhashed");
    Ok(format!("{}-{start}", image.id))
}

impl Cache {
    /// A cache in `dir` with at most `fetches` transfers at the same time.
    #[must_use]
    pub fn new(dir: PathBuf, source: Arc<dyn Source>, fetches: usize) -> Self {
        Self { dir, source, fetches: Semaphore::new(fetches), flights: Turns::default() }
    }

    /// The file of an image, fetched and verified if it is not there. `limit` is the size of the
    /// disk it shall fit on, in bytes; 0 for none.
    ///
    /// # Errors
    /// Text for the observation. A later call resumes where this one stopped.
    pub async fn get(&self, image: &ImageRef, limit: u64) -> Result<Cached, Trouble> {
        let key = key(image)?;
        let _alone = self.flights.take(&key).await;
        let path = self.dir.join(format!("{key}.img"));
        if let Some(cached) = present(&path) {
            return Ok(fits(cached, image, limit)?);
        }
        let _slot = self.fetches.acquire().await.map_err(|e| e.to_string())?;
        let part = self.dir.join(format!("{key}.part"));
        let fetched = self.fetch(image, &part).await;
        if let Err(error) = &fetched {
            tracing::warn!(image = image.id, %error, "image not fetched");
        }
        fetched?;
        let (from, to, format) = (part.clone(), path.clone(), image.disk_format.clone());
        let settled = tokio::task::spawn_blocking(move || settle(&from, &to, &format, limit));
        let settled = settled.await.unwrap_or_else(|e| Err(e.to_string()));
        settled.map_err(|e| format!("image {}: {e}", image.id))?;
        let cached = present(&path).ok_or("the image vanished from the cache")?;
        Ok(fits(cached, image, limit)?)
    }

    /// Brings `part` to the verified bytes of the image.
    async fn fetch(&self, image: &ImageRef, part: &Path) -> Result<(), Trouble> {
        let say = |what: &str| format!("image {}: {what}", image.id);
        let path = part.to_owned();
        let opened = tokio::task::spawn_blocking(move || open_part(&path)).await;
        let opened = opened.unwrap_or_else(|e| Err(io::Error::other(e)));
        let (mut file, mut hash, mut length) = opened.map_err(|e| say(&e.to_string()))?;
        if image.size == 0 || length < image.size {
            let bytes = self.source.fetch(&image.id, length).await;
            let mut bytes = bytes.map_err(|e| Trouble::passing(say(&e)))?;
            loop {
                let next = tokio::time::timeout(STALL_LIMIT, bytes.next()).await;
                let piece = match next.map_err(|_| Trouble::passing(say("the transfer stands still")))? {
                    None => break,
                    Some(piece) => piece.map_err(|e| Trouble::passing(say(&e)))?,
                };
                length += piece.len() as u64;
                if image.size > 0 && length > image.size {
                    let _ = durable::remove(part);
                    return Err(say("more bytes came than the image has").into());
                }
                let written = tokio::task::spawn_blocking(move || {
                    hash.update(&piece);
                    file.write_all(&piece).map(|()| (file, hash))
                });
                let written = written.await.unwrap_or_else(|e| Err(io::Error::other(e)));
                (file, hash) = written.map_err(|e| {
                    // What lies there would keep the disk full.
                    let _ = durable::remove(part);
                    say(&e.to_string())
                })?;
            }
        }
        if image.size > 0 && length != image.size {
            return Err(Trouble::passing(say(&format!("{length} of {} bytes came", image.size))));
        }
        let found = hex::encode(hash.finalize());
        if !image.sha512.is_empty() && !image.sha512.eq_ignore_ascii_case(&found) {
            let _ = durable::remove(part);
            let start = &found[..16];
            return Err(say(&format!("its SHA-512 does not match (got {start}...)")).into());
        }
        tokio::task::spawn_blocking(move || file.sync_all())
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|e| say(&e.to_string()).into())
    }

    /// Removes what has not been used for `keep` and is not among `needed` keys.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn collect_garbage(&self, needed: &BTreeSet<String>, keep: Duration) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
            let Some(stem) = stem else { continue };
            let stem = stem.strip_suffix(".img").unwrap_or(&stem);
            if needed.contains(stem) || self.flights.busy(stem) {
                continue;
            }
            let used = path.metadata()?.modified()?;
            if SystemTime::now().duration_since(used).is_ok_and(|age| age >= keep) {
                tracing::info!(file = %path.display(), "unused image removed");
                durable::remove(&path)?;
            }
        }
        Ok(())
    }
}

/// An image in the cache; noticing it counts as use.
fn present(path: &Path) -> Option<Cached> {
    let file = File::open(path).ok()?;
    let _ = file.set_modified(SystemTime::now());
    Some(Cached { path: path.to_owned(), size: file.metadata().ok()?.len() })
}

fn fits(cached: Cached, image: &ImageRef, limit: u64) -> Result<Cached, String> {
    if limit > 0 && cached.size > limit {
        return Err(format!("image {}: {}", image.id, too_large(cached.size, limit)));
    }
    Ok(cached)
}

/// Opens a part for appending, with the hash and the length of what is already there.
fn open_part(part: &Path) -> io::Result<(File, Sha512, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(part)?;
    let mut hash = Sha512::new();
    let mut length = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok((file, hash, length));
        }
        hash.update(&piece[..count]);
        length += count as u64;
    }
}

/// Turns verified bytes into the file that guests share.
fn settle(part: &Path, path: &Path, format: &str, limit: u64) -> Result<(), String> {
    let fresh = path.with_extension("img.part");
    let file = Named { path: part, disk_format: format, container_format: "bare" };
    let wanted = Wanted { format: Format::Raw, target: &fresh, seconds: CONVERT_LIMIT.as_secs() };
    let largest = if limit > 0 { limit.min(LARGEST) } else { LARGEST };
    let done = match convert::settle(file, wanted, &Rules::of_hosts(largest)) {
        Ok(true) => std::fs::rename(&fresh, path).and_then(|()| durable::remove(part)),
        Ok(false) => std::fs::rename(part, path),
        Err(trouble) => {
            let _ = durable::remove(&fresh);
            return Err(match trouble {
                // Another guest's disk may be larger: the bytes stay.
                Unsettled::Refused(Refusal::TooLarge { found, max }) => too_large(found, max),
                Unsettled::Refused(refusal) => {
                    durable::remove(part).map_err(|e| e.to_string())?;
                    refusal.to_string()
                }
                Unsettled::Failed(error) => format!("it cannot be made raw: {error}"),
            });
        }
    };
    done.map_err(|e| e.to_string())
}

fn too_large(need: u64, have: u64) -> String {
    format!("it needs {} GiB, the disk has {}", need.div_ceil(1 << 30), have >> 30)
}

#[cfg(test)]
mod tests;
