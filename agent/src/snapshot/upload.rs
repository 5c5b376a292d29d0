//! A packed snapshot goes to the scheduler, as often as it takes.
//!
//! ```text
//! sending --all of it taken--> done
//!    ^  '--refused, image gone--> ended
//!    '--back-off-- connection broke, scheduler away (no limit), scheduler failed (a few times)
//! ```
use crate::join::reason;
use crate::session::FromScheduler;
use async_trait::async_trait;
use bytes::Bytes;
use pilvi_agent_api::IMAGE_CHUNK;
use pilvi_agent_api::v1::UploadPart;
use pilvi_agent_api::v1::agent_client::AgentClient;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// First and longest pause between two attempts.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// How often a scheduler that is there may fail to take it.
const FAILURES: u32 = 5;
/// Pieces between the disk and the network.
const QUEUE: usize = 4;

/// Why an upload ended without the image being whole.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The image was deleted.
    #[error("the image is gone")]
    Gone,
    /// Trying again would not help.
    #[error("{0}")]
    Refused(String),
    /// It may work the next time.
    #[error("{0}")]
    Failed(String),
    /// The scheduler cannot be reached or is busy.
    #[error("{0}")]
    Away(String),
}

/// Where uploads go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends the file at `path` as the bytes of an image, once.
    async fn upload(&self, image: &str, path: &Path) -> Result<(), UploadError>;
}

/// Sends until it has arrived or cannot.
///
/// # Errors
/// Never [`UploadError::Away`].
pub async fn send(sink: &dyn Sink, image: &str, path: &Path) -> Result<(), UploadError> {
    send_patiently(sink, image, path, BACK_OFF).await
}

async fn send_patiently(
    sink: &dyn Sink,
    image: &str,
    path: &Path,
    back_off: (Duration, Duration),
) -> Result<(), UploadError> {
    let (mut pause, mut failures) = (back_off.0, 0);
    loop {
        match sink.upload(image, path).await {
            Err(UploadError::Away(why)) => tracing::info!(image, why, "snapshot waits for the scheduler"),
            Err(UploadError::Failed(why)) if failures < FAILURES => {
                failures += 1;
                tracing::warn!(image, why, failures, "snapshot not taken");
            }
            other => return other,
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
        pause = (pause * 2).min(back_off.1);
    }
}

/// Reads a file piece by piece; ends early when nobody listens or the disk fails: then the size is not what was
/// announced, and the scheduler throws it away.
fn read(mut file: File, first: UploadPart, parts: &mpsc::Sender<UploadPart>) -> io::Result<()> {
    if parts.blocking_send(first).is_err() {
        return Ok(());
    }
    let mut piece = vec![0; IMAGE_CHUNK];
    loop {
        let count = file.read(&mut piece)?;
        let part = UploadPart { data: Bytes::copy_from_slice(&piece[..count]), ..UploadPart::default() };
        if count == 0 || parts.blocking_send(part).is_err() {
            return Ok(());
        }
    }
}

#[async_trait]
impl Sink for FromScheduler {
    async fn upload(&self, image: &str, path: &Path) -> Result<(), UploadError> {
        let broken = |e: io::Error| UploadError::Refused(format!("the packed snapshot cannot be read: {e}"));
        let file = File::open(path).map_err(broken)?;
        let size = file.metadata().map_err(broken)?.len();
        let first = UploadPart { image_id: image.to_owned(), size, data: Bytes::new() };
        let (parts, stream) = mpsc::channel(QUEUE);
        let reading = tokio::task::spawn_blocking(move || read(file, first, &parts));
        let sent = AgentClient::new(self.0.channel()).upload_image(ReceiverStream::new(stream)).await;
        let Err(status) = sent else { return Ok(()) };
        if let Ok(Err(error)) = reading.await {
            return Err(broken(error));
        }
        let why = reason(&status);
        Err(match status.code() {
            Code::NotFound => UploadError::Gone,
            Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
                UploadError::Refused(why)
            }
            Code::Internal | Code::DataLoss | Code::Aborted => UploadError::Failed(why),
            _ => UploadError::Away(why),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Script(Mutex<Vec<Result<(), UploadError>>>);

    #[async_trait]
    impl Sink for Script {
        async fn upload(&self, _image: &str, _path: &Path) -> Result<(), UploadError> {
            self.0.lock().unwrap().pop().unwrap()
        }
    }

    async fn quickly(script: &Script) -> Result<(), UploadError> {
        let short = Duration::from_millis(1);
        send_patiently(script, "i", Path::new("x"), (short, short)).await
    }

    #[tokio::test]
    async fn it_is_tried_again_while_that_may_help() {
        let away = || Err(UploadError::Away("away".into()));
        let mut script: Vec<_> = (0..50).map(|_| away()).collect();
        script.insert(0, Ok(()));
        quickly(&Script(Mutex::new(script))).await.unwrap();
        let gone = Script(Mutex::new(vec![Ok(()), Err(UploadError::Gone)]));
        assert!(matches!(quickly(&gone).await, Err(UploadError::Gone)));
        let failing = Script(Mutex::new((0..50).map(|_| Err(UploadError::Failed("no".into()))).collect()));
        assert!(matches!(quickly(&failing).await, Err(UploadError::Failed(_))));
        assert_eq!(failing.0.lock().unwrap().len(), 50 - 1 - FAILURES as usize);
    }
}
