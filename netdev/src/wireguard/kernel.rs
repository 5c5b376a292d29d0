//! The kernel's WireGuard: what is planned as messages of its netlink family, and what it says of a device.
use super::PrivateKey;
use super::plan::{Device, Step};
use crate::error::Result;
use crate::netlink::WireguardNetlink;
use crate::wanted::PublicKey;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use std::net::IpAddr;

/// Peers of one message: some 100 bytes each.
const AT_ONCE: usize = 64;

/// The calling thread must be in the device's namespace.
pub fn read(name: &str) -> Result<Device> {
    let ask = WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfName(name.to_owned())],
    };
    Ok(device(&WireguardNetlink::open()?.ask(ask)?))
}

/// The calling thread must be in the device's namespace.
pub fn write(name: &str, steps: &[Step]) -> Result<()> {
    let mut netlink = WireguardNetlink::open()?;
    for message in messages(name, steps) {
        netlink.ask(message)?;
    }
    Ok(())
}

/// A peer may be told in several parts.
fn device(answers: &[WireguardMessage]) -> Device {
    let mut device = Device::default();
    for attribute in answers.iter().flat_map(|m| &m.attributes) {
        match attribute {
            WireguardAttribute::PrivateKey(key) if *key != [0; 32] => device.key = Some(PrivateKey::new(*key)),
            WireguardAttribute::ListenPort(port) => device.port = *port,
            WireguardAttribute::Peers(peers) => peers.iter().for_each(|peer| note(&mut device, peer)),
            _ => {}
        }
    }
    device
}

fn note(device: &mut Device, peer: &WireguardPeer) {
    let key = peer.iter().find_map(|a| if let WireguardPeerAttribute::PublicKey(k) = a { Some(*k) } else { None });
    let Some(key) = key else { return };
    let found = device.peers.entry(PublicKey(key)).or_default();
    for attribute in peer.iter() {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => found.endpoint = Some(*endpoint),
            WireguardPeerAttribute::AllowedIps(all) => found.allowed.extend(all.iter().filter_map(allowed)),
            _ => {}
        }
    }
}

fn allowed(from: &WireguardAllowedIp) -> Option<(IpAddr, u8)> {
    let ip = from.0.iter().find_map(|a| if let WireguardAllowedIpAttr::IpAddr(ip) = a { Some(*ip) } else { None })?;
    let prefix = from.0.iter().find_map(|a| if let WireguardAllowedIpAttr::Cidr(p) = a { Some(*p) } else { None })?;
    Some((ip, prefix))
}

fn messages(name: &str, steps: &[Step]) -> Vec<WireguardMessage> {
    let order = |attributes: Vec<WireguardAttribute>| WireguardMessage {
        cmd: WireguardCmd::SetDevice,
        attributes: std::iter::once(WireguardAttribute::IfName(name.to_owned())).chain(attributes).collect(),
    };
    let own = steps.iter().filter_map(|step| match step {
        Step::Key(key) => Some(WireguardAttribute::PrivateKey(key.bytes())),
        Step::Port(port) => Some(WireguardAttribute::ListenPort(*port)),
        Step::Remove(_) | Step::Put(..) => None,
    });
    let own: Vec<WireguardAttribute> = own.collect();
    let peers: Vec<WireguardPeer> = steps.iter().filter_map(peer).collect();
    let mut messages = Vec::new();
    if !own.is_empty() {
        messages.push(order(own));
    }
    messages.extend(peers.chunks(AT_ONCE).map(|some| order(vec![WireguardAttribute::Peers(some.to_vec())])));
    messages
}

fn peer(step: &Step) -> Option<WireguardPeer> {
    match step {
        Step::Key(_) | Step::Port(_) => None,
        Step::Remove(key) => Some(WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(key.0),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ])),
        Step::Put(key, peer) => {
            let inside = peer.allowed.iter().map(|(ip, prefix)| {
                let family = if ip.is_ipv4() { WireguardAddressFamily::Ipv4 } else { WireguardAddressFamily::Ipv6 };
                WireguardAllowedIp(vec![
                    WireguardAllowedIpAttr::Family(family),
                    WireguardAllowedIpAttr::IpAddr(*ip),
                    WireguardAllowedIpAttr::Cidr(*prefix),
                ])
            });
            let mut attributes = vec![
                WireguardPeerAttribute::PublicKey(key.0),
                WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
            ];
            attributes.extend(peer.endpoint.map(WireguardPeerAttribute::Endpoint));
            attributes.push(WireguardPeerAttribute::AllowedIps(inside.collect()));
            Some(WireguardPeer(attributes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanted::Tunnel;
    use crate::wireguard::plan;
    use netlink_packet_core::{Emitable, ParseableParametrized};
    use netlink_packet_generic::GenlHeader;
    use std::net::Ipv4Addr;

    /// Through the bytes that the kernel gets and gives.
    fn there_and_back(message: &WireguardMessage) -> WireguardMessage {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        WireguardMessage::parse_with_param(&bytes, GenlHeader { cmd: message.cmd.into(), version: 1 }).unwrap()
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let tunnel =
            |n: u8| Tunnel { vtep: Ipv4Addr::new(192, 0, 2, n), key: PrivateKey::new([n; 32]).public(), port: 51820 };
        let tunnels: Vec<Tunnel> = (2..202).map(tunnel).collect();
        let (wanted, _) = plan::wanted(&PrivateKey::new([1; 32]), 51821, Ipv4Addr::new(192, 0, 2, 1), &tunnels);
        let orders = messages("wg0", &plan::steps(&wanted, &Device::default()));
        assert_eq!(orders.len(), 1 + 200_usize.div_ceil(AT_ONCE));
        let said: Vec<WireguardMessage> = orders.iter().map(there_and_back).collect();
        assert_eq!(said, orders);
        assert_eq!(device(&said), wanted);
        let gone = messages("wg0", &[Step::Remove(tunnels[0].key)]);
        let flags = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);
        assert!(matches!(&gone[0].attributes[1], WireguardAttribute::Peers(p) if p[0].contains(&flags)), "{gone:?}");
    }
}
