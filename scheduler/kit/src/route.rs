//! Routes are data, and the matcher that finds one for a path.
//!
//! A pattern is literal segments and `{names}`; `{*name}` at the end takes the rest. Literal segments win
//! over names, so `/servers/detail` is never a server called "detail".
use crate::{body::Schema, call::Call, response::Reply, version::Version};
use futures::future::BoxFuture;
use http::Method;
use std::{future::Future, sync::Arc, sync::LazyLock};

pub(crate) type Handler<S> = Arc<dyn Fn(Arc<S>, Call) -> BoxFuture<'static, Reply> + Send + Sync>;

/// The media type of a body of bytes, unless a route says otherwise.
pub(crate) const BYTES: &str = "application/octet-stream";

/// When the rule is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// By the kit, before the handler, about the caller's own project and the path's parameters.
    Before,
    /// By the handler, about the record it found. The kit answers 500 when it forgets.
    ByHandler,
    /// Never: the route needs no token; `rule` holds the reason.
    Public,
    /// Never, but a good token is needed; `rule` holds the reason.
    Authenticated,
}

pub struct Route<S> {
    pub method: Method,
    pub path: &'static str,
    pub rule: &'static str,
    pub asked: Asked,
    pub versions: (Version, Version),
    pub schema: Option<&'static LazyLock<Schema>>,
    /// Bytes of the body that are read; larger is 413.
    pub limit: usize,
    /// The handler takes the body as a stream of bytes.
    pub bytes: bool,
    /// A body must say that it is JSON: 415 before it is read.
    pub json_only: bool,
    /// The media type of the body.
    pub body_type: &'static str,
    /// Where one path takes many verbs, named by the body's only member: each with its rule.
    pub actions: &'static [(&'static str, &'static str)],
    /// (resource, action) of the events of its calls, where the path does not tell: see [`crate::subject`].
    pub event: Option<(&'static str, &'static str)>,
    /// One line for the OpenAPI document.
    pub summary: &'static str,
    pub(crate) handler: Handler<S>,
}

impl<S> std::fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl<S: Send + Sync + 'static> Route<S> {
    pub fn new<F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Route {
            method,
            path,
            rule: "",
            asked: Asked::Before,
            versions: (Version(0, 0), Version(u16::MAX, u16::MAX)),
            schema: None,
            limit: crate::body::JSON_LIMIT,
            bytes: false,
            json_only: false,
            body_type: "application/json",
            actions: &[],
            event: None,
            summary: "",
            handler: Arc::new(move |state, call| Box::pin(handler(state, call))),
        }
    }
    pub fn get<F, Fut>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::GET, path, handler)
    }
    pub fn post<F, Fut>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::POST, path, handler)
    }
    pub fn put<F, Fut>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::PUT, path, handler)
    }
    pub fn patch<F, Fut>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::PATCH, path, handler)
    }
    pub fn delete<F, Fut>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::new(Method::DELETE, path, handler)
    }

    /// The rule, asked before the handler runs.
    pub fn rule(mut self, rule: &'static str) -> Self {
        (self.rule, self.asked) = (rule, Asked::Before);
        self
    }
    /// The rule, asked by the handler about the record it found.
    pub fn rule_by_handler(mut self, rule: &'static str) -> Self {
        (self.rule, self.asked) = (rule, Asked::ByHandler);
        self
    }
    /// No token is needed, because ...
    pub fn public(mut self, why: &'static str) -> Self {
        (self.rule, self.asked) = (why, Asked::Public);
        self
    }
    /// Any good token will do, because ...
    pub fn authenticated(mut self, why: &'static str) -> Self {
        (self.rule, self.asked) = (why, Asked::Authenticated);
        self
    }
    pub fn since(mut self, major: u16, minor: u16) -> Self {
        self.versions.0 = Version(major, minor);
        self
    }
    pub fn until(mut self, major: u16, minor: u16) -> Self {
        self.versions.1 = Version(major, minor);
        self
    }
    pub fn schema(mut self, schema: &'static LazyLock<Schema>) -> Self {
        self.schema = Some(schema);
        self
    }
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
    /// The handler reads `call.stream`. A form's route says so by `body_type` after this.
    pub fn takes_bytes(mut self) -> Self {
        (self.bytes, self.limit, self.body_type) = (true, usize::MAX, BYTES);
        self
    }
    /// The verbs that the body may name, each with the rule that the handler asks for it.
    pub fn actions(mut self, actions: &'static [(&'static str, &'static str)]) -> Self {
        self.actions = actions;
        self
    }
    /// The body's media type, where it is not `application/json`: for the OpenAPI document; the handler checks it.
    pub fn body_type(mut self, kind: &'static str) -> Self {
        self.body_type = kind;
        self
    }
    /// What its events say happened to what.
    pub fn event(mut self, resource: &'static str, action: &'static str) -> Self {
        self.event = Some((resource, action));
        self
    }
    pub fn summary(mut self, text: &'static str) -> Self {
        self.summary = text;
        self
    }
}

/// What the matcher found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Route(usize, Vec<(&'static str, String)>),
    /// The path is known, the method is not: for `Allow`.
    WrongMethod(Vec<Method>),
    Nothing,
}

#[derive(Debug)]
struct Pattern {
    segments: Vec<Segment>,
    method: Method,
    versions: (Version, Version),
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(&'static str),
    Name(&'static str),
    Rest(&'static str),
}

/// All patterns of one service, most literal first.
#[derive(Debug)]
pub(crate) struct Matcher {
    patterns: Vec<(usize, Pattern)>,
}

/// The segments of a pattern: literals, and `None` for each name.
pub(crate) fn split_pattern(path: &str) -> impl Iterator<Item = Option<&str>> {
    path.trim_matches('/').split('/').filter(|s| !s.is_empty()).map(|s| if s.starts_with('{') { None } else { Some(s) })
}

fn split(path: &'static str) -> Vec<Segment> {
    let named = |s: &'static str| s.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
    path.trim_matches('/')
        .split('/')
        .filter(|s| !s.is_empty())
        .map(|s| match named(s) {
            Some(name) => name.strip_prefix('*').map_or(Segment::Name(name), Segment::Rest),
            None => Segment::Literal(s),
        })
        .collect()
}

impl Matcher {
    pub fn new<S>(routes: &[Route<S>]) -> Self {
        let mut patterns: Vec<_> = routes
            .iter()
            .enumerate()
            .map(|(i, r)| (i, Pattern { segments: split(r.path), method: r.method.clone(), versions: r.versions }))
            .collect();
        let weight = |p: &Pattern| -> Vec<u8> {
            p.segments
                .iter()
                .map(|s| match s {
                    Segment::Literal(_) => 0,
                    Segment::Name(_) => 1,
                    Segment::Rest(_) => 2,
                })
                .collect()
        };
        patterns.sort_by_key(|(_, p)| weight(p));
        Matcher { patterns }
    }

    /// `path` is below the prefix. HEAD falls back to GET.
    pub fn find(&self, method: &Method, path: &str, version: Version) -> Found {
        let segments: Vec<&str> = path.trim_matches('/').split('/').filter(|s| !s.is_empty()).collect();
        if segments.len() > 32 {
            return Found::Nothing;
        }
        let mut allowed = Vec::new();
        let mut fallback = None;
        for (index, pattern) in &self.patterns {
            let in_range = version == Version(0, 0) || (pattern.versions.0 <= version && version <= pattern.versions.1);
            if !in_range {
                continue;
            }
            let Some(params) = bind(&pattern.segments, &segments) else { continue };
            if pattern.method == *method {
                return Found::Route(*index, params);
            }
            if *method == Method::HEAD && pattern.method == Method::GET && fallback.is_none() {
                fallback = Some((*index, params));
            }
            allowed.push(pattern.method.clone());
        }
        match fallback {
            Some((index, params)) => Found::Route(index, params),
            None if allowed.is_empty() => Found::Nothing,
            None => Found::WrongMethod(allowed),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

fn bind(pattern: &[Segment], path: &[&str]) -> Option<Vec<(&'static str, String)>> {
    let mut params = Vec::new();
    for (i, segment) in pattern.iter().enumerate() {
        match segment {
            Segment::Rest(name) => {
                let rest: Option<Vec<String>> = path.get(i..)?.iter().map(|s| decode(s)).collect();
                params.push((*name, rest?.join("/")));
                return Some(params);
            }
            Segment::Literal(text) => {
                if path.get(i)? != text {
                    return None;
                }
            }
            Segment::Name(name) => params.push((*name, decode(path.get(i)?)?)),
        }
    }
    (pattern.len() == path.len()).then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response;

    async fn answer(_: Arc<()>, _: Call) -> Reply {
        Ok(Response::no_content())
    }

    #[test]
    fn literal_segments_win_and_wrong_methods_are_told() {
        let routes = vec![
            Route::get("/servers/{id}", answer),
            Route::get("/servers/detail", answer),
            Route::delete("/servers/{id}", answer),
            Route::get("/files/{*path}", answer),
            Route::get("/new", answer).since(2, 5),
        ];
        let m = Matcher::new(&routes);
        let none = Version(0, 0);
        assert_eq!(m.find(&Method::GET, "/servers/detail", none), Found::Route(1, vec![]));
        assert_eq!(m.find(&Method::GET, "/servers/a%20b/", none), Found::Route(0, vec![("id", "a b".into())]));
        assert_eq!(m.find(&Method::HEAD, "/servers/x", none), Found::Route(0, vec![("id", "x".into())]));
        assert_eq!(m.find(&Method::GET, "/files/a/b", none), Found::Route(3, vec![("path", "a/b".into())]));
        assert!(matches!(m.find(&Method::PUT, "/servers/x", none), Found::WrongMethod(v) if v.len() == 2));
        assert_eq!(m.find(&Method::GET, "/servers", none), Found::Nothing);
        assert_eq!(m.find(&Method::GET, "/new", Version(2, 4)), Found::Nothing);
        assert_eq!(m.find(&Method::GET, "/new", Version(2, 5)), Found::Route(4, vec![]));
    }
}
