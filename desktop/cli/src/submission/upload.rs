//! Hands over the input: packs a folder, uploads what the coordinator does not have yet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use lull_shared::{
    archive,
    client::{Client, hash_file},
    ids::Digest,
};

use crate::{output::Output, progress, table::size};

/// Packs a folder and uploads it; gives its digest and what to call the zip.
pub(super) async fn hand_over_folder(
    client: &Client,
    output: &Output,
    dir: &Path,
) -> anyhow::Result<(Digest, Option<String>)> {
    let packed = pack(dir.to_owned()).await?;
    upload(client, output, packed.file.path(), packed.digest, packed.size_bytes).await?;
    let name = dir.canonicalize().ok();
    let name = name.as_deref().unwrap_or(dir).file_name();
    Ok((packed.digest, name.map(|name| format!("{}.zip", name.to_string_lossy()))))
}

/// Uploads a zip; gives its digest and its name.
pub(super) async fn hand_over_zip(
    client: &Client,
    output: &Output,
    zip: &Path,
) -> anyhow::Result<(Digest, Option<String>)> {
    let bar = progress::bytes("reading");
    let hashed = hash_file(zip, progress::moves(&bar)).await;
    bar.finish_and_clear();
    let (digest, size_bytes) = hashed?;
    upload(client, output, zip, digest, size_bytes).await?;
    Ok((digest, zip.file_name().map(|name| name.to_string_lossy().into_owned())))
}

/// A folder as a zip that goes away with this.
struct PackedFolder {
    file: tempfile::NamedTempFile,
    digest: Digest,
    size_bytes: u64,
}

async fn pack(dir: PathBuf) -> anyhow::Result<PackedFolder> {
    let bar = progress::bytes("packing");
    let moving = bar.clone();
    // Owned here and not by the thread that fills it, so that it is gone also after Ctrl-C.
    let file = tempfile::Builder::new().prefix("lull-").suffix(".zip").tempfile()?;
    let mut filled = fs::File::options().read(true).write(true).open(file.path())?;
    let packed = tokio::task::spawn_blocking(move || {
        archive::pack(&dir, &mut filled, &mut |progress| {
            moving.set_length(progress.total_bytes);
            moving.set_position(progress.done_bytes);
        })
        .with_context(|| format!("could not pack the folder {}", dir.display()))
    })
    .await?;
    bar.finish_and_clear();
    let packed = packed?;
    Ok(PackedFolder { file, digest: packed.digest, size_bytes: packed.size_bytes })
}

async fn upload(
    client: &Client,
    output: &Output,
    path: &Path,
    digest: Digest,
    size_bytes: u64,
) -> anyhow::Result<()> {
    if client.has_file(digest).await?.is_some() {
        if output.is_watched() {
            output.note(&format!("{} are already there: nothing to upload", size(size_bytes)));
        }
        return Ok(());
    }
    let bar = progress::bytes("uploading");
    let stored = client.upload_file(path, digest, progress::moves(&bar)).await;
    bar.finish_and_clear();
    stored?;
    Ok(())
}
