//! What a handler answers.
use crate::fault::Fault;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::Value;

/// What every handler returns.
pub type Reply = Result<Response, Fault>;

/// A status, headers and a body that is JSON, bytes or a stream.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

pub enum Body {
    Empty,
    Json(Value),
    Bytes {
        content_type: &'static str,
        data: Bytes,
    },
    /// `length` in bytes where it is known. An error ends the connection, so the client sees a cut.
    Stream {
        content_type: &'static str,
        length: Option<u64>,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    },
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({})", self.status)
    }
}

impl Response {
    pub fn json(status: u16, body: Value) -> Self {
        Response { status, headers: Vec::new(), body: Body::Json(body) }
    }
    pub fn ok(body: Value) -> Self {
        Self::json(200, body)
    }
    pub fn created(body: Value) -> Self {
        Self::json(201, body)
    }
    pub fn accepted(body: Value) -> Self {
        Self::json(202, body)
    }
    pub fn empty(status: u16) -> Self {
        Response { status, headers: Vec::new(), body: Body::Empty }
    }
    pub fn no_content() -> Self {
        Self::empty(204)
    }
    pub fn bytes(status: u16, content_type: &'static str, data: Vec<u8>) -> Self {
        Response { status, headers: Vec::new(), body: Body::Bytes { content_type, data: data.into() } }
    }
    pub fn text(status: u16, content_type: &'static str, text: String) -> Self {
        Response { status, headers: Vec::new(), body: Body::Bytes { content_type, data: text.into() } }
    }
    pub fn stream(
        content_type: &'static str,
        length: Option<u64>,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Self {
        Response { status: 200, headers: Vec::new(), body: Body::Stream { content_type, length, data } }
    }
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// The JSON body, for tests.
    pub fn value(&self) -> Option<&Value> {
        match &self.body {
            Body::Json(value) => Some(value),
            _ => None,
        }
    }
}
