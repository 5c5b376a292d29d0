//! Local IPs: addresses that mean a guest of this host, whichever host asks. The translation is in `bpf/local.h`.
use crate::picture::Picture;
use crate::table::{Bytes, Hop, Table, put};
use crate::wanted::Wanted;
use std::collections::BTreeSet;

/// Networks of this host in which an address is translated: their ports' answers are looked at.
pub(crate) fn networks(wanted: &Wanted) -> BTreeSet<&str> {
    let behind: BTreeSet<&str> = wanted.locals.iter().filter(|l| l.translates).map(|l| l.port.as_str()).collect();
    wanted.ports.iter().filter(|p| behind.contains(p.id.as_str())).map(|p| p.network.as_str()).collect()
}

/// After the legs of routers, which no guest replaces, and before everything else that has an address.
pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for local in &wanted.locals {
        let Some(port) = wanted.ports.iter().find(|p| p.id == local.port) else { continue };
        let Some(&ifindex) = picture.devices.get(&port.id) else { continue };
        let Some(vni) = picture.networks.get(port.network.as_str()).map(|n| n.vni) else { continue };
        let key = Bytes::new().u32(vni).ip(local.address);
        let hop =
            if local.translates { Hop::local_ip(ifindex, port.mac.0) } else { Hop::Local(ifindex).bytes(port.mac.0) };
        if !put(&mut picture.tables, Table::Addresses, key.clone(), hop) {
            picture.problem(Some(&port.id), format!("local IP {} is in use on the network", local.address));
            continue;
        }
        if local.translates {
            put(&mut picture.tables, Table::Locals, key, Bytes::new().ip(local.fixed));
        } else {
            // It has the address as its own, so it may speak by it.
            let macs = (0..4).fold(Bytes::new(), |row, _| row.raw(&port.mac.0));
            let key = Bytes::new().u32(64).u32(ifindex).ip(local.address);
            put(&mut picture.tables, Table::Sources, key, macs);
        }
    }
}
