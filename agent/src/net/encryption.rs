//! This host's key for encryption between hosts: made at the first start, kept in one file, told by its public half alone.
//!
//! ```text
//!   wireguard.key (mode 0600) --missing--> made --> its public half --> Hello --> hosts that have neighbours here
//!                             --taken away by the operator, and the agent restarted--> another one
//! ```
use crate::config::{Config, Encrypt};
use crate::durable;
use crate::error::Error;
use pilvi_netdev::PrivateKey;
use rand::TryRngCore;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// In the state directory.
const KEY: &str = "wireguard.key";

/// The key, if this host encrypts.
///
/// # Errors
/// The file cannot be made, others than its owner may read it, or what it holds is no key.
pub fn key(config: &Config) -> Result<Option<PrivateKey>, Error> {
    match config.overlay.encrypt {
        None => Ok(None),
        Some(Encrypt::Wireguard) => read_or_make(&config.state_dir.join(KEY)).map(Some),
    }
}

fn read_or_make(path: &Path) -> Result<PrivateKey, Error> {
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(path),
        Err(e) => Err(Error::io(path)(e)),
    }
}

fn read(path: &Path, file: File) -> Result<PrivateKey, Error> {
    let mode = file.metadata().map_err(Error::io(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::Config(format!("{}: others than its owner may read it", path.display())));
    }
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).map_err(Error::io(path))?;
    PrivateKey::parse(&text).ok_or_else(|| Error::Config(format!("{} holds no WireGuard key", path.display())))
}

fn make(path: &Path) -> Result<PrivateKey, Error> {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|e| Error::io(path)(io::Error::other(e.to_string())))?;
    let key = PrivateKey::new(bytes);
    durable::save_plain(path, format!("{}\n", key.expose()).as_bytes()).map_err(Error::io(path))?;
    // Who else could have made the folder is root as well.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Error::io(path))?;
    tracing::info!(public_key = %key.public(), "a key for encryption between hosts was made");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overlay;

    #[test]
    fn a_host_keeps_its_key_until_the_operator_takes_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: dir.path().to_owned(), ..Config::default() };
        assert_eq!(key(&config).unwrap(), None);
        let file = dir.path().join(KEY);
        assert!(!file.exists());
        let overlay = Overlay { encrypt: Some(Encrypt::Wireguard), ..Overlay::default() };
        let config = Config { overlay, ..config };
        let first = key(&config).unwrap().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key(&config).unwrap().unwrap(), first);
        fs::remove_file(&file).unwrap();
        assert_ne!(key(&config).unwrap().unwrap(), first);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(KEY);
        let key = read_or_make(&file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read_or_make(&file).unwrap_err().to_string();
        assert!(refused.contains("others") && !refused.contains(&key.expose()), "{refused}");
        durable::save_plain(&file, b"no key at all").unwrap();
        assert!(read_or_make(&file).unwrap_err().to_string().contains("no WireGuard key"));
    }
}
