//! What goes with what: everything that hangs on a user, group, project, role or domain that is deleted.
//!
//! All inside the caller's transaction, so nothing is ever left hanging.
use crate::tables::{
    AccessRule, ApplicationCredential, Assignment, Credential, DomainConfig, EndpointLink, ExpiringMembership,
    FederatedUser, Group, IdMapping, IdentityProvider, Inference, LastActive, Limit, LoginFailures, Membership,
    OauthAccessToken, OauthRequestToken, Project, Protocol, Role, Trust, User,
};
use pilvi_kit::{Fault, clock};
use pilvi_store::{Query, Record, Tx};

async fn sweep<R: Record>(tx: &mut Tx, query: Query, keep: impl Fn(&R) -> bool + Send) -> Result<(), Fault> {
    for found in tx.list::<R>(query).await? {
        if !keep(&found.record) {
            tx.delete::<R>(found.record.id()).await?;
        }
    }
    Ok(())
}

async fn all<R: Record>(tx: &mut Tx, query: Query) -> Result<(), Fault> {
    sweep::<R>(tx, query, |_| false).await
}

/// A trust is kept as a deleted one, since it may be asked for what became of it.
pub(crate) async fn end_trusts_in(tx: &mut Tx, query: Query) -> Result<(), Fault> {
    for mut trust in tx.list::<Trust>(query).await? {
        if trust.record.deleted_us.is_none() {
            trust.record.deleted_us = Some(clock::now_us());
            tx.update(&trust).await?;
        }
    }
    Ok(())
}

pub(crate) async fn user_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    all::<Membership>(tx, Membership::of_user(id)).await?;
    all::<ExpiringMembership>(tx, ExpiringMembership::of_user(id)).await?;
    all::<FederatedUser>(tx, FederatedUser::of_user(id)).await?;
    all::<OauthAccessToken>(tx, OauthAccessToken::of_user(id)).await?;
    all::<OauthRequestToken>(tx, OauthRequestToken::of_user(id)).await?;
    sweep::<Assignment>(tx, Assignment::of_actor(id), |a| a.key.actor.is_group()).await?;
    all::<ApplicationCredential>(tx, ApplicationCredential::of_user(id)).await?;
    all::<AccessRule>(tx, AccessRule::of_user(id)).await?;
    all::<Credential>(tx, Credential::of_user(id)).await?;
    end_trusts_in(tx, Trust::by_trustor(id)).await?;
    end_trusts_in(tx, Trust::to_trustee(id)).await?;
    if tx.get::<LoginFailures>(id).await?.is_some() {
        tx.delete::<LoginFailures>(id).await?;
    }
    if tx.get::<LastActive>(id).await?.is_some() {
        tx.delete::<LastActive>(id).await?;
    }
    tx.delete::<User>(id).await?;
    Ok(())
}

pub(crate) async fn group_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    all::<Membership>(tx, Membership::of_group(id)).await?;
    all::<ExpiringMembership>(tx, ExpiringMembership::of_group(id)).await?;
    sweep::<Assignment>(tx, Assignment::of_actor(id), |a| !a.key.actor.is_group()).await?;
    tx.delete::<Group>(id).await?;
    Ok(())
}

/// A project that has none below it.
pub(crate) async fn project_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    all::<Assignment>(tx, Assignment::at(id)).await?;
    all::<ApplicationCredential>(tx, ApplicationCredential::of_project(id)).await?;
    all::<Credential>(tx, Credential::of_project(id)).await?;
    all::<EndpointLink>(tx, EndpointLink::of_project(id)).await?;
    all::<OauthAccessToken>(tx, OauthAccessToken::in_project(id)).await?;
    all::<OauthRequestToken>(tx, OauthRequestToken::in_project(id)).await?;
    all::<Limit>(tx, Limit::of_project(id)).await?;
    end_trusts_in(tx, Trust::in_project(id)).await?;
    for mut user in tx.list::<User>(User::going_to(id)).await? {
        user.record.default_project_id = None;
        tx.update(&user).await?;
    }
    tx.delete::<Project>(id).await?;
    Ok(())
}

pub(crate) async fn role_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    all::<Assignment>(tx, Assignment::of_role(id)).await?;
    all::<Inference>(tx, Inference::of_prior(id)).await?;
    all::<Inference>(tx, Inference::of_implied(id)).await?;
    tx.delete::<Role>(id).await?;
    Ok(())
}

/// A program, and all access that users gave it.
pub(crate) async fn consumer_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    all::<OauthAccessToken>(tx, OauthAccessToken::of_consumer(id)).await?;
    all::<OauthRequestToken>(tx, OauthRequestToken::of_consumer(id)).await
}

/// An identity provider with its protocols, and the users that only it knew.
pub(crate) async fn provider_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    all::<Protocol>(tx, Protocol::of_provider(id)).await?;
    all::<ExpiringMembership>(tx, ExpiringMembership::of_provider(id)).await?;
    forget_federated_in(tx, id, None).await?;
    tx.delete::<IdentityProvider>(id).await?;
    Ok(())
}

/// What a provider (by one protocol, or by all) called users; who has no other name goes with it.
pub(crate) async fn forget_federated_in(tx: &mut Tx, idp_id: &str, protocol: Option<&str>) -> Result<(), Fault> {
    for link in tx.list::<FederatedUser>(FederatedUser::of_provider(idp_id)).await? {
        if protocol.is_some_and(|p| p != link.known_as.protocol_id) {
            continue;
        }
        tx.delete::<FederatedUser>(&link.record.id).await?;
        let Some(mut user) = tx.get::<User>(&link.user_id).await? else { continue };
        user.record.federated.retain(|f| *f != link.known_as);
        if user.shadow && user.federated.is_empty() {
            user_in(tx, &link.user_id).await?;
        } else {
            tx.update(&user).await?;
        }
    }
    Ok(())
}

/// A disabled domain with all that is in it.
pub(crate) async fn domain_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for provider in tx.list::<IdentityProvider>(IdentityProvider::in_domain(id)).await? {
        provider_in(tx, &provider.record.id).await?;
    }
    for mapping in tx.list::<IdMapping>(IdMapping::in_domain(id)).await? {
        // Whoever was known from a directory: what hangs on him here goes as if he had been kept here.
        if mapping.entity == "user" {
            user_in(tx, &mapping.id).await?;
        } else {
            group_in(tx, &mapping.id).await?;
        }
        tx.delete::<IdMapping>(&mapping.id).await?;
    }
    for user in tx.list::<User>(User::in_domain(id)).await? {
        user_in(tx, &user.record.id).await?;
    }
    for group in tx.list::<Group>(Group::in_domain(id)).await? {
        group_in(tx, &group.record.id).await?;
    }
    for project in tx.list::<Project>(Project::in_domain(id)).await? {
        project_in(tx, &project.record.id).await?;
    }
    for role in tx.list::<Role>(Role::in_domain(id)).await? {
        role_in(tx, &role.record.id).await?;
    }
    all::<Limit>(tx, Limit::of_domain(id)).await?;
    if tx.get::<DomainConfig>(id).await?.is_some() {
        tx.delete::<DomainConfig>(id).await?;
    }
    project_in(tx, id).await
}
