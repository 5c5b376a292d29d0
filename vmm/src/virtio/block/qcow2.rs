//! qcow2 images as disks, through the crate `imago`: one transfer after the other, copied once on its way.
//!
//! An image stands for itself: one that names a backing file, a data file or keys is refused, since nothing can be opened
//! here. Tables are read at the first use, not before: while a machine moves in, the source still writes them. They are
//! written back when a batch ends, so that nothing of the image is kept only here while the machine stands at the gate.

use super::super::chain;
use super::file::{Backing, Transfer, Way};
use crate::memory::Memory;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, file::File as Storage, qcow2::Qcow2};
use std::fs::File;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// Runs a future to its end on this thread. All that these wait for is each other's locks: one of them can always go on.
fn settle<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

fn open(file: &File, read_only: bool) -> io::Result<FormatAccess<Storage>> {
    let builder = Qcow2::<Storage>::builder(Storage::try_from(file.try_clone()?)?).write(!read_only);
    let image = settle(builder.open(DenyImplicitOpenGate::default()));
    image.map(FormatAccess::new).map_err(|e| io::Error::other(format!("no qcow2 image that can be used: {e}")))
}

/// How long the disk in an image is.
pub fn length(file: &File) -> io::Result<u64> {
    open(file, true).map(|image| image.size())
}

enum State {
    /// Prepared where everything may be asked of a file; used where only reading and writing may.
    Untouched(Option<Storage>),
    Open(FormatAccess<Storage>),
}

/// A disk in an image.
pub struct Image {
    state: State,
    read_only: bool,
    /// Something was written since the tables went back.
    written: bool,
}

impl Image {
    /// Over this file, whose `length` has been asked.
    pub fn new(file: &File, read_only: bool) -> io::Result<Image> {
        let storage = Storage::try_from(file.try_clone()?)?;
        Ok(Image { state: State::Untouched(Some(storage)), read_only, written: false })
    }

    fn image(&mut self) -> io::Result<&mut FormatAccess<Storage>> {
        if let State::Untouched(storage) = &mut self.state {
            let storage = storage.take().ok_or_else(|| io::Error::other("the image could not be opened"))?;
            let builder = Qcow2::<Storage>::builder(storage).write(!self.read_only);
            self.state = State::Open(FormatAccess::new(settle(builder.open(DenyImplicitOpenGate::default()))?));
        }
        match &mut self.state {
            State::Open(image) => Ok(image),
            State::Untouched(_) => Err(io::ErrorKind::Other.into()),
        }
    }

    fn transfer(&mut self, transfer: &Transfer, memory: &Memory) -> io::Result<()> {
        let failed = |_| io::Error::other("outside guest memory");
        let (mut offset, mut pieces) = (transfer.offset, transfer.pieces.clone());
        let mut buffer = vec![0; chain::length(&pieces).min(PIECE) as usize];
        while chain::length(&pieces) > 0 {
            let part = chain::length(&pieces).min(PIECE);
            let bytes = &mut buffer[..part as usize];
            match transfer.way {
                Way::Read => {
                    settle(self.image()?.read(&mut *bytes, offset))?;
                    chain::scatter(memory, &pieces, bytes).map_err(failed)?;
                }
                Way::Write => {
                    chain::gather(memory, &pieces, bytes).map_err(failed)?;
                    self.written = true;
                    settle(self.image()?.write(&*bytes, offset))?;
                }
            }
            offset += part;
            pieces = chain::after(&pieces, part);
        }
        Ok(())
    }

    fn write_back(&mut self) -> io::Result<()> {
        if self.written {
            settle(self.image()?.flush())?;
            self.written = false;
        }
        Ok(())
    }
}

impl Backing for Image {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let results: Vec<_> = transfers.iter().map(|transfer| self.transfer(transfer, memory)).collect();
        match self.write_back() {
            Ok(()) => results,
            // What was written may be found by nobody.
            Err(e) => transfers.iter().map(|_| Err(io::Error::new(e.kind(), e.to_string()))).collect(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let image = self.image()?;
        settle(async {
            image.flush().await?;
            image.sync().await
        })?;
        self.written = false;
        Ok(())
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        self.written = true;
        let image = self.image()?;
        settle(async {
            match discard {
                true => image.discard_to_zero(offset, bytes).await,
                false => image.write_zeroes(offset, bytes).await,
            }
        })?;
        self.write_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::chain::Piece;
    use std::path::Path;
    use std::process::Command;
    use vm_memory::{Bytes, GuestAddress};

    fn qemu_img(arguments: &[&str], path: &Path) -> Option<String> {
        let output = Command::new("qemu-img").args(arguments).arg(path).output().ok();
        if output.is_none() {
            eprintln!("SKIPPED: qemu-img is missing (package qemu-utils)");
        }
        output.map(|output| {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            said
        })
    }

    fn pieces() -> Vec<Piece> {
        vec![
            Piece { address: GuestAddress(0x1_0000), length: 1 << 20 },
            Piece { address: GuestAddress(0x20_0000), length: 1 << 19 },
        ]
    }

    #[test]
    fn what_is_written_is_there_for_another_reader_and_zeroes_and_refusals_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.qcow2");
        std::fs::File::create(dir.path().join("empty")).unwrap().set_len(64 << 20).unwrap();
        let empty = dir.path().join("empty");
        let convert = ["convert", "-f", "raw", "-O", "qcow2", empty.to_str().unwrap()];
        if qemu_img(&convert, &path).is_none() {
            return;
        }
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(length(&open()).unwrap(), 64 << 20);
        let memory = crate::memory::map(4 << 20, false).unwrap();
        let pattern: Vec<u8> = (0..3u32 << 19).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        memory.write_slice(&pattern[..1 << 20], GuestAddress(0x1_0000)).unwrap();
        memory.write_slice(&pattern[1 << 20..], GuestAddress(0x20_0000)).unwrap();
        let mut image = Image::new(&open(), false).unwrap();
        let go = |image: &mut Image, way, offset| {
            image.run(&[Transfer { way, offset, pieces: pieces() }], &memory).remove(0)
        };
        go(&mut image, Way::Write, 5 << 20).unwrap();
        image.zero(6 << 20, 1 << 16, false).unwrap();
        image.zero((5 << 20) + (1 << 16), 1 << 16, true).unwrap();
        assert!(go(&mut image, Way::Write, (64 << 20) - 512).is_err());
        // Without a flush: at the gate the file says all.
        let mut expected = pattern.clone();
        expected[1 << 20..][..1 << 16].fill(0);
        expected[1 << 16..][..1 << 16].fill(0);
        let raw = dir.path().join("raw");
        let converted =
            Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).arg(&path).arg(&raw).status();
        assert!(converted.unwrap().success());
        let bytes = std::fs::read(&raw).unwrap();
        assert!(bytes[5 << 20..][..expected.len()] == expected && bytes[..5 << 20].iter().all(|byte| *byte == 0));
        image.flush().unwrap();
        drop(image);
        assert!(qemu_img(&["check", "-f", "qcow2"], &path).unwrap().contains("No errors"));
        let mut again = Image::new(&open(), true).unwrap();
        go(&mut again, Way::Read, 5 << 20).unwrap();
        let mut got = vec![0; 1 << 19];
        memory.read_slice(&mut got, GuestAddress(0x20_0000)).unwrap();
        assert!(got == expected[1 << 20..]);
        assert!(go(&mut again, Way::Write, 0).is_err());
    }

    #[test]
    fn images_that_need_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (dir.path().join("base"), dir.path().join("top"));
        std::fs::write(&base, vec![7; 1 << 20]).unwrap();
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&base).arg(&top);
        let Ok(made) = command.status() else {
            eprintln!("SKIPPED: qemu-img is missing (package qemu-utils)");
            return;
        };
        assert!(made.success());
        assert!(length(&File::open(&top).unwrap()).is_err());
        assert!(length(&File::open(&base).unwrap()).is_err());
        let mut never = Image::new(&File::open(&base).unwrap(), true).unwrap();
        let memory = crate::memory::map(4 << 20, false).unwrap();
        for _ in 0..2 {
            let read = Transfer { way: Way::Read, offset: 0, pieces: pieces() };
            assert!(never.run(&[read], &memory).remove(0).is_err());
        }
    }
}
