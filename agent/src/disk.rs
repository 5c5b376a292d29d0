//! The disks of one instance: files below its folder, made from cached images.
//!
//! ```text
//! <instance>/disks/<id>.new --copy (shared extents or sparse), grow, fsync--> <instance>/disks/<id>
//! ```
//! The copy keeps holes, and on a file system that can share extents (xfs, btrfs) the kernel makes
//! the copy without moving data. A disk that is there is only ever grown, never made anew; a
//! rebuild removes it first.
pub mod carry;

use crate::durable;
use crate::image::Cached;
use crate::ledger::safe_name;
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file of disk `id`, made or not.
///
/// # Errors
/// When the id cannot be a file name.
pub fn path(instance: &Path, id: &str) -> Result<PathBuf, String> {
    if !safe_name(id) || id.ends_with(".new") {
        return Err(format!("{id:?} is no disk id"));
    }
    Ok(instance.join("disks").join(id))
}

/// Makes the disk at `path` if it is not there, of `size` bytes (0: as large as its image), and
/// grows it if it is smaller. Blocks.
///
/// # Errors
/// Whatever the file system says; then nothing half-made is left at `path`.
pub fn make(path: &Path, image: Option<&Cached>, size: u64) -> io::Result<()> {
    if let Ok(meta) = path.metadata() {
        if size > meta.len() {
            OpenOptions::new().write(true).open(path)?.set_len(size)?;
        }
        return Ok(());
    }
    let folder = path.parent().ok_or_else(|| io::Error::other("no folder"))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!("{name}.new"));
    let made = fill(&fresh, image, size).and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = made {
        let _ = durable::remove(&fresh);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn fill(fresh: &Path, image: Option<&Cached>, size: u64) -> io::Result<()> {
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    if let Some(image) = image {
        copy_sparse(&File::open(&image.path)?, &target)?;
    }
    if size > target.metadata()?.len() {
        target.set_len(size)?;
    }
    target.sync_all()
}

/// The next stretch of data from `at` on in a file of this length; none: the rest is a hole.
pub(crate) fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<Range<u64>>> {
    if at >= length {
        return Ok(None);
    }
    let start = match lseek(file, i64::try_from(at).map_err(io::Error::other)?, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let end = lseek(file, start, Whence::SeekHole)?.unsigned_abs().min(length);
    Ok(Some(start.unsigned_abs()..end))
}

/// Copies what is data in `from` to the same places in the empty file `to`.
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let (mut at, place) = (0, |at: u64| i64::try_from(at).map_err(io::Error::other));
    while let Some(data) = next_data(from, at, length)? {
        copy_range(from, to, place(data.start)?, place(data.end)?)?;
        at = data.end;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: i64, end: i64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let left = usize::try_from(end - read_at).map_err(io::Error::other)?;
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                return copy_plainly(from, to, read_at, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// For file systems between which the kernel does not copy.
fn copy_plainly(mut from: &File, mut to: &File, start: i64, end: i64) -> io::Result<()> {
    from.seek(SeekFrom::Start(start.unsigned_abs()))?;
    to.seek(SeekFrom::Start(start.unsigned_abs()))?;
    let mut left = (end - start).unsigned_abs();
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = from.read(&mut piece[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_copy_keeps_content_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        let file = File::create(&base).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"middle", 33 << 20).unwrap();
        let image = Cached { path: base.clone(), size: 64 << 20 };
        let disk = path(dir.path(), "root").unwrap();
        make(&disk, Some(&image), 1 << 30).unwrap();
        let copy = File::open(&disk).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20, "holes were filled");
        let mut seen = [0; 6];
        copy.read_exact_at(&mut seen, 33 << 20).unwrap();
        assert_eq!(&seen, b"middle");
    }

    #[test]
    fn a_disk_that_is_there_is_only_grown() {
        let dir = tempfile::tempdir().unwrap();
        let disk = path(dir.path(), "root").unwrap();
        make(&disk, None, 1 << 20).unwrap();
        OpenOptions::new().write(true).open(&disk).unwrap().write_all_at(b"mine", 0).unwrap();
        make(&disk, None, 2 << 20).unwrap();
        make(&disk, None, 1 << 20).unwrap();
        let bytes = std::fs::read(&disk).unwrap();
        assert!(bytes.len() == 2 << 20 && bytes.starts_with(b"mine"));
    }

    #[test]
    fn nothing_half_made_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let disk = path(dir.path(), "root").unwrap();
        let gone = Cached { path: dir.path().join("gone"), size: 1 };
        assert!(make(&disk, Some(&gone), 0).is_err());
        assert_eq!(std::fs::read_dir(disk.parent().unwrap()).unwrap().count(), 0);
        assert!(path(dir.path(), "../x").is_err());
    }

    #[test]
    fn copies_between_file_systems() {
        let (Ok(here), Ok(there)) = (tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")) else {
            return;
        };
        let base = here.path().join("base");
        std::fs::write(&base, vec![3; 300_000]).unwrap();
        let disk = path(there.path(), "root").unwrap();
        make(&disk, Some(&Cached { path: base, size: 300_000 }), 0).unwrap();
        assert_eq!(std::fs::read(&disk).unwrap(), vec![3; 300_000]);
    }
}
