//! Network: the Neutron v2.0 API. Networks, subnets, ports, routers, floating IPs, security groups, and
//! the addresses behind them; what a host must do of it is told by [`Network::host_network`].
//!
//! ```text
//!  REST --> <resource>/api --> verbs (rules, views, lists) --> <resource>/ops --> store
//!  compute --> port::ops, network::ops, security_group::ops (in its own transactions)
//!  fleet --> host_network(host) --> agent ... agent --> observe(host, ports) --> port status
//! ```
//! Calls nobody: identity is asked by the kit, hosts are told by the fleet through [`host::Hosts`].
//! There are no network nodes: DHCP, metadata and routing happen on the host of each guest, and only source
//! NAT and floating IPs go through one host for each router (chosen by rendezvous hashing, or the first of its candidates that
//! lives: [`spare`]).
pub mod address;
pub mod address_group;
pub mod address_scope;
pub mod agent;
pub mod attribute;
pub mod bgp;
pub mod check;
pub mod conntrack_helper;
mod crud;
pub mod default_rule;
pub mod delegation;
pub mod discovery;
pub mod dns;
pub mod fault;
pub mod firewall;
pub mod floating_ip;
pub mod flow_log;
pub mod host;
pub mod hosting;
pub mod ip_availability;
pub mod list;
pub mod local_ip;
pub mod metering;
pub mod ndp_proxy;
pub mod network;
pub mod policy;
pub mod port;
pub mod port_forwarding;
pub mod qos;
pub mod quota;
pub mod rbac;
pub mod router;
pub mod security_group;
pub mod segment;
pub mod segment_range;
pub mod service_flavor;
pub mod spare;
pub mod subnet;
pub mod subnet_pool;
pub mod tables;
pub mod tag;
pub mod tap;
pub mod topology;
pub mod trunk;
pub mod verbs;
pub mod zone;

pub use tables::{KINDS, kinds};

use attribute::Resource;
use host::HostInfo;
use parking_lot::RwLock;
use pilvi_kit::{Documented, EventStyle, Service};
use pilvi_store::Store;
use std::sync::{Arc, OnceLock};

/// The service's state.
pub struct Network {
    pub store: Store,
    /// Hosts as the fleet last told them.
    hosts: RwLock<Arc<Vec<HostInfo>>>,
    /// What hosts are told alike, and which of them each change concerns.
    pub(crate) neighbourhood: host::neighbours::Neighbourhood,
    pub(crate) interest: host::interest::Interest,
    /// Where this process keeps spare ways of routers, if it does.
    pub(crate) keeper: OnceLock<pilvi_reconcile::Driver>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// `store` was opened with [`kinds`] and the kit's quota overrides.
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Network {
            store,
            hosts: RwLock::default(),
            neighbourhood: host::neighbours::Neighbourhood::default(),
            interest: host::interest::Interest::default(),
            keeper: OnceLock::new(),
        })
    }

    /// Keeps what the fleet says of all hosts; false when that is known.
    pub fn remember(&self, hosts: &[HostInfo]) -> bool {
        let known = self.hosts();
        if std::ptr::eq(known.as_slice(), hosts) || *known == hosts {
            return false;
        }
        hosts.iter().for_each(|host| self.neighbourhood.set_end(host));
        *self.hosts.write() = Arc::new(hosts.to_vec());
        self.look_at_hosts(&known, hosts);
        true
    }

    pub fn hosts(&self) -> Arc<Vec<HostInfo>> {
        self.hosts.read().clone()
    }

    /// No host here wants to know the endpoints of this network any more.
    pub fn leave_neighbours(&self, network: &str) {
        self.neighbourhood.leave(network);
    }

    /// Changes may have been missed: endpoints are read anew when they are asked for.
    pub fn forget_neighbours(&self) {
        self.neighbourhood.forget();
    }
}

/// Every resource that is a table of attributes.
pub const RESOURCES: [&Resource; 40] = [
    &network::api::NETWORK,
    &subnet::api::SUBNET,
    &subnet_pool::api::SUBNET_POOL,
    &port::api::PORT,
    &router::api::ROUTER,
    &floating_ip::api::FLOATING_IP,
    &security_group::api::GROUP,
    &security_group::api::RULE,
    &security_group::statefulness::STATEFULNESS,
    &rbac::api::RBAC_POLICY,
    &address_scope::api::ADDRESS_SCOPE,
    &address_group::api::ADDRESS_GROUP,
    &default_rule::api::DEFAULT_RULE,
    &service_flavor::api::FLAVOR,
    &service_flavor::profile::SERVICE_PROFILE,
    &segment::api::SEGMENT,
    &segment_range::api::SEGMENT_RANGE,
    &metering::label::METERING_LABEL,
    &metering::rule::METERING_RULE,
    &port_forwarding::api::PORT_FORWARDING,
    &trunk::api::TRUNK,
    &qos::policy::QOS_POLICY,
    &qos::rule::BANDWIDTH,
    &qos::rule::PACKET_RATE,
    &qos::rule::DSCP,
    &qos::rule::LEAST_BANDWIDTH,
    &qos::rule::LEAST_PACKET_RATE,
    &flow_log::api::FLOW_LOG,
    &local_ip::api::LOCAL_IP,
    &local_ip::association::ASSOCIATION,
    &ndp_proxy::api::NDP_PROXY,
    &conntrack_helper::api::CONNTRACK_HELPER,
    &tap::service::TAP_SERVICE,
    &tap::flow::TAP_FLOW,
    &tap::mirror::TAP_MIRROR,
    &firewall::group::api::FIREWALL_GROUP,
    &firewall::policy::api::FIREWALL_POLICY,
    &firewall::rule::api::FIREWALL_RULE,
    &bgp::speaker::SPEAKER,
    &bgp::peer::PEER,
];

pub fn service() -> Service<Network> {
    let routes = [
        network::api::routes(),
        subnet::api::routes(),
        subnet_pool::api::routes(),
        port::api::routes(),
        port::binding::routes(),
        router::api::routes(),
        floating_ip::api::routes(),
        security_group::api::routes(),
        security_group::statefulness::routes(),
        rbac::api::routes(),
        address_scope::api::routes(),
        address_group::api::routes(),
        default_rule::api::routes(),
        service_flavor::api::routes(),
        service_flavor::profile::routes(),
        segment::api::routes(),
        segment_range::api::routes(),
        metering::label::routes(),
        metering::rule::routes(),
        port_forwarding::api::routes(),
        trunk::api::routes(),
        flow_log::api::routes(),
        local_ip::api::routes(),
        ndp_proxy::api::routes(),
        conntrack_helper::api::routes(),
        tap::service::routes(),
        tap::flow::routes(),
        tap::mirror::routes(),
        firewall::group::api::routes(),
        firewall::policy::api::routes(),
        firewall::rule::api::routes(),
        bgp::speaker::routes(),
        bgp::peer::routes(),
        bgp::dragent::routes(),
        qos::policy::routes(),
        qos::rule::routes(),
        qos::rule_type::routes(),
        subnet_pool::blocks::routes(),
        floating_ip::pool::routes(),
        quota::routes(),
        tag::routes(),
        agent::routes(),
        hosting::api::routes(),
        discovery::routes(),
        ip_availability::routes(),
        topology::routes(),
    ];
    Service {
        name: "network",
        prefix: "/network",
        versions: None,
        fault: fault::shape,
        rules: policy::rules(),
        routes: routes.into_iter().flatten().collect(),
        documented: Documented { operations: include_str!("../operations.txt"), states: include_str!("../states.txt") },
        events: EventStyle { suffix: ".end", ..EventStyle::PLAIN },
    }
}

#[cfg(test)]
mod tests;
