//! Files of images' bytes: the only place that touches them.
//!
//! ```text
//! <id>.part    arriving            <id>.staged  staged for an import
//! <id>         complete: hashed, inspected, durable, never written again
//! ```
use crate::store::{Bytestream, Incoming};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::io::{Errno, ReadWriteFlags};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, IoSliceMut, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, ScopedJoinHandle},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Bytes read from a file at once: what still lies in a core's own cache when the network takes it.
pub const CHUNK: usize = 128 * 1024;
/// Chunks that wait for the disk.
const QUEUE: usize = 4;
/// Bytes after which a file that is being written is made durable so far.
const SYNC_EVERY: usize = 16 << 20;

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

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
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

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `id` is an image's id, which is a UUID: it can hold no separators.
    pub fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// Where a file is while it arrives or waits.
    pub fn temporary(&self, id: &str, place: Place) -> PathBuf {
        self.directory.join(match place {
            Place::Part => format!("{id}.part"),
            Place::Staged => format!("{id}.staged"),
        })
    }

    /// Begins a file: one that gets its final name when it is whole, or one that stays staged.
    pub async fn incoming(&self, id: &str, place: Place) -> io::Result<Writing> {
        let from = self.temporary(id, place);
        let to = if place == Place::Part { self.path(id) } else { from.clone() };
        let path = from.clone();
        let open = move || File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        Ok(Writing::begin(blocking(open).await?, from, to, self.directory.clone()))
    }

    /// Makes a complete file of this machine one of this directory as well; false when it lies on another file system.
    /// It stays where it is, so that a crash leaves what an import began with.
    pub async fn take(&self, id: &str, from: &Path) -> io::Result<bool> {
        let (from, to, directory) = (from.to_owned(), self.path(id), self.directory.clone());
        blocking(move || {
            // Written elsewhere perhaps without making it durable.
            File::open(&from)?.sync_all()?;
            remove(&to)?;
            match fs::hard_link(from, to) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
                Err(error) => Err(error),
                Ok(()) => sync_directory(&directory).map(|()| true),
            }
        })
        .await
    }

    /// Gives the bytes of a complete file to another image. No byte is copied: complete files are never
    /// written again, so both may be the same file.
    pub async fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, directory) = (self.path(from), self.path(to), self.directory.clone());
        blocking(move || {
            remove(&to)?;
            fs::hard_link(from, to)?;
            sync_directory(&directory)
        })
        .await
    }

    /// `length` bytes of a complete file from `offset` on.
    pub async fn read(&self, id: &str, offset: u64, length: u64) -> io::Result<Bytestream> {
        read_file(self.path(id), offset, length).await
    }

    pub async fn discard(&self, id: &str, place: Place) -> io::Result<()> {
        let path = self.temporary(id, place);
        blocking(move || remove(&path)).await
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

    /// Removes a file by its name, as [`Files::names`] gives it.
    pub async fn remove_name(&self, name: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        blocking(move || remove(&path)).await
    }
}

/// `length` bytes of a file, or what there is, from `offset` on: a chunk at a time and never ahead of a slow receiver.
pub async fn read_file(path: PathBuf, offset: u64, length: u64) -> io::Result<Bytestream> {
    let file = Arc::new(blocking(move || File::open(path)).await?);
    let reading = Reading { file, at: offset, left: length, used: VecDeque::new() };
    let next = |mut reading: Reading| async move { Ok(reading.next().await?.map(|chunk| (chunk, reading))) };
    Ok(stream::try_unfold(reading, next).boxed())
}

/// A file on its way to a receiver.
struct Reading {
    file: Arc<File>,
    at: u64,
    left: u64,
    /// The last chunks: their memory is taken again when the receiver has let go of it.
    used: VecDeque<Bytes>,
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let want = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        if want == 0 {
            return Ok(None);
        }
        // The receiver sends the last chunk first, while it lies in the core's cache.
        tokio::task::yield_now().await;
        let (mut chunk, at) = (self.memory(want), self.at);
        let got = match cached(&self.file, &mut chunk, at)? {
            Some(got) => got,
            None => {
                let file = self.file.clone();
                let read = move || file.read_at(&mut chunk, at).map(|got| (got, chunk));
                let got;
                (got, chunk) = blocking(read).await?;
                got
            }
        };
        chunk.truncate(got);
        (self.at, self.left) = (self.at + got as u64, self.left - got as u64);
        let chunk = Bytes::from(chunk);
        self.used.push_back(chunk.clone());
        Ok((got > 0).then_some(chunk))
    }

    fn memory(&mut self, want: usize) -> Vec<u8> {
        let free = self.used.pop_front().and_then(|chunk| match chunk.try_into_mut() {
            Ok(free) => Some(Vec::from(free)),
            Err(_) if self.used.len() >= QUEUE => None,
            Err(chunk) => {
                self.used.push_front(chunk);
                None
            }
        });
        let mut chunk = free.unwrap_or_default();
        chunk.resize(want, 0);
        chunk
    }
}

/// Reads what needs no wait for the disk; none when that is nothing.
fn cached(file: &File, chunk: &mut [u8], at: u64) -> io::Result<Option<usize>> {
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(chunk)], at, ReadWriteFlags::NOWAIT) {
        Ok(got) => Ok(Some(got)),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A file that is being written, by a thread that may wait for the disk.
#[derive(Debug)]
pub struct Writing {
    send: Option<mpsc::Sender<Bytes>>,
    writer: Option<JoinHandle<io::Result<()>>>,
    from: PathBuf,
    to: PathBuf,
    directory: PathBuf,
}

impl Writing {
    /// Writes to `file`, which lies at `from` and is `to`, in `directory`, when it is committed.
    pub fn begin(file: File, from: PathBuf, to: PathBuf, directory: PathBuf) -> Self {
        let (send, receive) = mpsc::channel::<Bytes>(QUEUE);
        let writer = tokio::task::spawn_blocking(move || write(file, receive));
        Writing { send: Some(send), writer: Some(writer), from, to, directory }
    }

    /// Lets the writer come to its end, which makes everything durable, and tells how it went.
    async fn end(&mut self) -> io::Result<()> {
        self.send = None;
        match self.writer.take() {
            Some(writer) => writer.await.map_err(io::Error::other)?,
            None => Err(io::Error::other("the writer stopped")),
        }
    }
}

#[async_trait]
impl Incoming for Writing {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        let sent = match &self.send {
            Some(send) => send.send(chunk).await.is_ok(),
            None => false,
        };
        if sent {
            return Ok(());
        }
        // A full disk closes the queue: its error says more than that.
        self.end().await?;
        Err(io::Error::other("the writer stopped"))
    }

    async fn commit(mut self: Box<Self>) -> io::Result<()> {
        let kept = async {
            self.end().await?;
            let (from, to, directory) = (self.from.clone(), self.to.clone(), self.directory.clone());
            blocking(move || {
                if from != to {
                    fs::rename(from, to)?;
                }
                sync_directory(&directory)
            })
            .await
        };
        let kept = kept.await;
        if kept.is_err() {
            self.abort().await;
        }
        kept
    }

    async fn abort(mut self: Box<Self>) {
        let _ = self.end().await;
        let path = self.from.clone();
        if let Err(error) = blocking(move || remove(&path)).await {
            tracing::error!(file = %self.from.display(), %error, "cannot remove refused image data");
        }
    }
}

/// Writes what arrives; ends when the sender is dropped. What was written is made durable beside that, piece by piece, so
/// that little is left to wait for at the end and a large image does not fill memory with pages that wait for the disk.
fn write(file: File, mut receive: mpsc::Receiver<Bytes>) -> io::Result<()> {
    thread::scope(|scope| {
        let (mut since, mut syncing) = (0, None::<ScopedJoinHandle<io::Result<()>>>);
        while let Some(chunk) = receive.blocking_recv() {
            (&file).write_all(&chunk)?;
            since += chunk.len();
            if since >= SYNC_EVERY && syncing.as_ref().is_none_or(ScopedJoinHandle::is_finished) {
                if let Some(synced) = syncing.take() {
                    joined(synced)?;
                }
                since = 0;
                syncing = Some(scope.spawn(|| file.sync_data()));
            }
        }
        // An error that a thread beside was told is not told again.
        syncing.map_or(Ok(()), joined)?;
        file.sync_all()
    })
}

fn joined(thread: ScopedJoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().map_err(|_| io::Error::other("the thread that makes data durable ended"))?
}
