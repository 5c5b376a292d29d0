//! Taps: which ports are copied, and where the copies go.
//!
//! ```text
//!   mirrors: {port, direction} -> up to four ports of this host, or {tunnel key, host}
//!   sinks:   {tunnel key} -> port that looks            vteps: the hosts that its copies come from
//! ```
use crate::picture::Picture;
use crate::table::{Bytes, Table, put};
use crate::wanted::{Looker, Tap};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

/// Copies of one frame; `MIRRORS` of `bpf/tables.h`.
const MIRRORS: usize = 4;
const TO_GUEST: u32 = 0;
const FROM_GUEST: u32 = 1;

/// Ports of this host that are looked at.
pub(crate) fn sources(taps: &[Tap]) -> HashSet<&str> {
    taps.iter().map(|t| t.port.as_str()).collect()
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let mut copies: BTreeMap<(u32, u32), Vec<Bytes>> = BTreeMap::new();
    for tap in &wanted.taps {
        let Some(&source) = picture.devices.get(&tap.port) else { continue };
        let Some(to) = row(picture, &tap.to) else { continue };
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
    }
}
