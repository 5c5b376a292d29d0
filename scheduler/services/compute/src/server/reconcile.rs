//! Servers towards what is wanted, where the host cannot do it alone: a place, and the end.
//!
//! ```text
//! not placed  -> rank hosts -> one transaction: claim + ports + host   (full, or its segment is, meanwhile: next host)
//! on a host   -> nothing: the fleet sends, the host observes, model::settle decides
//! to go back  -> the host it is to leave confirms (or is dead) -> one transaction: it is where its disks were kept
//! to be gone  -> host confirms (or is dead) -> one transaction: ports + claim released, record DELETED
//! ```
use crate::{
    Compute, action, migration,
    server::{
        model::{Ended, TaskState, VmState},
        ops::living_in,
        reach, snapshot,
    },
    tables::{NetworkWish, PortOf, Server, ServerGroup},
    volume,
};
use async_trait::async_trait;
use pilvi_fleet::Node;
use pilvi_kit::{Caller, Ctx, Fault, Scope, clock};
use pilvi_network::qos::least;
use pilvi_place::{GroupRule, Host, Policy, Request};
use pilvi_placement::candidate::ops::Candidate;
use pilvi_reconcile::{Failure, Next, Reconcile};
use pilvi_store::{Change, Query, Record, Stored, Tx};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// How often a deletion asks whether the host is done, besides being told.
const GONE_POLL: Duration = Duration::from_secs(2);

/// The reconciler of servers.
pub struct Servers {
    compute: Arc<Compute>,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Servers")
    }
}

/// What a pass has to do. Pure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Place,
    Remove,
    /// A cold migration is taken back.
    Return,
    Forget,
    /// A snapshot that will not be: its image goes.
    DropSnapshot,
    Nothing,
}

pub(crate) fn plan(server: &Server, now_us: i64, keep_deleted_us: i64) -> Step {
    if server.wanted.snapshot.is_some() && !snapshot::is_on(server) {
        return Step::DropSnapshot;
    }
    match (server.vm_state, server.wanted.delete) {
        (VmState::Deleted, _) => {
            let since = server.terminated_us.unwrap_or(server.changed_us);
            if now_us - since > keep_deleted_us { Step::Forget } else { Step::Nothing }
        }
        (_, true) => Step::Remove,
        _ if server.resized.as_ref().is_some_and(|resized| resized.returning) => Step::Return,
        (VmState::Building, false) if server.host.is_none() => Step::Place,
        _ => Step::Nothing,
    }
}

impl Servers {
    pub fn new(compute: Arc<Compute>) -> Self {
        Servers { compute }
    }
}

#[async_trait]
impl Reconcile for Servers {
    fn name(&self) -> &'static str {
        "compute.server"
    }

    async fn keys_of(&self, change: &Change) -> Vec<String> {
        if change.kind == Server::KIND {
            return vec![change.id.clone()];
        }
        if change.kind == Node::KIND { self.compute.leaving_of_node(&change.id).await } else { Vec::new() }
    }

    async fn all(&self) -> Result<Vec<String>, Failure> {
        let servers = self.compute.store.list::<Server>(Query::all()).await?;
        let now = clock::now_us();
        let keep = self.compute.config.keep_deleted_us;
        Ok(servers.into_iter().filter(|s| plan(s, now, keep) != Step::Nothing).map(|s| s.record.id).collect())
    }

    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        let Some(server) = self.compute.store.get::<Server>(key).await? else { return Ok(Next::Settled) };
        match plan(&server, clock::now_us(), self.compute.config.keep_deleted_us) {
            Step::Nothing => Ok(Next::Settled),
            Step::Place => self.compute.place_server(&server).await.map_err(Into::into),
            Step::Remove => self.compute.remove_server(&server).await.map_err(Into::into),
            Step::Return => self.compute.return_server(&server).await.map_err(Into::into),
            Step::DropSnapshot => self.compute.drop_snapshot(&server).await.map_err(Into::into),
            Step::Forget => self.compute.forget_server(&server.record.id).await.map_err(Into::into),
        }
    }
}

/// Acting for the server's owner: networks and ports are the project's.
pub(crate) fn owner(server: &Server) -> Ctx {
    let caller = Caller {
        user_id: server.user_id.clone(),
        user_name: server.user_name.clone(),
        scope: Scope::Project {
            id: server.project_id.clone(),
            name: server.project_name.clone(),
            domain_id: String::new(),
            domain_name: String::new(),
        },
        roles: vec![("admin".into(), "admin".into()), ("member".into(), "member".into())],
        ..Caller::default()
    };
    Ctx { caller: Arc::new(caller), ..Ctx::internal() }
}

impl Compute {
    async fn place_server(&self, server: &Stored<Server>) -> Result<Next, Fault> {
        let hosts = self.snapshot(server).await?;
        let mut request = match self.request(server).await {
            Err(fault) if fault.status.is_client_error() => {
                self.fail_server(&server.record.id, fault.code(), &fault.message).await?;
                return Ok(Next::Settled);
            }
            other => other?,
        };
        request.reachable = self.reachable(server, &hosts).await?;
        let (mut refused, mut lost) = (BTreeMap::new(), None);
        for _ in 0..self.config.attempts.max(1) {
            let ranking = pilvi_place::rank(&request, &hosts);
            refused = ranking.refused;
            let Some(host) = ranking.hosts.into_iter().next() else { break };
            match self.settle_on(server, &host).await {
                Ok(()) => {
                    self.fleet.touch(&host);
                    return Ok(Next::Settled);
                }
                // Another request was quicker: the next host may still have room.
                Err(fault) if fault.kind == "AllocationRefused" => lost = Some(fault),
                // The same of addresses: hosts of another segment may still have some.
                Err(fault) if request.reachable.is_some() && reach::is_of_host(&fault) => {
                    request.reachable = self.reachable(server, &hosts).await?;
                    lost = Some(fault);
                }
                Err(fault) if fault.status.is_client_error() && fault.kind != "Conflict" => {
                    self.fail_server(&server.record.id, fault.code(), &fault.message).await?;
                    return Ok(Next::Settled);
                }
                Err(fault) => return Err(fault),
            }
            request.avoid.insert(host);
        }
        tracing::info!(server = server.id, ?refused, ?lost, "no host");
        self.fail_server(&server.record.id, 500, reach::no_host(&refused, lost.as_ref())).await?;
        Ok(Next::Settled)
    }

    async fn request(&self, server: &Server) -> Result<Request, Fault> {
        let hosts_of = |word: &str| -> BTreeSet<String> {
            match server.hints.get(word) {
                Some(serde_json::Value::String(one)) => BTreeSet::from([one.clone()]),
                Some(serde_json::Value::Array(many)) => {
                    many.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
                }
                _ => BTreeSet::new(),
            }
        };
        let of_volumes = self.host_of_volumes(server).await?;
        let mut request = Request {
            vcpus: u64::from(server.flavor.vcpus),
            memory_mib: server.flavor.memory_mib,
            disk_gib: disk_of(server),
            zone: server.zone.clone(),
            host: server.target_host.clone().or(of_volumes.clone()),
            avoid: server.tried_hosts.iter().cloned().collect(),
            runtime: crate::host::part::runtime_of(server).cloned(),
            ..Request::default()
        };
        if server.target_host.is_some() && of_volumes.is_some() && server.target_host != of_volumes {
            return Err(Fault::bad_request("The volumes lie on another host than the one that was named."));
        }
        for (word, hosts) in
            [("same_host", &mut request.same_host_as), ("different_host", &mut request.different_host_from)]
        {
            for id in hosts_of(word) {
                if let Some(other) = self.store.get::<Server>(&id).await? {
                    hosts.extend(other.host.clone());
                }
            }
        }
        if let Some(group) = &server.group {
            request.group = self.group_rule(group, &server.id).await?;
        }
        Ok(request)
    }

    async fn group_rule(&self, group_id: &str, but: &str) -> Result<Option<GroupRule>, Fault> {
        let Some(group) = self.store.get::<ServerGroup>(group_id).await? else { return Ok(None) };
        let policy = match group.policy.as_str() {
            "affinity" => Policy::Affinity,
            "anti-affinity" => Policy::AntiAffinity,
            "soft-affinity" => Policy::SoftAffinity,
            _ => Policy::SoftAntiAffinity,
        };
        let mut members = BTreeMap::new();
        for other in self.store.list::<Server>(Query::all().project(&group.project_id).eq("alive", 1)).await? {
            if let (true, Some(host)) = (other.group.as_deref() == Some(group_id) && other.id != but, &other.host) {
                *members.entry(host.clone()).or_default() += 1;
            }
        }
        Ok(Some(GroupRule { policy, members, max_per_host: group.max_server_per_host.unwrap_or(1) }))
    }

    /// Hosts that a running server could move to, best first; only the named one if one is named.
    pub(crate) async fn hosts_to_move_to(&self, server: &Server, named: Option<String>) -> Result<Vec<String>, Fault> {
        let mut request = self.request(server).await?;
        request.avoid.extend(server.host.clone());
        request.host = named;
        // It goes on with what it runs with.
        request.runtime = server.seen.as_ref().map(|seen| seen.runtime.clone());
        let hosts = self.snapshot(server).await?;
        request.reachable = self.reachable(server, &hosts).await?;
        Ok(pilvi_place::rank(&request, &hosts).hosts)
    }

    /// Hosts as placement and the fleet know them now.
    async fn snapshot(&self, server: &Server) -> Result<Vec<Host>, Fault> {
        let (resources, required) = self.wants(server).await?;
        let request = pilvi_placement::candidate::ops::Request { resources, required, ..Default::default() };
        let found = pilvi_placement::candidate::ops::find(&self.placement, &request).await?;
        let candidates: HashMap<&str, &Candidate> = found.iter().map(|c| (&*c.provider_uuid, c)).collect();
        let nodes = self.fleet.nodes().await?;
        let zones = self.zones_of_hosts().await?;
        let mut starting: HashMap<String, u32> = HashMap::new();
        for server in self.store.list::<Server>(Query::all().state("building").eq("alive", 1)).await? {
            if let Some(host) = server.record.host {
                *starting.entry(host).or_default() += 1;
            }
        }
        let mut hosts = Vec::with_capacity(nodes.len());
        for node in nodes {
            let candidate = candidates.get(node.id.as_str());
            let free = |class: &str| candidate.map_or(0, |c| u64::try_from(c.free_of(class)).unwrap_or(0));
            hosts.push(Host {
                zone: zones.get(&node.name).cloned().unwrap_or_else(|| self.config.default_zone.clone()),
                up: node.is_up(),
                enabled: !node.disabled,
                free_vcpus: free("VCPU"),
                free_memory_mib: free("MEMORY_MB"),
                free_disk_gib: free("DISK_GB"),
                busy: starting.get(&node.name).copied().unwrap_or(0),
                runtimes: node.inventory.runtimes.iter().filter(|r| r.1).map(|r| r.0.clone()).collect(),
                name: node.name.clone(),
            });
        }
        Ok(hosts)
    }

    /// What the server takes of its host, with what its ports keep free, and the traits of whoever gives that.
    async fn wants(&self, server: &Server) -> Result<(BTreeMap<String, i64>, Vec<String>), Fault> {
        let (mut all, mut traits) = (resources(server), BTreeSet::new());
        for wish in &server.networks {
            let (port, network) = (wish.port_id.as_deref(), wish.network_id.as_deref());
            for group in least::wished(&self.store, port, network).await? {
                add(&mut all, group.resources);
                traits.extend(group.required);
            }
        }
        // A trait that nobody has ever had cannot be asked for: nobody offers it.
        Ok((all, traits.into_iter().collect()))
    }

    /// Claim, ports and host in one transaction.
    async fn settle_on(&self, server: &Stored<Server>, host: &str) -> Result<(), Fault> {
        let node = self.fleet.node_by_name(host).await?.ok_or_else(|| Fault::unavailable("The host was removed."))?;
        let (id, host, provider) = (server.record.id.clone(), host.to_owned(), node.record.id);
        let volumes = self.volumes.clone();
        self.store
            .write(move |tx| {
                let (id, host, provider, volumes) = (id.clone(), host.clone(), provider.clone(), volumes.clone());
                Box::pin(async move {
                    let mut server = living_in(tx, &id).await?;
                    if server.host.is_some() || server.wanted.delete {
                        return Ok(());
                    }
                    server.record.ports = wire_in(tx, &server, &host).await?;
                    claim_in(tx, &server, &provider).await?;
                    volume::ops::place_in(tx, &volumes, &mut server.record, &host).await?;
                    server.record.host = Some(host);
                    server.record.task_state = Some(TaskState::Spawning);
                    server.record.changed_us = clock::now_us();
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await
    }

    async fn remove_server(&self, server: &Stored<Server>) -> Result<Next, Fault> {
        let there = server.moving.as_ref().map(|moving| &moving.to);
        let kept = server.resized.as_ref().and_then(|resized| resized.from.as_ref()).map(|kept| &kept.host);
        for host in server.host.iter().chain(there).chain(kept) {
            if !self.is_gone_from(host, &server.record.id).await? {
                return Ok(Next::Again(GONE_POLL));
            }
        }
        self.release_server(&server.record.id).await?;
        Ok(Next::Settled)
    }

    /// A server whose cold migration is taken back waits until the host there has nothing of it: it must not run twice.
    async fn return_server(&self, server: &Stored<Server>) -> Result<Next, Fault> {
        if let Some(host) = &server.host
            && !self.is_gone_from(host, &server.record.id).await?
        {
            return Ok(Next::Again(GONE_POLL));
        }
        self.come_back(&server.record.id).await?;
        Ok(Next::Settled)
    }

    async fn is_gone_from(&self, host: &str, id: &str) -> Result<bool, Fault> {
        let node = self.fleet.node_by_name(host).await?;
        // A dead host cannot confirm; should it live again, its wanted state lacks the server.
        let alive = node.as_ref().is_some_and(|n| n.is_up());
        if alive && !self.fleet.confirmed_gone(host, id) {
            // Where the host's session is at another scheduler, that one sees it go (`ComputePart::settled`).
            self.fleet.touch(host);
            return Ok(false);
        }
        Ok(true)
    }

    /// Servers to be gone on a host that changed: when it is down, nobody waits for its word any more.
    async fn leaving_of_node(&self, node: &str) -> Vec<String> {
        let Ok(Some(node)) = self.fleet.node(node).await else { return Vec::new() };
        let mut leaving = Vec::new();
        for task in ["deleting", "resize_reverting"] {
            let on = Query::all().eq("host", node.name.as_str()).eq("task_state", task);
            leaving.extend(self.store.list::<Server>(on).await.unwrap_or_default());
        }
        leaving.into_iter().map(|s| s.record.id).collect()
    }

    /// The end of a server whose host has nothing of it any more.
    pub(crate) async fn release_server(&self, id: &str) -> Result<(), Fault> {
        let id = id.to_owned();
        self.store
            .write(move |tx| {
                let id = id.clone();
                Box::pin(async move {
                    let Some(mut server) = tx.get::<Server>(&id).await? else { return Ok(()) };
                    if server.vm_state == VmState::Deleted {
                        return Ok(());
                    }
                    release_in(tx, &server).await?;
                    migration::ops::forget_in(tx, &mut server.record).await?;
                    let now = clock::now_us();
                    let record = &mut server.record;
                    (record.vm_state, record.task_state) = (VmState::Deleted, None);
                    (record.terminated_us, record.changed_us) = (Some(now), now);
                    (record.admin_password, record.user_data) = (None, None);
                    record.ports.clear();
                    record.volumes.clear();
                    record.volume_wishes.clear();
                    let host = record.host.clone();
                    action::finish_latest_in(tx, &id, &Ended::Well, host.as_deref()).await?;
                    tx.update(&server).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await
    }

    async fn forget_server(&self, id: &str) -> Result<Next, Fault> {
        let id = id.to_owned();
        self.store
            .write(move |tx| {
                let id = id.clone();
                Box::pin(async move {
                    for action in tx.list::<crate::tables::Action>(Query::all().eq("server_id", id.as_str())).await? {
                        tx.delete::<crate::tables::Action>(&action.record.id).await?;
                    }
                    tx.delete::<Server>(&id).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        Ok(Next::Settled)
    }
}

/// Disk that a server takes of its host, in GiB.
fn disk_of(server: &Server) -> u64 {
    // A volume has taken its own.
    let root = if volume::model::backed(server) { 0 } else { server.flavor.disk_gib };
    root + server.flavor.ephemeral_gib + server.flavor.swap_mib.div_ceil(1024)
}

/// As placement counts it.
pub(crate) fn resources(server: &Server) -> BTreeMap<String, i64> {
    let amounts = [
        ("VCPU", u64::from(server.flavor.vcpus)),
        ("MEMORY_MB", server.flavor.memory_mib),
        ("DISK_GB", disk_of(server)),
    ];
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    amounts.into_iter().filter(|(_, n)| *n > 0).map(|(class, n)| (class.to_owned(), int(n))).collect()
}

fn add(all: &mut BTreeMap<String, i64>, more: BTreeMap<String, i64>) {
    for (class, amount) in more {
        *all.entry(class).or_default() += amount;
    }
}

/// Claims what the server and its ports need now.
pub(crate) async fn claim_in(tx: &mut Tx, server: &Server, provider: &str) -> Result<(), Fault> {
    let mut needed = resources(server);
    for port in &server.ports {
        add(&mut needed, least::note_in(tx, &port.id, provider).await?);
    }
    let allocations = BTreeMap::from([(provider.to_owned(), needed)]);
    // Nothing new: a host that has become smaller does not stand in the way of what is there.
    if pilvi_placement::allocation::ops::of_in(tx, &server.id).await? == allocations {
        return Ok(());
    }
    hold_in(tx, server, allocations).await
}

/// Gives the server exactly these allocations, by provider.
pub(crate) async fn hold_in(
    tx: &mut Tx,
    server: &Server,
    allocations: BTreeMap<String, BTreeMap<String, i64>>,
) -> Result<(), Fault> {
    let claim = pilvi_placement::allocation::ops::Claim {
        consumer: server.id.clone(),
        project_id: server.project_id.clone(),
        user_id: server.user_id.clone(),
        consumer_type: "INSTANCE".into(),
        allocations,
    };
    let refused = |f: Fault| if f.code() == 409 { f.kind("AllocationRefused") } else { f };
    pilvi_placement::allocation::ops::claim_in(tx, claim).await.map_err(refused)
}

/// Makes or takes the server's ports and binds them to the host.
async fn wire_in(tx: &mut Tx, server: &Server, host: &str) -> Result<Vec<PortOf>, Fault> {
    let (ctx, mut ports) = (owner(server), Vec::new());
    for wish in &server.networks {
        ports.push(wire_one_in(tx, &ctx, server, wish, host).await?);
    }
    Ok(ports)
}

pub(crate) async fn wire_one_in(
    tx: &mut Tx,
    ctx: &Ctx,
    server: &Server,
    wish: &NetworkWish,
    host: &str,
) -> Result<PortOf, Fault> {
    use pilvi_network::port::ops;
    let owner = reach::owner_of_ports(server);
    let ours = wish.port_id.is_none();
    let port_id = match (&wish.port_id, &wish.network_id) {
        (Some(id), _) => {
            ops::update_device_in(tx, id, &server.id, &owner, &server.hostname).await?;
            id.clone()
        }
        (None, Some(network)) => {
            let groups = &server.security_groups;
            let groups = pilvi_network::security_group::ops::of_server_in(tx, ctx, network, groups).await?;
            let new = ops::NewPort {
                network_id: network.clone(),
                fixed_ip: wish.fixed_ip.clone(),
                device_id: server.id.clone(),
                device_owner: owner,
                security_groups: Some(groups),
                dns_name: server.hostname.clone(),
                ..ops::NewPort::default()
            };
            ops::create_in(tx, ctx, new).await?.record.id
        }
        (None, None) => return Err(Fault::bad_request("A network or a port is needed.")),
    };
    let bound = ops::bind_in(tx, &port_id, Some(host)).await?;
    let mtu = pilvi_network::network::ops::mtu_in(tx, &bound.network_id).await?;
    Ok(PortOf { id: port_id, mac: bound.mac_address.clone(), mtu, ours, tag: wish.tag.clone() })
}

/// Gives back everything a server holds.
async fn release_in(tx: &mut Tx, server: &Server) -> Result<(), Fault> {
    let ctx = owner(server);
    volume::ops::release_in(tx, server).await?;
    for port in &server.ports {
        let gone = if port.ours {
            pilvi_network::port::ops::delete_in(tx, &ctx, &port.id).await
        } else {
            pilvi_network::port::ops::release_device_in(tx, &port.id).await.map(|_| ())
        };
        match gone {
            Err(fault) if fault.code() != 404 => return Err(fault),
            _ => {}
        }
    }
    pilvi_placement::allocation::ops::release_in(tx, &server.id).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::model::tests::server;

    #[test]
    fn the_plan_follows_what_is_wanted() {
        let mut s = server();
        s.host = None;
        assert_eq!(plan(&s, 0, 10), Step::Place);
        s.host = Some("h".into());
        assert_eq!(plan(&s, 0, 10), Step::Nothing);
        s.wanted.delete = true;
        assert_eq!(plan(&s, 0, 10), Step::Remove);
        (s.vm_state, s.terminated_us) = (VmState::Deleted, Some(5));
        assert_eq!(plan(&s, 10, 10), Step::Nothing);
        assert_eq!(plan(&s, 16, 10), Step::Forget);
        s.vm_state = VmState::Error;
        s.wanted.delete = false;
        assert_eq!(plan(&s, 16, 10), Step::Nothing);
    }
}
