//! The console log of one instance: bounded on disk, whatever its guest writes.
//!
//! ```text
//! append -> console.log --(half the limit reached)--> console.log.1 (the older half is dropped)
//! tail   <- console.log.1 + console.log
//! ```
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A bounded log of console bytes.
#[derive(Debug, Clone)]
pub struct Log {
    newer: PathBuf,
    older: PathBuf,
    limit: u64,
}

impl Log {
    /// The log in folder `dir`, which keeps between half of `limit` and `limit` bytes.
    #[must_use]
    pub fn new(dir: &Path, limit: u64) -> Self {
        Self { newer: dir.join("console.log"), older: dir.join("console.log.1"), limit: limit.max(2) }
    }

    /// Adds output.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn append(&self, mut bytes: &[u8]) -> io::Result<()> {
        let half = self.limit / 2;
        let keep = usize::try_from(half).unwrap_or(usize::MAX);
        if bytes.len() > keep {
            bytes = &bytes[bytes.len() - keep..];
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let size = fs::metadata(&self.newer).map_or(0, |m| m.len());
        if size + bytes.len() as u64 > half && size > 0 {
            fs::rename(&self.newer, &self.older)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.newer)?;
        file.write_all(bytes)
    }

    /// The last `lines` lines, or all that is kept when it is 0.
    ///
    /// # Errors
    /// Whatever the file system says; a log that was never written is empty.
    pub fn tail(&self, lines: u32) -> io::Result<Vec<u8>> {
        let mut all = self.read(&self.older)?;
        all.extend(self.read(&self.newer)?);
        Ok(last_lines(&all, lines).to_vec())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn clear(&self) -> io::Result<()> {
        crate::durable::remove(&self.newer)?;
        crate::durable::remove(&self.older)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(self.limit)))?;
        let mut bytes = Vec::new();
        file.take(self.limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The end of `all` that holds its last `lines` lines; all of it when `lines` is 0.
fn last_lines(all: &[u8], lines: u32) -> &[u8] {
    if lines == 0 {
        return all;
    }
    let body = all.strip_suffix(b"\n").unwrap_or(all);
    let mut left = lines;
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            left -= 1;
            if left == 0 {
                return &all[at + 1..];
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_counts_like_tail() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\nb\n", 0), b"a\nb\n");
        assert_eq!(last_lines(b"", 3), b"");
    }

    #[test]
    fn never_more_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path(), 1000);
        for i in 0..500 {
            log.append(format!("line {i:04}\n").as_bytes()).unwrap();
            let size: u64 = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
            assert!(size <= 1000);
        }
        assert_eq!(log.tail(2).unwrap(), b"line 0498\nline 0499\n");
        assert!(log.tail(0).unwrap().len() >= 490);
        log.append(&[b'x'; 5000]).unwrap();
        assert!(log.tail(0).unwrap().len() <= 1000);
        log.clear().unwrap();
        assert!(log.tail(0).unwrap().is_empty());
    }
}
