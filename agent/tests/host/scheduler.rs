//! A scheduler that the tests play: real TLS, real gRPC, a wanted set that they write by hand.
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use pilvi_agent::{Config, NetworkMode, Secret};
use pilvi_agent_api::token::JoinToken;
use pilvi_agent_api::v1::agent_server::{Agent, AgentServer};
use pilvi_agent_api::v1::*;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use sha2::{Digest, Sha256, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct State {
    wanted: watch::Sender<Option<Wanted>>,
    observed: watch::Sender<Observed>,
    hello: watch::Sender<Option<Hello>>,
    questions: tokio::sync::broadcast::Sender<Question>,
    answers: watch::Sender<Option<Answer>>,
    images: Mutex<BTreeMap<String, Vec<u8>>>,
    pub fetches: Mutex<Vec<(String, u64)>>,
    /// Answers to uploads, the last one first; when there are none more, all is taken.
    pub refusals: Mutex<Vec<Status>>,
    pub uploads: watch::Sender<Vec<(String, Vec<u8>)>>,
    tokens: Mutex<BTreeSet<String>>,
    issuer: Issuer<'static, KeyPair>,
    ca: Certificate,
}

#[derive(Clone)]
struct Service(Arc<State>);

pub struct Scheduler {
    pub state: Arc<State>,
    address: SocketAddr,
    identity: Identity,
    ca_pem: String,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Scheduler {
    pub async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let own = params.signed_by(&key, &issuer).unwrap();
        // The chain that is presented must hold the CA: the join token pins that one.
        let identity = Identity::from_pem(own.pem() + &ca.pem(), key.serialize_pem());
        let ca_pem = ca.pem();
        let state = Arc::new(State {
            wanted: watch::Sender::new(None),
            observed: watch::Sender::new(Observed::default()),
            hello: watch::Sender::new(None),
            questions: tokio::sync::broadcast::Sender::new(16),
            answers: watch::Sender::new(None),
            images: Mutex::default(),
            refusals: Mutex::default(),
            uploads: watch::Sender::default(),
            fetches: Mutex::default(),
            tokens: Mutex::default(),
            issuer,
            ca,
        });
        let address = "127.0.0.1:0".parse().unwrap();
        let mut scheduler = Self { state, address, identity, ca_pem, task: None };
        scheduler.back().await;
        scheduler
    }

    /// Listens, at the same address as before.
    pub async fn back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let tls = ServerTlsConfig::new()
            .identity(self.identity.clone())
            .client_ca_root(tonic::transport::Certificate::from_pem(&self.ca_pem))
            .client_auth_optional(true);
        let server = Server::builder().tls_config(tls).unwrap();
        let service = AgentServer::new(Service(self.state.clone()));
        let mut server = server;
        let serving = server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        self.task = Some(tokio::spawn(serving.map(|_| ())));
    }

    /// Goes away without a word.
    pub async fn away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        self.state.hello.send_replace(None);
        self.state.observed.send_replace(Observed::default());
    }

    pub fn token(&self) -> String {
        let secret = format!("{:043}", rand::random::<u64>());
        self.state.tokens.lock().unwrap().insert(secret.clone());
        let pin = Sha256::digest(self.state.ca.der()).into();
        JoinToken { secret, pin }.to_string()
    }

    /// A configuration for an agent of this scheduler.
    pub fn config(&self, state_dir: &Path) -> Config {
        Config {
            state_dir: state_dir.join("agent"),
            scheduler_url: format!("https://{}", self.address),
            name: "n1".into(),
            join_token: Some(Secret::new(self.token())),
            runtimes: vec![pilvi_agent::runtime::Kind::Fake],
            network: NetworkMode::None,
            heartbeat_ms: 200,
            stop_grace_s: 20,
            ..Config::default()
        }
    }

    /// Changes the wanted set; its generation grows by itself.
    pub fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.state.wanted.send_modify(|wanted| {
            let mut next = wanted.take().unwrap_or_default();
            next.generation += 1;
            change(&mut next);
            *wanted = Some(next);
        });
    }

    pub fn wanted(&self) -> Wanted {
        self.state.wanted.borrow().clone().unwrap_or_default()
    }

    /// Changes one wanted instance, whose generation grows by itself.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Instance)) {
        self.want(|wanted| {
            let instance = wanted.instances.iter_mut().find(|i| i.id == id).unwrap();
            instance.generation += 1;
            change(instance);
        });
    }

    /// Puts an image on the shelf.
    pub fn image(&self, id: &str, bytes: Vec<u8>) -> ImageRef {
        let image = ImageRef {
            id: id.into(),
            sha512: hex::encode(Sha512::digest(&bytes)),
            size: bytes.len() as u64,
            disk_format: "raw".into(),
        };
        self.state.images.lock().unwrap().insert(id.into(), bytes);
        image
    }

    /// Waits until the whole observation is such.
    pub async fn until(&self, what: &str, such: impl Fn(&Observed) -> bool) -> Observed {
        let mut observed = self.state.observed.subscribe();
        let seen = tokio::time::timeout(PATIENCE, observed.wait_for(|seen| such(seen))).await;
        match seen {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("never {what}: {:?}", *self.state.observed.borrow()),
        }
    }

    /// Waits until the observation of one instance is such.
    pub async fn until_instance(
        &self,
        id: &str,
        what: &str,
        such: impl Fn(&ObservedInstance) -> bool,
    ) -> ObservedInstance {
        let pick = |seen: &Observed| seen.instances.iter().find(|i| i.id == id).cloned();
        let seen = self.until(what, |seen| pick(seen).is_some_and(|i| such(&i))).await;
        pick(&seen).unwrap()
    }

    /// What was last said of one instance.
    pub fn instance(&self, id: &str) -> Option<ObservedInstance> {
        self.state.observed.borrow().instances.iter().find(|i| i.id == id).cloned()
    }

    /// Waits until an instance has settled at its wanted generation with this power state.
    pub async fn until_settled(&self, id: &str, power: Power) -> ObservedInstance {
        let wanted = self.state.wanted.borrow().clone().unwrap();
        let generation = wanted.instances.iter().find(|i| i.id == id).unwrap().generation;
        self.until_instance(id, power.word(), |seen| seen.reached(generation) && seen.power() == power).await
    }

    pub async fn until_gone(&self, id: &str) {
        let generation = self.state.wanted.borrow().as_ref().unwrap().generation;
        self.until("gone", |seen| seen.generation >= generation && seen.instances.iter().all(|i| i.id != id)).await;
    }

    pub async fn hello(&self) -> Hello {
        let mut hello = self.state.hello.subscribe();
        let seen = tokio::time::timeout(PATIENCE, hello.wait_for(Option::is_some)).await;
        seen.expect("an agent says hello").unwrap().clone().unwrap()
    }

    pub async fn ask(&self, question: Question) -> Answer {
        let mut answers = self.state.answers.subscribe();
        let id = question.id;
        // There may be a moment without a session, or one that has ended and does not know it.
        for _ in 0..30 {
            let _ = self.state.questions.send(question.clone());
            let mine = answers.wait_for(|answer| answer.as_ref().is_some_and(|a| a.id == id));
            if let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), mine).await {
                return answer.unwrap().clone().unwrap();
            }
        }
        panic!("no answer to {question:?}");
    }
}

#[tonic::async_trait]
impl Agent for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        if !self.0.tokens.lock().unwrap().remove(&request.token) {
            return Err(Status::permission_denied("this token is not known or was used"));
        }
        let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let certificate = csr.signed_by(&self.0.issuer).unwrap();
        Ok(Response::new(JoinReply {
            node_id: "3f1c2b1e-0000-4000-8000-000000000099".into(),
            certificate_pem: certificate.pem(),
            ca_pem: self.0.ca.pem(),
            schedulers: vec![],
        }))
    }

    type SessionStream = ReceiverStream<Result<SchedulerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if request.peer_certs().is_none_or(|certs| certs.is_empty()) {
            return Err(Status::unauthenticated("no client certificate"));
        }
        let mut incoming = request.into_inner();
        let state = self.0.clone();
        let (out, messages) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut wanted = state.wanted.subscribe();
            wanted.mark_changed();
            let mut questions = state.questions.subscribe();
            loop {
                tokio::select! {
                    message = incoming.message() => match message {
                        Ok(Some(message)) => take(&state, message),
                        _ => return,
                    },
                    Ok(()) = wanted.changed() => {
                        let now = wanted.borrow_and_update().clone();
                        if let Some(now) = now && out.send(Ok(now.into())).await.is_err() {
                            return;
                        }
                    }
                    Ok(question) = questions.recv() => {
                        let _ = out.send(Ok(question.into())).await;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    type FetchImageStream = BoxStream<'static, Result<ImageChunk, Status>>;

    async fn fetch_image(
        &self,
        request: Request<FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        let FetchImageRequest { image_id, offset } = request.into_inner();
        self.0.fetches.lock().unwrap().push((image_id.clone(), offset));
        let images = self.0.images.lock().unwrap();
        let bytes = images.get(&image_id).ok_or_else(|| Status::not_found("no such image"))?;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let chunks: Vec<_> =
            rest.chunks(64 << 10).map(|c| Ok(ImageChunk { data: Bytes::copy_from_slice(c) })).collect();
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }

    async fn upload_image(&self, request: Request<Streaming<UploadPart>>) -> Result<Response<UploadReply>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or_else(|| Status::invalid_argument("no parts"))?;
        if let Some(refusal) = self.0.refusals.lock().unwrap().pop() {
            return Err(refusal);
        }
        let mut bytes = first.data.to_vec();
        while let Some(part) = parts.message().await? {
            bytes.extend_from_slice(&part.data);
        }
        assert_eq!(bytes.len() as u64, first.size);
        self.0.uploads.send_modify(|uploads| uploads.push((first.image_id, bytes)));
        Ok(Response::new(UploadReply {}))
    }
}

fn take(state: &State, message: AgentMessage) {
    match message.body.unwrap() {
        agent_message::Body::Hello(hello) => {
            state.hello.send_replace(Some(hello));
        }
        agent_message::Body::Observed(seen) => {
            state.observed.send_replace(seen);
        }
        agent_message::Body::Answer(answer) => {
            state.answers.send_replace(Some(answer));
        }
        agent_message::Body::Heartbeat(_) | agent_message::Body::Stale(_) => {}
    }
}
