//! Taps: which ports are copied, and where the copies go.
//!
//! ```text
//!   mirrors: {port, direction} -> up to four ports of this host, {tunnel key, host}, or collectors outside
//!   sinks:   {tunnel key} -> port that looks            vteps: the hosts that its copies come from
//!   collectors: {name} -> address outside, kind, and the way there      collected: {name} -> frames so far
//! ```
//! A collector's name is made of all that its row says, so a row never changes its meaning: no copy that is on its way while
//! rows are written can come to another collector. The way there:
//!
//! ```text
//!   in a subnet of an external network where this host has an address? --> edge link, as that address
//!   is there an underlay?                                              --> by its routes, as its own address
//!   an external network with a gateway, where this host has an address? --> edge link, by the gateway
//! ```
use crate::picture::Picture;
use crate::table::{Bytes, Copies, Settings, Table, name64, put};
use crate::wanted::{Looker, Network, Tap, Wrap};
use crate::wire;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Copies of one frame; `MIRRORS` of `bpf/tables.h`.
const MIRRORS: usize = 4;
const TO_GUEST: u32 = 0;
const FROM_GUEST: u32 = 1;
/// `COLLECTOR_*` of `bpf/tables.h`.
const ERSPAN: u32 = 1;
const SIX: u32 = 2;
const EDGE: u32 = 4;
/// Ten bits.
const SESSION_MAX: u16 = 0x3ff;

/// Ports of this host that are looked at.
pub(crate) fn sources(taps: &[Tap]) -> HashSet<&str> {
    taps.iter().map(|t| t.port.as_str()).collect()
}

/// Whether copies go to collectors by IPv6.
pub(crate) fn wants6(taps: &[Tap]) -> bool {
    taps.iter().any(|t| matches!(t.to, Looker::Collector { address: IpAddr::V6(_), .. }))
}

pub(crate) fn draw(picture: &mut Picture<'_>, settings: &Settings) {
    let wanted = picture.wanted;
    let mut copies: BTreeMap<(u32, u32), Vec<Bytes>> = BTreeMap::new();
    for tap in &wanted.taps {
        let Some(&source) = picture.devices.get(&tap.port) else { continue };
        let to = match &tap.to {
            Looker::Collector { address, wrap } => match collector(picture, settings, *address, *wrap) {
                Ok(to) => Some(to),
                Err(why) => {
                    picture.problem(None, format!("copies of port {} for {address}: {why}", tap.port));
                    None
                }
            },
            other => row(picture, other),
        };
        let Some(to) = to else { continue };
        for (on, direction) in [(tap.ingress, TO_GUEST), (tap.egress, FROM_GUEST)] {
            if on {
                copies.entry((source, direction)).or_default().push(to.clone());
            }
        }
    }
    for ((source, direction), rows) in copies {
        if rows.len() > MIRRORS {
            picture.problem(None, format!("interface {source} is looked at by more than {MIRRORS} ports"));
        }
        let count = u32::try_from(rows.len().min(MIRRORS)).unwrap_or(0);
        let value = rows.iter().take(MIRRORS).fold(Bytes::new().u32(count).u32(0), |b, row| b.raw(&row.0));
        let mut value = value;
        value.0.resize(Table::Mirrors.sizes().1, 0);
        put(&mut picture.tables, Table::Mirrors, Bytes::new().u32(source).u32(direction), value);
    }
    for sink in &wanted.sinks {
        let Some(&name) = picture.devices.get(&sink.port) else { continue };
        put(&mut picture.tables, Table::Sinks, Bytes::new().u32(sink.vni), Bytes::new().u32(name));
        for vtep in sink.from.iter().filter(|v| Some(**v) != picture.vtep) {
            put(&mut picture.tables, Table::Vteps, Bytes::new().ip(*vtep), Bytes::new().u32(1));
        }
    }
}

/// Where one copy goes; `None`: nowhere yet.
fn row(picture: &Picture<'_>, to: &Looker) -> Option<Bytes> {
    match to {
        Looker::Port(port) => {
            let name = *picture.devices.get(port)?;
            Some(Bytes::new().u32(name).ip(Ipv4Addr::UNSPECIFIED).u32(0).u32(0))
        }
        Looker::Host { vtep, vni } => {
            (Some(*vtep) != picture.vtep).then(|| Bytes::new().u32(0).ip(*vtep).u32(*vni).u32(0))
        }
        Looker::Collector { .. } => None,
    }
}

/// How copies leave this host.
#[derive(Debug, Default)]
struct Way {
    flags: u32,
    device: u32,
    mtu: u32,
    vni: u32,
    via: Option<Ipv4Addr>,
    from: [u8; 16],
}

/// An address as the programs have it: one of IPv4 stands in the first word.
fn words(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&ip.octets());
            out
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Draws who collects; what leads copies there.
fn collector(
    picture: &mut Picture<'_>,
    settings: &Settings,
    address: IpAddr,
    wrap: Wrap,
) -> Result<Bytes, &'static str> {
    let Copies { link, .. } = settings.copies;
    if link == 0 {
        return Err("the link that wraps copies is missing");
    }
    let way = match address {
        IpAddr::V4(ip) => way4(picture, settings, ip)?,
        IpAddr::V6(ip) => way6(settings, ip)?,
    };
    let (kind, id) = match wrap {
        Wrap::Gre { key } => (0, key),
        Wrap::Erspan { session } if session <= SESSION_MAX => (ERSPAN, u32::from(session)),
        Wrap::Erspan { .. } => return Err("a session has ten bits"),
    };
    let value = Bytes::new().u32(way.flags | kind).u32(id).u32(way.device).u32(way.vni);
    let value = value.ip(way.via.unwrap_or(Ipv4Addr::UNSPECIFIED)).u32(way.mtu).raw(&way.from).raw(&words(address));
    let name = name_of(&value);
    let key = Bytes::new().u32(name);
    let rows = picture.tables.entry(Table::Collectors).or_default();
    if rows.get(&key.0).is_some_and(|there| *there != value.0) {
        return Err("another collector has the same name");
    }
    put(&mut picture.tables, Table::Collectors, key.clone(), value);
    put(&mut picture.tables, Table::Collected, key, Bytes::new().u64(0));
    Ok(Bytes::new().u32(link).ip(Ipv4Addr::UNSPECIFIED).u32(0).u32(name))
}

/// Never 0, which would be no collector.
fn name_of(value: &Bytes) -> u32 {
    let name = name64(&value.0.iter().map(|b| char::from(*b)).collect::<String>());
    let folded = (name ^ name >> 32) & u64::from(u32::MAX);
    u32::try_from(folded).unwrap_or(1).max(1)
}

fn way4(picture: &Picture<'_>, settings: &Settings, to: Ipv4Addr) -> Result<Way, &'static str> {
    let edge = |network: &Network, via: Option<Ipv4Addr>| {
        let vni = wire::of(picture, &network.id);
        let (from, _) = wire::ours(&picture.tables, vni)?;
        (settings.edge_if != 0).then(|| Way {
            flags: EDGE,
            device: settings.edge_if,
            mtu: settings.copies.edge_mtu,
            vni,
            via,
            from: words(from.into()),
        })
    };
    let subnets = || {
        let outside = picture.wanted.networks.iter().filter(|n| n.external);
        outside.flat_map(|n| n.subnets.iter().map(move |s| (n, s)))
    };
    let on_link = |(network, subnet): (_, &crate::wanted::Subnet)| match subnet.cidr {
        IpNet::V4(net) if net.contains(&to) => edge(network, None),
        _ => None,
    };
    if let Some(way) = subnets().find_map(on_link) {
        return Ok(way);
    }
    if let (Some(vtep), device @ 1..) = (picture.vtep, settings.copies.underlay) {
        let Copies { mtu, .. } = settings.copies;
        return Ok(Way { device, mtu, from: words(vtep.into()), ..Way::default() });
    }
    let by_gateway = |(network, subnet): (_, &crate::wanted::Subnet)| match subnet.gateway {
        Some(IpAddr::V4(gateway)) => edge(network, Some(gateway)),
        _ => None,
    };
    subnets().find_map(by_gateway).ok_or("neither an underlay nor a gateway leads there")
}

/// IPv6 goes by the underlay alone.
fn way6(settings: &Settings, to: Ipv6Addr) -> Result<Way, &'static str> {
    let Copies { underlay, mtu, from6, .. } = settings.copies;
    if underlay == 0 {
        return Err("IPv6 needs an underlay");
    }
    if to.is_unicast_link_local() {
        return Err("an address of one link is no collector's");
    }
    let from = from6.ok_or("the underlay's device has no address of IPv6")?;
    Ok(Way { flags: SIX, device: underlay, mtu, from: words(from.into()), ..Way::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture;
    use crate::sample;
    use crate::table::Tables;
    use crate::wanted::{Gateway, Mac, Port, Router, Subnet, Wanted};

    fn port(id: &str) -> Port {
        sample::port(id, "n", Mac([2, 0, 0, 0, 0, 1]))
    }

    fn network(id: &str, external: bool) -> Network {
        let subnet = Subnet {
            id: format!("{id}-sub"),
            cidr: "203.0.113.0/24".parse().unwrap(),
            gateway: Some("203.0.113.1".parse().unwrap()),
            dhcp: false,
            dhcp_server: None,
            dns: vec![],
            routes: vec![],
            lease_seconds: 60,
            ra: None,
        };
        let subnets = if external { vec![subnet] } else { vec![] };
        let vni = if external { 9000 } else { 7 };
        Network { external, subnets, ..sample::network(id, vni) }
    }

    /// Port `p` is looked at by collectors; a router has 203.0.113.10 outside.
    fn wanted(to: &[(&str, Wrap)]) -> Wanted {
        let gateway = Gateway {
            network: "ext".into(),
            address: [203, 0, 113, 10].into(),
            prefix: 24,
            next_hop: Some([203, 0, 113, 1].into()),
            mac: Mac([2, 0, 0, 0, 0, 9]),
            snat: true,
            vtep: None,
        };
        let tap = |(address, wrap): &(&str, Wrap)| Tap {
            id: (*address).into(),
            port: "p".into(),
            ingress: true,
            egress: false,
            to: Looker::Collector { address: address.parse().unwrap(), wrap: *wrap },
        };
        Wanted {
            networks: vec![network("n", false), network("ext", true)],
            ports: vec![port("p")],
            routers: vec![Router {
                id: "r".into(),
                interfaces: vec![],
                gateway: Some(gateway),
                gateway6: None,
                routes: vec![],
            }],
            taps: to.iter().map(tap).collect(),
            ..Wanted::default()
        }
    }

    fn settings(underlay: u32, from6: Option<&str>) -> Settings {
        let from6 = from6.map(|a| a.parse().unwrap());
        Settings {
            edge_if: 3,
            copies: Copies { link: 5, underlay, mtu: 1500, edge_mtu: 1500, from6 },
            ..Settings::default()
        }
    }

    fn drawn(wanted: &Wanted, settings: &Settings) -> (Tables, Vec<String>) {
        let devices = BTreeMap::from([("p".to_owned(), 9)]);
        let vtep = (settings.copies.underlay != 0).then_some(Ipv4Addr::new(192, 0, 2, 1));
        let (tables, problems) = picture::draw(wanted, &devices, vtep, settings);
        (tables, problems.into_iter().map(|p| p.message).collect())
    }

    /// Flags, id, device, source and target.
    type Seen = (u32, u32, u32, [u8; 4], [u8; 4]);

    fn collectors(tables: &Tables) -> Vec<Seen> {
        let word = |row: &[u8], n: usize| u32::from_ne_bytes(*row[4 * n..].first_chunk().unwrap());
        let four = |row: &[u8], at: usize| *row[at..].first_chunk().unwrap();
        let row = |r: &Vec<u8>| (word(r, 0), word(r, 1), word(r, 2), four(r, 24), four(r, 40));
        tables[&Table::Collectors].values().map(row).collect()
    }

    #[test]
    fn a_collector_is_reached_by_the_provider_s_link_if_it_is_there_and_else_by_the_underlay() {
        let gre = Wrap::Gre { key: 101 };
        let (near, far) = (wanted(&[("203.0.113.77", gre)]), wanted(&[("198.51.100.7", Wrap::Erspan { session: 9 })]));
        let (ours, vtep) = ([203, 0, 113, 10], [192, 0, 2, 1]);
        let both = settings(4, None);
        assert_eq!(collectors(&drawn(&near, &both).0), [(EDGE, 101, 3, ours, [203, 0, 113, 77])]);
        assert_eq!(collectors(&drawn(&far, &both).0), [(ERSPAN, 9, 4, vtep, [198, 51, 100, 7])]);
        let alone = settings(0, None);
        let (tables, problems) = drawn(&far, &alone);
        assert_eq!(collectors(&tables), [(ERSPAN | EDGE, 9, 3, ours, [198, 51, 100, 7])]);
        let via = tables[&Table::Collectors].values().next().unwrap()[16..20].to_vec();
        assert_eq!((via.as_slice(), problems.len()), (&[203, 0, 113, 1][..], 0), "by the gateway");
        // Without an address there nothing can be sent.
        let mut nowhere = far.clone();
        nowhere.routers.clear();
        let (tables, problems) = drawn(&nowhere, &alone);
        assert!(tables[&Table::Mirrors].is_empty() && problems[0].contains("neither an underlay"), "{problems:?}");
    }

    #[test]
    fn ipv6_needs_an_address_of_the_underlay() {
        let six = wanted(&[("2001:db8::7", Wrap::Gre { key: 1 })]);
        for (settings, why) in [(settings(0, None), "needs an underlay"), (settings(4, None), "has no address")] {
            let (tables, problems) = drawn(&six, &settings);
            assert!(tables[&Table::Mirrors].is_empty() && problems[0].contains(why), "{problems:?}");
        }
        let (tables, problems) = drawn(&six, &settings(4, Some("2001:db8::1")));
        assert_eq!((collectors(&tables)[0].0, problems.len()), (SIX, 0));
        assert!(wants6(&six.taps) && !wants6(&wanted(&[("192.0.2.9", Wrap::Gre { key: 1 })]).taps));
    }

    #[test]
    fn a_name_says_all_that_the_row_says() {
        let (one, two) = (("198.51.100.7", Wrap::Gre { key: 1 }), ("198.51.100.7", Wrap::Gre { key: 2 }));
        let row = |tables: &Tables| tables[&Table::Collectors].clone();
        let alone = row(&drawn(&wanted(&[one]), &settings(4, None)).0);
        let (tables, _) = drawn(&wanted(&[two, one, one]), &settings(4, None));
        let both = row(&tables);
        assert_eq!(both.len(), 2, "the same collector twice is one row");
        assert!(alone.iter().all(|(key, value)| both.get(key) == Some(value)), "whoever else is there");
        let mirrored = tables[&Table::Mirrors].values().next().unwrap();
        assert_eq!((mirrored[0], mirrored[8]), (3, 5), "three copies, through the link that wraps them");
        assert_eq!(tables[&Table::Collected].len(), 2);
    }
}
