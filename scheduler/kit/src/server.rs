//! The one port: TLS, REST by prefix, gRPC for agents beside it, health and metrics.
//!
//! A connection may start with TLS or, from loopback only and where the operator allows it, with plain
//! HTTP. A client certificate is asked for but not demanded: agents have one, users have tokens. What the
//! certificate says ([`PeerCertificate`]) travels as a request extension.
use crate::{
    dispatch::{self, Arrival, Front},
    fault, navigator, openapi,
    service::Mounted,
};
use axum::{body::Body, extract::Request, response::Response};
use http::{StatusCode, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls_pki_types::CertificateDer;
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

/// The verified client certificate of a connection.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub CertificateDer<'static>);

/// Connections of clients at once; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// Connections that show a certificate of ours, each a host's, have room of their own: neither crowds the other out.
const HOSTS_MAX: usize = 16_384;
/// Requests at once over all connections; one more is told 503.
const REQUESTS_MAX: usize = 1024;
const HANDSHAKE_SECONDS: u64 = 10;
const HEADER_SECONDS: u64 = 30;
const URI_MAX: usize = 16 * 1024;
const DRAIN_SECONDS: u64 = 5;

/// Everything that answers on the port.
pub struct Site {
    pub services: Vec<Mounted>,
    /// Agents' gRPC routes: whatever comes as `application/grpc`.
    pub grpc: Option<axum::Router>,
    pub front: Front,
    /// May loopback clients speak plain HTTP?
    pub plain_http: bool,
    /// Where connections of hosts are served; `None`: where all are.
    pub hosts: Option<Handle>,
    requests: Arc<Semaphore>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.services).finish()
    }
}

impl Site {
    pub fn new(services: Vec<Mounted>, grpc: Option<axum::Router>, front: Front, plain_http: bool) -> Self {
        Site { services, grpc, front, plain_http, hosts: None, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    async fn answer(self: Arc<Self>, arrival: Arrival, request: Request) -> Response {
        let grpc =
            request.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        if let (true, Some(router)) = (grpc, &self.grpc) {
            return router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        }
        if request.uri().to_string().len() > URI_MAX {
            return bare(StatusCode::URI_TOO_LONG, "The address is too long.");
        }
        let Ok(_permit) = self.requests.clone().try_acquire_owned() else {
            return bare(StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once.");
        };
        let path = request.uri().path().to_owned();
        let reads = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        for service in &self.services {
            if let Some(rest) = service.below(&path) {
                return dispatch::dispatch(service, &self.front, &arrival, request, rest).await;
            }
        }
        if !reads {
            return bare(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for this resource.");
        }
        self.own(&path, &arrival)
    }

    /// The few pages that belong to no service.
    fn own(&self, path: &str, arrival: &Arrival) -> Response {
        self.front.metrics.events_lost.set(i64::try_from(self.front.outlet.lost()).unwrap_or(i64::MAX));
        match path {
            "/healthcheck" => text(StatusCode::OK, "text/plain", "OK".to_owned()),
            "/metrics" if arrival.peer.ip().is_loopback() => match self.front.metrics.encode() {
                Ok(page) => text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", page),
                Err(_) => bare(StatusCode::INTERNAL_SERVER_ERROR, "The metrics could not be written."),
            },
            "/openapi.json" => text(StatusCode::OK, "application/json", openapi::document(&self.services).to_string()),
            "/navigator" => {
                let pages: Vec<_> = self.services.iter().map(|s| navigator::of_mounted(s).to_json()).collect();
                text(StatusCode::OK, "application/json", serde_json::json!({"services": pages}).to_string())
            }
            "/" => {
                let list: Vec<_> =
                    self.services.iter().map(|s| serde_json::json!({"service": s.name, "path": s.prefix})).collect();
                text(
                    StatusCode::OK,
                    "application/json",
                    serde_json::json!({"pilvi": env!("CARGO_PKG_VERSION"), "services": list}).to_string(),
                )
            }
            _ => bare(StatusCode::NOT_FOUND, "The resource could not be found."),
        }
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn bare(status: StatusCode, message: &str) -> Response {
    let shaped = fault::plain_shape(&fault::Fault::new(status.as_u16(), message), "");
    text(status, "application/json", shaped.to_string())
}

/// Serves `site` on `listener` until `stop` turns true, then lets open requests end for a few seconds.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    site: Arc<Site>,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let hosts = Arc::new(Semaphore::new(HOSTS_MAX));
    allow_descriptors();
    let mut tasks = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit,
            () = stopped(&mut stop) => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let room = Room { client: permit, hosts: hosts.clone() };
                tasks.spawn(connection(stream, peer, acceptor.clone(), site.clone(), stop.clone(), room));
            }
            // Out of descriptors: wait for connections to end.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
    let _ =
        tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS), async { while tasks.join_next().await.is_some() {} })
            .await;
}

/// As many open files as this process may have: each connection is one.
fn allow_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

/// The room that a connection takes: a client's, until it turns out to be a host's.
struct Room {
    client: OwnedSemaphorePermit,
    hosts: Arc<Semaphore>,
}

impl Room {
    /// `None`: there are too many hosts.
    fn of_host(self) -> Option<OwnedSemaphorePermit> {
        drop(self.client);
        self.hosts.try_acquire_owned().ok()
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: tokio_rustls::TlsAcceptor,
    site: Arc<Site>,
    stop: watch::Receiver<bool>,
    room: Room,
) {
    let _ = stream.set_nodelay(true);
    let mut first = [0u8; 1];
    let peeked = tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECONDS), stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return;
    }
    const TLS_HANDSHAKE: u8 = 0x16;
    if first[0] != TLS_HANDSHAKE {
        if site.plain_http && peer.ip().is_loopback() {
            let arrival = Arrival { peer, scheme: "http" };
            speak(TokioIo::new(stream), site, arrival, None, stop).await;
        }
        return;
    }
    match tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECONDS), acceptor.accept(stream)).await {
        Ok(Ok(tls)) => {
            let certificate = tls
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|c| c.first())
                .map(|c| PeerCertificate(c.clone().into_owned()));
            let (threads, arrival) = (site.hosts.clone(), Arrival { peer, scheme: "https" });
            if certificate.is_none() {
                let _room = room.client;
                return speak(TokioIo::new(tls), site, arrival, None, stop).await;
            }
            let Some(room) = room.of_host() else { return tracing::warn!(%peer, "more hosts than there is room for") };
            let served = Box::pin(async move {
                speak(TokioIo::new(tls), site, arrival, certificate, stop).await;
                drop(room);
            });
            match threads {
                Some(threads) => drop(AbortOnDropHandle::new(threads.spawn(served)).await),
                None => served.await,
            }
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn speak<I>(
    io: TokioIo<I>,
    site: Arc<Site>,
    arrival: Arrival,
    certificate: Option<PeerCertificate>,
    mut stop: watch::Receiver<bool>,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (site, arrival, certificate) = (site.clone(), arrival.clone(), certificate.clone());
        async move {
            let mut request = request.map(Body::new);
            if let Some(certificate) = certificate {
                request.extensions_mut().insert(certificate);
            }
            Ok::<_, std::convert::Infallible>(site.answer(arrival, request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_SECONDS))
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(20))
        .max_header_list_size(64 * 1024);
    let connection = builder.serve_connection_with_upgrades(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Returns when `stop` has turned true, or nobody can turn it any more.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

/// Listens, with a reason when it cannot.
pub fn listen(address: SocketAddr) -> impl Future<Output = std::io::Result<TcpListener>> {
    TcpListener::bind(address)
}
