//! Questions that came by a connection and that others must answer: asked as datagrams, and by a connection where the answer
//! has been cut.
//!
//! ```text
//!   first server --datagram, own socket and id--> whole: the answer
//!        |                                        cut: the same server by TCP --> the answer
//!        '-- 2 s, or an error --> next server ... (3 tries) --> nobody knows
//! ```
use super::answer::is_cut;
use super::forward::{PATIENCE, TRIES, answers, put_id, random};
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Bytes of a datagram that are looked at; one that fills them is taken as cut.
const DATAGRAM: usize = 4096;

/// The answer with an id that is not the asker's; `None`: nobody gave one.
pub(crate) async fn ask(servers: &[SocketAddr], question: &[u8]) -> Option<Vec<u8>> {
    for turn in 0..TRIES {
        let server = *servers.get(turn % servers.len().max(1))?;
        match timeout(PATIENCE, once(server, question)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "name server not asked"),
            Err(_) => tracing::debug!(%server, "name server is silent"),
        }
    }
    None
}

async fn once(server: SocketAddr, question: &[u8]) -> Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut question = question.to_vec();
    put_id(&mut question, random()?);
    socket.send(&question).await?;
    let mut buffer = [0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        // Somebody guesses; the real answer may still come.
        if !answers(&question, answer) {
            continue;
        }
        if is_cut(answer) || length == DATAGRAM {
            return by_connection(server, &question).await;
        }
        return Ok(answer.to_vec());
    }
}

async fn by_connection(server: SocketAddr, question: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if answers(question, &answer) { Ok(answer) } else { Err(ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::answer::room;

    const QUESTION: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03big\x07example\0\0\x01\0\x01";

    fn reply(question: &[u8], flags: u8, extra: usize) -> Vec<u8> {
        let mut reply = question.to_vec();
        reply[2] |= 0x80 | flags;
        reply.resize(reply.len() + extra, 7);
        reply
    }

    #[tokio::test]
    async fn what_was_cut_is_asked_for_by_a_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let datagrams = UdpSocket::bind(server).await.unwrap();
        let serve = async {
            let mut buffer = [0; 600];
            let (length, from) = datagrams.recv_from(&mut buffer).await.unwrap();
            datagrams.send_to(&reply(&buffer[..length], 2, 0), from).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let whole = reply(&question, 0, 9000);
            stream.write_u16(u16::try_from(whole.len()).unwrap()).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        // Nobody listens at the first.
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let servers = [closed, server];
        let (answer, ()) = tokio::join!(ask(&servers, QUESTION), serve);
        let answer = answer.expect("an answer");
        assert_eq!((answer.len(), room(QUESTION)), (QUESTION.len() + 9000, 512));
        assert!(ask(&[], QUESTION).await.is_none());
    }
}
