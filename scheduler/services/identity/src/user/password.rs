//! A user changes his own password, proving that he knows the old one. No token is needed, so that an
//! expired password can be changed.
use super::ops::{entry, remember};
use crate::{
    Identity, fault, revocation,
    tables::{RevocationEvent, User},
};
use pilvi_kit::{Call, Fault, Reply, Response};

impl Identity {
    /// Checks `original`, the history rule, and sets `password`; ends all tokens of the user.
    pub(crate) async fn change_own_password(&self, user_id: &str, original: &str, password: &str) -> Result<(), Fault> {
        let user = self.directory.user(user_id).await?;
        let user = self.prove_password(user, original).await?;
        if user.option("lock_password") {
            return Err(Fault::bad_request(
                "You cannot change your password at this time due to password policy disallowing password changes. Please contact your administrator to reset your password.",
            ));
        }
        let count = self.config.unique_last_passwords;
        let last = user.passwords.iter().rev().take(count.max(1)).map(|p| p.hash.clone()).collect();
        if self.hasher.verify_any(password, last).await? {
            return Err(Fault::bad_request(if count > 1 {
                format!(
                    "The new password cannot be identical to a previous password. The total number which includes the new password must be unique is {count}."
                )
            } else {
                "The new password must be different from the current one.".to_owned()
            }));
        }
        let mut changed = (*user).clone();
        let new = entry(self, self.hasher.hash(password).await?, true);
        remember(self, &mut changed.passwords, new);
        let passwords = changed.passwords;
        let events = vec![RevocationEvent { user_id: Some(user.id.clone()), ..revocation() }];
        self.write_and_revoke(events, move |tx| {
            let (id, passwords) = (user.id.clone(), passwords.clone());
            Box::pin(async move {
                let mut stored = tx.get::<User>(&id).await?.ok_or_else(|| fault::missing("user", &id))?;
                stored.record.passwords = passwords;
                tx.update(&stored).await?;
                Ok(())
            })
        })
        .await
    }
}

pub(super) async fn change(svc: std::sync::Arc<Identity>, call: Call) -> Reply {
    let wanted = crate::attributes::Attributes::of(&call, "user")?;
    let (original, password) = (wanted.need("original_password", "user")?, wanted.need("password", "user")?);
    svc.change_own_password(call.param("user_id"), &original, &password).await?;
    Ok(Response::no_content())
}
