//! Names for guests: every host tells its own guests what is called how on their network, and asks the host's name
//! servers about all else.
//!
//! ```text
//!   guest --UDP--> 169.254.169.253:53 --from_guest: its groups--> station 02:71:<network> --> dns0|dns1 --+
//!                                 (or its router's leg --route to 169.254.169.253--> the same station)    |
//!   tap <--(mark of the agent)-- answer <-- own names: zone.rs, answer.rs <------------ packet socket <----+
//!                                   ^                                                    serve.rs: rate limit
//!                                   '-- forward.rs: the host's name servers, asked from the host's own namespace
//! ```
//! The address is the same on every network, so DHCP can say it without anybody keeping an address free for it; the
//! station's hardware address says which network a question came from, even where tenants' addresses overlap.
//! What guests send is hostile: it is read by a bounded parser, each port has a rate and a share of the questions that
//! are under way, and a network's names are told to that network alone.
//!
//! There is no TCP: what does not fit into 1232 bytes is cut and says so. Nothing is kept: the host's name servers do.
mod answer;
mod book;
mod forward;
mod serve;

pub(crate) use book::{Shelf, book};
pub(crate) use serve::{Forwarders, Resolver, socket};

use crate::error::{Error, Result};
use crate::netlink::{Change, Netlink};
use crate::picture::Picture;
use crate::router::{leg_net, router_name};
use crate::table::{Bytes, Hop, Table, put};
use std::net::Ipv4Addr;

/// Where guests ask.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// What programs give to `dns0` comes out of `dns1`, where the packet socket is.
const NAMES_LINK: &str = "dns0";
const NAMES_END: &str = "dns1";

/// The station of a network's resolver.
pub(crate) fn station(vni: u32) -> [u8; 6] {
    let [a, b, c, d] = vni.to_be_bytes();
    [0x02, 0x71, a, b, c, d]
}

/// The network whose resolver a frame was sent to.
fn network_of(mac: [u8; 6]) -> Option<u32> {
    (mac[..2] == [0x02, 0x71]).then(|| u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]))
}

/// Makes the link unless it is there; gives the indexes of both ends.
pub(crate) fn link(netlink: &mut Netlink) -> Result<(u32, u32)> {
    if netlink.link(NAMES_LINK)?.is_none() {
        netlink.create_veth(NAMES_LINK, NAMES_END, None)?;
    }
    let mut index = |name: &str| -> Result<u32> {
        let index = netlink.link(name)?.ok_or_else(|| Error::NoPort(name.into()))?.index;
        netlink.change(index, &Change { up: Some(true), no_arp: true, ..Change::default() })?;
        Ok(index)
    };
    Ok((index(NAMES_LINK)?, index(NAMES_END)?))
}

/// Rows by which guests reach their resolver: on the link, by the address that DHCP is said to come from where no
/// router has it, and through routers.
pub(crate) fn draw(picture: &mut Picture<'_>, resolver_if: u32) {
    let wanted = picture.wanted;
    if resolver_if == 0 {
        return;
    }
    let hop = Hop::Local(resolver_if);
    for zone in &wanted.zones {
        let Some(&network) = picture.networks.get(zone.network.as_str()) else { continue };
        let (vni, mac) = (network.vni, station(network.vni));
        put(&mut picture.tables, Table::Stations, Bytes::new().u32(vni).mac(mac), hop.bytes(mac));
        let legs = || wanted.routers.iter().flat_map(|r| &r.interfaces).filter(|l| l.network == network.id);
        let servers = network.subnets.iter().filter(|s| s.dhcp).filter_map(|s| s.dhcp_server);
        let free = servers.filter(|s| !legs().any(|l| l.address == *s));
        for ip in free.chain([RESOLVER_ADDRESS]) {
            put(&mut picture.tables, Table::Addresses, Bytes::new().u32(vni).ip(ip), hop.bytes(mac));
        }
    }
    for router in &wanted.routers {
        let known = |network: &str| wanted.zones.iter().any(|z| z.network == network);
        let leg = router.interfaces.iter().find(|l| known(&l.network) && leg_net(l).is_some());
        let Some((leg, (address, _))) = leg.and_then(|l| Some((l, leg_net(l)?))) else { continue };
        let Some(&network) = picture.networks.get(leg.network.as_str()) else { continue };
        let none = Ipv4Addr::UNSPECIFIED;
        let key = Bytes::new().u32(64 + 32).u64(router_name(&router.id)).ip(RESOLVER_ADDRESS);
        let row = Bytes::new().u32(1).u32(network.vni).ip(none).ip(address).ip(none).raw(&leg.mac.0).u16(network.mtu);
        // Whatever scope a guest is in, it asks its own host.
        put(&mut picture.tables, Table::Routes, key, row.u32(0));
    }
}
