//! Files of images' bytes: the only place that touches them.
//!
//! ```text
//! <id>.part    arriving            <id>.staged  staged for an import
//! <id>         complete: hashed, inspected, durable, never written again
//! ```
use super::format::HEAD;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use md5::Md5;
use sha2::{Digest as _, Sha512};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// Bytes read from a file at once.
pub const CHUNK: usize = 256 * 1024;
/// Chunks that wait between the network and the disk.
const QUEUE: usize = 4;
/// How long a sender may be silent.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
}

/// Where bytes on their way to an image are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Part,
    Staged,
}

/// What is known of a file that arrived whole.
#[derive(Debug, Clone)]
pub struct Digest {
    pub size: u64,
    pub md5: String,
    pub sha512: String,
    /// The first [`HEAD`] bytes.
    pub head: Vec<u8>,
}

/// Why a file did not arrive whole.
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
    #[error("disk: {0}")]
    Disk(#[from] io::Error),
}

/// How much may arrive.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub max: u64,
    /// What the sender announced.
    pub said: Option<u64>,
}

struct Hasher {
    md5: Md5,
    sha512: Sha512,
    size: u64,
    head: Vec<u8>,
}

impl Hasher {
    fn new() -> Self {
        Hasher { md5: Md5::new(), sha512: Sha512::new(), size: 0, head: Vec::new() }
    }
    fn update(&mut self, chunk: &[u8]) {
        self.md5.update(chunk);
        self.sha512.update(chunk);
        self.size += chunk.len() as u64;
        let missing = HEAD - self.head.len().min(HEAD);
        self.head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }
    fn finish(self) -> Digest {
        Digest {
            size: self.size,
            md5: hex::encode(self.md5.finalize()),
            sha512: hex::encode(self.sha512.finalize()),
            head: self.head,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Files {
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Files { directory: directory.to_owned() })
    }

    /// `id` is an image's id, which is a UUID: it can hold no separators.
    pub fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    fn temporary(&self, id: &str, place: Place) -> PathBuf {
        self.directory.join(match place {
            Place::Part => format!("{id}.part"),
            Place::Staged => format!("{id}.staged"),
        })
    }

    /// Takes bytes into a temporary file until the stream ends, and makes them durable. Memory: a few
    /// chunks, as the stream gives them. What did not arrive whole is removed.
    pub async fn receive<S>(&self, id: &str, place: Place, stream: S, expected: Expected) -> Result<Digest, Broken>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let path = self.temporary(id, place);
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(QUEUE);
        let target = path.clone();
        let writer = tokio::task::spawn_blocking(move || write(&target, receive));
        let fed = feed(stream, send, expected).await;
        let written = writer.await.map_err(io::Error::other)?;
        // A full disk closes the queue: its error says more than the feeder's.
        let outcome = match (fed, written) {
            (_, Err(error)) => Err(Broken::Disk(error)),
            (Err(broken), _) => Err(broken),
            (Ok(()), Ok(digest)) => match expected.said {
                Some(said) if said != digest.size => Err(Broken::Length { got: digest.size, said }),
                _ => Ok(digest),
            },
        };
        if outcome.is_err() {
            blocking(move || remove(&path)).await?;
        }
        outcome
    }

    /// Gives a temporary file its final name, durably.
    pub async fn keep(&self, id: &str, place: Place) -> io::Result<()> {
        let (from, to, directory) = (self.temporary(id, place), self.path(id), self.directory.clone());
        blocking(move || {
            fs::rename(from, to)?;
            sync_directory(&directory)
        })
        .await
    }

    /// Gives the bytes of a complete file to another image. No byte is copied: complete files are never
    /// written again, so both may be the same file.
    pub async fn share(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.temporary(to, Place::Part));
        blocking(move || {
            remove(&to)?;
            fs::hard_link(from, to)
        })
        .await
    }

    /// Reads a staged file once more, for its hashes.
    pub async fn digest(&self, id: &str, place: Place) -> io::Result<Digest> {
        let path = self.temporary(id, place);
        blocking(move || {
            let (mut file, mut hasher, mut buffer) = (File::open(path)?, Hasher::new(), vec![0; CHUNK]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hasher.finish()),
                    n => hasher.update(&buffer[..n]),
                }
            }
        })
        .await
    }

    /// `length` bytes of a complete file from `offset` on.
    pub async fn read(&self, id: &str, offset: u64, length: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let mut file = tokio::fs::File::open(self.path(id)).await?;
        if offset > 0 {
            file.seek(io::SeekFrom::Start(offset)).await?;
        }
        Ok(ReaderStream::with_capacity(file.take(length), CHUNK).boxed())
    }

    pub async fn discard(&self, id: &str, place: Place) -> io::Result<()> {
        let path = self.temporary(id, place);
        blocking(move || remove(&path)).await
    }

    /// Removes everything of an image.
    pub async fn delete(&self, id: &str) -> io::Result<()> {
        let paths = [self.path(id), self.temporary(id, Place::Part), self.temporary(id, Place::Staged)];
        blocking(move || paths.iter().try_for_each(|path| remove(path))).await
    }

    /// Names of all files.
    pub async fn names(&self) -> io::Result<Vec<String>> {
        let directory = self.directory.clone();
        blocking(move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(directory)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            Ok(names)
        })
        .await
    }

    /// Removes a file by the name that [`Files::names`] gave.
    pub async fn remove_name(&self, name: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        blocking(move || remove(&path)).await
    }
}

/// Moves chunks from the stream to the writer, within what is expected.
async fn feed<S>(mut stream: S, send: tokio::sync::mpsc::Sender<Bytes>, expected: Expected) -> Result<(), Broken>
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
        if send.send(chunk).await.is_err() {
            return Err(Broken::Disk(io::Error::other("the writer stopped")));
        }
    }
}

/// Writes what arrives, hashing it on the way; ends when the sender is dropped.
fn write(path: &Path, mut receive: tokio::sync::mpsc::Receiver<Bytes>) -> io::Result<Digest> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut hasher = Hasher::new();
    while let Some(chunk) = receive.blocking_recv() {
        file.write_all(&chunk)?;
        hasher.update(&chunk);
    }
    file.sync_all()?;
    Ok(hasher.finish())
}
