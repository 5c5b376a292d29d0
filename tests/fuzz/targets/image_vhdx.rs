//! VHDX: tables at the places where the format has them, of any content.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_disk::format::{Source, vhdx};
use std::io;

/// Pieces of a large file; between them are zeroes.
struct Pieces<'d>(Vec<(u64, &'d [u8])>);

impl Source for Pieces<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(4 << 20)
    }
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut read = vec![0; length.min(usize::try_from((4u64 << 20).saturating_sub(offset)).unwrap_or(0))];
        for (at, bytes) in &self.0 {
            for (i, byte) in bytes.iter().enumerate() {
                if let Some(place) = (at + i as u64).checked_sub(offset).and_then(|n| read.get_mut(n as usize)) {
                    *place = *byte;
                }
            }
        }
        Ok(read)
    }
}

fuzz_target!(|data: &[u8]| {
    let (regions, metadata) = data.split_at(data.len() / 2);
    let file = Pieces(vec![
        (192 * 1024, b"regi"),
        (192 * 1024 + 8, regions),
        (1 << 20, b"metadata"),
        ((1 << 20) + 8, metadata),
    ]);
    let _ = vhdx::inspect(&file).expect("memory can be read");
});
