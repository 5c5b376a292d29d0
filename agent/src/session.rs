//! The one stream to the scheduler: never given up, never the only place where anything is kept.
//!
//! ```text
//! away --connect--> open: Hello, Observed -> { <- Wanted, Neighbours, Question   -> Heartbeat, Observed, Answer }
//!   ^                       |
//!   +-- back-off, jitter <--+  stream or connection ends, or the scheduler is silent: the next one's turn
//! ```
//! While away the host goes on with what the ledger says.
use crate::config::Config;
use crate::host::Host;
use crate::image::Source;
use crate::join::reason;
use crate::link::Link;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use pilvi_agent_api::v1::agent_client::AgentClient;
use pilvi_agent_api::v1::{
    AgentMessage, FetchImageRequest, Heartbeat, Hello, Inventory, Neighbours, SchedulerMessage, Stale,
    scheduler_message,
};
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// First and longest pause between two attempts.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// With another scheduler to go to, nobody waits for long.
const BACK_OFF_OF_MANY: Duration = Duration::from_secs(3);
/// A session that lasted this long starts the back-off anew.
const LASTED: Duration = Duration::from_secs(10);
/// Observations are at least this far apart: changes in between go together.
const COALESCE: Duration = Duration::from_millis(50);
/// Questions that are answered at the same time.
const QUESTIONS: usize = 16;

/// What the agent says of itself when a session opens.
#[derive(Debug, Clone)]
pub struct Introduction {
    pub node_id: String,
    pub name: String,
    pub boot_id: String,
    pub inventory: Inventory,
}

/// Keeps a session with the scheduler. Never returns.
pub async fn run(host: Arc<Host>, link: Arc<Link>, me: Introduction, config: Config) {
    let mut pause = BACK_OFF.0;
    loop {
        let started = Instant::now();
        let status = once(&host, &link, &me, &config).await;
        link.turn();
        tracing::warn!(reason = %reason(&status), "no session with the scheduler");
        if started.elapsed() > LASTED {
            pause = BACK_OFF.0;
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        let longest = if link.addresses.all().len() < 2 { BACK_OFF.1 } else { BACK_OFF_OF_MANY };
        pause = (pause * 2).min(longest);
    }
}

/// One session, from Hello to its end; the status says why it ended.
async fn once(host: &Arc<Host>, link: &Link, me: &Introduction, config: &Config) -> tonic::Status {
    let board = &host.context.board;
    let mut changes = board.watch();
    let mut told = *changes.borrow();
    let (out, messages) = mpsc::channel::<AgentMessage>(64);
    let hello = Hello {
        node_id: me.node_id.clone(),
        name: me.name.clone(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: me.boot_id.clone(),
        inventory: Some(me.inventory.clone()),
        ledger_generation: board.generation(),
        neighbours: host.context.neighbours.versions(),
    };
    for first in [AgentMessage::from(hello), board.snapshot().into()] {
        if out.try_send(first).is_err() {
            return tonic::Status::internal("the first messages do not fit");
        }
    }
    let mut client = AgentClient::new(link.channel())
        .max_decoding_message_size(pilvi_agent_api::MAX_MESSAGE)
        .max_encoding_message_size(pilvi_agent_api::MAX_MESSAGE);
    let mut incoming = match client.session(ReceiverStream::new(messages)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    tracing::info!("session with the scheduler is open");
    let questions = Arc::new(Semaphore::new(QUESTIONS));
    let mut beat = tokio::time::interval(config.heartbeat());
    let mut report_after = tokio::time::Instant::now();
    loop {
        tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => receive(host, link, message, &out, &questions).await,
                Ok(None) => return tonic::Status::unavailable("the scheduler ended the session"),
                Err(status) => return status,
            },
            Ok(version) = news(&mut changes, told, report_after) => {
                told = version;
                report_after = tokio::time::Instant::now() + COALESCE;
                if out.send(board.snapshot().into()).await.is_err() {
                    return tonic::Status::unavailable("the stream is closed");
                }
            }
            _ = beat.tick() => {
                let beat = Heartbeat { generation: board.generation() };
                if out.send(beat.into()).await.is_err() {
                    return tonic::Status::unavailable("the stream is closed");
                }
            }
        }
    }
}

/// Waits for a version of the board that was not told yet, and until it may be told.
async fn news(
    changes: &mut tokio::sync::watch::Receiver<u64>,
    told: u64,
    after: tokio::time::Instant,
) -> Result<u64, tokio::sync::watch::error::RecvError> {
    tokio::time::sleep_until(after).await;
    Ok(*changes.wait_for(|version| *version != told).await?)
}

async fn receive(
    host: &Arc<Host>,
    link: &Link,
    message: SchedulerMessage,
    out: &mpsc::Sender<AgentMessage>,
    questions: &Arc<Semaphore>,
) {
    match message.body {
        Some(scheduler_message::Body::Wanted(wanted)) => {
            tracing::debug!(generation = wanted.generation, "wanted set");
            let host = host.clone();
            // What comes after it must find it in the ledger.
            if let Err(error) = tokio::task::spawn_blocking(move || host.take(&wanted)).await {
                tracing::error!(%error, "wanted set");
            }
        }
        Some(scheduler_message::Body::Neighbours(news)) => {
            let news = match Neighbours::decode(news) {
                Ok(news) => news,
                Err(error) => return tracing::warn!(%error, "news of neighbours that cannot be read"),
            };
            let network_id = news.network_id.clone();
            if !host.take_neighbours(news) {
                tracing::warn!(network = network_id, "news of neighbours do not fit what is known of them");
                let _ = out.send(Stale { network_id }.into()).await;
            }
        }
        Some(scheduler_message::Body::Question(question)) => {
            let (host, out, questions) = (host.clone(), out.clone(), questions.clone());
            tokio::spawn(async move {
                let Ok(_slot) = questions.acquire().await else {
                    return;
                };
                let _ = out.send(host.answer(question).await.into()).await;
            });
        }
        Some(scheduler_message::Body::Schedulers(schedulers)) => link.addresses.told(&schedulers.urls),
        None => tracing::debug!("a message that this agent does not know"),
    }
}

/// Images from the scheduler, over the same connection.
#[derive(Debug)]
pub struct FromScheduler(pub Arc<Link>);

#[async_trait]
impl Source for FromScheduler {
    async fn fetch(&self, id: &str, offset: u64) -> Result<BoxStream<'static, Result<Bytes, String>>, String> {
        let mut client = AgentClient::new(self.0.channel());
        let request = FetchImageRequest { image_id: id.to_owned(), offset };
        let stream = client.fetch_image(request).await.map_err(|s| reason(&s))?;
        let pieces = stream.into_inner().map(|piece| match piece {
            Ok(chunk) => Ok(chunk.data),
            Err(status) => Err(reason(&status)),
        });
        Ok(pieces.boxed())
    }
}
