//! A writer of small ISO 9660 file systems with Rock Ridge and Joliet names.
//!
//! ```text
//! sector 16  primary descriptor -> tree with short names and Rock Ridge's NM, PX (Linux, BSD)
//! sector 17  Joliet descriptor  -> the same tree with UCS-2 names (Windows, and Linux without RR)
//! sector 18  end of descriptors, then four path tables, both trees, files (shared by both)
//! ```
//! Everything is laid out in one pass over a tree that is in memory: config drives are small. The
//! bytes depend on the content alone, so that writing twice gives the same file.
use std::collections::BTreeMap;

const SECTOR: usize = 2048;
/// Directories that one path-table sector can hold with the longest names.
const FOLDERS_LIMIT: usize = 24;
const FILES_LIMIT: usize = 1000;
/// 2000-01-01, as directory records spell it.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// A folder or a file; folders come before what is in them, breadth first.
struct Node {
    name: String,
    parent: usize,
    /// `None` for a folder.
    bytes: Option<Vec<u8>>,
    children: Vec<usize>,
    /// Its number among its siblings, which makes its short name.
    place: usize,
}

/// Which of the two trees is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    RockRidge,
    Joliet,
}

/// Writes a file system labelled `volume` with `files`, each a path without leading slash and its
/// bytes.
///
/// # Errors
/// When there are too many files or a name cannot be used.
pub fn write(volume: &str, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    if volume.len() > 16 || !volume.is_ascii() {
        return Err("the label must be 16 ASCII characters at most".into());
    }
    let nodes = tree(files)?;
    let folders: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].bytes.is_none()).collect();
    if folders.len() > FOLDERS_LIMIT {
        return Err("too many folders".into());
    }
    let plan = Layout::new(&nodes, &folders);
    let mut out = vec![0; plan.sectors * SECTOR];
    for (at, names) in [(16, Names::RockRidge), (17, Names::Joliet)] {
        let descriptor = plan.descriptor(volume, names);
        out[at * SECTOR..][..SECTOR].copy_from_slice(&descriptor);
    }
    out[18 * SECTOR..][..7].copy_from_slice(b"\xffCD001\x01");
    for names in [Names::RockRidge, Names::Joliet] {
        for big in [false, true] {
            let table = plan.path_table(names, big);
            let sector = plan.table_sector(names, big);
            out[sector * SECTOR..][..table.len()].copy_from_slice(&table);
        }
        for folder in &folders {
            let body = plan.folder(*folder, names);
            let sector = plan.place(*folder, names).0;
            out[sector * SECTOR..][..body.len()].copy_from_slice(&body);
        }
    }
    for (at, node) in nodes.iter().enumerate() {
        if let Some(bytes) = &node.bytes {
            let sector = plan.place(at, Names::RockRidge).0;
            out[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    Ok(out)
}

fn tree(files: &[(String, Vec<u8>)]) -> Result<Vec<Node>, String> {
    if files.len() > FILES_LIMIT {
        return Err("too many files".into());
    }
    // Sorted by path: siblings come in the order of their names.
    let mut levels: BTreeMap<Vec<String>, Option<Vec<u8>>> = BTreeMap::new();
    for (path, bytes) in files {
        let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        let good = |name: &String| {
            let spelled = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
            (1..=60).contains(&name.len()) && name.bytes().all(spelled) && !name.starts_with('.')
        };
        if !parts.iter().all(good) || parts.len() > 6 {
            return Err(format!("{path:?} cannot be a path on the drive"));
        }
        for depth in 1..parts.len() {
            if levels.entry(parts[..depth].to_vec()).or_insert(None).is_some() {
                return Err(format!("{path:?} lies below a file"));
            }
        }
        if levels.insert(parts, Some(bytes.clone())).is_some() {
            return Err(format!("{path:?} is there twice"));
        }
    }
    let mut order: Vec<Vec<String>> = levels.keys().cloned().collect();
    order.sort_by_key(Vec::len);
    let root = Node { name: String::new(), parent: 0, bytes: None, children: Vec::new(), place: 0 };
    let mut nodes = vec![root];
    let mut found: BTreeMap<Vec<String>, usize> = BTreeMap::from([(Vec::new(), 0)]);
    for path in order {
        let above = path[..path.len() - 1].to_vec();
        let parent = found.get(&above).copied().unwrap_or(0);
        let at = nodes.len();
        let place = nodes[parent].children.len();
        nodes[parent].children.push(at);
        nodes.push(Node {
            name: path[path.len() - 1].clone(),
            parent,
            bytes: levels.remove(&path).flatten(),
            children: Vec::new(),
            place,
        });
        found.insert(path, at);
    }
    Ok(nodes)
}

/// Where everything lies.
struct Layout<'a> {
    nodes: &'a [Node],
    folders: &'a [usize],
    /// Sector and bytes of each node in the primary tree, and in Joliet's.
    primary: Vec<(usize, usize)>,
    joliet: Vec<(usize, usize)>,
    sectors: usize,
}

impl<'a> Layout<'a> {
    fn new(nodes: &'a [Node], folders: &'a [usize]) -> Self {
        let empty = vec![(0, 0); nodes.len()];
        let mut plan = Self { nodes, folders, primary: empty.clone(), joliet: empty, sectors: 23 };
        for names in [Names::RockRidge, Names::Joliet] {
            for folder in folders {
                // Lengths of records do not depend on where things lie.
                let length = plan.folder(*folder, names).len();
                let place = (plan.sectors, length);
                match names {
                    Names::RockRidge => plan.primary[*folder] = place,
                    Names::Joliet => plan.joliet[*folder] = place,
                }
                plan.sectors += length / SECTOR;
            }
        }
        for (at, node) in nodes.iter().enumerate() {
            if let Some(bytes) = &node.bytes {
                plan.primary[at] = (plan.sectors, bytes.len());
                plan.joliet[at] = plan.primary[at];
                plan.sectors += bytes.len().div_ceil(SECTOR);
            }
        }
        plan
    }

    fn place(&self, node: usize, names: Names) -> (usize, usize) {
        match names {
            Names::RockRidge => self.primary[node],
            Names::Joliet => self.joliet[node],
        }
    }

    fn table_sector(&self, names: Names, big: bool) -> usize {
        19 + usize::from(names == Names::Joliet) * 2 + usize::from(big)
    }

    /// The records of a folder; a record never crosses a sector.
    fn folder(&self, at: usize, names: Names) -> Vec<u8> {
        let node = &self.nodes[at];
        let mut out = Vec::new();
        let mut add = |record: Vec<u8>| {
            if out.len() % SECTOR + record.len() > SECTOR {
                out.resize(out.len().next_multiple_of(SECTOR), 0);
            }
            out.extend(record);
        };
        let own = if at == 0 { Special::Root } else { Special::Own };
        add(self.record(at, names, own));
        add(self.record(node.parent, names, Special::Parent));
        for child in &node.children {
            add(self.record(*child, names, Special::No));
        }
        out.resize(out.len().next_multiple_of(SECTOR), 0);
        out
    }

    fn record(&self, at: usize, names: Names, special: Special) -> Vec<u8> {
        let (sector, length) = self.place(at, names);
        let folder = self.nodes[at].bytes.is_none();
        let name = match special {
            Special::Root | Special::Own => vec![0],
            Special::Parent => vec![1],
            Special::No => self.name(at, names),
        };
        let mut out = vec![0, 0];
        out.extend(both32(sector));
        out.extend(both32(length));
        out.extend(DATE);
        out.extend([if folder { 2 } else { 0 }, 0, 0]);
        out.extend(both16(1));
        out.push(name.len() as u8);
        out.extend(&name);
        if out.len() % 2 == 1 {
            out.push(0);
        }
        if names == Names::RockRidge {
            self.rock_ridge(at, special, &mut out);
        }
        if out.len() % 2 == 1 {
            out.push(0);
        }
        out[0] = out.len() as u8;
        out
    }

    /// System use entries: mode and owner, the real name, and in the root that they are there.
    fn rock_ridge(&self, at: usize, special: Special, out: &mut Vec<u8>) {
        if special == Special::Root {
            out.extend(b"SP\x07\x01\xbe\xef\x00");
            out.extend(b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A");
        }
        let (mode, links) = match self.nodes[at].bytes {
            None => (0o040_555, 2),
            Some(_) => (0o100_444, 1),
        };
        out.extend(b"PX\x24\x01");
        for value in [mode, links, 0, 0] {
            out.extend(both32(value));
        }
        if special == Special::No {
            let name = self.nodes[at].name.as_bytes();
            out.extend([b'N', b'M', 5 + name.len() as u8, 1, 0]);
            out.extend(name);
        }
    }

    /// The name in a record: short and numbered in the primary tree, UCS-2 in Joliet's.
    fn name(&self, at: usize, names: Names) -> Vec<u8> {
        let node = &self.nodes[at];
        let folder = node.bytes.is_none();
        match names {
            Names::RockRidge if folder => format!("N{:04}", node.place).into_bytes(),
            Names::RockRidge => format!("N{:04}.DAT;1", node.place).into_bytes(),
            Names::Joliet => ucs2(&node.name),
        }
    }

    fn path_table(&self, names: Names, big: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for folder in self.folders {
            let node = &self.nodes[*folder];
            let name = if *folder == 0 { vec![0] } else { self.name(*folder, names) };
            let sector = self.place(*folder, names).0 as u32;
            let above = self.folders.iter().position(|f| *f == node.parent);
            let above = above.unwrap_or(0) as u16 + 1;
            out.extend([name.len() as u8, 0]);
            if big {
                out.extend(sector.to_be_bytes());
                out.extend(above.to_be_bytes());
            } else {
                out.extend(sector.to_le_bytes());
                out.extend(above.to_le_bytes());
            }
            out.extend(&name);
            if name.len() % 2 == 1 {
                out.push(0);
            }
        }
        out
    }

    fn descriptor(&self, volume: &str, names: Names) -> Vec<u8> {
        let joliet = names == Names::Joliet;
        let mut out = vec![0; SECTOR];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let text = |text: &str, room: usize| {
            let mut bytes = if joliet { ucs2(text) } else { text.as_bytes().to_vec() };
            let blank: &[u8] = if joliet { &[0, b' '] } else { b" " };
            while bytes.len() + blank.len() <= room {
                bytes.extend(blank);
            }
            bytes.resize(room, 0);
            bytes
        };
        put(0, if joliet { b"\x02CD001\x01" } else { b"\x01CD001\x01" });
        put(8, &text("LINUX", 32));
        put(40, &text(volume, 32));
        put(80, &both32(self.sectors));
        if joliet {
            put(88, b"%/E");
        }
        put(120, &both16(1));
        put(124, &both16(1));
        put(128, &both16(SECTOR));
        put(132, &both32(self.path_table(names, false).len()));
        put(140, &(self.table_sector(names, false) as u32).to_le_bytes());
        put(148, &(self.table_sector(names, true) as u32).to_be_bytes());
        // The root's record here has no system use entries.
        let mut root = self.record(0, Names::Joliet, Special::Own);
        let (sector, length) = self.place(0, names);
        root[2..10].copy_from_slice(&both32(sector));
        root[10..18].copy_from_slice(&both32(length));
        put(156, &root);
        for (at, room) in [(190, 128), (318, 128), (446, 128), (574, 128), (702, 37), (739, 37), (776, 37)] {
            put(at, &text("", room));
        }
        for at in [813, 830] {
            put(at, b"2000010100000000\0");
        }
        for at in [847, 864] {
            put(at, b"0000000000000000\0");
        }
        put(881, &[1]);
        out
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    /// "." of the root folder.
    Root,
    /// "." of another folder.
    Own,
    /// "..".
    Parent,
    No,
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A number in both byte orders, as the format has it.
fn both32(value: usize) -> [u8; 8] {
    let value = value as u32;
    let mut out = [0; 8];
    out[..4].copy_from_slice(&value.to_le_bytes());
    out[4..].copy_from_slice(&value.to_be_bytes());
    out
}

fn both16(value: usize) -> [u8; 4] {
    let value = value as u16;
    let mut out = [0; 4];
    out[..2].copy_from_slice(&value.to_le_bytes());
    out[2..].copy_from_slice(&value.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sample() -> Vec<(String, Vec<u8>)> {
        let long: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
        let mut files = vec![
            ("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec()),
            ("openstack/latest/user_data".to_owned(), long),
            ("openstack/empty".to_owned(), Vec::new()),
            ("ec2/latest/meta-data.json".to_owned(), b"ec2".to_vec()),
        ];
        for i in 0..60 {
            files.push((format!("many/a-rather-long-file-name-{i:03}"), vec![i]));
        }
        files
    }

    /// isoinfo, a reader that we did not write; `None` when the machine has none.
    fn isoinfo(iso: &[u8], arguments: &[&str]) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iso");
        std::fs::write(&path, iso).unwrap();
        let output = Command::new("isoinfo").args(arguments).arg("-i").arg(&path).output().ok()?;
        Some(output.stdout)
    }

    #[test]
    fn another_reader_finds_everything() {
        let iso = write("config-2", &sample()).unwrap();
        for mode in ["-R", "-J"] {
            for (path, bytes) in sample() {
                let Some(read) = isoinfo(&iso, &[mode, "-x", &format!("/{path}")]) else {
                    eprintln!("skipped: isoinfo is not installed");
                    return;
                };
                assert_eq!(read, bytes, "{mode} {path}");
            }
        }
        let about = String::from_utf8(isoinfo(&iso, &["-d"]).unwrap()).unwrap();
        for line in ["Volume id: config-2", "Joliet with UCS level 3", "Rock Ridge signatures version 1"] {
            assert!(about.contains(line), "{about}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        let file = |path: &str| (path.to_owned(), Vec::new());
        for bad in [
            vec![file("")],
            vec![file("/a")],
            vec![file("a/../b")],
            vec![file("a"), file("a")],
            vec![file("a"), file("a/b")],
            vec![file(&"n".repeat(61))],
            (0..40).map(|i| file(&format!("d{i}/f"))).collect(),
        ] {
            assert!(write("x", &bad).is_err(), "{:?}", bad.first());
        }
        assert!(write("a label that is too long", &[]).is_err());
        assert_eq!(write("empty", &[]).unwrap().len() % SECTOR, 0);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        assert_eq!(write("x", &sample()).unwrap(), write("x", &sample()).unwrap());
    }
}
