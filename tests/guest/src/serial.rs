//! COM1, polled.

use crate::port::{read8, write8};
use core::fmt::{self, Write};

const BASE: u16 = 0x3f8;

/// The line as a writer.
pub struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| write8(BASE, byte));
        Ok(())
    }
}

/// A byte of input, if there is one.
pub fn read() -> Option<u8> {
    (read8(BASE + 5) & 1 != 0).then(|| read8(BASE))
}

/// Interrupt on input.
pub fn enable_interrupt() {
    write8(BASE + 4, 0x0b);
    write8(BASE + 1, 1);
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {{
        use core::fmt::Write as _;
        let _ = writeln!($crate::serial::Line, $($part)*);
    }};
}
