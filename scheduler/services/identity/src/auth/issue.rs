//! Making tokens: what was proven and chosen becomes a sealed text.
use super::{methods::Proof, receipt, scope::Wanted};
use crate::{
    Identity,
    directory::Area,
    fault,
    tables::Trust,
    token::{
        Method, Token, TokenScope, new_audit_id,
        resolve::{Refused, Resolved, ResolvedPlace},
        view,
    },
};
use pilvi_kit::{Call, Fault, Response, clock};
use serde_json::Value;
use std::sync::Arc;

impl Identity {
    /// Authenticates and gives the token's text and meaning. `call` is the request that asks, for proofs
    /// that stand in its headers.
    pub(crate) async fn log_in(&self, auth: &Value, call: &Call) -> Result<(String, Arc<Resolved>), Fault> {
        let identity = auth.get("identity").ok_or_else(|| fault::expecting("identity", "auth"))?;
        let mut proof = self.prove(identity, call).await?;
        self.check_rules(&mut proof, call.header(receipt::HEADER)).await?;
        self.log_in_checked(proof, auth.get("scope")).await
    }

    /// The same for somebody whose proof was taken elsewhere.
    pub(crate) async fn log_in_proven(
        &self,
        mut proof: Proof,
        scope: Option<&Value>,
    ) -> Result<(String, Arc<Resolved>), Fault> {
        self.check_rules(&mut proof, None).await?;
        self.log_in_checked(proof, scope).await
    }

    async fn log_in_checked(&self, proof: Proof, scope: Option<&Value>) -> Result<(String, Arc<Resolved>), Fault> {
        let wanted = self.choose_scope(&proof, scope).await?;
        self.note_activity(&proof.user_id).await?;
        self.issue(proof, wanted).await
    }

    async fn issue(&self, proof: Proof, wanted: Wanted) -> Result<(String, Arc<Resolved>), Fault> {
        let mut token = self.fresh_token(proof.user_id, proof.methods, wanted.scope);
        token.audit_ids.extend(proof.chain_id);
        token.expires_us = proof.expires_us.map_or(token.expires_us, |e| e.min(token.expires_us));
        token.trust_id = wanted.trust.as_ref().map(|t| t.id.clone());
        token.app_credential_id = proof.app_credential.map(|c| c.id);
        token.federation = proof.federation;
        token.access_token_id = proof.access_token.map(|t| t.id);
        token.thumbprint = proof.thumbprint;
        let sealed = self.seal_token(token, wanted.trust.is_some()).await?;
        if let Some(trust) = &wanted.trust {
            self.use_trust(&trust.id).await?;
        }
        Ok(sealed)
    }

    /// A token that begins now.
    pub(crate) fn fresh_token(&self, user_id: String, methods: Vec<Method>, scope: TokenScope) -> Token {
        let now = clock::now_us();
        let lifetime = i64::try_from(self.config.token_seconds).unwrap_or(i64::MAX / 2_000_000);
        Token {
            user_id,
            methods,
            scope,
            issued_us: now,
            expires_us: (now / 1_000_000 + lifetime) * 1_000_000,
            audit_ids: vec![new_audit_id()],
            trust_id: None,
            app_credential_id: None,
            federation: None,
            access_token_id: None,
            thumbprint: None,
        }
    }

    /// The text and meaning of a token; 401 (403 when a trust was asked for by name) if it would stand for nothing.
    pub(crate) async fn seal_token(&self, token: Token, by_trust: bool) -> Result<(String, Arc<Resolved>), Fault> {
        let resolved = match self.resolve(token).await {
            Ok(resolved) => Arc::new(resolved),
            Err(Refused::Fault(fault)) => return Err(fault),
            Err(Refused::Because(why)) if by_trust => return Err(Fault { cause: Some(why), ..fault::forbidden() }),
            Err(Refused::Because(why)) => {
                tracing::debug!(why, "no token");
                return Err(fault::unauthorized());
            }
        };
        let text = self.write_token(&resolved.token)?;
        Ok((text, resolved))
    }

    /// Takes one of the uses a trust has left.
    async fn use_trust(&self, id: &str) -> Result<(), Fault> {
        let id = id.to_owned();
        self.write(Area::Quiet, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let mut trust = tx.get::<Trust>(&id).await?.ok_or_else(|| fault::missing("trust", &id))?;
                let Some(left) = trust.remaining_uses else { return Ok(()) };
                if left < 1 {
                    return Err(fault::missing("trust", &id));
                }
                trust.record.remaining_uses = Some(left - 1);
                tx.update(&trust).await?;
                Ok(())
            })
        })
        .await
    }

    /// The document of a token, with its catalogue where it has a scope and the client wants one.
    pub(crate) async fn token_document(&self, resolved: &Resolved, catalog: bool) -> Result<Response, Fault> {
        let catalog = match resolved.place {
            ResolvedPlace::Unscoped => None,
            _ if !catalog => None,
            _ => Some(self.catalog_for(resolved.project_id(), &resolved.acting().0.id).await?),
        };
        let clouds = self.directory.catalog_records().await?;
        let text = view::document(resolved, catalog.as_deref(), &clouds.service_providers);
        Ok(Response::text(200, "application/json", text))
    }
}
