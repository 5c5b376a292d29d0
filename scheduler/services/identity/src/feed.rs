//! Background work: other schedulers' writes empty our caches, old revocation events are forgotten, keys rotate.
use crate::{
    Identity,
    directory::Area,
    tables::{
        AccessRule, ApplicationCredential, Assignment, DomainConfig, Endpoint, EndpointGroup, EndpointLink,
        ExpiringMembership, IdentityProvider, Inference, Membership, OauthAccessToken, Project, Region,
        RevocationEvent, Role, Service, ServiceProvider, Trust, User,
    },
};
use pilvi_kit::clock;
use pilvi_store::{Change, Error, Listen, Op, Query, Record, Told};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::watch;

/// Changes read at once.
const BATCH: usize = 500;
const PRUNE: Duration = Duration::from_secs(600);
/// How often key repositories are looked at for what others changed in them.
const KEY_WATCH: Duration = Duration::from_secs(5);
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);

/// What a change of another scheduler (or of ours, seen again) may have made stale.
fn area(kind: &str, op: Op) -> Area {
    if [Role::KIND, Inference::KIND].contains(&kind) {
        Area::Roles
    } else if [
        Region::KIND,
        Service::KIND,
        Endpoint::KIND,
        EndpointGroup::KIND,
        EndpointLink::KIND,
        ServiceProvider::KIND,
    ]
    .contains(&kind)
    {
        Area::Catalog
    } else if [Membership::KIND, ExpiringMembership::KIND, Assignment::KIND, RevocationEvent::KIND, DomainConfig::KIND]
        .contains(&kind)
    {
        Area::People
    } else if [
        User::KIND,
        Project::KIND,
        ApplicationCredential::KIND,
        AccessRule::KIND,
        Trust::KIND,
        IdentityProvider::KIND,
        OauthAccessToken::KIND,
    ]
    .contains(&kind)
        && op != Op::Insert
    {
        // What is new cannot have been cached: that something is not there is never remembered.
        Area::People
    } else {
        Area::Quiet
    }
}

/// Kinds whose changes make something stale here.
const KINDS: [&str; 15] = [
    Role::KIND,
    Inference::KIND,
    Region::KIND,
    Service::KIND,
    Endpoint::KIND,
    EndpointGroup::KIND,
    EndpointLink::KIND,
    Membership::KIND,
    Assignment::KIND,
    RevocationEvent::KIND,
    User::KIND,
    Project::KIND,
    ApplicationCredential::KIND,
    AccessRule::KIND,
    Trust::KIND,
];

/// Told, at the beginning of each request, what other schedulers have committed (a store that several share).
pub(crate) struct Ear(pub Weak<Identity>);

impl Listen for Ear {
    fn kinds(&self) -> Vec<&'static str> {
        KINDS.to_vec()
    }
    fn changed<'a>(&'a self, changes: &'a [Change]) -> Told<'a> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(identity) => identity.take_up(changes).await,
                None => Ok(()),
            }
        })
    }
    fn lost(&self) -> Told<'_> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(identity) => identity.refresh().await,
                None => Ok(()),
            }
        })
    }
}

impl Identity {
    /// Runs until `stop` turns true. To be spawned once per process.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let ended = async move {
            let _ = stop.wait_for(|s| *s).await;
        };
        tokio::select! {
            () = ended => {}
            () = self.follow() => {}
            () = self.prune() => {}
            () = self.rotate_in_time() => {}
            () = self.rotate_credentials_in_time() => {}
            () = self.watch_keys() => {}
        }
    }

    async fn follow(&self) {
        let mut watch = self.store.watch();
        let mut seen = self.store.head().await.unwrap_or_default();
        // What happened before `seen` was read may already be cached by nobody: start empty.
        self.refresh_or_say().await;
        loop {
            match self.store.changes(seen, BATCH).await {
                Ok(changes) if changes.is_empty() => {
                    if watch.changed().await.is_err() {
                        return;
                    }
                }
                Ok(changes) => {
                    if let Err(error) = self.take_up(&changes).await {
                        tracing::warn!(%error, "identity cannot read what changed");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    seen = changes.last().map_or(seen, |c| c.seq);
                }
                Err(Error::FeedTruncated { .. }) => {
                    seen = self.store.head().await.unwrap_or(seen);
                    self.refresh_or_say().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "identity cannot read the change feed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn refresh_or_say(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "identity cannot read revocation events");
        }
    }

    async fn refresh(&self) -> Result<(), Error> {
        self.load_revocations().await?;
        for area in [Area::People, Area::Roles, Area::Catalog] {
            self.directory.changed(area);
        }
        Ok(())
    }

    async fn take_up(&self, changes: &[Change]) -> Result<(), Error> {
        let mut areas = Vec::new();
        for change in changes {
            if change.kind == RevocationEvent::KIND
                && let Some(event) = self.store.get::<RevocationEvent>(&change.id).await?
            {
                self.revocations.add(event.record);
            }
            let area = area(&change.kind, change.op);
            if !areas.contains(&area) {
                areas.push(area);
            }
        }
        for area in areas {
            self.directory.changed(area);
        }
        Ok(())
    }

    /// Forgets events that no living token can meet.
    async fn prune(&self) {
        loop {
            tokio::time::sleep(PRUNE).await;
            if let Err(error) = self.prune_saml().await {
                tracing::warn!(%error, "old SAML sessions were not deleted");
            }
            let longest = self.config.token_seconds + self.config.allow_expired_seconds;
            let before =
                clock::now_us().saturating_sub(i64::try_from(longest).unwrap_or(i64::MAX).saturating_mul(1_000_000));
            self.revocations.forget_before(before);
            let Ok(events) = self.store.list::<RevocationEvent>(Query::all()).await else { continue };
            let old: Vec<String> = events.into_iter().filter(|e| e.revoked_us < before).map(|e| e.record.id).collect();
            let done = self.write(Area::Quiet, move |tx| {
                let old = old.clone();
                Box::pin(async move {
                    for id in &old {
                        tx.delete::<RevocationEvent>(id).await?;
                    }
                    Ok(())
                })
            });
            if let Err(error) = done.await {
                tracing::warn!(%error, "old revocation events were not deleted");
            }
        }
    }

    /// Keys that the operator or another scheduler rotated.
    async fn watch_keys(&self) {
        loop {
            tokio::time::sleep(KEY_WATCH).await;
            self.fernet_keys.refresh();
            self.credential_keys.refresh();
            if let Some(saml) = &self.saml {
                saml.keys.refresh();
            }
            if let Some(keys) = &self.jws_keys {
                keys.refresh();
            }
        }
    }

    async fn rotate_credentials_in_time(&self) {
        loop {
            if self.config.credential_rotation_seconds == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(self.config.credential_rotation_seconds)).await;
            match self.rotate_credential_keys().await {
                Ok(count) => tracing::info!(count, "credentials were sealed anew"),
                Err(error) => tracing::error!(%error, "credential keys were not rotated"),
            }
        }
    }

    async fn rotate_in_time(&self) {
        loop {
            if self.config.rotation_seconds == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(self.config.rotation_seconds)).await;
            // One scheduler rotates, where several share the keys.
            let period = Duration::from_secs(self.config.rotation_seconds).mul_f64(0.9);
            let turn = self.store.lease("identity.rotation", &pilvi_kit::id::new(), period).await;
            if !matches!(turn, Ok(Some(_))) {
                continue;
            }
            if let Err(error) = self.rotate_keys() {
                tracing::error!(%error, "token keys were not rotated");
            }
        }
    }
}
