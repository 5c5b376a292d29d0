//! What is on the guest's root disk and in its initrd, as trees: BusyBox with a link per program, the recipe's
//! programs with their shared libraries, kernel modules with their indexes, and our own files.

use std::path::Path;

use crate::error::Error;
use crate::guest::{self, INITRD_INIT};
use crate::modules::{self, Kernel};
use crate::recipe::{BOOT_MODULES, Kind, ROOT_MODULES, SPARE_BOOT_MODULES};
use crate::tool;
use crate::tree::{Tree, merged};
use crate::unpacked::Unpacked;

/// The cloud's user in the guest, as in CirrOS.
const USER_ID: u32 = 1000;
/// What the initrd's program calls.
const INITRD_APPLETS: &[&str] =
    &["sh", "mount", "insmod", "dd", "printf", "readlink", "blockdev", "findfs", "sleep", "switch_root", "ls", "tr"];

/// The tree of the root disk.
pub fn root(kind: Kind, packages: &Unpacked, kernel: &Kernel) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    folders(&mut tree);
    let busybox = packages.file("busybox-static", "bin/busybox")?;
    applets(&mut tree, &busybox, &kind.no_applets())?;
    let mut programs = Vec::new();
    for (package, path, mode) in kind.files() {
        let file = packages.file(package, path)?;
        tree.file(&merged(path), &file, mode);
        programs.push(file);
    }
    for (package, path) in kind.folders() {
        tree.folder(&merged(path), &packages.folder(package, path)?)?;
    }
    for (path, file) in packages.libraries(&programs)? {
        tree.file(&merged(&path), &file, 0o755);
    }
    for (path, target) in kind.links() {
        tree.link(path, target);
    }
    let list = kernel.ordered(ROOT_MODULES)?;
    let folder = format!("usr/lib/modules/{}", kernel.release);
    for module in &list {
        tree.file(&format!("{folder}/{}", module.path), &module.file, 0o644);
    }
    tree.bytes(&format!("{folder}/modules.dep"), modules::dep_file(&list), 0o644);
    tree.bytes(&format!("{folder}/modules.alias"), modules::alias_file(&list), 0o644);
    let left_out = kind.left_out();
    for file in guest::ALL.iter().filter(|f| f.path != INITRD_INIT && !left_out.contains(&f.path)) {
        tree.bytes(file.path, [file.content, kind.further(file.path).as_bytes()].concat(), file.mode);
    }
    Ok(tree)
}

fn folders(tree: &mut Tree) {
    for path in [
        "dev",
        "proc",
        "sys",
        "run",
        "mnt",
        "media",
        "opt",
        "etc/dropbear",
        "usr/lib64",
        "usr/local/bin",
        "usr/local/sbin",
        "var/log",
        "var/lib",
    ] {
        tree.dir(path, 0o755);
    }
    for (path, mode) in [("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("var/lib/starter", 0o700)] {
        tree.dir(path, mode);
    }
    tree.dir("home/cirros", 0o755);
    tree.dir("home/cirros/.ssh", 0o700);
    tree.bytes("home/cirros/.ssh/authorized_keys", "", 0o600);
    for path in ["home/cirros", "home/cirros/.ssh", "home/cirros/.ssh/authorized_keys"] {
        tree.own(path, USER_ID, USER_ID);
    }
}

/// BusyBox and a link for every program in it. It is static, so it runs on any host of its machine kind.
fn applets(tree: &mut Tree, busybox: &Path, without: &[&str]) -> Result<(), Error> {
    let output = tool::run(tool::command(busybox).arg("--list-full"))?;
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || without.contains(&name) {
            continue;
        }
        let path = if path.contains('/') { merged(path) } else { format!("usr/bin/{path}") };
        let target = if path.starts_with("usr/bin/") { "busybox" } else { "../bin/busybox" };
        tree.link(&path, target);
    }
    // Set-user-id as in CirrOS, for ping and su: BusyBox gives the right up at once in every other program.
    tree.file("usr/bin/busybox", busybox, 0o4755);
    Ok(())
}

/// The tree of the initrd.
pub fn initrd(packages: &Unpacked, kernel: &Kernel) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    for path in ["dev", "proc", "sys", "root"] {
        tree.dir(path, 0o755);
    }
    tree.file("bin/busybox", &packages.file("busybox-static", "bin/busybox")?, 0o755);
    for applet in INITRD_APPLETS {
        tree.link(&format!("bin/{applet}"), "busybox");
    }
    let first = kernel.ordered(BOOT_MODULES)?;
    let mut spare = kernel.ordered(SPARE_BOOT_MODULES)?;
    spare.retain(|m| first.iter().all(|f| f.name != m.name));
    for (list, name) in [(&first, "order"), (&spare, "spare")] {
        let mut lines = String::new();
        for module in list {
            tree.file(&format!("lib/modules/{}.ko", module.name), &module.file, 0o644);
            lines.push_str(&format!("{}.ko\n", module.name));
        }
        tree.bytes(&format!("lib/modules/{name}"), lines, 0o644);
    }
    for file in guest::ALL.iter().filter(|f| f.path == INITRD_INIT) {
        tree.bytes(file.path, file.content, file.mode);
    }
    Ok(tree)
}
