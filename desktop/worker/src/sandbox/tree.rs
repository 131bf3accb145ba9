//! The processes below one process, as `/proc` shows them, and signals to all of them.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// How often the whole tree is looked through at most before it is taken to be endless.
const PASSES_MAX: u32 = 1000;

/// Every living process below `root`, `root` itself included.
pub(super) fn processes(root: i32) -> BTreeSet<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        if (pid != root || parent(pid).is_some()) && found.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Every process whose first environment held `marker`.
pub(super) fn marked(marker: &str) -> BTreeSet<i32> {
    all().filter(|pid| holds(*pid, marker)).collect()
}

fn holds(pid: i32, marker: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|var| var == marker.as_bytes()))
        && parent(pid).is_some()
}

/// Stops what `find` finds until two looks in a row find nothing new: a process that forks meanwhile is caught by the
/// next look.
pub(super) async fn stop(find: impl Fn() -> BTreeSet<i32>) -> io::Result<()> {
    let mut stopped = BTreeSet::new();
    let mut quiet = 0;
    for _ in 0..PASSES_MAX {
        let new: Vec<i32> = find().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        for pid in &new {
            signal(*pid, Signal::STOP);
        }
        quiet = if new.is_empty() { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Ok(());
        }
        stopped.extend(new);
        tokio::task::yield_now().await;
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Lets what `find` finds go on.
pub(super) fn go_on(find: impl Fn() -> BTreeSet<i32>) {
    for pid in find() {
        signal(pid, Signal::CONT);
    }
}

/// Kills what `find` finds until two looks in a row find nothing.
pub(super) async fn kill(find: impl Fn() -> BTreeSet<i32>) -> io::Result<()> {
    let mut quiet = 0;
    for _ in 0..PASSES_MAX {
        let left = find();
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Ok(());
        }
        // First all are stopped, so that none forks while the others die.
        for which in [Signal::STOP, Signal::KILL] {
            for pid in &left {
                signal(*pid, which);
            }
        }
        sleep(Duration::from_millis(if left.is_empty() { 1 } else { 5 })).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a living process; `None` when it is dead, awaited or not.
pub(super) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.next()?.parse().ok())?
}
