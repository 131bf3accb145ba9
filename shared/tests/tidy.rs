//! Properties of the repository, checked like any other behaviour.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Lines a source file may have, its own tests not counted.
const LINES_MAX: usize = 500;

#[test]
fn every_source_file_says_what_it_is_for_and_stays_readable() {
    let mut problems = Vec::new();
    for path in tracked_files(&["rs", "ts", "svelte"]) {
        let text = fs::read_to_string(repository().join(&path)).unwrap();
        if is_generated(&path) || text.trim().is_empty() {
            continue;
        }
        if !starts_with_its_purpose(&path, &text) {
            problems.push(format!("{path}: does not start with a sentence that says what it is"));
        }
        let lines = lines_before_tests(&text);
        if lines > LINES_MAX && !is_test(&path) {
            problems.push(format!("{path}: {lines} lines, more than {LINES_MAX}"));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    let packages = local_dependencies();
    let check = |package: &str, allowed: &[&str]| {
        let found = packages.get(package).unwrap_or_else(|| panic!("no package {package}"));
        let ours: BTreeSet<&str> =
            found.iter().map(String::as_str).filter(|name| name.starts_with("lull-")).collect();
        let extra: Vec<_> = ours.difference(&allowed.iter().copied().collect()).copied().collect();
        assert!(extra.is_empty(), "{package} may not depend on {extra:?}");
    };
    check("lull-shared", &[]);
    check("lull-worker", &["lull-shared"]);
    check("lull-cli", &["lull-shared"]);
    check("lull-desktop", &["lull-shared", "lull-worker"]);
    check("lull-coordinator", &["lull-shared", "lull-worker"]);

    for package in ["lull-shared", "lull-worker", "lull-cli"] {
        for banned in ["axum", "tauri"] {
            assert!(!packages[package].contains(banned), "{package} may not depend on {banned}");
        }
    }
    assert!(!packages["lull-coordinator"].contains("tauri"));
}

#[test]
fn the_worker_is_used_by_the_coordinator_for_direct_mode_only() {
    let users: Vec<String> = tracked_files(&["rs"])
        .into_iter()
        .filter(|path| path.starts_with("coordinator/src/"))
        .filter(|path| {
            fs::read_to_string(repository().join(path)).unwrap().contains("lull_worker::")
        })
        .collect();
    let stray: Vec<_> = users.iter().filter(|path| !path.contains("direct")).collect();
    assert!(stray.is_empty(), "only direct mode may use the worker: {stray:?}");
}

#[test]
fn every_package_has_a_readme() {
    for package in local_dependencies().keys().filter(|name| *name != "lull-bench") {
        let folder = match package.as_str() {
            "lull-worker" => "desktop/worker",
            "lull-cli" => "desktop/cli",
            other => other.trim_start_matches("lull-"),
        };
        assert!(repository().join(folder).join("README.md").is_file(), "{folder}/README.md");
    }
}

#[test]
fn the_links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in tracked_files(&["md"]) {
        let text = fs::read_to_string(repository().join(&path)).unwrap();
        let folder = Path::new(&path).parent().unwrap();
        for target in links(&text) {
            if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
                continue;
            }
            let file = target.split('#').next().unwrap_or_default();
            if !repository().join(folder).join(file).exists() {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A promise is held by a test or it is none.
#[test]
fn the_tests_that_hold_the_promises_exist() {
    let promises = fs::read_to_string(repository().join("docs/promises.md")).unwrap();
    let mut missing = Vec::new();
    let mut named = 0;
    for name in promises.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
        let (path, test) = name.split_once("::").unwrap();
        let text = fs::read_to_string(repository().join(path)).unwrap_or_default();
        if !text.contains(&format!("fn {test}(")) {
            missing.push(name);
        }
        named += 1;
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    assert!(named >= 30, "only {named} tests were found in the document");
    for number in 1..=5 {
        assert!(promises.contains(&format!("## P{number}. ")), "P{number} is missing");
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files of the repository with one of these endings, as git knows them.
fn tracked_files(endings: &[&str]) -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "this test needs a git checkout");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|path| endings.iter().any(|ending| path.ends_with(&format!(".{ending}"))))
        .filter(|path| repository().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

fn is_generated(path: &str) -> bool {
    path.ends_with("/schema.d.ts") || path.ends_with("/schema.ts")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/conformance/")
}

fn starts_with_its_purpose(path: &str, text: &str) -> bool {
    let opening = match Path::new(path).extension().and_then(|ending| ending.to_str()) {
        Some("rs") => "//!",
        Some("svelte") => "<!--",
        _ => "/**",
    };
    // A crate's root may take its README in, and a component open its module, before the sentence.
    text.lines().take(3).any(|line| line.starts_with(opening))
}

fn lines_before_tests(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

/// Direct normal and build dependencies of each package here, by name.
fn local_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(repository())
        .no_deps()
        .exec()
        .expect("cargo metadata works");
    metadata
        .packages
        .iter()
        .map(|package| {
            let names = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != cargo_metadata::DependencyKind::Development)
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), names)
        })
        .collect()
}

/// Targets of `[text](target)` links outside code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code || line.starts_with("    ") {
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            found.push(rest[..end].split_whitespace().next().unwrap_or_default());
            rest = &rest[end..];
        }
    }
    found
}
