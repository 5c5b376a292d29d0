//! Logging in with an access token: the signed request is the proof, the body names nobody.
use super::exchange::{header, need};
use crate::{Identity, auth::Proof, fault, tables::OauthAccessToken};
use pilvi_kit::{Call, Fault, clock};

impl Identity {
    /// The user for whom the program that signed `call` may act.
    pub(crate) async fn by_access_token(&self, call: &Call, proof: &mut Proof) -> Result<String, Fault> {
        let header = header(call)?;
        let (consumer_id, id) = (need(&header, "oauth_consumer_key")?, need(&header, "oauth_token")?);
        let found = self.store.get::<OauthAccessToken>(id).await?;
        let access = found.ok_or_else(|| fault::missing("access token", id))?.record;
        if access.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return Err(Fault::new(401, "Access token is expired"));
        }
        if access.consumer_id != consumer_id {
            return Err(Fault::new(401, "Could not validate the access token"));
        }
        let consumer = self.consumer(consumer_id).await?;
        self.check_signature(call, &header, Vec::new(), (&consumer.secret, &access.secret))?;
        let user = access.user_id.clone();
        // A token does not outlive the access that was given.
        proof.expires_us = [proof.expires_us, access.expires_us].into_iter().flatten().min();
        proof.access_token = Some(access);
        Ok(user)
    }
}
