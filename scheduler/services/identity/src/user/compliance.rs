//! What the operator demands of passwords and their owners: form, age, expiry, a change before the first
//! use, and a login now and then. What a user's options exempt him from is not demanded.
use crate::{
    Config, Identity, StartError,
    directory::Area,
    tables::{Extra, LastActive, PasswordEntry, User},
};
use pilvi_kit::{Fault, clock};
use pilvi_store::Query;
use std::collections::HashMap;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// Steps of a match before it counts as none: a hostile password must not keep a core busy.
const STEPS_MAX: usize = 100_000;

/// The form of passwords, compiled once.
pub(crate) struct Compliance {
    form: Option<fancy_regex::Regex>,
}

impl Compliance {
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let Some(text) = &config.password_regex else { return Ok(Compliance { form: None }) };
        // Python's `match`: anchored at the start, not at the end.
        let form = fancy_regex::RegexBuilder::new(&format!(r"\A(?:{text})"))
            .backtrack_limit(STEPS_MAX)
            .build()
            .map_err(|e| StartError::PasswordRegex(e.to_string()))?;
        Ok(Compliance { form: Some(form) })
    }
}

fn on(options: &Extra, name: &str) -> bool {
    options.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false)
}

fn today() -> i64 {
    clock::now_us().div_euclid(DAY_US)
}

impl Identity {
    /// 400 unless a new password has the form it must have.
    pub(crate) fn check_form(&self, password: &str) -> Result<(), Fault> {
        let Some(form) = &self.compliance.form else { return Ok(()) };
        if form.is_match(password).unwrap_or(false) {
            return Ok(());
        }
        let detail = self.config.password_regex_description.as_deref().unwrap_or("it does not have the demanded form");
        Err(Fault::bad_request(format!(
            "The password does not match the requirements: {}.",
            detail.trim_end_matches('.')
        )))
    }

    /// A password in force from now on, of a user with these options.
    pub(crate) fn password_entry(&self, hash: String, options: &Extra, self_service: bool) -> PasswordEntry {
        let now = clock::now_us();
        let must_change = !self_service
            && self.config.change_password_upon_first_use
            && !on(options, "ignore_change_password_upon_first_use");
        let expires_us = if must_change {
            Some(now)
        } else if on(options, "ignore_password_expiry") {
            None
        } else {
            let whole = now.div_euclid(SECOND_US) * SECOND_US;
            self.config.password_expires_days.map(|days| whole + i64::from(days) * DAY_US)
        };
        PasswordEntry { hash, created_us: now, expires_us, self_service }
    }

    /// 400 while a password that the user chose himself is too young to be changed.
    pub(crate) fn check_age(&self, user: &User) -> Result<(), Fault> {
        let days = self.config.minimum_password_age_days;
        let Some(entry) = user.passwords.last().filter(|p| p.self_service && days > 0) else { return Ok(()) };
        let left = entry.created_us.saturating_add(i64::from(days) * DAY_US) - clock::now_us();
        if left <= 0 {
            return Ok(());
        }
        Err(Fault::bad_request(format!(
            "You cannot change your password at this time due to the minimum password age. Once you change your password, it must be used for {days} day(s) before it can be changed. Please try again in {} day(s) or contact your administrator to reset your password.",
            left / DAY_US
        )))
    }

    /// Does the user count as disabled, since he has not logged in for too long?
    pub(crate) async fn is_inactive(&self, user: &User) -> Result<bool, Fault> {
        if self.config.disable_inactive_days.is_none() || !user.enabled {
            return Ok(false);
        }
        let last = self.store.get::<LastActive>(&user.id).await?.map(|a| a.day);
        Ok(self.too_long_ago(user, last))
    }

    fn too_long_ago(&self, user: &User, last: Option<i64>) -> bool {
        let Some(days) = self.config.disable_inactive_days else { return false };
        let made = (user.created_us > 0).then(|| user.created_us.div_euclid(DAY_US));
        let last = last.or(made);
        !user.option("ignore_user_inactivity") && last.is_some_and(|day| today() - day >= i64::from(days))
    }

    /// `users` as they are to be shown: whoever has been away for too long is disabled.
    pub(crate) async fn as_shown(&self, mut users: Vec<User>) -> Result<Vec<User>, Fault> {
        if self.config.disable_inactive_days.is_none() {
            return Ok(users);
        }
        let last: HashMap<String, i64> = if let [one] = users.as_slice() {
            self.store.get::<LastActive>(&one.id).await?.map(|a| (a.record.id, a.record.day)).into_iter().collect()
        } else {
            let all = self.store.list::<LastActive>(Query::all()).await?;
            all.into_iter().map(|a| (a.record.id, a.record.day)).collect()
        };
        for user in &mut users {
            user.enabled = user.enabled && !self.too_long_ago(user, last.get(&user.id).copied());
        }
        Ok(users)
    }

    /// The user is there: today counts as a day he logged in on.
    pub(crate) async fn note_activity(&self, user_id: &str) -> Result<(), Fault> {
        if self.config.disable_inactive_days.is_none() {
            return Ok(());
        }
        let day = today();
        if self.store.get::<LastActive>(user_id).await?.is_some_and(|a| a.day == day) {
            return Ok(());
        }
        let id = user_id.to_owned();
        self.write(Area::Quiet, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                match tx.get::<LastActive>(&id).await? {
                    None => {
                        tx.insert(&LastActive { id, day }).await?;
                    }
                    Some(mut known) => {
                        known.record.day = day;
                        tx.update(&known).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_in_pythons_words_is_taken_and_a_broken_one_refused() {
        let with = |text: &str| Compliance::new(&Config { password_regex: Some(text.into()), ..Config::new("/") });
        let form = with(r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$").unwrap().form.unwrap();
        for (password, fits) in [("abcdefg1", true), ("abcdefgh", false), ("a1", false), ("1234567z", true)] {
            assert_eq!(form.is_match(password).unwrap(), fits, "{password}");
        }
        assert!(!with("b").unwrap().form.unwrap().is_match("ab").unwrap(), "from the start");
        assert!(with("(").is_err());
    }

    #[test]
    fn a_hostile_password_ends_the_match_and_not_the_program() {
        let config = Config { password_regex: Some("(?=x)(x+x+)+y".into()), ..Config::new("/") };
        let form = Compliance::new(&config).unwrap().form.unwrap();
        assert!(!form.is_match(&"x".repeat(4096)).unwrap_or(false));
    }
}
