//! Questions that others must answer: each has a socket, a port and an id of its own, so that a forged answer must
//! guess both, and waits for a bounded time.
//!
//! ```text
//!   asked --> first server --2 s--> next server ... (3 tries) --> SERVFAIL
//!                 '--> its answer, with the guest's id
//! ```
use super::answer::{cut, failure, question_of, room};
use super::book::Client;
use hickory_proto::op::ResponseCode;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Questions under way of one host, and of one port.
const ALL_MAX: usize = 512;
const PORT_MAX: usize = 32;
/// What one try waits, and how many there are.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
pub(crate) const TRIES: usize = 3;
/// Bytes of an answer that are looked at: more than any server sends to who asked for less.
const ANSWER_ROOM: usize = 4096;

/// Where an answer goes.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub client: Arc<Client>,
    pub to: [u8; 6],
    pub address: IpAddr,
    pub port: u16,
    pub id: u16,
}

pub(crate) struct Pending {
    pub socket: UdpSocket,
    asker: Asker,
    /// With our id.
    question: Vec<u8>,
    tries: usize,
    until: Instant,
}

/// All questions that are under way.
#[derive(Default)]
pub(crate) struct Waiting {
    pub list: Vec<Pending>,
    /// Which server is asked first; a silent one gives way.
    first: usize,
}

pub(crate) fn put_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}

/// A number that nobody can foretell.
pub(crate) fn random() -> std::io::Result<u16> {
    use std::io::Read;
    let mut bytes = [0; 2];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u16::from_ne_bytes(bytes))
}

fn send(server: SocketAddr, question: &mut [u8]) -> std::io::Result<UdpSocket> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    put_id(question, random()?);
    socket.send(question)?;
    Ok(socket)
}

impl Waiting {
    /// Asks the servers; an answer to the guest at once is one that says that it cannot be.
    pub fn ask(&mut self, servers: &[SocketAddr], asker: Asker, mut question: Vec<u8>) -> Option<Vec<u8>> {
        let refuse = |question: &[u8], code| failure(question, asker.id, code);
        if servers.is_empty() {
            return refuse(&question, ResponseCode::Refused);
        }
        let own = self.list.iter().filter(|p| p.asker.client.name == asker.client.name).count();
        // Whoever asks too much is not answered, and so asks slower.
        if self.list.len() >= ALL_MAX || own >= PORT_MAX {
            return None;
        }
        match send(servers[self.first % servers.len()], &mut question) {
            Ok(socket) => {
                self.list.push(Pending { socket, asker, question, tries: 1, until: Instant::now() + PATIENCE });
                None
            }
            Err(error) => {
                tracing::debug!(%error, "name server not asked");
                self.first = self.first.wrapping_add(1);
                refuse(&question, ResponseCode::ServFail)
            }
        }
    }

    /// Milliseconds until somebody's patience ends.
    pub fn patience(&self, most: u16) -> u16 {
        let now = Instant::now();
        let next = self.list.iter().map(|p| p.until.saturating_duration_since(now).as_millis()).min();
        next.and_then(|ms| u16::try_from(ms + 1).ok()).unwrap_or(most).min(most)
    }

    /// Answers that have come, with whom they are for.
    pub fn collect(&mut self) -> Vec<(Asker, Vec<u8>)> {
        let mut done = Vec::new();
        let mut buffer = [0; ANSWER_ROOM];
        self.list.retain_mut(|pending| {
            loop {
                match pending.socket.recv(&mut buffer) {
                    Ok(length) if pending.is_answer(&buffer[..length]) => {
                        // A server that says more than was asked for is not the guest's to hear out.
                        let mut answer = cut(&buffer[..length], room(&pending.question));
                        put_id(&mut answer, pending.asker.id);
                        done.push((pending.asker.clone(), answer));
                        return false;
                    }
                    // Somebody guesses; the real answer may still come.
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                    // Nobody listens there: the next one is asked at once.
                    Err(_) => {
                        pending.until = Instant::now();
                        return true;
                    }
                }
            }
        });
        done
    }

    /// Asks the next server where one was silent too long, or gives up.
    pub fn retry(&mut self, servers: &[SocketAddr]) -> Vec<(Asker, Vec<u8>)> {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut first = self.first;
        self.list.retain_mut(|pending| {
            if pending.until > now {
                return true;
            }
            if pending.tries == 1 {
                first = first.wrapping_add(1);
            }
            while pending.tries < TRIES && !servers.is_empty() {
                let server = servers[(self.first + pending.tries) % servers.len()];
                pending.tries += 1;
                if let Ok(socket) = send(server, &mut pending.question) {
                    pending.socket = socket;
                    pending.until = now + PATIENCE;
                    return true;
                }
            }
            let answer = failure(&pending.question, pending.asker.id, ResponseCode::ServFail);
            done.extend(answer.map(|a| (pending.asker.clone(), a)));
            false
        });
        self.first = first % servers.len().max(1);
        done
    }
}

impl Pending {
    fn is_answer(&self, message: &[u8]) -> bool {
        answers(&self.question, message)
    }
}

/// Whether a message is an answer to this very question.
pub(crate) fn answers(question: &[u8], message: &[u8]) -> bool {
    message.first_chunk::<2>() == question.first_chunk::<2>()
        && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && message.get(4..6) == Some(&[0, 1])
        && question_of(message).is_some_and(|q| Some(q) == question_of(question))
}
