//! Port forwarding: ranges of ports as prefixes of their bits, so that a range costs a few rows and not one for each
//! port. The translation itself is in `bpf/forward.h`.
use crate::nat::external;
use crate::picture::Picture;
use crate::router::{gateway_here, router_name};
use crate::table::{Bytes, Table, put};
use crate::wanted::Forward;
use std::net::Ipv4Addr;

const FORWARD: u32 = 3;

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for forward in &wanted.forwards {
        let router = wanted.routers.iter().find(|r| r.id == forward.router);
        // One host answers for the address, whose guests may be on many.
        if router.and_then(|r| r.gateway.as_ref()).is_none_or(|g| !gateway_here(g, picture.vtep)) {
            continue;
        }
        let name = router_name(&forward.router);
        let row = Bytes::new().u32(FORWARD).ip(Ipv4Addr::UNSPECIFIED).u64(name).mac(forward.mac.0);
        let key = external(picture, &forward.network, forward.address);
        let known = picture.tables.get(&Table::Externals).and_then(|t| t.get(&key.0)).cloned();
        if known.as_ref().is_some_and(|k| *k != row.0) {
            picture.problem(None, format!("forwarding {}: {} is in use", forward.id, forward.address));
            continue;
        }
        if known.is_none() {
            put(&mut picture.tables, Table::Externals, key, row);
        }
        draw_ports(picture, forward);
    }
}

fn draw_ports(picture: &mut Picture<'_>, forward: &Forward) {
    let (first, last) = forward.ports;
    for (port, length) in prefixes(first, last) {
        let address = external(picture, &forward.network, forward.address);
        let key = Bytes::new().u32(80 + length).raw(&address.0).u8(forward.protocol).u8(0).raw(&port.to_be_bytes());
        let value = Bytes::new().ip(forward.fixed).u16(first).u16(forward.inside).u32(u32::from(forward.to_one));
        if !put(&mut picture.tables, Table::Forwards, key, value) {
            picture.problem(None, format!("forwarding {}: port {port} leads elsewhere already", forward.id));
        }
    }
}

/// The fewest prefixes (value, length) that cover the ports from `first` to `last`.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let mut out = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last));
    while at <= end {
        // The largest block that begins here and does not pass the end.
        let free = if at == 0 { 16 } else { at.trailing_zeros().min(16) };
        let bits = (0..=free).rev().find(|b| at + (1 << b) - 1 <= end).unwrap_or(0);
        out.push((u16::try_from(at).unwrap_or(u16::MAX), 16 - bits));
        at += 1 << bits;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn prefixes_cover_a_range_exactly(a in 0u16.., b in 0u16..) {
            let (first, last) = (a.min(b), a.max(b));
            let mut next = u32::from(first);
            for (port, length) in prefixes(first, last) {
                assert_eq!(u32::from(port), next);
                assert_eq!(u32::from(port) % (1 << (16 - length)), 0, "aligned");
                next += 1 << (16 - length);
            }
            assert_eq!(next, u32::from(last) + 1);
            assert!(prefixes(first, last).len() <= 30);
        }
    }
}
