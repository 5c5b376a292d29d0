//! The thread that answers: it takes frames from the packet socket of the node's namespace, and asks other name
//! servers from the namespace that it was started in, the host's own.
use super::answer::{Verdict, judge};
use super::forward::{Asker, Waiting};
use super::{RESOLVER_ADDRESS, network_of};
use crate::dhcp::checksum;
use crate::error::{Result, Step};
use crate::packet::{Bindings, packet_socket, send};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt::RcvBufForce};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// Name servers of the host, in order.
pub(crate) type Forwarders = Arc<RwLock<Vec<SocketAddr>>>;

const ETH_P_IP: u16 = 0x0800;
const FRAME_MAX: usize = 2048;
/// Frames that are taken before answers are looked for: most of a flood is thrown away here, cheaply.
const TURN: usize = 4096;
/// Bytes of frames that may wait, so that a flood from one port leaves room for others' questions.
const ROOM: usize = 8 << 20;
/// Milliseconds between looks at the time when nothing waits.
const TICK: u16 = 10_000;
/// Questions of one port: a second, and at once.
const RATE: f64 = 100.0;
const BURST: f64 = 200.0;
/// Buckets that are kept before those of ports that are gone are dropped.
const BUCKETS: usize = 4096;

/// The socket that questions come by, in the calling thread's namespace.
pub(crate) fn socket(end: u32) -> Result<OwnedFd> {
    let fd = packet_socket(end, ETH_P_IP)?;
    setsockopt(&fd, RcvBufForce, &ROOM).step("make room for questions")?;
    Ok(fd)
}

pub(crate) struct Resolver {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    pub fn start(socket: OwnedFd, bindings: Bindings, forwarders: Forwarders) -> Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).step("open eventfd")?);
        let stopped = stop.clone();
        let work = move || {
            let mut desk = Desk { socket, bindings, forwarders, waiting: Waiting::default(), buckets: HashMap::new() };
            desk.serve(&stopped);
        };
        let thread = std::thread::Builder::new().name("names".into()).spawn(work).step("start the resolver")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

struct Desk {
    socket: OwnedFd,
    bindings: Bindings,
    forwarders: Forwarders,
    waiting: Waiting,
    buckets: HashMap<u32, (f64, Instant)>,
}

/// What a question's frame says.
struct Asked<'f> {
    vni: u32,
    mac: [u8; 6],
    address: Ipv4Addr,
    port: u16,
    message: &'f [u8],
}

/// The question in a frame: Ethernet, IPv4, UDP to port 53 of the resolver, nothing cut.
fn read(frame: &[u8]) -> Option<Asked<'_>> {
    let vni = network_of(*frame.first_chunk()?)?;
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes(*ip.get(2..)?.first_chunk()?));
    let fragment = u16::from_be_bytes(*ip.get(6..)?.first_chunk()?) & 0x3fff;
    let to_us = ip.get(16..20)? == RESOLVER_ADDRESS.octets();
    if frame[12..14] != ETH_P_IP.to_be_bytes()
        || ip[0] >> 4 != 4
        || header < 20
        || fragment != 0
        || ip[9] != 17
        || !to_us
    {
        return None;
    }
    let udp = ip.get(header..total)?;
    let word = |at: usize| Some(u16::from_be_bytes(*udp.get(at..)?.first_chunk()?));
    if word(2)? != 53 || word(0)? == 0 {
        return None;
    }
    Some(Asked {
        vni,
        mac: *frame.get(6..)?.first_chunk()?,
        address: Ipv4Addr::from(*ip.get(12..)?.first_chunk::<4>()?),
        port: word(0)?,
        message: udp.get(8..usize::from(word(4)?))?,
    })
}

/// The answer's frame, from the resolver of the asker's network.
fn frame(to: &Asker, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let (from, address) = (RESOLVER_ADDRESS.octets(), to.address.octets());
    let mut ip =
        [&[0x45, 0][..], &(length + 20).to_be_bytes(), &[0, 0, 0x40, 0, 64, 17, 0, 0], &from, &address].concat();
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = [&53u16.to_be_bytes()[..], &to.port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat();
    let pseudo = [&from[..], &address, &[0, 17], &length.to_be_bytes()].concat();
    let sum = match checksum(&[&pseudo, &udp]) {
        0 => 0xffff,
        s => s,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&to.to[..], &to.client.station, &ETH_P_IP.to_be_bytes(), &ip, &udp].concat()
}

impl Desk {
    fn serve(&mut self, stop: &EventFd) {
        let mut buffer = vec![0u8; FRAME_MAX];
        loop {
            let patience = self.waiting.patience(TICK);
            let mut wait: Vec<PollFd<'_>> = [self.socket.as_fd(), stop.as_fd()]
                .into_iter()
                .chain(self.waiting.list.iter().map(|p| p.socket.as_fd()))
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            match poll(&mut wait, PollTimeout::from(patience)) {
                Err(Errno::EINTR) => continue,
                Err(e) => return tracing::error!(error = %e, "resolver ends"),
                Ok(_) => {}
            }
            let any = |at: usize| wait.get(at).is_some_and(|w| w.any() == Some(true));
            let (asked, stopped) = (any(0), any(1));
            drop(wait);
            if stopped {
                return;
            }
            for _ in 0..if asked { TURN } else { 0 } {
                let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else { break };
                let length = length.min(FRAME_MAX);
                self.question(&buffer[..length]);
            }
            let servers = self.forwarders.read().clone();
            let mut done = self.waiting.collect();
            done.extend(self.waiting.retry(&servers));
            for (asker, answer) in done {
                self.tell(&asker, &answer);
            }
        }
    }

    fn question(&mut self, frame: &[u8]) {
        let Some(asked) = read(frame) else { return };
        let book = self.bindings.names.read().clone();
        let Some(client) = book.client(asked.vni, asked.mac, asked.address).cloned() else { return };
        if !self.may(client.name) {
            return;
        }
        let id = asked.message.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
        let asker = Asker { to: client.mac, address: asked.address, port: asked.port, id, client };
        match judge(&asker.client.names, asked.message) {
            Verdict::Silence => {}
            Verdict::Answer(answer) => self.tell(&asker, &answer),
            Verdict::Ask(question) => {
                let servers = self.forwarders.read().clone();
                if let Some(answer) = self.waiting.ask(&servers, asker.clone(), question) {
                    self.tell(&asker, &answer);
                }
            }
        }
    }

    /// Whether this port has not asked too much.
    fn may(&mut self, name: u32) -> bool {
        let now = Instant::now();
        if self.buckets.len() > BUCKETS {
            let book = self.bindings.names.read().clone();
            self.buckets.retain(|name, _| book.has(*name));
        }
        let (left, since) = self.buckets.entry(name).or_insert((BURST, now));
        *left = (*left + now.duration_since(*since).as_secs_f64() * RATE).min(BURST);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }

    fn tell(&self, to: &Asker, answer: &[u8]) {
        if let Err(e) = send(&self.socket, to.client.name, &frame(to, answer)) {
            tracing::debug!(name = to.client.name, error = %e, "answer not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Client, Names};
    use super::*;
    use proptest::prelude::*;

    fn asker() -> Asker {
        let client =
            Client { name: 7, mac: [2; 6], station: super::super::station(100), names: Arc::new(Names::default()) };
        let (address, port) = (Ipv4Addr::new(10, 0, 0, 11), 4000);
        Asker { client: Arc::new(client), to: [2; 6], address, port, id: 9 }
    }

    #[test]
    fn a_question_is_read_and_its_answer_can_be_checked() {
        let answer = frame(&asker(), b"abc");
        assert_eq!(checksum(&[&answer[14..34]]), 0);
        let pseudo = [&answer[26..34], &[0, 17], &answer[38..40]].concat();
        assert_eq!(checksum(&[&pseudo, &answer[34..]]), 0);
        // The same frame the other way round is a question.
        let mut question = answer.clone();
        question[..6].copy_from_slice(&super::super::station(100));
        question[6..12].copy_from_slice(&[2; 6]);
        question[26..30].copy_from_slice(&[10, 0, 0, 11]);
        question[30..34].copy_from_slice(&RESOLVER_ADDRESS.octets());
        question[34..38].copy_from_slice(&[0x0f, 0xa0, 0, 53]);
        let asked = read(&question).unwrap();
        assert_eq!((asked.vni, asked.mac, asked.port, asked.message), (100, [2; 6], 4000, &b"abc"[..]));
        assert!(read(&answer).is_none(), "not to us");
        question[20] = 0x20;
        assert!(read(&question).is_none(), "a fragment");
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_fall_over(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), ours in any::<bool>()) {
            if ours && bytes.len() > 34 {
                bytes[..2].copy_from_slice(&[2, 0x71]);
                bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
                bytes[23] = 17;
                bytes[30..34].copy_from_slice(&RESOLVER_ADDRESS.octets());
            }
            let _ = read(&bytes);
        }
    }
}
