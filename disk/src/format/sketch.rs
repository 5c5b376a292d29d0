//! The bytes of a stream that parsers want to see, kept while the stream goes by.
//!
//! A file that arrives goes straight into its store, which may be on another machine. So what has to be known
//! of it at the end is picked out on the way: the beginning, the last bytes, and where a format's header points
//! ahead, the place it points to. Memory: a little over a MiB at most, and only for formats that need it.
use super::{HEAD, Source, vhdx, vmdk};
use std::io;

/// What of a metadata region of VHDX is kept: its table and the items behind it.
const VHDX_METADATA: u64 = 256 * 1024;

#[derive(Debug, Clone, Default)]
pub struct Sketch {
    size: u64,
    parts: Vec<Part>,
    tail: Vec<u8>,
}

/// A piece of the stream that is kept.
#[derive(Debug, Clone)]
struct Part {
    at: u64,
    length: u64,
    bytes: Vec<u8>,
}

impl Part {
    fn new(at: u64, length: u64) -> Self {
        Part { at, length, bytes: Vec::new() }
    }
    fn is_full(&self) -> bool {
        self.bytes.len() as u64 == self.length
    }
    /// Takes what it wants of a chunk that begins at `start`.
    fn take(&mut self, start: u64, chunk: &[u8]) {
        let next = self.at + self.bytes.len() as u64;
        let Some(skip) = next.checked_sub(start).and_then(|n| usize::try_from(n).ok()) else { return };
        let Some(rest) = chunk.get(skip..) else { return };
        let missing = usize::try_from(self.length).unwrap_or(usize::MAX).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&rest[..rest.len().min(missing)]);
    }
}

impl Sketch {
    pub fn new() -> Self {
        Sketch { parts: vec![Part::new(0, HEAD as u64)], ..Sketch::default() }
    }

    /// The next bytes of the stream.
    pub fn update(&mut self, chunk: &[u8]) {
        let start = self.size;
        self.size += chunk.len() as u64;
        let mut from = 0;
        loop {
            let known = self.parts.len();
            for part in self.parts[from..].iter_mut().filter(|part| !part.is_full()) {
                part.take(start, chunk);
            }
            from = known;
            self.look_ahead(start);
            if self.parts.len() == known {
                break;
            }
        }
        if chunk.len() < vmdk::FOOTER {
            self.tail.extend_from_slice(chunk);
            let surplus = self.tail.len().saturating_sub(vmdk::FOOTER);
            self.tail.drain(..surplus);
        } else {
            self.tail.clear();
            self.tail.extend_from_slice(&chunk[chunk.len() - vmdk::FOOTER..]);
        }
    }

    /// What else is wanted, now that a part is full.
    fn look_ahead(&mut self, start: u64) {
        let head = &self.parts[0];
        if !head.is_full() {
            return;
        }
        let wanted = match self.parts.as_slice() {
            [head] if head.bytes.starts_with(vhdx::MARK) => Some((vhdx::REGIONS_AT, vhdx::TABLE as u64)),
            [head] if vmdk::wants_descriptor(&head.bytes) => {
                Some((HEAD as u64, (vmdk::DESCRIPTOR_MAX + 512 - HEAD) as u64))
            }
            [head, regions] if head.bytes.starts_with(vhdx::MARK) && regions.is_full() => {
                vhdx::metadata_at(&regions.bytes).ok().filter(|at| *at >= start).map(|at| (at, VHDX_METADATA))
            }
            _ => None,
        };
        self.parts.extend(wanted.map(|(at, length)| Part::new(at, length)));
    }
}

impl Source for Sketch {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    /// What was kept of the range; what was not ends it, as the end of the file would.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let tail_at = self.size - self.tail.len() as u64;
        let pieces = self.parts.iter().map(|part| (part.at, part.bytes.as_slice()));
        let mut read = Vec::new();
        for (at, bytes) in pieces.chain([(tail_at, self.tail.as_slice())]) {
            let next = offset.saturating_add(read.len() as u64);
            let Some(skip) = next.checked_sub(at).and_then(|n| usize::try_from(n).ok()) else { continue };
            if let Some(rest) = bytes.get(skip..) {
                read.extend_from_slice(&rest[..rest.len().min(length - read.len())]);
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{inspect, vhdx, vmdk};
    use super::*;
    use proptest::prelude::*;

    fn sketched(file: &[u8], chunk: usize) -> Sketch {
        let mut sketch = Sketch::new();
        file.chunks(chunk).for_each(|chunk| sketch.update(chunk));
        sketch
    }

    #[test]
    fn a_stream_is_judged_as_the_file_is() {
        let mut long = vmdk::tests::sparse("streamOptimized", "RW 16384 SPARSE \"d.vmdk\"");
        long.resize(3 << 20, 0);
        let text = format!("# Disk DescriptorFile\n{}createType=\"monolithicFlat\"\n", "#\n".repeat(100_000));
        let files =
            [vhdx::tests::image(5 << 30, false), vhdx::tests::image(1, true), long, text.into_bytes(), vec![1; 100]];
        for file in files {
            for chunk in [1 << 16, 4096, 1000, 777, 1 << 22] {
                let sketch = sketched(&file, chunk);
                assert_eq!(inspect(&sketch).unwrap(), inspect(&file.as_slice()).unwrap(), "{chunk}");
                assert!(sketch.parts.iter().map(|p| p.bytes.len()).sum::<usize>() < 2 << 20);
            }
        }
    }

    proptest! {
        #[test]
        fn the_end_and_the_beginning_are_kept(file in proptest::collection::vec(any::<u8>(), 0..5000), chunk in 1usize..3000) {
            let sketch = sketched(&file, chunk);
            prop_assert_eq!(sketch.size().unwrap(), file.len() as u64);
            prop_assert_eq!(sketch.read(0, file.len()).unwrap(), file.clone());
            let end = file.len().saturating_sub(100);
            prop_assert_eq!(sketch.read(end as u64, 100).unwrap(), file[end..].to_vec());
        }
    }
}
