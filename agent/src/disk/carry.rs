//! The disks of a guest that is off, from one host to another: what is data in them, and nothing of their holes.
//!
//! ```text
//!  send                                                                         receive
//!  count, then of each: name, length, pieces (place, bytes) ..., end  --------> <disk>.coming, fsync
//!                                                                     <-- '+' --  all under their names: settle
//! ```
//! Whoever receives has been told what comes, and takes nothing else: not another name, length or place. The files have
//! their names once all of them are whole and durable; only then the other side is told so.
use super::{next_data, path};
use crate::durable;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest piece, in bytes.
const PIECE: usize = 256 << 10;
/// In place of a piece's place: the disk has no more.
const END: u64 = u64::MAX;
/// What the other side says when all is durable there.
pub const WHOLE: u8 = b'+';

/// What shall come: the length of each disk by its name.
pub type Manifest = BTreeMap<String, u64>;

/// Sends disks and waits until they are durable on the other side. Blocks.
///
/// # Errors
/// When a disk cannot be read, or the other side does not have all of it.
pub fn send(stream: &mut (impl Read + Write), disks: &[(String, PathBuf)]) -> io::Result<()> {
    let count = u32::try_from(disks.len()).map_err(io::Error::other)?;
    stream.write_all(&count.to_le_bytes())?;
    for (name, path) in disks {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let size = u8::try_from(name.len()).map_err(io::Error::other)?;
        stream.write_all(&[size])?;
        stream.write_all(name.as_bytes())?;
        stream.write_all(&length.to_le_bytes())?;
        send_data(stream, &file, length)?;
        stream.write_all(&END.to_le_bytes())?;
    }
    stream.flush()?;
    let mut word = [0];
    stream.read_exact(&mut word)?;
    if word == [WHOLE] { Ok(()) } else { Err(io::Error::other("the other host did not keep the disks")) }
}

fn send_data(stream: &mut impl Write, file: &File, length: u64) -> io::Result<()> {
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    while let Some(data) = next_data(file, at, length)? {
        let mut from = data.start;
        at = data.end;
        while from < at {
            let most = usize::try_from(at - from).map_or(PIECE, |left| left.min(PIECE));
            let bytes = &mut piece[..most];
            file.read_exact_at(bytes, from)?;
            // What is zero there need not be sent to be zero.
            if bytes.iter().any(|byte| *byte != 0) {
                stream.write_all(&from.to_le_bytes())?;
                stream.write_all(&u32::try_from(most).map_err(io::Error::other)?.to_le_bytes())?;
                stream.write_all(bytes)?;
            }
            from += most as u64;
        }
    }
    Ok(())
}

fn number(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn short(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn odd(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Where a disk lies until all of them are there.
fn coming(instance: &Path, name: &str) -> io::Result<PathBuf> {
    let path = path(instance, name).map_err(io::Error::other)?;
    Ok(path.with_file_name(format!("{name}.coming")))
}

/// Room for what shall come: nothing of it is there, and the folder is.
///
/// # Errors
/// Whatever the file system says.
pub fn clear(instance: &Path, manifest: &Manifest) -> io::Result<()> {
    for name in manifest.keys() {
        durable::remove(&path(instance, name).map_err(io::Error::other)?)?;
        durable::remove(&coming(instance, name)?)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(instance.join("disks"))
}

/// Whether all of it is there already.
#[must_use]
pub fn is_there(instance: &Path, manifest: &Manifest) -> bool {
    let length = |name: &str| Some(path(instance, name).ok()?.metadata().ok()?.len());
    manifest.iter().all(|(name, bytes)| length(name) == Some(*bytes))
}

/// Takes what was announced, and nothing else. Blocks. The disks are durable then, and have to be given their names.
///
/// # Errors
/// When the stream ends early, or says what was not announced.
pub fn receive(stream: &mut impl Read, instance: &Path, manifest: &Manifest) -> io::Result<()> {
    if short(stream)? as usize != manifest.len() {
        return Err(odd("another number of disks than was announced"));
    }
    let mut left = manifest.clone();
    for _ in 0..manifest.len() {
        let mut size = [0];
        stream.read_exact(&mut size)?;
        let mut name = vec![0; size[0].into()];
        stream.read_exact(&mut name)?;
        let name = String::from_utf8(name).map_err(|_| odd("a disk without a name"))?;
        let length = left.remove(&name).ok_or_else(|| odd("a disk that was not announced"))?;
        if number(stream)? != length {
            return Err(odd("a disk of another length than was announced"));
        }
        let path = coming(instance, &name)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(length)?;
        receive_data(stream, &file, length)?;
        file.sync_all()?;
    }
    Ok(())
}

fn receive_data(stream: &mut impl Read, file: &File, length: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let at = number(stream)?;
        if at == END {
            return Ok(());
        }
        let size = short(stream)? as usize;
        let bytes = piece.get_mut(..size).ok_or_else(|| odd("a piece that is too large"))?;
        if at.checked_add(size as u64).is_none_or(|end| end > length) {
            return Err(odd("a piece behind the end of its disk"));
        }
        stream.read_exact(bytes)?;
        file.write_all_at(bytes, at)?;
    }
}

/// Gives the disks that were received their names.
///
/// # Errors
/// Whatever the file system says.
pub fn settle(instance: &Path, manifest: &Manifest) -> io::Result<()> {
    for name in manifest.keys() {
        std::fs::rename(coming(instance, name)?, path(instance, name).map_err(io::Error::other)?)?;
    }
    File::open(instance.join("disks"))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    fn pair(root: &Path) -> (PathBuf, PathBuf) {
        let folders = ["here", "there"].map(|name| root.join(name));
        folders.iter().for_each(|folder| std::fs::create_dir_all(folder.join("disks")).unwrap());
        let [here, there] = folders;
        (here, there)
    }

    fn go(here: &Path, there: &Path, manifest: &Manifest, names: &[&str]) -> (io::Result<()>, io::Result<()>) {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let disks: Vec<_> = names.iter().map(|name| (name.to_string(), path(here, name).unwrap())).collect();
        clear(there, manifest).unwrap();
        let sent = std::thread::spawn(move || send(&mut a, &disks));
        let received = receive(&mut b, there, manifest).and_then(|()| {
            settle(there, manifest)?;
            b.write_all(&[WHOLE])
        });
        drop(b);
        (sent.join().unwrap(), received)
    }

    #[test]
    fn disks_come_over_whole_and_with_their_holes() {
        let root = tempfile::tempdir().unwrap();
        let (here, there) = pair(root.path());
        let file = File::create(path(&here, "root").unwrap()).unwrap();
        file.set_len(64 << 20).unwrap();
        let noise: Vec<u8> = (0..700_001u32).map(|n| (n % 251) as u8).collect();
        for at in [0, (33 << 20) + 7, (64 << 20) - noise.len() as u64] {
            file.write_all_at(&noise, at).unwrap();
        }
        // Written, and still nothing but zeroes.
        file.write_all_at(&vec![0; 8 << 20], 40 << 20).unwrap();
        File::create(path(&here, "swap").unwrap()).unwrap().set_len(1 << 20).unwrap();
        let manifest = Manifest::from([("root".into(), 64 << 20), ("swap".into(), 1 << 20)]);
        let (sent, received) = go(&here, &there, &manifest, &["root", "swap"]);
        sent.unwrap();
        received.unwrap();
        assert!(is_there(&there, &manifest));
        let read = |of: &Path| std::fs::read(path(of, "root").unwrap()).unwrap();
        assert!(read(&here) == read(&there));
        let taken = std::fs::metadata(path(&there, "root").unwrap()).unwrap().blocks() * 512;
        assert!(taken < 4 << 20, "what was empty takes room now: {taken}");
    }

    #[test]
    fn nothing_but_what_was_announced_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (here, there) = pair(root.path());
        for name in ["root", "other"] {
            std::fs::write(path(&here, name).unwrap(), vec![7; 5000]).unwrap();
        }
        let announced = |all: &[(&str, u64)]| all.iter().map(|(name, size)| (name.to_string(), *size)).collect();
        for (manifest, names) in [
            (announced(&[("root", 5000)]), &["other"][..]),
            (announced(&[("root", 4999)]), &["root"][..]),
            (announced(&[("root", 5000)]), &["root", "other"][..]),
            (announced(&[("root", 5000), ("other", 5000)]), &["root"][..]),
            (announced(&[("root", 5000), ("other", 5000)]), &["root", "root"][..]),
        ] {
            let (sent, received) = go(&here, &there, &manifest, names);
            assert!(sent.is_err() && received.is_err(), "{manifest:?} {names:?}");
            assert!(!is_there(&there, &manifest));
        }
        let manifest: Manifest = announced(&[("root", 5000)]);
        for (place, size) in [(4097_u64, 4096_u32), (u64::MAX - 1, 16), (0, u32::MAX)] {
            let mut words = [&1_u32.to_le_bytes()[..], &[4], b"root", &5000_u64.to_le_bytes()].concat();
            words.extend([&place.to_le_bytes()[..], &size.to_le_bytes(), &[1; 4096]].concat());
            assert!(receive(&mut words.as_slice(), &there, &manifest).is_err(), "{place} {size}");
        }
        assert!(coming(&there, "../x").is_err());
    }
}
