//! Packed contents: each piece by itself, of at most 128 KiB, as zlib, LZO or zstd have it.

use super::super::tree::nonsense;
use super::{lzo, part, u32_at};
use std::io::{self, Read};

/// Bytes of a piece, packed or not.
pub(super) const PIECE_MAX: u64 = 128 << 10;

/// A piece, unpacked: what it is short of is zeroes. `bytes` is bounded by who calls.
pub(super) fn unpack(how: u8, packed: &[u8], bytes: usize, sector: usize) -> io::Result<Vec<u8>> {
    let mut out = match how {
        1 => miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(packed, bytes)
            .map_err(|_| nonsense("contents that zlib cannot unpack"))?,
        2 => sectors(packed, bytes, sector)?,
        3 => zstd(packed, bytes)?,
        _ => return Err(nonsense("contents packed in a way that is not read")),
    };
    out.resize(bytes, 0);
    Ok(out)
}

/// LZO: the length of it all, then sectors, each after its packed length. No length lies across a sector's end.
fn sectors(packed: &[u8], bytes: usize, sector: usize) -> io::Result<Vec<u8>> {
    const LENGTH: usize = 4;
    let packed = part(packed, 0, u32_at(packed, 0)? as usize)?;
    let (mut out, mut at) = (Vec::new(), LENGTH);
    while at < packed.len() && out.len() < bytes {
        let left = sector - at % sector;
        if left < LENGTH {
            at += left;
            continue;
        }
        let length = u32_at(packed, at)? as usize;
        out.extend(lzo::unpack(part(packed, at + LENGTH, length)?, sector)?);
        at += LENGTH + length;
    }
    Ok(out)
}

/// One frame; sectors are filled up behind it.
fn zstd(packed: &[u8], bytes: usize) -> io::Result<Vec<u8>> {
    let refused = || nonsense("contents that zstd cannot unpack");
    let frame =
        ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed, PIECE_MAX).map_err(|_| refused())?;
    let mut out = Vec::new();
    frame.take(bytes as u64).read_to_end(&mut out).map_err(|_| refused())?;
    Ok(out)
}
