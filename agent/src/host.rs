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
use crate::instance::{self, Context};
use crate::ledger::safe_name;
use crate::mailbox::{Mailboxes, Target};
use crate::metadata::{View, http};
use crate::net::neighbours::Taken;
use crate::process;
use crate::runtime::{Guest, Runtime};
use crate::volume;
use pilvi_agent_api::v1::{Answer, Instance, Neighbours, Question, Volume, Wanted, question, volume_source};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Most instances that one wanted set may have.
const INSTANCES_LIMIT: usize = 10_000;
/// Most volumes.
const VOLUMES_LIMIT: usize = 50_000;

/// One host and its instances.
pub struct Host {
    pub context: Arc<Context>,
    /// Held while targets are given out: an older set must not follow a newer one.
    order: Mutex<()>,
    wanted: Mutex<Arc<Wanted>>,
    instances: Mailboxes<Instance>,
    volumes: Mailboxes<Volume>,
}

impl Host {
    /// A host that knows of nothing yet.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            order: Mutex::default(),
            wanted: Mutex::default(),
            instances: Mailboxes::default(),
            volumes: Mailboxes::default(),
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
        for id in self.context.volumes.ids()? {
            self.set_volume(&id, Target::Unknown);
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
        self.context.volumes.used_by(&wanted.instances);
        let instances = wanted.instances.iter().take(INSTANCES_LIMIT).map(|instance| (&instance.id, instance));
        spread(instances, authoritative.then(|| self.instances.ids()), |id, target| self.set_target(id, target));
        let volumes = wanted.volumes.iter().take(VOLUMES_LIMIT).map(|volume| (&volume.id, volume));
        spread(volumes, authoritative.then(|| self.volumes.ids()), |id, target| self.set_volume(id, target));
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(wanted.clone());
        let network = wanted.network.clone().unwrap_or_default();
        self.context.neighbours.keep(&network);
        self.context.plane.want(self.context.neighbours.complete(network));
        self.context.board.set_generation(wanted.generation);
    }

    fn set_target(&self, id: &str, target: Target<Instance>) {
        let there = || self.context.ledger.instance_dir(id).exists();
        let task = |mailbox| instance::run(self.context.clone(), self.context.guest(id), mailbox);
        self.instances.set(id, target, there, task);
    }

    fn set_volume(&self, id: &str, target: Target<Volume>) {
        let there = || self.context.volumes.folder(id).is_ok_and(|folder| folder.exists());
        let task = |mailbox| volume::keeper::run(self.context.clone(), id.to_owned(), mailbox);
        self.volumes.set(id, target, there, task);
    }

    /// Makes sure that everything wanted has a task: what was wanted anew in the moment in
    /// which its task ended has none.
    pub fn refresh(&self) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for instance in &self.wanted().instances {
            if safe_name(&instance.id) {
                self.set_target(&instance.id, Target::Wanted(Arc::new(instance.clone())));
            }
        }
        for volume in &self.wanted().volumes {
            if safe_name(&volume.id) {
                self.set_volume(&volume.id, Target::Wanted(Arc::new(volume.clone())));
            }
        }
        self.instances.sweep();
        self.volumes.sweep();
    }

    /// The last wanted set that was taken up.
    #[must_use]
    pub fn wanted(&self) -> Arc<Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keys of the images that something wanted may need.
    #[must_use]
    pub fn images(&self) -> BTreeSet<String> {
        let wanted = self.wanted();
        let refs = wanted.instances.iter().flat_map(|instance| {
            let disks = instance.disks.iter().filter_map(|disk| disk.image.as_ref());
            disks.chain(&instance.kernel).chain(&instance.ramdisk)
        });
        let of_volumes = wanted.volumes.iter().filter_map(|volume| match volume.source.as_ref()?.from.as_ref()? {
            volume_source::From::Image(image) => Some(image),
            _ => None,
        });
        refs.chain(of_volumes).filter_map(|image| crate::image::key(image).ok()).collect()
    }

    /// Stops acting: from here on nothing changes until the next start of an agent.
    pub async fn rest(&self) {
        self.instances.rest().await;
        self.volumes.rest().await;
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
        if !safe_name(id) || !self.instances.has(id) {
            return Err(format!("there is no instance {id} on this host"));
        }
        let seen = self.context.board.instance(id).unwrap_or_default();
        let kind = crate::runtime::Kind::from_word(&seen.runtime);
        Ok((self.context.guest(id), kind.and_then(|kind| self.context.runtimes.get(kind))))
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

/// Gives each wanted thing its target; of those that are `known`, what is not wanted goes.
fn spread<'w, T: Clone + 'w>(
    wanted: impl Iterator<Item = (&'w String, &'w T)>,
    known: Option<Vec<String>>,
    set: impl Fn(&str, Target<T>),
) {
    let mut named = BTreeSet::new();
    for (id, thing) in wanted {
        if !safe_name(id) || !named.insert(id) {
            tracing::error!(id, "id refused");
            continue;
        }
        set(id, Target::Wanted(Arc::new(thing.clone())));
    }
    for id in known.into_iter().flatten().filter(|id| !named.contains(id)) {
        set(&id, Target::Gone);
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
