//! A fake guest on its way: its process here ends when one over there has been told to run.
//!
//! ```text
//!  send:  stop ("fake:move_ms" later) -> "go" ----> arrive: mark removed -> "here" ----> mark "moved", end
//! ```
use super::{io, signal_and_see};
use crate::runtime::{Guest, RuntimeError, Wires};
use crate::socket::Short;
use crate::{durable, process};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

const ARRIVING: &str = "fake-arriving";
const MOVED: &str = "fake-moved";
const SLOWLY: &str = "fake-move-ms";
const DOOR: &str = "fake-door";
/// How long the other side may take to say that it runs.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn is_awaited(dir: &Path) -> bool {
    dir.join(ARRIVING).exists()
}

pub(super) fn has_moved(dir: &Path) -> bool {
    dir.join(MOVED).exists()
}

pub(super) fn forget(dir: &Path) -> std::io::Result<()> {
    [ARRIVING, MOVED, DOOR].iter().try_for_each(|name| durable::remove(&dir.join(name)))
}

/// How long a move shall take.
pub(super) fn set_slowness(dir: &Path, millis: Option<u64>) -> std::io::Result<()> {
    match millis {
        Some(millis) => durable::save_plain(&dir.join(SLOWLY), millis.to_string().as_bytes()),
        None => durable::remove(&dir.join(SLOWLY)),
    }
}

pub(super) fn expect(dir: &Path) -> Result<(), RuntimeError> {
    durable::save_plain(&dir.join(ARRIVING), b"").map_err(io("mark"))
}

pub(super) fn door(dir: &Path) -> PathBuf {
    dir.join(DOOR)
}

/// Takes the one call that can be the guest.
pub(super) async fn arrive(guest: &Guest) -> Result<(), RuntimeError> {
    if !is_awaited(&guest.dir) {
        return Ok(());
    }
    durable::remove(&door(&guest.dir)).map_err(io("door"))?;
    let socket = Short::to(&guest.dir, DOOR).map_err(io("instance folder"))?;
    let listener = UnixListener::bind(socket.path()).map_err(io("door"))?;
    let (mut stream, _) = listener.accept().await.map_err(io("door"))?;
    let mut word = [0; 2];
    match stream.read_exact(&mut word).await {
        Ok(_) if word == *b"go" => {
            durable::remove(&guest.dir.join(ARRIVING)).map_err(io("mark"))?;
            let _ = stream.write_all(b"here").await;
            let _ = stream.shutdown().await;
            Ok(())
        }
        _ => Err(RuntimeError::Failed("the guest did not arrive".into())),
    }
}

pub(super) async fn send(guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
    let mut stream = wires.open("state").await.map_err(io("the other host"))?;
    // Looked at again and again: whoever is in a hurry removes it.
    let slowness = || std::fs::read_to_string(guest.dir.join(SLOWLY)).ok()?.parse().ok();
    let begin = tokio::time::Instant::now();
    while slowness().is_some_and(|millis| begin.elapsed() < Duration::from_millis(millis)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal_and_see(guest, Signal::SIGSTOP, true).await?;
    let told = tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"go")?;
        let mut word = [0; 4];
        stream.read_exact(&mut word)
    });
    let told = told.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    told.map_err(io("whether it runs on the other host is not known"))?;
    durable::save_plain(&guest.dir.join(MOVED), b"").map_err(io("mark"))?;
    process::end(&guest.dir).await.map_err(io("kill"))
}
