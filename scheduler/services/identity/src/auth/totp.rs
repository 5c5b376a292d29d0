//! One-time passcodes (RFC 6238): six digits of the time and a secret kept as a `totp` credential.
//!
//! A passcode is good for its own half minute and for as many after it as the operator allows, and once
//! only: the time step of the last one taken is kept with the secret, and none up to it is taken again.
use super::methods::{refuse, text};
use crate::{
    Identity,
    directory::Area,
    fault,
    tables::{Credential, User},
};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use pilvi_kit::{Fault, clock};
use serde_json::Value;
use sha1::Sha1;
use subtle::ConstantTimeEq;

const PERIOD_S: i64 = 30;
const DIGITS_MODULUS: u32 = 1_000_000;
/// Secrets of one user that are tried.
const SECRETS_MAX: usize = 32;
/// Steps back that may be allowed: ten minutes.
const WINDOWS_MAX: u32 = 20;

/// The passcode of one time step (RFC 4226 with six digits).
fn passcode(secret: &[u8], step: i64) -> Option<String> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).ok()?;
    mac.update(&step.to_be_bytes());
    let tag = mac.finalize().into_bytes();
    let at = usize::from(tag.last()? & 0x0f);
    let word = u32::from_be_bytes(tag.get(at..at + 4)?.try_into().ok()?) & 0x7fff_ffff;
    Some(format!("{:06}", word % DIGITS_MODULUS))
}

/// The secret in a credential's blob: base32, with or without padding.
fn secret(blob: &str) -> Option<Vec<u8>> {
    let plain: String = blob.trim().trim_end_matches('=').to_ascii_uppercase();
    BASE32_NOPAD.decode(plain.as_bytes()).ok().filter(|s| !s.is_empty())
}

/// The step in `now - windows ..= now` whose passcode was given. All are computed, whichever fits.
fn step_of(secret: &[u8], given: &str, now: i64, windows: u32) -> Option<i64> {
    let mut found = None;
    for back in 0..=i64::from(windows.min(WINDOWS_MAX)) {
        let right = passcode(secret, now - back)?;
        if bool::from(right.as_bytes().ct_eq(given.as_bytes())) && found.is_none() {
            found = Some(now - back);
        }
    }
    found
}

impl Identity {
    pub(super) async fn by_totp(&self, payload: &Value) -> Result<String, Fault> {
        let info = payload.get("user").ok_or_else(|| fault::expecting("user", "totp"))?;
        let given = text(info, "passcode").ok_or_else(|| fault::expecting("passcode", "user"))?;
        let Some(user) = self.named_user(info).await? else { return refuse("no such user") };
        if self.is_locked(&user).await? {
            return refuse("the account is locked");
        }
        if !self.take_passcode(&user, given).await? {
            self.count_failure(&user).await?;
            return refuse("wrong passcode");
        }
        if !self.usable(&user).await? {
            return refuse("the user or his domain is disabled");
        }
        Ok(user.id.clone())
    }

    /// Is it a passcode of the user's that was not taken before? Then it is taken now.
    async fn take_passcode(&self, user: &User, given: &str) -> Result<bool, Fault> {
        let now = (clock::now_us() / 1_000_000).div_euclid(PERIOD_S);
        let all = self.store.list::<Credential>(Credential::of_user(&user.id)).await?;
        for credential in all.iter().filter(|c| c.kind == "totp").take(SECRETS_MAX) {
            let Some(secret) = secret(&self.open_blob(credential)?) else { continue };
            let Some(step) = step_of(&secret, given, now, self.config.totp_previous_windows) else { continue };
            if self.take_step(&credential.id, step).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn take_step(&self, credential_id: &str, step: i64) -> Result<bool, Fault> {
        let id = credential_id.to_owned();
        self.write(Area::Quiet, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let Some(mut stored) = tx.get::<Credential>(&id).await? else { return Ok(false) };
                if stored.last_step.is_some_and(|last| last >= step) {
                    return Ok(false);
                }
                stored.record.last_step = Some(step);
                tx.update(&stored).await?;
                Ok(true)
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passcodes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1, the last six of its eight digits.
        let secret = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(passcode(secret, seconds / PERIOD_S).unwrap(), code, "{seconds}");
        }
    }

    #[test]
    fn the_window_reaches_back_as_far_as_it_may() {
        let secret = b"12345678901234567890";
        let code = passcode(secret, 100).unwrap();
        assert_eq!(step_of(secret, &code, 100, 1), Some(100));
        assert_eq!(step_of(secret, &code, 101, 1), Some(100));
        assert_eq!(step_of(secret, &code, 102, 1), None);
        assert_eq!(step_of(secret, &code, 99, 1), None, "not yet");
        assert_eq!(step_of(secret, "", 100, 1), None);
    }

    #[test]
    fn secrets_are_read_with_and_without_padding() {
        assert_eq!(secret("GEZDGNBV").unwrap(), b"12345");
        assert_eq!(secret("gezdgnbvgy======").unwrap(), b"123456");
        for bad in ["", "====", "not base32!", "1"] {
            assert!(secret(bad).is_none(), "{bad}");
        }
    }
}
