//! Files by their SHA-256: streamed to disk while they are hashed, durable before anybody hears of them.
//!
//! An upload is written to `staging/` and moved to `blobs/<first two digits>/<digest>` once its hash is known.
//! What a crash left in `staging/` is removed at the next start.

use std::{
    fs, io,
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use lull_shared::{files::StoredFile, ids::Digest};
use object_store::{
    GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt as _,
    PutPayload, local::LocalFileSystem, path::Path,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{RwLock, RwLockReadGuard},
};
use tokio_util::io::ReaderStream;

/// How much of an upload is collected before it is written.
const PART_BYTES: usize = 1024 * 1024;
/// How much of a download is read at once.
const READ_BYTES: usize = 256 * 1024;

/// Why a file could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no file of that digest.
    #[error("there is no such file")]
    NotFound,
    /// The disk is full; nothing was kept.
    #[error("the disk is full")]
    DiskFull(#[source] object_store::Error),
    /// The store could not be read or written.
    #[error("the file store cannot be read or written")]
    Store(#[source] object_store::Error),
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::NotFound;
        }
        if is_disk_full(&error) { Self::DiskFull(error) } else { Self::Store(error) }
    }
}

fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The files of a data folder.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<LocalFileSystem>,
    uploads: Arc<AtomicU64>,
    /// Held shared while a file is kept and recorded, and alone while one is removed.
    gate: Arc<RwLock<()>>,
}

impl Blobs {
    /// Opens the file store, making its folders and removing what cut-off uploads left.
    ///
    /// # Errors
    /// When the folders cannot be made or cleaned.
    pub fn open(data_dir: &FsPath) -> anyhow::Result<Self> {
        let staging = data_dir.join("staging");
        if staging.exists() {
            fs::remove_dir_all(&staging)
                .with_context(|| format!("could not empty {}", staging.display()))?;
        }
        for dir in [&staging, &data_dir.join("blobs")] {
            fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
        }
        let store = LocalFileSystem::new_with_prefix(data_dir)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), uploads: Arc::default(), gate: Arc::default() })
    }

    /// To be held from before a file is kept until it is recorded, so that nobody removes it in between.
    pub async fn recording(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// Removes the file of a blob, unless it is recorded by the time nobody records one. Gives whether it did.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub async fn remove_unless<E>(
        &self,
        digest: Digest,
        is_recorded: impl Future<Output = Result<bool, E>>,
    ) -> Result<bool, BlobError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let _alone = self.gate.write().await;
        let is_recorded = is_recorded.await.map_err(|error| {
            BlobError::Store(object_store::Error::Generic { store: "blobs", source: error.into() })
        })?;
        if is_recorded {
            return Ok(false);
        }
        match self.store.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// When the staging file cannot be made.
    pub async fn begin(&self) -> Result<Upload, BlobError> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let staged = Path::from_iter(["staging", &format!("upload-{number}")]);
        let writer = self.store.put_multipart(&staged).await?;
        Ok(Upload {
            store: Arc::clone(&self.store),
            staged,
            writer,
            hasher: Sha256::new(),
            size_bytes: 0,
            parts: Vec::new(),
            parts_bytes: 0,
        })
    }

    /// Stores a file that is on disk already.
    ///
    /// # Errors
    /// When it cannot be read or stored.
    pub async fn put_file(&self, file: &FsPath) -> anyhow::Result<StoredFile> {
        let mut upload = self.begin().await?;
        let mut file = tokio::fs::File::open(file).await?;
        loop {
            let mut chunk = Vec::with_capacity(READ_BYTES);
            if file.read_buf(&mut chunk).await? == 0 {
                break;
            }
            upload.write(chunk.into()).await?;
        }
        Ok(upload.finish().await?.keep().await?)
    }

    /// Reads a part of a file, or all of it; the first item is its whole size.
    ///
    /// # Errors
    /// [`BlobError::NotFound`] when there is no such file.
    pub async fn read(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Body, BlobError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(&location(digest), options).await?;
        let range = found.range.clone();
        match found.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                if range.start > 0 {
                    file.seek(io::SeekFrom::Start(range.start)).await.map_err(unreadable)?;
                }
                let part = file.take(range.end - range.start);
                Ok(Body::from_stream(ReaderStream::with_capacity(part, READ_BYTES)))
            }
            GetResultPayload::Stream(stream) => Ok(Body::from_stream(stream)),
        }
    }

    /// Where the file is on this machine's disk.
    ///
    /// # Errors
    /// Never for a store on a local disk.
    pub fn local_path(&self, digest: Digest) -> Result<PathBuf, BlobError> {
        Ok(self.store.path_to_filesystem(&location(digest))?)
    }
}

fn unreadable(source: io::Error) -> BlobError {
    BlobError::Store(object_store::Error::Generic { store: "disk", source: source.into() })
}

fn location(digest: Digest) -> Path {
    let digest = digest.to_string();
    Path::from_iter(["blobs", &digest[..2], &digest])
}

/// A file on its way in. Dropped before it is finished, it leaves nothing.
pub struct Upload {
    store: Arc<LocalFileSystem>,
    staged: Path,
    writer: Box<dyn MultipartUpload>,
    hasher: Sha256,
    size_bytes: u64,
    parts: Vec<Bytes>,
    parts_bytes: usize,
}

impl Upload {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When the disk is full or cannot be written.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.hasher.update(&chunk);
        self.size_bytes += chunk.len() as u64;
        self.parts_bytes += chunk.len();
        self.parts.push(chunk);
        if self.parts_bytes >= PART_BYTES { self.flush().await } else { Ok(()) }
    }

    /// How much has come so far.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes what came durable and tells its digest. It is no file of the store yet.
    ///
    /// # Errors
    /// When the disk is full or cannot be written.
    pub async fn finish(mut self) -> Result<Staged, BlobError> {
        self.flush().await?;
        self.writer.complete().await?;
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        let file = StoredFile { digest, size_bytes: self.size_bytes };
        Ok(Staged { store: self.store, location: Some(self.staged), file })
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        self.parts_bytes = 0;
        let part: PutPayload = std::mem::take(&mut self.parts).into_iter().collect();
        Ok(self.writer.put_part(part).await?)
    }
}

/// An uploaded file whose digest is known. Dropped without [`Staged::keep`], it is removed.
pub struct Staged {
    store: Arc<LocalFileSystem>,
    location: Option<Path>,
    file: StoredFile,
}

impl Staged {
    /// What came.
    #[must_use]
    pub const fn file(&self) -> StoredFile {
        self.file
    }

    /// Where it lies for now, on this machine's disk.
    ///
    /// # Errors
    /// Never for a store on a local disk.
    pub fn local_path(&self) -> Result<PathBuf, BlobError> {
        let location = self.location.as_ref().ok_or(BlobError::NotFound)?;
        Ok(self.store.path_to_filesystem(location)?)
    }

    /// Moves it to its place in the store; durable when this returns.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub async fn keep(mut self) -> Result<StoredFile, BlobError> {
        if let Some(staged) = &self.location {
            self.store.rename(staged, &location(self.file.digest)).await?;
            self.location = None;
        }
        Ok(self.file)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) =
            self.location.take().and_then(|staged| self.store.path_to_filesystem(&staged).ok())
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(error = %error, "refused upload not removed; the next start does it");
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn files_in(dir: &FsPath) -> usize {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| if path.is_dir() { files_in(&path) } else { 1 })
            .sum()
    }

    async fn uploaded(blobs: &Blobs, bytes: &[u8]) -> Staged {
        let mut upload = blobs.begin().await.unwrap();
        for chunk in bytes.chunks(300_000) {
            upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        upload.finish().await.unwrap()
    }

    #[tokio::test]
    async fn a_kept_file_is_read_whole_and_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let file = uploaded(&blobs, &bytes).await.keep().await.unwrap();
        assert_eq!(file.digest, Digest::of(&bytes));
        assert_eq!(file.size_bytes, 3_000_000);

        let whole = blobs.read(file.digest, None).await.unwrap().collect().await.unwrap();
        assert_eq!(whole.to_bytes(), bytes);
        let part = blobs.read(file.digest, Some(1000..70_000)).await.unwrap();
        assert_eq!(part.collect().await.unwrap().to_bytes(), bytes[1000..70_000]);
        assert_eq!(fs::read(blobs.local_path(file.digest).unwrap()).unwrap(), bytes);
    }

    #[tokio::test]
    async fn what_is_not_kept_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        drop(uploaded(&blobs, b"refused").await);
        assert_eq!(files_in(dir.path()), 0);
        assert!(matches!(blobs.read(Digest::of(b"refused"), None).await, Err(BlobError::NotFound)));
    }

    #[tokio::test]
    async fn a_start_removes_what_a_crash_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let kept = uploaded(&blobs, b"kept").await.keep().await.unwrap();
        fs::write(dir.path().join("staging/upload-7#1"), b"half a file").unwrap();

        let blobs = Blobs::open(dir.path()).unwrap();
        assert_eq!(files_in(dir.path()), 1);
        assert!(blobs.read(kept.digest, None).await.is_ok());
    }
}
