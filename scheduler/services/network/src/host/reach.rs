//! Gathers, round by round, what the ports of one host can reach.
use super::HostInfo;
use crate::{
    address_group::model::AddressGroup,
    conntrack_helper::model::ConntrackHelper,
    delegation::model::{POOL, PrefixLease},
    firewall::model::{FirewallGroup, FirewallPolicy, FirewallPort, FirewallRule},
    floating_ip::model::FloatingIp,
    flow_log::model::FlowLog,
    hosting::{
        self,
        model::{Hosting, holder},
    },
    local_ip::model::{Association, LocalIp},
    metering::model::{MeteringLabel, MeteringRule},
    ndp_proxy::model::NdpProxy,
    network::model::VirtualNetwork,
    port::model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE},
    port_forwarding::model::PortForwarding,
    qos::model::{Bandwidth, Dscp, PacketRate, QosRule},
    router::model::Router,
    security_group::model::{SecurityGroup, SecurityGroupRule},
    segment::model::Segment,
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tables::find,
    tap::model::{TapFlow, TapMirror, TapService},
    trunk::model::Trunk,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Record, Store};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of routers behind routers; the first two suffice unless routers have static routes.
const ROUNDS: usize = 6;
/// Values of one query.
const CHUNK: usize = 400;

/// Records by id, so that the same state always gives the same message.
#[derive(Debug, Default)]
pub struct Reach {
    pub local: BTreeMap<String, Port>,
    /// Networks whose endpoints these ports can reach.
    pub rooms: BTreeSet<String>,
    pub networks: BTreeMap<String, VirtualNetwork>,
    /// Those beside the first of their networks.
    pub segments: BTreeMap<String, Segment>,
    pub subnets: BTreeMap<String, Subnet>,
    /// Those that the subnets come from: they say which address scope a network is in.
    pub pools: BTreeMap<String, SubnetPool>,
    pub routers: BTreeMap<String, Router>,
    /// Those whose way out this host holds.
    pub held: BTreeSet<String>,
    /// Interface and gateway ports of the routers.
    pub legs: BTreeMap<String, Port>,
    pub groups: BTreeMap<String, SecurityGroup>,
    pub rules: BTreeMap<String, SecurityGroupRule>,
    /// Those that the rules name.
    pub address_groups: BTreeMap<String, AddressGroup>,
    /// Of these ports, and of the routers whose way out is here.
    pub floating: BTreeMap<String, FloatingIp>,
    /// Those that these routers translate for who is in a network that they have a leg in.
    pub by_leg: BTreeMap<String, FloatingIp>,
    /// Trunks whose parent is here.
    pub trunks: BTreeMap<String, Trunk>,
    /// Of these routers.
    pub proxies: BTreeMap<String, NdpProxy>,
    pub helpers: BTreeMap<String, ConntrackHelper>,
    /// Of these routers, with the floating IPs that they belong to.
    pub forwardings: BTreeMap<String, PortForwarding>,
    pub forwarders: BTreeMap<String, FloatingIp>,
    pub policies: BTreeSet<String>,
    /// Rules of the policies that hold for these ports, addresses and ways out.
    pub bandwidths: BTreeMap<String, QosRule<Bandwidth>>,
    pub packet_rates: BTreeMap<String, QosRule<PacketRate>>,
    pub marks: BTreeMap<String, QosRule<Dscp>>,
    /// Labels that may count for these routers, and their rules.
    pub labels: BTreeMap<String, MeteringLabel>,
    pub meter_rules: BTreeMap<String, MeteringRule>,
    /// Logs that mean some of these ports.
    pub logs: BTreeMap<String, FlowLog>,
    /// Of these ports, with the local IPs that they belong to.
    pub associations: BTreeMap<String, Association>,
    pub local_ips: BTreeMap<String, LocalIp>,
    /// Taps that look at these ports or by them, with the ports at both ends.
    pub tap_flows: BTreeMap<String, TapFlow>,
    pub tap_services: BTreeMap<String, TapService>,
    pub tap_ports: BTreeMap<String, Port>,
    /// Of these ports, for collectors outside.
    pub tap_mirrors: BTreeMap<String, TapMirror>,
    /// Of these ports and of the routers' legs, by port.
    pub firewall_ports: BTreeMap<String, FirewallPort>,
    pub firewalls: BTreeMap<String, FirewallGroup>,
    pub firewall_policies: BTreeMap<String, FirewallPolicy>,
    pub firewall_rules: BTreeMap<String, FirewallRule>,
    /// Of these subnets, and those that this host is to give back.
    pub prefix_leases: BTreeMap<String, PrefixLease>,
    /// What operators wish of hosts.
    pub wishes: Vec<Hosting>,
}

/// Records of some ids or some parents, in as few queries as fit.
async fn fetch<R: Record>(
    store: &Store,
    keys: &BTreeSet<String>,
    query: fn(Vec<&str>) -> Query,
) -> Result<BTreeMap<String, R>, Fault> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut out = BTreeMap::new();
    for chunk in keys.chunks(CHUNK) {
        for found in store.list::<R>(query(chunk.to_vec())).await? {
            out.insert(found.record.id().to_owned(), found.record);
        }
    }
    Ok(out)
}

fn by_id(ids: Vec<&str>) -> Query {
    Query::all().ids(ids)
}

impl Reach {
    pub async fn gather(store: &Store, host: &str, hosts: &[HostInfo]) -> Result<Self, Fault> {
        let mut reach = Reach { wishes: hosting::ops::all(store).await?, ..Reach::default() };
        for query in [find::on_host(host), find::coming_to(host)] {
            let ports = store.list::<Port>(query).await?.into_iter().filter(|p| p.is_endpoint());
            reach.local.extend(ports.map(|port| (port.record.id.clone(), port.record)));
        }
        let mut frontier: BTreeSet<String> = reach.local.values().map(|p| p.network_id.clone()).collect();
        let away = reach.add_gateways(store, host, hosts).await?;
        frontier.extend(away);
        reach.spread(store, frontier).await?;
        reach.complete(store).await?;
        let mine = store.list::<PrefixLease>(find::on_host(host)).await?;
        reach.prefix_leases.extend(mine.into_iter().map(|l| (l.record.id.clone(), l.record)));
        Ok(reach)
    }

    /// Routers whose way out this host holds, though it may have none of their guests.
    async fn add_gateways(&mut self, store: &Store, host: &str, hosts: &[HostInfo]) -> Result<BTreeSet<String>, Fault> {
        if hosts.len() < 2 {
            return self.add_askers(store).await;
        }
        let here: BTreeSet<String> = store
            .list::<Router>(find::with_gateway())
            .await?
            .into_iter()
            .filter(|r| holder(&self.wishes, r, hosts).is_some_and(|h| h.name == host))
            .map(|r| r.record.id)
            .collect();
        self.held.clone_from(&here);
        self.add_routers(store, here).await
    }

    /// The only host knows the routers of its guests; those that ask for prefixes, or speak with their next hops, do so before
    /// there are any.
    async fn add_askers(&mut self, store: &Store) -> Result<BTreeSet<String>, Fault> {
        let lent = store.list::<Subnet>(find::from_pool(POOL)).await?;
        let networks: BTreeSet<String> = lent.into_iter().map(|s| s.record.network_id).collect();
        let legs: BTreeMap<String, Port> = fetch(store, &networks, |ids| find::owned_on(ids, ROUTER_INTERFACE)).await?;
        let with_gateway = store.list::<Router>(find::with_gateway()).await?;
        let watched = with_gateway.into_iter().filter(|r| r.enable_default_route_bfd).map(|r| r.record.id);
        self.add_routers(store, legs.into_values().map(|l| l.device_id).chain(watched).collect()).await
    }

    /// Adds routers and their legs; gives the networks that the legs are on.
    async fn add_routers(&mut self, store: &Store, ids: BTreeSet<String>) -> Result<BTreeSet<String>, Fault> {
        let routers: BTreeMap<String, Router> = fetch(store, &ids, by_id).await?;
        let legs: BTreeMap<String, Port> = fetch(store, &ids, |ids| find::of_devices(ids)).await?;
        let legs =
            legs.into_iter().filter(|(_, p)| matches!(p.device_owner.as_str(), ROUTER_INTERFACE | ROUTER_GATEWAY));
        let mut networks = BTreeSet::new();
        for (id, leg) in legs {
            if leg.device_owner == ROUTER_INTERFACE {
                networks.insert(leg.network_id.clone());
            }
            self.legs.insert(id, leg);
        }
        self.routers.extend(routers);
        Ok(networks)
    }

    async fn spread(&mut self, store: &Store, mut frontier: BTreeSet<String>) -> Result<(), Fault> {
        let mut seen: BTreeSet<String> = frontier.clone();
        for round in 0..ROUNDS {
            if frontier.is_empty() {
                break;
            }
            let legs: BTreeMap<String, Port> =
                fetch(store, &frontier, |ids| find::owned_on(ids, ROUTER_INTERFACE)).await?;
            let joined: BTreeSet<String> = legs
                .values()
                .filter(|p| !self.routers.contains_key(&p.device_id))
                .map(|p| p.device_id.clone())
                .collect();
            // Beyond the first routers only a static route leads on.
            let leads_on = round == 0 || self.routers.values().any(|r| !r.routes.is_empty());
            frontier = if leads_on { self.add_routers(store, joined).await? } else { BTreeSet::new() };
            let beyond: BTreeSet<String> = self
                .legs
                .values()
                .filter(|l| l.device_owner == ROUTER_INTERFACE)
                .map(|l| l.network_id.clone())
                .collect();
            frontier.extend(beyond);
            frontier.retain(|n| seen.insert(n.clone()));
        }
        self.rooms = seen;
        Ok(())
    }

    /// What the gathered ports and routers refer to.
    async fn complete(&mut self, store: &Store) -> Result<(), Fault> {
        let mut networks = self.rooms.clone();
        networks.extend(self.legs.values().map(|l| l.network_id.clone()));
        self.networks = fetch(store, &networks, by_id).await?;
        let further: BTreeSet<String> = self.networks.values().flat_map(|n| n.segments.keys()).cloned().collect();
        self.segments = fetch(store, &further, by_id).await?;
        self.subnets = fetch(store, &networks, |ids| find::on_networks(ids)).await?;
        let lent: BTreeSet<String> = self.subnets.values().filter(|s| s.is_delegated()).map(|s| s.id.clone()).collect();
        self.prefix_leases = fetch(store, &lent, |ids| find::lent_to(ids)).await?;
        let pools: BTreeSet<String> = self.subnets.values().filter_map(|s| s.subnetpool_id.clone()).collect();
        self.pools = fetch(store, &pools, by_id).await?;
        let groups: BTreeSet<String> = self.local.values().flat_map(|p| p.security_groups.clone()).collect();
        self.groups = fetch(store, &groups, by_id).await?;
        self.rules = fetch(store, &groups, |ids| find::of_groups(ids)).await?;
        let named: BTreeSet<String> = self.rules.values().filter_map(|r| r.remote_address_group_id.clone()).collect();
        self.address_groups = fetch(store, &named, by_id).await?;
        let local: BTreeSet<String> = self.local.keys().cloned().collect();
        self.floating = fetch(store, &local, |ids| find::of_ports(ids)).await?;
        let relayed: BTreeMap<String, FloatingIp> = fetch(store, &self.held, |ids| find::of_routers(ids)).await?;
        self.floating.extend(relayed.into_iter().filter(|(_, floating)| floating.port_id.is_some()));
        self.trunks = fetch(store, &local, |ids| find::of_ports(ids)).await?;
        self.associations = fetch(store, &local, |ids| find::of_fixed_ports(ids)).await?;
        let named: BTreeSet<String> = self.associations.values().map(|a| a.local_ip_id.clone()).collect();
        self.local_ips = fetch(store, &named, by_id).await?;
        let routers: BTreeSet<String> = self.routers.keys().cloned().collect();
        let outside = |l: &&Port| self.networks.get(&l.network_id).is_some_and(|n| n.external);
        let legs = self.legs.values().filter(|l| l.device_owner == ROUTER_INTERFACE);
        let leading: BTreeSet<String> = legs.filter(outside).map(|l| l.device_id.clone()).collect();
        self.by_leg = fetch(store, &leading, |ids| find::of_routers(ids)).await?;
        self.by_leg.retain(|_, floating| floating.by_leg);
        self.proxies = fetch(store, &routers, |ids| find::of_routers(ids)).await?;
        self.helpers = fetch(store, &routers, |ids| find::of_routers(ids)).await?;
        self.forwardings = fetch(store, &routers, |ids| find::of_routers(ids)).await?;
        let floating: BTreeSet<String> = self.forwardings.values().map(|f| f.floatingip_id.clone()).collect();
        self.forwarders = fetch(store, &floating, by_id).await?;
        self.complete_taps(store, &local).await?;
        self.complete_firewalls(store, local).await?;
        self.complete_quality(store).await?;
        self.complete_logs(store).await?;
        self.complete_metering(store).await
    }

    async fn complete_taps(&mut self, store: &Store, local: &BTreeSet<String>) -> Result<(), Fault> {
        self.tap_services = fetch(store, local, |ids| find::of_ports(ids)).await?;
        self.tap_mirrors = fetch(store, local, |ids| find::of_ports(ids)).await?;
        let services: BTreeSet<String> = self.tap_services.keys().cloned().collect();
        self.tap_flows = fetch(store, &services, |ids| find::of_tap_services(ids)).await?;
        self.tap_flows.extend(fetch::<TapFlow>(store, local, |ids| find::tapped(ids)).await?);
        let named: BTreeSet<String> = self.tap_flows.values().map(|f| f.tap_service_id.clone()).collect();
        self.tap_services.extend(fetch::<TapService>(store, &named, by_id).await?);
        let ends =
            self.tap_flows.values().map(|f| &f.source_port).chain(self.tap_services.values().map(|s| &s.port_id));
        let ends: BTreeSet<String> = ends.cloned().collect();
        self.tap_ports = fetch(store, &ends, by_id).await?;
        Ok(())
    }

    async fn complete_firewalls(&mut self, store: &Store, mut ports: BTreeSet<String>) -> Result<(), Fault> {
        ports.extend(self.legs.keys().cloned());
        self.firewall_ports = fetch(store, &ports, by_id).await?;
        let groups: BTreeSet<String> = self.firewall_ports.values().map(|p| p.firewall_group_id.clone()).collect();
        self.firewalls = fetch(store, &groups, by_id).await?;
        let policies: BTreeSet<String> = self.firewalls.values().flat_map(|g| g.policies()).cloned().collect();
        self.firewall_policies = fetch(store, &policies, by_id).await?;
        let rules = self.firewall_policies.values().flat_map(|p| &p.firewall_rules).cloned().collect();
        self.firewall_rules = fetch(store, &rules, by_id).await?;
        Ok(())
    }

    async fn complete_logs(&mut self, store: &Store) -> Result<(), Fault> {
        if self.local.is_empty() {
            return Ok(());
        }
        for log in store.list::<FlowLog>(find::all()).await? {
            if self.local.values().any(|port| log.means(port)) {
                self.logs.insert(log.record.id.clone(), log.record);
            }
        }
        Ok(())
    }

    /// Rules of every policy that anything here names.
    async fn complete_quality(&mut self, store: &Store) -> Result<(), Fault> {
        let ports = self.local.values().map(|p| &p.qos_policy_id);
        let networks = self.networks.values().map(|n| &n.qos_policy_id);
        let floating = self.floating.values().chain(self.forwarders.values()).map(|f| &f.qos_policy_id);
        let gateways = self.routers.values().filter_map(|r| r.external_gateway_info.as_ref()).map(|g| &g.qos_policy_id);
        self.policies = ports.chain(networks).chain(floating).chain(gateways).flatten().cloned().collect();
        let policies = &self.policies;
        self.bandwidths = fetch(store, policies, |ids| find::of_policies(ids)).await?;
        self.packet_rates = fetch(store, policies, |ids| find::of_policies(ids)).await?;
        self.marks = fetch(store, policies, |ids| find::of_policies(ids)).await?;
        Ok(())
    }

    /// Labels of the routers' projects, and those that count for all.
    async fn complete_metering(&mut self, store: &Store) -> Result<(), Fault> {
        if self.routers.values().all(|r| r.external_gateway_info.is_none()) {
            return Ok(());
        }
        for label in store.list::<MeteringLabel>(find::all()).await? {
            if label.shared || self.routers.values().any(|r| r.project_id == label.project_id) {
                self.labels.insert(label.record.id.clone(), label.record);
            }
        }
        let ids: BTreeSet<String> = self.labels.keys().cloned().collect();
        self.meter_rules = fetch(store, &ids, |ids| find::of_labels(ids)).await?;
        Ok(())
    }
}
