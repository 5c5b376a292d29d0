//! The side that is called: lets the streams of expected moves through to whoever waits for them.
//!
//! ```text
//! admit(move, node) --first one--> listening --TLS--> which node? --line--> which move, which door? --> its socket
//!   '--dropped: the move is not expected any more, its streams end with their runtime
//! ```
use super::{GREETING, LINE_MAX, OPEN, Proof, proof};
use crate::socket::Short;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OnceCell, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Streams at the same time; a move has a few.
const STREAMS_MAX: usize = 256;

/// The socket behind a door of this name, if there is such a door.
pub type Doors = Box<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

struct Coming {
    node_id: String,
    doors: Doors,
}

type Expected = Arc<Mutex<HashMap<String, Coming>>>;

fn locked(expected: &Expected) -> MutexGuard<'_, HashMap<String, Coming>> {
    expected.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets guests in.
pub struct Doorman {
    proof: Arc<Proof>,
    /// Where to listen; port 0 is any.
    listen: SocketAddr,
    listening: OnceCell<SocketAddr>,
    expected: Expected,
}

/// While it is kept, the move is expected.
pub struct Expecting {
    expected: Expected,
    move_id: String,
    /// Where the other host's agent finds this one.
    pub address: SocketAddr,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        locked(&self.expected).remove(&self.move_id);
    }
}

impl Doorman {
    /// One that listens there once somebody is expected.
    #[must_use]
    pub fn new(proof: Arc<Proof>, listen: SocketAddr) -> Self {
        Self { proof, listen, listening: OnceCell::new(), expected: Expected::default() }
    }

    /// Lets the streams of a move in, from this node alone.
    ///
    /// # Errors
    /// When nothing can listen.
    pub async fn admit(&self, move_id: &str, node_id: &str, doors: Doors) -> io::Result<Expecting> {
        let address = *self.listening.get_or_try_init(|| self.begin()).await?;
        let coming = Coming { node_id: node_id.to_owned(), doors };
        locked(&self.expected).insert(move_id.to_owned(), coming);
        Ok(Expecting { expected: self.expected.clone(), move_id: move_id.to_owned(), address })
    }

    async fn begin(&self) -> io::Result<SocketAddr> {
        let acceptor = TlsAcceptor::from(Arc::new(self.proof.called().map_err(io::Error::other)?));
        let listener = TcpListener::bind(self.listen).await?;
        let address = listener.local_addr()?;
        let expected = self.expected.clone();
        tracing::info!(%address, "other hosts' guests come in here");
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(STREAMS_MAX));
            loop {
                let Ok(slot) = room.clone().acquire_owned().await else { return };
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "no stream of another host");
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                        continue;
                    }
                };
                let (acceptor, expected) = (acceptor.clone(), expected.clone());
                tokio::spawn(async move {
                    if let Err(error) = let_in(stream, acceptor, &expected).await {
                        tracing::warn!(%error, "stream of another host");
                    }
                    drop(slot);
                });
            }
        });
        Ok(address)
    }
}

async fn let_in(stream: TcpStream, acceptor: TlsAcceptor, expected: &Expected) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let greeting = tokio::time::timeout(GREETING, greet(stream, acceptor, expected));
    let (mut there, mut here) = greeting.await.map_err(late)??;
    // What an end of the stream means is the runtimes' business.
    let _ = tokio::io::copy_bidirectional(&mut there, &mut here).await;
    Ok(())
}

async fn greet(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    expected: &Expected,
) -> io::Result<(BufReader<TlsStream<TcpStream>>, UnixStream)> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let node = shown.and_then(proof::node_of).ok_or_else(|| io::Error::other("no node's certificate"))?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LINE_MAX as u64).read_line(&mut line).await?;
    let (move_id, door) = line.trim_end().split_once(' ').unwrap_or_default();
    let path = {
        let expected = locked(expected);
        let coming = expected.get(move_id).filter(|coming| coming.node_id == node);
        coming.and_then(|coming| (coming.doors)(door))
    };
    let path = path.ok_or_else(|| io::Error::other(format!("node {node} wants what nobody expects of it")))?;
    let here = connect(&path).await?;
    stream.write_all(&[OPEN]).await?;
    stream.flush().await?;
    Ok((stream, here))
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let socket = Short::to(folder, name)?;
    // The process behind it may be about to listen; the greeting's limit ends this.
    loop {
        match UnixStream::connect(socket.path()).await {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}

/// The address of this host from which the scheduler is reached: there other hosts reach it, too.
#[must_use]
pub fn own_address(towards: &[(String, u16)]) -> IpAddr {
    let any = |of: &SocketAddr| SocketAddr::new(if of.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() }, 0);
    let seen = towards.iter().find_map(|(host, port)| {
        let to = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port)).ok()?.next()?;
        let socket = std::net::UdpSocket::bind(any(&to)).ok()?;
        // Sends nothing: the kernel only chooses the way.
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    seen.unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

#[cfg(test)]
mod tests;
