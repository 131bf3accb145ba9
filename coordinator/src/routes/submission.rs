//! What a submission may ask for: pure checks against the limits, before anything is kept.

use globset::GlobBuilder;
use lull_shared::{
    jobs::{
        AFTER_MAX, ARRAY_MAX, COMMAND_BYTES_MAX, CreateJob, ENV_BYTES_MAX, ENV_VARS_MAX,
        ITEMS_BYTES_MAX, LABELS_MAX, OUTPUTS_MAX, PRIORITIES, RETRIES_MAX, Requirements, SECS_MAX,
    },
    problem::ProblemKind,
};

use crate::{routes::problem::ApiError, scheduler::placement};

const NAME_CHARS_MAX: usize = 200;
const FILENAME_BYTES_MAX: usize = 255;
const OUTPUT_BYTES_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 128;

/// Refuses a submission that breaks a rule, naming the field and the rule.
pub(crate) fn check(job: &CreateJob) -> Result<(), ApiError> {
    check_command(job)?;
    check_terms(job)?;
    check_requirements(job)?;
    check_array(job)?;
    if let Some(name) = &job.name {
        check_name(name)?;
    }
    if let Some(filename) = &job.filename {
        check_filename(filename)?;
    }
    check_env(job)?;
    if job.outputs.len() > OUTPUTS_MAX {
        return refuse("outputs", &format!("at most {OUTPUTS_MAX} patterns"));
    }
    for (index, pattern) in job.outputs.iter().enumerate() {
        check_output(&format!("outputs[{index}]"), pattern)?;
    }
    if let Some(key) = &job.idempotency_key
        && !((1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()))
    {
        return refuse("idempotencyKey", "1 to 128 printable ASCII characters without spaces");
    }
    Ok(())
}

fn check_command(job: &CreateJob) -> Result<(), ApiError> {
    let command = &job.command;
    if !job.argv.is_empty() {
        return check_argv(job);
    }
    if command.trim().is_empty() {
        return refuse("command", "it is empty");
    }
    if command.len() > COMMAND_BYTES_MAX {
        return refuse("command", &format!("at most {COMMAND_BYTES_MAX} bytes"));
    }
    if command.contains('\0') {
        return refuse("command", "it holds a NUL character");
    }
    Ok(())
}

fn check_argv(job: &CreateJob) -> Result<(), ApiError> {
    if !job.command.is_empty() || job.shell.is_some() {
        return refuse("argv", "it goes with neither command nor shell");
    }
    if job.argv[0].is_empty() {
        return refuse("argv[0]", "the program has no name");
    }
    if job.argv.iter().map(|argument| argument.len() + 1).sum::<usize>() > COMMAND_BYTES_MAX {
        return refuse("argv", &format!("at most {COMMAND_BYTES_MAX} bytes together"));
    }
    match job.argv.iter().position(|argument| argument.contains('\0')) {
        Some(index) => refuse(&format!("argv[{index}]"), "it holds a NUL character"),
        None => Ok(()),
    }
}

/// How it is to be treated: numbers within their limits.
fn check_terms(job: &CreateJob) -> Result<(), ApiError> {
    if !PRIORITIES.contains(&job.priority) {
        return refuse("priority", "from -100 to 100");
    }
    if job.retries > RETRIES_MAX {
        return refuse("retries", &format!("at most {RETRIES_MAX}"));
    }
    for (field, secs) in [("timeoutSecs", job.timeout_secs), ("maxQueueSecs", job.max_queue_secs)] {
        if secs.is_some_and(|secs| !(1..=SECS_MAX).contains(&secs)) {
            return refuse(field, &format!("from 1 to {SECS_MAX} seconds"));
        }
    }
    if job.after.len() > AFTER_MAX {
        return refuse("after", &format!("at most {AFTER_MAX} jobs"));
    }
    Ok(())
}

fn check_requirements(job: &CreateJob) -> Result<(), ApiError> {
    let Requirements { os, arch, labels, .. } = &job.requirements;
    let systems = ["linux", "windows", "macos", "unix"];
    if os.as_deref().is_some_and(|os| !systems.contains(&os)) {
        return refuse("requirements.os", "linux, windows, macos or unix");
    }
    if let (Some(shell), Some(os)) = (job.shell, os.as_deref()) {
        let home = placement::home_of(shell);
        if (home == "windows") != (os == "windows") {
            let rule = format!("this shell is found on {home} only, not on {os}");
            return refuse("shell", &rule);
        }
    }
    let plain = |text: &str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if arch.as_deref().is_some_and(|arch| !plain(arch)) {
        return refuse("requirements.arch", "1 to 32 letters, digits, `_` and `-`");
    }
    if labels.len() > LABELS_MAX {
        return refuse("requirements.labels", &format!("at most {LABELS_MAX}"));
    }
    match labels.iter().find(|label| !is_label(label)) {
        Some(label) => refuse(&format!("requirements.labels: {label:?}"), LABEL_RULE),
        None => Ok(()),
    }
}

/// What a label is.
pub(crate) const LABEL_RULE: &str = "a label is 1 to 64 letters, digits, `.`, `_` and `-`";

/// Whether a word can be a label of a PC.
pub(crate) fn is_label(word: &str) -> bool {
    (1..=64).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn check_array(job: &CreateJob) -> Result<(), ApiError> {
    if job.count.is_some() && !job.items.is_empty() {
        return refuse("count", "an array is made of a count or of items, not of both");
    }
    if job.count.is_some_and(|count| !(1..=ARRAY_MAX).contains(&count)) {
        return refuse("count", &format!("from 1 to {ARRAY_MAX}"));
    }
    if job.items.len() > ARRAY_MAX as usize {
        return refuse("items", &format!("at most {ARRAY_MAX}"));
    }
    if job.items.iter().map(String::len).sum::<usize>() > ITEMS_BYTES_MAX {
        return refuse("items", &format!("at most {ITEMS_BYTES_MAX} bytes together"));
    }
    match job.items.iter().position(|item| item.contains('\0') || item.len() > ENV_BYTES_MAX) {
        Some(index) => {
            let rule = format!("at most {ENV_BYTES_MAX} bytes without a NUL character");
            refuse(&format!("items[{index}]"), &rule)
        }
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return refuse("name", &format!("at most {NAME_CHARS_MAX} characters, none of control"));
    }
    Ok(())
}

fn check_filename(filename: &str) -> Result<(), ApiError> {
    let plain = !filename.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
    if !(1..=FILENAME_BYTES_MAX).contains(&filename.len()) || !plain {
        return refuse("filename", "a name of 1 to 255 bytes without folders");
    }
    Ok(())
}

fn check_env(job: &CreateJob) -> Result<(), ApiError> {
    if job.env.len() > ENV_VARS_MAX {
        return refuse("env", &format!("at most {ENV_VARS_MAX} variables"));
    }
    let bytes: usize = job.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENV_BYTES_MAX {
        return refuse(
            "env",
            &format!("at most {ENV_BYTES_MAX} bytes of names and values together"),
        );
    }
    for (name, value) in &job.env {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let rule = "a name is letters, digits and underscores, and does not begin with a digit";
            return refuse(&format!("env[{name:?}]"), rule);
        }
        if value.contains('\0') {
            return refuse(&format!("env[{name:?}]"), "its value holds a NUL character");
        }
    }
    Ok(())
}

fn check_output(field: &str, pattern: &str) -> Result<(), ApiError> {
    if !(1..=OUTPUT_BYTES_MAX).contains(&pattern.len()) || pattern.chars().any(char::is_control) {
        return refuse(field, "a pattern is 1 to 1024 bytes without control characters");
    }
    let drive = pattern.as_bytes().get(1) == Some(&b':');
    if pattern.starts_with(['/', '\\']) || drive {
        return refuse(field, "a pattern is relative to the job's folder");
    }
    if pattern.split(['/', '\\']).any(|part| part == "..") {
        return refuse(field, "a pattern stays inside the job's folder: no `..`");
    }
    match GlobBuilder::new(pattern).literal_separator(true).build() {
        Ok(_) => Ok(()),
        Err(error) => refuse(field, &format!("not a pattern: {}", error.kind())),
    }
}

fn refuse(field: &str, rule: &str) -> Result<(), ApiError> {
    Err(ApiError::refused(ProblemKind::SubmissionRefused, format!("{field}: {rule}")))
}

#[cfg(test)]
mod tests {
    use lull_shared::{ids::JobId, jobs::Shell};

    use super::*;

    #[test]
    fn a_usual_submission_is_accepted() {
        check(&CreateJob {
            command: "make\n./run --all".to_owned(),
            name: Some("Nightly größe".to_owned()),
            filename: Some("project.zip".to_owned()),
            env: [("PATH_EXTRA".to_owned(), "a=b c".to_owned())].into(),
            outputs: vec!["out/**".to_owned(), "*.{png,jpg}".to_owned(), "a..b".to_owned()],
            idempotency_key: Some("k-1".to_owned()),
            ..CreateJob::default()
        })
        .unwrap();
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_name() {
        refused("command", |job| job.command.clear());
        refused("command", |job| job.command = " \n\t\r\n".to_owned());
        refused("command", |job| job.command = "x".repeat(COMMAND_BYTES_MAX + 1));
        refused("command", |job| job.command = "a\0b".to_owned());
        refused("argv", |job| job.argv = vec!["ls".to_owned()]);
        refused("argv[0]", |job| {
            job.command.clear();
            job.argv = vec![String::new()];
        });
        refused("argv[1]", |job| {
            job.command.clear();
            job.argv = vec!["ls".to_owned(), "\0".to_owned()];
        });
        refused("priority", |job| job.priority = 101);
        refused("priority", |job| job.priority = -101);
        refused("retries", |job| job.retries = 101);
        refused("timeoutSecs", |job| job.timeout_secs = Some(0));
        refused("maxQueueSecs", |job| job.max_queue_secs = Some(SECS_MAX + 1));
        refused("after", |job| job.after = vec![JobId::generate(); AFTER_MAX + 1]);
        refused("requirements.os", |job| job.requirements.os = Some("beos".to_owned()));
        refused("shell", |job| {
            job.shell = Some(Shell::Cmd);
            job.requirements.os = Some("linux".to_owned());
        });
        refused("requirements.arch", |job| job.requirements.arch = Some("a b".to_owned()));
        refused("requirements.labels", |job| job.requirements.labels = ["a b".to_owned()].into());
        refused("count", |job| job.count = Some(0));
        refused("count", |job| job.count = Some(ARRAY_MAX + 1));
        refused("count", |job| {
            job.count = Some(2);
            job.items = vec!["a".to_owned()];
        });
        refused("items", |job| job.items = vec![String::new(); ARRAY_MAX as usize + 1]);
        refused("items[1]", |job| job.items = vec!["a".to_owned(), "\0".to_owned()]);
        refused("name", |job| job.name = Some("a\nb".to_owned()));
        refused("filename", |job| job.filename = Some("../a.zip".to_owned()));
        refused("filename", |job| job.filename = Some(String::new()));
        refused("env", |job| {
            job.env = (0..257).map(|n| (format!("V{n}"), String::new())).collect();
        });
        refused("env", |job| job.env = [("A".to_owned(), "x".repeat(ENV_BYTES_MAX))].into());
        refused("env[\"A=B\"]", |job| job.env = [("A=B".to_owned(), String::new())].into());
        refused("env[\"\"]", |job| job.env = [(String::new(), String::new())].into());
        refused("env[\"1A\"]", |job| job.env = [("1A".to_owned(), String::new())].into());
        refused("env[\"A\"]", |job| job.env = [("A".to_owned(), "\0".to_owned())].into());
        refused("outputs", |job| job.outputs = vec!["a".to_owned(); OUTPUTS_MAX + 1]);
        for bad in
            ["", "/etc/*", "\\\\server\\x", "C:\\x", "../x", "a/../../x", "a\\..\\x", "a[", "a\nb"]
        {
            refused("outputs[0]", |job| job.outputs = vec![bad.to_owned()]);
        }
        refused("idempotencyKey", |job| job.idempotency_key = Some(String::new()));
        refused("idempotencyKey", |job| job.idempotency_key = Some("a b".to_owned()));
        refused("idempotencyKey", |job| job.idempotency_key = Some("k".repeat(129)));
    }

    #[track_caller]
    fn refused(field: &str, spoil: impl FnOnce(&mut CreateJob)) {
        let mut job = CreateJob { command: "true".to_owned(), ..CreateJob::default() };
        spoil(&mut job);
        let problem = check(&job).expect_err(field).problem();
        assert_eq!(problem.status, 422);
        assert!(problem.detail.as_deref().unwrap_or_default().starts_with(field), "{problem:?}");
    }
}
