//! The host as a whole: takes up wanted sets, has a task for each instance, answers questions.
//!
//! ```text
//! start: ledger -> take up what it says (the scheduler may be away)
//!        folders that it does not name -> looked at, not touched
//! wanted set from the scheduler -> ledger -> targets of the tasks, packet path
//! neighbours from the scheduler -> packet path
//!        instances that it does not name (on disk or running) -> removed
//! ```
//! A wanted set that comes over the session is authoritative, also when its generation is lower
//! than the ledger's (the scheduler was restored from a backup): that is logged and obeyed.
use crate::console::Log;
use crate::instance::{self, Context, Target};
use crate::ledger::safe_name;
use crate::metadata::{View, http};
use crate::net::neighbours::Taken;
use crate::process;
use crate::runtime::{Guest, Runtime};
use pilvi_agent_api::v1::{Answer, Instance, Neighbours, Question, Wanted, question};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Most instances that one wanted set may have.
const INSTANCES_LIMIT: usize = 10_000;

/// One host and its instances.
pub struct Host {
    pub context: Arc<Context>,
    console_limit: u64,
    /// Held while targets are given out: an older set must not follow a newer one.
    order: Mutex<()>,
    wanted: Mutex<Arc<Wanted>>,
    mailboxes: Mutex<BTreeMap<String, watch::Sender<Target>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Host {
    /// A host that knows of nothing yet.
    #[must_use]
    pub fn new(context: Arc<Context>, console_kib: u64) -> Arc<Self> {
        Arc::new(Self {
            context,
            console_limit: console_kib << 10,
            order: Mutex::default(),
            wanted: Mutex::default(),
            mailboxes: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Takes up what the ledger says; to be called once.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub fn recover(&self) -> std::io::Result<()> {
        let known = self.context.ledger.load_wanted()?;
        for id in self.context.ledger.instance_ids()? {
            self.set_target(&id, Target::Unknown);
        }
        match known {
            Some(wanted) => self.spread(&wanted, false),
            None => tracing::info!("the ledger is empty: waiting for the scheduler"),
        }
        Ok(())
    }

    /// Takes up a wanted set that the scheduler sent.
    pub fn take(&self, wanted: &Wanted) {
        let former = self.context.board.generation();
        if wanted.generation < former {
            let now = wanted.generation;
            tracing::warn!(former, now, "the scheduler went back to an older generation");
        }
        if let Err(error) = self.context.ledger.save_wanted(wanted) {
            // It is carried out all the same; the scheduler sends it again after a restart.
            tracing::error!(%error, "the wanted set could not be written to the ledger");
        }
        self.spread(wanted, true);
    }

    /// Takes up what the scheduler says of a network's endpoints; false when it must say it whole.
    pub fn take_neighbours(&self, news: Neighbours) -> bool {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match self.context.neighbours.take(news) {
            Taken::New => {
                let network = self.wanted().network.clone().unwrap_or_default();
                self.context.plane.want(self.context.neighbours.complete(network));
                true
            }
            Taken::Foreign => true,
            Taken::Stale => false,
        }
    }

    fn spread(&self, wanted: &Wanted, authoritative: bool) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named = BTreeSet::new();
        for instance in wanted.instances.iter().take(INSTANCES_LIMIT) {
            if !safe_name(&instance.id) || !named.insert(instance.id.clone()) {
                tracing::error!(id = instance.id, "instance id refused");
                continue;
            }
            self.set_target(&instance.id, Target::Wanted(Arc::new(instance.clone())));
        }
        if authoritative {
            let known: Vec<String> = self.locked_mailboxes().keys().cloned().collect();
            for id in known.into_iter().filter(|id| !named.contains(id)) {
                self.set_target(&id, Target::Gone);
            }
        }
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(wanted.clone());
        let network = wanted.network.clone().unwrap_or_default();
        self.context.neighbours.keep(&network);
        self.context.plane.want(self.context.neighbours.complete(network));
        self.context.board.set_generation(wanted.generation);
    }

    fn locked_mailboxes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, watch::Sender<Target>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a target in an instance's mailbox; starts its task if there is none.
    fn set_target(&self, id: &str, target: Target) {
        let mut mailboxes = self.locked_mailboxes();
        // A task that has removed its instance has closed its mailbox.
        if let Some(mailbox) = mailboxes.get(id).filter(|mailbox| !mailbox.is_closed()) {
            mailbox.send_if_modified(|old| {
                let new = *old != target;
                if new {
                    *old = target.clone();
                }
                new
            });
            // Closed in between: the target may not have been seen.
            if !mailbox.is_closed() {
                return;
            }
        }
        if target == Target::Gone && !self.context.ledger.instance_dir(id).exists() {
            mailboxes.remove(id);
            return;
        }
        let mailbox = watch::Sender::new(target);
        let task = instance::run(self.context.clone(), self.guest(id), mailbox.subscribe());
        mailboxes.insert(id.to_owned(), mailbox);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn guest(&self, id: &str) -> Guest {
        let dir = self.context.ledger.instance_dir(id);
        Guest { id: id.to_owned(), console: Log::new(&dir, self.console_limit), dir }
    }

    /// Makes sure that every wanted instance has a task: one that was wanted anew in the moment in
    /// which its task ended has none.
    pub fn refresh(&self) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for instance in &self.wanted().instances {
            if safe_name(&instance.id) {
                self.set_target(&instance.id, Target::Wanted(Arc::new(instance.clone())));
            }
        }
        self.locked_mailboxes().retain(|_, mailbox| !mailbox.is_closed());
    }

    /// The last wanted set that was taken up.
    #[must_use]
    pub fn wanted(&self) -> Arc<Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keys of the images that some wanted instance may need.
    #[must_use]
    pub fn images(&self) -> BTreeSet<String> {
        let wanted = self.wanted();
        let refs = wanted.instances.iter().flat_map(|instance| {
            let disks = instance.disks.iter().filter_map(|disk| disk.image.as_ref());
            disks.chain(&instance.kernel).chain(&instance.ramdisk)
        });
        refs.filter_map(|image| crate::image::key(image).ok()).collect()
    }

    /// Stops acting: from here on nothing changes until the next start of an agent.
    pub async fn rest(&self) {
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        tasks.shutdown().await;
    }

    /// Answers a question.
    pub async fn answer(&self, question: Question) -> Answer {
        let id = question.id;
        let answer = match question.body {
            Some(question::Body::ConsoleLog(ask)) => self.console(&ask.instance_id, ask.lines).await,
            Some(question::Body::Diagnostics(ask)) => self.diagnostics(&ask.instance_id).await,
            Some(question::Body::ServerPassword(ask)) => self.password(&ask.instance_id, ask.clear),
            None => Err("a question that this agent does not know".into()),
        };
        let (data, error) = match answer {
            Ok(data) => (data, String::new()),
            Err(error) => (Vec::new(), error),
        };
        Answer { id, error, data }
    }

    /// The guest of an instance that is on this host, and what runs it.
    fn find(&self, id: &str) -> Result<(Guest, Option<Arc<dyn Runtime>>), String> {
        if !safe_name(id) || !self.locked_mailboxes().contains_key(id) {
            return Err(format!("there is no instance {id} on this host"));
        }
        let seen = self.context.board.instance(id).unwrap_or_default();
        let kind = crate::runtime::Kind::from_word(&seen.runtime);
        Ok((self.guest(id), kind.and_then(|kind| self.context.runtimes.get(kind))))
    }

    /// What the guest posted as its password; nothing where it has posted none.
    fn password(&self, id: &str, clear: bool) -> Result<Vec<u8>, String> {
        let path = self.find(id)?.0.dir.join("password");
        let kept = match std::fs::read(&path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        if clear {
            std::fs::remove_file(&path).map_err(|e| e.to_string())?;
        }
        Ok(kept)
    }

    async fn console(&self, id: &str, lines: u32) -> Result<Vec<u8>, String> {
        let (guest, runtime) = self.find(id)?;
        if let Some(runtime) = runtime.filter(|_| process::recall(&guest.dir).is_some())
            && let Err(error) = runtime.collect_console(&guest).await
        {
            tracing::debug!(instance = id, %error, "fresh console output");
        }
        guest.console.tail(lines).map_err(|e| e.to_string())
    }

    async fn diagnostics(&self, id: &str) -> Result<Vec<u8>, String> {
        let (guest, runtime) = self.find(id)?;
        let wanted = self.wanted();
        let wanted: Option<&Instance> = wanted.instances.iter().find(|i| i.id == id);
        let seen = self.context.board.instance(id).unwrap_or_default();
        let mut document = json!({
            "state": pilvi_agent_api::v1::Power::from_wire(seen.power).word(),
            "runtime": seen.runtime,
            "pid": seen.pid,
            "vcpus": wanted.map(|w| w.vcpus),
            "memory_mib": wanted.map(|w| w.memory_mib),
            "config_drive": wanted.map(|w| w.config_drive),
        });
        let Some(process) = process::recall(&guest.dir) else {
            return Ok(document.to_string().into_bytes());
        };
        if let Some(stat) = process::stat(process.pid) {
            let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
            let ticks = ticks.ok().flatten().and_then(|t| u64::try_from(t).ok()).unwrap_or(100);
            let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
            let page = page.ok().flatten().and_then(|p| u64::try_from(p).ok()).unwrap_or(4096);
            let up = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
            let up: f64 = up.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
            let started = stat.start / ticks.max(1);
            document["uptime_s"] = json!((up as u64).saturating_sub(started));
            document["cpu_time_ms"] = json!(stat.cpu_ticks * 1000 / ticks.max(1));
            document["memory_rss_kib"] = json!(stat.pages * page / 1024);
        }
        let more = match runtime {
            Some(runtime) => runtime.diagnostics(&guest).await.map_err(|e| e.to_string())?,
            None => json!({}),
        };
        if let (Some(document), Some(more)) = (document.as_object_mut(), more.as_object()) {
            document.extend(more.clone());
        }
        Ok(document.to_string().into_bytes())
    }

    /// The instance that a port belongs to.
    fn behind(&self, port: &str) -> Option<(Arc<Wanted>, usize)> {
        let wanted = self.wanted();
        let network = wanted.network.as_ref();
        let owner = network.and_then(|n| n.ports.iter().find(|p| p.id == port));
        let owner = owner.map(|p| p.instance_id.clone()).filter(|id| !id.is_empty());
        let at = wanted.instances.iter().position(|instance| match &owner {
            Some(id) => instance.id == *id,
            None => instance.nics.iter().any(|nic| nic.port_id == port),
        })?;
        Some((wanted, at))
    }
}

impl http::Directory for Host {
    fn view(&self, port: &str) -> Option<View> {
        let (wanted, at) = self.behind(port)?;
        let instance = &wanted.instances[at];
        let network = wanted.network.clone().unwrap_or_default();
        let mine: BTreeSet<&str> = instance.nics.iter().map(|n| n.port_id.as_str()).collect();
        let ports = network.ports.iter().filter(|port| mine.contains(port.id.as_str()));
        let fixed = ports.flat_map(|port| &port.fixed_ips).map(|fixed| fixed.address.clone());
        let floating = network.floating.iter().find(|f| mine.contains(f.port_id.as_str()));
        let password = self.context.ledger.instance_dir(&instance.id).join("password");
        let root = instance.disks.first().and_then(|disk| disk.image.as_ref());
        Some(View {
            metadata: instance.metadata.clone()?,
            local_ipv4: fixed.into_iter().find(|a| a.contains('.')).unwrap_or_default(),
            public_ipv4: floating.map(|f| f.address.clone()).unwrap_or_default(),
            mac: instance.nics.first().map(|nic| nic.mac.clone()).unwrap_or_default(),
            password: std::fs::read(password).unwrap_or_default(),
            disks: instance.disks.iter().map(|disk| disk.id.clone()).collect(),
            image: root.map(|image| image.id.clone()).unwrap_or_default(),
        })
    }

    fn keep_password(&self, port: &str, password: &[u8]) -> std::io::Result<bool> {
        let Some((wanted, at)) = self.behind(port) else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let folder = self.context.ledger.instance_dir(&wanted.instances[at].id);
        let path = folder.join("password");
        if path.exists() {
            return Ok(false);
        }
        crate::durable::save_plain(&path, password).map(|()| true)
    }
}
