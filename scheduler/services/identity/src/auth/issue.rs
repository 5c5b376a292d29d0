//! Making tokens: what was proven and chosen becomes a sealed text.
use super::{methods::Proof, scope::Wanted};
use crate::{
    Identity,
    directory::Area,
    fault,
    tables::Trust,
    token::{
        Token, fernet, new_audit_id, payload,
        resolve::{Refused, Resolved, ResolvedPlace},
        view,
    },
};
use pilvi_kit::{Fault, clock};
use serde_json::Value;
use std::sync::Arc;

impl Identity {
    /// Authenticates and gives the token's text and meaning.
    pub(super) async fn log_in(&self, auth: &Value) -> Result<(String, Arc<Resolved>), Fault> {
        let identity = auth.get("identity").ok_or_else(|| fault::expecting("identity", "auth"))?;
        let proof = self.prove(identity).await?;
        let wanted = self.choose_scope(&proof, auth.get("scope")).await?;
        self.issue(proof, wanted).await
    }

    async fn issue(&self, proof: Proof, wanted: Wanted) -> Result<(String, Arc<Resolved>), Fault> {
        let now = clock::now_us();
        let lifetime = i64::try_from(self.config.token_seconds).unwrap_or(i64::MAX / 2_000_000);
        let end = (now / 1_000_000 + lifetime) * 1_000_000;
        let mut audit_ids = vec![new_audit_id()];
        audit_ids.extend(proof.chain_id);
        let by_trust = wanted.trust.is_some();
        let token = Token {
            user_id: proof.user_id,
            methods: proof.methods,
            scope: wanted.scope,
            issued_us: now,
            expires_us: proof.expires_us.map_or(end, |e| e.min(end)),
            audit_ids,
            trust_id: wanted.trust.as_ref().map(|t| t.id.clone()),
            app_credential_id: proof.app_credential.map(|c| c.id),
        };
        let resolved = match self.resolve(token).await {
            Ok(resolved) => Arc::new(resolved),
            Err(Refused::Fault(fault)) => return Err(fault),
            Err(Refused::Because(why)) if by_trust => return Err(Fault { cause: Some(why), ..fault::forbidden() }),
            Err(Refused::Because(why)) => {
                tracing::debug!(why, "no token");
                return Err(fault::unauthorized());
            }
        };
        if let Some(trust) = &wanted.trust {
            self.use_trust(&trust.id).await?;
        }
        let seconds = u64::try_from(now / 1_000_000).unwrap_or_default();
        let text = fernet::seal(&self.fernet_keys.ring(), &payload::encode(&resolved.token), seconds);
        if text.is_empty() {
            return Err(Fault::internal("there is no key to make tokens with"));
        }
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
    pub(super) async fn token_document(&self, resolved: &Resolved, catalog: bool) -> Result<Value, Fault> {
        let catalog = match resolved.place {
            ResolvedPlace::Unscoped => None,
            _ if !catalog => None,
            _ => Some(self.catalog_for(resolved.project_id(), &resolved.acting().0.id).await?),
        };
        Ok(view::document(resolved, catalog))
    }
}
