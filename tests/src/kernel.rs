//! What the kernel says: processes, mounts, namespaces, devices. The judges of "nothing is left".
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Processes that work in `folder` or below it, name it on their command line or are guests there: (pid, command line).
#[must_use]
pub fn processes(folder: &Path) -> BTreeMap<u32, String> {
    let word = folder.to_string_lossy().into_owned();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let works_in = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let guest = marked(pid).is_some_and(|g| g.starts_with(folder));
        if !line.is_empty() && (line.contains(&word) || works_in.starts_with(folder) || guest) {
            found.insert(pid, line);
        }
    }
    found
}

/// The mark that an agent leaves in the environment of each guest process: its instance's folder.
const MARK: &str = "PILVI_GUEST=";

fn marked(pid: u32) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let words = environment.split(|b| *b == 0).map(String::from_utf8_lossy);
    words.into_iter().find_map(|w| w.strip_prefix(MARK).map(PathBuf::from))
}

/// Guests of an agent whose state lies in `agent`: instance id -> process ids.
#[must_use]
pub fn guests(agent: &Path) -> BTreeMap<String, Vec<u32>> {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let instances = agent.join("instances");
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Some(folder) = marked(pid).filter(|_| state_letter(pid) != Some('Z')) else { continue };
        if let Some(id) = folder.strip_prefix(&instances).ok().and_then(|rest| rest.components().next()) {
            found.entry(id.as_os_str().to_string_lossy().into_owned()).or_default().push(pid);
        }
    }
    found
}

/// The letter that /proc gives for a process: R, S, T, Z, ...
#[must_use]
pub fn state_letter(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Mount points at or below `folder`.
#[must_use]
pub fn mounts(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|l| l.split(' ').nth(4));
    points.filter(|p| Path::new(p).starts_with(folder)).map(str::to_owned).collect()
}

/// Named network namespaces that begin with `prefix`.
#[must_use]
pub fn namespaces(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|n| n.starts_with(prefix));
    names.sort();
    names
}

fn output(program: &str, arguments: &[&str]) -> String {
    let run = Command::new(program).args(arguments).output();
    run.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
}

/// Names of the taps in a namespace.
#[must_use]
pub fn taps(namespace: &str) -> Vec<String> {
    let text = output("ip", &["-n", namespace, "-o", "link"]);
    let names = text.lines().filter_map(|l| l.split(": ").nth(1));
    names.filter(|n| n.starts_with("tap")).map(|n| n.split('@').next().unwrap_or(n).to_owned()).collect()
}

/// nft tables of a namespace.
#[must_use]
pub fn nft_tables(namespace: &str) -> Vec<String> {
    output("ip", &["netns", "exec", namespace, "nft", "list", "tables"]).lines().map(str::to_owned).collect()
}

/// Everything in a folder, by name; empty when there is none.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    found.sort();
    found
}

/// Resident KiB and threads of a process.
#[must_use]
pub fn footprint(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("Threads:"))
}
