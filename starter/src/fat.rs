//! Makes the boot partition: a FAT16 file system with the kernel, the initrd and SYSLINUX, which SeaBIOS starts.
//! mtools and syslinux write it as a plain file, without a mount. syslinux stamps its own files with the clock, so
//! the times in the root directory are set to the recipe's afterwards.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::Error;
use crate::mbr::SECTOR;
use crate::recipe::COMMAND_LINE;
use crate::tool::{self, Toolbox};

/// Volume serial number ("pilv").
const SERIAL: &str = "70696c76";
/// 2026-01-01 00:00:00 as FAT counts: time, date.
const STAMP: (u16, u16) = (0, (2026 - 1980) << 9 | 1 << 5 | 1);

/// Writes the file system to `path`. `size` in bytes, `start` in sectors from the beginning of the disk.
pub fn make(
    tools: &Toolbox,
    kernel: &Path,
    initrd: &Path,
    path: &Path,
    size: u64,
    start: u64,
    scratch: &Path,
) -> Result<(), Error> {
    let have: u64 = size.saturating_sub(512 * 1024);
    let mut need = 0;
    for file in [kernel, initrd] {
        need += std::fs::metadata(file).map_err(Error::io("read", file))?.len();
    }
    if need > have {
        return Err(Error::TooLarge { what: "kernel and initrd", need, have });
    }
    let file = File::create(path).map_err(Error::io("create", path))?;
    file.set_len(size).map_err(Error::io("size", path))?;
    let sectors = (size / SECTOR).to_string();
    tool::run(tools.command("mformat").arg("-i").arg(path).args([
        "-T",
        &sectors,
        "-h",
        "255",
        "-s",
        "63",
        "-H",
        &start.to_string(),
        "-c",
        "8",
        "-N",
        SERIAL,
        "-v",
        "PILVI",
        "::",
    ]))?;
    let config = scratch.join("syslinux.cfg");
    let text = format!(
        "DEFAULT pilvi\nPROMPT 0\nLABEL pilvi\n LINUX /vmlinuz\n INITRD /initrd.img\n APPEND console=tty0 {COMMAND_LINE}\n"
    );
    std::fs::write(&config, text).map_err(Error::io("write", &config))?;
    for (source, name) in [(kernel, "::vmlinuz"), (initrd, "::initrd.img"), (&config, "::syslinux.cfg")] {
        tool::run(tools.command("mcopy").arg("-i").arg(path).arg(source).arg(name))?;
    }
    tool::run(tools.command("syslinux").arg("--install").arg(path).env("TMPDIR", scratch))?;
    stamp_root(path)
}

/// Gives every entry of the root directory the recipe's time.
fn stamp_root(path: &Path) -> Result<(), Error> {
    let file = File::options().read(true).write(true).open(path).map_err(Error::io("open", path))?;
    let mut head = [0u8; 512];
    file.read_exact_at(&mut head, 0).map_err(Error::io("read", path))?;
    let word = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let (reserved, tables, entries, per_table) = (word(14), u64::from(head[16]), word(17), word(22));
    let start = (reserved + tables * per_table) * SECTOR;
    let mut root = vec![0u8; (entries * 32) as usize];
    file.read_exact_at(&mut root, start).map_err(Error::io("read", path))?;
    stamp(&mut root);
    file.write_all_at(&root, start).map_err(Error::io("write", path))
}

fn stamp(root: &mut [u8]) {
    let (time, date) = (STAMP.0.to_le_bytes(), STAMP.1.to_le_bytes());
    // An entry with attribute 0x0f is a part of a long name and has no times.
    for entry in root.chunks_exact_mut(32).take_while(|e| e[0] != 0).filter(|e| e[11] != 0x0f) {
        entry[13] = 0;
        entry[14..16].copy_from_slice(&time);
        entry[16..18].copy_from_slice(&date);
        entry[18..20].copy_from_slice(&date);
        entry[22..24].copy_from_slice(&time);
        entry[24..26].copy_from_slice(&date);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_change_and_long_names_do_not() {
        let mut root = vec![0u8; 96];
        root[..32].copy_from_slice(&[0x41; 32]);
        root[32..64].copy_from_slice(&[0x42; 32]);
        root[43] = 0x0f;
        stamp(&mut root);
        assert_eq!(root[24..26], STAMP.1.to_le_bytes());
        assert_eq!(root[26..32], [0x41; 6]);
        assert_eq!(root[56..58], [0x42; 2]);
    }
}
