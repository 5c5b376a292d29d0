//! The packages unpacked side by side in a working folder, one folder each (never on the host), and the questions
//! the recipe asks of them: where is this file, who has this shared library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::debian::Deb;
use crate::error::Error;
use crate::{elf, tool};

/// Folders of a package that hold shared libraries, in the loader's order.
const LIBRARY_FOLDERS: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/libexec/sudo"];

/// Unpacked packages.
pub struct Unpacked {
    folder: PathBuf,
    names: Vec<String>,
}

impl Unpacked {
    /// Unpacks every package below `folder`.
    pub fn new(folder: &Path, debs: &[Deb]) -> Result<Unpacked, Error> {
        let mut names = Vec::new();
        for deb in debs {
            let target = folder.join(&deb.package.name);
            std::fs::create_dir_all(&target).map_err(Error::io("create", &target))?;
            tool::run(tool::command("dpkg-deb").arg("--extract").arg(&deb.path).arg(&target))?;
            names.push(deb.package.name.clone());
        }
        Ok(Unpacked { folder: folder.to_path_buf(), names })
    }

    /// The folder of the kernel package (the first one fetched).
    pub fn kernel(&self) -> Result<PathBuf, Error> {
        self.names.first().map(|n| self.folder.join(n)).ok_or_else(|| Error::Recipe { what: "a kernel".into() })
    }

    /// A file of a package; the recipe names paths without a leading slash.
    pub fn file(&self, package: &str, path: &str) -> Result<PathBuf, Error> {
        let file = self.folder.join(package).join(path);
        if file.is_file() {
            return Ok(file);
        }
        Err(Error::Recipe { what: format!("{path} of the package {package}") })
    }

    /// A folder of a package.
    pub fn folder(&self, package: &str, path: &str) -> Result<PathBuf, Error> {
        let folder = self.folder.join(package).join(path);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(Error::Recipe { what: format!("the folder {path} of the package {package}") })
    }

    /// All folders that hold shared libraries.
    pub fn library_folders(&self) -> Vec<PathBuf> {
        let all = self.names.iter().flat_map(|n| LIBRARY_FOLDERS.iter().map(move |l| self.folder.join(n).join(l)));
        all.filter(|f| f.is_dir()).collect()
    }

    /// The loader of the C library.
    pub fn loader(&self) -> Result<PathBuf, Error> {
        self.file("libc6", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    }

    /// The path (inside its package) and the real file of a shared library.
    fn library(&self, name: &str) -> Result<(String, PathBuf), Error> {
        for package in &self.names {
            for folder in LIBRARY_FOLDERS {
                let file = self.folder.join(package).join(folder).join(name);
                if file.is_file() {
                    return Ok((format!("{folder}/{name}"), file));
                }
            }
        }
        Err(Error::Recipe { what: format!("the shared library {name}") })
    }

    /// Everything that these programs need to run: path inside the package -> file, libraries of libraries included.
    pub fn libraries(&self, programs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut left = programs.to_vec();
        while let Some(path) = left.pop() {
            let data = std::fs::read(&path).map_err(Error::io("read", &path))?;
            if !elf::is_elf(&data) {
                continue;
            }
            let needs = elf::needs(&data).map_err(|why| Error::Elf { path: path.clone(), why })?;
            for name in needs.libraries {
                if name.contains('/') || !seen.insert(name.clone()) {
                    continue;
                }
                let (place, file) = self.library(&name)?;
                found.insert(place, file.clone());
                left.push(file);
            }
            if needs.interpreter.is_some() {
                found.insert("lib64/ld-linux-x86-64.so.2".to_owned(), self.loader()?);
            }
        }
        Ok(found)
    }
}
