//! The agent's handle on the packet path.
//!
//! ```text
//!   open --------> running --apply*--> running --close--> nothing is left
//!     ^               |
//!     +---- drop, crash or kill: programs, tables and links stay and forward
//! ```
use crate::bfd::{self, WatchedHop, Watcher};
use crate::config::{Config, Ns, ns_path};
use crate::delegation::{Delegations, Delegator, Desk, Kept};
use crate::device::Applied;
use crate::edge;
use crate::error::{Error, Result, Step};
use crate::loader;
use crate::metadata::{METADATA_ADDRESS, MetadataListener, PortNames, Sockets, address6};
use crate::meter::label_name;
use crate::namespace;
use crate::nearby::Nearby;
use crate::node::Node;
use crate::note::Notes;
use crate::packet::{Bindings, DhcpService};
use crate::resolver::{self, Forwarders, Resolver, Streams};
use crate::stats::{Counters, Metered, PortStats, Stats};
use crate::wanted::{Group, Wanted};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Jobs that may wait for the worker before callers do.
const QUEUE: usize = 64;
/// Milliseconds between sweeps of idle flows.
const SWEEP_EVERY: u16 = 10_000;
/// How long the worker waits for a job before it looks after what no job is about.
const WATCH_EVERY: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Node) + Send>;

/// The packet path of one host. Dropping it leaves everything forwarding; [`DataPlane::close`] takes it away.
pub struct DataPlane {
    config: Config,
    jobs: Option<mpsc::SyncSender<Job>>,
    worker: Option<JoinHandle<()>>,
    sweeper: Option<Sweeper>,
    dhcp: Option<DhcpService>,
    delegator: Option<Delegator>,
    delegations: Arc<Desk>,
    watcher: Option<Watcher>,
    watched: Arc<bfd::Desk>,
    nearby: Option<Nearby>,
    resolver: Option<Resolver>,
    streams: Option<Streams>,
    forwarders: Forwarders,
    counters: Arc<Counters>,
    links: Mutex<crate::netlink::Netlink>,
    names: PortNames,
    /// Why there was no way to other hosts at the start.
    overlay_error: Option<String>,
    /// Labels that the last pass wanted, with their names in the tables.
    labels: Mutex<BTreeMap<String, u64>>,
    metadata: Sockets,
    _lock: Flock<File>,
}

struct Parts {
    jobs: mpsc::SyncSender<Job>,
    worker: JoinHandle<()>,
    dhcp: DhcpService,
    delegator: Delegator,
    watcher: Watcher,
    nearby: Nearby,
    questions: OwnedFd,
    links: crate::netlink::Netlink,
    /// The interface of the host's own stack.
    agent: u32,
    overlay_error: Option<String>,
}

impl DataPlane {
    /// Makes or finds the namespaces, the private bpffs, tables and programs. Ports that an earlier process left
    /// stay as they are until the first [`DataPlane::apply`].
    ///
    /// # Errors
    /// Not root, a name that is not allowed, another process has this prefix, or the kernel refuses.
    pub async fn open(config: Config) -> Result<Self> {
        config.check()?;
        tokio::task::spawn_blocking(move || Self::open_blocking(config)).await.map_err(|_| Error::Closed)?
    }

    fn open_blocking(config: Config) -> Result<Self> {
        let lock = lock(&config.state_dir)?;
        loader::mount_bpffs(&config.bpffs())?;
        if namespace::ensure(&config.node())? {
            loader::forget_links(&config.bpffs())?;
            // What encrypts had its socket in the one that is gone.
            crate::wireguard::clear(&config)?;
        }
        if let Some(edge) = config.edge() {
            if config.owns_edge() {
                namespace::ensure(&edge)?;
                namespace::inside(&ns_path(&edge), edge::prepare)?;
            } else if !namespace::exists(&ns_path(&edge)) {
                return Err(Error::Config(format!("edge namespace {edge} is not there to join")));
            }
        }
        let (bindings, names) = (Bindings::default(), PortNames::default());
        let parts = start_worker(&config, bindings.clone(), names.clone())?;
        let (delegations, watched) = (bindings.delegations.clone(), bindings.bfd.clone());
        let (forwarders, rates) = (Forwarders::default(), resolver::Rates::default());
        // From here, so that it asks others from where the caller is.
        let resolver = Resolver::start(parts.questions, bindings.clone(), forwarders.clone(), rates.clone())?;
        let counters = Arc::new(Counters::open(&config.bpffs())?);
        let sweeper = Some(Sweeper::start(counters.clone())?);
        let ns = ns_path(&config.node());
        // A kernel without IPv6 has no such address.
        let has6 = Path::new("/proc/sys/net/ipv6").exists();
        let v6 = has6.then(|| listen_soon(&ns, address6(parts.agent))).transpose()?;
        let metadata = Sockets { v4: listen_soon(&ns, METADATA_ADDRESS)?, v6 };
        let asked = resolver::stream_addresses(has6.then_some(parts.agent));
        let asked = asked.map(|at| listen_soon(&ns, at)).collect::<Result<Vec<_>>>()?;
        let streams = Some(Streams::start(asked, bindings, forwarders.clone(), rates)?);
        Ok(Self {
            config,
            jobs: Some(parts.jobs),
            worker: Some(parts.worker),
            sweeper,
            dhcp: Some(parts.dhcp),
            delegator: Some(parts.delegator),
            delegations,
            watcher: Some(parts.watcher),
            watched,
            nearby: Some(parts.nearby),
            resolver: Some(resolver),
            streams,
            forwarders,
            counters,
            links: Mutex::new(parts.links),
            names,
            overlay_error: parts.overlay_error,
            labels: Mutex::default(),
            metadata,
            _lock: lock,
        })
    }

    async fn job<T: Send + 'static>(&self, job: impl FnOnce(&mut Node) -> Result<T> + Send + 'static) -> Result<T> {
        let (answer, wait) = oneshot::channel();
        let work: Job = Box::new(move |node| {
            // A caller that went away wants no answer.
            drop(answer.send(job(node)));
        });
        let jobs = self.jobs.clone().ok_or(Error::Closed)?;
        match jobs.try_send(work) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(Error::Closed),
            Err(mpsc::TrySendError::Full(work)) => {
                let sent = tokio::task::spawn_blocking(move || jobs.send(work)).await;
                sent.map_err(|_| Error::Closed)?.map_err(|_| Error::Closed)?;
            }
        }
        wait.await.map_err(|_| Error::Closed)?
    }

    /// Brings the packet path to `wanted`: plans against what is there, then acts. Idempotent; writes only what
    /// differs. One bad port does not stop the rest.
    ///
    /// # Errors
    /// The pass did not happen at all. What went wrong within it is in [`Applied`].
    pub async fn apply(&self, wanted: &Wanted) -> Result<Applied> {
        let wanted = wanted.clone();
        *self.labels.lock() = wanted.labels.iter().map(|l| (l.id.clone(), label_name(&l.id))).collect();
        self.job(move |node| node.apply(wanted)).await
    }

    /// Whom guests' questions about names of the outside go to, in order; nobody at first. They are asked from the
    /// namespace in which this packet path was opened.
    pub fn forward_names_to(&self, servers: Vec<SocketAddr>) {
        *self.forwarders.write() = servers;
    }

    /// Gives some groups other rules: what [`DataPlane::apply`] with them in place does, without a look at everything else.
    ///
    /// # Errors
    /// As for [`DataPlane::apply`].
    pub async fn regroup(&self, groups: Vec<Group>) -> Result<()> {
        self.job(move |node| if node.regroup(groups)? { Ok(()) } else { node.pass().map(drop) }).await
    }

    /// Descriptors of the port's tap (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`), one for each queue. The tap is made if
    /// no pass has done so yet, and is then kept for two minutes until one wants it.
    ///
    /// # Errors
    /// The tap is open elsewhere (`EBUSY`), or cannot be made.
    pub async fn open_tap(&self, port_id: &str) -> Result<Vec<OwnedFd>> {
        let id = port_id.to_owned();
        self.job(move |node| node.open_tap(&id)).await
    }

    /// The descriptors of a port's tap that another process has, to be shared with it: for the one that takes its
    /// place. Empty when it has none.
    ///
    /// # Errors
    /// There is no such process, or the kernel does not let this one have them.
    pub fn tap_of(&self, port_id: &str, pid: u32) -> Result<Vec<OwnedFd>> {
        crate::tap::of_process(pid, &crate::device::tap_name(port_id))
    }

    /// Makes the port a veth pair whose other end is called `inner` in the namespace at `into`: for containers, and
    /// for tests with real tools. An earlier device of the port is replaced.
    ///
    /// # Errors
    /// The namespace is not there, has a device `inner` already, or the kernel refuses.
    pub async fn open_veth(&self, port_id: &str, into: &Path, inner: &str) -> Result<()> {
        let (id, into, inner): (String, PathBuf, String) = (port_id.into(), into.into(), inner.into());
        self.job(move |node| node.open_veth(&id, &into, &inner)).await
    }

    /// Why there was no way to other hosts when the packet path was opened; what has become of it each pass says.
    #[must_use]
    pub fn overlay_error(&self) -> Option<&str> {
        self.overlay_error.as_deref()
    }

    /// A listening socket made inside a namespace, for use outside.
    ///
    /// # Errors
    /// There is no such namespace here, or the address cannot be bound in it.
    pub fn listen_in(&self, ns: Ns, address: SocketAddr) -> Result<TcpListener> {
        namespace::listen(&self.ns_path(ns)?, address)
    }

    /// The file that names a namespace, for [`crate::connect_in`] and for moving devices.
    ///
    /// # Errors
    /// This packet path has no edge namespace.
    pub fn ns_path(&self, ns: Ns) -> Result<PathBuf> {
        match ns {
            Ns::Node => Ok(ns_path(&self.config.node())),
            Ns::Edge => {
                self.config.edge().map(|e| ns_path(&e)).ok_or_else(|| Error::Config("no edge namespace".into()))
            }
        }
    }

    /// Connections of guests to 169.254.169.254:80. One socket serves all listeners that this returns.
    ///
    /// # Errors
    /// Called outside of a tokio runtime's I/O driver, or out of descriptors.
    pub fn metadata(&self) -> Result<MetadataListener> {
        let clone = |l: &TcpListener| l.try_clone().step("clone the metadata listener");
        let sockets = Sockets { v4: clone(&self.metadata.v4)?, v6: self.metadata.v6.as_ref().map(clone).transpose()? };
        MetadataListener::new(sockets, self.names.clone())
    }

    /// Counters since the tables were made. Reads the kernel's tables: milliseconds, not microseconds.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let names = self.names.read().clone();
        let mut stats = self.counters.read(&names)?;
        for link in self.links.lock().links()? {
            if let Some(id) = names.get(&link.index) {
                let port: &mut PortStats = stats.ports.entry(id.clone()).or_default();
                (port.sent, port.received) = (link.sent, link.received);
            }
        }
        Ok(stats)
    }

    /// What each wanted label has counted on this host. A label that goes away and comes back starts at nothing.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub fn meters(&self) -> Result<BTreeMap<String, Metered>> {
        let labels = self.labels.lock().clone();
        self.counters.meters(&labels)
    }

    /// Prefixes that an earlier process of this host was lent, as [`Delegations::kept`] said: to be told before the first
    /// [`DataPlane::apply`].
    pub fn keep_delegations(&self, kept: Vec<Kept>) {
        self.delegations.keep(kept);
    }

    /// What has become of the wanted delegations, now and whenever that changes.
    #[must_use]
    pub fn delegations(&self) -> watch::Receiver<Delegations> {
        self.delegations.watch()
    }

    /// What is known of next hops that are watched, now and whenever that changes.
    #[must_use]
    pub fn watched_hops(&self) -> watch::Receiver<Vec<WatchedHop>> {
        self.watched.watch()
    }

    /// What the groups of watched ports decide from now on. Each note is given to one reader alone. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// The notes cannot be opened.
    pub fn notes(&self) -> Result<Notes> {
        Notes::open(&self.config.bpffs(), self.names.clone())
    }

    /// Ends this packet path and removes everything that its prefix owns.
    ///
    /// # Errors
    /// Something could not be removed; [`clear`] may be called again.
    pub async fn close(mut self) -> Result<()> {
        self.stop();
        let config = self.config.clone();
        drop(self);
        clear(config).await
    }

    fn stop(&mut self) {
        self.sweeper = None;
        self.dhcp = None;
        self.delegator = None;
        // It holds a way to the worker's queue.
        self.watcher = None;
        self.nearby = None;
        self.resolver = None;
        self.streams = None;
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            drop(worker.join());
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Removes all that a prefix owns: devices, namespaces, pins, the bpffs, the state directory's files. Safe when
/// there is nothing.
///
/// # Errors
/// A process still runs this packet path, or the kernel refuses.
pub async fn clear(config: Config) -> Result<()> {
    config.check()?;
    tokio::task::spawn_blocking(move || clear_blocking(&config)).await.map_err(|_| Error::Closed)?
}

fn clear_blocking(config: &Config) -> Result<()> {
    let lock = lock(&config.state_dir)?;
    crate::wireguard::clear(config)?;
    let mut names = vec![config.node()];
    if config.owns_edge() {
        names.extend(config.edge());
    }
    for name in names {
        let path = ns_path(&name);
        if namespace::exists(&path) {
            namespace::inside(&path, edge::delete_links)?;
        }
        namespace::remove(&name)?;
    }
    loader::unmount_bpffs(&config.bpffs())?;
    match fs::remove_file(config.state_dir.join(LOCK)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).step("remove the lock"),
        _ => {}
    }
    drop(lock);
    // The caller may keep other things there.
    let _ = fs::remove_dir(&config.state_dir);
    Ok(())
}

const LOCK: &str = "netdev.lock";

fn lock(dir: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(dir).step("create the state directory")?;
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).step("open the lock")?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::Locked(path))
}

/// The metadata address appears with `agent0` a moment before; an earlier process's socket may linger as long.
fn listen_soon(ns: &Path, address: SocketAddr) -> Result<TcpListener> {
    let mut last = namespace::listen(ns, address);
    for _ in 0..20 {
        if last.is_ok() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        last = namespace::listen(ns, address);
    }
    last
}

fn start_worker(config: &Config, bindings: Bindings, names: PortNames) -> Result<Parts> {
    let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
    let (ready, wait) = mpsc::sync_channel(1);
    let config = config.clone();
    let (again, desk) = (jobs.clone(), bindings.bfd.clone());
    let redraw = move || again.try_send(Box::new(Node::reroute)).is_ok();
    let worker = std::thread::Builder::new()
        .name("netdev".into())
        .spawn(move || {
            let opened = namespace::enter(&ns_path(&config.node())).and_then(|()| {
                let bpffs = config.bpffs();
                let node = Node::open(config, bindings.clone(), names)?;
                let nearby = Nearby::start(node.punt(), bindings.clone(), &bpffs)?;
                let delegator = Delegator::start(bindings.delegations.clone())?;
                let watcher = Watcher::start(desk, node.agent(), redraw)?;
                let dhcp = DhcpService::start(node.punt(), bindings)?;
                let questions = resolver::socket(node.names_end())?;
                let seen = (node.agent(), node.overlay_error());
                Ok((node, (dhcp, (delegator, watcher, nearby), questions, crate::netlink::Netlink::open()?, seen)))
            });
            match opened {
                Err(e) => drop(ready.send(Err(e))),
                Ok((mut node, made)) => {
                    if ready.send(Ok(made)).is_ok() {
                        work(&mut node, &queue);
                    }
                }
            }
        })
        .step("start the worker")?;
    let (dhcp, (delegator, watcher, nearby), questions, links, (agent, overlay_error)) =
        wait.recv().map_err(|_| Error::Closed)??;
    Ok(Parts { jobs, worker, dhcp, delegator, watcher, nearby, questions, links, agent, overlay_error })
}

fn work(node: &mut Node, queue: &mpsc::Receiver<Job>) {
    let mut watched = Instant::now();
    loop {
        match queue.recv_timeout(WATCH_EVERY.saturating_sub(watched.elapsed())) {
            Ok(job) => job(node),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                node.watch();
                watched = Instant::now();
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The thread that ends idle flows; it ends with this value.
struct Sweeper {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    fn start(counters: Arc<Counters>) -> Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).step("open eventfd")?);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("sweep".into())
            .spawn(move || {
                let quiet = |ms: u16| {
                    let mut wait = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
                    matches!(poll(&mut wait, PollTimeout::from(ms)), Ok(0) | Err(nix::errno::Errno::EINTR))
                };
                loop {
                    if let Err(e) = counters.sweep() {
                        tracing::warn!(error = %e, "flows not swept");
                    }
                    if !quiet(SWEEP_EVERY) {
                        return;
                    }
                }
            })
            .step("start the sweeper")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}
