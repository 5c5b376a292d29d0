//! Identity (Keystone v3.14): who somebody is, what he may act on, and where the services are.
//!
//! ```text
//!  POST /v3/auth/tokens -> auth/ (prove who, choose where) -> token/ (write it)
//!  any call anywhere    -> kit -> TokenAuthority -> token/resolve (live look-up through directory/)
//!
//!  domain ── project ── project            role ── implies ── role
//!    ├── user ── membership ── group          └── assignment: actor x role x place
//!    └── application credential, trust, credential
//!  region ── endpoint ── service: the catalogue
//!  identity provider ── protocol ── mapping: users who come from outside (federation/)
//!  consumer ── request token ── access token: programs that users let in (oauth1/)
//! ```
//! One folder or file per resource: `api` reads and answers, `ops` is the only writer, `view` writes JSON.
//! Records and their indexes are in [`tables`]; reads on the hot path go through `directory`, whose caches
//! every write empties. No other service is called.
mod access_rule;
mod app_credential;
mod attributes;
mod auth;
mod authority;
mod bootstrap;
mod cascade;
mod catalog;
mod config;
mod credential;
mod delegation;
mod directory;
mod domain;
mod domain_config;
mod fault;
mod federation;
mod feed;
mod form;
mod group;
mod import;
mod ldap;
mod limit;
mod listing;
mod oauth1;
mod oauth2;
mod password;
mod peers;
mod policy;
mod policy_blob;
mod project;
mod role;
mod service;
mod tables;
mod target;
pub mod token;
mod trust;
mod user;
mod version;

pub use bootstrap::{Bootstrap, Bootstrapped, EndpointSpec, Secret};
pub use config::{Config, FederationConfig, HashCost, LimitModel, OpenIdConfig, SamlConfig, SamlTrust, TokenProvider};
pub use credential::RotationError;
pub use federation::{certificates_of_metadata, rehearse_mapping};
pub use import::{DumpError, ImportError, Report as ImportReport};
pub use password::generate as generate_password;
pub use service::{ROOTS, service};
pub use tables::kinds;

use directory::{Area, Directory};
use moka::sync::Cache;
use password::Hasher;
use pilvi_kit::{Fault, clock};
use pilvi_store::{Query, Store, Tx};
use std::{future::Future, pin::Pin, sync::Arc};
use tables::RevocationEvent;
use token::{
    jws::JwsKeys,
    keys::{KeyError, KeyRepository},
    resolve::Resolved,
    revoke::Revocations,
};
use user::compliance::Compliance;

/// Why identity cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("password hashing: {0}")]
    Hash(String),
    #[error("password_regex: {0}")]
    PasswordRegex(String),
    #[error("OpenID Connect: {0}")]
    OpenId(String),
    #[error("SAML: {0}")]
    Saml(String),
    #[error("store: {0}")]
    Store(#[from] pilvi_store::Error),
}

/// What one step of a transaction gives back.
pub(crate) type Step<'t, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 't>>;

/// The service's state.
pub struct Identity {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) fernet_keys: KeyRepository,
    /// Where tokens are signed, or once were.
    pub(crate) jws_keys: Option<JwsKeys>,
    /// Seals the blobs of credentials.
    pub(crate) credential_keys: KeyRepository,
    pub(crate) hasher: Hasher,
    pub(crate) compliance: Compliance,
    pub(crate) directory: Directory,
    pub(crate) revocations: Revocations,
    /// (epoch, audit id) -> what that token stands for
    pub(crate) resolved: Cache<(u64, String), Arc<Resolved>>,
    /// Of signed OAuth 1 requests.
    pub(crate) oauth_nonces: oauth1::Nonces,
    pub(crate) openid: federation::OpenId,
    /// Where there is SAML.
    pub(crate) saml: Option<federation::Saml>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// Tokens whose meaning is remembered.
const RESOLVED_ENTRIES: u64 = 10_000;

impl Identity {
    /// Opens the key repositories (and makes them at first start) and reads the revocation events.
    pub async fn open(store: Store, config: Config) -> Result<Arc<Self>, StartError> {
        let (cost, at_once) = (config.hash_cost, config.hashes_at_once);
        let hasher = tokio::task::spawn_blocking(move || Hasher::new(cost, at_once))
            .await
            .map_err(|e| StartError::Hash(e.to_string()))?;
        let identity = Arc::new(Identity {
            fernet_keys: KeyRepository::open(&config.state_dir.join("fernet-keys"), config.max_active_keys)?,
            jws_keys: jws_keys(&config)?,
            credential_keys: KeyRepository::open(&config.state_dir.join("credential-keys"), config.max_active_keys)?,
            hasher: hasher.map_err(StartError::Hash)?,
            compliance: Compliance::new(&config)?,
            directory: Directory::new(store.clone()),
            revocations: Revocations::default(),
            resolved: Cache::builder().max_capacity(RESOLVED_ENTRIES).time_to_live(ldap::KEPT).build(),
            oauth_nonces: oauth1::nonces(),
            openid: federation::OpenId::new(&config.federation.openid)?,
            saml: saml(&config).await?,
            store,
            config,
        });
        identity.load_revocations().await?;
        identity.store.listen(Arc::new(feed::Ear(Arc::downgrade(&identity))));
        Ok(identity)
    }

    pub(crate) async fn load_revocations(&self) -> Result<(), pilvi_store::Error> {
        for event in self.store.list::<RevocationEvent>(Query::all()).await? {
            self.revocations.add(event.record);
        }
        Ok(())
    }

    /// Reads the keys again: another scheduler has rotated them.
    pub fn reload_keys(&self) -> Result<(), KeyError> {
        if let Some(keys) = &self.jws_keys {
            keys.refresh();
        }
        if let Some(saml) = &self.saml {
            saml.keys.reload()?;
        }
        self.fernet_keys.reload()?;
        self.credential_keys.reload()
    }

    /// Tokens are made with the next key from now on; those of the oldest are refused.
    pub fn rotate_keys(&self) -> Result<(), KeyError> {
        match &self.jws_keys {
            Some(keys) => {
                keys.rotate()?;
                self.fernet_keys.rotate()
            }
            None => self.fernet_keys.rotate(),
        }
    }

    /// A transaction, after which `area`'s caches are empty. `work` may run more than once.
    pub(crate) async fn write<T, F>(&self, area: Area, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> Step<'t, T> + Send + Sync + 'static,
    {
        let done = self.store.write(work).await?;
        self.directory.changed(area);
        Ok(done)
    }

    /// A transaction that also ends tokens.
    pub(crate) async fn write_and_revoke<T, F>(&self, events: Vec<RevocationEvent>, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> Step<'t, T> + Send + Sync + 'static,
    {
        let (work, stored) = (Arc::new(work), events.clone());
        let done = self.store.write(move |tx| with_events(tx, work.clone(), stored.clone())).await?;
        // The events must be known before a reader can see the new generation.
        for event in events {
            self.revocations.add(event);
        }
        self.directory.changed(Area::People);
        Ok(done)
    }
}

/// Making its first keys takes a second or so of computing.
async fn saml(config: &Config) -> Result<Option<federation::Saml>, StartError> {
    if config.federation.saml.url.is_empty() {
        return Ok(None);
    }
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || federation::Saml::open(&config)).await;
    opened.map_err(|e| StartError::Saml(e.to_string()))?.map(Some)
}

/// The keys of signed tokens: made at the first start with such tokens, and read as long as they are there.
fn jws_keys(config: &Config) -> Result<Option<JwsKeys>, KeyError> {
    let directory = config.state_dir.join("jws-keys");
    if config.token_provider == TokenProvider::Jws || directory.exists() {
        return JwsKeys::open(&directory, config.max_active_keys).map(Some);
    }
    Ok(None)
}

fn with_events<T, F>(tx: &mut Tx, work: Arc<F>, events: Vec<RevocationEvent>) -> Step<'_, T>
where
    T: Send + 'static,
    F: for<'t> Fn(&'t mut Tx) -> Step<'t, T> + Send + Sync + 'static,
{
    Box::pin(async move {
        let done = work(&mut *tx).await?;
        for event in &events {
            tx.insert(event).await?;
        }
        Ok(done)
    })
}

/// An event that ends tokens issued up to now; fill in whose.
pub(crate) fn revocation() -> RevocationEvent {
    let now = clock::now_us();
    RevocationEvent { id: pilvi_kit::id::hex(), issued_before_us: now, revoked_us: now, ..RevocationEvent::default() }
}
