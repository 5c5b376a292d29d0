//! LZO1X, unpacked: what btrfs packs a sector at a time.
//!
//! Source: the kernel's "LZO stream format as understood by Linux' LZO decompressor". An instruction copies from what came
//! out before, and then up to three bytes as they are; how many those were tells what the smallest instructions mean.

use super::super::tree::nonsense;
use std::io;

/// What came before: a long run of bytes as they are.
const RUN: usize = 4;

struct Unpack<'a> {
    packed: &'a [u8],
    at: usize,
    out: Vec<u8>,
    most: usize,
}

/// All of a stream, which makes no more than so many bytes.
pub(super) fn unpack(packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
    let mut stream = Unpack { packed, at: 0, out: Vec::new(), most };
    let mut before = 0;
    if let Some(first) = packed.first().filter(|first| **first > 17) {
        stream.at = 1;
        let count = usize::from(first - 17);
        stream.literal(count)?;
        before = count.min(RUN);
    }
    while let Some(then) = stream.instruction(before)? {
        before = then;
    }
    Ok(stream.out)
}

impl Unpack<'_> {
    fn byte(&mut self) -> io::Result<usize> {
        let byte = self.packed.get(self.at).ok_or_else(|| nonsense("a packed sector that is cut off"))?;
        self.at += 1;
        Ok(usize::from(*byte))
    }

    fn pair(&mut self) -> io::Result<usize> {
        Ok(self.byte()? | self.byte()? << 8)
    }

    /// A length that may not fit into its bits: each zero byte adds 255.
    fn length(&mut self, bits: usize, all: usize) -> io::Result<usize> {
        if bits != 0 {
            return Ok(bits);
        }
        let mut length = all;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Ok(length + last),
            }
        }
    }

    /// Bytes as they are.
    fn literal(&mut self, count: usize) -> io::Result<()> {
        let end = self.at.saturating_add(count);
        let bytes = self.packed.get(self.at..end).ok_or_else(|| nonsense("a packed sector that is cut off"))?;
        if count > self.most - self.out.len() {
            return Err(nonsense("a packed sector that is too long"));
        }
        self.out.extend_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// Bytes again; they may reach into what this makes.
    fn again(&mut self, distance: usize, count: usize) -> io::Result<()> {
        let start =
            self.out.len().checked_sub(distance).ok_or_else(|| nonsense("a packed sector without beginning"))?;
        if count > self.most - self.out.len() {
            return Err(nonsense("a packed sector that is too long"));
        }
        for at in start..start + count {
            self.out.push(self.out[at]);
        }
        Ok(())
    }

    /// One instruction; gives how many bytes it took as they are. None: the end.
    fn instruction(&mut self, before: usize) -> io::Result<Option<usize>> {
        let code = self.byte()?;
        let (distance, count, tail) = match code {
            0..16 if before == 0 => {
                let count = self.length(code, 15)?;
                self.literal(count + 3)?;
                return Ok(Some(RUN));
            }
            0..16 if before == RUN => ((self.byte()? << 2) + (code >> 2) + 2049, 3, code),
            0..16 => ((self.byte()? << 2) + (code >> 2) + 1, 2, code),
            16..32 => {
                let count = self.length(code & 7, 7)? + 2;
                let pair = self.pair()?;
                let distance = ((code & 8) << 11) + (pair >> 2);
                if distance == 0 {
                    return Ok(None);
                }
                (distance + 16_384, count, pair)
            }
            32..64 => {
                let count = self.length(code & 31, 31)? + 2;
                let pair = self.pair()?;
                ((pair >> 2) + 1, count, pair)
            }
            64..128 => ((self.byte()? << 3) + (code >> 2 & 7) + 1, (code >> 5 & 1) + 3, code),
            _ => ((self.byte()? << 3) + (code >> 2 & 7) + 1, (code >> 5 & 3) + 5, code),
        };
        self.again(distance, count)?;
        let tail = tail & 3;
        self.literal(tail)?;
        Ok(Some(tail))
    }
}
