//! Bodies that are not JSON: forms of OAuth clients and browsers, XML of SAML peers.
use futures::StreamExt;
use pilvi_kit::{Call, Fault, call::BodyStream};
use std::time::Duration;

/// Bytes that are read.
pub(crate) const BODY_MAX: usize = 256 * 1024;
/// Time in which they must arrive.
const BODY_SECONDS: u64 = 30;
/// Fields of a form that are looked at.
const FIELDS_MAX: usize = 256;

async fn collect(mut stream: BodyStream) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Fault::bad_request("The request body was cut off."))?;
        if out.len() + piece.len() > BODY_MAX {
            return Err(Fault::too_large(format!("The request body is larger than {BODY_MAX} bytes.")));
        }
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

/// The whole body of a route that takes bytes.
pub(crate) async fn bytes(call: &mut Call) -> Result<Vec<u8>, Fault> {
    let Some(stream) = call.stream.take() else { return Ok(Vec::new()) };
    tokio::time::timeout(Duration::from_secs(BODY_SECONDS), collect(stream))
        .await
        .map_err(|_| Fault::new(408, "The request body did not arrive in time."))?
}

/// The fields of a form, in order; none when the body is something else.
pub(crate) async fn fields(call: &mut Call) -> Result<Vec<(String, String)>, Fault> {
    let body = bytes(call).await?;
    let is_form = call
        .header("content-type")
        .is_some_and(|t| t.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
    if !is_form {
        return Ok(Vec::new());
    }
    let pairs = url::form_urlencoded::parse(&body).take(FIELDS_MAX);
    Ok(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
}

/// The first value of a field.
pub(crate) fn field<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}
