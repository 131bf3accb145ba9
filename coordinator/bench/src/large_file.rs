//! A large zip up, over to a worker and back, with the most memory each program held.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;
use lull_bench::{pool::Pool, process::program, proxy::Proxy};
use lull_shared::{credentials::Role, ids::Digest};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::figures::line;

const MIB: u64 = 1024 * 1024;

pub(crate) async fn run(size_mib: u32, memory_mib_max: u64) -> anyhow::Result<()> {
    let mut pool = Pool::start(&[])?;
    let worker = pool.start_worker(&[])?;
    let content = write_zip(&pool.path("large.zip"), size_mib)?;

    let proxy = Proxy::start(pool.url.trim_start_matches("https://").parse()?).await?;
    let begun = Instant::now();
    submit(&pool, &proxy, "first").await?;
    line(&format!("{size_mib} MiB up, over and back"), &secs(begun));
    let sent_first = proxy.sent_bytes();
    anyhow::ensure!(sent_first > u64::from(size_mib) * MIB, "the file went another way");
    anyhow::ensure!(
        digest_of(&pool.path("first/out/large.bin"))? == content,
        "what came back differs from what was sent"
    );

    let begun = Instant::now();
    submit(&pool, &proxy, "second").await?;
    let sent_second = proxy.sent_bytes() - sent_first;
    line("the same again", &secs(begun));
    line("sent up by the first submission", &format!("{} KiB", sent_first / 1024));
    line("sent up by the second, all requests together", &format!("{} KiB", sent_second / 1024));
    anyhow::ensure!(sent_second < MIB, "the second submission sent the file again");

    for (name, bytes) in [
        ("coordinator", pool.coordinator().peak_memory_bytes()?),
        ("worker", pool.worker(worker).peak_memory_bytes()?),
    ] {
        line(&format!("most memory the {name} held"), &format!("{} MiB", bytes / MIB));
        anyhow::ensure!(
            bytes <= memory_mib_max * MIB,
            "the {name} held more than {memory_mib_max} MiB"
        );
    }
    Ok(())
}

/// Runs the job by the `lull` command, as a person would, through the proxy.
async fn submit(pool: &Pool, proxy: &Proxy, into: &str) -> anyhow::Result<()> {
    let status = Command::new(program("lull")?)
        .args(["run", "--output", "out/*", "--into"])
        .arg(pool.path(into))
        .arg("--zip")
        .arg(pool.path("large.zip"))
        .args(["--", "mkdir out && mv large.bin out/"])
        .env("LULL_URL", format!("https://{}", proxy.address))
        .env("LULL_TOKEN", pool.token(Role::Submitter)?)
        .env("LULL_CA", pool.ca_file())
        .status()
        .await
        .context("lull could not be started")?;
    anyhow::ensure!(status.success(), "lull ended with {status}");
    Ok(())
}

/// Writes a zip of one file that cannot be compressed, and gives that file's digest.
fn write_zip(path: &Path, size_mib: u32) -> anyhow::Result<Digest> {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    zip.start_file("large.bin", options)?;
    let mut hasher = Sha256::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = vec![0; usize::try_from(MIB)?];
    for _ in 0..size_mib {
        for word in block.chunks_exact_mut(8) {
            // xorshift64: quick, and nothing that a compressor could use.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        hasher.update(&block);
        zip.write_all(&block)?;
    }
    zip.finish()?.flush()?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

fn digest_of(path: &Path) -> anyhow::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("no {}", path.display()))?;
    io::copy(&mut file, &mut hasher)?;
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

fn secs(begun: Instant) -> String {
    format!("{:.1} s", begun.elapsed().as_secs_f64())
}
