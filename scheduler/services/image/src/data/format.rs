//! What a file is by its content, and whether hosts may have it.
//!
//! Formats are never guessed later on: a host opens an image as what its record says. So what the record
//! says must be true here, above all that a "raw" file is not something that a careless reader would open
//! as a qcow2 with a backing file.
use super::qcow2;

/// Bytes of the beginning of a file that [`judge`] wants to see: enough for an ISO 9660 descriptor.
pub const HEAD: usize = 64 * 1024;

/// Formats by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Qcow,
    Qed,
    Vmdk,
    Vhd,
    Vhdx,
    Vdi,
    Luks,
    Iso,
    Gpt,
    /// Anything else: a plain disk, a kernel, a file system.
    Plain,
}

fn has(head: &[u8], at: usize, mark: &[u8]) -> bool {
    head.get(at..at + mark.len()) == Some(mark)
}

/// What the first bytes say.
pub fn detect(head: &[u8]) -> Content {
    let marks: [(usize, &[u8], Content); 12] = [
        (0, b"QFI\xfb", Content::Qcow),
        (0, b"QED\0", Content::Qed),
        (0, b"KDMV", Content::Vmdk),
        (0, b"COWD", Content::Vmdk),
        (0, b"SE_SPARSE", Content::Vmdk),
        (0, b"# Disk DescriptorFile", Content::Vmdk),
        (0, b"conectix", Content::Vhd),
        (0, b"vhdxfile", Content::Vhdx),
        (0x40, b"\x7f\x10\xda\xbe", Content::Vdi),
        (0, b"LUKS\xba\xbe", Content::Luks),
        (0x8001, b"CD001", Content::Iso),
        (512, b"EFI PART", Content::Gpt),
    ];
    marks.iter().find(|(at, mark, _)| has(head, *at, mark)).map_or(Content::Plain, |(.., content)| *content)
}

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Qcow2(#[from] qcow2::Refusal),
    #[error("it is said to be {said}, but its content is {found}")]
    Mismatch { said: String, found: &'static str },
    #[error(
        "hosts here run raw, qcow2, iso and kernel images; convert this {0} image first (qemu-img convert -O qcow2)"
    )]
    NotRunnable(String),
    #[error("images in a container of format {0} cannot be run here")]
    Container(String),
    #[error("its disk of {found} bytes is larger than the {max} allowed")]
    TooLarge { found: u64, max: u64 },
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Content::Qcow => "qcow2",
            Content::Qed => "qed",
            Content::Vmdk => "vmdk",
            Content::Vhd => "vhd",
            Content::Vhdx => "vhdx",
            Content::Vdi => "vdi",
            Content::Luks => "luks",
            Content::Iso => "iso",
            Content::Gpt => "gpt",
            Content::Plain => "raw",
        }
    }
    /// A format with metadata of its own, which a reader that guesses would follow.
    fn is_structured(self) -> bool {
        !matches!(self, Content::Plain | Content::Iso | Content::Gpt | Content::Luks)
    }
}

/// What is asked of a file.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub virtual_max: u64,
    /// Refuse what is not what it is said to be, beside what is dangerous.
    pub match_format: bool,
}

/// May hosts have this file, said to be `disk_format` in `container_format`? Gives the size of the disk in
/// it, where that is known.
pub fn judge(
    disk_format: &str,
    container_format: &str,
    head: &[u8],
    size: u64,
    rules: Rules,
) -> Result<Option<u64>, Refusal> {
    let content = detect(head);
    let mismatch = || Refusal::Mismatch { said: disk_format.to_owned(), found: content.name() };
    if content == Content::Qcow {
        // Whatever it is said to be: this is the header that can reach for other files.
        let header = qcow2::read(head, size, rules.virtual_max)?;
        return if disk_format == "qcow2" { Ok(Some(header.virtual_size)) } else { Err(mismatch()) };
    }
    if rules.match_format && !matches!(container_format, "bare" | "ami" | "aki" | "ari" | "ovf") {
        return Err(Refusal::Container(container_format.to_owned()));
    }
    let plain = matches!(disk_format, "raw" | "iso" | "gpt" | "ami" | "aki" | "ari");
    if plain && content.is_structured() {
        return Err(mismatch());
    }
    if rules.match_format {
        let matches = match disk_format {
            "raw" => content != Content::Luks,
            "iso" => content == Content::Iso,
            "gpt" => content == Content::Gpt,
            "qcow2" => false,
            _ => true,
        };
        if !matches {
            return Err(mismatch());
        }
        if !plain {
            return Err(Refusal::NotRunnable(disk_format.to_owned()));
        }
    }
    if size > rules.virtual_max {
        return Err(Refusal::TooLarge { found: size, max: rules.virtual_max });
    }
    Ok(matches!(disk_format, "raw" | "iso" | "gpt").then_some(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STRICT: Rules = Rules { virtual_max: 1 << 44, match_format: true };
    const LAX: Rules = Rules { match_format: false, ..STRICT };

    #[test]
    fn qcow2_is_taken_only_under_its_own_name() {
        let file = qcow2::tests::image(5 << 30);
        let ask = |format: &str, rules| judge(format, "bare", &file[..HEAD], file.len() as u64, rules);
        assert_eq!(ask("qcow2", STRICT), Ok(Some(5 << 30)));
        for rules in [STRICT, LAX] {
            assert!(matches!(ask("raw", rules), Err(Refusal::Mismatch { .. })));
            assert!(matches!(ask("aki", rules), Err(Refusal::Mismatch { .. })));
        }
        let mut backed = file.clone();
        backed[15] = 200;
        assert_eq!(
            judge("qcow2", "bare", &backed[..HEAD], file.len() as u64, LAX),
            Err(Refusal::Qcow2(qcow2::Refusal::BackingFile))
        );
    }

    #[test]
    fn other_formats_by_rules() {
        let noise = vec![0x5a; 4096];
        let ask = |format: &str, head: &[u8], rules| judge(format, "bare", head, 4096, rules);
        assert_eq!(ask("raw", &noise, STRICT), Ok(Some(4096)));
        assert_eq!(ask("ari", &noise, STRICT), Ok(None));
        assert!(ask("qcow2", &noise, STRICT).is_err() && ask("qcow2", &noise, LAX).is_ok());
        assert!(ask("iso", &noise, STRICT).is_err() && ask("vmdk", &noise, STRICT).is_err());
        for mark in [&b"KDMV"[..], b"QED\0", b"vhdxfile", b"conectix", b"# Disk DescriptorFile"] {
            assert!(ask("raw", mark, LAX).is_err() && ask("vmdk", mark, STRICT).is_err());
        }
        assert!(judge("raw", "docker", &noise, 4096, STRICT).is_err());
        assert!(matches!(judge("raw", "bare", &noise, 1 << 50, STRICT), Err(Refusal::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn nothing_structured_passes_as_raw(head in proptest::collection::vec(any::<u8>(), 0..1024), mark in 0usize..6) {
            let marks: [&[u8]; 6] = [b"QFI\xfb", b"KDMV", b"QED\0", b"vhdxfile", b"conectix", b"COWD"];
            let mut marked = marks[mark].to_vec();
            marked.extend(&head);
            prop_assert!(judge("raw", "bare", &marked, marked.len() as u64, LAX).is_err());
            let _ = judge("qcow2", "bare", &head, 1, STRICT);
        }
    }
}
