//! Reads the bodies of requests.

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};

use super::budget::{Budget, OWN, ReservedBytes, overloaded};
use super::error::ApiError;

/// Reads the whole body, of at most `max` bytes, if there is memory for it.
pub async fn read(
    mut incoming: Incoming,
    declared: Option<u64>,
    max: usize,
    budget: &Budget,
) -> Result<(Vec<u8>, ReservedBytes), ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    // too large by its own declaration: not worth reading
    if declared.is_some_and(|length| length > max as u64) || incoming.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    let mut arriving = budget.body();
    let mut body = Vec::with_capacity(declared.unwrap_or_default().min(OWN));
    loop {
        let frame = tokio::select! {
            biased;
            () = arriving.given_up() => return Err(overloaded()),
            frame = incoming.frame() => frame,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| ApiError::bad_request("the body did not arrive whole"))?;
        let Some(data) = frame.data_ref() else { continue };
        let length = body.len() + data.len();
        if length > max {
            return Err(too_large());
        }
        if length > body.capacity() {
            // the declared length is not trusted; doubling copies each byte at most twice
            let room = (2 * length).min(declared.unwrap_or(max)).max(length);
            arriving.hold(room)?;
            body.reserve_exact(room - body.len());
        }
        body.extend_from_slice(data);
    }
    Ok((body, arriving.complete()))
}
