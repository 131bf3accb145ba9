//! Files: uploaded once under their digest, downloaded whole or in part.

use std::ops::Range;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
            CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, RANGE,
        },
    },
    response::{IntoResponse, Response},
};
use lull_shared::{
    files::{DIGEST_HEADER, DownloadQuery, StoredFile},
    ids::Digest,
    problem::{Problem, ProblemKind},
};

use crate::{
    auth::Identity,
    routes::{
        AppState, body,
        problem::{ApiError, ApiQuery},
    },
};

/// Upload a file.
///
/// The body is the file as it is; the header `x-lull-digest` announces its SHA-256, which what arrives must have. A
/// file that is there already is not read again: ask with `HEAD /api/files/{digest}` first and save the way.
#[utoipa::path(
    post,
    path = "/api/files/upload",
    tag = "files",
    params(("x-lull-digest" = Digest, Header, description = "SHA-256 of the body, 64 lower-case hex digits")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Stored, now or before", body = StoredFile),
        (status = 422, description = "`digest_mismatch`: nothing was kept", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`: nothing was kept", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn upload_file(
    State(state): State<AppState>,
    headers: HeaderMap,
    mut request: Body,
) -> Result<Json<StoredFile>, ApiError> {
    let digest: Digest = headers
        .get(DIGEST_HEADER)
        .and_then(|digest| digest.to_str().ok()?.parse().ok())
        .ok_or_else(|| ApiError::invalid(format!("{DIGEST_HEADER}: 64 lower-case hex digits")))?;
    if let Some(size_bytes) = state.reads.blob_size(digest).await? {
        return Ok(Json(StoredFile { digest, size_bytes }));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
    if announced.is_some_and(|size: u64| size > state.upload_bytes_max) {
        return Err(body::too_large(state.upload_bytes_max));
    }
    let mut upload = state.blobs.begin().await?;
    while let Some(chunk) = body::next_chunk(&mut request).await? {
        if upload.size_bytes() + chunk.len() as u64 > state.upload_bytes_max {
            return Err(body::too_large(state.upload_bytes_max));
        }
        upload.write(chunk).await?;
    }
    let staged = upload.finish().await?;
    if staged.file().digest != digest {
        let detail = format!("{digest} was announced, {} arrived", staged.file().digest);
        return Err(ApiError::refused(ProblemKind::DigestMismatch, detail));
    }
    let recording = state.blobs.recording().await;
    let file = staged.keep().await?;
    state.scheduler.record_blob(file).await?;
    drop(recording);
    tracing::info!(size_bytes = file.size_bytes, "file stored");
    Ok(Json(file))
}

/// Download a file, or ask with `HEAD` whether it is there.
///
/// `Range` with a single range is understood. A worker may download only the file of an attempt it holds.
#[utoipa::path(
    get,
    path = "/api/files/{digest}",
    tag = "files",
    params(("digest" = Digest, Path, description = "SHA-256 of the file"), DownloadQuery),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The wanted part of it", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "`invalid`: the range lies outside the file", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn download_file(
    State(state): State<AppState>,
    identity: Identity,
    Path(digest): Path<String>,
    ApiQuery(query): ApiQuery<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let digest: Digest =
        digest.parse().map_err(|_| ApiError::invalid("digest: 64 lower-case hex digits"))?;
    if let Identity::Worker(worker) = identity
        && method != Method::HEAD
        && !state.reads.may_read_blob(worker.0, digest).await?
    {
        let detail = "a worker may read only the files of attempts it holds";
        return Err(ApiError::refused(ProblemKind::Forbidden, detail));
    }
    let size = state.reads.blob_size(digest).await?;
    let size = size.ok_or_else(|| ApiError::not_found("file"))?;
    if method == Method::HEAD {
        // Whoever asks is about to submit with it.
        state.scheduler.touch_blob(digest).await?;
    }
    let part = match wanted(headers.get(RANGE), size) {
        Wanted::All => None,
        Wanted::Part(part) => Some(part),
        Wanted::Nothing => return Ok(outside(size)),
    };
    let length = part.as_ref().map_or(size, |part| part.end - part.start);
    let file = match method {
        Method::HEAD => Body::empty(),
        _ => state.blobs.read(digest, part.clone()).await?,
    };
    let mut response = file.into_response();
    let name = query.name.unwrap_or_else(|| digest.to_string());
    let reply = response.headers_mut();
    reply.insert(CONTENT_LENGTH, length.into());
    reply.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    reply.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // The bytes are a stranger's: whatever they are, no browser may show or run them.
    let policy = "sandbox; default-src 'none'";
    reply.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    reply.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    for (header, value) in
        [(CONTENT_DISPOSITION, attachment(&name)), (ETAG, format!("\"{digest}\""))]
    {
        reply.insert(header, HeaderValue::try_from(value).map_err(ApiError::internal)?);
    }
    if let Some(part) = part {
        let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        reply.insert(CONTENT_RANGE, HeaderValue::try_from(range).map_err(ApiError::internal)?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// What of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Nothing,
}

/// Reads a `Range` header. What is not one plain range of bytes asks for the whole file.
fn wanted(range: Option<&HeaderValue>, size: u64) -> Wanted {
    let text = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = text.and_then(|text| text.trim().split_once('-')) else {
        return Wanted::All;
    };
    let part = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..size.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        _ => return Wanted::All,
    };
    if part.start < part.end { Wanted::Part(part) } else { Wanted::Nothing }
}

fn outside(size: u64) -> Response {
    let detail = format!("the range lies outside the file of {size} bytes");
    let mut problem = Problem::new(ProblemKind::Invalid).with_detail(detail);
    problem.status = StatusCode::RANGE_NOT_SATISFIABLE.as_u16();
    let mut response = ApiError::Refused(Box::new(problem)).into_response();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

/// `Content-Disposition` of a download: a plain name for old browsers, the real one for the others (RFC 6266).
fn attachment(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_control() || matches!(c, '/' | '\\' | ':') { '_' } else { c })
        .take(200)
        .collect();
    let name = name.trim_matches(['.', ' ']);
    let name = if name.is_empty() { "download" } else { name };
    let plain: String =
        name.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_') {
                    c
                } else {
                    '_'
                }
            })
            .collect();
    let mut full = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            full.push(char::from(byte));
        } else {
            full.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{full}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_range_is_understood() {
        let read = |text: &str| wanted(Some(&HeaderValue::from_str(text).unwrap()), 100);
        assert_eq!(wanted(None, 100), Wanted::All);
        assert_eq!(read("bytes=0-9"), Wanted::Part(0..10));
        assert_eq!(read("bytes=90-"), Wanted::Part(90..100));
        assert_eq!(read("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(read("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(read("bytes=-1000"), Wanted::Part(0..100));
        assert_eq!(read("bytes=0-18446744073709551615"), Wanted::Part(0..100));
        assert_eq!(read("bytes=100-"), Wanted::Nothing);
        assert_eq!(read("bytes=-0"), Wanted::Nothing);
        for odd in ["bytes=9-0", "bytes=0-1,5-6", "bytes=", "bytes=-", "lines=1-2", "bytes=a-b"] {
            assert_eq!(read(odd), Wanted::All, "{odd}");
        }
    }

    #[test]
    fn f3_a_name_cannot_leave_its_header_or_its_folder() {
        check("outputs.zip", "outputs.zip", "outputs.zip");
        check("Größe 1.zip", "Gr__e 1.zip", "Gr%C3%B6%C3%9Fe%201.zip");
        check("../../etc/passwd", "_.._etc_passwd", "_.._etc_passwd");
        check("a\"; filename=\"b.exe", "a__ filename__b.exe", "a%22%3B%20filename%3D%22b.exe");
        check("a\r\nset-cookie: x", "a__set-cookie_ x", "a__set-cookie_%20x");
        check("", "download", "download");
        check("..", "download", "download");
    }

    #[track_caller]
    fn check(name: &str, plain: &str, full: &str) {
        let expected = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{full}");
        assert_eq!(attachment(name), expected);
    }
}
