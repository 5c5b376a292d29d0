//! Packets as data, and as the bytes that a guest or another host would send.
use std::net::IpAddr;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Tcp {
        from: u16,
        to: u16,
        flags: u8,
    },
    Udp {
        from: u16,
        to: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
        id: u16,
    },
    /// An ICMP error about a packet.
    Error {
        kind: u8,
        code: u8,
        about: Box<Packet>,
    },
    Other(u8),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    Whole,
    First(u16),
    Later(u16),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub body: Body,
    pub part: Part,
    /// Ends within its layer-4 header.
    pub short: bool,
    /// IPv6: a hop-by-hop header stands before.
    pub extended: bool,
}

impl Packet {
    pub fn v6(&self) -> bool {
        self.source.is_ipv6()
    }

    pub fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp { .. } => TCP,
            Body::Udp { .. } => UDP,
            Body::Icmp { .. } | Body::Error { .. } => icmp(self.v6()),
            Body::Other(protocol) => *protocol,
        }
    }

    fn layer4(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.body {
            Body::Tcp { from, to, flags } => {
                out.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
                out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, *flags, 16, 0, 0, 0, 0, 0]);
            }
            Body::Udp { from, to } => {
                out.extend([from.to_be_bytes(), to.to_be_bytes(), 8u16.to_be_bytes(), [0, 0]].concat());
            }
            Body::Icmp { kind, code, id } => {
                out.extend([*kind, *code, 0, 0]);
                out.extend(id.to_be_bytes());
                out.extend([0, 1]);
            }
            Body::Error { kind, code, about } => {
                out.extend([*kind, *code, 0, 0, 0, 0, 0, 0]);
                let inside = about.packet();
                let most = if about.v6() { 48 } else { 28 };
                out.extend(&inside[..inside.len().min(most)]);
            }
            Body::Other(_) => out.extend([0xaa; 16]),
        }
        if self.short {
            out.truncate(6);
        }
        out
    }

    fn packet(&self) -> Vec<u8> {
        let body = if matches!(self.part, Part::Later(_)) { vec![0x55; 32] } else { self.layer4() };
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = u16::try_from(20 + body.len()).unwrap();
                let (id, fragment) = match self.part {
                    Part::Whole => (7u16, 0u16),
                    Part::First(id) => (id, 0x2000),
                    Part::Later(id) => (id, 185),
                };
                let mut out = vec![0x45, 0];
                out.extend([length.to_be_bytes(), id.to_be_bytes(), fragment.to_be_bytes()].concat());
                out.extend([64, self.protocol(), 0, 0]);
                out.extend([source.octets(), destination.octets()].concat());
                out.extend(body);
                out
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut before = Vec::new();
                let mut next = self.protocol();
                if let Part::First(id) | Part::Later(id) = self.part {
                    let offset: u16 = if matches!(self.part, Part::First(_)) { 1 } else { 185 << 3 };
                    before.extend([next, 0]);
                    before.extend(offset.to_be_bytes());
                    before.extend(u32::from(id).to_be_bytes());
                    next = 44;
                }
                if self.extended {
                    before = [vec![next, 0, 1, 4, 0, 0, 0, 0], before].concat();
                    next = 0;
                }
                let length = u16::try_from(before.len() + body.len()).unwrap();
                let mut out = vec![0x60, 0, 0, 0];
                out.extend(length.to_be_bytes());
                out.extend([next, 64]);
                out.extend([source.octets(), destination.octets()].concat());
                out.extend(before);
                out.extend(body);
                out
            }
            both => panic!("{both:?}"),
        }
    }

    pub fn frame(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let kind: u16 = if self.v6() { 0x86dd } else { 0x0800 };
        let mut out = [to, from].concat();
        out.extend(kind.to_be_bytes());
        out.extend(self.packet());
        out
    }

    /// What the other side might answer.
    pub fn answer(&self) -> Self {
        let body = match &self.body {
            Body::Tcp { from, to, flags } => Body::Tcp { from: *to, to: *from, flags: *flags | ACK },
            Body::Udp { from, to } => Body::Udp { from: *to, to: *from },
            Body::Icmp { kind, code, id } => {
                let kind = match (self.v6(), kind) {
                    (false, 8) => 0,
                    (true, 128) => 129,
                    (_, kind) => *kind,
                };
                Body::Icmp { kind, code: *code, id: *id }
            }
            other => other.clone(),
        };
        Self { source: self.destination, destination: self.source, body, ..self.clone() }
    }
}

pub fn icmp(v6: bool) -> u8 {
    if v6 { 58 } else { 1 }
}
