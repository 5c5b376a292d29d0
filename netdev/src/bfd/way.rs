//! Which next hops are watched, and what a router does without those that are lost. Pure.
//!
//! ```text
//!   next hop's session   up, or just begun -> its default route stays
//!                        otherwise         -> it goes, as if the way out had no next hop
//!   none of the spread ways is left -> the first one that stands by, in the routers' own order; none at all -> no default route
//! ```
//! Only the host that holds a router's ways out watches them: packets of other hosts' guests come by it and it chooses anew.
use super::session::Verdict;
use crate::table::{Bytes, Table, Tables, put};
use crate::wanted::{Gateway, Gateway6, Mac, Out, Router, Wanted};
use crate::wire::untagged;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

/// Sessions of one router, and of one host (half the room of the table in `bpf/tables.h`).
const ROUTER_MAX: usize = 64;
const HOST_MAX: usize = 4096;

/// A next hop as one of our addresses knows it, on the wire of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hop {
    pub vni: u32,
    pub own: IpAddr,
    pub peer: IpAddr,
}

/// Whose it is, and the hardware address that speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub router: String,
    pub mac: Mac,
}

/// What both families say of a way out.
struct Side<'w> {
    network: &'w str,
    own: IpAddr,
    mac: Mac,
    next_hop: Option<IpAddr>,
    vtep: Option<Ipv4Addr>,
    spread: bool,
}

fn of4((gateway, spread): (&Gateway, bool)) -> Side<'_> {
    let Gateway { network, address, next_hop, mac, vtep, .. } = gateway;
    Side { network, own: (*address).into(), mac: *mac, next_hop: next_hop.map(Into::into), vtep: *vtep, spread }
}

fn of6((gateway, spread): (&Gateway6, bool)) -> Side<'_> {
    let Gateway6 { network, address, next_hop, mac, vtep, .. } = gateway;
    Side { network, own: (*address).into(), mac: *mac, next_hop: next_hop.map(Into::into), vtep: *vtep, spread }
}

/// The ways out of a router, family by family, each in the order in which they are wanted.
fn sides<'w>(wanted: &'w Wanted, router: &'w Router) -> [Vec<Side<'w>>; 2] {
    [wanted.gateways(router).map(of4).collect(), wanted.gateways6(router).map(of6).collect()]
}

/// The numbers of external networks' wires.
fn wires(wanted: &Wanted) -> HashMap<&str, u32> {
    let shared = untagged(wanted).map(|n| n.vni);
    let number = |vlan: u16, vni: u32| if vlan == 0 { shared.unwrap_or(vni) } else { vni };
    let external = wanted.networks.iter().filter(|n| n.external);
    external.map(|n| (n.id.as_str(), number(n.vlan, n.vni))).collect()
}

fn watched(wanted: &Wanted) -> impl Iterator<Item = &Router> {
    let names: BTreeSet<&str> = wanted.bfd.iter().map(String::as_str).collect();
    wanted.routers.iter().filter(move |r| names.contains(r.id.as_str()))
}

impl Side<'_> {
    /// The session that tells of it, if this host holds it.
    fn hop(&self, wires: &HashMap<&str, u32>, vtep: Option<Ipv4Addr>) -> Option<Hop> {
        let here = vtep.is_none() || self.vtep.is_none() || self.vtep == vtep;
        let vni = *wires.get(self.network).filter(|_| here)?;
        Some(Hop { vni, own: self.own, peer: self.next_hop.filter(|peer| *peer != self.own)? })
    }
}

/// All that this host, whose own end of tunnels is `vtep`, is to watch.
pub(crate) fn hops(wanted: &Wanted, vtep: Option<Ipv4Addr>) -> BTreeMap<Hop, Speaker> {
    let wires = wires(wanted);
    let mut out = BTreeMap::new();
    for router in watched(wanted) {
        let all = sides(wanted, router).into_iter().flatten();
        let found = all.filter_map(|side| Some((side.hop(&wires, vtep)?, side.mac))).take(ROUTER_MAX);
        for (hop, mac) in found {
            if out.len() < HOST_MAX {
                out.entry(hop).or_insert_with(|| Speaker { router: router.id.clone(), mac });
            }
        }
    }
    out
}

/// The rows that let them be heard.
pub(crate) fn draw(tables: &mut Tables, hops: &BTreeMap<Hop, Speaker>) {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    for hop in hops.keys() {
        let key = Bytes::new().u32(hop.vni).raw(&octets(hop.own)).raw(&octets(hop.peer));
        put(tables, Table::Watched, key, Bytes::new().u64(0));
    }
}

/// Of one family's ways, by their place: which have no next hop now, and which one steps in for those that are spread.
fn judge(sides: &[Side<'_>], lost: impl Fn(&Side<'_>) -> bool) -> (Vec<usize>, Option<usize>) {
    let fine = |side: &Side<'_>| side.next_hop.is_some() && !lost(side);
    let gone = sides.iter().enumerate().filter(|(_, s)| lost(s)).map(|(at, _)| at).collect();
    let left = sides.iter().any(|s| s.spread && fine(s));
    (gone, sides.iter().position(|s| !left && fine(s)))
}

/// What is wanted as it can be while some next hops are lost; `None`: as it is.
pub(crate) fn without_lost(
    wanted: &Wanted,
    vtep: Option<Ipv4Addr>,
    verdicts: &BTreeMap<Hop, Verdict>,
) -> Option<Wanted> {
    if !verdicts.values().any(|v| *v == Verdict::Lost) {
        return None;
    }
    let wires = wires(wanted);
    let lost = |side: &Side<'_>| {
        side.hop(&wires, vtep).is_some_and(|hop| verdicts.get(&hop).is_some_and(|v| *v == Verdict::Lost))
    };
    let mut out = wanted.clone();
    for router in watched(wanted) {
        let [four, six] = sides(wanted, router).map(|sides| judge(&sides, lost));
        let (Some(place), mine) = (out.routers.iter_mut().find(|r| r.id == router.id), &router.id) else { continue };
        // The first ways stand with the router, the others beside it, both families in one list.
        let first4 = place.gateway.as_mut().map(|g| (&mut g.next_hop, None));
        let ways4 = out.ways.iter_mut().filter(|w| w.router == *mine);
        let ways4 = ways4.filter_map(|w| match &mut w.out {
            Out::V4(g) => Some((&mut g.next_hop, Some(&mut w.balanced))),
            Out::V6(_) => None,
        });
        settle(first4.into_iter().chain(ways4), &four);
        let first6 = place.gateway6.as_mut().map(|g| (&mut g.next_hop, None));
        let ways6 = out.ways.iter_mut().filter(|w| w.router == *mine);
        let ways6 = ways6.filter_map(|w| match &mut w.out {
            Out::V6(g) => Some((&mut g.next_hop, Some(&mut w.balanced))),
            Out::V4(_) => None,
        });
        settle(first6.into_iter().chain(ways6), &six);
    }
    Some(out)
}

/// Takes the next hops of those that are gone, and lets one step in.
fn settle<'o, A: 'o>(
    places: impl Iterator<Item = (&'o mut Option<A>, Option<&'o mut bool>)>,
    (gone, steps_in): &(Vec<usize>, Option<usize>),
) {
    for (at, (next_hop, balanced)) in places.enumerate() {
        if gone.contains(&at) {
            *next_hop = None;
        }
        if *steps_in == Some(at)
            && let Some(balanced) = balanced
        {
            *balanced = true;
        }
    }
}

#[cfg(test)]
#[path = "way_tests.rs"]
mod tests;
