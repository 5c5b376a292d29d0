//! A machine that moves into another process of this host, a newer version of this program say: its memory is one file
//! without a name (`shared_memory` in the configuration), and goes over as that file.
//!
//! ```text
//!   source                                    target
//!   running   greeting, memory open with it ─►  maps it
//!      │      ◄──────────────────────── can
//!   paused    the state ─────────────────────►  builds the machine, takes the disks; then as in any migration
//! ```
//! The guest stands still for the state alone, however large its memory is. Until `go` the target writes nothing into
//! it, so a source that is not answered goes on with what it had.

use super::MigrateError;
use super::post::wire::CAN;
use super::send::Sending;
use super::wire::{self, GREETING, Kind, number};
use crate::memory::{self, Memory};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

impl Sending {
    /// Memory goes over as it is. Refused where it is not shared.
    pub fn hand(&mut self) -> bool {
        self.handed = memory::is_shared(&self.memory);
        self.handed
    }

    /// The greeting with the memory; the target says that it has it.
    pub(super) fn hand_memory(&mut self) -> Result<(), MigrateError> {
        let file = memory::shared_file(&self.memory);
        let file = file.ok_or(MigrateError::Nonsense("memory that is not shared cannot be handed over"))?;
        let words = wire::greeting(&self.memory, Kind::Handed);
        self.stream.flush()?;
        let stream = self.stream.get_mut();
        stream.write_with(&words, file)?;
        match number::<1>(stream) {
            Ok([CAN]) => Ok(()),
            Ok(_) => Err(MigrateError::Nonsense("an answer out of turn")),
            Err(MigrateError::Stream(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Err(MigrateError::Older),
            Err(e) => Err(e),
        }
    }
}

/// The first words of a source, and the file that came with them.
pub(super) fn first_words(
    stream: &mut UnixStream,
    rest: impl FnOnce(&mut [u8]) -> io::Result<()>,
) -> io::Result<([u8; GREETING], Option<File>)> {
    let mut words = [0; GREETING];
    let (read, file) = stream.recv_with_fd(&mut words).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rest(&mut words[read..])?;
    Ok((words, file))
}

/// Maps what a source has handed over, in place of memory of the same size that nobody has used.
pub(super) fn take(memory: &Memory, file: Option<File>) -> Result<Memory, MigrateError> {
    let file = file.ok_or(MigrateError::Nonsense("memory was to be handed over and did not come"))?;
    Ok(memory::map_handed(wire::size(memory), file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn only_whole_sealed_memory_is_taken() {
        let memory = memory::map(1 << 20, false).unwrap();
        let shared = memory::map_shared(1 << 20, false).unwrap();
        shared.write_slice(b"here", GuestAddress(0x5000)).unwrap();
        let file = || memory::shared_file(&shared).unwrap().try_clone().unwrap();
        let taken = take(&memory, Some(file())).unwrap();
        assert_eq!(taken.read_obj::<[u8; 4]>(GuestAddress(0x5000)).unwrap(), *b"here");
        assert!(memory::is_shared(&taken));
        assert!(take(&memory, None).is_err());
        let short = memory::sealed_file("short", 1 << 19).unwrap();
        assert!(take(&memory, Some(short)).unwrap_err().to_string().contains("no memory of this machine"));
        let unsealed = tempfile::tempfile().unwrap();
        unsealed.set_len(1 << 20).unwrap();
        assert!(take(&memory, Some(unsealed)).is_err());
    }

    #[test]
    fn a_file_comes_with_the_words_even_in_pieces() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let memory = memory::map(1 << 20, false).unwrap();
        let words = wire::greeting(&memory, Kind::Handed);
        let file = tempfile::tempfile().unwrap();
        theirs.send_with_fds(&[&words[..3]], &[std::os::fd::AsRawFd::as_raw_fd(&file)]).unwrap();
        theirs.write_all(&words[3..]).unwrap();
        let mut more = ours.try_clone().unwrap();
        let (read, came) = first_words(&mut ours, |rest| more.read_exact(rest)).unwrap();
        assert!(came.is_some() && read == words);
        assert_eq!(wire::welcome(&mut &read[..], &memory).unwrap(), Kind::Handed);
        drop(theirs);
        assert!(first_words(&mut ours, |_| Ok(())).is_err());
    }
}
