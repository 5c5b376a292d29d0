//! The side that sends: a stream for each call, through the other agent to its runtime.
use super::{GREETING, LINE_MAX, OPEN, Proof};
use crate::runtime::Wires;
use async_trait::async_trait;
use rustls_pki_types::ServerName;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Calls one node about one move.
#[derive(Debug, Clone)]
pub struct Calls {
    proof: Arc<Proof>,
    move_id: String,
    node_id: String,
    address: String,
}

impl Calls {
    /// To the agent of this node, at `host:port`.
    #[must_use]
    pub fn new(proof: Arc<Proof>, move_id: &str, node_id: &str, address: &str) -> Self {
        Self { proof, move_id: move_id.into(), node_id: node_id.into(), address: address.into() }
    }

    async fn dial(&self, door: &str) -> io::Result<TlsStream<TcpStream>> {
        let config = self.proof.calling(&self.node_id).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        // Who answers is told by the certificate's node, wherever that is: the name is of no account.
        let name = ServerName::try_from("pilvi").map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let line = format!("{} {door}\n", self.move_id);
        if line.len() > LINE_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        if answer == [OPEN] { Ok(stream) } else { Err(io::Error::other("the other host refused the stream")) }
    }
}

#[async_trait]
impl Wires for Calls {
    async fn open(&self, door: &str) -> io::Result<UnixStream> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let mut there = tokio::time::timeout(GREETING, self.dial(door)).await.map_err(late)??;
        let (given, kept) = UnixStream::pair()?;
        kept.set_nonblocking(true)?;
        let mut here = tokio::net::UnixStream::from_std(kept)?;
        let (door, node) = (door.to_owned(), self.node_id.clone());
        tokio::spawn(async move {
            // The end of one side is the other's; what it means is the runtimes' business.
            let ended = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            tracing::debug!(door, node, ?ended, "stream to another host ended");
        });
        Ok(given)
    }
}
