//! Snapshots that hosts send: a stream of parts becomes a stream of bytes for whoever takes them.
//!
//! The agent tells from the status what to do: `unavailable` means later, `internal` a few times more,
//! `not_found` that nobody wants it any more, anything else that it is no use.
use crate::Fleet;
use futures::StreamExt;
use pilvi_agent_api::v1::UploadPart;
use pilvi_kit::Fault;
use std::io;
use tonic::{Status, Streaming};

/// Takes one upload of the host of this name to its end.
pub(crate) async fn take(fleet: &Fleet, host: &str, mut parts: Streaming<UploadPart>) -> Result<(), Status> {
    let first = parts.message().await?.ok_or_else(|| Status::invalid_argument("An upload without parts."))?;
    let sink = fleet.snapshots().ok_or_else(|| Status::unavailable("No image service."))?;
    let rest = parts.map(|part| part.map(|p| p.data).map_err(io::Error::other));
    let bytes = futures::stream::iter([Ok(first.data)]).chain(rest).boxed();
    sink.take(host, &first.image_id, first.size, bytes).await.map_err(|fault| {
        tracing::warn!(host, image = first.image_id, %fault, "a snapshot was not taken");
        refusal(&fault)
    })
}

fn refusal(fault: &Fault) -> Status {
    match fault.code() {
        404 | 410 => Status::not_found(&fault.message),
        403 => Status::permission_denied(&fault.message),
        413 | 415 => Status::failed_precondition(&fault.message),
        // It did not arrive whole, or an earlier attempt is not yet over.
        400 | 408 | 409 | 429 | 503 => Status::unavailable(&fault.message),
        _ => Status::internal("The scheduler could not take it."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn agents_are_told_what_to_do() {
        for (code, want) in [
            (404, Code::NotFound),
            (410, Code::NotFound),
            (403, Code::PermissionDenied),
            (413, Code::FailedPrecondition),
            (409, Code::Unavailable),
            (500, Code::Internal),
        ] {
            assert_eq!(refusal(&Fault::new(code, "x")).code(), want, "{code}");
        }
    }
}
