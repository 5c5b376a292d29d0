//! Proving who one is.
//!
//! Whatever fails is 401 with the same sentence, and takes as long as a success: an unknown user's
//! password is hashed too.
use crate::{
    Identity, delegation, fault,
    password::is_imported,
    tables::{ApplicationCredential, OauthAccessToken, Project, Source, User},
    token::{
        Federation, Method, TokenScope,
        resolve::{Refused, Resolved},
    },
};
use pilvi_kit::{Call, Fault, clock};
use serde_json::Value;
use std::sync::Arc;

/// Who was proven, and what the proof brings along.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    pub user_id: String,
    pub methods: Vec<Method>,
    /// Of the token that was shown: its end and its chain.
    pub expires_us: Option<i64>,
    pub chain_id: Option<String>,
    pub shown: Option<Arc<Resolved>>,
    pub app_credential: Option<ApplicationCredential>,
    /// What an identity provider's word was worth.
    pub federation: Option<Federation>,
    pub access_token: Option<OauthAccessToken>,
    /// Of the client certificate that the token is to be bound to.
    pub thumbprint: Option<String>,
}

pub(super) fn refuse<T>(why: &str) -> Result<T, Fault> {
    tracing::debug!(why, "login refused");
    Err(fault::unauthorized())
}

pub(super) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|t| !t.contains('\0'))
}

fn not_allowed(what: &str) -> Fault {
    Fault::forbidden(format!("You are not authorized to perform the requested action: {what}."))
}

impl Identity {
    /// Runs every method of `identity`; all must prove the same user.
    pub(super) async fn prove(&self, identity: &Value, call: &Call) -> Result<Proof, Fault> {
        let names: Vec<&str> =
            identity.get("methods").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut methods = Vec::new();
        for name in names {
            let payload = identity.get(name).ok_or_else(|| fault::expecting(name, "identity"))?;
            let method = Method::parse(name)
                .ok_or_else(|| Fault::new(401, "Attempted to authenticate with an unsupported method."))?;
            if !methods.iter().any(|(m, _)| *m == method) {
                methods.push((method, payload));
            }
        }
        let mut proof = Proof::default();
        for (method, payload) in methods {
            let user_id = match method {
                Method::Password => self.by_password(payload).await?,
                Method::Token => self.by_token(payload, &mut proof).await?,
                Method::ApplicationCredential => self.by_app_credential(payload, &mut proof).await?,
                Method::Totp => self.by_totp(payload).await?,
                Method::Mapped | Method::Saml2 | Method::OpenId if payload.get("id").is_some() => {
                    self.by_federated_token(payload, &mut proof).await?
                }
                Method::Mapped | Method::Saml2 | Method::OpenId => self.by_assertion(payload, call, &mut proof).await?,
                Method::Oauth1 => self.by_access_token(call, &mut proof).await?,
                Method::Ec2 | Method::Oauth2Credential => {
                    return Err(Fault::new(401, "Attempted to authenticate with an unsupported method."));
                }
            };
            if !proof.user_id.is_empty() && proof.user_id != user_id {
                return refuse("the methods prove different users");
            }
            proof.user_id = user_id;
            if !proof.methods.contains(&method) {
                proof.methods.push(method);
            }
        }
        if proof.user_id.is_empty() {
            return refuse("no method was named");
        }
        // Only when all that was shown is right: else a right password would pay for guessed passcodes.
        self.forget_failures(&proof.user_id).await?;
        Ok(proof)
    }

    /// The user that `{"id"}` or `{"name", "domain": {"id" | "name"}}` names.
    pub(super) async fn named_user(&self, info: &Value) -> Result<Option<Arc<User>>, Fault> {
        if let Some(id) = text(info, "id") {
            return self.directory.user(id).await;
        }
        let name = text(info, "name").ok_or_else(|| fault::expecting("id or name", "user"))?;
        let domain = info.get("domain").ok_or_else(|| fault::expecting("domain", "user"))?;
        match self.named_domain(domain).await? {
            Some(domain) => self.directory.user_named(&domain.id, name).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn named_domain(&self, info: &Value) -> Result<Option<Arc<Project>>, Fault> {
        match (text(info, "id"), text(info, "name")) {
            (Some(id), _) => self.directory.domain(id).await,
            (None, Some(name)) => self.directory.domain_named(name).await,
            _ => Err(fault::expecting("id or name", "domain")),
        }
    }

    /// May this user log in at all? His domain and he must be enabled.
    pub(crate) async fn usable(&self, user: &User) -> Result<bool, Fault> {
        Ok(user.enabled
            && !self.is_inactive(user).await?
            && self.directory.domain(&user.domain_id).await?.is_some_and(|d| d.enabled))
    }

    async fn by_password(&self, payload: &Value) -> Result<String, Fault> {
        let info = payload.get("user").ok_or_else(|| fault::expecting("user", "password"))?;
        let password =
            info.get("password").and_then(Value::as_str).ok_or_else(|| fault::expecting("password", "user"))?;
        let user = self.named_user(info).await?;
        let user = self.prove_password(user, password).await?;
        if user.password_expires_us().is_some_and(|at| at <= clock::now_us()) && !user.option("ignore_password_expiry")
        {
            return Err(Fault::new(
                401,
                format!("The password is expired and needs to be changed for user: {}.", user.id),
            ));
        }
        if user.passwords.last().is_some_and(|p| is_imported(&p.hash)) {
            self.hash_anew(&user, password).await?;
        }
        Ok(user.id.clone())
    }

    /// The user, if the password is his and he may log in.
    pub(crate) async fn prove_password(&self, user: Option<Arc<User>>, password: &str) -> Result<Arc<User>, Fault> {
        if let Some(user) = &user
            && self.is_locked(user).await?
        {
            return refuse("the account is locked");
        }
        let right = self.is_password(user.as_deref(), password).await?;
        let Some(user) = user else { return refuse("no such user") };
        if !right {
            self.count_failure(&user).await?;
            return refuse("wrong password");
        }
        if !self.usable(&user).await? {
            return refuse("the user or his domain is disabled");
        }
        Ok(user)
    }

    /// Nobody's password takes as long to be refused as somebody's.
    async fn is_password(&self, user: Option<&User>, password: &str) -> Result<bool, Fault> {
        if let Some(User { source: Source::Directory { dn }, domain_id, .. }) = user {
            return self.directory.is_remote_password(domain_id, dn, password).await;
        }
        let hash = user.and_then(|u| u.passwords.last()).map(|p| p.hash.clone());
        self.hasher.verify(password, hash.as_deref()).await
    }

    /// The token `{"id"}`, if whoever shows it got it for himself: what was handed on to him, within bounds, must not
    /// become something without them.
    pub(crate) async fn undelegated(&self, payload: &Value) -> Result<Arc<Resolved>, Fault> {
        let text = text(payload, "id").ok_or_else(|| fault::expecting("id", "token"))?;
        let shown = match self.validate(text, 0).await {
            Ok(shown) => shown,
            Err(Refused::Fault(fault)) if fault.status.is_server_error() => return Err(fault),
            // As Keystone: the token is a resource that was not found.
            Err(_) => return Err(Fault::not_found("Failed to validate token")),
        };
        if shown.trust.is_some() {
            return Err(not_allowed(
                "Using trust-scoped token to create another token. Create a new trust-scoped token instead",
            ));
        }
        let methods = shown.token.methods.iter().map(|m| m.name());
        if shown.token.app_credential_id.is_some() || delegation::is_delegated(methods) {
            return Err(not_allowed("Using a delegated token to create another token is not allowed."));
        }
        if shown.token.thumbprint.is_some() {
            return Err(not_allowed("Using a token that is bound to a certificate to create another token"));
        }
        if shown.access_token.is_some() {
            return Err(not_allowed(
                "Using OAuth-scoped token to create another token. Create a new OAuth-scoped token instead",
            ));
        }
        Ok(shown)
    }

    async fn by_token(&self, payload: &Value, proof: &mut Proof) -> Result<String, Fault> {
        let shown = self.undelegated(payload).await?;
        if !self.config.allow_rescope && shown.token.scope != TokenScope::Unscoped {
            return Err(not_allowed("rescope a scoped token"));
        }
        proof.methods.clone_from(&shown.token.methods);
        proof.federation.clone_from(&shown.token.federation);
        proof.expires_us = Some(shown.token.expires_us);
        proof.chain_id = Some(shown.token.chain_id().to_owned());
        let user = shown.user.id.clone();
        proof.shown = Some(shown);
        Ok(user)
    }

    /// A token of a user from outside, shown under the name of the protocol he came by.
    async fn by_federated_token(&self, payload: &Value, proof: &mut Proof) -> Result<String, Fault> {
        let user = self.by_token(payload, proof).await?;
        match proof.federation {
            Some(_) => Ok(user),
            None => refuse("the token is not of a user from outside"),
        }
    }

    async fn by_app_credential(&self, payload: &Value, proof: &mut Proof) -> Result<String, Fault> {
        let secret = payload
            .get("secret")
            .and_then(Value::as_str)
            .ok_or_else(|| fault::expecting("secret", "application_credential"))?;
        let found = if let Some(id) = text(payload, "id") {
            self.store.get::<ApplicationCredential>(id).await?.map(|c| c.record)
        } else {
            let name = text(payload, "name").ok_or_else(|| fault::expecting("name or ID", "application credential"))?;
            let user = payload.get("user").ok_or_else(|| fault::expecting("user", "application credential"))?;
            match self.named_user(user).await? {
                None => None,
                Some(user) => {
                    let own =
                        self.store.list::<ApplicationCredential>(ApplicationCredential::of_user(&user.id)).await?;
                    own.into_iter().map(|c| c.record).find(|c| c.name == name)
                }
            }
        };
        let right = self.hasher.verify(secret, found.as_ref().map(|c| c.secret_hash.as_str())).await?;
        let Some(credential) = found.filter(|_| right) else {
            return refuse("no such application credential, or a wrong secret");
        };
        if credential.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return refuse("the application credential ran out");
        }
        let usable = match self.directory.user(&credential.user_id).await? {
            Some(user) => self.usable(&user).await?,
            None => false,
        };
        if !usable {
            return refuse("the user of the application credential is disabled");
        }
        let user = credential.user_id.clone();
        proof.app_credential = Some(credential);
        Ok(user)
    }
}
