//! A guest of one sector: 512 bytes of machine code that need no operating system.
//!
//! It says `pilvi guest up` on the first serial port, then a letter about twice a second (A, B,
//! C, ...), powers off when the power button is pressed, and, if told so, after some letters.
//!
//! Another one counts: about eighteen times a second it fills a sector with the next number, writes it to its disk, and
//! says the number in eight hexadecimal digits on a line of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The sector; `letters` after which it powers itself off, 0 for never.
pub fn boot_sector(letters: u8) -> Vec<u8> {
    const HELLO: &[u8] = b"pilvi guest up\r\n\0";
    let (count, letter, limit, hello) = (0x69, 0x6b, 0x6c, 0x6d);
    let bye = hello + HELLO.len() as u8;
    #[rustfmt::skip]
    let mut code = vec![
        0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // cli; ds = ss = 0; sp
        0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef,                   // power button: enabled
        0xbe, hello, 0x7c, 0xe8, 0x42, 0x00,                        // print hello
        0xfb, 0xf4, 0xfa,                                           // 17: wait for the timer
        0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x75, 0x22,       // button pressed: off
        0xff, 0x06, count, 0x7c, 0xf6, 0x06, count, 0x7c, 0x07,     // eight ticks a letter
        0x75, 0xe9,
        0xa0, letter, 0x7c, 0xe8, 0x30, 0x00, 0xfe, 0x06, letter, 0x7c,
        0xa0, limit, 0x7c, 0x84, 0xc0, 0x74, 0xd8,                  // no limit: go on
        0xfe, 0x0e, limit, 0x7c, 0x75, 0xd2,
        0xbe, bye, 0x7c, 0xe8, 0x0e, 0x00,                          // 45: off
        0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef,                   // ACPI S5, as QEMU's PC has it
        0xb8, 0x00, 0x34, 0xef,                                     // and as the own VMM has it
        0xf4, 0xeb, 0xfd,
        0xac, 0x84, 0xc0, 0x74, 0x05, 0xe8, 0x03, 0x00, 0xeb, 0xf6, 0xc3, // 59: print
        0xba, 0xf8, 0x03, 0xee, 0xc3,                               // 64: one byte to COM1
        0, 0, b'A', letters,
    ];
    assert_eq!(code.len(), usize::from(hello));
    code.extend(HELLO);
    code.extend(b"\r\nbye\r\n\0");
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// How many sectors the counting guest writes to, the first of them at sector 1.
pub const COUNTED: u64 = 1024;

/// The sector of the guest that counts.
pub fn counting_sector() -> Vec<u8> {
    const HELLO: &[u8] = b"pilvi guest up\r\n\0";
    let (packet, lba, count, drive, hello) = (0x6c, 0x74, 0x7c, 0x80, 0x81);
    #[rustfmt::skip]
    let mut code = vec![
        0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,       // cli; ds = es = ss = 0
        0xbc, 0x00, 0x7c, 0xfc, 0x88, 0x16, drive, 0x7c,            // sp; where it was booted from
        0xbe, hello, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x06,            // print hello
        0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5,
        0xfb, 0xf4,                                                 // 1f: wait for the timer
        0x66, 0xff, 0x06, count, 0x7c, 0x66, 0xa1, count, 0x7c,     // the next number,
        0xbf, 0x00, 0x80, 0xb9, 0x80, 0x00, 0x66, 0xf3, 0xab,       // 128 times at 8000
        0x66, 0x25, 0xff, 0x03, 0, 0, 0x66, 0x40, 0x66, 0xa3, lba, 0x7c, // sector 1 + number % 1024
        0xb8, 0x00, 0x43, 0x8a, 0x16, drive, 0x7c, 0xbe, packet, 0x7c, // write it (int 13h, 43h)
        0xcd, 0x13, 0x72, 0xd2,
        0x66, 0xa1, count, 0x7c, 0xb9, 8, 0, 0xba, 0xf8, 0x03,      // print the number
        0x66, 0xc1, 0xc0, 0x04, 0x50, 0x24, 0x0f, 0x3c, 0x0a, 0x1c, 0x69, 0x2f, 0xee, 0x58, 0xe2, 0xf0,
        0xb0, b'\n', 0xee, 0xeb, 0xb3,
        16, 0, 1, 0, 0x00, 0x80, 0, 0,                              // 6c: one sector from 8000
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0,
    ];
    assert_eq!(code.len(), usize::from(hello));
    code.extend(HELLO);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// Whether QEMU is installed; says so when it is not.
pub fn qemu() -> bool {
    let there = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: qemu-system-x86_64 is not installed");
    }
    there
}

/// The freestanding guest's kernel, built on first use; `PILVI_TEST_GUEST` names a built one.
pub fn freestanding() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        if let Some(path) = std::env::var_os("PILVI_TEST_GUEST") {
            return PathBuf::from(path);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guest/build");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
        let output = Command::new(script).arg(target).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the freestanding guest does not build");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}
