//! The thread that answers datagrams: it takes frames from the packet socket of the node's namespace, and asks other name
//! servers from the namespace that it was started in, the host's own.
use super::answer::{Transport, Verdict, judge};
use super::forward::{Asker, Waiting};
use super::rate::Rates;
use super::wire::{frame, read};
use crate::error::{Result, Step};
use crate::packet::{Bindings, packet_socket, send};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt::RcvBufForce};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Name servers of the host, in order.
pub(crate) type Forwarders = Arc<RwLock<Vec<SocketAddr>>>;

const ETH_P_ALL: u16 = 0x0003;
const FRAME_MAX: usize = 2048;
/// Frames that are taken before answers are looked for: most of a flood is thrown away here, cheaply.
const TURN: usize = 4096;
/// Bytes of frames that may wait, so that a flood from one port leaves room for others' questions.
const ROOM: usize = 8 << 20;
/// Milliseconds between looks at the time when nothing waits.
const TICK: u16 = 10_000;

/// The socket that questions come by, in the calling thread's namespace.
pub(crate) fn socket(end: u32) -> Result<OwnedFd> {
    let fd = packet_socket(end, ETH_P_ALL)?;
    setsockopt(&fd, RcvBufForce, &ROOM).step("make room for questions")?;
    Ok(fd)
}

pub(crate) struct Resolver {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    pub fn start(socket: OwnedFd, bindings: Bindings, forwarders: Forwarders, rates: Rates) -> Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).step("open eventfd")?);
        let stopped = stop.clone();
        let work = move || {
            let mut desk = Desk { socket, bindings, forwarders, waiting: Waiting::default(), rates };
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
    rates: Rates,
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
        if !self.rates.lock().may(client.name, &self.bindings.names) {
            return;
        }
        let id = asked.message.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
        let asker = Asker { to: client.mac, address: asked.address, port: asked.port, id, client };
        match judge(&asker.client.names, asked.message, Transport::Datagram) {
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

    fn tell(&self, to: &Asker, answer: &[u8]) {
        if let Err(e) = send(&self.socket, to.client.name, &frame(to, answer)) {
            tracing::debug!(name = to.client.name, error = %e, "answer not sent");
        }
    }
}
