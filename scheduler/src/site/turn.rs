//! Several schedulers of one store: one starts at a time, and none that does not fit the others.
//!
//! ```text
//!  take the turn (a lease) -> keys -> first administrator -> do the images' directories fit? -> enter -> give it back
//! ```
use crate::{config::Config, preflight::Refusal, state::State};
use anyhow::{Context, Result};
use pilvi_kit::{clock, id};
use pilvi_reconcile::{Heir, Member, Peer};
use pilvi_store::Store;
use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

const LEASE: &str = "bootstrap";
/// A scheduler that dies while it starts holds up others for so long.
const TTL: Duration = Duration::from_secs(10);
/// Another one may be at work on a large store.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(100);
/// The mark in a directory of images: two schedulers that read the same one share the directory.
const MARK: &str = ".pilvi-images";

/// The turn to start; renewed until it is given back.
pub struct Turn {
    store: Store,
    holder: String,
    keeper: JoinHandle<()>,
}

impl Turn {
    pub async fn take(store: &Store) -> Result<Option<Self>> {
        if !store.is_shared() {
            return Ok(None);
        }
        let (holder, end) = (id::new(), Instant::now() + PATIENCE);
        while store.lease(LEASE, &holder, TTL).await?.is_none() {
            anyhow::ensure!(Instant::now() < end, "another scheduler has been starting for {} s", PATIENCE.as_secs());
            tokio::time::sleep(POLL).await;
        }
        let (keeping, name) = (store.clone(), holder.clone());
        let keeper = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TTL / 4).await;
                if let Err(error) = keeping.lease(LEASE, &name, TTL).await {
                    tracing::warn!(%error, "the turn to start could not be renewed");
                }
            }
        });
        Ok(Some(Turn { store: store.clone(), holder, keeper }))
    }

    pub async fn give_back(self) -> Result<()> {
        self.keeper.abort();
        self.store.release(LEASE, &self.holder).await?;
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The mark of a directory of images, made when it has none.
fn mark(directory: &Path) -> Result<String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| directory.display().to_string())?;
    let path = directory.join(MARK);
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(id::new().as_bytes())?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
}

/// Makes this process a scheduler of the store, and settles what its former life in this directory left.
pub async fn enter(store: &Store, state: &State, config: &Config, heir: Arc<dyn Heir>) -> Result<Arc<Member>> {
    let images = mark(&config.images(state))?;
    let former = fs::read_to_string(state.scheduler_id()).ok().map(|text| text.trim().to_owned());
    let others = pilvi_reconcile::living(store, None).await?;
    let stranger = others.iter().find(|peer| peer.images != images && Some(&peer.id) != former.as_ref());
    if let Some(stranger) = stranger {
        return Err(Refusal(format!(
            "the scheduler {} ({}) keeps image data in another directory than this one ({}). Schedulers of one store \
             must share it: mount one directory on all of them and name it: images_dir",
            stranger.name,
            stranger.address,
            config.images(state).display()
        ))
        .into());
    }
    let peer = Peer {
        id: id::new(),
        name: nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: config.agent_url(),
        images,
        started_us: clock::now_us(),
    };
    let id = peer.id.clone();
    let member = Member::enter(store.clone(), peer).await?;
    member.add_heir(heir);
    member.settle_at_start(former.as_deref()).await.map_err(|e| anyhow::anyhow!("{e}"))?;
    crate::state::write_secret(&state.scheduler_id(), &id)?;
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_mark() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = mark(&a.path().join("images")).unwrap();
        assert_eq!(mark(&a.path().join("images")).unwrap(), first);
        assert_ne!(mark(b.path()).unwrap(), first);
    }
}
