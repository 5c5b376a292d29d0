//! Records, their columns and their claims: here and in the files below alone are columns named.
//!
//! | record | claims |
//! | --- | --- |
//! | tap service | its VNI, which no network has |
//! | tap mirror | its numbers within its project |
//! | network | its VNI and those of its further segments; the physical network of a flat one, with the tag of a VLAN; being its project's for routers that keep spare ways |
//! | segment | the same of the wire, if it is a further one |
//! | port | its MAC within its network |
//! | address lease | the address within its subnet (its id says the same, so it can be looked up) |
//! | security group, firewall group | being its project's default group |
//! | trunk | its parent port |
//! | default statefulness of groups | being its project's, or the cloud's |
//! | QoS policy | being its project's default |
//! | RBAC policy | its target for one action on one thing |
use crate::{
    address_group::model::AddressGroup,
    address_scope::model::AddressScope,
    bgp::model::{BgpPeer, BgpSpeaker},
    conntrack_helper::model::ConntrackHelper,
    default_rule::model::DefaultRule,
    delegation::model::PrefixLease,
    dns::model::{NameWish, Publication, PublishedName},
    firewall::model::{FirewallGroup, FirewallPolicy, FirewallPort, FirewallRule},
    floating_ip::model::FloatingIp,
    flow_log::model::FlowLog,
    hosting::model::Hosting,
    local_ip::model::{Association, LocalIp},
    metering::model::{MeterReading, MeteringLabel, MeteringRule},
    ndp_proxy::model::NdpProxy,
    network::model::{VirtualNetwork, tag_of},
    port::model::Port,
    port_forwarding::model::PortForwarding,
    qos::model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, PacketRate, QosPolicy, QosRule},
    rbac::model::{RbacPolicy, label},
    router::model::Router,
    security_group::{
        model::{SecurityGroup, SecurityGroupRule},
        statefulness::Statefulness,
    },
    segment::model::{HostReach, Segment},
    segment_range::model::SegmentRange,
    service_flavor::model::{Flavor, ServiceProfile},
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    tap::model::{TapFlow, TapMirror, TapService},
    trunk::model::Trunk,
};
use pilvi_store::{Claim, Column, KindSpec, Record, Value};
use serde::{Deserialize, Serialize};

/// In a record's declaration: it has an id, a project and a name, each in the field that is called so.
macro_rules! named {
    () => {
        fn id(&self) -> &str {
            &self.id
        }
        fn project(&self) -> Option<&str> {
            Some(&self.project_id)
        }
        fn name(&self) -> Option<&str> {
            Some(&self.name)
        }
    };
}

mod bgp;
mod delegations;
mod dns;
pub mod find;
mod firewalls;
mod rules;
mod taps;
mod ways;

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
        KindSpec::of::<Statefulness>(),
        KindSpec::of::<RbacPolicy>(),
        KindSpec::of::<AddressScope>(),
        KindSpec::of::<AddressGroup>(),
        KindSpec::of::<DefaultRule>(),
        KindSpec::of::<Flavor>(),
        KindSpec::of::<ServiceProfile>(),
        KindSpec::of::<Hosting>(),
        KindSpec::of::<SegmentRange>(),
        KindSpec::of::<Segment>(),
        KindSpec::of::<HostReach>(),
        KindSpec::of::<Zone>(),
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
        KindSpec::of::<FlowLog>(),
        KindSpec::of::<LocalIp>(),
        KindSpec::of::<Association>(),
        KindSpec::of::<NdpProxy>(),
        KindSpec::of::<ConntrackHelper>(),
        KindSpec::of::<PrefixLease>(),
        KindSpec::of::<TapService>(),
        KindSpec::of::<TapFlow>(),
        KindSpec::of::<TapMirror>(),
        KindSpec::of::<FirewallGroup>(),
        KindSpec::of::<FirewallPolicy>(),
        KindSpec::of::<FirewallRule>(),
        KindSpec::of::<FirewallPort>(),
        KindSpec::of::<BgpSpeaker>(),
        KindSpec::of::<BgpPeer>(),
        KindSpec::of::<Publication>(),
        KindSpec::of::<PublishedName>(),
        KindSpec::of::<NameWish>(),
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
    FlowLog::KIND,
    SubnetPool::KIND,
    Association::KIND,
    NdpProxy::KIND,
    ConntrackHelper::KIND,
    PrefixLease::KIND,
    TapService::KIND,
    TapFlow::KIND,
    TapMirror::KIND,
    FirewallGroup::KIND,
    FirewallPolicy::KIND,
    FirewallRule::KIND,
    FirewallPort::KIND,
];

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

/// A physical network without a tag, or one tag there, is one network's or one segment's.
fn wire(kind: &str, physical: Option<&String>, number: Option<u32>) -> Option<Claim> {
    let physical = physical?;
    Some(match tag_of(kind, number) {
        0 => Claim { scope: "physical_network".into(), value: physical.clone() },
        tag => Claim { scope: "vlan".into(), value: format!("{physical}/{tag}") },
    })
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
    named!();
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
        let open_to = self.shared_with.iter().chain(&self.external_for).map(|p| label(p));
        open_to.chain(self.ha_for.iter().map(|p| find::spare_label(p))).collect()
    }
    fn claims(&self) -> Vec<Claim> {
        let numbers = [&self.vni].into_iter().chain(self.parts.values()).chain(self.segments.values());
        let mut claims: Vec<Claim> = numbers.map(|vni| Claim { scope: "vni".into(), value: vni.to_string() }).collect();
        claims.extend(wire(&self.network_type, self.physical_network.as_ref(), self.segmentation_id));
        claims.extend(self.ha_for.iter().map(|p| Claim { scope: "ha_network".into(), value: p.clone() }));
        claims
    }
}

impl Record for Subnet {
    const KIND: &'static str = "subnet";
    const COLUMNS: &'static [Column] =
        &[Column::text("network_id"), Column::text("subnetpool_id"), Column::text("segment_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        let (pool, segment) = (self.subnetpool_id.clone(), self.segment_id.clone());
        vec![self.network_id.clone().into(), pool.unwrap_or_default().into(), segment.unwrap_or_default().into()]
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.leak_routes.then(|| find::LEAKED.to_owned()).into_iter().collect()
    }
}

impl Record for SubnetPool {
    const KIND: &'static str = "subnet_pool";
    const COLUMNS: &'static [Column] = &[Column::int("open"), Column::text("address_scope_id")];
    named!();
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
    named!();
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

impl Record for Statefulness {
    const KIND: &'static str = "security_group_statefulness";
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        self.project_id.as_deref()
    }
    fn claims(&self) -> Vec<Claim> {
        let value = self.project_id.clone().unwrap_or_default();
        vec![Claim { scope: "security_group:statefulness".into(), value }]
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
    named!();
}

impl Record for Segment {
    const KIND: &'static str = "network_segment";
    const COLUMNS: &'static [Column] =
        &[Column::text("network_id"), Column::int("vni"), Column::text("physical_network")];
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    fn columns(&self) -> Vec<Value> {
        let physical = self.physical_network.clone().unwrap_or_default();
        vec![self.network_id.clone().into(), self.vni.into(), physical.into()]
    }
    fn claims(&self) -> Vec<Claim> {
        // The first one's is its network's.
        let further = self.physical_network.as_ref().filter(|_| !self.first);
        wire(&self.network_type, further, self.segmentation_id).into_iter().collect()
    }
}

/// An availability zone that some host is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Zone {
    /// Its name.
    pub id: String,
}

impl Record for Zone {
    const KIND: &'static str = "network_zone";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for HostReach {
    const KIND: &'static str = "network_host_reach";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for Trunk {
    const KIND: &'static str = "trunk";
    const COLUMNS: &'static [Column] = &[Column::text("port_id")];
    named!();
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
    named!();
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

impl Record for MeteringLabel {
    const KIND: &'static str = "metering_label";
    named!();
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
