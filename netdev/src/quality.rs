//! Limits and marks as rows. The rates become costs of time, so that the programs (`bpf/quality.h`) only multiply.
use crate::picture::Picture;
use crate::table::{Bytes, Table, put};
use crate::wanted::{Limited, Quality, Rate};
use std::net::{IpAddr, Ipv6Addr};

const PORT: u32 = 1;
const ADDRESS: u32 = 2;
const ADDRESS6: u32 = 3;
const SECOND: u128 = 1_000_000_000;
/// Bytes that a cost is for.
const UNIT: u128 = 1 << 20;

/// What of a port's flags and marks follows from its quality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortQuality {
    pub limited_in: bool,
    pub limited_out: bool,
    pub tos: Option<u16>,
}

pub(crate) fn of_port(qualities: &[Quality], port: &str) -> PortQuality {
    let found = qualities.iter().find(|q| matches!(&q.of, Limited::Port(p) if p == port));
    found.map_or_else(PortQuality::default, |q| PortQuality {
        limited_in: limits(q.ingress),
        limited_out: limits(q.egress),
        tos: q.dscp.map(|d| u16::from(d & 63) << 2),
    })
}

fn limits(rate: Rate) -> bool {
    rate.kbps > 0 || rate.packets > 0
}

/// `amount` of something of which `rate` may pass in a second, as time.
fn time(amount: u128, rate: u128) -> u64 {
    if rate == 0 { 0 } else { u64::try_from((amount * SECOND).div_ceil(rate)).unwrap_or(u64::MAX) }
}

fn row(rate: Rate) -> Bytes {
    let (kbps, packets) = (u128::from(rate.kbps), u128::from(rate.packets));
    let row = Bytes::new().u64(time(UNIT * 8, kbps * 1000)).u64(time(u128::from(rate.burst_kbit), kbps));
    row.u64(time(1, packets)).u64(time(u128::from(rate.burst_packets), packets))
}

/// An address of IPv6 as a short name: there are few of routers, and their last words differ.
fn folded(ip: Ipv6Addr) -> [u8; 4] {
    let mut out = [0; 4];
    ip.octets().iter().enumerate().for_each(|(n, byte)| out[n % 4] ^= byte);
    out
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for quality in &wanted.qualities {
        let key = match &quality.of {
            Limited::Port(id) => {
                let Some(&ifindex) = picture.devices.get(id) else { continue };
                Bytes::new().u32(PORT).u32(ifindex)
            }
            Limited::Address(IpAddr::V4(ip)) => Bytes::new().u32(ADDRESS).ip(*ip),
            Limited::Address(IpAddr::V6(ip)) => Bytes::new().u32(ADDRESS6).raw(&folded(*ip)),
        };
        for (direction, rate) in [(0, quality.ingress), (1, quality.egress)] {
            if limits(rate) {
                let key = key.clone().u32(direction);
                put(&mut picture.tables, Table::Limits, key.clone(), row(rate));
                put(&mut picture.tables, Table::Buckets, key, Bytes::new().u64(0).u64(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_times() {
        let rate = Rate { kbps: 8000, burst_kbit: 4000, packets: 1000, burst_packets: 10 };
        let want = Bytes::new().u64(1_048_576_000).u64(500_000_000).u64(1_000_000).u64(10_000_000);
        assert_eq!(row(rate).0, want.0, "a megabyte a second: a microsecond a byte");
        assert_eq!(row(Rate::default()).0, vec![0; 32]);
        let fastest = row(Rate { kbps: u64::MAX, ..Rate::default() }).0;
        assert_ne!(fastest[..8], [0; 8], "a limit never becomes none");
        assert_eq!(of_port(&[], "p"), PortQuality::default());
    }
}
