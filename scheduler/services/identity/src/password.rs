//! Passwords and secrets: argon2id for new ones; those that Keystone hashed are verified too.
//!
//! Hashing is slow on purpose, so it runs off the async threads, a few at a time. An unknown user costs
//! as much as a known one: the dummy hash is verified in his place.
mod imported;

use crate::config::HashCost;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use pilvi_kit::Fault;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Longest password that is hashed, in bytes.
pub const PASSWORD_MAX: usize = 4096;

/// Computes hashes, a few at a time.
#[derive(Clone)]
pub struct Hasher {
    argon: Argon2<'static>,
    turns: Arc<Semaphore>,
    dummy: Arc<str>,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

fn hash_now(argon: &Argon2<'_>, password: &[u8]) -> Result<String, String> {
    let salt: [u8; 16] = rand::random();
    let hash: PasswordHash = argon.hash_password_with_salt(password, &salt).map_err(|e| e.to_string())?;
    Ok(hash.to_string())
}

fn verify_now(argon: &Argon2<'_>, password: &[u8], hash: &str) -> bool {
    if imported::is_known(hash) {
        return imported::verify(password, hash);
    }
    PasswordHash::new(hash).is_ok_and(|parsed| argon.verify_password(password, &parsed).is_ok())
}

impl Hasher {
    /// Fails when the cost is outside what argon2 takes.
    pub fn new(cost: HashCost, at_once: usize) -> Result<Self, String> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(|e| e.to_string())?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let unknown: [u8; 16] = rand::random();
        let dummy = hash_now(&argon, &unknown)?;
        Ok(Hasher { argon, turns: Arc::new(Semaphore::new(at_once.max(1))), dummy: dummy.into() })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let turn = self.turns.clone().acquire_owned().await.map_err(Fault::internal)?;
        let argon = self.argon.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&argon)
        });
        done.await.map_err(Fault::internal)
    }

    /// A PHC string.
    pub async fn hash(&self, password: &str) -> Result<String, Fault> {
        if password.len() > PASSWORD_MAX {
            return Err(Fault::forbidden(format!(
                "The password length must be less than or equal to {PASSWORD_MAX}. The server could not comply with the request because the password is invalid."
            )));
        }
        let password = password.as_bytes().to_vec();
        self.run(move |argon| hash_now(argon, &password)).await?.map_err(Fault::internal)
    }

    /// Is it the password of `hash`? Without one, the same work is done for nothing.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, Fault> {
        let known = hash.is_some() && password.len() <= PASSWORD_MAX;
        let password = if password.len() <= PASSWORD_MAX { password.as_bytes().to_vec() } else { Vec::new() };
        let hash = hash.unwrap_or(&self.dummy).to_owned();
        Ok(self.run(move |argon| verify_now(argon, &password, &hash)).await? && known)
    }

    /// Is it the password of any of `hashes`?
    pub async fn verify_any(&self, password: &str, hashes: Vec<String>) -> Result<bool, Fault> {
        let password = password.as_bytes().to_vec();
        self.run(move |argon| hashes.iter().any(|hash| verify_now(argon, &password, hash))).await
    }
}

/// Was the hash made elsewhere, so that it is to be made anew as soon as the password is known?
pub(crate) fn is_imported(hash: &str) -> bool {
    imported::is_known(hash)
}

/// Can passwords be verified by this hash?
pub(crate) fn is_usable(hash: &str) -> bool {
    imported::is_known(hash) || PasswordHash::new(hash).is_ok()
}

/// A password nobody guesses: 32 letters and digits, about 190 bits.
pub fn generate() -> String {
    use rand::Rng as _;
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect()
}

/// A secret for programs: 64 bytes as base64url, as application credentials get it.
pub fn generate_secret() -> String {
    use base64::Engine as _;
    let bytes: [u8; 64] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> Hasher {
        Hasher::new(HashCost::CHEAP, 2).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_verifies() {
        let h = hasher();
        let hash = h.hash("päss").await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(h.verify("päss", Some(&hash)).await.unwrap());
        assert!(!h.verify("pass", Some(&hash)).await.unwrap());
        assert!(!h.verify("päss", None).await.unwrap());
        assert!(!h.verify("päss", Some("broken")).await.unwrap());
        assert_ne!(hash, h.hash("päss").await.unwrap(), "salted");
    }

    #[tokio::test]
    async fn hashes_made_by_keystone_verify() {
        let h = hasher();
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        assert!(h.verify("secret", Some(&bcrypt)).await.unwrap());
        assert!(!h.verify("Secret", Some(&bcrypt)).await.unwrap());
    }

    #[tokio::test]
    async fn too_long_a_password_is_refused_not_hashed() {
        let long = "x".repeat(PASSWORD_MAX + 1);
        assert_eq!(hasher().hash(&long).await.unwrap_err().code(), 403);
        assert!(!hasher().verify(&long, None).await.unwrap());
    }

    #[test]
    fn generated_passwords_differ() {
        assert_eq!(generate().len(), 32);
        assert_ne!(generate(), generate());
    }
}
