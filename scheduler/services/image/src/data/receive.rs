//! Bytes on their way in: counted, hashed and looked at while they are written, in a few chunks of memory.
use super::files::CHUNK;
use crate::{
    signature::{HashMethod, Prehash},
    store::Incoming,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use md5::Md5;
use pilvi_disk::format::Sketch;
use sha2::{Digest as _, Sha512};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

/// Chunks that wait between the network and the hashes.
const QUEUE: usize = 4;
/// How long a sender may be silent.
pub const SILENCE: Duration = Duration::from_secs(60);

/// What is known of bytes that arrived whole.
#[derive(Debug, Clone)]
pub struct Digest {
    pub size: u64,
    pub md5: String,
    pub sha512: String,
    /// What format parsers want to see.
    pub sketch: Sketch,
    /// The hash that a signature is about, where one was asked for.
    pub signed: Option<Vec<u8>>,
}

/// Why bytes did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the sender broke off: {0}")]
    Cut(io::Error),
    #[error("the sender was silent for {} seconds", SILENCE.as_secs())]
    Silent,
    #[error("more than the {0} bytes allowed")]
    TooLarge(u64),
    #[error("{got} bytes arrived, {said} were announced")]
    Length { got: u64, said: u64 },
    #[error("store: {0}")]
    Disk(#[from] io::Error),
}

/// How much may arrive.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub max: u64,
    /// What the sender announced.
    pub said: Option<u64>,
    /// The hash that a signature is about.
    pub signed: Option<HashMethod>,
}

/// Sums up bytes as they pass.
pub struct Hasher {
    md5: Md5,
    sha512: Sha512,
    size: u64,
    sketch: Sketch,
    signed: Option<Prehash>,
}

impl Hasher {
    pub fn new(signed: Option<HashMethod>) -> Self {
        let signed = signed.map(HashMethod::start);
        Hasher { md5: Md5::new(), sha512: Sha512::new(), size: 0, sketch: Sketch::new(), signed }
    }
    pub fn update(&mut self, chunk: &[u8]) {
        self.md5.update(chunk);
        self.sha512.update(chunk);
        self.size += chunk.len() as u64;
        self.sketch.update(chunk);
        if let Some(signed) = &mut self.signed {
            signed.update(chunk);
        }
    }
    pub fn finish(self) -> Digest {
        Digest {
            size: self.size,
            md5: hex::encode(self.md5.finalize()),
            sha512: hex::encode(self.sha512.finalize()),
            sketch: self.sketch,
            signed: self.signed.map(Prehash::finish),
        }
    }
}

/// Takes bytes into an object until the stream ends. Gives the object as it was, to be committed or aborted by
/// who judges the digest; what did not arrive whole is aborted here.
pub async fn receive<S>(
    stream: S,
    mut incoming: Box<dyn Incoming>,
    expected: Expected,
) -> Result<(Digest, Box<dyn Incoming>), Broken>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(QUEUE);
    let hashing = tokio::task::spawn_blocking(move || hash(receive, expected.signed));
    let fed = feed(stream, send, incoming.as_mut(), expected).await;
    let hashed = hashing.await.map_err(io::Error::other);
    let outcome = match (fed, hashed) {
        (Err(broken), _) => Err(broken),
        (_, Err(error)) => Err(Broken::Disk(error)),
        (Ok(()), Ok(digest)) => match expected.said {
            Some(said) if said != digest.size => Err(Broken::Length { got: digest.size, said }),
            _ => Ok(digest),
        },
    };
    match outcome {
        Ok(digest) => Ok((digest, incoming)),
        Err(broken) => {
            incoming.abort().await;
            Err(broken)
        }
    }
}

/// Moves chunks from the stream to the hashes and the object, within what is expected.
async fn feed<S>(
    mut stream: S,
    send: tokio::sync::mpsc::Sender<Bytes>,
    incoming: &mut dyn Incoming,
    expected: Expected,
) -> Result<(), Broken>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut got = 0u64;
    loop {
        let chunk = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => return Err(Broken::Silent),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(Broken::Cut(error)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        got = got.saturating_add(chunk.len() as u64);
        if got > expected.max {
            return Err(Broken::TooLarge(expected.max));
        }
        if let Some(said) = expected.said
            && got > said
        {
            return Err(Broken::Length { got, said });
        }
        send.send(chunk.clone()).await.map_err(|_| io::Error::other("hashing stopped"))?;
        incoming.write(chunk).await?;
    }
}

/// Ends when the sender is dropped.
fn hash(mut receive: tokio::sync::mpsc::Receiver<Bytes>, signed: Option<HashMethod>) -> Digest {
    let mut hasher = Hasher::new(signed);
    while let Some(chunk) = receive.blocking_recv() {
        hasher.update(&chunk);
    }
    hasher.finish()
}

/// Sums up a file of this machine.
pub async fn digest(path: &Path, signed: Option<HashMethod>) -> io::Result<Digest> {
    let path = path.to_owned();
    let summing = move || {
        let (mut file, mut hasher, mut buffer) = (File::open(path)?, Hasher::new(signed), vec![0; CHUNK]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&buffer[..n]),
            }
        }
    };
    tokio::task::spawn_blocking(summing).await.map_err(io::Error::other)?
}
