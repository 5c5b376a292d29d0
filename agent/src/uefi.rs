//! UEFI for guests of QEMU whose image asks for it: OVMF's code, which all share and nobody writes, and variables (what
//! to boot from, keys) that each server has of its own.
//!
//! ```text
//!  image: hw_firmware_type=uefi      -> pflash 0: the host's code     pflash 1: <instance>/disks/uefi-vars
//!         os_secure_boot=required       (the code that checks signatures, with Microsoft's keys in the variables)
//!
//!  variables: made of the host's template before the first start; kept while the server is; made anew by a rebuild
//!             a running guest takes them along in its memory, one that is off has them carried with its disks
//! ```
use crate::config::Config;
use crate::disk;
use crate::durable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the variables among the instance's disks.
pub const VARS: &str = "uefi-vars";
/// Largest file of variables that is believed.
const VARS_MAX: u64 = 16 << 20;

/// What a machine starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uefi {
    pub code: PathBuf,
    pub vars: PathBuf,
    /// Only what is signed is started, and only the firmware in its own mode writes the variables.
    pub secure: bool,
}

/// What the host has.
#[derive(Debug, Clone)]
pub struct Firmware {
    ordinary: (PathBuf, PathBuf),
    secure: (PathBuf, PathBuf),
}

/// Whether an image asks for it.
#[must_use]
pub fn is_asked_for(properties: &BTreeMap<String, String>) -> bool {
    properties.get("hw_firmware_type").is_some_and(|kind| kind == "uefi")
}

fn is_secure(properties: &BTreeMap<String, String>) -> bool {
    properties.get("os_secure_boot").is_some_and(|word| word == "required")
}

impl Firmware {
    /// As the configuration names the files.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            ordinary: (config.uefi_code.clone(), config.uefi_vars.clone()),
            secure: (config.uefi_secure_code.clone(), config.uefi_secure_vars.clone()),
        }
    }

    fn files(&self, properties: &BTreeMap<String, String>) -> Result<&(PathBuf, PathBuf), String> {
        let files = if is_secure(properties) { &self.secure } else { &self.ordinary };
        match [&files.0, &files.1].into_iter().find(|path| !path.is_file()) {
            None => Ok(files),
            Some(lost) => Err(format!(
                "its image asks for hw_firmware_type=uefi, and this host has no {} (package ovmf)",
                lost.display()
            )),
        }
    }

    /// What the instance in `dir` starts with; none where its image asks for no UEFI. Its variables are made where
    /// there are none, but of a guest that goes on, which began without.
    ///
    /// # Errors
    /// Text for the user: what the host lacks.
    pub fn of(&self, properties: &BTreeMap<String, String>, dir: &Path, goes_on: bool) -> Result<Option<Uefi>, String> {
        let vars = disk::path(dir, VARS)?;
        if !is_asked_for(properties) || (goes_on && !vars.exists()) {
            return Ok(None);
        }
        let (secure, code) = (is_secure(properties), self.files(properties)?.0.clone());
        self.make(properties, dir)?;
        Ok(Some(Uefi { code, vars, secure }))
    }

    /// Makes the variables where there are none.
    ///
    /// # Errors
    /// As of [`Self::of`].
    pub fn make(&self, properties: &BTreeMap<String, String>, dir: &Path) -> Result<PathBuf, String> {
        let vars = disk::path(dir, VARS)?;
        if vars.exists() {
            return Ok(vars);
        }
        let template = &self.files(properties)?.1;
        let made = std::fs::read(template).and_then(|bytes| {
            std::fs::create_dir_all(dir.join("disks"))?;
            durable::save_plain(&vars, &bytes)
        });
        made.map_err(|e| format!("variables of {}: {e}", template.display()))?;
        Ok(vars)
    }

    /// How long they are, where they come from another host.
    ///
    /// # Errors
    /// As of [`Self::of`].
    pub fn vars_bytes(&self, properties: &BTreeMap<String, String>) -> Result<u64, String> {
        let template = &self.files(properties)?.1;
        let bytes = template.metadata().map_err(|e| format!("{}: {e}", template.display()))?.len();
        if bytes > VARS_MAX { Err(format!("{} is too large for variables", template.display())) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_are_the_servers_own_and_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = Config {
            uefi_code: file("code", "c"),
            uefi_vars: file("vars", "template"),
            uefi_secure_code: file("secure", "s"),
            uefi_secure_vars: "/nonexistent/keys".into(),
            ..Config::default()
        };
        let (firmware, instance) = (Firmware::new(&config), dir.path().join("instance"));
        std::fs::create_dir(&instance).unwrap();
        let uefi = of(&[("hw_firmware_type", "uefi")]);
        for other in [of(&[]), of(&[("hw_firmware_type", "bios")])] {
            assert_eq!(firmware.of(&other, &instance, false), Ok(None));
        }
        assert_eq!(firmware.of(&uefi, &instance, true), Ok(None), "it began without");
        let first = firmware.of(&uefi, &instance, false).unwrap().unwrap();
        assert_eq!((first.code.as_path(), first.secure), (dir.path().join("code").as_path(), false));
        assert_eq!(std::fs::read(&first.vars).unwrap(), b"template");
        std::fs::write(&first.vars, "written").unwrap();
        assert_eq!(firmware.of(&uefi, &instance, false).unwrap().as_ref(), Some(&first));
        assert_eq!(firmware.of(&uefi, &instance, true).unwrap().as_ref(), Some(&first));
        assert_eq!(std::fs::read(&first.vars).unwrap(), b"written");
        assert_eq!(firmware.vars_bytes(&uefi), Ok(8));
        let secure = of(&[("hw_firmware_type", "uefi"), ("os_secure_boot", "required")]);
        let error = firmware.of(&secure, &instance, false).unwrap_err();
        assert!(error.contains("/nonexistent/keys") && error.contains("package ovmf"), "{error}");
    }
}
