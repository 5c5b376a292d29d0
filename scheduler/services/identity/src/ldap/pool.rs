//! Connections to a directory: so many at once, kept for a while, made anew when they break.
//!
//! Two pools a domain. One is bound as the operator said and searches; the other only tries passwords, so
//! that no search ever runs in a user's name. What the library does runs in a task of its own: whatever a
//! directory sends can end that task, and nothing else.
use super::{
    entry::Entry,
    settings::{PoolSettings, Settings, Verify},
};
use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchOptions,
    adapters::{Adapter, EntriesOnly, PagedResults},
};
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use url::Url;

/// An answer must begin within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// And a caller waits no longer for a turn.
const TURN: Duration = Duration::from_secs(10);
const INVALID_CREDENTIALS: u32 = 49;
const NO_SUCH_OBJECT: u32 = 32;
const SIZE_LIMIT: u32 = 4;
/// Answers to a bind that mean: not with this name and password.
const NOT_HIM: [u32; 6] = [INVALID_CREDENTIALS, NO_SUCH_OBJECT, 34, 48, 50, 53];

/// Why a directory did not answer; for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub String);

impl From<LdapError> for Failure {
    fn from(error: LdapError) -> Self {
        Failure(error.to_string())
    }
}

struct Idle {
    ldap: Ldap,
    made: Instant,
}

pub(crate) struct Pool {
    settings: Arc<Settings>,
    of: PoolSettings,
    /// Bind as the reader when a connection is made?
    reads: bool,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// The certificates that are trusted beside those of the system; `None`: the system's alone.
fn trusted(settings: &Settings) -> Result<Option<Arc<rustls::ClientConfig>>, Failure> {
    let mut files: Vec<_> = settings.ca_file.iter().cloned().collect();
    if let Some(directory) = &settings.ca_directory {
        let entries = std::fs::read_dir(directory).map_err(|e| Failure(format!("{}: {e}", directory.display())))?;
        files.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_file()));
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    for file in files {
        let found = CertificateDer::pem_file_iter(&file).map_err(|e| Failure(format!("{}: {e}", file.display())))?;
        roots.add_parsable_certificates(found.flatten());
    }
    if roots.is_empty() {
        return Err(Failure("tls_cacertfile and tls_cacertdir hold no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure(e.to_string()))?;
    Ok(Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// Runs what the library does apart from the caller, who may go away or must not be pulled down by it.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await.map_err(|_| Failure("the directory's answer could not be read".into()))?
}

impl Pool {
    pub fn new(settings: Arc<Settings>, of: PoolSettings, reads: bool) -> Result<Self, Failure> {
        let tls = if settings.verify == Verify::Demand { trusted(&settings)? } else { None };
        Ok(Pool { of, reads, turns: Arc::new(Semaphore::new(of.size)), idle: Mutex::default(), tls, settings })
    }

    fn kept(&self) -> Option<(Ldap, Instant)> {
        let mut idle = self.idle.lock();
        idle.retain_mut(|i| i.made.elapsed() < self.of.lifetime && !i.ldap.is_closed());
        idle.pop().map(|i| (i.ldap, i.made))
    }

    fn keep(&self, ldap: Ldap, made: Instant) {
        if !self.of.lifetime.is_zero() {
            self.idle.lock().push(Idle { ldap, made });
        }
    }

    async fn connect(&self, url: &Url) -> Result<Ldap, Failure> {
        let mut wanted = LdapConnSettings::new()
            .set_conn_timeout(self.settings.connect)
            .set_starttls(self.settings.start_tls && url.scheme() == "ldap")
            .set_no_tls_verify(self.settings.verify == Verify::Never);
        if let Some(tls) = &self.tls {
            wanted = wanted.set_config(tls.clone());
        }
        let (url, bind) = (url.clone(), self.settings.bind.clone().filter(|_| self.reads));
        apart(async move {
            let (connection, mut ldap) = LdapConnAsync::from_url_with_settings(wanted, &url).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.drive().await {
                    tracing::debug!(%error, "a connection to a directory ended");
                }
            });
            if let Some((dn, password)) = bind {
                ldap.with_timeout(ANSWER).simple_bind(&dn, &password).await?.success()?;
            }
            Ok(ldap)
        })
        .await
    }

    /// Any of the servers, tried in order, again and again as often as the operator said.
    async fn fresh(&self) -> Result<Ldap, Failure> {
        let mut last = Failure("no server is named".into());
        for attempt in 0..self.settings.retries {
            if attempt > 0 {
                tokio::time::sleep(self.settings.retry_delay).await;
            }
            for url in &self.settings.urls {
                match self.connect(url).await {
                    Ok(ldap) => return Ok(ldap),
                    Err(failure) => last = Failure(format!("{url}: {failure}")),
                }
            }
        }
        Err(last)
    }

    /// Runs `work` on a connection; one that turns out to be broken is made anew once.
    async fn with<T, F, W>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(Ldap) -> W,
        W: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned()).await;
        let _turn =
            turn.map_err(|_| Failure("all connections are busy".into()))?.map_err(|e| Failure(e.to_string()))?;
        if let Some((ldap, made)) = self.kept() {
            match apart(work(ldap.clone())).await {
                Ok(done) => {
                    self.keep(ldap, made);
                    return Ok(done);
                }
                Err(failure) => tracing::debug!(%failure, "a kept connection to a directory did not answer"),
            }
        }
        let (ldap, made) = (self.fresh().await?, Instant::now());
        let done = apart(work(ldap.clone())).await?;
        self.keep(ldap, made);
        Ok(done)
    }

    /// All entries below (or at) `base` that pass `filter`; none where `base` is not there.
    pub async fn search(
        &self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: Vec<String>,
        most: usize,
    ) -> Result<Vec<Entry>, Failure> {
        let (base, filter, page) = (base.to_owned(), filter.to_owned(), self.settings.page_size);
        let deref = self.settings.deref;
        self.with(move |ldap| {
            let (base, filter, attributes) = (base.clone(), filter.clone(), attributes.clone());
            search(ldap, base, scope, filter, attributes, most, page, deref)
        })
        .await
    }

    /// Is it the password of the entry `dn`?
    pub async fn is_password(&self, dn: &str, password: &str) -> Result<bool, Failure> {
        // A bind with a name and no password succeeds as nobody (RFC 4513, 5.1.2).
        if dn.is_empty() || password.is_empty() {
            return Ok(false);
        }
        let (dn, password) = (dn.to_owned(), password.to_owned());
        self.with(move |mut ldap| {
            let (dn, password) = (dn.clone(), password.clone());
            async move {
                let answer = ldap.with_timeout(ANSWER).simple_bind(&dn, &password).await?;
                match answer.rc {
                    0 => Ok(true),
                    rc if NOT_HIM.contains(&rc) => Ok(false),
                    rc => Err(Failure(format!("bind was answered with {rc}: {}", answer.text))),
                }
            }
        })
        .await
    }
}

#[allow(clippy::too_many_arguments)] // the parts of one search request
async fn search(
    mut ldap: Ldap,
    base: String,
    scope: Scope,
    filter: String,
    attributes: Vec<String>,
    most: usize,
    page: i32,
    deref: super::settings::Deref,
) -> Result<Vec<Entry>, Failure> {
    let mut adapters: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> = vec![Box::new(EntriesOnly::new())];
    if page > 0 && scope != Scope::Base {
        adapters.push(Box::new(PagedResults::new(page)));
    }
    ldap.with_timeout(ANSWER).with_search_options(SearchOptions::new().deref(deref.alias()));
    let mut stream = ldap.streaming_search_with(adapters, &base, scope, &filter, attributes).await?;
    let mut found = Vec::new();
    while let Some(result) = stream.next().await? {
        found.extend(Entry::read(result));
        if found.len() >= most {
            break;
        }
    }
    let cut = found.len() >= most;
    let answer = stream.finish().await;
    match answer.rc {
        0 | SIZE_LIMIT => Ok(found),
        NO_SUCH_OBJECT => Ok(Vec::new()),
        _ if cut => {
            // The rest was not read: it must not be mixed with the answer to the next search.
            let id = stream.ldap_handle().last_id();
            let _ = stream.ldap_handle().abandon(id).await;
            Ok(found)
        }
        rc => Err(Failure(format!("the search was answered with {rc}: {}", answer.text))),
    }
}
