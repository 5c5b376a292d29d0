//! The overlay: which tunnel ends may speak to us. One VXLAN device serves all networks; which network and
//! which host a frame goes to is written packet by packet from the address tables, so there is nothing to
//! set up per network or per host. VXLAN itself proves nothing: the underlay must be closed to others, or packets go encrypted
//! (`wireguard`).
use crate::picture::Picture;
use crate::table::{Bytes, Table, put};
use crate::wanted::Out;

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let remotes = wanted.remotes.iter().map(|r| r.vtep);
    let gateways = wanted.routers.iter().filter_map(|r| r.gateway.as_ref()?.vtep);
    let gateways6 = wanted.routers.iter().filter_map(|r| r.gateway6.as_ref()?.vtep);
    let further = wanted.ways.iter().filter_map(|w| match &w.out {
        Out::V4(g) => g.vtep,
        Out::V6(g) => g.vtep,
    });
    let peers = wanted.peers.iter().copied();
    for vtep in peers.chain(remotes).chain(gateways).chain(gateways6).chain(further) {
        if Some(vtep) != picture.vtep {
            put(&mut picture.tables, Table::Vteps, Bytes::new().ip(vtep), Bytes::new().u32(1));
        }
    }
}
