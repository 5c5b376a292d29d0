//! Arithmetic on addresses and blocks: pools, gaps, overlap, EUI-64. Pure.
//!
//! An address is handled as a number in its family, so that a /16 and a /64 are treated alike and
//! nothing here ever walks over all addresses of a block.
use ipnet::IpNet;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An inclusive range of addresses of one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub start: String,
    pub end: String,
}

/// The same as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub first: u128,
    pub last: u128,
}

pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// `None` when the number is not one of the family.
pub fn from_number(v4: bool, n: u128) -> Option<IpAddr> {
    if v4 { u32::try_from(n).ok().map(|n| IpAddr::V4(Ipv4Addr::from(n))) } else { Some(IpAddr::V6(Ipv6Addr::from(n))) }
}

/// All addresses of a block, network and broadcast included.
pub fn whole(net: &IpNet) -> Range {
    Range { first: number(net.network()), last: number(net.broadcast()) }
}

/// The addresses that hosts may have: without network and broadcast, except where a block has no such
/// (/31, /32, /127, /128). IPv6 has no broadcast; its first address is the routers' anycast address.
pub fn hosts(net: &IpNet) -> Range {
    let all = whole(net);
    let bits = net.max_prefix_len() - net.prefix_len();
    match (net, bits) {
        (_, 0 | 1) => all,
        (IpNet::V4(_), _) => Range { first: all.first + 1, last: all.last - 1 },
        (IpNet::V6(_), _) => Range { first: all.first + 1, last: all.last },
    }
}

/// The gateway that a subnet gets when the client names none.
pub fn default_gateway(net: &IpNet) -> Option<IpAddr> {
    let all = whole(net);
    if all.first == all.last {
        return None;
    }
    from_number(net.addr().is_ipv4(), all.first + 1)
}

/// All host addresses but the gateway's, as one or two pools.
pub fn default_pools(net: &IpNet, gateway: Option<IpAddr>) -> Vec<Pool> {
    let v4 = net.addr().is_ipv4();
    let all = hosts(net);
    let mut ranges = vec![all];
    if let Some(gateway) = gateway.map(number).filter(|g| (all.first..=all.last).contains(g)) {
        ranges.clear();
        if gateway > all.first {
            ranges.push(Range { first: all.first, last: gateway - 1 });
        }
        if gateway < all.last {
            ranges.push(Range { first: gateway + 1, last: all.last });
        }
    }
    ranges.iter().filter_map(|r| pool(v4, *r)).collect()
}

fn pool(v4: bool, range: Range) -> Option<Pool> {
    Some(Pool { start: from_number(v4, range.first)?.to_string(), end: from_number(v4, range.last)?.to_string() })
}

/// Pools as numbers; unreadable ones (there are none in the store) are left out.
pub fn ranges(pools: &[Pool]) -> Vec<Range> {
    pools
        .iter()
        .filter_map(|p| Some(Range { first: number(p.start.parse().ok()?), last: number(p.end.parse().ok()?) }))
        .filter(|r| r.first <= r.last)
        .collect()
}

pub fn in_ranges(ranges: &[Range], n: u128) -> bool {
    ranges.iter().any(|r| (r.first..=r.last).contains(&n))
}

/// How many addresses the ranges hold.
pub fn size(ranges: &[Range]) -> u128 {
    ranges.iter().map(|r| (r.last - r.first).saturating_add(1)).fold(0, u128::saturating_add)
}

/// Some address of the ranges, each equally likely.
pub fn pick(ranges: &[Range], rng: &mut impl Rng) -> Option<u128> {
    let total = size(ranges);
    if total == 0 {
        return None;
    }
    let mut at = rng.random_range(0..total);
    for range in ranges {
        let width = (range.last - range.first).saturating_add(1);
        if at < width {
            return Some(range.first + at);
        }
        at -= width;
    }
    None
}

/// The first address of the ranges that is not in `taken`, which is sorted.
pub fn first_gap(ranges: &[Range], taken: &[u128]) -> Option<u128> {
    for range in ranges {
        let mut next = range.first;
        let from = taken.partition_point(|t| *t < range.first);
        for used in &taken[from..] {
            if *used > next || *used > range.last {
                break;
            }
            next = used.checked_add(1)?;
        }
        if next <= range.last {
            return Some(next);
        }
    }
    None
}

pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The interface identifier that a host makes of its MAC (RFC 4291, appendix A), in `net`.
pub fn eui64(net: &IpNet, mac: &str) -> Option<IpAddr> {
    let IpNet::V6(net) = net else { return None };
    let octets: Vec<u8> = mac.split(':').map(|p| u8::from_str_radix(p, 16).ok()).collect::<Option<_>>()?;
    let [a, b, c, d, e, f] = octets.as_slice() else { return None };
    let id = u64::from_be_bytes([a ^ 2, *b, *c, 0xff, 0xfe, *d, *e, *f]);
    Some(IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | u128::from(id))))
}

/// A locally administered address in the range that OpenStack's tools know as theirs.
pub fn random_mac(rng: &mut impl Rng) -> String {
    let n: u32 = rng.random_range(1..0x00ff_ffff);
    let [_, d, e, f] = n.to_be_bytes();
    format!("fa:16:3e:{d:02x}:{e:02x}:{f:02x}")
}

/// The first block of `prefixlen` in `pool` blocks that overlaps none of `taken`.
///
/// Candidates jump past whatever they collide with, so the work grows with `taken`, not with the pool.
pub fn free_block(pool: &[IpNet], taken: &[IpNet], prefixlen: u8) -> Option<IpNet> {
    for block in pool {
        if prefixlen < block.prefix_len() || prefixlen > block.max_prefix_len() {
            continue;
        }
        let v4 = block.addr().is_ipv4();
        let step = 1u128.checked_shl(u32::from(block.max_prefix_len() - prefixlen))?;
        let all = whole(block);
        let mut at = all.first;
        while at <= all.last {
            let candidate = IpNet::new(from_number(v4, at)?, prefixlen).ok()?;
            let Some(hit) = taken.iter().find(|t| t.addr().is_ipv4() == v4 && overlap(t, &candidate)) else {
                return Some(candidate);
            };
            let past = whole(hit).last.checked_add(1)?;
            at = past.div_ceil(step).checked_mul(step)?.max(at.checked_add(step)?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    #[test]
    fn pools_leave_out_network_broadcast_and_gateway() {
        let pools = default_pools(&net("10.0.0.0/24"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(pools, vec![Pool { start: "10.0.0.2".into(), end: "10.0.0.254".into() }]);
        let pools = default_pools(&net("10.0.0.0/29"), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(pools.len(), 2);
        assert_eq!(default_pools(&net("10.0.0.0/31"), None)[0].start, "10.0.0.0");
        assert_eq!(default_pools(&net("fd00::/64"), Some("fd00::1".parse().unwrap()))[0].start, "fd00::2");
        assert_eq!(default_gateway(&net("10.0.0.8/32")), None);
    }

    #[test]
    fn interface_ids_follow_the_mac() {
        assert_eq!(eui64(&net("fd00::/64"), "fa:16:3e:00:00:01").unwrap().to_string(), "fd00::f816:3eff:fe00:1");
    }

    #[test]
    fn blocks_come_from_the_gaps() {
        let taken = [net("10.0.0.0/24"), net("10.0.2.0/23")];
        assert_eq!(free_block(&[net("10.0.0.0/16")], &taken, 24), Some(net("10.0.1.0/24")));
        assert_eq!(free_block(&[net("10.0.0.0/16")], &taken, 23), Some(net("10.0.4.0/23")));
        assert_eq!(free_block(&[net("10.0.0.0/24")], &taken, 26), None);
        assert_eq!(free_block(&[net("::/0")], &[], 64), Some(net("::/64")));
    }

    proptest! {
        #[test]
        fn a_gap_is_free_and_first(taken in proptest::collection::btree_set(0u128..40, 0..40), first in 0u128..20, width in 0u128..20) {
            let range = Range { first, last: first + width };
            let sorted: Vec<u128> = taken.iter().copied().collect();
            let expected = (range.first..=range.last).find(|n| !taken.contains(n));
            prop_assert_eq!(first_gap(&[range], &sorted), expected);
        }

        #[test]
        fn picks_stay_inside(first in 0u128..1000, width in 0u128..1000) {
            let ranges = [Range { first, last: first + width }, Range { first: 5000, last: 5001 }];
            let got = pick(&ranges, &mut rand::rng()).unwrap();
            prop_assert!(in_ranges(&ranges, got));
        }

        #[test]
        fn free_blocks_overlap_nothing(taken in proptest::collection::vec((0u32..65536, 20u8..=32), 0..20), len in 18u8..=30) {
            let taken: Vec<IpNet> = taken.iter().map(|(n, l)| IpNet::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), *l).unwrap().trunc()).collect();
            if let Some(block) = free_block(&[net("10.0.0.0/16")], &taken, len) {
                prop_assert!(net("10.0.0.0/16").contains(&block));
                prop_assert!(taken.iter().all(|t| !overlap(t, &block)));
            }
        }
    }
}
