//! The state directory: where everything lies, and the lock that keeps two programs apart.
use crate::cli::Common;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use pilvi_starter::Kind;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub struct State {
    pub root: PathBuf,
    cache: Option<PathBuf>,
}

impl State {
    /// The directory, made with mode 0700 when it is missing.
    pub fn open(common: &Common) -> Result<Self> {
        let root = std::path::absolute(&common.state_dir)?;
        let cache = common.cache_dir.as_ref().map(std::path::absolute).transpose()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).with_context(|| root.display().to_string())?;
        Ok(State { root, cache })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    pub fn config(&self) -> PathBuf {
        self.at("pilvi.toml")
    }
    pub fn store(&self) -> PathBuf {
        self.at("store.db")
    }
    pub fn identity(&self) -> PathBuf {
        self.at("identity")
    }
    pub fn image_cache(&self) -> PathBuf {
        self.at("image-cache")
    }
    pub fn images(&self) -> PathBuf {
        self.at("images")
    }
    pub fn pki(&self) -> PathBuf {
        self.at("pki")
    }
    pub fn ca(&self) -> PathBuf {
        self.pki().join("ca.pem")
    }
    pub fn agent(&self) -> PathBuf {
        self.at("agent")
    }
    pub fn policy(&self) -> PathBuf {
        self.at("policy")
    }
    pub fn admin_password(&self) -> PathBuf {
        self.at("admin-password")
    }
    /// What opens the keys in a shared store.
    pub fn master_key(&self) -> PathBuf {
        self.at("master-key")
    }
    /// Under which id the scheduler of this directory runs, or ran last.
    pub fn scheduler_id(&self) -> PathBuf {
        self.at("scheduler-id")
    }
    pub fn demo_password(&self) -> PathBuf {
        self.at("demo-password")
    }
    pub fn clouds(&self) -> PathBuf {
        self.at("clouds.yaml")
    }
    pub fn ssh_config(&self) -> PathBuf {
        self.at("ssh_config")
    }
    pub fn demo_key(&self) -> PathBuf {
        self.at("demo-key")
    }
    pub fn starter(&self, kind: Kind) -> PathBuf {
        self.cache_root().join(kind.name())
    }
    pub fn packages(&self) -> PathBuf {
        self.cache_root().join("packages")
    }
    fn cache_root(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(|| self.at("cache"))
    }
    pub fn log(&self) -> PathBuf {
        self.at("pilvi.log")
    }
    pub fn running(&self) -> PathBuf {
        self.at("running.json")
    }

    /// Six letters that are this directory's: names of devices and namespaces begin with them, so that two
    /// clouds on one machine do not meet.
    pub fn prefix(&self) -> String {
        format!("pv{}", &hex::encode(Sha256::digest(self.root.as_os_str().as_encoded_bytes()))[..6])
    }

    /// Keeps other programs off this directory for as long as the result lives.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.at("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock { _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(crate::preflight::Refusal(format!(
                "another pilvi uses {}. Stop it first (Ctrl-C where it runs), or choose another --state-dir.",
                self.root.display()
            ))
            .into()),
            Err((_, error)) => Err(error).context("the lock file"),
        }
    }
}

/// The lock of a state directory.
#[derive(Debug)]
pub struct Lock {
    _lock: Flock<File>,
}

/// Makes a folder that only root can look into.
pub fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())
}

/// Writes a file whole or not at all, readable by root alone.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .with_context(|| part.display().to_string())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path).with_context(|| path.display().to_string())
}

/// The text of a secret file without its line end.
pub fn read_secret(path: &Path) -> Result<String> {
    Ok(fs::read_to_string(path).with_context(|| path.display().to_string())?.trim_end().to_owned())
}
