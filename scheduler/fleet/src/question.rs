//! Short questions to a host: answered over its session, wherever that is.
//!
//! ```text
//!  asked here, session here       -> over the stream
//!  asked here, session elsewhere  -> a record that names who holds the session -> change feed there -> over the stream
//!                                    <- the record with the answer; the asker removes it
//! ```
//! Schedulers do not call each other: all that passes between them passes through the store.
use crate::Fleet;
use base64::{Engine, engine::general_purpose::STANDARD};
use pilvi_agent_api::v1;
use pilvi_kit::{Fault, clock, id};
use pilvi_store::{Change, Op, Query, Record};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// A question on its way between two schedulers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostQuestion {
    pub id: String,
    /// Whose session it is for.
    pub node: String,
    /// Id of the scheduler that shall put it.
    pub scheduler: String,
    /// The message, base64.
    pub body: String,
    pub asked_us: i64,
    pub answer: Option<HostAnswer>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostAnswer {
    /// base64
    Data(String),
    Fault {
        code: u16,
        message: String,
    },
}

impl Record for HostQuestion {
    const KIND: &'static str = "fleet_question";
    fn id(&self) -> &str {
        &self.id
    }
}

/// A little longer than a host may take.
const PATIENCE: Duration = Duration::from_secs(13);
const POLL: Duration = Duration::from_millis(50);
/// Questions whose asker is gone.
const KEPT_US: i64 = 60_000_000;

fn not_connected() -> Fault {
    Fault::unavailable("The host is not connected.")
}

impl Fleet {
    /// Asks a host something short; 503 when it is not connected, 504 when it does not answer in time.
    pub async fn ask(&self, node: &str, question: v1::question::Body) -> Result<Vec<u8>, Fault> {
        if let Some(session) = self.session(node) {
            return session.ask(question).await;
        }
        let scheduler =
            self.holder_of(node).await?.filter(|s| **s != *self.scheduler_id()).ok_or_else(not_connected)?;
        if !self.living().await?.iter().any(|peer| peer.id == scheduler) {
            return Err(not_connected());
        }
        self.ask_through(node, scheduler, question).await
    }

    async fn ask_through(&self, node: &str, scheduler: String, question: v1::question::Body) -> Result<Vec<u8>, Fault> {
        let message = v1::Question { id: 0, body: Some(question) };
        let record = HostQuestion {
            id: id::new(),
            node: node.to_owned(),
            scheduler,
            body: STANDARD.encode(message.encode_to_vec()),
            asked_us: clock::now_us(),
            answer: None,
        };
        let key = record.id.clone();
        self.store
            .write(move |tx| {
                let record = record.clone();
                Box::pin(async move { Ok::<_, Fault>(tx.insert(&record).await.map(drop)?) })
            })
            .await?;
        let answer = self.await_answer(&key).await;
        self.forget_questions(vec![key]).await?;
        match answer? {
            HostAnswer::Data(data) => STANDARD.decode(data).map_err(Fault::internal),
            HostAnswer::Fault { code, message } => Err(Fault::new(code, message)),
        }
    }

    async fn await_answer(&self, key: &str) -> Result<HostAnswer, Fault> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            tokio::time::sleep(POLL).await;
            match self.store.get::<HostQuestion>(key).await? {
                Some(question) => {
                    if let Some(answer) = question.record.answer {
                        return Ok(answer);
                    }
                }
                None => break,
            }
        }
        Err(Fault::new(504, "The host did not answer in time."))
    }

    async fn forget_questions(&self, keys: Vec<String>) -> Result<(), Fault> {
        self.store
            .write(move |tx| {
                let keys = keys.clone();
                Box::pin(async move {
                    for key in &keys {
                        tx.delete::<HostQuestion>(key).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await
    }

    /// Puts a question that another scheduler wrote down for one of our sessions.
    pub(crate) fn take_question(self: &Arc<Self>, change: &Change) {
        if change.kind != HostQuestion::KIND || change.op != Op::Insert {
            return;
        }
        let (fleet, key) = (self.clone(), change.id.clone());
        tokio::spawn(async move {
            if let Err(fault) = fleet.put_question(&key).await {
                tracing::warn!(question = key, %fault, "a question to a host was not put");
            }
        });
    }

    async fn put_question(&self, key: &str) -> Result<(), Fault> {
        let Some(question) = self.store.get::<HostQuestion>(key).await? else { return Ok(()) };
        if *question.scheduler != *self.scheduler_id() || question.answer.is_some() {
            return Ok(());
        }
        let bytes = STANDARD.decode(&question.body).map_err(Fault::internal)?;
        let message = v1::Question::decode(bytes.as_slice()).map_err(Fault::internal)?;
        let answer = match (self.session(&question.node), message.body) {
            (Some(session), Some(body)) => session.ask(body).await,
            _ => Err(not_connected()),
        };
        let answer = match answer {
            Ok(data) => HostAnswer::Data(STANDARD.encode(data)),
            Err(fault) => HostAnswer::Fault { code: fault.code(), message: fault.message },
        };
        let key = key.to_owned();
        self.store
            .write(move |tx| {
                let (key, answer) = (key.clone(), answer.clone());
                Box::pin(async move {
                    // The asker may have gone.
                    let Some(mut question) = tx.get::<HostQuestion>(&key).await? else { return Ok(()) };
                    question.record.answer = Some(answer);
                    tx.update(&question).await?;
                    Ok::<_, Fault>(())
                })
            })
            .await
    }

    /// Removes questions that nobody waits for any more.
    pub(crate) async fn forget_old_questions(&self) -> Result<(), Fault> {
        let before = clock::now_us() - KEPT_US;
        let all = self.store.list::<HostQuestion>(Query::all()).await?;
        let old: Vec<String> = all.into_iter().filter(|q| q.asked_us < before).map(|q| q.record.id).collect();
        if old.is_empty() { Ok(()) } else { self.forget_questions(old).await }
    }
}
