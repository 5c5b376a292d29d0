//! The store that is other people's web servers: images whose bytes stay there. It takes nothing and removes nothing.
//!
//! Keys are URLs. Each is asked for under the rules of `web-download`: no scheme, host, port or address that the
//! operator did not let pass, redirects included.
use super::{Bytestream, Driver, Incoming};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use pilvi_kit::fetch::{Fetcher, Header, Named, Refused};
use serde_json::{Value, json};
use std::io;

#[derive(Debug)]
pub(super) struct HttpDriver {
    fetcher: Fetcher,
}

impl HttpDriver {
    pub fn new(fetcher: Fetcher) -> Self {
        HttpDriver { fetcher }
    }
}

fn broken(refused: Refused) -> io::Error {
    let kind = match &refused {
        Refused::Status(status) if matches!(status.as_u16(), 404 | 410) => io::ErrorKind::NotFound,
        Refused::Filtered(_) | Refused::Address(_) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, refused)
}

/// The number behind the slash of `bytes 0-0/1234`.
fn total(range: &str) -> Option<u64> {
    range.rsplit('/').next()?.trim().parse().ok()
}

/// `length` bytes from `offset` on of a stream that begins at the beginning.
fn cut(stream: Bytestream, offset: u64, length: u64) -> Bytestream {
    let state = (stream, offset, length);
    stream::unfold(state, |(mut stream, mut skip, mut left)| async move {
        while left > 0 {
            match stream.next().await? {
                Err(error) => return Some((Err(error), (stream, 0, 0))),
                Ok(mut chunk) => {
                    let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
                    skip -= skipped as u64;
                    let mut rest: Bytes = chunk.split_off(skipped);
                    rest.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    left -= rest.len() as u64;
                    if !rest.is_empty() {
                        return Some((Ok(rest), (stream, skip, left)));
                    }
                }
            }
        }
        None
    })
    .boxed()
}

#[async_trait]
impl Driver for HttpDriver {
    fn kind(&self) -> &'static str {
        "http"
    }
    fn properties(&self) -> Value {
        json!({})
    }
    fn is_remote(&self) -> bool {
        true
    }
    fn url(&self, key: &str) -> String {
        key.to_owned()
    }
    fn is_meant(&self, url: &str) -> bool {
        url.starts_with("http://") || url.starts_with("https://")
    }
    fn key_of(&self, url: &str) -> Option<String> {
        self.fetcher.check(url).is_ok().then(|| url.to_owned())
    }
    async fn begin(&self, _key: &str) -> io::Result<Box<dyn Incoming>> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this store takes nothing"))
    }
    async fn size(&self, key: &str) -> io::Result<u64> {
        let range = Header { name: "range", value: "bytes=0-0", secret: false };
        let got = self.fetcher.get(key, Named::ByUser, &[range]).await.map_err(broken)?;
        let size = match got.status.as_u16() {
            206 => got.header("content-range").and_then(total),
            _ => got.header("content-length").and_then(|text| text.trim().parse().ok()),
        };
        size.ok_or_else(|| io::Error::other("the server does not say how many bytes there are"))
    }
    async fn read(&self, key: &str, offset: u64, length: u64) -> io::Result<Bytestream> {
        if length == 0 {
            return Ok(stream::empty().boxed());
        }
        let value = format!("bytes={offset}-{}", offset.saturating_add(length - 1));
        let range = Header { name: "range", value: &value, secret: false };
        let got = self.fetcher.get(key, Named::ByUser, &[range]).await.map_err(broken)?;
        let begins_at = if got.status.as_u16() == 206 { offset } else { 0 };
        Ok(cut(got.body, offset - begins_at, length))
    }
    async fn delete(&self, _key: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_is_cut_out_of_a_whole() {
        let whole = || stream::iter(["abc", "defg", "h"].map(|s| Ok(Bytes::from_static(s.as_bytes())))).boxed();
        for (offset, length, want) in
            [(0, 8, "abcdefgh"), (2, 3, "cde"), (3, 4, "defg"), (7, 9, "h"), (9, 1, ""), (0, 0, "")]
        {
            let got: Vec<Bytes> = cut(whole(), offset, length).map(Result::unwrap).collect().await;
            assert_eq!(got.concat(), want.as_bytes(), "{offset}+{length}");
        }
        assert_eq!((total("bytes 0-0/1234"), total("bytes 0-0/*")), (Some(1234), None));
    }
}
