//! Hashes that Keystone made: verified, never made here.
//!
//! ```text
//!  $2b$12$SALTDIGEST                       bcrypt
//!  $bcrypt-sha256$v=2,t=2b,r=12$SALT$DIGEST  bcrypt of the password's HMAC, so of any length
//!  $scrypt$ln=16,r=8,p=1$SALT$DIGEST       scrypt
//!  $pbkdf2-sha512$25000$SALT$DIGEST        PBKDF2
//! ```
//! Base64 is without padding, and older ones write `.` for `+`. A hash that cannot be read fits no password.
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// bcrypt looks at no more than this.
const BCRYPT_BYTES: usize = 72;
/// Work that a hash may ask for, so that a forged dump cannot stop the program.
const SCRYPT_BYTES_MAX: u64 = 512 * 1024 * 1024;
const ROUNDS_MAX: u32 = 10_000_000;
const DIGEST_MAX: usize = 128;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn bytes(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text.replace('.', "+")).ok().filter(|b| b.len() <= DIGEST_MAX)
}

/// Can `hash` be one of these at all?
pub(super) fn is_known(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2y$", "$2x$", "$2$", "$bcrypt-sha256$", "$scrypt$", "$pbkdf2-sha512$"]
        .iter()
        .any(|prefix| hash.starts_with(prefix))
}

pub(super) fn verify(password: &[u8], hash: &str) -> bool {
    let parts: Vec<&str> = hash.split('$').collect();
    let fits = match parts.as_slice() {
        ["", "bcrypt-sha256", params, salt, digest] => bcrypt_sha256(password, params, salt, digest),
        ["", "scrypt", params, salt, digest] => scrypt(password, params, salt, digest),
        ["", "pbkdf2-sha512", rounds, salt, digest] => pbkdf2_sha512(password, rounds, salt, digest),
        ["", kind, ..] if kind.starts_with('2') => {
            bcrypt::verify(&password[..password.len().min(BCRYPT_BYTES)], hash).ok()
        }
        _ => None,
    };
    fits.unwrap_or(false)
}

/// The value of `name=` among parameters that commas separate.
fn param<'p>(params: &'p str, name: &str) -> Option<&'p str> {
    params.split(',').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

fn bcrypt_sha256(password: &[u8], params: &str, salt: &str, digest: &str) -> Option<bool> {
    let (kind, rounds) = (param(params, "t")?, param(params, "r")?.parse::<u32>().ok()?);
    let inner = if param(params, "v") == Some("2") {
        let mut mac = Hmac::<Sha256>::new_from_slice(salt.as_bytes()).ok()?;
        mac.update(password);
        mac.finalize().into_bytes().to_vec()
    } else {
        // The first version had no key.
        Sha256::digest(password).to_vec()
    };
    bcrypt::verify(STANDARD.encode(inner), &format!("${kind}${rounds:02}${salt}{digest}")).ok()
}

fn scrypt(password: &[u8], params: &str, salt: &str, digest: &str) -> Option<bool> {
    let number = |name: &str| param(params, name)?.parse::<u32>().ok();
    let (log_n, r, p) = (u8::try_from(number("ln")?).ok()?, number("r")?, number("p")?);
    let memory = 1_u64.checked_shl(u32::from(log_n))?.checked_mul(128)?.checked_mul(u64::from(r))?;
    if log_n == 0 || log_n > 40 || memory.checked_mul(u64::from(p.max(1)))? > SCRYPT_BYTES_MAX {
        return None;
    }
    let (salt, digest) = (bytes(salt)?, bytes(digest)?);
    let mut out = vec![0_u8; digest.len()];
    scrypt::scrypt(password, &salt, &scrypt::Params::new(log_n, r, p).ok()?, &mut out).ok()?;
    Some(!digest.is_empty() && bool::from(out.ct_eq(&digest)))
}

fn pbkdf2_sha512(password: &[u8], rounds: &str, salt: &str, digest: &str) -> Option<bool> {
    let rounds = rounds.parse::<u32>().ok().filter(|r| (1..=ROUNDS_MAX).contains(r))?;
    let (salt, digest) = (bytes(salt)?, bytes(digest)?);
    let mut out = vec![0_u8; digest.len()];
    pbkdf2::pbkdf2_hmac::<Sha512>(password, &salt, rounds, &mut out);
    Some(!digest.is_empty() && bool::from(out.ct_eq(&digest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Made by the hashers of Keystone 30.
    #[test]
    fn hashes_of_keystone_verify() {
        let cases: Value = serde_json::from_str(include_str!("keystone_hashes.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let (password, hash) = (case[0].as_str().unwrap(), case[2].as_str().unwrap());
            assert!(is_known(hash), "{case}");
            assert!(verify(password.as_bytes(), hash), "{case}");
            // bcrypt alone does not look behind its 72nd byte.
            let wrong = format!("?{password}");
            assert!(!verify(wrong.as_bytes(), hash), "{case}");
        }
    }

    #[test]
    fn what_cannot_be_read_fits_nothing() {
        for bad in [
            "",
            "$",
            "$2b$",
            "$scrypt$ln=4,r=8,p=1$salt",
            "$scrypt$ln=4,r=8,p=1$c2FsdA$",
            "$scrypt$ln=30,r=8,p=1$c2FsdA$c2FsdA",
            "$scrypt$ln=x,r=8,p=1$c2FsdA$c2FsdA",
            "$scrypt$ln=255,r=8,p=1$c2FsdA$c2FsdA",
            "$scrypt$ln=4,r=0,p=0$c2FsdA$c2FsdA",
            "$pbkdf2-sha512$0$c2FsdA$c2FsdA",
            "$pbkdf2-sha512$4000000000$c2FsdA$c2FsdA",
            "$pbkdf2-sha512$10$%%$c2FsdA",
            "$bcrypt-sha256$v=2,t=2b$salt$digest",
            "$bcrypt-sha256$v=2,t=2b,r=5$ä$ö",
            "$6$salt$digest",
        ] {
            assert!(!verify(b"secret", bad), "{bad}");
        }
    }
}
