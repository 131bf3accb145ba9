//! Files go up and come down as streams: memory stays flat whatever their size.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reqwest::{
    Body, Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use sha2::{Digest as _, Sha256};
use tokio::{fs, io::AsyncWriteExt as _, time};
use tokio_util::io::ReaderStream;

use super::{
    Client, ClientError, REQUEST_LIMIT,
    error::{accept, classify, origin, read_json},
};
use crate::{
    files::{DIGEST_HEADER, StoredFile},
    ids::Digest,
    problem::{Problem, ProblemKind},
};

/// How long a transfer may stand still before it is given up.
const STALL_LIMIT: Duration = Duration::from_secs(90);
const CHUNK_BYTES: usize = 256 * 1024;

/// Is told how far a transfer is: bytes so far, and all bytes.
pub trait Progress: Fn(u64, u64) + Send + Sync + 'static {}

impl<F: Fn(u64, u64) + Send + Sync + 'static> Progress for F {}

/// The digest and size of a file. `progress` is told the bytes read so far and the size.
///
/// # Errors
///
/// [`ClientError::File`] when the file cannot be read.
pub async fn hash_file(path: &Path, progress: impl Progress) -> Result<(Digest, u64), ClientError> {
    let owned = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || -> io::Result<(Digest, u64)> {
        let mut file = std::fs::File::open(owned)?;
        let total = file.metadata()?.len();
        let (mut hasher, mut done) = (Sha256::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok((Digest::from_bytes(hasher.finalize().into()), done));
            }
            hasher.update(&chunk[..read]);
            done += read as u64;
            progress(done, total);
        }
    })
    .await
    .unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    hashed.map_err(|source| file_error(path, source))
}

pub(super) async fn has_file(client: &Client, digest: Digest) -> Result<Option<u64>, ClientError> {
    let path = format!("/api/files/{digest}");
    let response = client.request(Method::HEAD, &path, REQUEST_LIMIT, |request| request).await?;
    match accept(response).await {
        Ok(response) => Ok(Some(announced_size(&response).unwrap_or(0))),
        Err(error) if error.kind() == ProblemKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn upload(
    client: &Client,
    path: &Path,
    digest: Digest,
    progress: Arc<dyn Progress>,
) -> Result<StoredFile, ClientError> {
    let metadata = fs::metadata(path).await.map_err(|source| file_error(path, source))?;
    let size_bytes = metadata.len();
    match has_file(client, digest).await {
        Ok(Some(_)) => {
            progress(size_bytes, size_bytes);
            return Ok(StoredFile { digest, size_bytes });
        }
        // Who may upload may not always look; the upload itself then says what is allowed.
        Err(error) if error.kind() != ProblemKind::Forbidden => return Err(error),
        Ok(None) | Err(_) => {}
    }
    let sent = Arc::new(AtomicU64::new(0));
    let upload = client.transport.send(|http, base| {
        sent.store(0, Ordering::Relaxed);
        let body = counted(path.to_owned(), size_bytes, Arc::clone(&sent), Arc::clone(&progress));
        let request = http
            .post(format!("{base}/api/files/upload"))
            .header(DIGEST_HEADER, digest.to_string())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size_bytes)
            .body(Body::wrap_stream(body));
        client.signed(request)
    });
    let response = unless_stalled(upload, &sent)
        .await
        .ok_or_else(|| ClientError::unreachable(client.address(), "the upload stands still"))?;
    let stored: StoredFile = read_json(response?).await?;
    progress(size_bytes, size_bytes);
    Ok(stored)
}

/// The file as a stream of chunks that counts what has been taken from it. Opened when first polled.
pub(super) fn counted(
    path: PathBuf,
    size_bytes: u64,
    sent: Arc<AtomicU64>,
    progress: Arc<dyn Progress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::once(async move {
        let file = fs::File::open(path).await?;
        Ok::<_, io::Error>(ReaderStream::with_capacity(file, CHUNK_BYTES))
    })
    .try_flatten()
    .inspect_ok(move |chunk| {
        let before = sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        progress((before + chunk.len() as u64).min(size_bytes), size_bytes);
    })
}

/// The work's result, or nothing when `moved` stands still for too long.
async fn unless_stalled<T>(work: impl Future<Output = T>, moved: &AtomicU64) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut last = None;
    loop {
        if let Ok(done) = time::timeout(STALL_LIMIT, &mut work).await {
            return Some(done);
        }
        let now = Some(moved.load(Ordering::Relaxed));
        if now == last {
            return None;
        }
        last = now;
    }
}

/// A file that is coming down.
#[derive(Debug)]
pub struct Download {
    /// Its size, when the coordinator says it.
    pub size_bytes: Option<u64>,
    response: reqwest::Response,
    address: String,
}

impl Download {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] when the connection is lost or stands still.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        match time::timeout(STALL_LIMIT, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| classify(&self.address, error)),
            Err(_) => Err(ClientError::unreachable(&self.address, "the download stands still")),
        }
    }

    /// The chunks as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static {
        stream::try_unfold(self, |mut download| async move {
            Ok(download.chunk().await?.map(|chunk| (chunk, download)))
        })
        .boxed()
    }
}

pub(super) async fn download(client: &Client, digest: Digest) -> Result<Download, ClientError> {
    let path = format!("/api/files/{digest}");
    let response = accept(client.open(Method::GET, &path, |request| request).await?).await?;
    let size_bytes = announced_size(&response);
    Ok(Download { size_bytes, address: origin(&response), response })
}

pub(super) async fn download_to(
    client: &Client,
    digest: Digest,
    path: &Path,
    progress: &impl Progress,
) -> Result<u64, ClientError> {
    let mut download = download(client, digest).await?;
    let total = download.size_bytes.unwrap_or(0);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .await
        .map_err(|source| file_error(path, source))?;
    let mut unfinished = RemoveOnDrop(Some(path.to_owned()));
    let (mut hasher, mut done) = (Sha256::new(), 0);
    while let Some(chunk) = download.chunk().await? {
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(|source| file_error(path, source))?;
        done += chunk.len() as u64;
        progress(done, total);
    }
    file.flush().await.map_err(|source| file_error(path, source))?;
    if Digest::from_bytes(hasher.finalize().into()) != digest {
        return Err(ClientError::Problem(Problem::new(ProblemKind::DigestMismatch)));
    }
    unfinished.0 = None;
    Ok(done)
}

/// Takes a half-written file away, also when the download is dropped on the way.
struct RemoveOnDrop(Option<PathBuf>);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nothing is left to do when it cannot be removed.
            drop(std::fs::remove_file(path));
        }
    }
}

/// The size a reply announces; of a reply to `HEAD` too, where the body's own length says 0.
fn announced_size(response: &reqwest::Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn file_error(path: &Path, source: io::Error) -> ClientError {
    ClientError::File { path: path.to_owned(), source }
}
