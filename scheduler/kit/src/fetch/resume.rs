//! Going on where a connection broke: which bytes to ask for, and whether the answer is about them.
use super::{Got, Header};
use serde::{Deserialize, Serialize};

/// What is known of a file that is being fetched in pieces. It can be kept, to go on after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes that are here.
    pub have: u64,
    /// Bytes of the whole file, where the server said so.
    pub total: Option<u64>,
    /// What tells this file from another under the same name: a strong `ETag`, or when it was last changed.
    pub validator: Option<String>,
}

/// How to go on after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The body begins behind what is here.
    Here,
    /// The body is the whole file, from its beginning.
    Start,
}

/// `bytes 100-199/1000`
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((from.parse().ok()?, total))
}

impl Progress {
    /// Headers that ask for the rest; none at the beginning.
    pub fn range(&self) -> Option<String> {
        (self.have > 0).then(|| format!("bytes={}-", self.have))
    }

    pub fn headers<'h>(&'h self, range: Option<&'h str>) -> Vec<Header<'h>> {
        let mut headers = Vec::new();
        if let Some(value) = range {
            headers.push(Header { name: "range", value, secret: false });
            if let Some(value) = self.validator.as_deref() {
                headers.push(Header { name: "if-range", value, secret: false });
            }
        }
        headers
    }

    /// Learns from an answer, and says where its body begins.
    pub fn learn(&mut self, got: &Got) -> Resume {
        let strong = got.header("etag").filter(|tag| !tag.starts_with("W/"));
        let validator = strong.or_else(|| got.header("last-modified")).map(str::to_owned);
        let part = got.header("content-range").and_then(content_range).filter(|_| got.status.as_u16() == 206);
        let same = self.validator.is_none() || self.validator == validator;
        if let Some((from, total)) = part
            && from == self.have
            && (self.total.is_none() || total.is_none() || self.total == total)
            && same
        {
            (self.total, self.validator) = (self.total.or(total), validator);
            return Resume::Here;
        }
        let length = got.header("content-length").and_then(|text| text.parse().ok());
        *self = Progress { have: 0, total: length.filter(|_| got.status.as_u16() == 200), validator };
        Resume::Start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    fn got(status: u16, headers: &[(&'static str, &str)]) -> Got {
        Got {
            status: http::StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect(),
            body: futures::stream::empty().boxed(),
        }
    }

    #[test]
    fn a_rest_is_taken_only_of_the_same_file() {
        let mut progress = Progress::default();
        assert_eq!(progress.learn(&got(200, &[("content-length", "1000"), ("etag", "\"a\"")])), Resume::Start);
        assert_eq!((progress.total, progress.range()), (Some(1000), None));
        progress.have = 100;
        assert_eq!(progress.range().as_deref(), Some("bytes=100-"));
        let range = progress.range();
        assert_eq!(progress.headers(range.as_deref()).len(), 2);
        let rest = |range: &str, tag: &str| got(206, &[("content-range", range), ("etag", tag)]);
        assert_eq!(progress.clone().learn(&rest("bytes 100-999/1000", "\"a\"")), Resume::Here);
        for (range, tag) in [
            ("bytes 0-999/1000", "\"a\""),
            ("bytes 100-999/1001", "\"a\""),
            ("bytes 100-999/1000", "\"b\""),
            ("nonsense", "\"a\""),
        ] {
            let mut other = progress.clone();
            assert_eq!(other.learn(&rest(range, tag)), Resume::Start, "{range} {tag}");
            assert_eq!(other.have, 0);
        }
        assert_eq!(progress.learn(&got(200, &[("content-length", "7")])), Resume::Start);
        assert_eq!((progress.have, progress.total), (0, Some(7)));
    }
}
