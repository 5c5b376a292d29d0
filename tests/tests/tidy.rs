//! The source against the project's invariants: the architecture as a test.
//!
//! Each rule names what it found by file and line, so that a failure says what to do. The rules read text,
//! not syntax: they are meant to be cheap and to err on the side of asking.
#![allow(clippy::unwrap_used)] // a broken checkout may panic here: that is the finding
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const LINES_HARD: usize = 800;
const FUNCTION_LINES: usize = 70;
/// Files longer than wanted (400 lines): their number may fall, not grow.
const LONG_FILES: usize = 45;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Lines that are code, without tests and comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let module = |i: usize| {
            lines[i].contains("#[cfg(test)]")
                && lines.get(i + 1).is_some_and(|l| l.contains("mod ") && l.ends_with('{'))
        };
        let cut = (0..lines.len()).find(|i| module(*i)).unwrap_or(lines.len());
        lines
            .into_iter()
            .take(cut)
            .enumerate()
            .map(|(i, l)| (i + 1, l))
            .filter(|(_, l)| !l.trim_start().starts_with("//"))
    }
    fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.iter().any(|p| matches!(*p, "tests" | "examples" | "benches" | "fuzz"))
            || self.path.ends_with("tests.rs")
            || self.path.ends_with("/testing.rs")
    }
    fn within(&self, folders: &[&str]) -> bool {
        folders.iter().any(|f| self.path.starts_with(f))
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "corpus" && name != "artifacts" {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let root = root();
    files()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|p| Source {
            path: p.strip_prefix(&root).unwrap().to_string_lossy().into_owned(),
            text: fs::read_to_string(&p).unwrap(),
        })
        .collect()
}

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn lines_with(sources: &[Source], words: &[&str], but: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|s| !s.is_test() && !but(s)) {
        for (number, line) in source.code() {
            if let Some(word) = words.iter().find(|w| line.contains(**w)) {
                found.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    found
}

#[test]
fn every_file_opens_with_its_story() {
    let silent = sources()
        .iter()
        .filter(|s| !s.text.starts_with("//!") && !s.text.starts_with("#!"))
        .map(|s| s.path.clone())
        .collect();
    none("files without a `//!` story at their top", silent);
}

#[test]
fn files_are_small() {
    let sources = sources();
    let length = |s: &Source| s.text.lines().count();
    none(
        "files of more than 800 lines",
        sources.iter().filter(|s| length(s) > LINES_HARD).map(|s| format!("{} ({})", s.path, length(s))).collect(),
    );
    let long: Vec<_> = sources.iter().filter(|s| length(s) > 400).map(|s| s.path.as_str()).collect();
    assert!(
        long.len() <= LONG_FILES,
        "{} files have more than 400 lines; the ratchet stands at {LONG_FILES}: {long:#?}",
        long.len()
    );
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let word = line.trim_start();
            let is_fn = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(crate) async fn ",
                "pub(super) fn ",
            ];
            if !is_fn.iter().any(|w| word.starts_with(w)) {
                continue;
            }
            let indent = &line[..line.len() - word.len()];
            let end = lines[start..].iter().position(|l| *l == format!("{indent}}}")).unwrap_or(0);
            if end > FUNCTION_LINES {
                found.push(format!("{}:{} ({end} lines)", source.path, start + 1));
            }
        }
    }
    none("functions of more than 70 lines", found);
}

#[test]
fn nothing_panics_or_prints_outside_tests() {
    let words = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "dbg!("];
    none("panics outside tests", lines_with(&sources(), &words, |_| false));
    let prints = ["println!(", "eprintln!(", "print!("];
    let may_print =
        |s: &Source| s.path == "scheduler/src/output.rs" || s.path.ends_with("main.rs") || s.path.ends_with("build.rs");
    let found = lines_with(&sources(), &prints, may_print);
    let vmm_journal: Vec<String> = found.into_iter().filter(|f| !f.starts_with("vmm/src/journal.rs")).collect();
    none("prints outside the one module that writes for people", vmm_journal);
}

#[test]
fn unsafe_is_where_it_is_allowed_and_justified() {
    let allowed = ["vmm/", "netdev/", "agent/ramdisk/", "tests/guest/"];
    let mut found = lines_with(&sources(), &["unsafe {", "unsafe fn", "unsafe impl"], |s| s.within(&allowed));
    for source in sources().iter().filter(|s| s.within(&["vmm/", "netdev/"]) && !s.is_test()) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if line.contains("unsafe {") && !line.trim_start().starts_with("//") {
                let near = lines[i.saturating_sub(6)..=i].iter().any(|l| l.contains("SAFETY"));
                if !near {
                    found.push(format!("{}:{}: no SAFETY comment", source.path, i + 1));
                }
            }
        }
    }
    none("unsafe", found);
}

#[test]
fn pure_files_do_no_input_or_output() {
    let pure = |s: &Source| {
        s.within(&["scheduler/place/"])
            || s.path.ends_with("/model.rs")
            || s.path == "netdev/src/plan.rs"
            || s.path == "agent/src/instance/plan.rs"
    };
    let words = [
        "std::fs",
        "tokio::",
        ".await",
        "std::net::Tcp",
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now",
        "rand::",
    ];
    none("input or output in pure files (place, model.rs, plan.rs)", lines_with(&sources(), &words, |s| !pure(s)));
}

#[test]
fn only_netlink_rs_talks_netlink() {
    let words = ["rtnetlink::", "netlink_packet_route", "netlink_sys::", "NETLINK_ROUTE"];
    none(
        "netlink outside netdev/src/netlink.rs",
        lines_with(&sources(), &words, |s| s.path == "netdev/src/netlink.rs"),
    );
}

#[test]
fn the_packet_path_and_the_vmm_know_no_cloud() {
    let words = ["openstack", "nova", "neutron", "keystone", "tenant", "pilvi_kit", "pilvi_store", "pilvi_agent"];
    let inside = |s: &Source| s.within(&["vmm/src/", "netdev/src/"]);
    none("cloud words in vmm or netdev", lines_with(&sources(), &words, |s| !inside(s)));
}

#[test]
fn the_kit_names_no_service() {
    let words = [
        "pilvi_identity",
        "pilvi_compute",
        "pilvi_network",
        "pilvi_image",
        "pilvi_placement",
        "\"nova\"",
        "\"neutron\"",
        "\"glance\"",
    ];
    none("a service's name in the kit", lines_with(&sources(), &words, |s| !s.within(&["scheduler/kit/src/"])));
}

#[test]
fn http_stays_in_the_kit() {
    let words = ["axum::", "hyper::", "tower::", "http::Request", "reqwest::"];
    let found = lines_with(&sources(), &words, |s| {
        !s.within(&["scheduler/services/", "scheduler/place/", "scheduler/reconcile/", "scheduler/store/"])
    });
    none("HTTP types in services (services call each other through ops)", found);
}

#[test]
fn only_tables_name_columns_and_only_views_look_at_microversions() {
    let services = |s: &Source| s.within(&["scheduler/services/"]);
    none(
        "columns outside tables.rs or tables/",
        lines_with(&sources(), &["Column::text(", "Column::int("], |s| !services(s) || s.path.contains("/tables")),
    );
}

/// The manifests are the architecture diagram.
#[test]
fn crates_depend_only_downwards() {
    let root = root();
    let mut found = Vec::new();
    for path in files().into_iter().filter(|p| p.ends_with("Cargo.toml")) {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let dependencies = manifest.get("dependencies").and_then(|d| d.as_table()).cloned().unwrap_or_default();
        let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).filter(|d| d.starts_with("pilvi")).collect();
        let forbidden: &[&str] = match name.as_str() {
            n if n.starts_with("vmm/")
                || n.starts_with("netdev/")
                || n.starts_with("disk/")
                || n.starts_with("starter/") =>
            {
                &["pilvi"]
            }
            "scheduler/store/Cargo.toml" | "scheduler/place/Cargo.toml" | "agent/api/Cargo.toml" => &["pilvi"],
            "scheduler/kit/Cargo.toml" => &[
                "pilvi-identity",
                "pilvi-image",
                "pilvi-network",
                "pilvi-compute",
                "pilvi-placement",
                "pilvi-fleet",
                "pilvi-agent",
            ],
            n if n.starts_with("agent/") => &[
                "pilvi-store",
                "pilvi-kit",
                "pilvi-fleet",
                "pilvi-identity",
                "pilvi-image",
                "pilvi-network",
                "pilvi-compute",
            ],
            n if n.starts_with("scheduler/") && n != "scheduler/Cargo.toml" => {
                &["pilvi-vmm", "pilvi-netdev", "pilvi-starter"]
            }
            _ => &[],
        };
        let bad = |d: &&str| forbidden.iter().any(|f| *f == "pilvi" || f == d) || **d == *"pilvi";
        found.extend(ours.iter().filter(|d| bad(d)).map(|d| format!("{name}: {d}")));
    }
    none("dependencies against the direction of the design", found);
}

#[test]
fn shared_versions_stand_in_the_workspace_manifest() {
    let mut found = Vec::new();
    for path in files().into_iter().filter(|p| p.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(&path).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        if manifest.contains_key("workspace") {
            continue;
        }
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(table).and_then(|d| d.as_table()).into_iter().flatten() {
                let shared = value.as_table().is_some_and(|t| t.contains_key("workspace") || t.contains_key("path"));
                if !shared {
                    found.push(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    none("dependencies that do not take the workspace's version", found);
}

#[test]
fn one_crypto_provider_and_no_c_libraries_for_it() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let banned = ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls", "bindgen", "cmake"];
    let found = banned.iter().filter(|b| lock.contains(&format!("name = \"{b}\""))).map(|b| (*b).to_owned()).collect();
    none("banned packages in Cargo.lock", found);
}

#[test]
fn no_catch_all_files_and_no_marks_of_unfinished_work() {
    let bad_names = ["utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "misc.rs"];
    none(
        "catch-all files",
        sources()
            .iter()
            .filter(|s| bad_names.iter().any(|b| s.path.ends_with(&format!("/{b}"))))
            .map(|s| s.path.clone())
            .collect(),
    );
    let marks: Vec<String> =
        ["TO", "FIX", "XX"].iter().zip(["DO", "ME", "X"]).map(|(a, b)| format!("{a}{b}")).collect();
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.path.ends_with("tidy.rs")) {
        for (i, line) in source.text.lines().enumerate() {
            if marks.iter().any(|m| line.contains(&format!("{m}:")) || line.contains(&format!("{m} "))) {
                found.push(format!("{}:{}", source.path, i + 1));
            }
        }
    }
    none("marks of unfinished work", found);
}
