//! Ports: what stands behind each device, and which addresses it may use as its own.
use crate::ask6::answers6;
use crate::filter::policy_name;
use crate::firewall;
use crate::local;
use crate::mirror;
use crate::picture::Picture;
use crate::quality;
use crate::table::{Bytes, Table, put};
use crate::transparent;
use crate::wanted::{Fixed, Mac, Port, Subnet, Watch};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

const UP: u32 = 1;
const SECURED: u32 = 2;
const METADATA: u32 = 4;
const DHCP: u32 = 8;
const EXTERNAL: u32 = 16;
const LIMITED_IN: u32 = 32;
const LIMITED_OUT: u32 = 64;
const MARKED: u32 = 128;
const ASKS6: u32 = 256;
const NOTES_ACCEPTED: u32 = 512;
const NOTES_DROPPED: u32 = 1024;
const LOCALS: u32 = 2048;
const NAMES: u32 = 4096;
const TAPPED: u32 = 8192;
const FIREWALLED: u32 = 16384;
const TRANSPARENT: u32 = 32768;

/// Hardware addresses that one prefix may be used with.
const SOURCE_MACS: usize = 4;
/// Allowed pairs of one port: more is a mistake, and each costs a row.
pub(crate) const PAIRS_MAX: usize = 1024;

/// IPv4 addresses of a port, in order.
pub(crate) fn addresses(fixed: &[Fixed]) -> impl Iterator<Item = Ipv4Addr> {
    fixed.iter().filter_map(|f| match f.address {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    })
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let locals = local::networks(wanted);
    let tapped = mirror::sources(&wanted.taps);
    let firewalled = firewall::Covered::of(wanted);
    let zones: HashSet<&str> = wanted.zones.iter().map(|z| z.network.as_str()).collect();
    let watches: HashMap<&str, &Watch> = wanted.watches.iter().map(|w| (w.port.as_str(), w)).collect();
    for port in &wanted.ports {
        let Some(&ifindex) = picture.devices.get(&port.id) else { continue };
        let Some(&network) = picture.networks.get(port.network.as_str()) else {
            picture.close(&port.id, format!("network {} is unknown", port.network));
            continue;
        };
        if network.vni == 0 || network.vni >= 1 << 24 {
            picture.close(&port.id, format!("network identifier {} is out of range", network.vni));
            continue;
        }
        let v4 = |s: &Subnet| matches!(s.cidr, IpNet::V4(_));
        let dhcp = network.subnets.iter().any(|s| s.dhcp && v4(s) && port.fixed.iter().any(|f| f.subnet == s.id));
        let quality = quality::of_port(&wanted.qualities, &port.id);
        let watch = watches.get(port.id.as_str());
        let mut flags = 0;
        for (on, bit) in [
            (port.up && !picture.closed.contains(port.id.as_str()), UP),
            (port.secured, SECURED),
            (port.metadata, METADATA),
            (dhcp, DHCP),
            (network.external, EXTERNAL),
            (quality.limited_in, LIMITED_IN),
            (quality.limited_out, LIMITED_OUT),
            (quality.tos.is_some(), MARKED),
            (answers6(wanted, port, network), ASKS6),
            (watch.is_some_and(|w| w.accepted), NOTES_ACCEPTED),
            (watch.is_some_and(|w| w.dropped), NOTES_DROPPED),
            (locals.contains(port.network.as_str()), LOCALS),
            (zones.contains(port.network.as_str()), NAMES),
            (tapped.contains(port.id.as_str()), TAPPED),
            (firewalled.has(port), FIREWALLED),
            (transparent::takes(network, port), TRANSPARENT),
        ] {
            flags |= if on { bit } else { 0 };
        }
        let realm = picture.realms.of(network.vni);
        let first = addresses(&port.fixed).next().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let key = Bytes::new().u32(ifindex);
        let value = Bytes::new().u32(network.vni).u32(flags).ip(first).raw(&port.mac.0);
        let value = value.u16(quality.tos.unwrap_or(0)).u32(realm).u64(policy_name(&port.groups));
        put(&mut picture.tables, Table::Ports, key.clone(), value);
        put(&mut picture.tables, Table::Live, key, Bytes::new().raw(&[0; 48]));
        draw_sources(picture, port, ifindex);
    }
}

fn draw_sources(picture: &mut Picture<'_>, port: &Port, ifindex: u32) {
    if port.allowed_pairs.len() > PAIRS_MAX {
        picture.problem(Some(&port.id), "too many allowed address pairs");
        return;
    }
    let mut owned: BTreeMap<Ipv4Net, Vec<Mac>> = BTreeMap::new();
    for ip in addresses(&port.fixed) {
        owned.entry(Ipv4Net::from(ip)).or_default().push(port.mac);
    }
    for pair in &port.allowed_pairs {
        if let IpNet::V4(net) = pair.cidr {
            owned.entry(net.trunc()).or_default().push(pair.mac.unwrap_or(port.mac));
        }
    }
    for net in owned.keys() {
        // The longest prefix alone is found, so it repeats what wider ones allow.
        let covering = owned.iter().filter(|(wide, _)| wide.contains(net));
        let macs = covering.flat_map(|(_, m)| m.iter().copied()).collect();
        let value = source_row(picture, port, net, macs);
        let key = Bytes::new().u32(32 + u32::from(net.prefix_len())).u32(ifindex).ip(net.addr());
        put(&mut picture.tables, Table::Sources, key, value);
    }
}

/// The hardware addresses that a prefix may be used with.
pub(crate) fn source_row(
    picture: &mut Picture<'_>,
    port: &Port,
    net: &impl std::fmt::Display,
    mut macs: Vec<Mac>,
) -> Bytes {
    macs.sort_unstable();
    macs.dedup();
    if macs.len() > SOURCE_MACS {
        picture.problem(Some(&port.id), format!("{net} is allowed with more than {SOURCE_MACS} hardware addresses"));
    }
    // Free places repeat the first: zeroes would be an address too.
    (0..SOURCE_MACS).fold(Bytes::new(), |b, i| b.raw(&macs.get(i).or(macs.first()).copied().unwrap_or(port.mac).0))
}
