//! Reading request bodies: never more than allowed, and never waiting long for the next piece.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt as _, LengthLimitError};
use lull_shared::problem::ProblemKind;
use tokio::time;

use crate::routes::problem::ApiError;

/// Largest JSON body.
pub(crate) const JSON_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A body that brings nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A body that is held in memory must be there within this time.
const SMALL_BODY_MAX: Duration = Duration::from_secs(60);

/// The next piece of a body; none at its end.
pub(crate) async fn next_chunk(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = time::timeout(SILENCE_MAX, body.frame())
            .await
            .map_err(|_| timed_out("the body stopped arriving"))?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(error)) => return Err(broken(&error)),
        }
    }
}

/// A whole small body.
pub(crate) async fn read(mut body: Body, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let reading = async {
        let mut read = Vec::new();
        while let Some(chunk) = next_chunk(&mut body).await? {
            if chunk.len() > bytes_max - read.len() {
                return Err(too_large(bytes_max as u64));
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    };
    time::timeout(SMALL_BODY_MAX, reading)
        .await
        .map_err(|_| timed_out("the body did not arrive in time"))?
}

/// The refusal of a body larger than this.
pub(crate) fn too_large(bytes_max: u64) -> ApiError {
    ApiError::refused(ProblemKind::TooLarge, format!("at most {bytes_max} bytes are accepted here"))
}

fn timed_out(detail: &str) -> ApiError {
    ApiError::refused(ProblemKind::TimedOut, detail)
}

fn broken(error: &axum::Error) -> ApiError {
    if std::error::Error::source(error).is_some_and(|cause| cause.is::<LengthLimitError>()) {
        return ProblemKind::TooLarge.into();
    }
    ApiError::invalid("the body ended early")
}
