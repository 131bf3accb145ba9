//! What comes in over the wire, in the coordinator's own words.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lull_shared::{
    ids::{JobId, WorkerId},
    jobs::{AttemptEnding, CreateJob, LeaseKey, OutputPart, ReportFailure, SubmitResult},
    workers::RegisterWorker,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::placement;
use crate::{
    model::{Idempotency, Machine, NewJob, OutputPiece, Report, Submitter},
    store::StoreError,
};

/// Longest name that is made of a command, in characters.
const NAME_CHARS_MAX: usize = 80;
/// Longest explanation of a failure that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

pub(super) fn new_job(mut request: CreateJob, submitter: &Submitter, waiting_max: u64) -> NewJob {
    let key = request.idempotency_key.take();
    let idempotency = key.map(|key| Idempotency { key, body_hash: hash_of(&request) });
    if request.command.is_empty() {
        request.command = shown(&request.argv);
    }
    if let Some(shell) = request.shell {
        let home = || placement::home_of(shell).to_owned();
        request.requirements.os.get_or_insert_with(home);
    }
    let name = request.name.take().unwrap_or_else(|| name_of(&request.command));
    let (id, submitter) = (JobId::generate(), submitter.clone());
    NewJob { id, name, request, submitter, idempotency, waiting_max }
}

/// A program and its arguments on one line, as a person would type them in a POSIX shell.
fn shown(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = argv.iter().map(|argument| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

pub(super) fn machine(request: RegisterWorker) -> Machine {
    Machine {
        hostname: request.hostname,
        os: request.os,
        arch: request.arch,
        cpu_count: request.cpu_count,
        memory_bytes: request.memory_bytes,
        version: request.version,
        slots: request.slots,
        sandbox_level: request.sandbox_level,
        labels: request.labels,
        network: request.network,
    }
}

pub(super) fn result(worker: WorkerId, mut result: SubmitResult) -> Result<Report, StoreError> {
    let output = std::mem::take(&mut result.output);
    let ending = if result.exit_code == Some(0) {
        AttemptEnding::Succeeded
    } else {
        AttemptEnding::CommandFailed
    };
    Ok(Report {
        hash: hash_of(&result),
        key: LeaseKey { job_id: result.job_id, attempt: result.attempt },
        worker,
        ending,
        exit_code: result.exit_code,
        error_message: result.error_message.map(clip),
        artifacts: result.artifacts,
        output: output.into_iter().map(piece).collect::<Result<_, _>>()?,
    })
}

pub(super) fn failure(worker: WorkerId, failure: ReportFailure) -> Report {
    Report {
        hash: hash_of(&failure),
        key: LeaseKey { job_id: failure.job_id, attempt: failure.attempt },
        worker,
        ending: failure.kind.ending(),
        exit_code: None,
        error_message: Some(clip(failure.error_message)),
        artifacts: Vec::new(),
        output: Vec::new(),
    }
}

fn piece(part: OutputPart) -> Result<OutputPiece, StoreError> {
    let bytes = STANDARD
        .decode(part.data)
        .map_err(|_| StoreError::Invalid("output: data is not base64".to_owned()))?;
    Ok(OutputPiece { stream: part.stream, offset: part.offset, bytes: bytes.into() })
}

/// The first line that says something.
fn name_of(command: &str) -> String {
    let line = command.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(NAME_CHARS_MAX).collect()
}

fn hash_of(request: &impl Serialize) -> [u8; 32] {
    let json = serde_json::to_vec(request).expect("wire types have string keys only");
    Sha256::digest(json).into()
}

fn clip(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use lull_shared::ids::TokenId;

    #[test]
    fn a_job_without_a_name_is_called_after_its_first_line() {
        let submitter =
            Submitter { token_id: TokenId::generate(), name: "ann".to_owned(), weight: 1 };
        let name = |command: &str| {
            new_job(
                CreateJob { command: command.to_owned(), ..CreateJob::default() },
                &submitter,
                9,
            )
            .name
        };
        assert_eq!(name("\n  make all \nmake test"), "make all");
        assert_eq!(name(&"ä".repeat(200)), "ä".repeat(80));
    }

    #[test]
    fn arguments_are_shown_as_a_shell_would_take_them() {
        let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&argv(&["ffmpeg", "-i", "in.mp4"])), "ffmpeg -i in.mp4");
        assert_eq!(
            shown(&argv(&["echo", "a b", "", "it's", "$HOME"])),
            r"echo 'a b' '' 'it'\''s' '$HOME'"
        );
    }

    #[test]
    fn a_submission_is_the_same_whatever_its_key() {
        let submitter =
            Submitter { token_id: TokenId::generate(), name: "ann".to_owned(), weight: 1 };
        let hash = |command: &str, key: &str| {
            let request = CreateJob {
                command: command.to_owned(),
                idempotency_key: Some(key.to_owned()),
                ..CreateJob::default()
            };
            new_job(request, &submitter, 9).idempotency.unwrap().body_hash
        };
        assert_eq!(hash("make", "k1"), hash("make", "k2"));
        assert_ne!(hash("make", "k1"), hash("make test", "k1"));
    }

    #[test]
    fn a_long_explanation_is_cut_between_characters() {
        let clipped = clip("é".repeat(4000));
        assert_eq!(clipped.len(), 4096);
        assert_eq!(clip(format!("a{}", "é".repeat(4000))).len(), 4095);
    }
}
