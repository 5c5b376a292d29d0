//! The agents' end of the wire: join without a certificate, everything else with one.
//!
//! A session's certificate is compared with the fingerprint in the node's record at its start and with
//! each heartbeat, so a removed or re-joined node loses its old session within a heartbeat.
use crate::{
    Fleet, Node, NodeState, certificate,
    session::{OUTGOING_MAX, Outgoing, Session},
    upload,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use pilvi_agent_api::{
    IMAGE_CHUNK, MAX_MESSAGE,
    v1::{self, agent_message, agent_server},
};
use pilvi_kit::{Fault, clock, server::PeerCertificate};
use pilvi_store::{Stored, under};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

struct Server {
    fleet: Arc<Fleet>,
}

pub(crate) fn routes(fleet: Arc<Fleet>) -> tonic::service::Routes {
    let server = agent_server::AgentServer::new(Server { fleet })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    tonic::service::Routes::new(server)
}

fn status(fault: &Fault) -> Status {
    match fault.code() {
        400 => Status::invalid_argument(&fault.message),
        401 => Status::unauthenticated("The join token was refused: it is unknown, used, expired or for another host."),
        403 => Status::permission_denied(&fault.message),
        404 => Status::not_found(&fault.message),
        _ => {
            tracing::warn!(%fault, "agent's call failed");
            Status::unavailable("The scheduler could not do that now.")
        }
    }
}

impl Server {
    /// The node whose certificate the connection shows.
    async fn node<T>(&self, request: &Request<T>) -> Result<Stored<Node>, Status> {
        let PeerCertificate(der) = request
            .extensions()
            .get::<PeerCertificate>()
            .ok_or_else(|| Status::unauthenticated("A client certificate is needed."))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(der)
            .map_err(|_| Status::unauthenticated("The certificate cannot be read."))?;
        let name = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or_default();
        let node = self.fleet.node(name).await.map_err(|f| status(&f))?;
        let node = node.ok_or_else(|| Status::unauthenticated("This node was removed from the cloud."))?;
        let shown = certificate::fingerprint(der);
        if bool::from(shown.as_bytes().ct_eq(node.fingerprint.as_bytes())) {
            Ok(node)
        } else {
            Err(Status::unauthenticated("This certificate was replaced by a newer one."))
        }
    }
}

type Sent<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl agent_server::Agent for Server {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        match self.fleet.join(request).await {
            Ok(reply) => {
                tracing::info!(host = name, node = reply.node_id, "host joined");
                Ok(Response::new(reply))
            }
            Err(fault) => {
                tracing::warn!(host = name, fault = %fault.status, "join refused");
                Err(status(&fault))
            }
        }
    }

    type SessionStream = Sent<v1::SchedulerMessage>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = self.node(&request).await?;
        let (sender, receiver) = mpsc::channel::<Outgoing>(OUTGOING_MAX);
        let session = Arc::new(Session::new(node.name.clone(), sender));
        tokio::spawn(attend(self.fleet.clone(), node, session, request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    type FetchImageStream = Sent<v1::ImageChunk>;

    async fn fetch_image(
        &self,
        request: Request<v1::FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        self.node(&request).await?;
        let request = request.into_inner();
        let images = self.fleet.images().ok_or_else(|| Status::unavailable("No image service."))?;
        let (_size, bytes) = images.open(&request.image_id, request.offset).await.map_err(|f| status(&f))?;
        Ok(Response::new(chunks(bytes).boxed()))
    }

    async fn upload_image(
        &self,
        request: Request<Streaming<v1::UploadPart>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        let node = self.node(&request).await?;
        upload::take(&self.fleet, &node.name, request.into_inner()).await?;
        Ok(Response::new(v1::UploadReply {}))
    }
}

fn chunks(
    bytes: BoxStream<'static, std::io::Result<Bytes>>,
) -> impl Stream<Item = Result<v1::ImageChunk, Status>> + Send {
    bytes.flat_map(|piece| {
        let pieces: Vec<_> = match piece {
            Ok(mut data) => {
                let mut out = Vec::new();
                while !data.is_empty() {
                    out.push(Ok(v1::ImageChunk { data: data.split_to(data.len().min(IMAGE_CHUNK)) }));
                }
                out
            }
            Err(error) => vec![Err(Status::data_loss(error.to_string()))],
        };
        futures::stream::iter(pieces)
    })
}

/// Reads a session to its end.
async fn attend(fleet: Arc<Fleet>, node: Stored<Node>, session: Arc<Session>, mut stream: Streaming<v1::AgentMessage>) {
    let host = node.name.clone();
    let mut guard = None;
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = session.over() => break,
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(host, %error, "session broke");
                break;
            }
        };
        session.heard();
        let Some(body) = message.body else { continue };
        if let agent_message::Body::Hello(_) = body {
            match fleet.own(&node.id, &session).await {
                Ok(owned) => guard = Some(owned),
                Err(fault) => {
                    tracing::warn!(host, %fault, "a session could not begin");
                    break;
                }
            }
        }
        let Some(guard) = guard.clone() else { break };
        match under(guard, fleet.hear(&node, &session, body)).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(host, "session ended: the node was removed or joined anew");
                break;
            }
            Err(fault) => {
                tracing::warn!(host, %fault, "a message of an agent could not be taken");
                if matches!(fleet.owns(&node.id, &session).await, Ok(false)) {
                    tracing::info!(host, "the host has a newer session");
                    break;
                }
            }
        }
    }
    fleet.stop_listening(&session);
    fleet.disown(&node.id, &session).await;
}

impl Fleet {
    /// Takes one message; false ends the session.
    async fn hear(
        &self,
        node: &Stored<Node>,
        session: &Arc<Session>,
        body: agent_message::Body,
    ) -> Result<bool, Fault> {
        match body {
            agent_message::Body::Hello(hello) => {
                let urls = self.addresses().await?;
                if !urls.is_empty() {
                    session.send(v1::scheduler_message::Body::Schedulers(v1::Schedulers { urls }));
                }
                *session.greeted.lock() = hello.neighbours.clone();
                self.greeted(&node.id, hello).await
            }
            agent_message::Body::Heartbeat(_) => self.heartbeat(node, session).await,
            agent_message::Body::Observed(observed) => {
                session.heard_of(&observed);
                self.observed(&node.name, observed).await
            }
            agent_message::Body::Stale(stale) => {
                tracing::warn!(host = node.name, network = stale.network_id, "an agent lost count of its neighbours");
                session.learn(&stale.network_id, None);
                if session.listens().contains(&stale.network_id) {
                    self.tell_whole(session, &stale.network_id).await?;
                }
                Ok(true)
            }
            agent_message::Body::Answer(answer) => {
                session.answered(answer);
                Ok(true)
            }
        }
    }

    async fn greeted(&self, id: &str, hello: v1::Hello) -> Result<bool, Fault> {
        let node = self
            .update_node(id, move |node| {
                node.state = NodeState::Up;
                node.agent_version.clone_from(&hello.agent_version);
                node.boot_id.clone_from(&hello.boot_id);
                node.last_seen_us = clock::now_us();
                if let Some(inventory) = hello.inventory.clone() {
                    node.inventory = inventory.into();
                }
                true
            })
            .await?;
        let Some(node) = node else { return Ok(false) };
        tracing::info!(
            host = node.name,
            vcpus = node.inventory.vcpus,
            memory_mib = node.inventory.memory_mib,
            "host is up"
        );
        self.announce(&node).await;
        self.touch(&node.name);
        Ok(true)
    }

    /// Life is kept in memory; the record is read when it has changed, and written when the host lives again or after a
    /// while, so that ten thousand hosts do not read and write ten thousand rows every few seconds.
    async fn heartbeat(&self, known: &Stored<Node>, session: &Session) -> Result<bool, Fault> {
        let kept = session.node.lock().clone();
        let node = match kept {
            Some(node) => node,
            None => {
                // Before it is read: what changes meanwhile is read again.
                session.expect_node();
                let Some(node) = self.node(&known.id).await? else { return Ok(false) };
                if node.fingerprint != known.fingerprint {
                    return Ok(false);
                }
                let node = Arc::new(node);
                session.keep_node(&node);
                node
            }
        };
        let revived = node.state != NodeState::Up;
        if revived || clock::now_us() - node.last_seen_us > self.note_life_us() {
            let node = self
                .update_node(&known.id, |n| {
                    n.state = NodeState::Up;
                    n.last_seen_us = clock::now_us();
                    true
                })
                .await?;
            if let (true, Some(node)) = (revived, node) {
                tracing::info!(host = node.name, "host is up again");
                self.announce(&node).await;
                self.touch(&node.name);
            }
        }
        Ok(true)
    }

    /// How long a record may say that its host was last seen before it was: a minute, longer where there are thousands.
    fn note_life_us(&self) -> i64 {
        const LEAST: i64 = 60_000_000;
        const EACH: i64 = 60_000;
        i64::try_from(self.sessions.len()).unwrap_or(i64::MAX).saturating_mul(EACH).max(LEAST)
    }

    async fn observed(&self, host: &str, observed: v1::Observed) -> Result<bool, Fault> {
        for part in self.parts() {
            part.observed(host, &observed).await?;
        }
        self.settled(host).await?;
        Ok(true)
    }
}
