//! The store that is a bucket of any S3-compatible service.
//!
//! An object arrives as a multipart upload: a few parts in memory, whatever the image's size, and nothing to be
//! seen until the upload is completed. Its id is known before the first byte, so that whoever keeps it can have
//! an upload taken back whose writer died ([`Driver::abandon`]).
use super::{Bytestream, Driver, Incoming};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    ClientOptions, GetOptions, GetRange, MultipartId, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::{MultipartStore, PartId},
    path::Path as Key,
};
use serde_json::{Value, json};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;

/// Parts of an upload at most, as the protocol has it.
const PARTS_MAX: usize = 10_000;
/// Parts after which they double in size, so that large images fit without large memory for small ones.
const PARTS_DOUBLE: usize = 2_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the service may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the bucket is and how it is opened.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// `https://host:port`; none: Amazon's, by region.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Before each object's name.
    pub prefix: String,
    pub access_key: String,
    /// Holds the secret of the key, and nothing else.
    pub secret_key_file: PathBuf,
    /// Certificates to trust, when the endpoint's is not one that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The bucket in the path, not in the host's name.
    pub path_style: bool,
    /// Bytes of a part.
    pub part_size: usize,
}

#[derive(Debug)]
pub(super) struct S3Driver {
    client: Arc<AmazonS3>,
    config: S3Config,
}

fn broken(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl S3Driver {
    pub fn open(config: &S3Config) -> io::Result<Self> {
        // A second one in the same process is refused, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let named = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let secret = std::fs::read_to_string(&config.secret_key_file).map_err(|e| named(&config.secret_key_file, e))?;
        let mut client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(READ_TIMEOUT)
            .with_allow_http(config.endpoint.as_ref().is_some_and(|e| e.starts_with("http://")));
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).map_err(|e| named(path, e))?;
            for certificate in object_store::Certificate::from_pem_bundle(&pem).map_err(io::Error::other)? {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(&config.access_key)
            .with_secret_access_key(secret.trim())
            .with_virtual_hosted_style_request(!config.path_style)
            .with_client_options(client)
            .with_retry(RetryConfig { max_retries: 5, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() });
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        Ok(S3Driver { client: Arc::new(builder.build().map_err(io::Error::other)?), config: config.clone() })
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}{key}", self.config.prefix))
    }
}

#[async_trait]
impl Driver for S3Driver {
    fn kind(&self) -> &'static str {
        "s3"
    }
    fn scans(&self) -> bool {
        false
    }
    fn is_remote(&self) -> bool {
        true
    }
    fn properties(&self) -> Value {
        json!({"s3_store_large_object_size": self.config.part_size >> 20, "s3_store_large_object_chunk_size": self.config.part_size >> 20,
            "bucket": self.config.bucket})
    }
    fn url(&self, key: &str) -> String {
        let endpoint = self.config.endpoint.clone().unwrap_or_else(|| "https://s3.amazonaws.com".to_owned());
        format!("s3+{}/{}/{}{key}", endpoint.trim_end_matches('/'), self.config.bucket, self.config.prefix)
    }
    async fn begin(&self, key: &str) -> io::Result<Box<dyn Incoming>> {
        let key = self.key(key);
        let upload = self.client.create_multipart(&key).await.map_err(broken)?;
        let client = self.client.clone();
        Ok(Box::new(Upload {
            client,
            key,
            upload,
            base: self.config.part_size,
            buffer: Vec::new(),
            buffered: 0,
            parts: Vec::new(),
            flying: None,
        }))
    }
    async fn read(&self, key: &str, offset: u64, length: u64) -> io::Result<Bytestream> {
        if length == 0 {
            self.client.head(&self.key(key)).await.map_err(broken)?;
            return Ok(futures::stream::empty().boxed());
        }
        let range = Some(GetRange::Bounded(offset..offset.saturating_add(length)));
        let got = self
            .client
            .get_opts(&self.key(key), GetOptions { range, ..GetOptions::default() })
            .await
            .map_err(broken)?;
        Ok(got.into_stream().map(|chunk| chunk.map_err(broken)).boxed())
    }
    async fn size(&self, key: &str) -> io::Result<u64> {
        Ok(self.client.head(&self.key(key)).await.map_err(broken)?.size)
    }
    fn key_of(&self, url: &str) -> Option<String> {
        let key = url.strip_prefix(&self.url(""))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        (!key.is_empty() && key.chars().all(plain) && !key.split('/').any(|step| matches!(step, "" | "." | "..")))
            .then(|| key.to_owned())
    }
    async fn delete(&self, key: &str) -> io::Result<()> {
        match self.client.delete(&self.key(key)).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }
    async fn abandon(&self, key: &str, upload: Option<&str>) -> io::Result<()> {
        if let Some(upload) = upload {
            match self.client.abort_multipart(&self.key(key), &upload.to_owned()).await {
                Err(object_store::Error::NotFound { .. }) | Ok(()) => {}
                Err(error) => return Err(broken(error)),
            }
        }
        self.delete(key).await
    }
}

/// A multipart upload: one part is sent while the next one fills.
struct Upload {
    client: Arc<AmazonS3>,
    key: Key,
    upload: MultipartId,
    base: usize,
    buffer: Vec<Bytes>,
    buffered: usize,
    parts: Vec<PartId>,
    flying: Option<JoinHandle<object_store::Result<PartId>>>,
}

impl Upload {
    fn part_size(&self) -> usize {
        let sent = self.parts.len() + usize::from(self.flying.is_some());
        self.base << (sent / PARTS_DOUBLE).min(5)
    }

    async fn land(&mut self) -> io::Result<()> {
        if let Some(flying) = self.flying.take() {
            self.parts.push(flying.await.map_err(io::Error::other)?.map_err(broken)?);
        }
        Ok(())
    }

    async fn send(&mut self) -> io::Result<()> {
        self.land().await?;
        if self.parts.len() >= PARTS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the image needs more parts than an upload may have",
            ));
        }
        let payload: PutPayload = std::mem::take(&mut self.buffer).into_iter().collect();
        self.buffered = 0;
        let (client, key, upload, index) =
            (self.client.clone(), self.key.clone(), self.upload.clone(), self.parts.len());
        self.flying = Some(tokio::spawn(async move { client.put_part(&key, &upload, index, payload).await }));
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.buffered > 0 {
            self.send().await?;
        }
        self.land().await?;
        if self.parts.is_empty() {
            // An upload needs a part, which an empty object has not.
            self.client.abort_multipart(&self.key, &self.upload).await.map_err(broken)?;
            return self.client.put(&self.key, PutPayload::new()).await.map(drop).map_err(broken);
        }
        let parts = std::mem::take(&mut self.parts);
        self.client.complete_multipart(&self.key, &self.upload, parts).await.map(drop).map_err(broken)
    }
}

#[async_trait]
impl Incoming for Upload {
    fn upload(&self) -> Option<&str> {
        Some(&self.upload)
    }

    async fn write(&mut self, mut chunk: Bytes) -> io::Result<()> {
        while !chunk.is_empty() {
            let room = self.part_size() - self.buffered;
            let taken = chunk.split_to(chunk.len().min(room));
            self.buffered += taken.len();
            self.buffer.push(taken);
            if self.buffered == self.part_size() {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> io::Result<()> {
        let finished = self.finish().await;
        if finished.is_err() {
            self.abort().await;
        }
        finished
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(flying) = self.flying.take() {
            let _ = flying.await;
        }
        if let Err(error) = self.client.abort_multipart(&self.key, &self.upload).await {
            tracing::warn!(key = %self.key, %error, "an upload to a bucket could not be taken back");
        }
    }
}
