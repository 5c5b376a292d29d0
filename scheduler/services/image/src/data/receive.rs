//! Bytes on their way in: counted, hashed and looked at while they are written, in a few chunks of memory.
use super::files::read_file;
use crate::{
    signature::{HashMethod, Prehash},
    store::Incoming,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use md5::Md5;
use pilvi_disk::format::Sketch;
use sha2::{Digest as _, Sha512};
use std::{io, path::Path, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle};

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
    others: Others,
}

/// All that is summed up but MD5, which takes as long as all of it.
struct Others {
    sha512: Sha512,
    size: u64,
    sketch: Sketch,
    signed: Option<Prehash>,
}

impl Others {
    fn new(signed: Option<HashMethod>) -> Self {
        let signed = signed.map(HashMethod::start);
        Others { sha512: Sha512::new(), size: 0, sketch: Sketch::new(), signed }
    }
    fn update(&mut self, chunk: &[u8]) {
        self.sha512.update(chunk);
        self.size += chunk.len() as u64;
        self.sketch.update(chunk);
        if let Some(signed) = &mut self.signed {
            signed.update(chunk);
        }
    }
    fn finish(self, md5: Md5) -> Digest {
        Digest {
            size: self.size,
            md5: hex::encode(md5.finalize()),
            sha512: hex::encode(self.sha512.finalize()),
            sketch: self.sketch,
            signed: self.signed.map(Prehash::finish),
        }
    }
}

impl Hasher {
    pub fn new(signed: Option<HashMethod>) -> Self {
        Hasher { md5: Md5::new(), others: Others::new(signed) }
    }
    pub fn update(&mut self, chunk: &[u8]) {
        self.md5.update(chunk);
        self.others.update(chunk);
    }
    pub fn finish(self) -> Digest {
        self.others.finish(self.md5)
    }
}

/// A [`Hasher`] on two threads of its own: the two hashes are most of the work of an upload.
pub struct Summing {
    lanes: [mpsc::Sender<Bytes>; 2],
    md5: JoinHandle<Md5>,
    others: JoinHandle<Others>,
}

impl Summing {
    pub fn begin(signed: Option<HashMethod>) -> Self {
        let (first, mut bytes) = mpsc::channel::<Bytes>(QUEUE);
        let md5 = tokio::task::spawn_blocking(move || {
            let mut md5 = Md5::new();
            while let Some(chunk) = bytes.blocking_recv() {
                md5.update(&chunk);
            }
            md5
        });
        let (second, mut bytes) = mpsc::channel::<Bytes>(QUEUE);
        let others = tokio::task::spawn_blocking(move || {
            let mut others = Others::new(signed);
            while let Some(chunk) = bytes.blocking_recv() {
                others.update(&chunk);
            }
            others
        });
        Summing { lanes: [first, second], md5, others }
    }
    pub async fn update(&self, chunk: &Bytes) -> io::Result<()> {
        for lane in &self.lanes {
            lane.send(chunk.clone()).await.map_err(|_| io::Error::other("hashing stopped"))?;
        }
        Ok(())
    }
    pub async fn finish(self) -> io::Result<Digest> {
        drop(self.lanes);
        let md5 = self.md5.await.map_err(io::Error::other)?;
        Ok(self.others.await.map_err(io::Error::other)?.finish(md5))
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
    let summing = Summing::begin(expected.signed);
    let fed = feed(stream, &summing, incoming.as_mut(), expected).await;
    let outcome = match (fed, summing.finish().await) {
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
    summing: &Summing,
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
        summing.update(&chunk).await?;
        incoming.write(chunk).await?;
    }
}

/// Sums up a file of this machine.
pub async fn digest(path: &Path, signed: Option<HashMethod>) -> io::Result<Digest> {
    let (mut stream, summing) = (read_file(path.to_owned(), 0, u64::MAX).await?, Summing::begin(signed));
    while let Some(chunk) = stream.next().await {
        summing.update(&chunk?).await?;
    }
    summing.finish().await
}
