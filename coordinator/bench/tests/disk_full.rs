//! A disk that is really full: writes are refused, reads go on, and once there is room everything works again.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{fs, path::Path, process::Command};

use lull_bench::pool::Pool;
use lull_shared::{
    credentials::Role,
    jobs::{CreateJob, JobFilter},
    problem::ProblemKind,
};

/// A file system in memory of a few megabytes; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a small file system needs root");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_recovers_without_a_restart() {
    let disk = SmallDisk::mount();
    let pool = Pool::start_other(None, Some(&disk.path().join("data")), &[]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let first = client.create_job(&a_job(10)).await.unwrap().job_id;
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 20 << 20]).unwrap();

    let refused = loop {
        match client.create_job(&a_job(60_000)).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ProblemKind::DiskFull, "{refused:?}");
    let zip = pool.path("input.zip");
    fs::write(&zip, vec![7; 8 << 20]).unwrap();
    let digest = lull_shared::ids::Digest::of(&fs::read(&zip).unwrap());
    let refused = client.upload_file(&zip, digest, |_, _| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::DiskFull, "{refused:?}");

    assert_eq!(client.job_status(first).await.unwrap().job_id, first, "reading goes on");
    let counts = client.list_jobs(&JobFilter::default()).await.unwrap().counts;

    fs::remove_file(&filler).unwrap();
    client.create_job(&a_job(60_000)).await.unwrap();
    client.upload_file(&zip, digest, |_, _| {}).await.unwrap();
    let now = client.list_jobs(&JobFilter::default()).await.unwrap().counts;
    assert_eq!(now.pending, counts.pending + 1, "what was refused changed nothing");
}

fn a_job(bytes: usize) -> CreateJob {
    CreateJob { command: format!("true #{}", "x".repeat(bytes)), ..CreateJob::default() }
}
