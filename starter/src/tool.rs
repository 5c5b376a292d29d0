//! Runs other programs: a few of the host (apt, dpkg) and many out of unpacked packages. The latter start through
//! the C library's own loader of the same package set, so the versions of the host's tools never matter and
//! nothing has to be installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::Error;
use crate::recipe::EPOCH;

/// How much of a failed program's words is kept for the error.
const SAID_LIMIT: usize = 2000;

/// A command with an environment that does not depend on who calls: fixed language, time zone and clock.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .env("E2FSPROGS_FAKE_TIME", EPOCH.to_string())
        .env_remove("LD_PRELOAD")
        .env_remove("MTOOLSRC")
        .stdin(Stdio::null());
    command
}

/// Runs to the end and gives what the program printed; a bad exit is an error that quotes the program.
pub fn run(command: &mut Command) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(Error::io("start", Path::new(&program)))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Program { program, status: output.status.to_string(), said: said(&output) })
}

/// The last words of a program, standard error first.
pub fn said(output: &Output) -> String {
    let mut all = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if all.is_empty() {
        all = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    let skip = all.chars().count().saturating_sub(SAID_LIMIT);
    all.chars().skip(skip).collect()
}

/// Looks a program up in PATH and in the places of system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// The tools that come out of packages, each behind a small script in one folder.
pub struct Toolbox {
    folder: PathBuf,
}

impl Toolbox {
    /// Writes the scripts. `loader` is the C library's loader, `libraries` the folders it shall look into,
    /// `programs` pairs of the name to call and the real file.
    pub fn new(
        folder: &Path,
        loader: &Path,
        libraries: &[PathBuf],
        programs: &[(&str, PathBuf)],
    ) -> Result<Toolbox, Error> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let libraries = libraries.iter().map(|l| l.display().to_string()).collect::<Vec<_>>().join(":");
        for (name, file) in programs {
            let script = format!(
                "#!/bin/sh\nexec {} --argv0 {name} --library-path {} {} \"$@\"\n",
                quote(loader.as_os_str()),
                quote(OsStr::new(&libraries)),
                quote(file.as_os_str())
            );
            let path = folder.join(name);
            std::fs::write(&path, script).map_err(Error::io("write", &path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                .map_err(Error::io("make executable", &path))?;
        }
        Ok(Toolbox { folder: folder.to_path_buf() })
    }

    /// A command for one of the tools. The tools find each other first in PATH (syslinux calls mtools).
    pub fn command(&self, name: &str) -> Command {
        let mut command = command(self.folder.join(name));
        let old = std::env::var_os("PATH").unwrap_or_default();
        let mut path = self.folder.clone().into_os_string();
        path.push(":");
        path.push(&old);
        command.env("PATH", path);
        command
    }
}

/// Quotes a word for /bin/sh.
fn quote(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_quoted() {
        let error = run(command("sh").args(["-c", "echo the reason >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the reason") && text.contains('3'), "{text}");
    }

    #[test]
    fn words_survive_the_shell() {
        let word = "it's a \"folder\" $HOME";
        let output = run(command("sh").arg("-c").arg(format!("printf %s {}", quote(OsStr::new(word))))).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), word);
    }
}
