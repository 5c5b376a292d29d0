//! Wrong passwords are counted; too many in a row lock the account for a while.
//!
//! The count is a record of its own, so that a failed login does not empty the caches of users.
use crate::{
    Identity,
    directory::Area,
    tables::{LoginFailures, Source, User},
};
use pilvi_kit::{Fault, clock};

impl Identity {
    /// Is the account locked now?
    pub(super) async fn is_locked(&self, user: &User) -> Result<bool, Fault> {
        let Some(attempts) = self.config.lockout_attempts else { return Ok(false) };
        // A directory has rules of its own.
        if user.option("ignore_lockout_failure_attempts") || user.source != Source::Own {
            return Ok(false);
        }
        let Some(failures) = self.store.get::<LoginFailures>(&user.id).await? else { return Ok(false) };
        Ok(failures.count >= attempts && !self.is_over(&failures))
    }

    /// Has a lock-out with these failures ended by itself?
    fn is_over(&self, failures: &LoginFailures) -> bool {
        let locked_us = i64::try_from(self.config.lockout_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        locked_us > 0 && failures.last_us.saturating_add(locked_us) <= clock::now_us()
    }

    pub(super) async fn count_failure(&self, user: &User) -> Result<(), Fault> {
        let Some(attempts) = self.config.lockout_attempts.filter(|_| user.source == Source::Own) else { return Ok(()) };
        let id = user.id.clone();
        let known = self.store.get::<LoginFailures>(&user.id).await?;
        // After a lock-out that is over, counting starts anew.
        let anew = known.is_some_and(|k| k.count >= attempts && self.is_over(&k));
        self.write(Area::Quiet, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let now = clock::now_us();
                match tx.get::<LoginFailures>(&id).await? {
                    None => {
                        tx.insert(&LoginFailures { id, count: 1, last_us: now }).await?;
                    }
                    Some(mut known) => {
                        known.record.count = if anew { 1 } else { known.count.saturating_add(1) };
                        known.record.last_us = now;
                        tx.update(&known).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// A right password, or a new one, ends the count.
    pub(crate) async fn forget_failures(&self, user_id: &str) -> Result<(), Fault> {
        if self.config.lockout_attempts.is_none() || self.store.get::<LoginFailures>(user_id).await?.is_none() {
            return Ok(());
        }
        let id = user_id.to_owned();
        self.write(Area::Quiet, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                tx.delete::<LoginFailures>(&id).await?;
                Ok(())
            })
        })
        .await
    }
}
