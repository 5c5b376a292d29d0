//! Reads the two facts the recipe needs out of 64-bit little-endian ELF files: which shared libraries a program
//! asks for (and its loader), and what a kernel module says about itself (`.modinfo`). Offsets come from the file
//! and are checked against its length; nothing here trusts them.

/// Why a file was refused.
type Why = &'static str;

/// What a program or library asks of the dynamic loader.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Path of the loader, for programs.
    pub interpreter: Option<String>,
    /// Names of shared libraries, as in `libc.so.6`.
    pub libraries: Vec<String>,
}

struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    fn open(data: &'a [u8]) -> Result<Self, Why> {
        match data.get(..6) {
            Some([0x7f, b'E', b'L', b'F', 2, 1]) => Ok(Elf(data)),
            _ => Err("not a 64-bit little-endian ELF file"),
        }
    }

    fn bytes(&self, offset: u64, length: u64) -> Result<&'a [u8], Why> {
        let start = usize::try_from(offset).map_err(|_| "offset too large")?;
        let length = usize::try_from(length).map_err(|_| "length too large")?;
        let end = start.checked_add(length).ok_or("offset too large")?;
        self.0.get(start..end).ok_or("offset outside the file")
    }

    fn u16(&self, offset: u64) -> Result<u16, Why> {
        let b = self.bytes(offset, 2)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&self, offset: u64) -> Result<u32, Why> {
        let b = self.bytes(offset, 4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&self, offset: u64) -> Result<u64, Why> {
        let b: [u8; 8] = self.bytes(offset, 8)?.try_into().map_err(|_| "short read")?;
        Ok(u64::from_le_bytes(b))
    }

    fn text(&self, offset: u64) -> Result<String, Why> {
        let start = usize::try_from(offset).map_err(|_| "offset too large")?;
        let rest = self.0.get(start..).ok_or("string outside the file")?;
        let end = rest.iter().take(4096).position(|b| *b == 0).ok_or("string without end")?;
        String::from_utf8(rest[..end].to_vec()).map_err(|_| "string is not text")
    }

    /// Program headers: (type, file offset, address, file size).
    fn segments(&self) -> Result<Vec<(u32, u64, u64, u64)>, Why> {
        let (table, size, count) = (self.u64(32)?, u64::from(self.u16(54)?), u64::from(self.u16(56)?));
        (0..count)
            .map(|i| {
                let at = table.checked_add(i * size).ok_or("table too large")?;
                let field = |n: u64| at.checked_add(n).ok_or("table too large").and_then(|o| self.u64(o));
                Ok((self.u32(at)?, field(8)?, field(16)?, field(32)?))
            })
            .collect()
    }

    /// The bytes of a section by name.
    fn section(&self, name: &str) -> Result<Option<&'a [u8]>, Why> {
        let (table, size) = (self.u64(40)?, u64::from(self.u16(58)?));
        let (count, names) = (u64::from(self.u16(60)?), u64::from(self.u16(62)?));
        let header = |i: u64| table.checked_add(i * size).ok_or("table too large");
        let strings = self.u64(header(names)?.saturating_add(24))?;
        for i in 0..count {
            let at = header(i)?;
            let label = strings.checked_add(u64::from(self.u32(at)?)).ok_or("name too far")?;
            if self.text(label)? == name {
                return self.bytes(self.u64(at.saturating_add(24))?, self.u64(at.saturating_add(32))?).map(Some);
            }
        }
        Ok(None)
    }
}

/// True for files that begin like ELF; scripts and data do not.
pub fn is_elf(data: &[u8]) -> bool {
    data.starts_with(b"\x7fELF")
}

/// The libraries and the loader that a program asks for; none for a static one.
pub fn needs(data: &[u8]) -> Result<Needs, Why> {
    let elf = Elf::open(data)?;
    let segments = elf.segments()?;
    let offset_of = |address: u64| {
        segments
            .iter()
            .find(|s| s.0 == 1 && address >= s.2 && address - s.2 < s.3)
            .and_then(|s| s.1.checked_add(address - s.2))
            .ok_or("address in no segment")
    };
    let mut found = Needs::default();
    for (kind, offset, _, size) in &segments {
        match kind {
            3 => found.interpreter = Some(elf.text(*offset)?),
            2 => {
                let (mut names, mut strings) = (Vec::new(), None);
                for entry in 0..size / 16 {
                    let at = offset.checked_add(entry * 16).ok_or("table too large")?;
                    match (elf.u64(at)?, elf.u64(at.saturating_add(8))?) {
                        (0, _) => break,
                        (1, name) => names.push(name),
                        (5, address) => strings = Some(offset_of(address)?),
                        _ => {}
                    }
                }
                let strings = strings.ok_or("no string table")?;
                for name in names {
                    found.libraries.push(elf.text(strings.checked_add(name).ok_or("name too far")?)?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What a kernel module says about itself: `key=value` pairs in file order.
pub fn modinfo(data: &[u8]) -> Result<Vec<(String, String)>, Why> {
    let section = Elf::open(data)?.section(".modinfo")?.ok_or("no .modinfo section")?;
    Ok(section
        .split(|b| *b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_itself_needs_the_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&own).unwrap();
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{needs:?}");
        assert!(needs.interpreter.unwrap().contains("ld-linux"));
    }

    #[test]
    fn cut_or_scribbled_files_are_refused_without_a_panic() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needs(&own[..40]).is_err());
        assert!(modinfo(&own[..60]).is_err());
        assert!(needs(b"#!/bin/sh\n").is_err());
        let head = own[..4096.min(own.len())].to_vec();
        for at in 0..head.len().min(1024) {
            for value in [0x00, 0x7f, 0xff] {
                let mut bad = head.clone();
                bad[at] = value;
                let _ = (needs(&bad), modinfo(&bad));
            }
        }
    }
}
