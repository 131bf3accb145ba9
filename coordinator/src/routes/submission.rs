//! What a submission may ask for: pure checks against the limits, before anything is kept.

use globset::GlobBuilder;
use lull_shared::jobs::{COMMAND_BYTES_MAX, CreateJob, ENV_BYTES_MAX, ENV_VARS_MAX, OUTPUTS_MAX};

use crate::routes::problem::ApiError;

const NAME_CHARS_MAX: usize = 200;
const FILENAME_BYTES_MAX: usize = 255;
const OUTPUT_BYTES_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 128;

/// Refuses a submission that breaks a rule, naming the field and the rule.
pub(crate) fn check(job: &CreateJob) -> Result<(), ApiError> {
    check_command(&job.command)?;
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

fn check_command(command: &str) -> Result<(), ApiError> {
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
    Err(ApiError::invalid(format!("{field}: {rule}")))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(problem.status, 400);
        assert!(problem.detail.as_deref().unwrap_or_default().starts_with(field), "{problem:?}");
    }
}
