//! Writing a file whose zeroes take no room.
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Bytes that are looked at for being zero.
const PIECE: usize = 64 * 1024;

/// A new file that only its owner reads.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Copies all of `from` into a new file, durably; an error when there is more than `max`.
pub fn copy(from: &mut dyn Read, path: &Path, max: u64) -> io::Result<u64> {
    let (target, mut piece, mut at) = (create(path)?, vec![0; PIECE], 0u64);
    loop {
        let got = fill(from, &mut piece)?;
        if got == 0 {
            break;
        }
        if at + got as u64 > max {
            return Err(io::Error::other(format!("more than the {max} bytes allowed")));
        }
        if piece[..got].iter().any(|byte| *byte != 0) {
            target.write_all_at(&piece[..got], at)?;
        }
        at += got as u64;
    }
    target.set_len(at)?;
    target.sync_all()?;
    Ok(at)
}

fn fill(from: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < piece.len() {
        match from.read(&mut piece[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
