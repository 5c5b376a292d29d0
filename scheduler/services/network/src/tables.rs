//! Records, their columns and their claims: the only file that names a column.
//!
//! | record | claims |
//! | --- | --- |
//! | network | its VNI; the physical network of a flat one |
//! | port | its MAC within its network |
//! | address lease | the address within its subnet (its id says the same, so it can be looked up) |
//! | security group | being its project's default group |
//! | trunk | its parent port |
//! | QoS policy | being its project's default |
//! | RBAC policy | its target for one action on one thing |
use crate::{
    address_group::model::AddressGroup,
    address_scope::model::AddressScope,
    default_rule::model::DefaultRule,
    floating_ip::model::FloatingIp,
    hosting::model::Hosting,
    metering::model::{MeterReading, MeteringLabel, MeteringRule},
    network::model::VirtualNetwork,
    port::model::Port,
    port_forwarding::model::PortForwarding,
    qos::model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, PacketRate, QosPolicy, QosRule},
    rbac::model::{RbacPolicy, label},
    router::model::Router,
    security_group::model::{SecurityGroup, SecurityGroupRule},
    segment_range::model::SegmentRange,
    service_flavor::model::{Flavor, ServiceProfile},
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    trunk::model::Trunk,
};
use pilvi_store::{Claim, Column, KindSpec, Query, Record, Value};
use serde::{Deserialize, Serialize};

/// All record kinds of this service.
pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<VirtualNetwork>(),
        KindSpec::of::<Subnet>(),
        KindSpec::of::<SubnetPool>(),
        KindSpec::of::<Port>(),
        KindSpec::of::<AddressLease>(),
        KindSpec::of::<Router>(),
        KindSpec::of::<FloatingIp>(),
        KindSpec::of::<SecurityGroup>(),
        KindSpec::of::<SecurityGroupRule>(),
        KindSpec::of::<RbacPolicy>(),
        KindSpec::of::<AddressScope>(),
        KindSpec::of::<AddressGroup>(),
        KindSpec::of::<DefaultRule>(),
        KindSpec::of::<Flavor>(),
        KindSpec::of::<ServiceProfile>(),
        KindSpec::of::<Hosting>(),
        KindSpec::of::<SegmentRange>(),
        KindSpec::of::<PortForwarding>(),
        KindSpec::of::<Trunk>(),
        KindSpec::of::<QosPolicy>(),
        KindSpec::of::<QosRule<Bandwidth>>(),
        KindSpec::of::<QosRule<PacketRate>>(),
        KindSpec::of::<QosRule<Dscp>>(),
        KindSpec::of::<QosRule<LeastBandwidth>>(),
        KindSpec::of::<QosRule<LeastPacketRate>>(),
        KindSpec::of::<MeteringLabel>(),
        KindSpec::of::<MeteringRule>(),
        KindSpec::of::<MeterReading>(),
        KindSpec::of::<AgentNote>(),
        KindSpec::of::<Once>(),
    ]
}

/// Kinds whose change may alter what a host must do.
pub const KINDS: &[&str] = &[
    VirtualNetwork::KIND,
    Subnet::KIND,
    Port::KIND,
    Router::KIND,
    FloatingIp::KIND,
    SecurityGroup::KIND,
    SecurityGroupRule::KIND,
    AddressGroup::KIND,
    Hosting::KIND,
    PortForwarding::KIND,
    Trunk::KIND,
    QosRule::<Bandwidth>::KIND,
    QosRule::<PacketRate>::KIND,
    QosRule::<Dscp>::KIND,
    MeteringLabel::KIND,
    MeteringRule::KIND,
];

/// What to look for: every query of this service by the columns it uses.
pub mod find {
    use super::{Query, label};

    /// By what leases are counted.
    pub const SUBNET: &str = "subnet_id";

    pub fn of_project(project: &str) -> Query {
        Query::all().project(project)
    }
    pub fn all() -> Query {
        Query::all()
    }
    /// What a project owns, what is open to all, and what policies open to it.
    pub fn open_to(project: &str) -> Query {
        let choices = [of_project(project), Query::all().eq("open", 1), Query::all().labelled(label(project))];
        Query::all().any_of(choices)
    }
    /// Policies on one thing.
    pub fn about(object_id: &str) -> Query {
        Query::all().eq("object_id", object_id)
    }
    /// Pools of an address scope.
    pub fn in_scope(id: &str) -> Query {
        Query::all().eq("address_scope_id", id)
    }
    /// Routers of a service flavor.
    pub fn with_flavor(id: &str) -> Query {
        Query::all().eq("flavor_id", id)
    }
    /// What is wished of hosts for one network or router.
    pub fn hosting(object_id: &str) -> Query {
        Query::all().eq("object_id", object_id)
    }
    /// Rules that name an address group.
    pub fn with_address_group(id: &str) -> Query {
        Query::all().eq("remote_address_group_id", id)
    }
    pub fn external() -> Query {
        Query::all().eq("external", 1)
    }
    pub fn vni(vni: u32) -> Query {
        Query::all().eq("vni", vni)
    }
    /// Networks with numbers from one to another, both included.
    pub fn vni_between(first: u32, last: u32) -> Query {
        Query::all().ge("vni", first).le("vni", last)
    }
    pub fn physical_network(name: &str) -> Query {
        Query::all().eq("physical_network", name)
    }
    /// Subnets or ports of some networks.
    pub fn on_networks<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("network_id", ids)
    }
    pub fn on_network(id: &str) -> Query {
        on_networks([id])
    }
    pub fn from_pool(id: &str) -> Query {
        Query::all().eq("subnetpool_id", id)
    }
    pub fn mac_on(network: &str, mac: &str) -> Query {
        on_network(network).eq("mac_address", mac)
    }
    pub fn of_device(id: &str) -> Query {
        of_devices([id])
    }
    pub fn of_devices<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("device_id", ids)
    }
    /// Ports of one kind of device on some networks.
    pub fn owned_on<'a>(networks: impl IntoIterator<Item = &'a str>, owner: &str) -> Query {
        on_networks(networks).eq("device_owner", owner)
    }
    pub fn on_host(host: &str) -> Query {
        Query::all().eq("host_id", host)
    }
    /// Ports whose guests are about to come to a host.
    pub fn coming_to(host: &str) -> Query {
        Query::all().eq("also_on", host)
    }
    /// Leases of a subnet.
    pub fn on_subnet(id: &str) -> Query {
        Query::all().eq("subnet_id", id)
    }
    /// Floating IPs (or leases) of some ports.
    pub fn of_ports<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("port_id", ids)
    }
    /// Floating IPs that a router translates.
    pub fn of_router(id: &str) -> Query {
        Query::all().eq("router_id", id)
    }
    pub fn of_floating_network(id: &str) -> Query {
        Query::all().eq("floating_network_id", id)
    }
    /// Routers whose gateway is on some network.
    pub fn by_gateway(network: &str) -> Query {
        Query::all().eq("external_network_id", network)
    }
    /// Routers that have a gateway at all.
    pub fn with_gateway() -> Query {
        Query::all().ne("external_network_id", "")
    }
    /// Rules of some groups.
    pub fn of_groups<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("security_group_id", ids)
    }
    pub fn with_remote_group(id: &str) -> Query {
        Query::all().eq("remote_group_id", id)
    }
    /// What lives below another's path.
    pub fn below(member: &str, id: &str) -> Query {
        Query::all().eq(member, id)
    }
    /// Rules of some QoS policies.
    pub fn of_policies<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("policy_id", ids)
    }
    /// What has a QoS policy.
    pub fn with_policy(id: &str) -> Query {
        Query::all().eq("qos_policy_id", id)
    }
    /// Port forwardings of a floating IP.
    pub fn of_floating(id: &str) -> Query {
        of_floatings([id])
    }
    pub fn of_floatings<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("floatingip_id", ids)
    }
    /// Port forwardings that lead to a port.
    pub fn to_port(id: &str) -> Query {
        Query::all().eq("internal_port_id", id)
    }
    /// What several routers translate.
    pub fn of_routers<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("router_id", ids)
    }
    /// Rules and readings of a metering label.
    pub fn of_label(id: &str) -> Query {
        of_labels([id])
    }
    pub fn of_labels<'a>(ids: impl IntoIterator<Item = &'a str>) -> Query {
        Query::all().one_of("metering_label_id", ids)
    }
    pub fn named(project: &str, name: &str) -> Query {
        of_project(project).name(name)
    }
}

/// One address of one subnet, held by one port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddressLease {
    pub id: String,
    pub subnet_id: String,
    pub port_id: String,
    pub address: String,
}

impl AddressLease {
    pub fn key(subnet_id: &str, address: &str) -> String {
        format!("{subnet_id}/{address}")
    }
    pub fn new(subnet_id: &str, address: &str, port_id: &str) -> Self {
        AddressLease {
            id: Self::key(subnet_id, address),
            subnet_id: subnet_id.to_owned(),
            port_id: port_id.to_owned(),
            address: address.to_owned(),
        }
    }
}

impl Record for AddressLease {
    const KIND: &'static str = "network_address";
    const COLUMNS: &'static [Column] = &[Column::text("subnet_id"), Column::text("port_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.subnet_id.clone().into(), self.port_id.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: format!("address:{}", self.subnet_id), value: self.address.clone() }]
    }
}

impl Record for VirtualNetwork {
    const KIND: &'static str = "network";
    const COLUMNS: &'static [Column] = &[
        Column::int("open"),
        Column::int("external"),
        Column::int("vni"),
        Column::text("physical_network"),
        Column::text("qos_policy_id"),
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        let policy = self.qos_policy_id.clone().unwrap_or_default();
        vec![
            self.is_open().into(),
            self.external.into(),
            self.vni.into(),
            self.physical_network.clone().into(),
            policy.into(),
        ]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().chain(&self.external_for).map(|p| label(p)).collect()
    }
    fn claims(&self) -> Vec<Claim> {
        let numbers = [&self.vni].into_iter().chain(self.parts.values());
        let mut claims: Vec<Claim> = numbers.map(|vni| Claim { scope: "vni".into(), value: vni.to_string() }).collect();
        if let Some(physical) = &self.physical_network {
            claims.push(Claim { scope: "physical_network".into(), value: physical.clone() });
        }
        claims
    }
}

impl Record for Subnet {
    const KIND: &'static str = "subnet";
    const COLUMNS: &'static [Column] = &[Column::text("network_id"), Column::text("subnetpool_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.network_id.clone().into(), self.subnetpool_id.clone().unwrap_or_default().into()]
    }
}

impl Record for SubnetPool {
    const KIND: &'static str = "subnet_pool";
    const COLUMNS: &'static [Column] = &[Column::int("open"), Column::text("address_scope_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into(), self.address_scope_id.clone().unwrap_or_default().into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
}

impl Record for Port {
    const KIND: &'static str = "port";
    const COLUMNS: &'static [Column] = &[
        Column::text("network_id"),
        Column::text("device_id"),
        Column::text("device_owner"),
        Column::text("host_id"),
        Column::text("mac_address"),
        Column::text("qos_policy_id"),
        Column::text("also_on"),
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        let policy = self.qos_policy_id.clone().unwrap_or_default();
        let (mac, also) = (&self.mac_address, &self.also_on);
        [&self.network_id, &self.device_id, &self.device_owner, &self.host_id, mac, &policy, also]
            .map(|v| v.clone().into())
            .to_vec()
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: format!("mac:{}", self.network_id), value: self.mac_address.clone() }]
    }
}

impl Record for Router {
    const KIND: &'static str = "router";
    const COLUMNS: &'static [Column] =
        &[Column::text("external_network_id"), Column::text("flavor_id"), Column::text("qos_policy_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        let outside = self.external_gateway_info.as_ref().map(|g| g.network_id.clone()).unwrap_or_default();
        let policy = self.external_gateway_info.as_ref().and_then(|g| g.qos_policy_id.clone()).unwrap_or_default();
        vec![outside.into(), self.flavor_id.clone().unwrap_or_default().into(), policy.into()]
    }
}

impl Record for FloatingIp {
    const KIND: &'static str = "floating_ip";
    const COLUMNS: &'static [Column] = &[
        Column::text("port_id"),
        Column::text("router_id"),
        Column::text("floating_network_id"),
        Column::text("qos_policy_id"),
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.port_id.clone().unwrap_or_default().into(),
            self.router_id.clone().unwrap_or_default().into(),
            self.floating_network_id.clone().into(),
            self.qos_policy_id.clone().unwrap_or_default().into(),
        ]
    }
    fn claims(&self) -> Vec<Claim> {
        match (&self.port_id, &self.fixed_ip_address) {
            (Some(port), Some(fixed)) => vec![Claim { scope: format!("floating:{port}"), value: fixed.clone() }],
            _ => Vec::new(),
        }
    }
}

impl Record for SecurityGroup {
    const KIND: &'static str = "security_group";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
    fn claims(&self) -> Vec<Claim> {
        if !self.is_default {
            return Vec::new();
        }
        vec![Claim { scope: "security_group:default".into(), value: self.project_id.clone() }]
    }
}

impl Record for SecurityGroupRule {
    const KIND: &'static str = "security_group_rule";
    const COLUMNS: &'static [Column] =
        &[Column::text("security_group_id"), Column::text("remote_group_id"), Column::text("remote_address_group_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.security_group_id.clone().into(),
            self.remote_group_id.clone().unwrap_or_default().into(),
            self.remote_address_group_id.clone().unwrap_or_default().into(),
        ]
    }
}

impl Record for RbacPolicy {
    const KIND: &'static str = "rbac_policy";
    const COLUMNS: &'static [Column] = &[Column::text("object_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.object_id.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        let scope = format!("rbac:{:?}:{}", self.action, self.object_id);
        vec![Claim { scope, value: self.target_tenant.clone() }]
    }
}

impl Record for AddressScope {
    const KIND: &'static str = "address_scope";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
}

impl Record for AddressGroup {
    const KIND: &'static str = "address_group";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
}

impl Record for DefaultRule {
    const KIND: &'static str = "default_security_group_rule";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for Flavor {
    const KIND: &'static str = "service_flavor";
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Record for ServiceProfile {
    const KIND: &'static str = "service_profile";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for Hosting {
    const KIND: &'static str = "network_hosting";
    const COLUMNS: &'static [Column] = &[Column::text("object_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.object_id.clone().into()]
    }
}

impl Record for SegmentRange {
    const KIND: &'static str = "network_segment_range";
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Record for Trunk {
    const KIND: &'static str = "trunk";
    const COLUMNS: &'static [Column] = &[Column::text("port_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.port_id.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: "trunk:parent".into(), value: self.port_id.clone() }]
    }
}

impl Record for QosPolicy {
    const KIND: &'static str = "qos_policy";
    const COLUMNS: &'static [Column] = &[Column::int("open")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.shared.into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.shared_with.iter().map(|p| label(p)).collect()
    }
    fn claims(&self) -> Vec<Claim> {
        if !self.is_default {
            return Vec::new();
        }
        vec![Claim { scope: "qos_policy:default".into(), value: self.project_id.clone() }]
    }
}

impl<K: Kind> Record for QosRule<K> {
    const KIND: &'static str = K::RECORD;
    const COLUMNS: &'static [Column] = &[Column::text("policy_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.policy_id.clone().into()]
    }
}

impl Record for PortForwarding {
    const KIND: &'static str = "port_forwarding";
    const COLUMNS: &'static [Column] =
        &[Column::text("floatingip_id"), Column::text("internal_port_id"), Column::text("router_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        [&self.floatingip_id, &self.internal_port_id, &self.router_id].map(|v| v.clone().into()).to_vec()
    }
}

impl Record for MeteringLabel {
    const KIND: &'static str = "metering_label";
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Record for MeteringRule {
    const KIND: &'static str = "metering_label_rule";
    const COLUMNS: &'static [Column] = &[Column::text("metering_label_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.metering_label_id.clone().into()]
    }
}

impl Record for MeterReading {
    const KIND: &'static str = "metering_reading";
    const COLUMNS: &'static [Column] = &[Column::text("metering_label_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.metering_label_id.clone().into()]
    }
}

/// What an operator wrote about an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentNote {
    pub id: String,
    pub description: String,
}

impl Record for AgentNote {
    const KIND: &'static str = "network_agent_note";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Something that is done once in a cloud's life, and has been.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Once {
    pub id: String,
}

impl Record for Once {
    const KIND: &'static str = "network_once";
    fn id(&self) -> &str {
        &self.id
    }
}
