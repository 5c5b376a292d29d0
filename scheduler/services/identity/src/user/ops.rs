//! The verbs of users.
use crate::{
    Identity,
    attributes::Attributes,
    cascade, fault, revocation,
    tables::{PasswordEntry, Project, User},
};
use pilvi_kit::{Fault, clock, id};
use pilvi_store::{Stored, Tx};

/// Members that are columns of a user; all others are extra.
pub(crate) const KNOWN: &[&str] = &[
    "name",
    "domain_id",
    "default_project_id",
    "enabled",
    "password",
    "original_password",
    "options",
    "password_expires_at",
    "federated",
];

/// The passwords to keep when `new` comes: as many as the history rule looks at.
pub(crate) fn remember(svc: &Identity, passwords: &mut Vec<PasswordEntry>, new: PasswordEntry) {
    passwords.push(new);
    let keep = svc.config.unique_last_passwords.max(1);
    if passwords.len() > keep {
        passwords.drain(..passwords.len() - keep);
    }
}

/// 404 unless the domain is there.
pub(crate) async fn domain_in(tx: &mut Tx, domain_id: &str) -> Result<Stored<Project>, Fault> {
    tx.get::<Project>(domain_id).await?.filter(|p| p.is_domain).ok_or_else(|| fault::missing("domain", domain_id))
}

impl Identity {
    pub(crate) async fn create_user(&self, wanted: &Attributes, domain_id: String) -> Result<User, Fault> {
        let mut options = Default::default();
        wanted.merge_options(&mut options);
        let mut passwords = Vec::new();
        if let Some(password) = wanted.text("password") {
            self.check_form(&password)?;
            passwords.push(self.password_entry(self.hasher.hash(&password).await?, &options, false));
        }
        let user = User {
            id: id::hex(),
            name: wanted.need("name", "user")?.trim().to_owned(),
            domain_id,
            default_project_id: wanted.text("default_project_id"),
            enabled: wanted.flag("enabled").unwrap_or(true),
            passwords,
            options,
            federated: Vec::new(),
            shadow: false,
            extra: wanted.extra(KNOWN),
            created_us: clock::now_us(),
            ..User::default()
        };
        self.check_default_project(user.default_project_id.as_deref()).await?;
        // Nobody can have asked for an id that was not there: nothing is cached.
        self.write(crate::Area::Quiet, move |tx| {
            let user = user.clone();
            Box::pin(async move {
                domain_in(tx, &user.domain_id).await?;
                tx.insert(&user).await.map_err(|e| fault::named_twice(e, "user", &user.name, Some(&user.domain_id)))?;
                Ok(user)
            })
        })
        .await
    }

    /// A project that does not exist is taken, as Keystone takes it; a domain is refused.
    async fn check_default_project(&self, id: Option<&str>) -> Result<(), Fault> {
        let Some(id) = id else { return Ok(()) };
        match self.directory.project(id).await? {
            Some(project) if project.is_domain => {
                Err(Fault::bad_request(format!("User's default project ID cannot be a domain ID: {id}")))
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn update_user(&self, id: &str, wanted: &Attributes) -> Result<User, Fault> {
        self.check_default_project(wanted.text("default_project_id").as_deref()).await?;
        let new = match wanted.text("password") {
            Some(password) => {
                self.check_form(&password)?;
                let mut options = self.directory.user(id).await?.map(|u| u.options.clone()).unwrap_or_default();
                wanted.merge_options(&mut options);
                Some(self.password_entry(self.hasher.hash(&password).await?, &options, false))
            }
            None => None,
        };
        let disabled = wanted.flag("enabled") == Some(false);
        let (reset, wanted_enabled) = (new.is_some(), wanted.flag("enabled") == Some(true));
        let mut events = Vec::new();
        if disabled || new.is_some() {
            events.push(crate::tables::RevocationEvent { user_id: Some(id.to_owned()), ..revocation() });
        }
        let keep = self.config.unique_last_passwords.max(1);
        let (id, wanted) = (id.to_owned(), wanted.clone());
        let updated = self
            .write_and_revoke(events, move |tx| {
                let (id, wanted, new) = (id.clone(), wanted.clone(), new.clone());
                Box::pin(async move {
                    let mut user = tx.get::<User>(&id).await?.ok_or_else(|| fault::missing("user", &id))?;
                    change(&mut user.record, &wanted)?;
                    if let Some(new) = new {
                        user.record.passwords.push(new);
                        let surplus = user.record.passwords.len().saturating_sub(keep);
                        user.record.passwords.drain(..surplus);
                    }
                    let (name, domain) = (user.name.clone(), user.domain_id.clone());
                    let user =
                        tx.update(&user).await.map_err(|e| fault::named_twice(e, "user", &name, Some(&domain)))?;
                    Ok(user.record)
                })
            })
            .await?;
        if reset {
            // A new password ends a lock-out.
            self.forget_failures(&updated.id).await?;
        }
        if wanted_enabled {
            // Whoever is enabled again after long silence has until tomorrow and on.
            self.note_activity(&updated.id).await?;
        }
        Ok(updated)
    }

    pub(crate) async fn delete_user(&self, id: &str) -> Result<(), Fault> {
        let events = vec![crate::tables::RevocationEvent { user_id: Some(id.to_owned()), ..revocation() }];
        let id = id.to_owned();
        self.write_and_revoke(events, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                tx.get::<User>(&id).await?.ok_or_else(|| fault::missing("user", &id))?;
                cascade::user_in(tx, &id).await
            })
        })
        .await
    }
}

fn change(user: &mut User, wanted: &Attributes) -> Result<(), Fault> {
    wanted.unchanged("domain_id", Some(&user.domain_id))?;
    wanted.unchanged("id", Some(&user.id))?;
    if let Some(name) = wanted.text("name") {
        name.trim().clone_into(&mut user.name);
    }
    if wanted.has("default_project_id") {
        user.default_project_id = wanted.text("default_project_id");
    }
    if let Some(enabled) = wanted.flag("enabled") {
        user.enabled = enabled;
    }
    wanted.merge_options(&mut user.options);
    wanted.merge_extra(&mut user.extra, KNOWN);
    Ok(())
}
