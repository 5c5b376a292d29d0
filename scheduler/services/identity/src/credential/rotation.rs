//! New keys for sealed credentials.
//!
//! Before the keys rotate, everything is sealed with the primary one, so that no key goes that something
//! still needs; afterwards everything is sealed with the new one. Each record is written by itself, so a
//! stop in between leaves each readable, and the next run goes on.
use crate::{
    Identity,
    directory::Area,
    tables::Credential,
    token::{fernet, keys::KeyError},
};
use pilvi_kit::{Fault, clock};
use pilvi_store::Query;

/// Records that are looked at in one go.
const PAGE: usize = 500;

/// Why keys were not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("credentials: {0}")]
    Credentials(#[from] Fault),
}

impl Identity {
    /// Seals all credentials with a new key; gives how many there were to be sealed anew.
    pub async fn rotate_credential_keys(&self) -> Result<usize, RotationError> {
        self.credential_keys.refresh();
        self.reseal_credentials().await?;
        self.credential_keys.rotate()?;
        Ok(self.reseal_credentials().await?)
    }

    /// Seals whatever is not sealed with the primary key with it.
    pub(crate) async fn reseal_credentials(&self) -> Result<usize, Fault> {
        let (mut done, mut marker) = (0, None::<String>);
        loop {
            let mut query = Query::all().limit(PAGE);
            if let Some(marker) = &marker {
                query = query.after_marker(marker.clone());
            }
            let page = self.store.list::<Credential>(query).await?;
            let Some(last) = page.last() else { return Ok(done) };
            marker = Some(last.id.clone());
            for credential in &page {
                done += usize::from(self.reseal(&credential.id).await?);
            }
        }
    }

    async fn reseal(&self, id: &str) -> Result<bool, Fault> {
        let (id, ring) = (id.to_owned(), self.credential_keys.ring());
        self.write(Area::Quiet, move |tx| {
            let (id, ring) = (id.clone(), ring.clone());
            Box::pin(async move {
                let Some(mut stored) = tx.get::<Credential>(&id).await? else { return Ok(false) };
                let (primary, sealed) = (ring.get(..1).unwrap_or_default(), &stored.sealed_blob);
                if fernet::open(primary, sealed).is_some() {
                    return Ok(false);
                }
                let Some((blob, _)) = fernet::open(&ring, sealed) else {
                    // Nothing can read it any more; that is told, and ends nothing else.
                    tracing::error!(credential = id, "sealed with a key that is gone");
                    return Ok(false);
                };
                let seconds = u64::try_from(clock::now_us() / 1_000_000).unwrap_or_default();
                stored.record.sealed_blob = fernet::seal(primary, &blob, seconds);
                tx.update(&stored).await?;
                Ok(true)
            })
        })
        .await
    }
}
