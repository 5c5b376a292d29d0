//! Names by TCP (RFC 7766): what does not fit into a datagram.
//!
//! ```text
//!   guest --> 169.254.169.253:53 or fe80::a9fe:a9fd --from_guest: source := name of the port--> the node's stack
//!     accept: peer -> port -> its network's names     too many connections: closed
//!     question (two bytes of length before it) -> answer.rs -> own names, or upstream.rs       until nothing comes for ten seconds
//! ```
//! One thread with a runtime of its own serves all connections: answers are short work, and guests' questions do not wait for the
//! agent's. Others are asked from the namespace that the thread was started in, the host's own.
use super::answer::{Transport, Verdict, failure, judge};
use super::book::Client;
use super::forward::put_id;
use super::rate::Rates;
use super::serve::Forwarders;
use super::{PORT, RESOLVER_ADDRESS, RESOLVER_ADDRESS6, upstream};
use crate::error::{Result, Step};
use crate::metadata::interface_of;
use crate::packet::Bindings;
use hickory_proto::op::ResponseCode;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Connections of the host, and of one port.
const ALL_MAX: usize = 256;
const PORT_MAX: usize = 8;
/// How long a connection may say nothing, or take nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a question.
const QUESTION_MAX: u16 = 1232;
/// How long nothing is accepted after it could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// Where it listens in the node's namespace; `interface`: the host's own, where the kernel has IPv6.
pub(crate) fn addresses(interface: Option<u32>) -> impl Iterator<Item = SocketAddr> {
    let v6 = interface.map(|i| SocketAddrV6::new(RESOLVER_ADDRESS6, PORT, 0, i).into());
    [SocketAddr::from((RESOLVER_ADDRESS, PORT))].into_iter().chain(v6)
}

/// The thread that serves connections; it ends with this value.
pub(crate) struct Streams {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    pub fn start(
        listeners: Vec<std::net::TcpListener>,
        bindings: Bindings,
        forwarders: Forwarders,
        rates: Rates,
    ) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let hall = Hall { bindings, forwarders, rates, seats: Arc::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().step("make a runtime")?;
        let work = move || {
            runtime.block_on(async move {
                for listener in listeners {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => drop(tokio::spawn(accept(listener, hall.clone()))),
                        Err(e) => tracing::error!(error = %e, "names are not served by TCP"),
                    }
                }
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("names-tcp".into()).spawn(work).step("start the resolver")?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What all connections share.
#[derive(Clone)]
struct Hall {
    bindings: Bindings,
    forwarders: Forwarders,
    rates: Rates,
    /// Connections by port.
    seats: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A connection's place among the others.
struct Seat {
    name: u32,
    seats: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Hall {
    fn seat(&self, name: u32) -> Option<Seat> {
        let mut seats = self.seats.lock();
        if seats.values().sum::<usize>() >= ALL_MAX || seats.get(&name).is_some_and(|n| *n >= PORT_MAX) {
            return None;
        }
        *seats.entry(name).or_default() += 1;
        Some(Seat { name, seats: self.seats.clone() })
    }

    /// The port that a connection is from, as it is now.
    fn client(&self, name: u32) -> Option<Arc<Client>> {
        self.bindings.names.read().named(name).cloned()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock();
        if let Some(n) = seats.get_mut(&self.name) {
            *n -= 1;
            if *n == 0 {
                seats.remove(&self.name);
            }
        }
    }
}

async fn accept(listener: TcpListener, hall: Hall) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "connection for names not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let seat = interface_of(peer.ip()).filter(|n| hall.client(*n).is_some()).and_then(|n| hall.seat(n));
        // Whoever may not ask, or asks in too many ways at once, is closed.
        if let Some(seat) = seat {
            tokio::spawn(serve(stream, seat, hall.clone()));
        }
    }
}

/// Questions, one after the other, until the guest has no more.
async fn serve(mut stream: TcpStream, seat: Seat, hall: Hall) {
    while let Ok(Ok(question)) = timeout(IDLE, read(&mut stream)).await {
        let Some(client) = hall.client(seat.name) else { return };
        if !hall.rates.lock().may(seat.name, &hall.bindings.names) {
            return;
        }
        let Some(answer) = answer(&client, &question, &hall.forwarders).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let message = [&length.to_be_bytes(), &answer[..]].concat();
        if !matches!(timeout(IDLE, stream.write_all(&message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    if length > QUESTION_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; usize::from(length)];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

async fn answer(client: &Client, question: &[u8], forwarders: &Forwarders) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(*question.first_chunk::<2>()?);
    match judge(&client.names, question, Transport::Stream) {
        Verdict::Silence => None,
        Verdict::Answer(answer) => Some(answer),
        Verdict::Ask(ours) => {
            let servers = forwarders.read().clone();
            if servers.is_empty() {
                return failure(&ours, id, ResponseCode::Refused);
            }
            match upstream::ask(&servers, &ours).await {
                Some(mut answer) => {
                    put_id(&mut answer, id);
                    Some(answer)
                }
                None => failure(&ours, id, ResponseCode::ServFail),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_few_connections_and_gives_them_back() {
        let rates = Rates::default();
        let hall =
            Hall { bindings: Bindings::default(), forwarders: Forwarders::default(), rates, seats: Arc::default() };
        let mut held: Vec<Seat> = (0..20).filter_map(|_| hall.seat(1)).collect();
        assert_eq!(held.len(), PORT_MAX);
        assert!(hall.seat(2).is_some(), "another port's are its own");
        held.pop();
        assert!(hall.seat(1).is_some());
        let all: Vec<Seat> = (0..1000).filter_map(|n| hall.seat(10 + n)).collect();
        assert_eq!(all.len() + held.len(), ALL_MAX);
        drop((all, held));
        assert!(hall.seats.lock().is_empty(), "nothing is kept of them");
    }
}
