//! Joining: a one-time token buys one certificate.
//!
//! The store holds only the hash of a token's secret. Using a token deletes it in the same transaction
//! that registers the node, so a second use, raced or replayed, finds nothing. A host that joins again
//! under its old name replaces its certificate; servers and their records stay.
use crate::{Fleet, Node, NodeState, node::NodeInventory};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use pilvi_agent_api::{token, v1};
use pilvi_kit::{Fault, clock, id};
use pilvi_store::{Query, Record};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the secret, hex: the record is found by it, and the secret itself is nowhere.
    pub id: String,
    pub expires_us: i64,
    /// Only for this host; `None`: for any.
    pub host: Option<String>,
}

impl Record for JoinToken {
    const KIND: &'static str = "fleet_join_token";
    fn id(&self) -> &str {
        &self.id
    }
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

fn host_name_ok(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl Fleet {
    /// A new token, good once and until `ttl` has passed. The text is shown once and kept nowhere.
    pub async fn new_join_token(&self, ttl: Duration, host: Option<String>) -> Result<String, Fault> {
        Ok(self.new_join_tokens(ttl, host, 1).await?.pop().unwrap_or_default())
    }

    /// Several at once, in one transaction.
    pub async fn new_join_tokens(&self, ttl: Duration, host: Option<String>, count: u32) -> Result<Vec<String>, Fault> {
        let expires_us = clock::now_us() + i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 2);
        let secrets: Vec<String> = (0..count)
            .map(|_| {
                let mut bytes = [0u8; 32];
                rand::rng().fill_bytes(&mut bytes);
                URL_SAFE_NO_PAD.encode(bytes)
            })
            .collect();
        let records: Vec<JoinToken> =
            secrets.iter().map(|secret| JoinToken { id: hash(secret), expires_us, host: host.clone() }).collect();
        self.store
            .write(move |tx| {
                let records = records.clone();
                Box::pin(async move {
                    for old in tx.list::<JoinToken>(Query::all()).await? {
                        if old.expires_us < clock::now_us() {
                            tx.delete::<JoinToken>(&old.record.id).await?;
                        }
                    }
                    for record in &records {
                        tx.insert(record).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        let pin = self.authority.pin();
        Ok(secrets.into_iter().map(|secret| token::JoinToken { secret, pin }.to_string()).collect())
    }

    /// Trades a token for a certificate. Every refusal reads the same to the caller.
    pub(crate) async fn join(&self, request: v1::JoinRequest) -> Result<v1::JoinReply, Fault> {
        if !host_name_ok(&request.name) {
            return Err(Fault::bad_request("A host name has 1 to 253 letters, digits, dots, dashes or underscores."));
        }
        let (key, name) = (hash(&request.token), request.name.clone());
        let known = self.node_by_name(&name).await?;
        let node_id = known.map_or_else(id::new, |n| n.record.id.clone());
        let issued =
            self.authority.issue_node(&node_id, &request.csr_pem).map_err(|e| Fault::bad_request(e.to_string()))?;
        let fingerprint = issued.fingerprint.clone();
        let id = node_id.clone();
        self.store
            .write(move |tx| {
                let (key, name, id, fingerprint) = (key.clone(), name.clone(), id.clone(), fingerprint.clone());
                Box::pin(async move {
                    let refused = || Fault::unauthorized().kind("JoinRefused");
                    let token = tx.get::<JoinToken>(&key).await?.ok_or_else(refused)?;
                    tx.delete::<JoinToken>(&key).await?;
                    if token.expires_us < clock::now_us() || token.host.as_ref().is_some_and(|h| *h != name) {
                        return Err(refused());
                    }
                    if let Some(mut node) = tx.get::<Node>(&id).await? {
                        node.record.fingerprint = fingerprint;
                        tx.update(&node).await?;
                    } else {
                        tx.insert(&fresh(id, name, fingerprint)).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await?;
        Ok(v1::JoinReply {
            node_id,
            certificate_pem: issued.pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            schedulers: self.addresses().await?,
        })
    }
}

fn fresh(id: String, name: String, fingerprint: String) -> Node {
    Node {
        id,
        name,
        state: NodeState::Registered,
        fingerprint,
        agent_version: String::new(),
        boot_id: String::new(),
        last_seen_us: clock::now_us(),
        inventory: NodeInventory::default(),
        disabled: false,
        disabled_reason: None,
        forced_down: false,
    }
}
