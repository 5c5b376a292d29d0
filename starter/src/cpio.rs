//! Writes a tree as a cpio archive in the "newc" form that the kernel unpacks as its first root. The inode numbers
//! count up and the times are fixed, so equal trees give equal bytes. It stays uncompressed on purpose: a slow
//! (emulated) guest spends longer unpacking than its host spends reading three more megabytes.

use crate::error::Error;
use crate::recipe::EPOCH;
use crate::tree::{Content, Tree};

/// The whole archive, padded to the 512 bytes that boot loaders like.
pub fn archive(tree: &Tree) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for (inode, (path, node)) in (1u32..).zip(tree.iter()) {
        let links = if node.content == Content::Dir { 2 } else { 1 };
        entry(&mut out, path, inode, node.full_mode(), (node.uid, node.gid), links, &node.bytes()?)?;
    }
    entry(&mut out, "TRAILER!!!", 0, 0, (0, 0), 1, &[])?;
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(out)
}

fn entry(
    out: &mut Vec<u8>,
    path: &str,
    inode: u32,
    mode: u32,
    owner: (u32, u32),
    links: u32,
    data: &[u8],
) -> Result<(), Error> {
    let size = u32::try_from(data.len()).map_err(|_| Error::TooLarge {
        what: "a file of the initrd",
        need: data.len() as u64,
        have: u64::from(u32::MAX),
    })?;
    let time = if path == "TRAILER!!!" { 0 } else { EPOCH as u32 };
    let name = path.len() as u32 + 1;
    let fields = [inode, mode, owner.0, owner.1, links, time, size, 0, 0, 0, 0, name, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.dir("dev", 0o755);
        tree.bytes("init", "#!/bin/sh\n", 0o755);
        tree.bytes("bin/odd", vec![7u8; 4097], 0o4755);
        tree.link("bin/sh", "odd");
        tree
    }

    #[test]
    fn headers_are_aligned_and_the_archive_is_repeatable() {
        let bytes = archive(&sample()).unwrap();
        assert_eq!(bytes, archive(&sample()).unwrap());
        assert_eq!(bytes.len() % 512, 0);
        assert!(bytes.starts_with(b"070701"));
        for at in (0..bytes.len() - 6).filter(|at| &bytes[*at..at + 6] == b"070701") {
            assert_eq!(at % 4, 0);
        }
    }

    #[test]
    fn cpio_reads_it_back() {
        let Ok(mut child) = Command::new("cpio")
            .args(["-t", "-v", "--quiet", "-n"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: no cpio program on this machine");
            return;
        };
        child.stdin.take().unwrap().write_all(&archive(&sample()).unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("-rwsr-xr-x") && text.contains("4097") && text.contains("bin/sh -> odd"), "{text}");
    }
}
