//! From the contract's network to netdev's: text becomes addresses, or a reason why not.
//!
//! One thing that cannot be read does not stop the rest: a port is refused by name, anything else is
//! left out and logged. Leaving a rule out only ever closes, since nothing is allowed by default.
use super::{Flow, delegation, firewall::firewall};
use pilvi_agent_api::v1;
use pilvi_netdev::Note;
use pilvi_netdev::wanted::{
    AddressPair, Answers, ByLeg, Direction, Family, Fixed, Floating, Forward, Gateway, Gateway6, Group, Helper,
    Interface, Label, Limited, LocalIp, Looker, Mac, MeterRule, Name, Network, Out, Parent, Peer, Port, Ports,
    PublicKey, Quality, Ra, Rate, Remote, Route, Router, Rule, Scope, Subnet, Tap, TapSink, Tunnel, View, Wanted,
    Watch, Way, Wrap, Zone,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;

const ICMP: [u8; 2] = [1, 58];

/// Converts a host's network; also gives the ports that were refused, each with the reason.
#[must_use]
pub fn wanted(from: &v1::HostNetwork) -> (Wanted, Vec<(String, String)>) {
    let mut refused = Vec::new();
    let ports = from.ports.iter().filter_map(|p| match port(p) {
        Ok(port) => Some(port),
        Err(why) => {
            refused.push((p.id.clone(), why));
            None
        }
    });
    let wanted = Wanted {
        ports: ports.collect(),
        networks: each("network", &from.networks, |n| &n.id, network),
        remotes: each("remote", &from.remotes, |r| &r.port_id, remote),
        groups: from.groups.iter().map(group).collect(),
        routers: each("router", &from.routers, |r| &r.id, router),
        floating: each("floating", &from.floating, |f| &f.id, floating),
        by_leg: each("floating", &from.by_leg, |f| &f.id, by_leg),
        forwards: each("forwarding", &from.forwards, |f| &f.id, forward),
        qualities: each(
            "quality",
            &from.qualities,
            |q| if q.port_id.is_empty() { &q.address } else { &q.port_id },
            quality,
        ),
        labels: each("label", &from.labels, |l| &l.id, label),
        zones: each("zone", &from.zones, |z| &z.network_id, zone),
        views: from.views.iter().map(view).collect(),
        watches: watches(&from.logs),
        scopes: from.networks.iter().flat_map(scopes).collect(),
        helpers: from.routers.iter().flat_map(helpers).collect(),
        ways: from.routers.iter().flat_map(ways).collect(),
        taps: each("tap", &from.taps, |t| &t.id, tap),
        firewalls: each("firewall", &from.firewalls, |f| &f.id, firewall),
        sinks: each("tap service", &from.tap_sinks, |s| &s.port_id, tap_sink),
        locals: each("local IP", &from.local_ips, |l| &l.id, local_ip),
        delegations: delegation::wanted(from),
        bfd: from.routers.iter().filter(|r| r.watched).map(|r| r.id.clone()).collect(),
        lent: delegation::lent(from),
        left: from.left.clone(),
        peers: peers(from),
        tunnels: each("tunnel", &from.tunnels, |t| &t.vtep, tunnel),
    };
    (wanted, refused)
}

pub(super) fn each<A, B>(
    what: &str,
    all: &[A],
    id: impl Fn(&A) -> &String,
    convert: impl Fn(&A) -> Result<B, String>,
) -> Vec<B> {
    let convert = |one: &A| {
        let done = convert(one);
        if let Err(why) = &done {
            tracing::error!(what, id = id(one), why, "left out of the packet path");
        }
        done.ok()
    };
    all.iter().filter_map(convert).collect()
}

fn parse<T: FromStr>(what: &str, text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|e| format!("{what} {text:?}: {e}"))
}

/// `None` for the empty text.
fn maybe<T: FromStr>(what: &str, text: &str) -> Result<Option<T>, String>
where
    T::Err: Display,
{
    if text.is_empty() { Ok(None) } else { parse(what, text).map(Some) }
}

pub(super) fn small<T: TryFrom<u32>>(what: &str, number: u32) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("{what} {number} is too large"))
}

pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2);
        let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = value.ok_or_else(|| format!("{text:?} is no hardware address"))?;
    }
    if parts.next().is_some() {
        return Err(format!("{text:?} is no hardware address"));
    }
    Ok(Mac(bytes))
}

fn route(from: &v1::Route) -> Result<Route, String> {
    Ok(Route { destination: parse("destination", &from.destination)?, nexthop: parse("next hop", &from.nexthop)? })
}

fn network(from: &v1::L2) -> Result<Network, String> {
    Ok(Network {
        id: from.id.clone(),
        vni: from.vni,
        mtu: small("mtu", from.mtu)?,
        external: from.external,
        vlan: vlan(from.vlan)?,
        service_tag: from.service_tag,
        transparent: from.transparent,
        subnets: from.subnets.iter().map(subnet).collect::<Result<_, _>>()?,
    })
}

/// 0: none.
fn vlan(tag: u32) -> Result<u16, String> {
    small("VLAN", tag).and_then(|tag: u16| if tag < 4095 { Ok(tag) } else { Err(format!("VLAN {tag} is too large")) })
}

fn view(from: &v1::View) -> View {
    View { network: from.network_id.clone(), ports: from.ports.clone(), apart: from.apart }
}

fn zone(from: &v1::Zone) -> Result<Zone, String> {
    let name = |n: &v1::Name| {
        let addresses = n.addresses.iter().map(|a| parse("address", a)).collect::<Result<_, _>>()?;
        Ok(Name { name: n.name.clone(), addresses })
    };
    let names = from.names.iter().map(name).collect::<Result<_, String>>()?;
    let (domain, also) = (from.domain.clone(), from.also.clone());
    Ok(Zone { network: from.network_id.clone(), domain, closed: from.closed, also, names })
}

fn subnet(from: &v1::Subnet) -> Result<Subnet, String> {
    Ok(Subnet {
        id: from.id.clone(),
        cidr: parse("cidr", &from.cidr)?,
        gateway: maybe("gateway", &from.gateway)?,
        dhcp: from.dhcp,
        dhcp_server: maybe("DHCP server", &from.dhcp_server)?,
        dns: from.dns.iter().map(|a| parse("name server", a)).collect::<Result<_, _>>()?,
        routes: from.routes.iter().map(route).collect::<Result<_, _>>()?,
        lease_seconds: from.lease_seconds,
        ra: match from.ra() {
            v1::Ra::Unspecified => None,
            v1::Ra::Slaac => Some(Ra::Slaac),
            v1::Ra::Stateless => Some(Ra::Stateless),
            v1::Ra::Stateful => Some(Ra::Stateful),
        },
    })
}

fn port(from: &v1::Port) -> Result<Port, String> {
    let fixed = from
        .fixed_ips
        .iter()
        .map(|fixed| Ok(Fixed { subnet: fixed.subnet_id.clone(), address: parse("address", &fixed.address)? }));
    let pairs = from.allowed_pairs.iter().map(|pair| {
        let own = pair.mac.is_empty();
        Ok(AddressPair { mac: if own { None } else { Some(mac(&pair.mac)?) }, cidr: address_or_cidr(&pair.cidr)? })
    });
    let options = from.dhcp_options.iter().map(|option| Ok((small("DHCP option", option.code)?, option.value.clone())));
    Ok(Port {
        id: from.id.clone(),
        network: from.network_id.clone(),
        mac: mac(&from.mac)?,
        fixed: fixed.collect::<Result<_, String>>()?,
        groups: from.groups.clone(),
        secured: from.port_security,
        up: from.up,
        allowed_pairs: pairs.collect::<Result<_, String>>()?,
        hostname: from.hostname.clone(),
        dhcp_options: options.collect::<Result<_, String>>()?,
        metadata: !from.instance_id.is_empty(),
        parent: parent(from)?,
        idle: from.idle,
    })
}

/// Whose device it shares, if it has none of its own.
fn parent(from: &v1::Port) -> Result<Option<Parent>, String> {
    if from.parent_id.is_empty() {
        return Ok(None);
    }
    Ok(Some(Parent { port: from.parent_id.clone(), vlan: small("VLAN", from.vlan)? }))
}

/// A network, or an address that stands for itself alone.
pub(super) fn address_or_cidr<T: FromStr + From<std::net::IpAddr>>(text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => parse("cidr", text),
    }
}

/// Who may speak to this host besides those whose guests it knows: where guests have come from, and where they are going.
fn peers(from: &v1::HostNetwork) -> Vec<Ipv4Addr> {
    let going = from.remotes.iter().map(|remote| &remote.other_vtep);
    let all: BTreeSet<Ipv4Addr> = from.peers.iter().chain(going).filter_map(|vtep| vtep.parse().ok()).collect();
    all.into_iter().collect()
}

fn tunnel(from: &v1::Tunnel) -> Result<Tunnel, String> {
    let wireguard = from.wireguard.as_ref().ok_or("no WireGuard key")?;
    let key = wireguard.public_key.as_slice().try_into().map_err(|_| "a WireGuard key has 32 bytes")?;
    let port = small("port", wireguard.port)?;
    if port == 0 {
        return Err("port 0".into());
    }
    Ok(Tunnel { vtep: parse("vtep", &from.vtep)?, key: PublicKey(key), port })
}

fn remote(from: &v1::Remote) -> Result<Remote, String> {
    Ok(Remote {
        port: from.port_id.clone(),
        network: from.network_id.clone(),
        mac: mac(&from.mac)?,
        addresses: from.addresses.iter().map(|a| parse("address", a)).collect::<Result<_, _>>()?,
        vtep: parse("vtep", &from.vtep)?,
        groups: from.groups.clone(),
    })
}

fn group(from: &v1::Group) -> Group {
    Group { id: from.id.clone(), stateful: from.stateful, rules: each("rule", &from.rules, |r| &r.id, rule) }
}

fn rule(from: &v1::Rule) -> Result<Rule, String> {
    let family = match from.ether_type {
        4 => Family::V4,
        6 => Family::V6,
        other => return Err(format!("ether type {other}")),
    };
    let protocol = if from.any_protocol { None } else { Some(small("protocol", from.protocol)?) };
    let ports = match protocol {
        _ if from.any_port => Ports::Any,
        Some(protocol) if ICMP.contains(&protocol) => {
            let code = small("ICMP code", from.port_max).ok();
            Ports::Icmp(small("ICMP type", from.port_min)?, code)
        }
        _ => {
            let (low, high) = (small("port", from.port_min)?, small("port", from.port_max)?);
            if low > high {
                return Err(format!("ports {low} to {high}"));
            }
            Ports::Range(low, high)
        }
    };
    let peer = match (from.remote_cidr.as_str(), from.remote_group.as_str()) {
        ("", "") => Peer::Any,
        (cidr, "") => Peer::Cidr(address_or_cidr(cidr)?),
        ("", group) => Peer::Group(group.to_owned()),
        _ => return Err("a peer is a network or a group, not both".into()),
    };
    let direction = if from.ingress { Direction::Ingress } else { Direction::Egress };
    Ok(Rule { id: from.id.clone(), direction, family, protocol, ports, peer })
}

fn router(from: &v1::Router) -> Result<Router, String> {
    let interfaces = from.interfaces.iter().map(|leg| {
        Ok(Interface {
            network: leg.network_id.clone(),
            address: parse("address", &leg.address)?,
            prefix: small("prefix", leg.prefix)?,
            mac: mac(&leg.mac)?,
            leaked: leg.leaked,
        })
    });
    Ok(Router {
        id: from.id.clone(),
        interfaces: interfaces.collect::<Result<_, String>>()?,
        gateway: from.gateway.as_ref().map(gateway).transpose()?,
        gateway6: from.gateway6.as_ref().map(gateway6).transpose()?,
        routes: from.routes.iter().map(route).collect::<Result<_, _>>()?,
    })
}

fn gateway6(from: &v1::RouterGateway) -> Result<Gateway6, String> {
    let proxied = from.proxied.iter().map(|a| parse("address", a)).collect::<Result<_, String>>()?;
    Ok(Gateway6 {
        proxied: from.proxies_only.then_some(proxied),
        network: from.network_id.clone(),
        address: parse("address", &from.address)?,
        prefix: small("prefix", from.prefix)?,
        next_hop: maybe("next hop", &from.next_hop)?,
        mac: mac(&from.mac)?,
        vtep: maybe("vtep", &from.vtep)?,
    })
}

fn gateway(from: &v1::RouterGateway) -> Result<Gateway, String> {
    Ok(Gateway {
        network: from.network_id.clone(),
        address: parse("address", &from.address)?,
        prefix: small("prefix", from.prefix)?,
        next_hop: maybe("next hop", &from.next_hop)?,
        mac: mac(&from.mac)?,
        snat: from.snat,
        vtep: maybe("vtep", &from.vtep)?,
    })
}

/// The ways out beside the first; one that this host does not understand is left out.
fn ways(from: &v1::Router) -> Vec<Way> {
    let way = |g: &v1::RouterGateway| {
        let out = if g.address.contains(':') { Out::V6(gateway6(g)?) } else { Out::V4(gateway(g)?) };
        Ok(Way { router: from.id.clone(), out, balanced: from.balanced })
    };
    each("way out", &from.further, |g| &g.address, way)
}

fn by_leg(from: &v1::Floating) -> Result<ByLeg, String> {
    Ok(ByLeg {
        id: from.id.clone(),
        network: from.network_id.clone(),
        address: parse("floating address", &from.address)?,
        mac: mac(&from.mac)?,
        fixed: parse("fixed address", &from.fixed_address)?,
        router: from.router_id.clone(),
    })
}

fn floating(from: &v1::Floating) -> Result<Floating, String> {
    Ok(Floating {
        id: from.id.clone(),
        network: from.network_id.clone(),
        address: parse("address", &from.address)?,
        mac: mac(&from.mac)?,
        port: from.port_id.clone(),
        fixed: parse("fixed address", &from.fixed_address)?,
        router: from.router_id.clone(),
    })
}

fn forward(from: &v1::Forward) -> Result<Forward, String> {
    let ports: (u16, u16) = (small("port", from.external_first)?, small("port", from.external_last)?);
    let inside: u16 = small("port", from.internal_first)?;
    let more = ports.1.checked_sub(ports.0).ok_or_else(|| format!("ports {} to {}", ports.0, ports.1))?;
    if !from.to_one && inside.checked_add(more).is_none() {
        return Err(format!("{more} ports after {inside}"));
    }
    Ok(Forward {
        id: from.id.clone(),
        network: from.network_id.clone(),
        address: parse("address", &from.address)?,
        mac: mac(&from.mac)?,
        router: from.router_id.clone(),
        protocol: small("protocol", from.protocol)?,
        ports,
        fixed: parse("fixed address", &from.fixed_address)?,
        inside,
        to_one: from.to_one,
    })
}

/// Those of a router; one that this host does not know is left out, and its answers stay outside.
fn helpers(from: &v1::Router) -> Vec<Helper> {
    let helper = |h: &v1::Helper| match (h.name.as_str(), h.protocol) {
        ("tftp", 17) => Ok(Helper { router: from.id.clone(), port: small("port", h.port)?, answers: Answers::Tftp }),
        (name, protocol) => Err(format!("{name} over {protocol}")),
    };
    each("helper", &from.helpers, |h| &h.name, helper)
}

fn scopes(from: &v1::L2) -> impl Iterator<Item = Scope> {
    let families = [(&from.scope4, Family::V4), (&from.scope6, Family::V6)];
    let named = families.into_iter().filter(|(id, _)| !id.is_empty());
    named.map(|(id, family)| Scope { id: id.clone(), family, network: from.id.clone() })
}

fn tap(from: &v1::Tap) -> Result<Tap, String> {
    let to = match (&from.collector, from.to_port.as_str()) {
        (Some(collector), _) => Looker::Collector {
            address: parse("address", &collector.address)?,
            wrap: if collector.erspan {
                Wrap::Erspan { session: small("session", collector.number)? }
            } else {
                Wrap::Gre { key: collector.number }
            },
        },
        (None, "") => Looker::Host { vtep: parse("vtep", &from.vtep)?, vni: from.vni },
        (None, port) => Looker::Port(port.to_owned()),
    };
    Ok(Tap { id: from.id.clone(), port: from.port_id.clone(), ingress: from.ingress, egress: from.egress, to })
}

fn tap_sink(from: &v1::TapSink) -> Result<TapSink, String> {
    let hosts = from.from.iter().map(|v| parse("vtep", v)).collect::<Result<_, String>>()?;
    Ok(TapSink { port: from.port_id.clone(), vni: from.vni, from: hosts })
}

fn local_ip(from: &v1::LocalIp) -> Result<LocalIp, String> {
    Ok(LocalIp {
        id: from.id.clone(),
        port: from.port_id.clone(),
        address: parse("address", &from.address)?,
        fixed: parse("fixed address", &from.fixed_address)?,
        translates: from.translate,
    })
}

fn quality(from: &v1::Quality) -> Result<Quality, String> {
    let of = match (from.port_id.as_str(), from.address.as_str()) {
        ("", address) => Limited::Address(parse("address", address)?),
        (port, "") => Limited::Port(port.to_owned()),
        _ => return Err("a port or an address, not both".into()),
    };
    let limit = |r: &Option<v1::Rate>| r.as_ref().map_or_else(Rate::default, rate);
    let dscp = from.dscp.map(|d| small("DSCP", d)).transpose()?;
    Ok(Quality { of, egress: limit(&from.egress), ingress: limit(&from.ingress), dscp })
}

fn rate(from: &v1::Rate) -> Rate {
    Rate { kbps: from.kbps, burst_kbit: from.burst_kbit, packets: from.packets, burst_packets: from.burst_packets }
}

fn label(from: &v1::MeterLabel) -> Result<Label, String> {
    let rules = from.rules.iter().map(|rule| {
        Ok(MeterRule {
            direction: if rule.ingress { Direction::Ingress } else { Direction::Egress },
            excluded: rule.excluded,
            source: maybe("source", &rule.source)?,
            destination: maybe("destination", &rule.destination)?,
        })
    });
    Ok(Label { id: from.id.clone(), routers: from.routers.clone(), rules: rules.collect::<Result<_, String>>()? })
}

/// What all logs together want noted of each port.
fn watches(logs: &[v1::FlowLog]) -> Vec<Watch> {
    let mut ports: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for log in logs {
        for port in &log.ports {
            let (accepted, dropped) = ports.entry(port).or_default();
            *accepted |= log.accepted;
            *dropped |= log.dropped;
        }
    }
    ports.into_iter().map(|(port, (accepted, dropped))| Watch { port: port.to_owned(), accepted, dropped }).collect()
}

/// A note in the words of the flow log.
#[must_use]
pub fn flow(note: &Note) -> Flow {
    let direction = if note.direction == Direction::Ingress { "ingress" } else { "egress" };
    let mac = |m: Mac| m.0.map(|b| format!("{b:02x}")).join(":");
    let mut packet = format!(
        "direction={direction} eth_src={} eth_dst={} src={} dst={} protocol={} length={}",
        mac(note.source_mac),
        mac(note.destination_mac),
        note.source,
        note.destination,
        note.protocol,
        note.length
    );
    if ICMP.contains(&note.protocol) {
        packet.push_str(&format!(" type={} code={}", note.icmp.0, note.icmp.1));
    } else if note.source_port != 0 || note.destination_port != 0 {
        packet.push_str(&format!(" sport={} dport={}", note.source_port, note.destination_port));
    }
    if note.skipped > 0 {
        packet.push_str(&format!(" skipped={}", note.skipped));
    }
    Flow { port: note.port.clone(), accepted: note.accepted, packet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_port_does_not_stop_the_rest() {
        let good = v1::Port { id: "a".into(), mac: "02:00:00:00:00:01".into(), ..v1::Port::default() };
        let bad = v1::Port { id: "b".into(), mac: "02:00".into(), ..v1::Port::default() };
        let network = v1::HostNetwork { ports: vec![good, bad], ..v1::HostNetwork::default() };
        let (wanted, refused) = wanted(&network);
        assert_eq!(wanted.ports.len(), 1);
        assert_eq!(wanted.ports[0].mac, Mac([2, 0, 0, 0, 0, 1]));
        assert!(refused.len() == 1 && refused[0].1.contains("hardware address"));
    }

    #[test]
    fn routers_whose_next_hops_are_watched_are_named() {
        let router = |id: &str, watched| v1::Router { id: id.into(), watched, ..v1::Router::default() };
        let routers = vec![router("a", false), router("b", true)];
        assert_eq!(wanted(&v1::HostNetwork { routers, ..v1::HostNetwork::default() }).0.bfd, ["b"]);
    }

    #[test]
    fn logs_are_one_wish_for_each_port() {
        let log = |ports: &[&str], accepted, dropped| {
            let ports = ports.iter().map(|p| (*p).to_owned()).collect();
            v1::FlowLog { ports, accepted, dropped, ..v1::FlowLog::default() }
        };
        let wanted = watches(&[log(&["a", "b"], true, false), log(&["b"], false, true)]);
        let brief: Vec<_> = wanted.iter().map(|w| (w.port.as_str(), w.accepted, w.dropped)).collect();
        assert_eq!(brief, [("a", true, false), ("b", true, true)]);
        let note = Note {
            port: "a".into(),
            direction: Direction::Egress,
            accepted: true,
            skipped: 3,
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            protocol: 6,
            source_port: 1234,
            destination_port: 80,
            icmp: (0, 0),
            length: 60,
        };
        let words = "direction=egress eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:02 src=10.0.0.1 dst=10.0.0.2 \
                     protocol=6 length=60 sport=1234 dport=80 skipped=3";
        assert_eq!(flow(&note), Flow { port: "a".into(), accepted: true, packet: words.into() });
    }

    #[test]
    fn rules() {
        let base = v1::Rule { id: "r".into(), ingress: true, ether_type: 4, protocol: 6, ..v1::Rule::default() };
        let ssh = v1::Rule { port_min: 22, port_max: 22, remote_cidr: "10.0.0.0/8".into(), ..base.clone() };
        let made = rule(&ssh).unwrap();
        assert_eq!((made.ports, made.protocol), (Ports::Range(22, 22), Some(6)));
        assert_eq!(made.peer, Peer::Cidr("10.0.0.0/8".parse().unwrap()));
        let ping = v1::Rule { protocol: 1, port_min: 8, port_max: 0, ..base.clone() };
        assert_eq!(rule(&ping).unwrap().ports, Ports::Icmp(8, Some(0)));
        let any = v1::Rule { any_protocol: true, any_port: true, remote_group: "g".into(), ..base.clone() };
        let made = rule(&any).unwrap();
        assert_eq!((made.ports, made.protocol, made.peer), (Ports::Any, None, Peer::Group("g".into())));
        for bad in [
            v1::Rule { ether_type: 5, ..base.clone() },
            v1::Rule { port_min: 9, port_max: 8, ..base.clone() },
            v1::Rule { port_max: 70_000, ..base.clone() },
            v1::Rule { remote_cidr: "10.0.0.0/33".into(), any_port: true, ..base.clone() },
            v1::Rule { remote_cidr: "10.0.0.0/8".into(), remote_group: "g".into(), any_port: true, ..base },
        ] {
            assert!(rule(&bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,20}") {
            let _ = mac(&text);
            let floating_ip = v1::Floating { address: text.clone(), mac: text, ..v1::Floating::default() };
            let _ = floating(&floating_ip);
        }
    }
}
