//! Kernel modules: which files a list of module names means, dependencies first, and the two index files that
//! modprobe reads in the guest. The facts come from the modules themselves, so no depmod is needed on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::elf;
use crate::error::Error;

/// The kernel package.
pub struct Kernel {
    /// As in `uname -r`.
    pub release: String,
    pub image: PathBuf,
    /// `lib/modules/<release>` of the package.
    folder: PathBuf,
    /// Module name (with underscores) -> path below `folder`.
    files: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

/// One module with what it needs.
#[derive(Debug, Clone)]
pub struct Module {
    pub name: String,
    /// Path below `lib/modules/<release>`.
    pub path: String,
    pub file: PathBuf,
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Kernel {
    /// Reads an unpacked kernel package.
    pub fn open(package: &Path) -> Result<Kernel, Error> {
        let modules = package.join("lib/modules");
        let release =
            entries(&modules)?.into_iter().next().ok_or_else(|| Error::Recipe { what: "kernel modules".into() })?;
        let folder = modules.join(&release);
        let image = package.join("boot").join(format!("vmlinuz-{release}"));
        if !image.is_file() {
            return Err(Error::Recipe { what: format!("vmlinuz-{release}") });
        }
        let mut files = BTreeMap::new();
        let mut left = vec!["kernel".to_owned()];
        while let Some(path) = left.pop() {
            for entry in entries(&folder.join(&path))? {
                let below = format!("{path}/{entry}");
                if let Some(name) = entry.strip_suffix(".ko") {
                    files.insert(name.replace('-', "_"), below);
                } else if folder.join(&below).is_dir() {
                    left.push(below);
                }
            }
        }
        let list = folder.join("modules.builtin");
        let text = std::fs::read_to_string(&list).map_err(Error::io("read", &list))?;
        let builtin =
            text.lines().filter_map(|l| Some(l.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_"))).collect();
        Ok(Kernel { release, image, folder, files, builtin })
    }

    fn module(&self, name: &str) -> Result<Option<Module>, Error> {
        let name = name.replace('-', "_");
        let Some(path) = self.files.get(&name) else {
            if self.builtin.contains(&name) {
                return Ok(None);
            }
            return Err(Error::Recipe { what: format!("the kernel module {name}") });
        };
        let file = self.folder.join(path);
        let data = std::fs::read(&file).map_err(Error::io("read", &file))?;
        let info = elf::modinfo(&data).map_err(|why| Error::Elf { path: file.clone(), why })?;
        let all = |key: &str| info.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        let depends =
            all("depends").iter().flat_map(|d| d.split(',')).filter(|d| !d.is_empty()).map(str::to_owned).collect();
        Ok(Some(Module { name, path: path.clone(), file, depends, aliases: all("alias") }))
    }

    /// The modules with all they depend on, each after its dependencies; what is built in falls out.
    pub fn ordered(&self, names: &[&str]) -> Result<Vec<Module>, Error> {
        let mut out: Vec<Module> = Vec::new();
        for name in names {
            self.add(name, &mut out, 0)?;
        }
        Ok(out)
    }

    fn add(&self, name: &str, out: &mut Vec<Module>, depth: u32) -> Result<(), Error> {
        let plain = name.replace('-', "_");
        if depth > 16 {
            return Err(Error::Recipe { what: format!("kernel modules without a circle at {name}") });
        }
        if out.iter().any(|m| m.name == plain) {
            return Ok(());
        }
        let Some(module) = self.module(name)? else { return Ok(()) };
        for needed in module.depends.clone() {
            self.add(&needed, out, depth + 1)?;
        }
        out.push(module);
        Ok(())
    }
}

/// `modules.dep`: each module with all it needs, the first to load last.
pub fn dep_file(modules: &[Module]) -> String {
    let by_name: BTreeMap<String, &Module> = modules.iter().map(|m| (m.name.clone(), m)).collect();
    let mut out = String::new();
    for module in modules {
        let (mut needed, mut left) = (Vec::<&Module>::new(), module.depends.clone());
        while let Some(name) = left.pop() {
            if let Some(found) = by_name.get(&name.replace('-', "_")) {
                needed.retain(|m| m.name != found.name);
                needed.push(found);
                left.extend(found.depends.iter().cloned());
            }
        }
        let needed: Vec<_> = needed.iter().map(|m| m.path.as_str()).collect();
        out.push_str(format!("{}: {}", module.path, needed.join(" ")).trim_end());
        out.push('\n');
    }
    out
}

/// `modules.alias`: the other names by which the kernel asks for a module.
pub fn alias_file(modules: &[Module]) -> String {
    modules.iter().flat_map(|m| m.aliases.iter().map(move |a| format!("alias {a} {}\n", m.name))).collect()
}

fn entries(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        names.push(entry.map_err(Error::io("list", folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str]) -> Module {
        Module {
            name: name.into(),
            path: format!("kernel/{name}.ko"),
            file: PathBuf::new(),
            depends: depends.iter().map(|d| (*d).to_owned()).collect(),
            aliases: vec![format!("fs-{name}")],
        }
    }

    #[test]
    fn index_files_name_the_whole_chain() {
        let list = [module("virtio", &[]), module("ring", &["virtio"]), module("blk", &["ring", "virtio"])];
        let dep = dep_file(&list);
        assert!(dep.contains("kernel/virtio.ko:\n"), "{dep}");
        assert!(dep.contains("kernel/blk.ko: kernel/ring.ko kernel/virtio.ko\n"), "{dep}");
        assert!(alias_file(&list).contains("alias fs-blk blk\n"));
    }
}
