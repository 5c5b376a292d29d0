//! Fetches Debian packages with apt, as any user and without touching the host: apt's whole state (sources, lists,
//! archives) lies in the cache folder. apt checks the signature of the release with Debian's own keys and gives a
//! SHA-256 for each package; every file is checked against it again before use, fetched or cached.
//!
//! ```text
//! lists missing or old --update--> lists --resolve--> (uri, file, size, sha256) --cached? download--> verified files
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::manifest::Package;
use crate::recipe::{KERNEL_META, Kind, RELEASE};
use crate::{manifest, tool};

/// Debian's keys as Debian and Ubuntu install them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists younger than this are used as they are.
const FRESH: Duration = Duration::from_secs(12 * 3600);
/// Settings of the host's apt that decide whether the network can be reached; everything else of it is ignored.
const HOST_SETTINGS: &[&str] = &["Acquire::http::", "Acquire::https::", "Acquire::Check-"];

/// A verified package file.
#[derive(Debug, Clone)]
pub struct Deb {
    pub package: Package,
    pub path: PathBuf,
}

/// apt with a private state folder.
struct Apt {
    config: PathBuf,
    state: PathBuf,
    archives: PathBuf,
}

/// Verified packages, and the right to read them: nobody prunes the cache while the lock is held.
pub struct Fetched {
    pub debs: Vec<Deb>,
    pub lock: File,
}

/// All packages of the recipe, the newest cloud kernel first. `cache` is kept between builds; builds that share one
/// take turns here.
pub fn fetch(kind: Kind, cache: &Path, progress: &dyn Fn(&str)) -> Result<Fetched, Error> {
    let lock_path = cache.join(".lock");
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    lock.lock().map_err(Error::io("lock", &lock_path))?;
    let apt = Apt::open(cache)?;
    apt.refresh(progress)?;
    let kernel = apt.newest_kernel()?;
    let mut names = vec![kernel];
    names.extend(kind.packages().into_iter().map(str::to_owned));
    let wanted = apt.resolve(&names)?;
    let debs = apt.bring(&names, wanted, progress)?;
    prune(&apt.archives, &debs)?;
    Ok(Fetched { debs, lock })
}

/// Removes packages of older builds and what killed downloads left; what only other kinds of image want stays.
/// Called with the lock held.
fn prune(archives: &Path, debs: &[Deb]) -> Result<(), Error> {
    let others: Vec<&str> = Kind::ALL.iter().flat_map(|k| k.packages()).collect();
    let others: Vec<&str> = others.into_iter().filter(|p| debs.iter().all(|d| d.package.name != *p)).collect();
    for entry in std::fs::read_dir(archives).map_err(Error::io("list", archives))? {
        let path = entry.map_err(Error::io("list", archives))?.path();
        let file = entry_name(&path);
        if debs.iter().any(|d| d.path == path) || others.contains(&file.split('_').next().unwrap_or_default()) {
            continue;
        }
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        gone.map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

fn entry_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What apt says about one package: the file and its hash.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    file: String,
    size: u64,
    sha256: String,
}

impl Apt {
    fn open(cache: &Path) -> Result<Apt, Error> {
        for (program, package) in crate::needed_packages() {
            if program.starts_with('/') {
                if !Path::new(program).exists() {
                    return Err(Error::MissingFile { path: program.into(), package });
                }
            } else if tool::find(program).is_none() {
                return Err(Error::MissingProgram { program, package });
            }
        }
        let state = cache.join("apt");
        let archives = cache.join("packages");
        for folder in [&state.join("lists/partial"), &state.join("archives/partial"), &state.join("parts"), &archives] {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let apt = Apt { config: state.join("apt.conf"), state, archives };
        apt.write_sources()?;
        apt.write_config()?;
        Ok(apt)
    }

    /// The host's mirrors of this release if it has any, else Debian's own address.
    fn write_sources(&self) -> Result<(), Error> {
        let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
        let targets =
            tool::command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output();
        let targets = targets.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let (main, security) = mirrors(&targets);
        let lines = [
            (&main, RELEASE.to_owned()),
            (&main, format!("{RELEASE}-updates")),
            (&security, format!("{RELEASE}-security")),
        ]
        .map(|(uri, suite)| format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n"))
        .concat();
        self.put("sources.list", &lines)?;
        self.put("status", "")
    }

    fn write_config(&self) -> Result<(), Error> {
        let host = tool::command("apt-config").args(["dump", "--no-empty"]).output();
        let host = host.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let mut text: String =
            host.lines().filter(|l| HOST_SETTINGS.iter().any(|s| l.starts_with(s))).map(|l| format!("{l}\n")).collect();
        let state = self.state.display();
        text.push_str(&format!(
            "Dir::Etc::SourceList \"{state}/sources.list\";\nDir::Etc::SourceParts \"{state}/parts\";\nDir::Etc::Parts \"{state}/parts\";\n\
             Dir::Etc::Main \"/dev/null\";\nDir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"{state}/parts\";\n\
             Dir::State \"{state}\";\nDir::State::Lists \"{state}/lists\";\nDir::State::Status \"{state}/status\";\n\
             Dir::Cache \"{state}\";\nDir::Cache::Archives \"{state}/archives\";\nDir::Cache::PkgCache \"\";\nDir::Cache::SrcPkgCache \"\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAcquire::http::Timeout \"20\";\nAcquire::https::Timeout \"20\";\n\
             Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n"
        ));
        self.put("apt.conf", &text)
    }

    /// Writes a file so that a second build with the same cache never reads half of it.
    fn put(&self, name: &str, text: &str) -> Result<(), Error> {
        manifest::write_whole(&self.state.join(name), text.as_bytes())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = tool::command(program);
        command.env("APT_CONFIG", &self.config);
        command
    }

    /// Fetches the package lists if there are none or old ones. Old ones still serve when the network is away.
    fn refresh(&self, progress: &dyn Fn(&str)) -> Result<(), Error> {
        let stamp = self.state.join("updated");
        let age = std::fs::metadata(&stamp)
            .and_then(|m| m.modified())
            .ok()
            .and_then(|t| SystemTime::now().duration_since(t).ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        progress("fetching the package lists of Debian");
        match tool::run(self.command("apt-get").args(["-q", "update", "-o", "APT::Update::Error-Mode=any"])) {
            Ok(_) => self.put("updated", ""),
            Err(error) if stamp.exists() => {
                progress(&format!("the package lists could not be refreshed, older ones are used ({error})"));
                Ok(())
            }
            Err(error) => Err(Error::Fetch {
                what: format!("the package lists of Debian {RELEASE} could not be fetched: {error}"),
            }),
        }
    }

    fn newest_kernel(&self) -> Result<String, Error> {
        let output = tool::run(self.command("apt-cache").args(["depends", KERNEL_META]))?;
        kernel_of(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| Error::Recipe { what: format!("a kernel behind {KERNEL_META}") })
    }

    fn resolve(&self, names: &[String]) -> Result<Vec<Wanted>, Error> {
        let output = tool::run(self.command("apt-get").args(["download", "--print-uris"]).args(names))
            .map_err(|error| Error::Fetch { what: format!("apt does not know a package of the recipe: {error}") })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        names
            .iter()
            .map(|name| {
                let prefix = format!("{name}_");
                text.lines()
                    .filter_map(wanted)
                    .find(|w| w.file.starts_with(&prefix))
                    .ok_or_else(|| Error::Recipe { what: format!("the package {name} with a SHA-256") })
            })
            .collect()
    }

    /// Brings every file that is not in the cache yet, into a folder of this build's own, and moves it in whole.
    fn bring(&self, names: &[String], wanted: Vec<Wanted>, progress: &dyn Fn(&str)) -> Result<Vec<Deb>, Error> {
        let missing: Vec<(&String, &Wanted)> =
            names.iter().zip(&wanted).filter(|(_, w)| !self.archives.join(&w.file).is_file()).collect();
        if !missing.is_empty() {
            let bytes: u64 = missing.iter().map(|(_, w)| w.size).sum();
            progress(&format!("downloading {} packages ({} MB)", missing.len(), bytes.div_ceil(1_000_000)));
            let folder = tempfile::Builder::new()
                .prefix(".incoming-")
                .tempdir_in(&self.archives)
                .map_err(Error::io("create a folder in", &self.archives))?;
            tool::run(
                self.command("apt-get")
                    .args(["-q", "download"])
                    .args(missing.iter().map(|(n, _)| n))
                    .current_dir(folder.path()),
            )
            .map_err(|error| Error::Fetch { what: format!("packages could not be downloaded: {error}") })?;
            for (_, w) in &missing {
                let (from, to) = (folder.path().join(&w.file), self.archives.join(&w.file));
                check(&from, w)?;
                std::fs::rename(&from, &to).map_err(Error::io("move into the cache", &to))?;
            }
        }
        names
            .iter()
            .zip(wanted)
            .map(|(name, w)| {
                let path = self.archives.join(&w.file);
                check(&path, &w)?;
                let version = w.file.split('_').nth(1).unwrap_or_default().replace("%3a", ":");
                Ok(Deb { package: Package { name: name.clone(), version, sha256: w.sha256 }, path })
            })
            .collect()
    }
}

fn check(path: &Path, wanted: &Wanted) -> Result<(), Error> {
    let found = manifest::sha256(path)?;
    if found == wanted.sha256 {
        return Ok(());
    }
    Err(Error::BadPackage { path: path.to_path_buf(), wanted: wanted.sha256.clone(), found })
}

/// One line of `apt-get download --print-uris`: `'uri' file size SHA256:hex`.
fn wanted(line: &str) -> Option<Wanted> {
    let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
    let (file, size, hash) = (words.next()?, words.next()?, words.next()?);
    let sha256 = hash.strip_prefix("SHA256:")?;
    let plain = !file.contains('/') && !file.starts_with('.');
    (plain && sha256.len() == 64).then(|| Wanted {
        file: file.to_owned(),
        size: size.parse().unwrap_or(0),
        sha256: sha256.to_owned(),
    })
}

/// The versioned kernel package that the meta package depends on.
fn kernel_of(depends: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|l| l.trim().trim_start_matches('|').strip_prefix("Depends: "))
        .find(|p| p.starts_with("linux-image-") && p.contains(char::is_numeric))
        .map(str::to_owned)
}

/// The addresses of the main and of the security archive, from lines `uri release component` of the host's apt.
fn mirrors(targets: &str) -> (String, String) {
    let pick = |suffixes: &[&str], fallback: &str| {
        let rows = || targets.lines().filter_map(|l| l.split_once(' '));
        let exact = rows().find(|(_, rest)| suffixes.iter().any(|s| *rest == format!("{RELEASE}{s} main")));
        exact.map_or(fallback, |(uri, _)| uri).trim_end_matches('/').to_owned()
    };
    (
        pick(&["", "-updates"], "http://deb.debian.org/debian"),
        pick(&["-security"], "http://deb.debian.org/debian-security"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_prints() {
        let hash = "3d".repeat(32);
        let line = format!("'http://m/debian/pool/b_1.deb' busybox-static_1%3a1.35_amd64.deb 928188 SHA256:{hash}");
        assert_eq!(
            wanted(&line),
            Some(Wanted { file: "busybox-static_1%3a1.35_amd64.deb".into(), size: 928_188, sha256: hash.clone() })
        );
        assert_eq!(wanted(&format!("'http://m/x' ../../etc/passwd 1 SHA256:{hash}")), None);
        assert_eq!(wanted("'http://m/x' x_1_amd64.deb 1 MD5Sum:abc"), None);
        assert_eq!(wanted("E: Unable to locate package x"), None);
    }

    #[test]
    fn finds_the_kernel_behind_the_meta_package() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(kernel_of(text).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_of("linux-image-cloud-amd64\n  Depends: debconf\n"), None);
    }

    #[test]
    fn uses_the_mirror_of_the_host_only_for_this_release() {
        let targets = "http://mirror/debian/ bookworm main\nhttp://mirror/sec bookworm-security main\nhttp://other nodistro main\n";
        assert_eq!(mirrors(targets), ("http://mirror/debian".into(), "http://mirror/sec".into()));
        let ubuntu = "http://archive.ubuntu.com/ubuntu noble main\n";
        assert_eq!(mirrors(ubuntu).0, "http://deb.debian.org/debian");
    }

    #[test]
    fn only_the_packages_of_this_build_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["new.deb", "old.deb", "dropbear-bin_1_amd64.deb"] {
            std::fs::write(path(name), name).unwrap();
        }
        std::fs::create_dir(path(".incoming-x")).unwrap();
        let package = Package { name: "new".into(), version: "2".into(), sha256: String::new() };
        prune(folder.path(), &[Deb { package, path: path("new.deb") }]).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(path("new.deb").exists() && path("dropbear-bin_1_amd64.deb").exists());
    }

    #[test]
    fn a_changed_package_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.deb");
        std::fs::write(&path, "not the package").unwrap();
        let error = check(&path, &Wanted { file: "x.deb".into(), size: 1, sha256: "0".repeat(64) }).unwrap_err();
        assert!(matches!(error, Error::BadPackage { .. }), "{error}");
    }
}
