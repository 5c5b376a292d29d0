//! Credentials: blobs that other services understand (`ec2`, `totp`, `cert`), sealed at rest.
//!
//! The id of an EC2 credential is the hash of its access key, so that a signed request finds it.
mod api;
mod ec2;
mod rotation;
mod signature;
mod signed;

pub use rotation::RotationError;

use crate::{Identity, tables::Credential, token::fernet};
use pilvi_kit::{Fault, Route, clock};
use sha2::{Digest, Sha256};

pub(crate) fn routes() -> Vec<Route<Identity>> {
    [api::routes(), ec2::routes(), signed::routes()].into_iter().flatten().collect()
}

/// The id of the EC2 credential with this access key.
fn ec2_id(access: &str) -> String {
    hex::encode(Sha256::digest(access.as_bytes()))
}

impl Identity {
    fn seal_blob(&self, blob: &str) -> Result<String, Fault> {
        let sealed = fernet::seal(
            &self.credential_keys.ring(),
            blob.as_bytes(),
            u64::try_from(clock::now_us() / 1_000_000).unwrap_or_default(),
        );
        if sealed.is_empty() { Err(Fault::internal("there is no key to seal credentials with")) } else { Ok(sealed) }
    }

    pub(crate) fn open_blob(&self, credential: &Credential) -> Result<String, Fault> {
        let opened = fernet::open(&self.credential_keys.ring(), &credential.sealed_blob)
            .and_then(|(bytes, _)| String::from_utf8(bytes).ok());
        opened
            .ok_or_else(|| Fault::internal(format!("credential {} was sealed with a key that is gone", credential.id)))
    }
}
