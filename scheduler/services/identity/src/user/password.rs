//! A user changes his own password, proving that he knows the old one. No token is needed, so that an
//! expired password can be changed.
use super::ops::remember;
use crate::{
    Identity,
    directory::Area,
    fault,
    ldap::writable,
    revocation,
    tables::{RevocationEvent, User},
};
use pilvi_kit::{Call, Fault, Reply, Response};

impl Identity {
    /// Checks `original`, the history rule, and sets `password`; ends all tokens of the user.
    pub(crate) async fn change_own_password(&self, user_id: &str, original: &str, password: &str) -> Result<(), Fault> {
        let user = self.directory.user(user_id).await?;
        if let Some(user) = &user {
            writable(&user.source)?;
        }
        let user = self.prove_password(user, original).await?;
        self.forget_failures(&user.id).await?;
        if user.option("lock_password") {
            return Err(Fault::bad_request(
                "You cannot change your password at this time due to password policy disallowing password changes. Please contact your administrator to reset your password.",
            ));
        }
        self.check_age(&user)?;
        self.check_form(password)?;
        let count = self.config.unique_last_passwords;
        let last: Vec<String> = user.passwords.iter().rev().take(count).map(|p| p.hash.clone()).collect();
        if count > 0 && self.hasher.verify_any(password, last).await? {
            return Err(Fault::bad_request(format!(
                "The new password cannot be identical to a previous password. The total number which includes the new password must be unique is {count}."
            )));
        }
        let mut changed = (*user).clone();
        let new = self.password_entry(self.hasher.hash(password).await?, &user.options, true);
        remember(self, &mut changed.passwords, new);
        let passwords = changed.passwords;
        let proven = user.passwords.last().map(|p| p.hash.clone()).unwrap_or_default();
        let events = vec![RevocationEvent { user_id: Some(user.id.clone()), ..revocation() }];
        self.write_and_revoke(events, move |tx| {
            let (id, passwords, proven) = (user.id.clone(), passwords.clone(), proven.clone());
            Box::pin(async move {
                let mut stored = tx.get::<User>(&id).await?.ok_or_else(|| fault::missing("user", &id))?;
                if stored.passwords.last().map(|p| &p.hash) != Some(&proven) {
                    // Somebody else was faster: the password that was proven is not the one in force any more.
                    return Err(fault::unauthorized());
                }
                stored.record.passwords = passwords;
                tx.update(&stored).await?;
                Ok(())
            })
        })
        .await
    }
}

impl Identity {
    /// Keeps our own hash of a password that was verified by one made elsewhere.
    pub(crate) async fn hash_anew(&self, user: &User, password: &str) -> Result<(), Fault> {
        let Some(old) = user.passwords.last().map(|p| p.hash.clone()) else { return Ok(()) };
        let (id, new) = (user.id.clone(), self.hasher.hash(password).await?);
        self.write(Area::People, move |tx| {
            let (id, old, new) = (id.clone(), old.clone(), new.clone());
            Box::pin(async move {
                let Some(mut stored) = tx.get::<User>(&id).await? else { return Ok(()) };
                let Some(entry) = stored.record.passwords.last_mut().filter(|p| p.hash == old) else { return Ok(()) };
                entry.hash = new;
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
