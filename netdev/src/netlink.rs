//! The only file that talks netlink: links, addresses and routes of one namespace, and its WireGuard devices.
//!
//! A [`Netlink`] belongs to the namespace of the thread that opened it, whoever uses it later. Requests are
//! synchronous: they run on threads of their own, never on a tokio worker.
use crate::error::{Error, Result, Step};
use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_packet_wireguard::{WireguardCmd, WireguardMessage};
use netlink_sys::{Socket, SocketAddr, protocols};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// One link as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
    /// `tun`, `veth`, `vxlan`, `bridge`; empty for hardware and `lo`.
    pub kind: String,
    pub up: bool,
    pub promiscuous: bool,
    pub mtu: u32,
    pub mac: [u8; 6],
    /// What it sends and gets goes by another namespace (a tunnel), or its other end is in one (a pair).
    pub elsewhere: bool,
    /// Frames and bytes that left towards the guest, and that came from it.
    pub sent: (u64, u64),
    pub received: (u64, u64),
}

/// What to change on a link; `None` leaves it.
#[derive(Debug, Default)]
pub struct Change<'a> {
    pub name: Option<&'a str>,
    pub alias: Option<&'a str>,
    pub up: Option<bool>,
    pub no_arp: bool,
    pub promiscuous: bool,
    pub mtu: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub bridge: Option<u32>,
    pub namespace: Option<BorrowedFd<'a>>,
}

pub struct Netlink(Conversation);

/// One socket, and the number of the last request.
struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    fn open(protocol: isize) -> Result<Self> {
        let mut socket = Socket::new(protocol).step("open netlink")?;
        socket.bind_auto().step("bind netlink")?;
        socket.connect(&SocketAddr::new(0, 0)).step("connect netlink")?;
        Ok(Self { socket, sequence: 0 })
    }

    fn request<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        message: M,
        flags: u16,
    ) -> io::Result<Vec<M>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut out = vec![0u8; packet.buffer_len()];
        packet.serialize(&mut out);
        self.socket.send(&out, 0)?;
        let mut answers = Vec::new();
        loop {
            let (data, _) = self.socket.recv_from_full()?;
            if self.collect(&data, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads one datagram. Whether the request is answered.
    fn collect<M: NetlinkDeserializable>(&self, data: &[u8], answers: &mut Vec<M>) -> io::Result<bool> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|r| r.len() >= 16) {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).max(16);
            at = at.saturating_add(length.next_multiple_of(4));
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(e) => return e.code.map_or(Ok(true), |_| Err(e.to_io())),
                NetlinkPayload::InnerMessage(m) => answers.push(m),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Speaks with the kernel's WireGuard devices of the calling thread's namespace.
pub struct WireguardNetlink {
    conversation: Conversation,
    family: u16,
}

impl WireguardNetlink {
    pub fn open() -> Result<Self> {
        let mut conversation = Conversation::open(protocols::NETLINK_GENERIC)?;
        let name = GenlCtrlAttrs::FamilyName(WireguardMessage::family_name().to_owned());
        let ask = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] });
        let answers = conversation.request(ask, NLM_F_ACK).step("find the kernel's WireGuard")?;
        let id = |a: &GenlCtrlAttrs| if let GenlCtrlAttrs::FamilyId(id) = a { Some(*id) } else { None };
        let family = answers.iter().flat_map(|m| &m.payload.nlas).find_map(id);
        let family = family.ok_or_else(|| Error::Config("the kernel's WireGuard has no number".into()))?;
        Ok(Self { conversation, family })
    }

    /// A question about a device, or an order to it.
    pub fn ask(&mut self, message: WireguardMessage) -> Result<Vec<WireguardMessage>> {
        let flags = if message.cmd == WireguardCmd::GetDevice { NLM_F_DUMP } else { NLM_F_ACK };
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(self.family);
        let answers = self.conversation.request(message, flags).step("speak with the kernel's WireGuard")?;
        Ok(answers.into_iter().map(|m| m.payload).collect())
    }
}

impl Netlink {
    /// A socket in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Conversation::open(protocols::NETLINK_ROUTE).map(Self)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.0.request(message, flags)
    }

    pub fn links(&mut self) -> Result<Vec<Link>> {
        let dump = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let found = self.request(dump, NLM_F_DUMP).step("list links")?;
        Ok(found
            .into_iter()
            .filter_map(|m| if let RouteNetlinkMessage::NewLink(l) = m { Some(link_of(l)) } else { None })
            .collect())
    }

    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|l| l.name == name))
    }

    fn create(&mut self, name: &str, kind: InfoKind, data: Option<InfoData>) -> Result<()> {
        let mut message = LinkMessage::default();
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(info)];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
            .step(format!("create {name}"))
    }

    /// A veth pair; the peer is made in `namespace` if given.
    pub fn create_veth(&mut self, name: &str, peer: &str, namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        other.attributes.extend(namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        self.create(name, InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(other))))
    }

    pub fn create_bridge(&mut self, name: &str) -> Result<()> {
        self.create(name, InfoKind::Bridge, None)
    }

    /// A VXLAN device whose network and far end are set packet by packet.
    pub fn create_overlay(&mut self, name: &str) -> Result<()> {
        let data = vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Learning(false),
            InfoVxlan::Port(VXLAN_PORT),
            InfoVxlan::UDPZeroCsumRX(true),
        ];
        self.create(name, InfoKind::Vxlan, Some(InfoData::Vxlan(data)))
    }

    /// A WireGuard device of the kernel. Its socket stays in this namespace, wherever the device goes.
    pub fn create_wireguard(&mut self, name: &str) -> Result<()> {
        self.create(name, InfoKind::Wireguard, None)
    }

    pub fn change(&mut self, index: u32, change: &Change<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = change.up {
            message.header.flags.set(LinkFlags::Up, up);
            message.header.change_mask |= LinkFlags::Up;
        }
        if change.no_arp {
            message.header.flags |= LinkFlags::Noarp;
            message.header.change_mask |= LinkFlags::Noarp;
        }
        if change.promiscuous {
            message.header.flags |= LinkFlags::Promisc;
            message.header.change_mask |= LinkFlags::Promisc;
        }
        let a = &mut message.attributes;
        a.extend(change.name.map(|n| LinkAttribute::IfName(n.to_owned())));
        a.extend(change.alias.map(|n| LinkAttribute::IfAlias(n.to_owned())));
        a.extend(change.mtu.map(LinkAttribute::Mtu));
        a.extend(change.mac.map(|m| LinkAttribute::Address(m.to_vec())));
        a.extend(change.bridge.map(LinkAttribute::Controller));
        a.extend(change.namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop).step(format!("change link {index}"))
    }

    /// Deletes a link; one that is gone is no error.
    pub fn delete(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Err(e) if e.raw_os_error() != Some(libc::ENODEV) => Err(e).step(format!("delete link {index}")),
            _ => Ok(()),
        }
    }

    /// IPv4 addresses of a link.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(Ipv4Addr, u8)>> {
        let dump = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.request(dump, NLM_F_DUMP).step("list addresses")?;
        let mut out = Vec::new();
        for message in found {
            let RouteNetlinkMessage::NewAddress(a) = message else { continue };
            if a.header.index != index {
                continue;
            }
            for attribute in &a.attributes {
                if let AddressAttribute::Local(IpAddr::V4(ip)) = attribute {
                    out.push((*ip, a.header.prefix_len));
                }
            }
        }
        Ok(out)
    }

    /// IPv6 addresses of a link that reach beyond it, in the order of the kernel.
    pub fn addresses6(&mut self, index: u32) -> Result<Vec<Ipv6Addr>> {
        let mut dump = AddressMessage::default();
        dump.header.family = AddressFamily::Inet6;
        let found = self.request(RouteNetlinkMessage::GetAddress(dump), NLM_F_DUMP).step("list addresses")?;
        let mut out = Vec::new();
        for message in found {
            let RouteNetlinkMessage::NewAddress(a) = message else { continue };
            if a.header.index != index || a.header.scope != AddressScope::Universe {
                continue;
            }
            out.extend(a.attributes.iter().filter_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V6(ip)) => Some(*ip),
                _ => None,
            }));
        }
        Ok(out)
    }

    fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    /// Adds an address; one that is there is no error.
    pub fn add_address(&mut self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> Result<()> {
        let address = address.into();
        let message = RouteNetlinkMessage::NewAddress(Self::address_message(index, address, prefix));
        match self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(e).step(format!("add {address}")),
            _ => Ok(()),
        }
    }

    pub fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(Self::address_message(index, address.into(), prefix));
        match self.request(message, NLM_F_ACK) {
            Err(e) if e.raw_os_error() != Some(libc::EADDRNOTAVAIL) => Err(e).step(format!("delete {address}")),
            _ => Ok(()),
        }
    }

    /// Routes by a next hop out of a link that were made with this mark.
    pub fn hops(&mut self, index: u32, mark: u32) -> Result<Vec<(Ipv4Net, Ipv4Addr)>> {
        let mut dump = RouteMessage::default();
        dump.header.address_family = AddressFamily::Inet;
        let found = self.request(RouteNetlinkMessage::GetRoute(dump), NLM_F_DUMP).step("list routes")?;
        let routes =
            found.into_iter().filter_map(|m| if let RouteNetlinkMessage::NewRoute(r) = m { Some(r) } else { None });
        Ok(routes.filter_map(|route| hop_of(&route, index, mark)).collect())
    }

    fn hop_message(index: u32, mark: u32, net: Ipv4Net, hop: Ipv4Addr) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = net.prefix_len();
        message.header.table = libc::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(net.network())),
            RouteAttribute::Gateway(RouteAddress::Inet(hop)),
            RouteAttribute::Oif(index),
            RouteAttribute::Priority(mark),
        ];
        message
    }

    /// A route by a next hop, with a mark (the metric) that tells whose it is. One that is there is no error, and neither is a hop
    /// that is on no link's network: there is nobody to go by.
    pub fn add_hop(&mut self, index: u32, mark: u32, net: Ipv4Net, hop: Ipv4Addr) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(Self::hop_message(index, mark, net, hop));
        match self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if !matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENETUNREACH)) => {
                Err(e).step(format!("add route {net} by {hop}"))
            }
            _ => Ok(()),
        }
    }

    pub fn delete_hop(&mut self, index: u32, mark: u32, net: Ipv4Net, hop: Ipv4Addr) -> Result<()> {
        let message = RouteNetlinkMessage::DelRoute(Self::hop_message(index, mark, net, hop));
        match self.request(message, NLM_F_ACK) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e).step(format!("delete route {net} by {hop}")),
            _ => Ok(()),
        }
    }

    /// An on-link route; one that is there is no error.
    pub fn add_link_route(&mut self, index: u32, net: Ipv4Addr, prefix: u8) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.table = libc::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(net)), RouteAttribute::Oif(index)];
        match self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(e).step(format!("add route {net}/{prefix}")),
            _ => Ok(()),
        }
    }
}

const VXLAN_PORT: u16 = 4789;

fn hop_of(route: &RouteMessage, index: u32, mark: u32) -> Option<(Ipv4Net, Ipv4Addr)> {
    let has = |wanted: &RouteAttribute| route.attributes.iter().any(|a| a == wanted);
    if !has(&RouteAttribute::Oif(index)) || !has(&RouteAttribute::Priority(mark)) {
        return None;
    }
    let (mut net, mut hop) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => net = Some(*ip),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop = Some(*ip),
            _ => {}
        }
    }
    Some((Ipv4Net::new(net?, route.header.destination_prefix_length).ok()?, hop?))
}

fn link_of(message: LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(n) => link.name = n,
            LinkAttribute::IfAlias(n) => link.alias = n,
            LinkAttribute::Mtu(m) => link.mtu = m,
            LinkAttribute::LinkNetNsId(_) => link.elsewhere = true,
            LinkAttribute::Address(a) => {
                if let Ok(mac) = a.try_into() {
                    link.mac = mac;
                }
            }
            LinkAttribute::Stats64(s) => {
                link.sent = (s.tx_packets, s.tx_bytes);
                link.received = (s.rx_packets, s.rx_bytes);
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}
