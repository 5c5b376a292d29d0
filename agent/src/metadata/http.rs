//! A tiny HTTP/1.1 server for guests, who are hostile.
//!
//! ```text
//! connection + port -> slot free? -> request heads of 16 KiB at most, 10 s to send one
//!                   -> GET, HEAD: page     POST password: kept once     else 405
//! ```
//! A connection lives a minute at most; a port has 8 of them, the host 512.
use super::{Page, View, page};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

const HEAD_LIMIT: usize = 16 << 10;
const HEAD_TIME: Duration = Duration::from_secs(10);
const CONNECTION_TIME: Duration = Duration::from_secs(60);
const PER_PORT: usize = 8;
const PER_HOST: usize = 512;
/// Longest password that a guest may post, in bytes: four values of Nova's system metadata.
const PASSWORD_LIMIT: usize = 4 * 255;

/// Where answers come from.
pub trait Directory: Send + Sync {
    /// What is known of the guest behind a port.
    fn view(&self, port: &str) -> Option<View>;
    /// Keeps a password that a guest posts; `false` when it has posted one before.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn keep_password(&self, port: &str, password: &[u8]) -> std::io::Result<bool>;
}

/// Serves connections within its limits.
pub struct Server {
    directory: Arc<dyn Directory>,
    open: Mutex<HashMap<String, usize>>,
}

impl Server {
    /// A server that answers from `directory`.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>) -> Arc<Self> {
        Arc::new(Self { directory, open: Mutex::default() })
    }

    /// Serves one connection from `port` until it ends; drops it when there are too many.
    pub async fn serve<S>(self: Arc<Self>, stream: S, port: String)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !self.enter(&port) {
            tracing::debug!(port, "too many metadata connections");
            return;
        }
        let (server, asker) = (self.clone(), port.clone());
        let service = service_fn(move |request| {
            let (server, asker) = (server.clone(), asker.clone());
            async move { Ok::<_, Infallible>(server.answer(request, &asker).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME, connection).await {
            tracing::debug!(port, %error, "metadata connection");
        }
        self.leave(&port);
    }

    fn enter(&self, port: &str) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= PER_HOST {
            return false;
        }
        let mine = open.entry(port.to_owned()).or_default();
        *mine += 1;
        if *mine > PER_PORT {
            *mine -= 1;
            return false;
        }
        true
    }

    fn leave(&self, port: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = open.get_mut(port) {
            *mine -= 1;
            if *mine == 0 {
                open.remove(port);
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, port: &str) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let Some(view) = self.directory.view(port) else {
            return plain(StatusCode::NOT_FOUND, "this port belongs to no instance");
        };
        match *request.method() {
            Method::GET | Method::HEAD => match page(&path, &view) {
                Some(page) => found(page),
                None => plain(StatusCode::NOT_FOUND, "no such page"),
            },
            Method::POST if is_password(&path) => self.post_password(request, port).await,
            _ => {
                let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD");
                let allow = hyper::header::HeaderValue::from_static("GET, HEAD");
                refused.headers_mut().insert(ALLOW, allow);
                refused
            }
        }
    }

    async fn post_password(&self, request: Request<Incoming>, port: &str) -> Response<Full<Bytes>> {
        let body = Limited::new(request.into_body(), PASSWORD_LIMIT);
        let Ok(body) = body.collect().await else {
            return plain(StatusCode::BAD_REQUEST, "too long a password");
        };
        match self.directory.keep_password(port, &body.to_bytes()) {
            Ok(true) => plain(StatusCode::OK, ""),
            Ok(false) => plain(StatusCode::CONFLICT, "the password has been set already"),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "not kept"),
        }
    }
}

fn is_password(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    matches!(parts.as_slice(), ["openstack", _, "password"])
}

fn found(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.body.into()));
    let kind = hyper::header::HeaderValue::from_static(page.content_type);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
