//! Writes an initramfs: the "newc" form of cpio, as Linux unpacks it.

/// Kinds of entry, as file mode bits.
pub const DIRECTORY: u32 = 0o040_000;
pub const FILE: u32 = 0o100_000;
pub const SYMLINK: u32 = 0o120_000;
pub const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the making.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    /// Adds an entry. `device` is (major, minor) of device nodes.
    pub fn add(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> &mut Cpio {
        self.inode += 1;
        let length = |n: usize| u32::try_from(n).unwrap();
        let fields =
            [self.inode, mode, 0, 0, 1, 0, length(data.len()), 0, 0, device.0, device.1, length(name.len()) + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        self
    }

    pub fn directory(&mut self, name: &str) -> &mut Cpio {
        self.add(name, DIRECTORY | 0o755, (0, 0), b"")
    }

    pub fn program(&mut self, name: &str, data: &[u8]) -> &mut Cpio {
        self.add(name, FILE | 0o755, (0, 0), data)
    }

    /// The whole archive.
    pub fn finish(&mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), b"");
        std::mem::take(&mut self.bytes)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[test]
fn the_archive_is_what_cpio_reads() {
    let bytes = Cpio::default().directory("d").program("d/f", b"hello").finish();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(bytes.len() % 4, 0);
    assert_eq!(text.matches("070701").count(), 3);
    assert!(text.contains("000081ed") && text.contains("d/f\0") && text.contains("hello\0\0\0"));
}
