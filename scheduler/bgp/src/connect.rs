//! The way to a peer: a TCP connection from the wanted address, signed where the peering has a key.
use crate::Peering;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Tells an unconnected socket the key (RFC 2385) of its connection to an address.
pub type Sign = fn(BorrowedFd<'_>, IpAddr, &[u8]) -> io::Result<()>;

const PATIENCE: Duration = Duration::from_secs(20);

pub async fn connect(peering: &Peering, sign: Option<Sign>) -> io::Result<TcpStream> {
    let socket = if peering.peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = peering.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    if let Some(key) = &peering.key {
        let sign =
            sign.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "connections cannot be signed here"))?;
        sign(socket.as_fd(), peering.peer, key.0.as_bytes())?;
    }
    // Messages are whole when they are written: none waits for another.
    socket.set_nodelay(true)?;
    let to = SocketAddr::new(peering.peer, peering.port);
    timeout(PATIENCE, socket.connect(to)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
