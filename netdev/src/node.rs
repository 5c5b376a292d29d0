//! The node as its worker thread sees it: the thread lives inside the node namespace, owns the netlink socket
//! and the tables, and does one job at a time, so that passes never overlap.
use crate::ask6::{self, Binding6};
use crate::bfd;
use crate::config::{AGENT_LINK, COPY_LINK, COPY_PEER, Config, External, OVERLAY_LINK, PUNT_LINK, ns_path};
use crate::device::{self, Applied, alias_of, devices, report, tap_name};
use crate::dhcp;
use crate::edge;
use crate::error::{Error, Result, Step};
use crate::loader::{Loader, Program};
use crate::metadata::PortNames;
use crate::mirror;
use crate::namespace;
use crate::nat;
use crate::netlink::{Change, Link, Netlink};
use crate::packet::{self, Bindings};
use crate::picture::{self, Problem};
use crate::plan::{self, FoundLinks, LinkStep, PORT_ALIAS, RowStep, WantedLink};
use crate::ra;
use crate::regroup::{Users, only_rules};
use crate::resolver;
use crate::standing;
use crate::switch::SERVICE_MAC;
use crate::table::{Copies, Settings, Table, Tables};
use crate::tap;
use crate::wanted::{Port, Wanted};
use crate::wire;
use crate::wireguard::{self, Wire};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Flows that one port may hold.
const FLOW_CAP: u32 = 32_768;
/// How long a device that was opened before it was wanted is kept.
const SPARE_FOR: Duration = Duration::from_secs(120);
/// How often the tables are read back and compared although nothing is known to have changed.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// A created device gets its programs in the next pass, so two suffice; the third shows that it is quiet.
const LINK_PASSES: usize = 3;
/// Kind of a tap's link, as netlink says it.
const TAP_KIND: &str = "tun";

pub(crate) struct Node {
    config: Config,
    netlink: Netlink,
    loader: Loader,
    sender: OwnedFd,
    /// Tables as written, until the next read-back.
    pub(crate) known: Option<(Tables, Instant)>,
    pub(crate) wanted: Wanted,
    /// What the tables were last drawn from, besides `wanted`.
    pub(crate) drawn: Option<Drawn>,
    /// Addresses last set on the edge namespace's side.
    edge: Option<Provided>,
    /// Rows written since the last pass told of them.
    rows: usize,
    spare: HashMap<String, Instant>,
    /// Where questions about names come out.
    names_end: u32,
    settings: Settings,
    bindings: Bindings,
    names: PortNames,
    /// The encrypted way to other hosts, if it is to be.
    encrypted: Option<Wire>,
    /// Why that is not there.
    overlay_error: Option<String>,
    /// It is known what is wanted.
    told: bool,
}

/// What the edge namespace stands for a provider with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Provided {
    addresses: BTreeSet<(Ipv4Addr, u8)>,
    hops: BTreeSet<(Ipv4Net, Ipv4Addr)>,
}

pub(crate) struct Drawn {
    devices: BTreeMap<String, u32>,
    settings: Settings,
    problems: Vec<Problem>,
    pub(crate) users: Users,
    since: Instant,
}

impl Drawn {
    pub(crate) fn is_fresh(&self) -> bool {
        self.since.elapsed() < VERIFY_EVERY
    }
}

/// Links after the steps, and what went wrong by device.
struct Settled {
    links: Vec<Link>,
    failed: BTreeMap<String, String>,
}

impl Node {
    /// Makes what does not depend on ports. The calling thread must be inside the node namespace.
    pub fn open(config: Config, bindings: Bindings, names: PortNames) -> Result<Self> {
        standing::silence6()?;
        for (key, value) in [
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/all/arp_ignore", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ] {
            if Path::new("/proc/sys/net").join(key).exists() {
                namespace::sysctl(key, value)?;
            }
        }
        let mut netlink = Netlink::open()?;
        let loader = Loader::open(&config.bpffs())?;
        let sender = packet::sender()?;
        let agent = standing::agent_links(&mut netlink)?;
        let (resolver_if, names_end) = resolver::link(&mut netlink)?;
        let copies = Copies { link: standing::copy_link(&mut netlink)?, ..Copies::default() };
        let notes = config.notes.times();
        let encrypted = Wire::of(&config);
        let mut node = Self {
            config,
            netlink,
            loader,
            sender,
            known: None,
            wanted: Wanted::default(),
            drawn: None,
            edge: None,
            rows: 0,
            spare: HashMap::new(),
            names_end,
            settings: Settings {
                flow_cap: FLOW_CAP,
                service_mac: SERVICE_MAC,
                resolver_if,
                copies,
                notes,
                ..Settings::default()
            },
            bindings,
            names,
            encrypted,
            overlay_error: None,
            told: false,
        };
        (node.settings.agent_if, node.settings.agent_mac, node.settings.punt_if) = agent;
        standing::edge_link(&mut node.netlink, &node.config)?;
        standing::underlay_link(&mut node.netlink, &node.config)?;
        node.ensure_overlay()?;
        node.settle_links(&[], true)?;
        Ok(node)
    }

    /// The overlay's device, and what encrypts it. Where that cannot be there is no overlay, and all else goes on. Whether
    /// there is another device than before.
    fn ensure_overlay(&mut self) -> Result<bool> {
        let Some(encrypted) = &mut self.encrypted else {
            wireguard::clear(&self.config)?;
            if self.config.underlay.is_some() {
                standing::overlay_link(&mut self.netlink)?;
            }
            return Ok(false);
        };
        let made = encrypted.ensure(&mut self.netlink);
        let error = made.as_ref().err().map(|e| format!("nothing goes to other hosts, as it cannot be encrypted: {e}"));
        if error != self.overlay_error {
            tracing::error!(error, "encryption between hosts");
        }
        self.overlay_error = error;
        Ok(made.unwrap_or(false))
    }

    /// Why there is no way to other hosts.
    pub fn overlay_error(&self) -> Option<String> {
        self.overlay_error.clone()
    }

    /// Other hosts as peers of what encrypts.
    fn know_hosts(&self, wanted: &Wanted) -> Vec<String> {
        let Some(encrypted) = self.encrypted.as_ref().filter(|_| self.overlay_error.is_none()) else { return vec![] };
        encrypted.sync(&wanted.tunnels).unwrap_or_else(|e| vec![format!("hosts not told to what encrypts: {e}")])
    }

    /// Now and then: what encrypts may have ended, or been changed.
    pub fn watch(&mut self) {
        if self.encrypted.is_none() || !self.told {
            return;
        }
        let made = self.ensure_overlay().and_then(|new| if new { self.pass().map(drop) } else { Ok(()) });
        if let Err(error) = made {
            tracing::warn!(%error, "encryption between hosts");
        }
        let wanted = std::mem::take(&mut self.wanted);
        for problem in self.know_hosts(&wanted) {
            tracing::warn!(problem, "encryption between hosts");
        }
        self.wanted = wanted;
    }

    /// The interface of the host's own stack.
    pub fn agent(&self) -> u32 {
        self.settings.agent_if
    }

    pub fn punt(&self) -> u32 {
        self.settings.punt_if
    }

    pub fn names_end(&self) -> u32 {
        self.names_end
    }

    /// Devices that are there whatever the ports.
    fn standing_links(&self) -> Vec<WantedLink> {
        let link = |name: &str, programs: &[Program]| WantedLink {
            name: name.into(),
            alias: String::new(),
            mtu: None,
            // The switch outside sends us frames for every external address of ours.
            promiscuous: matches!(&self.config.external, External::Device(d) if d == name),
            programs: programs.to_vec(),
        };
        let mut out = vec![
            link(AGENT_LINK, &[Program::FromAgent]),
            link(PUNT_LINK, &[]),
            link(COPY_LINK, &[Program::SendCopy]),
            link(COPY_PEER, &[Program::WrapCopy]),
        ];
        out.extend(self.config.edge_device().map(|d| link(d, &[Program::FromEdge, Program::ToEdge])));
        if self.config.underlay.is_some() {
            out.push(link(OVERLAY_LINK, &[Program::FromOverlay]));
        }
        out
    }

    fn port_links(wanted: &Wanted) -> Vec<WantedLink> {
        let mtus: HashMap<&str, u16> = wanted.networks.iter().map(|n| (n.id.as_str(), n.mtu)).collect();
        let mtu = |p: &Port| mtus.get(p.network.as_str()).copied().unwrap_or(1500);
        let link = |p: &Port| WantedLink {
            name: tap_name(&p.id),
            alias: alias_of(&p.id),
            mtu: Some(u32::from(mtu(p).max(1500))),
            promiscuous: false,
            programs: vec![Program::FromGuest, Program::ToGuest],
        };
        wanted.ports.iter().filter(|p| p.parent.is_none()).map(link).collect()
    }

    fn found_links(&mut self) -> Result<FoundLinks> {
        Ok(FoundLinks { links: self.netlink.links()?, attached: self.loader.attached()? })
    }

    /// Plans and acts until nothing is left to do. `keep`: delete no port yet (the wanted state is not known).
    /// Returns the links at the end and what went wrong, by device.
    fn settle_links(&mut self, ports: &[WantedLink], keep: bool) -> Result<Settled> {
        self.spare.retain(|_, since| since.elapsed() < SPARE_FOR);
        let mut wanted = self.standing_links();
        wanted.extend_from_slice(ports);
        let mut failed: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..LINK_PASSES {
            let found = self.found_links()?;
            let mut spare: BTreeSet<String> = self.spare.keys().cloned().collect();
            if keep {
                spare.extend(found.links.iter().map(|l| l.alias.clone()));
            }
            let mut steps = plan::links(&wanted, &found, &spare);
            steps.retain(|s| s.device().is_none_or(|d| !failed.contains_key(d)));
            if steps.is_empty() {
                self.learn_links(&found.links);
                return Ok(Settled { links: found.links, failed });
            }
            for step in steps {
                if let Err(e) = self.act(&step) {
                    tracing::warn!(?step, error = %e, "packet path step failed");
                    failed.insert(step.device().unwrap_or("links").to_owned(), e.to_string());
                }
            }
        }
        let links = self.netlink.links()?;
        self.learn_links(&links);
        Ok(Settled { links, failed })
    }

    fn learn_links(&mut self, links: &[Link]) {
        let found = |name: &str| links.iter().find(|l| l.name == name);
        let index = |name: &str| found(name).map_or(0, |l| l.index);
        self.settings.overlay_if = if self.config.underlay.is_some() { index(OVERLAY_LINK) } else { 0 };
        self.settings.copies.link = index(COPY_LINK);
        let underlay = self.config.underlay.as_ref().and_then(|u| found(&u.device));
        (self.settings.copies.underlay, self.settings.copies.mtu) = underlay.map_or((0, 0), |l| (l.index, l.mtu));
        self.settings.copies.edge_mtu = self.config.edge_device().and_then(found).map_or(0, |l| l.mtu);
        self.settings.edge_if = self.config.edge_device().map_or(0, index);
        self.settings.edge_mac = self.config.edge_device().and_then(found).map_or([0; 6], |l| l.mac);
        self.settings.shared = match (&self.config.external, &self.config.underlay) {
            (External::Device(d), Some(u)) => *d == u.device,
            _ => false,
        };
    }

    fn act(&mut self, step: &LinkStep) -> Result<()> {
        match step {
            LinkStep::Delete { index, .. } => self.netlink.delete(*index),
            LinkStep::Detach { index, program } => self.loader.detach(*index, *program),
            LinkStep::Create { name, alias } => tap::create(name, || {
                let link = self.netlink.link(name)?.ok_or_else(|| Error::NoPort(name.clone()))?;
                self.netlink.change(link.index, &Change { alias: Some(alias), ..Change::default() })
            }),
            LinkStep::Change { index, up, promiscuous, mtu, alias, .. } => {
                let (promiscuous, alias) = (*promiscuous, alias.as_deref());
                self.netlink
                    .change(*index, &Change { up: Some(*up), promiscuous, mtu: *mtu, alias, ..Change::default() })
            }
            LinkStep::Attach { index, name, program } => self.loader.attach(name, *index, *program),
        }
    }

    /// One pass: devices, tables, answers, edge.
    pub fn apply(&mut self, wanted: Wanted) -> Result<Applied> {
        let short = match only_rules(&self.wanted, &wanted) {
            Some(groups) => groups.is_empty() || self.regroup(groups)?,
            None => false,
        };
        if !short {
            self.drawn = None;
            self.wanted = wanted;
        }
        self.told = true;
        if self.encrypted.is_some() {
            self.ensure_overlay()?;
        }
        for port in &self.wanted.ports {
            self.spare.remove(&alias_of(&port.id));
        }
        self.pass()
    }

    pub(crate) fn pass(&mut self) -> Result<Applied> {
        let wanted = std::mem::take(&mut self.wanted);
        let result = self.pass_for(&wanted);
        self.wanted = wanted;
        result
    }

    /// Draws routes anew: next hops were lost, or are back.
    pub fn reroute(&mut self) {
        self.drawn = None;
        let failed = match self.pass() {
            Ok(applied) if applied.errors.is_empty() => return,
            Ok(applied) => applied.errors.join("; "),
            Err(e) => e.to_string(),
        };
        tracing::error!(error = failed, "routes not drawn anew");
        self.bindings.bfd.undrawn();
    }

    fn pass_for(&mut self, wanted: &Wanted) -> Result<Applied> {
        let Settled { links, failed } = self.settle_links(&Self::port_links(wanted), false)?;
        let devices = devices(wanted, &links);
        let drawn = self.drawn.take().filter(|d| d.devices == devices && d.settings == self.settings && d.is_fresh());
        let drawn = match drawn {
            Some(drawn) => drawn,
            None => self.redraw(wanted, devices)?,
        };
        let mut problems = drawn.problems.clone();
        for link in self.standing_links().iter().filter(|w| !links.iter().any(|l| l.name == w.name)) {
            let message = format!("device {} is not in the namespace", link.name);
            problems.push(Problem { port: None, message, closes: false });
        }
        let mut applied = report(wanted, &drawn.devices, &failed, problems);
        applied.overlay.clone_from(&self.overlay_error);
        applied.rows = std::mem::take(&mut self.rows);
        // What went wrong is tried again.
        self.drawn = applied.errors.is_empty().then_some(drawn);
        Ok(applied)
    }

    /// Draws the tables and brings the kernel's to them.
    fn redraw(&mut self, wanted: &Wanted, devices: BTreeMap<String, u32>) -> Result<Drawn> {
        let vtep = self.config.underlay.as_ref().map(|u| u.address);
        self.settings.copies.from6 = self.source6(wanted)?;
        let in_use = device::in_use(wanted, &devices);
        let watched = if self.settings.edge_if == 0 { BTreeMap::new() } else { bfd::way::hops(wanted, vtep) };
        let left = bfd::way::without_lost(wanted, vtep, &self.bindings.bfd.verdicts());
        let (mut tables, mut problems) = picture::draw(left.as_ref().unwrap_or(wanted), &in_use, vtep, &self.settings);
        bfd::way::draw(&mut tables, &watched);
        *self.bindings.v4.write() = dhcp::bindings(wanted, &in_use);
        *self.bindings.names.write() = Arc::new(resolver::book(wanted, &in_use));
        let mut news = ask6::bindings(wanted, &in_use);
        let old = self.bindings.v6.read().clone();
        ra::withdraw(wanted, &old, &mut news);
        *self.bindings.v6.write() = news.clone();
        *self.names.write() = devices.iter().map(|(id, index)| (*index, id.clone())).collect();
        if let Some(device) = self.config.edge_device().filter(|_| wanted.routers.iter().any(|r| r.gateway6.is_some()))
        {
            standing::speak6(device)?;
        }
        *self.bindings.wires.write() = wire::askers(wanted, &tables, self.settings.edge_if);
        // Before the rows that lead to them.
        let strangers = self.know_hosts(wanted);
        problems.extend(strangers.into_iter().map(|message| Problem { port: None, message, closes: false }));
        let errors = self.write_tables(&tables)?;
        self.advertise(wanted, &old, &news);
        // From now on answers come in.
        self.bindings.delegations.want(self.settings.edge_if, &wanted.delegations);
        self.bindings.bfd.want(watched);
        problems.extend(errors.into_iter().map(|message| Problem { port: None, message, closes: false }));
        if let Err(e) = self.edge_addresses(wanted) {
            problems.push(Problem { port: None, message: e.to_string(), closes: false });
        }
        Ok(Drawn { devices, settings: self.settings, problems, users: Users::of(wanted), since: Instant::now() })
    }

    /// What copies for collectors of IPv6 are sent from, if there are such.
    fn source6(&mut self, wanted: &Wanted) -> Result<Option<Ipv6Addr>> {
        match self.settings.copies.underlay {
            0 => Ok(None),
            underlay if mirror::wants6(&wanted.taps) => Ok(self.netlink.addresses6(underlay)?.first().copied()),
            _ => Ok(None),
        }
    }

    /// Guests hear at once of routers that come, change or go.
    fn advertise(&self, wanted: &Wanted, old: &HashMap<u32, Arc<Binding6>>, news: &HashMap<u32, Arc<Binding6>>) {
        for (ifindex, binding) in news {
            let before = old.get(ifindex);
            if before.is_none_or(|b| b.ra != binding.ra) {
                packet::advertise(&self.sender, *ifindex, binding, ra::LIFETIME);
            }
        }
        for (ifindex, binding) in old {
            let router = |b: &Binding6| b.ra.as_ref().map(|ra| ra.mac);
            if news.get(ifindex).and_then(|b| router(b)) != router(binding) {
                packet::advertise(&self.sender, *ifindex, &ra::farewell(wanted, binding), 0);
            }
        }
    }

    fn write_tables(&mut self, wanted: &Tables) -> Result<Vec<String>> {
        let fresh = self.known.take().filter(|(_, read)| read.elapsed() < VERIFY_EVERY);
        let (mut found, read) = match fresh {
            Some(known) => known,
            None => {
                self.edge = None;
                (self.loader.dump()?, Instant::now())
            }
        };
        let mut errors = Vec::new();
        let mut news = Vec::new();
        for step in plan::tables(wanted, &found) {
            match self.write_row(&step) {
                Ok(()) => plan::apply(&mut found, &step),
                Err(e) => errors.push(e.to_string()),
            }
            if let RowStep::Put { table: Table::Externals, key, value } = &step {
                news.extend(nat::announcement(key, value));
            }
        }
        self.known = Some((found, read));
        for (vni, ip, mac) in news {
            let Some(name) = wire::name(wanted, self.settings.edge_if, vni) else { continue };
            if let Err(e) = packet::announce(&self.sender, name, ip, mac) {
                tracing::debug!(%ip, error = %e, "not announced");
            }
        }
        errors.truncate(100);
        Ok(errors)
    }

    pub(crate) fn write_row(&mut self, step: &RowStep) -> Result<()> {
        match step {
            RowStep::Put { table, key, value } => self.loader.put(*table, key, value)?,
            RowStep::Delete { table, key } => self.loader.delete(*table, key)?,
        }
        self.rows += 1;
        Ok(())
    }

    /// The provider's gateway addresses and what it is told of, on the edge namespace's side.
    fn edge_addresses(&mut self, wanted: &Wanted) -> Result<()> {
        let Some(edge) = self.config.edge() else { return Ok(()) };
        let vtep = self.config.underlay.as_ref().map(|u| u.address);
        let provided = Provided { addresses: edge::gateways(wanted), hops: edge::leaked(wanted, vtep) };
        if self.edge.as_ref() == Some(&provided) {
            return Ok(());
        }
        let (prune, set, mark) = (self.config.owns_edge(), provided.clone(), edge::mark(&self.config.prefix));
        namespace::inside(&ns_path(&edge), move || {
            edge::set_addresses(&set.addresses, prune)?;
            edge::set_hops(&set.hops, mark)
        })?;
        self.edge = Some(provided);
        Ok(())
    }

    /// Opens a port's tap, making it if no pass has yet.
    pub fn open_tap(&mut self, port_id: &str) -> Result<Vec<OwnedFd>> {
        let name = self.ensure_device(port_id)?;
        Ok(vec![tap::open(&name)?])
    }

    fn ensure_device(&mut self, port_id: &str) -> Result<String> {
        let (name, alias) = (tap_name(port_id), alias_of(port_id));
        match self.netlink.link(&name)? {
            Some(link) if link.alias == alias && link.kind == TAP_KIND => {}
            Some(link) if link.alias.starts_with(PORT_ALIAS) && link.alias != alias => {
                return Err(Error::NoPort(format!("{port_id}: its device name belongs to {}", link.alias)));
            }
            other => {
                // A container's veth pair gives way to a machine's tap.
                other.map_or(Ok(()), |link| self.netlink.delete(link.index))?;
                self.spare.insert(alias.clone(), Instant::now());
                self.act(&LinkStep::Create { name: name.clone(), alias })?;
                if self.wanted.ports.iter().any(|p| p.id == port_id) {
                    self.pass()?;
                }
            }
        }
        Ok(name)
    }

    /// Makes the port a veth pair whose other end, `inner`, stands in the namespace at `into`.
    pub fn open_veth(&mut self, port_id: &str, into: &Path, inner: &str) -> Result<()> {
        let (name, alias) = (tap_name(port_id), alias_of(port_id));
        let file = File::open(into).step(format!("open {}", into.display()))?;
        match self.netlink.link(&name)? {
            Some(link) if link.alias != alias && link.alias.starts_with(PORT_ALIAS) => {
                return Err(Error::NoPort(format!("{port_id}: its device name belongs to {}", link.alias)));
            }
            // A tap, or the pair of a guest that is gone.
            Some(link) => self.netlink.delete(link.index)?,
            None => {}
        }
        self.netlink.create_veth(&name, inner, Some(file.as_fd()))?;
        let link = self.netlink.link(&name)?.ok_or_else(|| Error::NoPort(port_id.into()))?;
        self.netlink.change(link.index, &Change { alias: Some(&alias), ..Change::default() })?;
        self.spare.insert(alias, Instant::now());
        let port = self.wanted.ports.iter().find(|p| p.id == port_id);
        let mac = port.map(|p| p.mac.0);
        let network = port.and_then(|p| self.wanted.networks.iter().find(|n| n.id == p.network));
        let mtu = network.map(|n| u32::from(n.mtu));
        let inner = inner.to_owned();
        namespace::inside(into, move || {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(&inner)?.ok_or(Error::NoPort(inner))?;
            netlink.change(link.index, &Change { mac, mtu, ..Change::default() })?;
            netlink.change(link.index, &Change { up: Some(true), ..Change::default() })
        })?;
        if port.is_some() {
            self.pass()?;
        }
        Ok(())
    }
}
