//! Ports that are seen in a network which is not their own: networks that are parts of one know each other in parts
//! (a shared server is seen by all, a customer by none but the server).
//!
//! A port sends into its own network and is found in every one that sees it; so who may speak to whom is only a matter
//! of rows, on this host and, since the tunnel carries the sender's network, on all others.
use crate::picture::Picture;
use crate::table::{Bytes, Hop, Table, put};
use crate::v6::{link_local, speaks};
use crate::wanted::Wanted;
use std::net::IpAddr;

/// Whether the ports of a network are kept apart from each other.
pub(crate) fn is_apart(wanted: &Wanted, network: &str) -> bool {
    wanted.views.iter().any(|v| v.apart && v.network == network)
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for view in &wanted.views {
        let Some(&network) = picture.networks.get(view.network.as_str()) else { continue };
        let vni = network.vni;
        for port in wanted.ports.iter().filter(|p| view.ports.contains(&p.id)) {
            let Some(&ifindex) = picture.devices.get(&port.id) else { continue };
            let hop = Hop::Local(ifindex).bytes(port.mac.0);
            put(&mut picture.tables, Table::Stations, Bytes::new().u32(vni).mac(port.mac.0), hop.clone());
            let own = speaks(network).then(|| IpAddr::V6(link_local(port.mac)));
            for address in port.fixed.iter().map(|f| f.address).chain(own) {
                let (table, key) = match address {
                    IpAddr::V4(ip) => (Table::Addresses, Bytes::new().u32(vni).ip(ip)),
                    IpAddr::V6(ip) => (Table::Addresses6, Bytes::new().u32(vni).raw(&ip.octets())),
                };
                put(&mut picture.tables, table, key, hop.clone());
            }
        }
    }
}
