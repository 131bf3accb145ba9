//! Real jobs in the real sandbox and as a plain tree: what they reach, how they end, what is left of them.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use lull_shared::{
    archive::Limits,
    jobs::{FailureKind, OnError, Shell},
    output::Stream,
    workers::SandboxLevel,
};
use lull_worker::{
    runner::{self, Control, KillReason, Program, RunEnding, RunOutcome, RunSpec},
    sandbox::{Launch, PlainTree, Sandbox, SandboxError, Started, default_sandbox},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

const LONG: Duration = Duration::from_secs(20);

// What a job reaches.

#[tokio::test]
async fn the_sandbox_of_this_system_passes_its_own_test() {
    let sandbox = default_sandbox().await;
    assert_eq!(sandbox.level(), SandboxLevel::L2, "{}", sandbox.detail());
    assert!(sandbox.detail().contains("contained by bubblewrap"), "{}", sandbox.detail());
    let plain = plain();
    assert_eq!(plain.level(), SandboxLevel::L0);
}

#[tokio::test]
async fn the_owner_s_file_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "the-secret").unwrap();
    denied_inside(&format!("grep the-secret {}", secret.display())).await;
}

#[tokio::test]
async fn the_owner_s_folders_cannot_be_written() {
    let home = tempfile::tempdir().unwrap();
    denied_inside(&format!("echo x > {}/planted", home.path().display())).await;
    let (outcome, _, _) =
        run(&contained().await, "touch /usr/x || touch /etc/x || touch /x || touch /dev/x").await;
    assert_ne!(code(&outcome), 0);
}

#[tokio::test]
async fn a_socket_of_the_host_cannot_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    denied_inside(&python(&format!("socket.socket(socket.AF_UNIX).connect('{}')", path.display())))
        .await;
    let name = format!("lull-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            &name,
        )
        .unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    denied_inside(&python(&format!("socket.socket(socket.AF_UNIX).connect('\\0{name}')"))).await;
}

#[tokio::test]
async fn a_service_of_the_host_cannot_be_reached() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    denied_inside(&python(&format!("socket.create_connection(('127.0.0.1', {port}), 5)"))).await;
}

#[tokio::test]
async fn the_host_s_processes_cannot_be_seen_or_killed() {
    let pid = std::process::id();
    denied_inside(&format!("grep -q lull /proc/{pid}/cmdline || kill -0 {pid}")).await;
    let (_, stdout, _) = run(&contained().await, "ls /proc | grep -c '^[0-9]'").await;
    let seen: u32 = stdout.trim().parse().unwrap();
    assert!(seen < 10, "{seen} processes are visible");
}

#[tokio::test]
async fn a_job_has_no_rights_to_gain() {
    let (_, stdout, _) =
        run(&contained().await, "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; id -u")
            .await;
    assert!(stdout.contains("CapEff:\t0000000000000000"), "{stdout}");
    assert!(stdout.contains("NoNewPrivs:\t1") && stdout.ends_with("1000\n"), "{stdout}");
    let (outcome, _, _) = run(&contained().await, "unshare -U true").await;
    assert_ne!(code(&outcome), 0, "a job can make namespaces");
}

#[tokio::test]
async fn temporary_space_is_there_and_limited() {
    let (outcome, _, stderr) =
        run(&contained().await, "dd if=/dev/zero of=/tmp/x bs=1M count=600").await;
    assert_ne!(code(&outcome), 0);
    assert!(stderr.contains("No space left"), "{stderr}");
}

// Environment and input.

#[tokio::test]
async fn x1_variables_reach_the_job_and_nothing_before_it() {
    for sandbox in both().await {
        let mut job = Job::new("env; cat", &sandbox);
        job.spec.env = BTreeMap::from([
            ("GREETING".to_owned(), "a 'b' \"c\" $HOME `d`\nsecond".to_owned()),
            ("LD_PRELOAD".to_owned(), "/nowhere/evil.so".to_owned()),
            ("PATH".to_owned(), "/nowhere:/usr/bin:/bin".to_owned()),
            ("BASH_ENV".to_owned(), "/nowhere/rc".to_owned()),
        ]);
        let (outcome, stdout, _) = job.run().await;
        assert_eq!(code(&outcome), 0);
        assert!(stdout.contains("GREETING=a 'b' \"c\" $HOME `d`\nsecond\n"), "{stdout}");
        assert!(stdout.contains("LD_PRELOAD=/nowhere/evil.so\n"), "{stdout}");
        assert!(stdout.contains("PATH=/nowhere:/usr/bin:/bin\n"), "{stdout}");
        // Nothing of this program's own environment.
        assert!(!stdout.contains("CARGO"), "{stdout}");
    }
}

#[tokio::test]
async fn x1_a_library_to_preload_is_not_loaded_into_the_sandbox_s_own_program() {
    let mut job = Job::new("true", &contained().await);
    job.spec.env = BTreeMap::from([("LD_PRELOAD".to_owned(), "/work/evil.so".to_owned())]);
    let (outcome, _, stderr) = job.run().await;
    assert_eq!(code(&outcome), 0);
    // The loader complains for the shell of the script and the shell of the line, and for nobody else.
    assert!(stderr.matches("cannot be preloaded").count() <= 2, "{stderr}");
}

#[tokio::test]
async fn values_of_variables_are_not_on_any_command_line() {
    let value = "value-that-nobody-should-see-4711";
    for sandbox in both().await {
        let mut job = Job::new("sleep 60", &sandbox);
        job.spec.env = BTreeMap::from([("TOKEN".to_owned(), value.to_owned())]);
        let folder = job.spec.folder.clone();
        let running = job.start();
        eventually("the job runs", || {
            folder.join("work").exists() && !pids_with("sleep\x0060").is_empty()
        })
        .await;
        assert!(pids_with(value).is_empty());
        running.control.kill(KillReason::Cancelled);
        running.task.await.unwrap();
    }
}

#[tokio::test]
async fn x1_a_variable_that_cannot_be_is_refused() {
    for sandbox in both().await {
        let mut job = Job::new("true", &sandbox);
        job.spec.env = BTreeMap::from([("A=B".to_owned(), String::new())]);
        let (outcome, _, _) = job.run().await;
        assert!(matches!(outcome.ending, RunEnding::Failed { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_input_is_unpacked_and_the_mode_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.sh"), "#!/bin/sh\necho unpacked\n").unwrap();
    fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut zip = tempfile::NamedTempFile::new().unwrap();
    lull_shared::archive::pack(folder.path(), zip.as_file_mut(), &mut |_| {}).unwrap();
    for sandbox in both().await {
        let mut job = Job::new("./run.sh", &sandbox);
        job.spec.input = Some(zip.path().to_owned());
        let (outcome, stdout, _) = job.run().await;
        assert_eq!((code(&outcome), stdout.as_str()), (0, "unpacked\n"));
    }
}

#[tokio::test]
async fn an_input_that_breaks_a_rule_is_refused_and_nothing_runs() {
    let mut zip = tempfile::NamedTempFile::new().unwrap();
    zip.write_all(b"no zip").unwrap();
    let mut job = Job::new("echo ran", &plain());
    job.spec.input = Some(zip.path().to_owned());
    let (outcome, stdout, _) = job.run().await;
    assert!(
        matches!(&outcome.ending, RunEnding::Failed { kind: FailureKind::InputRefused, .. }),
        "{outcome:?}"
    );
    assert_eq!(stdout, "");
}

// Lines.

#[tokio::test]
async fn lines_run_in_order_until_one_fails_and_its_number_is_told() {
    for sandbox in both().await {
        let (outcome, stdout, _) =
            run(&sandbox, "echo a\n\n  \necho b; pwd > here\nexit 7\necho c").await;
        assert_eq!(stdout, "a\nb\n");
        assert_eq!(
            outcome.ending,
            RunEnding::Exited {
                exit_code: 7,
                error_message: Some("line 5 ended with exit code 7".to_owned())
            }
        );
    }
}

#[tokio::test]
async fn x2_only_the_shell_interprets_a_line() {
    let text = r#"%PATH% & "quoted" 'single' $(x) \ * ; | > < ` !"#;
    let line = format!("printf '%s\\n' '{}'", text.replace('\'', r"'\''"));
    for sandbox in both().await {
        let (outcome, stdout, _) = run(&sandbox, &line).await;
        assert_eq!((code(&outcome), stdout), (0, format!("{text}\n")));
        // An argument that looks like one of the shell's own, and one that ends a quotation.
        let (outcome, _, _) = run(&sandbox, "-c 'echo injected'").await;
        assert_eq!(code(&outcome), 127);
        let (outcome, stdout, _) = run(&sandbox, "echo 'open").await;
        assert_ne!(code(&outcome), 0);
        assert_eq!(stdout, "");
    }
}

#[tokio::test]
async fn x3_a_program_that_does_not_exist_is_said_clearly() {
    for sandbox in both().await {
        let (outcome, _, stderr) = run(&sandbox, "true\nno-such-program --flag").await;
        assert_eq!(
            outcome.ending,
            RunEnding::Exited {
                exit_code: 127,
                error_message: Some("line 2: command not found (exit code 127)".to_owned())
            }
        );
        assert!(stderr.contains("no-such-program"), "{stderr}");
    }
}

#[tokio::test]
async fn x3_a_program_that_cannot_be_executed_is_said_clearly() {
    for sandbox in both().await {
        let (outcome, _, _) = run(&sandbox, "echo text > file; ./file").await;
        assert_eq!(code(&outcome), 126, "{outcome:?}");
        let (outcome, _, _) =
            run(&sandbox, "printf '\\177ELF\\002\\001\\001wrong' > prog; chmod +x prog; ./prog")
                .await;
        assert!([2, 126, 127].contains(&code(&outcome)), "{outcome:?}");
    }
}

#[tokio::test]
async fn x3_the_longest_command_runs() {
    let line = format!("true {}", "x".repeat(60_000));
    for sandbox in both().await {
        let (outcome, _, _) = run(&sandbox, &line).await;
        assert_eq!(code(&outcome), 0);
    }
}

#[tokio::test]
async fn lines_go_on_after_a_failure_when_asked_to() {
    for sandbox in both().await {
        let (outcome, stdout, _) =
            run_going_on(&sandbox, "echo a\nexit 7\n\nno-such-program\necho b").await;
        assert_eq!(stdout, "a\nb\n");
        assert_eq!(
            outcome.ending,
            RunEnding::Exited {
                exit_code: 127,
                error_message: Some("line 4: command not found (exit code 127)".to_owned())
            }
        );
        let (outcome, stdout, _) = run_going_on(&sandbox, "echo a\ntrue").await;
        assert_eq!((code(&outcome), stdout.as_str()), (0, "a\n"));
        let (outcome, _, _) = run_going_on(&sandbox, "exit 3").await;
        assert_eq!(code(&outcome), 3);
    }
}

#[tokio::test]
async fn more_lines_than_a_pipe_holds_reports_of_run_to_the_end() {
    // Blank lines cost nothing and make the numbers long.
    let command = "\n".repeat(100_000) + &"exit 1\n".repeat(2_700) + "exit 5";
    let (outcome, _, _) = run_going_on(&plain(), &command).await;
    assert_eq!(
        outcome.ending,
        RunEnding::Exited {
            exit_code: 5,
            error_message: Some("line 102701 ended with exit code 5".to_owned())
        }
    );
}

#[tokio::test]
async fn a_shell_that_is_not_here_is_said_clearly() {
    for sandbox in both().await {
        for (shell, name) in [(Shell::Cmd, "cmd"), (Shell::Powershell, "powershell")] {
            let mut job = Job::new("echo ran", &sandbox);
            job.spec.program = lines("echo ran", Some(shell), OnError::Stop);
            let (outcome, stdout, _) = job.run().await;
            exec_failed(&outcome, name);
            assert_eq!(stdout, "");
        }
        let mut job = Job::new("", &sandbox);
        job.spec.program = lines("echo ran", Some(Shell::Sh), OnError::Stop);
        assert_eq!(job.run().await.1, "ran\n");
    }
}

// A program without a shell.

#[tokio::test]
async fn x2_arguments_arrive_as_they_are() {
    let arguments = [
        "%s\\n",
        "",
        "a 'b' \"c\"",
        "$HOME `id` $(id)",
        "two\nlines",
        "%PATH% & calc.exe ^ | > <",
        "-c",
        "*",
        "; exit 9",
        "é\u{1f600}",
    ];
    for sandbox in both().await {
        let (outcome, stdout, _) =
            run_argv(&sandbox, &[&["/usr/bin/printf"], &arguments[..]].concat()).await;
        let expected: String = arguments[1..].iter().map(|text| format!("{text}\n")).collect();
        assert_eq!((code(&outcome), stdout), (0, expected));
        let (outcome, _, _) = run_argv(&sandbox, &["sh", "-c", "exit $#", "x", "y", "z"]).await;
        assert_eq!(
            outcome.ending,
            RunEnding::Exited {
                exit_code: 2,
                error_message: Some("the program ended with exit code 2".to_owned())
            }
        );
    }
}

#[tokio::test]
async fn x2_a_program_of_the_job_s_own_folder_and_path_is_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tool"), "#!/bin/sh\necho \"tool $1\"\n").unwrap();
    fs::set_permissions(folder.path().join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut zip = tempfile::NamedTempFile::new().unwrap();
    lull_shared::archive::pack(folder.path(), zip.as_file_mut(), &mut |_| {}).unwrap();
    for sandbox in both().await {
        let mut job = Job::new("", &sandbox);
        job.spec.input = Some(zip.path().to_owned());
        job.spec.program = Program::Argv(["./tool", "a b"].map(str::to_owned).to_vec());
        let (outcome, stdout, _) = job.run().await;
        assert_eq!((code(&outcome), stdout.as_str()), (0, "tool a b\n"));
    }
}

#[tokio::test]
async fn x3_a_program_without_a_shell_that_cannot_run_is_refused() {
    for sandbox in both().await {
        for program in ["no-such-program", "/etc/passwd", "/usr", "./missing", ""] {
            let (outcome, _, _) = run_argv(&sandbox, &[program, "argument"]).await;
            exec_failed(&outcome, program);
        }
        let (outcome, _, _) = run_argv(&sandbox, &["true", "a\0b"]).await;
        exec_failed(&outcome, "character");
        // A program that says what the sandbox's own would say has run all the same.
        let (outcome, _, _) =
            run_argv(&sandbox, &["sh", "-c", "echo 'bwrap: execvp x: no' >&2; exit 1"]).await;
        assert_eq!(code(&outcome), 1);
    }
}

// Time limits.

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_tree_and_keeps_its_output() {
    for (number, sandbox) in (74_000..).zip(both().await) {
        let command = format!("echo begun; setsid sleep {number} & echo x > out; sleep {number}");
        let mut job = Job::new(&command, &sandbox);
        job.spec.time_limit = Some(Duration::from_secs(1));
        job.spec.outputs = vec!["out".to_owned()];
        let begun = Instant::now();
        let (outcome, stdout, _) = job.run().await;
        let RunEnding::Failed { kind: FailureKind::TimedOut, message } = &outcome.ending else {
            panic!("{outcome:?}")
        };
        assert!(message.contains("limit of 1 s"), "{message}");
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!((stdout.as_str(), outcome.outputs), ("begun\n", None));
        assert!(pids_with(&format!("sleep\0{number}")).is_empty(), "something lives on");
    }
}

#[tokio::test]
async fn time_in_which_a_job_is_frozen_does_not_count() {
    for sandbox in both().await {
        let mut job = Job::new("echo x > begun; while [ ! -e go ]; do sleep 0.01; done", &sandbox);
        job.spec.time_limit = Some(Duration::from_secs(2));
        let work = job.spec.folder.join("work");
        let running = job.start();
        eventually("the job runs", || work.join("begun").exists()).await;
        running.control.suspend();
        tokio::time::sleep(Duration::from_secs(3)).await;
        running.control.resume();
        fs::write(work.join("go"), "").unwrap();
        let (outcome, _, _) = running.finish().await;
        assert_eq!(code(&outcome), 0);
    }
}

#[tokio::test]
async fn a_line_ended_by_a_signal_is_told_with_its_number() {
    for sandbox in both().await {
        let (outcome, _, _) = run(&sandbox, "true\nkill -9 $$\necho never").await;
        let RunEnding::Exited { exit_code: 137, error_message: Some(message) } = &outcome.ending
        else {
            panic!("{outcome:?}")
        };
        assert!(message.contains("line 2 was ended by signal 9"), "{message}");
    }
}

#[tokio::test]
async fn a_line_that_kills_everything_it_sees_fails_and_nothing_more() {
    let (outcome, _, _) = run(&contained().await, "true\nkill -9 -1").await;
    assert_ne!(code(&outcome), 0, "{outcome:?}");
}

#[tokio::test]
async fn a_line_may_use_what_an_earlier_one_left_running() {
    let (outcome, stdout, _) =
        run(&contained().await, "mkfifo pipe; (echo from the background > pipe) &\ncat pipe").await;
    assert_eq!((code(&outcome), stdout.as_str()), (0, "from the background\n"));
}

// Output.

#[tokio::test]
async fn the_first_bytes_arrive_before_the_end() {
    for sandbox in both().await {
        let job = Job::new(
            "echo out; echo err >&2; while [ ! -e go ]; do sleep 0.01; done; echo end",
            &sandbox,
        );
        let go = job.spec.folder.join("work/go");
        let mut running = job.start();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.push(timeout(LONG, running.output.recv()).await.unwrap().unwrap());
        }
        seen.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
        assert_eq!(seen[0], (Stream::Stdout, "out\n".into()));
        assert_eq!(seen[1], (Stream::Stderr, "err\n".into()));
        fs::write(go, "").unwrap();
        let (outcome, stdout, _) = running.finish().await;
        assert_eq!((code(&outcome), stdout.as_str()), (0, "end\n"));
    }
}

#[tokio::test]
async fn large_output_on_both_streams_arrives_whole() {
    for sandbox in both().await {
        let (outcome, stdout, stderr) = run(
            &sandbox,
            "head -c 8000000 /dev/zero | tr '\\0' a; head -c 8000000 /dev/zero | tr '\\0' b >&2",
        )
        .await;
        assert_eq!((code(&outcome), stdout.len(), stderr.len()), (0, 8_000_000, 8_000_000));
        assert!(stdout.bytes().all(|byte| byte == b'a') && stderr.bytes().all(|byte| byte == b'b'));
    }
}

#[tokio::test]
async fn a_job_whose_output_nobody_takes_can_still_be_killed() {
    for sandbox in both().await {
        let running = Job::new("yes", &sandbox).start();
        eventually("the job runs", || !pids_with("yes\0").is_empty()).await;
        running.control.kill(KillReason::Cancelled);
        let outcome = timeout(LONG, running.task).await.unwrap().unwrap();
        assert_eq!(outcome.ending, RunEnding::Killed(KillReason::Cancelled));
    }
}

#[tokio::test]
async fn a_job_whose_output_nobody_wants_runs_to_its_end() {
    for sandbox in both().await {
        let running = Job::new("head -c 3000000 /dev/zero", &sandbox).start();
        drop(running.output);
        let outcome = timeout(LONG, running.task).await.unwrap().unwrap();
        assert_eq!(code(&outcome), 0);
    }
}

#[tokio::test]
async fn r4_a_grandchild_that_holds_the_pipe_open_does_not_hold_the_run() {
    for (number, sandbox) in (71_000..).zip(both().await) {
        let line = format!("setsid sleep {number} & echo done");
        let begun = Instant::now();
        let (outcome, stdout, _) = run(&sandbox, &line).await;
        assert_eq!((code(&outcome), stdout.as_str()), (0, "done\n"));
        assert!(begun.elapsed() < Duration::from_secs(8));
        assert!(pids_with(&format!("sleep\0{number}")).is_empty(), "the grandchild lives on");
    }
}

// Ends.

#[tokio::test]
async fn r4_a_kill_leaves_nothing_of_any_tree() {
    let trees = [
        "sleep N",
        "setsid sleep N & wait",
        "trap '' TERM INT HUP; sleep N & sleep N; sleep N",
        "(setsid sh -c 'trap \"\" TERM; sleep N & sleep N' &) ; sleep N",
        "for i in 1 2 3 4 5 6 7 8; do (setsid setsid sleep N &) ; done; sleep N",
        "nohup sh -c 'nohup sleep N & sleep N' & sleep N",
        "(kill -STOP $(sh -c 'echo $PPID') &) ; sleep N & setsid sleep N; sleep N",
    ];
    let mut number = 72_000;
    for sandbox in both().await {
        for tree in trees {
            number += 1;
            let running = Job::new(&tree.replace('N', &number.to_string()), &sandbox).start();
            let mark = format!("sleep\0{number}");
            eventually("the tree grows", || !pids_with(&mark).is_empty()).await;
            running.control.kill(KillReason::Cancelled);
            let outcome = timeout(LONG, running.task).await.unwrap().unwrap();
            assert_eq!(outcome.ending, RunEnding::Killed(KillReason::Cancelled));
            assert!(pids_with(&mark).is_empty(), "something of {tree:?} lives on");
        }
    }
}

#[tokio::test]
async fn a_run_nobody_waits_for_any_more_leaves_nothing() {
    for (number, sandbox) in (73_000..).zip(both().await) {
        let running = Job::new(&format!("sleep {number}"), &sandbox).start();
        let mark = format!("sleep\0{number}");
        eventually("the job runs", || !pids_with(&mark).is_empty()).await;
        running.task.abort();
        eventually("the job is dead", || pids_with(&mark).is_empty()).await;
    }
}

#[tokio::test]
async fn a_kill_before_the_start_starts_nothing() {
    let job = Job::new("echo ran", &contained().await);
    job.control.kill(KillReason::WorkerStopping);
    job.control.kill(KillReason::Cancelled);
    let (outcome, stdout, _) = job.run().await;
    assert_eq!(outcome.ending, RunEnding::Killed(KillReason::WorkerStopping));
    assert_eq!(stdout, "");
}

#[tokio::test]
async fn a_suspended_job_stands_still_and_goes_on() {
    for sandbox in both().await {
        // The second process leaves the tree of the first.
        let line =
            "setsid sh -c 'while :; do echo x >> ticks; done' & while :; do echo x >> ticks; done";
        let job = Job::new(line, &sandbox);
        let ticks = job.spec.folder.join("work/ticks");
        let size = || fs::metadata(&ticks).map_or(0, |metadata| metadata.len());
        let running = job.start();
        eventually("the job runs", || size() > 1000).await;
        running.control.suspend();
        still(size).await;
        let stopped_at = size();
        running.control.resume();
        eventually("the job goes on", || size() > stopped_at + 1000).await;
        // A suspended job dies like any other.
        running.control.suspend();
        still(size).await;
        running.control.kill(KillReason::OwnerReturned);
        let outcome = timeout(LONG, running.task).await.unwrap().unwrap();
        assert_eq!(outcome.ending, RunEnding::Killed(KillReason::OwnerReturned));
    }
}

#[tokio::test]
async fn the_folder_is_gone_even_when_its_files_are_read_only() {
    for sandbox in both().await {
        let mut job =
            Job::new("mkdir -p a/b; touch a/b/c; chmod 400 a/b/c; chmod 500 a/b a", &sandbox);
        job.spec.outputs = Vec::new();
        let folder = job.spec.folder.clone();
        let (outcome, _, _) = job.run_keeping(|| assert!(!folder.join("work").exists())).await;
        assert_eq!(code(&outcome), 0);
    }
}

#[tokio::test]
async fn only_a_folder_left_as_it_was_is_kept() {
    for (command, kept) in [
        ("true", true),
        ("touch a; rm a", true),
        ("touch a", false),
        ("chmod 755 .", false),
        ("python3 -c 'import os; os.setxattr(\".\", \"user.note\", b\"x\")'", false),
        (
            "i=0; while [ $i -lt 2000 ]; do : > a-rather-long-name-$i; i=$((i+1)); done; rm a*",
            false,
        ),
    ] {
        for sandbox in both().await {
            let mut job = Job::new(command, &sandbox);
            job.spec.keeps_work = true;
            let work = job.spec.folder.join("work");
            let mut running = job.start();
            let (outcome, _, stderr) = running.take().await;
            assert_eq!(code(&outcome), 0, "{stderr}");
            assert_eq!(work.exists(), kept, "{command}");
        }
    }
}

#[tokio::test]
async fn the_folder_is_gone_however_deep_the_job_dug() {
    let dig = "python3 -c 'import os; [(os.mkdir(\"d\" * 20), os.chdir(\"d\" * 20)) for _ in range(300)]'";
    let (outcome, _, stderr) = run(&contained().await, dig).await;
    assert_eq!(code(&outcome), 0, "{stderr}");
    // Bringing outputs home does not fall into it either.
    let (outcome, _, _) = outputs(dig, "*.txt", Limits::default()).await;
    assert!(!matches!(outcome.ending, RunEnding::Killed(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_relative_folder_is_as_good_as_an_absolute_one() {
    for sandbox in both().await {
        let mut job = Job::new("echo x > here && pwd", &sandbox);
        let up = std::env::current_dir()
            .unwrap()
            .components()
            .skip(1)
            .map(|_| "..")
            .collect::<PathBuf>();
        job.spec.folder = up.join(job.spec.folder.strip_prefix("/").unwrap());
        let (outcome, _, stderr) = job.run().await;
        assert_eq!(code(&outcome), 0, "{stderr}");
    }
}

#[tokio::test]
async fn a_panic_ends_the_attempt_and_nothing_else() {
    #[derive(Debug)]
    struct Panics;
    #[async_trait::async_trait]
    impl Sandbox for Panics {
        fn level(&self) -> SandboxLevel {
            SandboxLevel::L0
        }
        fn detail(&self) -> &'static str {
            "panics"
        }
        async fn start(&self, _: &Launch) -> Result<Started, SandboxError> {
            panic!("a defect")
        }
    }
    let sandbox: Arc<dyn Sandbox> = Arc::new(Panics);
    let (outcome, _, _) = run(&sandbox, "true").await;
    assert!(
        matches!(outcome.ending, RunEnding::Failed { kind: FailureKind::Internal, .. }),
        "{outcome:?}"
    );
}

// Outputs.

#[tokio::test]
async fn outputs_come_home_after_success_and_failure() {
    for sandbox in both().await {
        for (end, exit_code) in [("true", 0), ("exit 3", 3)] {
            let lines = format!(
                "mkdir -p out/deep other; echo 1 > out/a.txt; echo 2 > out/deep/b.txt; echo 3 > other/c.log; {end}"
            );
            let mut job = Job::new(&lines, &sandbox);
            job.spec.outputs = ["out/**", "*.log", "other"].map(str::to_owned).to_vec();
            let folder = job.spec.folder.clone();
            let (outcome, _, _) = job
                .run_keeping(|| {
                    let zip = fs::File::open(folder.join("outputs.zip")).unwrap();
                    let archive = zip::ZipArchive::new(zip).unwrap();
                    let names: Vec<_> =
                        archive.file_names().map(|name| name.unwrap().into_owned()).collect();
                    assert_eq!(names, ["other/c.log", "out/a.txt", "out/deep/b.txt"]);
                })
                .await;
            assert_eq!(code(&outcome), exit_code);
            assert_eq!(outcome.outputs.unwrap().files, 3);
            assert_eq!(outcome.notes, ["no file matched the output \"*.log\""]);
        }
    }
}

#[tokio::test]
async fn outputs_that_match_nothing_are_a_note() {
    let (outcome, _, _) = outputs("true", "out/*", Limits::default()).await;
    assert_eq!(code(&outcome), 0);
    assert_eq!(outcome.outputs, None);
    assert_eq!(outcome.notes, ["no file matched the output \"out/*\""]);
}

#[tokio::test]
async fn z6_a_link_to_the_owner_s_file_is_refused() {
    for target in ["/etc/passwd", "../../../../../etc/passwd", "/work/real", "missing"] {
        let (outcome, _, _) =
            outputs(&format!("echo x > real; ln -s {target} link"), "link", Limits::default())
                .await;
        outputs_refused(&outcome, "link");
    }
    let (outcome, _, _) =
        outputs("mkdir d; ln -s /etc d/up; ln -s ../.. d/over", "d/**", Limits::default()).await;
    outputs_refused(&outcome, "link");
}

#[tokio::test]
async fn z6_a_link_that_stands_for_a_folder_on_the_way_leads_nowhere() {
    let (outcome, _, _) = outputs("ln -s /etc out", "out/*", Limits::default()).await;
    assert_eq!((code(&outcome), outcome.outputs), (0, None));
}

#[tokio::test]
async fn z6_a_pipe_is_refused_and_holds_nobody() {
    let (outcome, _, _) = outputs("mkfifo pipe", "*", Limits::default()).await;
    outputs_refused(&outcome, "pipe");
}

#[tokio::test]
async fn z6_a_sparse_file_of_a_terabyte_is_refused_by_its_size() {
    let begun = Instant::now();
    let (outcome, _, _) = outputs("truncate -s 1T big", "big", Limits::default()).await;
    outputs_refused(&outcome, "more than");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn z6_a_hard_link_out_of_the_folder_cannot_be_made() {
    let (outcome, _, _) = run(&contained().await, "ln /usr/bin/env stolen").await;
    assert_ne!(code(&outcome), 0);
}

#[tokio::test]
async fn z6_an_output_that_is_refused_leaves_a_failed_line_the_reason() {
    let (outcome, _, _) = outputs("mkfifo pipe; exit 9", "*", Limits::default()).await;
    assert_eq!(code(&outcome), 9);
    assert!(outcome.notes[0].contains("pipe"), "{:?}", outcome.notes);
}

#[tokio::test]
async fn an_output_pattern_that_leaves_the_folder_is_refused() {
    for pattern in ["/etc/*", "../x", "a/../../b", "", "a["] {
        let (outcome, stdout, _) = outputs("echo ran", pattern, Limits::default()).await;
        outputs_refused(&outcome, "pattern");
        assert_eq!(stdout, "");
    }
}

/// A job in a folder of its own.
struct Job {
    parent: tempfile::TempDir,
    spec: RunSpec,
    sandbox: Arc<dyn Sandbox>,
    control: Control,
    controlled: runner::Controlled,
}

struct Running {
    _parent: tempfile::TempDir,
    control: Control,
    output: mpsc::Receiver<(Stream, bytes::Bytes)>,
    task: JoinHandle<RunOutcome>,
}

impl Job {
    fn new(command: &str, sandbox: &Arc<dyn Sandbox>) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let spec = RunSpec {
            folder: parent.path().join("attempt"),
            program: Program::lines(command),
            env: BTreeMap::new(),
            time_limit: None,
            input: None,
            outputs: Vec::new(),
            limits: Limits::default(),
            keeps_work: false,
        };
        let (control, controlled) = Control::new();
        Self { parent, spec, sandbox: Arc::clone(sandbox), control, controlled }
    }

    fn start(self) -> Running {
        let (sink, output) = mpsc::channel(4);
        let task = tokio::spawn(runner::run(self.spec, self.sandbox, sink, self.controlled));
        Running { _parent: self.parent, control: self.control, output, task }
    }

    async fn run(self) -> (RunOutcome, String, String) {
        self.run_keeping(|| ()).await
    }

    /// Runs it, and looks at its folder before that is removed.
    async fn run_keeping(self, look: impl FnOnce()) -> (RunOutcome, String, String) {
        let folder: PathBuf = self.spec.folder.clone();
        let mut running = self.start();
        let result = running.take().await;
        assert!(!folder.join("work").exists(), "the job's folder is left");
        look();
        result
    }
}

impl Running {
    async fn finish(mut self) -> (RunOutcome, String, String) {
        self.take().await
    }

    async fn take(&mut self) -> (RunOutcome, String, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let all = async {
            while let Some((stream, bytes)) = self.output.recv().await {
                match stream {
                    Stream::Stdout => stdout.extend_from_slice(&bytes),
                    Stream::Stderr => stderr.extend_from_slice(&bytes),
                }
            }
            (&mut self.task).await.unwrap()
        };
        let outcome = timeout(LONG, all).await.expect("the run ends");
        (outcome, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

async fn run(sandbox: &Arc<dyn Sandbox>, command: &str) -> (RunOutcome, String, String) {
    Job::new(command, sandbox).run().await
}

async fn outputs(command: &str, pattern: &str, limits: Limits) -> (RunOutcome, String, String) {
    let mut job = Job::new(command, &contained().await);
    job.spec.outputs = vec![pattern.to_owned()];
    job.spec.limits = limits;
    job.run().await
}

async fn run_going_on(sandbox: &Arc<dyn Sandbox>, command: &str) -> (RunOutcome, String, String) {
    let mut job = Job::new(command, sandbox);
    job.spec.program = lines(command, None, OnError::Continue);
    job.run().await
}

async fn run_argv(sandbox: &Arc<dyn Sandbox>, argv: &[&str]) -> (RunOutcome, String, String) {
    let mut job = Job::new("", sandbox);
    job.spec.program = Program::Argv(argv.iter().copied().map(str::to_owned).collect());
    job.run().await
}

fn lines(command: &str, shell: Option<Shell>, on_error: OnError) -> Program {
    Program::Lines { lines: command.lines().map(str::to_owned).collect(), shell, on_error }
}

fn exec_failed(outcome: &RunOutcome, why: &str) {
    match &outcome.ending {
        RunEnding::Failed { kind: FailureKind::ExecFailed, message } => {
            assert!(message.contains(why), "{message:?} does not say {why:?}");
        }
        other @ (RunEnding::Exited { .. } | RunEnding::Killed(_) | RunEnding::Failed { .. }) => {
            panic!("not refused: {other:?}")
        }
    }
}

fn outputs_refused(outcome: &RunOutcome, why: &str) {
    match &outcome.ending {
        RunEnding::Failed { kind: FailureKind::OutputsRefused, message } => {
            assert!(message.contains(why), "{message:?} does not say {why:?}");
        }
        other @ (RunEnding::Exited { .. } | RunEnding::Killed(_) | RunEnding::Failed { .. }) => {
            panic!("not refused: {other:?}")
        }
    }
}

/// The same command must succeed without the sandbox and fail in it.
async fn denied_inside(command: &str) {
    let (outside, _, stderr) = run(&plain(), command).await;
    assert_eq!(code(&outside), 0, "the control fails outside: {command}: {stderr}");
    let (inside, _, _) = run(&contained().await, command).await;
    assert_ne!(code(&inside), 0, "possible inside: {command}");
}

fn python(statement: &str) -> String {
    format!("python3 -c \"import socket; {statement}\"")
}

async fn contained() -> Arc<dyn Sandbox> {
    let sandbox = default_sandbox().await;
    assert_eq!(sandbox.level(), SandboxLevel::L2, "{}", sandbox.detail());
    sandbox
}

fn plain() -> Arc<dyn Sandbox> {
    Arc::new(PlainTree::new("as the test wants it".to_owned()))
}

async fn both() -> [Arc<dyn Sandbox>; 2] {
    [contained().await, plain()]
}

fn code(outcome: &RunOutcome) -> i32 {
    match &outcome.ending {
        RunEnding::Exited { exit_code, .. } => *exit_code,
        other @ (RunEnding::Killed(_) | RunEnding::Failed { .. }) => {
            panic!("it did not exit: {other:?}")
        }
    }
}

/// Living processes whose command line holds the text.
fn pids_with(text: &str) -> Vec<String> {
    let holds = |path: &Path| {
        let read = |file| fs::read(path.join(file)).unwrap_or_default();
        let line = read("cmdline");
        line.windows(text.len()).any(|window| window == text.as_bytes())
            && !String::from_utf8_lossy(&read("stat")).contains(") Z ")
            && path != Path::new(&format!("/proc/{}", std::process::id()))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| holds(path)).map(|path| path.display().to_string()).collect()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Waits until the value does not change over half a second.
async fn still(value: impl Fn() -> u64) {
    let waiting = async {
        loop {
            let before = value();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if value() == before {
                return;
            }
        }
    };
    timeout(LONG, waiting).await.expect("the job stands still");
}
