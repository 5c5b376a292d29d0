//! The committed eBPF object is what its sources make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
use std::path::Path;
use std::process::Command;

/// The compiler that the object was made with; another may order bytes differently and be right too.
const CLANG: &str = "clang version 14.0";

#[test]
fn the_object_follows_from_its_sources() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let version =
        Command::new("clang").arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    if !version.as_ref().is_ok_and(|v| v.contains(CLANG)) || !Path::new("/usr/include/bpf/bpf_helpers.h").exists() {
        eprintln!("SKIPPED: needs {CLANG} and libbpf-dev");
        return;
    }
    // Built from another place, so that a path which leaks into the object shows.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "plane.bpf.o" {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let built = Command::new(copy.path().join("build")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let (new, committed) =
        (std::fs::read(copy.path().join("plane.bpf.o")).unwrap(), std::fs::read(dir.join("plane.bpf.o")).unwrap());
    assert!(new == committed, "bpf/plane.bpf.o is stale: run netdev/bpf/build and commit it");
}
