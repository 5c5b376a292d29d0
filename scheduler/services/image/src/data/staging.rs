//! The staged file of an image: written by a client's `stage` or by a download, and kept when either breaks off.
//!
//! Every [`CHECKPOINT`] bytes the file is made durable, and the image's record says how far. So a break, a crash or a
//! power cut costs at most that much: the record never promises bytes that are not on the disk.
use bytes::{Bytes, BytesMut};
use std::{io, path::Path};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt, AsyncWriteExt},
};

/// Bytes between two checkpoints.
pub const CHECKPOINT: u64 = 64 << 20;
/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

#[derive(Debug)]
pub struct Staged {
    file: File,
    waiting: BytesMut,
    written: u64,
    durable: u64,
}

impl Staged {
    /// Opens the file to go on at `at`: what is behind that is dropped. An error when there is less.
    pub async fn open(path: &Path, at: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).await?;
        if file.metadata().await?.len() < at {
            return Err(io::Error::other(format!("less than {at} bytes are staged")));
        }
        file.set_len(at).await?;
        file.seek(io::SeekFrom::Start(at)).await?;
        Ok(Staged { file, waiting: BytesMut::with_capacity(PIECE), written: at, durable: at })
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// Takes a chunk; at a checkpoint, gives how much is durable now.
    pub async fn write(&mut self, chunk: &Bytes) -> io::Result<Option<u64>> {
        self.waiting.extend_from_slice(chunk);
        if self.waiting.len() >= PIECE {
            self.flush().await?;
        }
        if self.written - self.durable < CHECKPOINT {
            return Ok(None);
        }
        self.sync().await.map(Some)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.waiting).await?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Makes everything durable; gives how much that is.
    pub async fn sync(&mut self) -> io::Result<u64> {
        self.flush().await?;
        self.file.flush().await?;
        self.file.sync_data().await?;
        self.durable = self.written;
        Ok(self.durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_goes_on_where_it_was() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.staged");
        let mut first = Staged::open(&path, 0).await.unwrap();
        assert_eq!(first.write(&Bytes::from_static(b"hello ")).await.unwrap(), None);
        assert_eq!((first.length(), first.sync().await.unwrap()), (6, 6));
        assert!(Staged::open(&path, 7).await.is_err());
        let mut second = Staged::open(&path, 5).await.unwrap();
        second.write(&Bytes::from_static(b", world")).await.unwrap();
        second.sync().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hello, world");
        let mut big = Staged::open(&path, 0).await.unwrap();
        let mut checkpoints = Vec::new();
        for _ in 0..140 {
            checkpoints.extend(big.write(&Bytes::from(vec![1; 1 << 20])).await.unwrap());
        }
        assert_eq!(checkpoints, [64 << 20, 128 << 20]);
    }
}
