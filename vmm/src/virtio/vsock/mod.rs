//! virtio-vsock: connections between programs on the host and in the guest, without a network.
//!
//! ```text
//!   host program ── unix socket ──► "CONNECT 52\n"  ─► guest's port 52    "OK <port>\n" when the guest accepts
//!                                   "ACCEPT 1024\n" ─► waits until the guest connects to port 1024 of the host (CID 2)
//! ```
//! Both directions come in through one listening socket that this process was given: it could not open another, and so
//! a guest reaches only programs that wait for it. `CONNECT` is as Firecracker has it.
//!
//! Bounds: connections, callers that have not yet said what they want, callers that wait for a port, answers that wait
//! for a buffer of the guest. What is beyond a bound is refused or reset. After a snapshot no connection is left; the
//! guest is told by a transport reset event.

pub mod connection;
pub mod packet;

use super::chain::{self, Chain};
use super::counters::{Counters, add, count};
use super::{Broken, Device, Served, copy_config};
use crate::memory::Memory;
use crate::snapshot::{self, SnapshotError};
use connection::Connection;
use packet::{HEADER, HOST_CID, Packet, STREAM, op};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use virtio_queue::Queue;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const QUEUE_SIZE: u16 = 128;
/// Packets between two passes of the gate, each way.
const BUDGET: usize = 64;
/// Data of one packet to the guest; Linux gives buffers of 4 KiB.
const PACKET_BYTES_MAX: usize = 64 * 1024;
const CONNECTIONS_MAX: usize = 256;
/// Callers that have not said what they want.
const CALLERS_MAX: usize = 64;
/// Callers that wait for the guest, over all ports.
const WAITING_MAX: usize = 64;
/// Longest first line.
const GREETING_BYTES_MAX: usize = 32;
/// Answers that wait for a buffer of the guest.
const ANSWERS_MAX: usize = 1024;
/// First port of the host's side of `CONNECT`.
const PORTS_START: u32 = 1 << 30;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const EVENT: usize = 2;

const LISTENER: u64 = u64::MAX;
/// Tokens of callers; those of connections are host port and guest port.
const CALLER: u64 = 1 << 63;

/// Host port and guest port.
type Ports = (u32, u32);

fn token(ports: Ports) -> u64 {
    u64::from(ports.0 & 0x7fff_ffff) << 32 | u64::from(ports.1)
}

/// The device.
pub struct Vsock {
    cid: u64,
    listener: UnixListener,
    epoll: Epoll,
    counters: Arc<Counters>,
    connections: BTreeMap<Ports, Connection>,
    callers: BTreeMap<u64, (UnixStream, Vec<u8>)>,
    waiting: BTreeMap<u32, VecDeque<UnixStream>>,
    answers: VecDeque<Packet>,
    next_caller: u64,
    next_port: u32,
    /// The guest has to be told that all connections are gone.
    reset_event: bool,
    starved: bool,
}

impl Vsock {
    /// A guest with this address; `listener` is where host programs come in.
    pub fn new(cid: u32, listener: UnixListener, counters: Arc<Counters>) -> io::Result<Vsock> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), EpollEvent::new(EventSet::IN, LISTENER))?;
        Ok(Vsock {
            cid: u64::from(cid),
            listener,
            epoll,
            counters,
            connections: BTreeMap::new(),
            callers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            answers: VecDeque::new(),
            next_caller: CALLER,
            next_port: PORTS_START,
            reset_event: false,
            starved: false,
        })
    }

    fn answer(&mut self, packet: Packet) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(packet);
        } else {
            count(&self.counters.dropped);
        }
    }

    /// A packet of a connection to the guest, with what it has to say about credit.
    fn packet(&mut self, ports: Ports, op: u16) -> Packet {
        let announced = self.connections.get_mut(&ports).map(Connection::announce).unwrap_or_default();
        Packet {
            source_cid: HOST_CID,
            target_cid: self.cid,
            source_port: ports.0,
            target_port: ports.1,
            kind: STREAM,
            op,
            buffer: announced.0,
            forwarded: announced.1,
            ..Packet::default()
        }
    }

    fn drop_connection(&mut self, ports: Ports) {
        if self.connections.remove(&ports).is_some() {
            let packet = self.packet(ports, op::RST);
            self.answer(packet);
        }
    }

    fn watch(&self, stream: &UnixStream, token: u64) -> bool {
        // Edge triggered: what waits for credit must not wake us over and over.
        let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), EpollEvent::new(events, token)).is_ok()
    }

    /// Looks at what has become ready on the host's side.
    fn look(&mut self) {
        let mut events = [EpollEvent::default(); BUDGET];
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept(),
                key if key & CALLER != 0 => self.listen_to(key),
                key => {
                    let ports = ((key >> 32) as u32, key as u32);
                    let Some(connection) = self.connections.get_mut(&ports) else { continue };
                    connection.readable = true;
                    if !connection.flush() {
                        self.drop_connection(ports);
                    } else if connection.should_announce() {
                        let packet = self.packet(ports, op::CREDIT_UPDATE);
                        self.answer(packet);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if self.callers.len() >= CALLERS_MAX || stream.set_nonblocking(true).is_err() {
            return count(&self.counters.dropped);
        }
        let key = self.next_caller;
        self.next_caller = CALLER | (key + 1);
        if self.watch(&stream, key) {
            self.callers.insert(key, (stream, Vec::new()));
        }
    }

    /// Reads a caller's first line, byte by byte: what follows it is the guest's.
    fn listen_to(&mut self, key: u64) {
        let Some((stream, line)) = self.callers.get_mut(&key) else { return };
        let mut byte = [0];
        loop {
            match stream.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) if line.len() < GREETING_BYTES_MAX => line.push(byte[0]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                _ => return drop(self.callers.remove(&key)),
            }
        }
        let Some((stream, line)) = self.callers.remove(&key) else { return };
        let _ = self.epoll.ctl(ControlOperation::Delete, stream.as_raw_fd(), EpollEvent::default());
        let words: Vec<&str> = std::str::from_utf8(&line).unwrap_or_default().split(' ').collect();
        match (words.as_slice(), words.get(1).and_then(|port| port.parse().ok())) {
            (["CONNECT", _], Some(port)) => self.connect(stream, port),
            (["ACCEPT", _], Some(port)) if self.waiting.values().map(VecDeque::len).sum::<usize>() < WAITING_MAX => {
                self.waiting.entry(port).or_default().push_back(stream);
            }
            // Nothing that we understand: the caller sees its connection closed.
            _ => {}
        }
    }

    fn connect(&mut self, stream: UnixStream, guest_port: u32) {
        let free = (0..CONNECTIONS_MAX as u32 + 1).map(|n| PORTS_START + (self.next_port + n) % (1 << 29));
        let Some(host_port) = free.into_iter().find(|port| !self.connections.contains_key(&(*port, guest_port))) else {
            return;
        };
        self.next_port = host_port + 1;
        let ports = (host_port, guest_port);
        if self.connections.len() < CONNECTIONS_MAX && self.watch(&stream, token(ports)) {
            self.connections.insert(ports, Connection::new(stream, false));
            let packet = self.packet(ports, op::REQUEST);
            self.answer(packet);
        }
    }

    /// The guest connects to a port of the host: somebody must wait there.
    fn connected(&mut self, ports: Ports, packet: &Packet) -> bool {
        if self.connections.contains_key(&ports) || self.connections.len() >= CONNECTIONS_MAX || ports.0 >> 31 != 0 {
            return false;
        }
        if !self.waiting.contains_key(&ports.0) {
            // Who came at the same moment counts: one look accepts, the next reads the line.
            self.look();
            self.look();
        }
        while let Some(stream) = self.waiting.get_mut(&ports.0).and_then(VecDeque::pop_front) {
            let mut connection = Connection::new(stream, true);
            connection.credit_from(packet.buffer, packet.forwarded);
            // One that has hung up meanwhile is passed over.
            if connection.greet(&format!("OK {}\n", ports.1)) && self.watch(&connection.stream, token(ports)) {
                self.connections.insert(ports, connection);
                let packet = self.packet(ports, op::RESPONSE);
                self.answer(packet);
                return true;
            }
        }
        self.waiting.retain(|_, streams| !streams.is_empty());
        false
    }

    /// A packet from the guest.
    fn take(&mut self, chain: &Chain, memory: &Memory) -> Result<(), Broken> {
        let mut header = [0; HEADER];
        if chain::gather(memory, &chain.readable, &mut header)? < HEADER {
            count(&self.counters.bad_chains);
            return Ok(());
        }
        let packet = Packet::read(&header);
        let data = chain::after(&chain.readable, HEADER as u64);
        let ports = (packet.target_port, packet.source_port);
        let fits = u64::from(packet.length) <= chain::length(&data) && packet.length <= connection::BUFFER;
        if packet.source_cid != self.cid || packet.target_cid != HOST_CID || packet.kind != STREAM || !fits {
            count(&self.counters.errors);
            self.answer(packet.answer(op::RST));
            return Ok(());
        }
        if packet.op == op::REQUEST {
            if !self.connected(ports, &packet) {
                self.answer(packet.answer(op::RST));
            }
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&ports) else {
            if packet.op != op::RST {
                self.answer(packet.answer(op::RST));
            }
            return Ok(());
        };
        connection.credit_from(packet.buffer, packet.forwarded);
        let alive = match packet.op {
            op::RESPONSE if !connection.open => {
                connection.open = true;
                connection.greet(&format!("OK {}\n", ports.0))
            }
            op::RW if connection.open => {
                let mut bytes = vec![0; packet.length as usize];
                chain::gather(memory, &data, &mut bytes)?;
                add(&self.counters.bytes_out, bytes.len() as u64);
                connection.take(&bytes) && connection.flush()
            }
            op::SHUTDOWN => !connection.shut(packet.flags & 1 != 0, packet.flags & 2 != 0),
            op::CREDIT_UPDATE => true,
            op::CREDIT_REQUEST => {
                let packet = self.packet(ports, op::CREDIT_UPDATE);
                self.answer(packet);
                true
            }
            op::RST => {
                self.connections.remove(&ports);
                return Ok(());
            }
            _ => false,
        };
        if !alive {
            self.drop_connection(ports);
        } else if self.connections.get(&ports).is_some_and(Connection::should_announce) {
            let packet = self.packet(ports, op::CREDIT_UPDATE);
            self.answer(packet);
        }
        Ok(())
    }

    /// The next packet for the guest with up to `room` bytes of data.
    fn next_packet(&mut self, room: usize, data: &mut Vec<u8>) -> Option<Packet> {
        data.clear();
        if let Some(packet) = self.answers.pop_front() {
            return Some(packet);
        }
        let ready = |c: &Connection| c.open && c.readable && !c.told_end && c.credit() > 0;
        let ports = *self.connections.iter().find(|(_, connection)| ready(connection))?.0;
        let connection = self.connections.get_mut(&ports)?;
        data.resize(room.min(connection.credit() as usize).min(PACKET_BYTES_MAX), 0);
        match connection.receive(data) {
            Some(0) => {
                connection.told_end = true;
                data.clear();
                // Neither way: the host's program has closed.
                Some(Packet { flags: 3, ..self.packet(ports, op::SHUTDOWN) })
            }
            Some(count) => {
                data.truncate(count);
                add(&self.counters.bytes_in, count as u64);
                Some(Packet { length: count as u32, ..self.packet(ports, op::RW) })
            }
            None => self.next_packet(room, data),
        }
    }

    fn has_packet(&self) -> bool {
        let ready = |c: &Connection| c.open && c.readable && !c.told_end && c.credit() > 0;
        !self.answers.is_empty() || self.connections.values().any(ready)
    }

    fn fill(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let (mut given_back, mut data) = (false, Vec::new());
        self.starved = false;
        for _ in 0..BUDGET {
            if !self.has_packet() {
                break;
            }
            let Some(next) = chain::pop(queue, memory)? else {
                if chain::ask_notification(queue, memory)? {
                    continue;
                }
                self.starved = true;
                break;
            };
            let (head, room) = match &next {
                Ok(chain) => (chain.head, chain::length(&chain.writable)),
                Err(bad) => (bad.head, 0),
            };
            let room = room.min((HEADER + PACKET_BYTES_MAX) as u64) as usize;
            let written = match (next, room.checked_sub(HEADER + 1)) {
                (Ok(chain), Some(room)) => match self.next_packet(room + 1, &mut data) {
                    Some(packet) => {
                        let at = chain::after(&chain.writable, HEADER as u64);
                        chain::scatter(memory, &chain.writable, &packet.bytes())?;
                        HEADER + chain::scatter(memory, &at, &data)?
                    }
                    // What looked readable was not: the buffer stays for the next packet.
                    None => {
                        chain::put_back(queue);
                        break;
                    }
                },
                _ => {
                    count(&self.counters.bad_chains);
                    0
                }
            };
            given_back = true;
            chain::give_back(queue, memory, head, written as u32)?;
        }
        let more = self.has_packet() && !self.starved;
        Ok(Served { interrupt: given_back && chain::wants_interrupt(queue, memory)?, host: more, ..Served::default() })
    }

    fn tell_reset(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        if !self.reset_event {
            return Ok(Served::default());
        }
        let Some(next) = chain::pop(queue, memory)? else { return Ok(Served::default()) };
        let (head, written) = match next {
            // Event 0: transport reset.
            Ok(chain) => (chain.head, chain::scatter(memory, &chain.writable, &[0; 4])? as u32),
            Err(bad) => (bad.head, 0),
        };
        self.reset_event = false;
        chain::give_back(queue, memory, head, written)?;
        Ok(Served { interrupt: chain::wants_interrupt(queue, memory)?, ..Served::default() })
    }
}

impl Device for Vsock {
    fn number(&self) -> u32 {
        super::VSOCK
    }

    fn has_connections(&self) -> bool {
        true
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 3]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, _features: u64) {
        self.starved = false;
    }

    fn reset(&mut self) {
        self.connections.clear();
        self.answers.clear();
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        snapshot::encode(&self.cid)
    }

    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let cid: u64 = snapshot::decode(saved)?;
        if cid != self.cid {
            return Err(SnapshotError::Mismatch(format!("its vsock address was {cid}, this is {}", self.cid)));
        }
        self.reset_event = true;
        Ok(())
    }

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        match queue {
            RECEIVE => self.fill(&mut queues[RECEIVE], memory),
            TRANSMIT => {
                let counters = self.counters.clone();
                let take = |chain: &Chain| self.take(chain, memory).map(|()| 0);
                let served = chain::drain(&mut queues[TRANSMIT], memory, &counters, BUDGET, take)?;
                Ok(Served { host: true, ..served })
            }
            _ => self.tell_reset(&mut queues[EVENT], memory),
        }
    }

    fn host_end(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }

    fn host_ready(&mut self, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.look();
        self.fill(&mut queues[RECEIVE], memory)
    }

    fn wants_host(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
