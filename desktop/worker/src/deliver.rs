//! Takes a spooled report to the coordinator, however long that takes.

use std::{io, path::PathBuf, pin::pin, sync::Arc};

use lull_shared::{
    client::{ClientError, hash_file},
    files::Artifact,
    jobs::{FailureKind, LeaseKey, OutputPart, ReportFailure, SubmitResult},
    output::AppendQuery,
    problem::ProblemKind,
};
use tokio::{
    task::spawn_blocking,
    time::{Duration, sleep, timeout},
};

use crate::{
    api::{CoordinatorApi, Verdict, verdict},
    backoff::Backoff,
    courier::Courier,
    spool::{End, Report, Spool, part, part_bytes},
};

/// The name of the zip of a job's outputs.
const OUTPUTS_NAME: &str = "outputs.zip";
/// Most bytes of output that travel inside the report itself.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// A report that is only in memory goes to the disk when the coordinator has not answered within this.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where a report is besides this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nowhere: a crash runs a short attempt again.
    InMemory,
    /// In the spool, safe from a power cut.
    OnDisk,
}

/// Sends a report until the coordinator has recorded it or says that it is not wanted; then removes it from the spool.
/// May be dropped and begun again at any moment. `spooled` hears when a report that was only in memory is on disk.
pub(crate) async fn deliver(
    courier: &Courier,
    spool: &Spool,
    mut report: Report,
    mut kept: Kept,
    spooled: &(dyn Fn() + Sync),
) {
    let key = report.key;
    let mut backoff = Backoff::default();
    loop {
        let sent = match kept {
            Kept::InMemory => {
                let now_on_disk = || {
                    kept = Kept::OnDisk;
                    spooled();
                };
                send_or_spool(courier, spool, &mut report, now_on_disk).await
            }
            Kept::OnDisk => send(courier, spool, &mut report).await,
        };
        let Err(error) = sent else {
            tracing::debug!(job.id = %key.job_id, attempt.number = key.attempt, "attempt reported");
            break;
        };
        match verdict(&error) {
            Verdict::Fenced => {
                tracing::info!(
                    job.id = %key.job_id, attempt.number = key.attempt, reason = %error,
                    "report is not wanted any more"
                );
                break;
            }
            Verdict::Later | Verdict::NotWelcome => {
                tracing::debug!(job.id = %key.job_id, error = %error, "report has to wait");
            }
            Verdict::Never if is_last_resort(&report) => {
                tracing::error!(job.id = %key.job_id, error = %error, "report is refused and given up");
                break;
            }
            // A report it will never accept must not hold the job: the failure to report is one.
            Verdict::Never => {
                tracing::error!(job.id = %key.job_id, error = %error, "report is refused");
                let message = format!("the coordinator refused the result: {error}");
                report = Report::failed(key, FailureKind::Internal, message);
            }
        }
        sleep(backoff.next()).await;
    }
    if kept == Kept::OnDisk {
        spool.remove(key);
    }
}

/// Sends a report that is only in memory, and puts it on disk when that is not done at once.
async fn send_or_spool(
    courier: &Courier,
    spool: &Spool,
    report: &mut Report,
    spooled: impl FnOnce(),
) -> Result<(), Arc<ClientError>> {
    let copy = report.clone();
    let mut sending = pin!(send(courier, spool, report));
    let sent = timeout(PATIENCE, &mut sending).await;
    if matches!(sent, Ok(Ok(()))) {
        return Ok(());
    }
    // It may take a while: by now the disk must hold it. When it cannot, the report still is in this process.
    if put_on_disk(spool, &copy, None).await.is_ok() {
        spooled();
    }
    match sent {
        Ok(sent) => sent,
        Err(_) => sending.await,
    }
}

/// Returns when the disk holds the report, and the zip that belongs to it.
pub(crate) async fn put_on_disk(
    spool: &Spool,
    report: &Report,
    zip: Option<PathBuf>,
) -> io::Result<()> {
    let (spool, report, key) = (spool.clone(), report.clone(), report.key);
    let written = spawn_blocking(move || {
        spool.write(&report, zip.as_deref())?;
        spool.sync(&report)
    });
    let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    written.inspect_err(|error| {
        tracing::warn!(job.id = %key.job_id, error = %error, "report is not safe on disk");
    })
}

fn is_last_resort(report: &Report) -> bool {
    matches!(report.end, End::Failed { .. }) && report.unsent.is_empty()
}

/// One try at everything a report consists of. What was taken is not sent again by the next try.
async fn send(
    courier: &Courier,
    spool: &Spool,
    report: &mut Report,
) -> Result<(), Arc<ClientError>> {
    let (api, key) = (courier.api.as_ref(), report.key);
    let mut artifacts = Vec::new();
    if report.has_outputs {
        let path = spool.zip_path(key);
        let (digest, size_bytes) = hash_file(&path, |_, _| {}).await.map_err(Arc::new)?;
        api.upload(&path, digest).await.map_err(Arc::new)?;
        artifacts.push(Artifact { name: OUTPUTS_NAME.to_owned(), digest, size_bytes });
    }
    match &report.end {
        End::Exited { exit_code, error_message } => {
            let (exit_code, error_message) = (*exit_code, error_message.clone());
            send_output(api, key, &mut report.unsent, INLINE_BYTES_MAX).await?;
            let mut result = SubmitResult {
                job_id: key.job_id,
                attempt: key.attempt,
                exit_code: Some(exit_code),
                error_message,
                artifacts,
                output: report.unsent.clone(),
            };
            match courier.submit(result.clone()).await {
                Err(error) if error.kind() == ProblemKind::OffsetMismatch => {
                    // Only the other address can say where the output goes on.
                    send_output(api, key, &mut report.unsent, 0).await?;
                    result.output.clear();
                    courier.submit(result).await
                }
                reply => reply,
            }
        }
        End::Failed { kind, message } => {
            let failure = ReportFailure {
                job_id: key.job_id,
                attempt: key.attempt,
                kind: *kind,
                error_message: message.clone(),
            };
            send_output(api, key, &mut report.unsent, 0).await?;
            api.report_failure(&failure).await.map(drop).map_err(Arc::new)
        }
    }
}

/// Sends output part by part until no more than `leave` bytes remain. Parts that the coordinator will never take are
/// dropped: the result is worth more.
async fn send_output(
    api: &dyn CoordinatorApi,
    key: LeaseKey,
    parts: &mut Vec<OutputPart>,
    leave: usize,
) -> Result<(), Arc<ClientError>> {
    // Base64 makes four of three.
    while parts.iter().map(|part| part.data.len() / 4 * 3).sum::<usize>() > leave {
        let first = parts.remove(0);
        let bytes = part_bytes(&first);
        let (stream, offset) = (first.stream, first.offset);
        let query = AppendQuery { job_id: key.job_id, attempt: key.attempt, stream, offset };
        match api.stream_output(&query, bytes.clone()).await {
            Ok(_) => {}
            Err(ClientError::Problem(problem))
                if problem.kind == ProblemKind::OffsetMismatch
                    && problem.next_offset.is_some_and(|next| next != offset) =>
            {
                let next = problem.next_offset.unwrap_or(offset);
                let known = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX);
                if known < bytes.len() {
                    parts.insert(0, part(stream, next, &bytes.slice(known..)));
                }
                // What follows in the same stream follows these bytes.
                let moved_back = offset.saturating_sub(next);
                for later in parts.iter_mut().filter(|later| later.stream == stream).skip(1) {
                    later.offset -= moved_back;
                }
            }
            Err(error) if verdict(&error) == Verdict::Never => {
                tracing::warn!(job.id = %key.job_id, error = %error, "output is refused and dropped");
                parts.retain(|part| part.stream != stream);
            }
            Err(error) => {
                parts.insert(0, first);
                return Err(Arc::new(error));
            }
        }
    }
    Ok(())
}
