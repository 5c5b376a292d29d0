//! Makes the root file system: an empty ext4 by mke2fs, filled by debugfs from a script in the tree's order with the
//! tree's owners and modes. No mount, no root rights, and no trace of the host: identifiers and times are fixed.
//! e2fsck reads the result before it is used.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use crate::error::Error;
use crate::recipe::ROOT_LABEL;
use crate::tool::{self, Toolbox};
use crate::tree::{Content, Tree};

/// Fixed identity of the file system and of its directory hashes; also makes the root findable by UUID.
const UUID: &str = "70696c76-6920-7374-6172-746572000001";
const HASH_SEED: &str = "70696c76-6920-7374-6172-746572000002";
/// Room in the block group table: the guest can grow this file system online to 256 GiB (in blocks of 4 KiB), and
/// further, slower, beyond.
const GROWS_TO: u64 = 64 << 20;

/// Writes `tree` into a new file system of `size` bytes at `path`. `scratch` is an existing empty folder.
pub fn make(tools: &Toolbox, config: &Path, tree: &Tree, path: &Path, size: u64, scratch: &Path) -> Result<(), Error> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    file.set_len(size).map_err(Error::io("size", path))?;
    let extended = format!(
        "root_owner=0:0,hash_seed={HASH_SEED},resize={GROWS_TO},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    );
    tool::run(
        tools
            .command("mke2fs")
            .env("MKE2FS_CONFIG", config)
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "8192", "-m", "0", "-J", "size=4"])
            .args(["-L", ROOT_LABEL, "-U", UUID, "-E", &extended])
            .arg(path),
    )?;
    let script = scratch.join("fill");
    std::fs::write(&script, fill(tree, scratch)?).map_err(Error::io("write", &script))?;
    let output = tool::run(tools.command("debugfs").arg("-w").arg("-f").arg(&script).arg(path))?;
    complaint(&String::from_utf8_lossy(&output.stderr))?;
    tool::run(tools.command("e2fsck").args(["-f", "-n"]).arg(path))?;
    Ok(())
}

/// The debugfs commands. Small contents are written to files in `scratch` first.
fn fill(tree: &Tree, scratch: &Path) -> Result<String, Error> {
    let mut script = String::new();
    let mut folder = String::new();
    for (number, (path, node)) in tree.iter().enumerate() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if parent != folder {
            let _ = writeln!(script, "cd \"/{parent}\"");
            folder = parent.to_owned();
        }
        match &node.content {
            Content::Dir => {
                let _ = writeln!(script, "mkdir \"{name}\"");
            }
            Content::Link(target) => {
                let _ = writeln!(script, "symlink \"{name}\" \"{target}\"");
            }
            Content::File(source) => {
                let _ = writeln!(script, "write \"{}\" \"{name}\"", source.display());
            }
            Content::Bytes(bytes) => {
                let source = scratch.join(number.to_string());
                std::fs::write(&source, bytes).map_err(Error::io("write", &source))?;
                let _ = writeln!(script, "write \"{}\" \"{name}\"", source.display());
            }
        }
        let _ = writeln!(script, "sif \"{name}\" mode 0{:o}", node.full_mode());
        let _ = writeln!(script, "sif \"{name}\" uid {}\nsif \"{name}\" gid {}", node.uid, node.gid);
    }
    Ok(script)
}

/// debugfs ends well even when a command of its script did not: what it says on standard error tells.
fn complaint(stderr: &str) -> Result<(), Error> {
    let lines: Vec<&str> = stderr.lines().filter(|l| !l.is_empty() && !l.starts_with("debugfs 1.")).take(5).collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::Program { program: "debugfs".into(), status: "commands failed".into(), said: lines.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_goes_folder_by_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.bytes("etc/shadow", "x", 0o600);
        tree.link("usr/bin/[", "busybox");
        tree.own("etc/shadow", 0, 42);
        let script = fill(&tree, scratch.path()).unwrap();
        let etc = script.find("cd \"/etc\"").unwrap();
        assert!(
            script[etc..].contains("sif \"shadow\" mode 0100600\nsif \"shadow\" uid 0\nsif \"shadow\" gid 42\n"),
            "{script}"
        );
        assert!(script.contains("symlink \"[\" \"busybox\""));
    }

    #[test]
    fn silent_failures_are_heard() {
        assert!(complaint("debugfs 1.47.0 (5-Feb-2023)\n").is_ok());
        assert!(
            complaint("debugfs 1.47.0 (5-Feb-2023)\nwrite: Could not allocate block in ext2 filesystem\n").is_err()
        );
    }
}
