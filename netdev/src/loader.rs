//! Programs and tables in the kernel, kept there by pins.
//!
//! ```text
//!   <state_dir>/bpf            a bpffs of this packet path alone
//!     t1/<table>               tables; the number is LAYOUT
//!     p-<hash>/<program>       programs of one build
//!     links-<cookie>/<ifindex>-<hook>-<program>      of the namespace with this cookie: another counts its interfaces anew
//! ```
//! Pinned links forward on their own: an agent that dies or is replaced drops no packet. A new build finds
//! another hash, loads its programs over the same tables and swaps them into the links one by one.
use crate::bpf::Map;
use crate::error::{Error, Result, Step};
use crate::namespace;
use crate::table::{Table, Tables, name64};
use aya::EbpfLoader;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Raised with every change of `bpf/tables.h`.
const LAYOUT: u32 = 10;
const OBJECT: &[u8] = include_bytes!("../bpf/plane.bpf.o");
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Rows of one table that a dump reads at most.
const DUMP_LIMIT: usize = 1 << 21;

/// The programs of `bpf/plane.bpf.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    FromGuest,
    ToGuest,
    FromOverlay,
    FromEdge,
    ToEdge,
    FromAgent,
    WrapCopy,
    SendCopy,
}

impl Program {
    pub const ALL: [Program; 8] = [
        Program::FromGuest,
        Program::ToGuest,
        Program::FromOverlay,
        Program::FromEdge,
        Program::ToEdge,
        Program::FromAgent,
        Program::WrapCopy,
        Program::SendCopy,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Program::FromGuest => "from_guest",
            Program::ToGuest => "to_guest",
            Program::FromOverlay => "from_overlay",
            Program::FromEdge => "from_edge",
            Program::ToEdge => "to_edge",
            Program::FromAgent => "from_agent",
            Program::WrapCopy => "wrap_copy",
            Program::SendCopy => "send_copy",
        }
    }

    /// The hook that the program is written for, as the pin's name says it.
    #[must_use]
    pub fn hook(self) -> &'static str {
        match self {
            Program::FromGuest | Program::FromOverlay | Program::FromEdge | Program::WrapCopy | Program::SendCopy => {
                "in"
            }
            Program::ToGuest | Program::ToEdge | Program::FromAgent => "out",
        }
    }

    fn attach_type(self) -> TcAttachType {
        if self.hook() == "in" { TcAttachType::Ingress } else { TcAttachType::Egress }
    }
}

/// A program on a device.
pub type Attached = (u32, Program);

pub struct Loader {
    bpffs: PathBuf,
    /// Where the links of the calling thread's namespace are pinned.
    links: PathBuf,
    programs: HashMap<Program, SchedClassifier>,
    maps: BTreeMap<Table, Map>,
}

fn program_error(what: &'static str) -> impl Fn(String) -> Error {
    move |message| Error::Program { what, message }
}

pub(crate) fn tables_dir(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("t{LAYOUT}"))
}

/// Opens the pin of one of the tables that the agent only looks at.
pub(crate) fn open_side_table(bpffs: &Path, name: &str, key: usize, value: usize, per_cpu: bool) -> Result<Map> {
    Map::open(&tables_dir(bpffs).join(name), key, value, per_cpu).step(format!("open table {name}"))
}

/// Mounts the private bpffs unless it is there.
pub fn mount_bpffs(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).step("create the bpffs directory")?;
    if is_bpffs(dir) {
        return Ok(());
    }
    mount(Some("bpf"), dir, Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, Some("mode=0700"))
        .step("mount bpffs")
}

fn is_bpffs(dir: &Path) -> bool {
    nix::sys::statfs::statfs(dir).is_ok_and(|s| s.filesystem_type().0 == BPF_FS_MAGIC)
}

/// Forgets all links: their namespace is gone.
pub fn forget_links(bpffs: &Path) -> Result<()> {
    for path in pinned_links(bpffs)? {
        fs::remove_dir_all(&path).step("forget links")?;
    }
    Ok(())
}

/// The folders of links: one, but where a namespace went.
fn pinned_links(bpffs: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(bpffs).step("list pins")? {
        let path = entry.step("list pins")?.path();
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with("links")) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The place for links of the calling thread's namespace. Those of a namespace that is gone are forgotten, whoever made this one: the
/// numbers of their interfaces mean others here.
fn open_links(bpffs: &Path) -> Result<PathBuf> {
    let links = bpffs.join(format!("links-{:016x}", namespace::cookie()?));
    // What builds pinned that did not tell namespaces apart.
    let former = bpffs.join("links");
    if former.exists() && !links.exists() {
        fs::rename(&former, &links).step("rename the folder of links")?;
    }
    for other in pinned_links(bpffs)?.into_iter().filter(|path| *path != links) {
        fs::remove_dir_all(&other).step("forget links")?;
    }
    fs::create_dir_all(&links).step("create pin directories")?;
    Ok(links)
}

/// Unmounts it, and with it goes every pin.
pub fn unmount_bpffs(dir: &Path) -> Result<()> {
    while is_bpffs(dir) {
        umount2(dir, MntFlags::MNT_DETACH).step("unmount bpffs")?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).step("remove the bpffs directory"),
        _ => Ok(()),
    }
}

impl Loader {
    /// Finds or makes tables and programs; links of an older build get the new programs.
    pub fn open(bpffs: &Path) -> Result<Self> {
        let hash = name64(&OBJECT.iter().map(|b| char::from(*b)).collect::<String>());
        let dir = bpffs.join(format!("p-{hash:016x}"));
        let links = open_links(bpffs)?;
        for d in [&dir, &tables_dir(bpffs)] {
            fs::create_dir_all(d).step("create pin directories")?;
        }
        let mut programs = HashMap::new();
        for p in Program::ALL {
            if let Ok(found) = SchedClassifier::from_pin(dir.join(p.name())) {
                programs.insert(p, found);
            }
        }
        if programs.len() < Program::ALL.len() || !tables_dir(bpffs).join("drops").exists() {
            programs = load(bpffs, &dir)?;
        }
        let mut maps = BTreeMap::new();
        for t in Table::ALL {
            let (key, value) = t.sizes();
            let map = Map::open(&tables_dir(bpffs).join(t.name()), key, value, false)
                .step(format!("open table {}", t.name()))?;
            maps.insert(t, map);
        }
        let mut loader = Self { bpffs: bpffs.to_owned(), links, programs, maps };
        loader.retire_others(&dir)?;
        Ok(loader)
    }

    /// Swaps this build's programs into links of other builds, then forgets those builds.
    fn retire_others(&mut self, current: &Path) -> Result<()> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.bpffs).step("list pins")? {
            let path = entry.step("list pins")?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let old_tables = name.starts_with('t') && path != tables_dir(&self.bpffs);
            if old_tables || (name.starts_with("p-") && path != current) {
                others.push(path);
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        for (ifindex, program) in self.attached()? {
            let pin = PinnedLink::from_pin(self.pin(ifindex, program))
                .map_err(|e| program_error("reopen link")(e.to_string()))?;
            let link = SchedClassifierLink::try_from(FdLink::from(pin))
                .map_err(|e| program_error("reopen link")(e.to_string()))?;
            let classifier = self.classifier(program)?;
            // A link whose device went away cannot be updated; the plan removes its pin.
            if let Ok(id) = classifier.attach_to_link(link) {
                drop(classifier.take_link(id));
            }
        }
        for path in others {
            fs::remove_dir_all(&path).step("remove pins of another build")?;
        }
        Ok(())
    }

    fn classifier(&mut self, program: Program) -> Result<&mut SchedClassifier> {
        self.programs.get_mut(&program).ok_or_else(|| program_error("find program")(program.name().into()))
    }

    fn pin(&self, ifindex: u32, program: Program) -> PathBuf {
        self.links.join(format!("{ifindex}-{}-{}", program.hook(), program.name()))
    }

    /// What is attached, by the pins.
    pub fn attached(&self) -> Result<BTreeSet<Attached>> {
        let mut out = BTreeSet::new();
        for entry in fs::read_dir(&self.links).step("list links")? {
            let name = entry.step("list links")?.file_name();
            let Some(name) = name.to_str() else { continue };
            let mut parts = name.split('-');
            let ifindex = parts.next().and_then(|i| i.parse::<u32>().ok());
            let program = parts.nth(1).and_then(|p| Program::ALL.into_iter().find(|q| q.name() == p));
            if let (Some(ifindex), Some(program)) = (ifindex, program) {
                out.insert((ifindex, program));
            }
        }
        Ok(out)
    }

    /// Attaches a program to a device of the calling thread's namespace and pins the link.
    pub fn attach(&mut self, device: &str, ifindex: u32, program: Program) -> Result<()> {
        let pin = self.pin(ifindex, program);
        let classifier = self.classifier(program)?;
        let failed = program_error("attach program");
        let id = classifier
            .attach_with_options(device, program.attach_type(), TcAttachOptions::TcxOrder(LinkOrder::default()))
            .map_err(|e| failed(format!("{} to {device}: {}", program.name(), chain(&e))))?;
        let link = classifier.take_link(id).map_err(|e| failed(e.to_string()))?;
        let link = FdLink::try_from(link).map_err(|e| failed(e.to_string()))?;
        link.pin(pin).map_err(|e| failed(chain(&e)))?;
        Ok(())
    }

    /// Removes a pin; the link goes with it.
    pub fn detach(&self, ifindex: u32, program: Program) -> Result<()> {
        match fs::remove_file(self.pin(ifindex, program)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).step("remove link pin"),
            _ => Ok(()),
        }
    }

    pub fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.maps.get(&table).ok_or(Error::Closed)?.put(key, value).step(format!("write {}", table.name()))
    }

    pub fn delete(&self, table: Table, key: &[u8]) -> Result<()> {
        self.maps.get(&table).ok_or(Error::Closed)?.delete(key).step(format!("delete from {}", table.name()))
    }

    /// Reads all tables back.
    pub fn dump(&self) -> Result<Tables> {
        let mut out = Tables::new();
        for (table, map) in &self.maps {
            let rows = out.entry(*table).or_default();
            for key in map.keys(DUMP_LIMIT).step(format!("list {}", table.name()))? {
                if let Some(value) = map.get(&key).step(format!("read {}", table.name()))? {
                    rows.insert(key, value);
                }
            }
        }
        Ok(out)
    }
}

fn load(bpffs: &Path, dir: &Path) -> Result<HashMap<Program, SchedClassifier>> {
    let failed = program_error("load programs");
    let mut object =
        EbpfLoader::new().default_map_pin_directory(tables_dir(bpffs)).load(OBJECT).map_err(|e| failed(chain(&e)))?;
    let mut out = HashMap::new();
    for p in Program::ALL {
        let program = object.program_mut(p.name()).ok_or_else(|| failed(format!("no {}", p.name())))?;
        let classifier: &mut SchedClassifier = program.try_into().map_err(|e| failed(chain(&e)))?;
        classifier.load().map_err(|e| failed(format!("{}: {}", p.name(), chain(&e))))?;
        let pin = dir.join(p.name());
        if pin.exists() {
            fs::remove_file(&pin).step("replace program pin")?;
        }
        classifier.pin(&pin).map_err(|e| failed(chain(&e)))?;
        out.insert(p, SchedClassifier::from_pin(&pin).map_err(|e| failed(chain(&e)))?);
    }
    Ok(out)
}

/// An error with its causes: aya's outer messages alone do not say what the kernel answered.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    // A verifier log can be a megabyte; its end says why.
    let cut = text.char_indices().rev().nth(2000).map_or(0, |(i, _)| i);
    text.split_off(cut)
}
