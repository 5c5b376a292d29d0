//! Who came from outside, as a user of ours: made at his first login, kept in step at every further one.
//!
//! One transaction makes or changes the user, his expiring memberships, and the projects and roles that his
//! mapping gives him. Memberships live as long as the provider's `authorization_ttl` says; with none, the
//! groups are in the token alone.
use crate::{
    Identity,
    directory::Area,
    fault, revocation,
    tables::{
        Actor, Assignment, AssignmentKey, ExpiringMembership, Federated, FederatedUser, IdentityProvider, Place,
        Project, RevocationEvent, User,
    },
};
use pilvi_kit::{Fault, clock, id};
use pilvi_store::Tx;

/// Roles in a project, which is made if there is none of that name.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub name: String,
    pub domain_id: String,
    pub role_ids: Vec<String>,
}

/// What is to be true of somebody after his login.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    pub known_as: Federated,
    pub name: String,
    pub email: Option<String>,
    pub domain_id: String,
    pub group_ids: Vec<String>,
    /// How long memberships outlive the login.
    pub membership_us: i64,
    pub grants: Vec<Grant>,
    /// Roles in other projects are taken away.
    pub only_these_projects: bool,
}

/// What a login changed.
struct Done {
    user_id: String,
    /// He is in fewer groups now, so that older tokens must end.
    lost_groups: bool,
    changed: bool,
}

impl Identity {
    /// Makes it so; gives the user's id.
    pub(super) async fn store_shadow(&self, shadow: Shadow) -> Result<String, Fault> {
        let done = self
            .write(Area::Quiet, move |tx| {
                let shadow = shadow.clone();
                Box::pin(async move { shadow_in(tx, &shadow).await })
            })
            .await?;
        if done.lost_groups {
            let events = vec![RevocationEvent { user_id: Some(done.user_id.clone()), ..revocation() }];
            self.write_and_revoke(events, |_tx| Box::pin(async { Ok(()) })).await?;
        } else if done.changed {
            self.directory.changed(Area::People);
        }
        Ok(done.user_id)
    }
}

async fn shadow_in(tx: &mut Tx, shadow: &Shadow) -> Result<Done, Fault> {
    let provider = tx.get::<IdentityProvider>(&shadow.known_as.idp_id).await?;
    provider.ok_or_else(|| super::provider::missing(&shadow.known_as.idp_id))?;
    let (user_id, mut changed) = user_in(tx, shadow).await?;
    let lost_groups = memberships_in(tx, shadow, &user_id, &mut changed).await?;
    grants_in(tx, shadow, &user_id, &mut changed).await?;
    Ok(Done { user_id, lost_groups, changed })
}

/// The user whom the provider means, and whether something of his was changed.
async fn user_in(tx: &mut Tx, shadow: &Shadow) -> Result<(String, bool), Fault> {
    let email = shadow.email.clone().map(serde_json::Value::from);
    if let Some(link) = tx.get::<FederatedUser>(&FederatedUser::key(&shadow.known_as)).await? {
        let found = tx.get::<User>(&link.user_id).await?;
        let mut user = found.ok_or_else(|| fault::missing("user", &link.user_id))?;
        let named = !user.shadow || user.name == shadow.name;
        let reached = email.is_none() || user.extra.get("email") == email.as_ref();
        if named && reached {
            return Ok((link.record.user_id, false));
        }
        if user.shadow {
            user.record.name.clone_from(&shadow.name);
        }
        if let Some(email) = email {
            user.record.extra.insert("email".into(), email);
        }
        tx.update(&user).await?;
        return Ok((link.record.user_id, true));
    }
    crate::user::ops::domain_in(tx, &shadow.domain_id).await?;
    let mut user = User {
        id: FederatedUser::public_id(&shadow.domain_id, &shadow.known_as.unique_id),
        name: shadow.name.clone(),
        domain_id: shadow.domain_id.clone(),
        default_project_id: None,
        enabled: true,
        passwords: Vec::new(),
        options: Default::default(),
        federated: vec![shadow.known_as.clone()],
        shadow: true,
        extra: Default::default(),
        created_us: clock::now_us(),
        source: Default::default(),
    };
    if let Some(email) = email {
        user.extra.insert("email".into(), email);
    }
    // Two providers of one domain that call somebody the same do not share him.
    tx.insert(&user).await.map_err(|e| fault::named_twice(e, "federated_user", &user.name, Some(&user.domain_id)))?;
    tx.insert(&FederatedUser::new(&user.id, &shadow.known_as)).await?;
    Ok((user.id, true))
}

/// Renews and ends memberships; true when one was ended.
async fn memberships_in(tx: &mut Tx, shadow: &Shadow, user_id: &str, changed: &mut bool) -> Result<bool, Fault> {
    let (idp_id, now) = (&shadow.known_as.idp_id, clock::now_us());
    let mut lost = false;
    for known in tx.list::<ExpiringMembership>(ExpiringMembership::of_user(user_id)).await? {
        let kept = shadow.membership_us > 0 && shadow.group_ids.contains(&known.group_id);
        if known.idp_id == *idp_id && !kept {
            tx.delete::<ExpiringMembership>(&known.record.id).await?;
            lost |= known.expires_us > now && !shadow.group_ids.contains(&known.group_id);
            *changed = true;
        }
    }
    if shadow.membership_us <= 0 {
        return Ok(lost);
    }
    for group_id in &shadow.group_ids {
        let key = ExpiringMembership::key(user_id, group_id, idp_id);
        let expires_us = now.saturating_add(shadow.membership_us);
        match tx.get::<ExpiringMembership>(&key).await? {
            Some(mut known) => {
                (known.record.verified_us, known.record.expires_us) = (now, expires_us);
                tx.update(&known).await?;
            }
            None => {
                tx.insert(&ExpiringMembership {
                    id: key,
                    user_id: user_id.to_owned(),
                    group_id: group_id.clone(),
                    idp_id: idp_id.clone(),
                    verified_us: now,
                    expires_us,
                })
                .await?;
            }
        }
        *changed = true;
    }
    Ok(lost)
}

/// The project of that name, made if there is none.
async fn project_in(tx: &mut Tx, grant: &Grant) -> Result<String, Fault> {
    crate::user::ops::domain_in(tx, &grant.domain_id).await?;
    let found = tx.list::<Project>(Project::named(&grant.domain_id, &grant.name)).await?;
    if let Some(project) = found.into_iter().next() {
        return Ok(project.record.id);
    }
    if grant.name.trim().is_empty() || grant.name.chars().count() > 64 {
        return Err(Fault::forbidden("The name of a project has 1 to 64 characters."));
    }
    let project = Project {
        id: id::hex(),
        name: grant.name.trim().to_owned(),
        domain_id: Some(grant.domain_id.clone()),
        parent_id: Some(grant.domain_id.clone()),
        description: String::new(),
        enabled: true,
        is_domain: false,
        tags: Vec::new(),
        options: Default::default(),
        extra: Default::default(),
    };
    tx.insert(&project).await?;
    Ok(project.id)
}

async fn grants_in(tx: &mut Tx, shadow: &Shadow, user_id: &str, changed: &mut bool) -> Result<(), Fault> {
    let mut kept = Vec::new();
    for grant in &shadow.grants {
        let project = project_in(tx, grant).await?;
        for role_id in &grant.role_ids {
            let key = AssignmentKey {
                actor: Actor::User(user_id.to_owned()),
                target: Place::Project(project.clone()),
                inherited: false,
            };
            let wanted = Assignment::new(key, role_id);
            if tx.get::<Assignment>(&wanted.id).await?.is_none() {
                tx.insert(&wanted).await?;
                *changed = true;
            }
            kept.push(wanted.id);
        }
    }
    if !shadow.only_these_projects {
        return Ok(());
    }
    for found in tx.list::<Assignment>(Assignment::of_actor(user_id)).await? {
        let direct = matches!(found.key.target, Place::Project(_)) && !found.key.actor.is_group();
        if direct && !found.key.inherited && !kept.contains(&found.id) {
            tx.delete::<Assignment>(&found.record.id).await?;
            *changed = true;
        }
    }
    Ok(())
}
