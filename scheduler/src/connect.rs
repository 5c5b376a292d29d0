//! `pilvi connect`: standard input and output joined with a TCP port inside a network namespace.
//!
//! The cloud's networks are in namespaces of their own, so a user's ssh cannot see a floating IP. As
//! ssh's ProxyCommand this bridges the two without a route, a device or a rule on the host.
use crate::{cli::Connect, preflight};
use anyhow::{Context, Result};
use std::{net::SocketAddr, path::PathBuf};
use tokio::io::AsyncWriteExt;

/// Where `ip netns` looks for namespaces.
pub fn namespace(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

pub async fn run(arguments: &Connect) -> Result<()> {
    preflight::root("connect")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if arguments.netns.is_empty() || arguments.netns.starts_with('.') || !arguments.netns.chars().all(plain) {
        return Err(preflight::Refusal("a namespace is a plain name below /run/netns".into()).into());
    }
    let address = SocketAddr::new(arguments.address, arguments.port);
    let stream =
        pilvi_netdev::connect_in(namespace(&arguments.netns), address).await.with_context(|| address.to_string())?;
    stream.set_nonblocking(true)?;
    let (mut from, mut to) = tokio::net::TcpStream::from_std(stream)?.into_split();
    let up = async {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut to).await;
        let _ = to.shutdown().await;
        copied
    };
    let mut out = StdoutFlushed(tokio::io::stdout());
    let down = tokio::io::copy(&mut from, &mut out);
    // The other side's end is the end: ssh keeps our standard input open.
    tokio::select! {
        biased;
        ended = down => { ended?; }
        ended = async { let _ = up.await; std::future::pending::<std::io::Result<u64>>().await } => { ended?; }
    }
    Ok(())
}

/// Standard output that passes on what it gets at once.
struct StdoutFlushed(tokio::io::Stdout);

impl tokio::io::AsyncWrite for StdoutFlushed {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let written = std::task::ready!(std::pin::Pin::new(&mut self.0).poll_write(cx, data))?;
        let _ = std::pin::Pin::new(&mut self.0).poll_flush(cx)?;
        std::task::Poll::Ready(Ok(written))
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
