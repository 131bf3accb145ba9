//! Whether a tree whose root has ended left anybody behind, asked so that the answer costs little: what a dead process
//! leaves becomes a child of one of this program's ancestors, so only their children are looked at.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::tree;

/// A process that is no job's is not looked at again for this long. A process number does not come back that soon.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// More of them are not kept in mind.
const TRUSTED_MAX: usize = 10_000;

/// Looks for what dead processes left.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Who gets what dead processes leave: this program's ancestors, and itself where it may be one of them.
    heirs: Vec<i32>,
    trusted: HashMap<i32, Instant>,
    /// Living processes without any variable, and when each was first seen so. One that is just about to run its
    /// program looks like that for a moment.
    bare: HashMap<i32, Instant>,
}

static ORPHANS: Mutex<Option<Orphans>> = Mutex::new(None);

/// Whether no process has this variable (`NAME=value`) that belonged to a tree whose root has ended. False also when
/// that cannot be told; whoever looks at every process finds out.
pub(super) fn none_has(variable: &str) -> bool {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    let orphans = orphans.get_or_insert_default();
    // A child that ends while the list is read may hide another one from it.
    (0..2).all(|_| orphans.look(variable).unwrap_or(false))
}

impl Orphans {
    fn look(&mut self, variable: &str) -> io::Result<bool> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let first = self.heirs.iter().find(|heir| **heir != own);
        if first.copied().unwrap_or_default() != parent {
            self.heirs = heirs(own)?;
        }
        let mut none = true;
        for index in 0..self.heirs.len() {
            let heir = self.heirs[index];
            let children = match read(&format!("/proc/{heir}/task/{heir}/children")) {
                // It is gone, and its children went on to the next.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                children => children?,
            };
            for child in children.split(u8::is_ascii_whitespace).filter(|child| !child.is_empty()) {
                let child = std::str::from_utf8(child).ok().and_then(|child| child.parse().ok());
                let child = child.ok_or(io::ErrorKind::InvalidData)?;
                none &= self.is_innocent(child, variable)?;
            }
        }
        Ok(none)
    }

    fn is_innocent(&mut self, pid: i32, variable: &str) -> io::Result<bool> {
        let now = Instant::now();
        if self.trusted.get(&pid).is_some_and(|since| now.duration_since(*since) < TRUSTED_FOR) {
            return Ok(true);
        }
        let environ = match read(&format!("/proc/{pid}/environ")) {
            // Somebody else's, and so not of a job; or gone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
            Err(error) if is_gone(&error) => return Ok(true),
            Ok(environ) if environ.is_empty() => {
                let since = *self.bare.entry(pid).or_insert(now);
                let bare = now.duration_since(since) > TRUSTED_FOR;
                if bare {
                    self.trusted.insert(pid, now);
                }
                return Ok(bare || tree::parent(pid).is_none());
            }
            environ => environ?,
        };
        self.bare.remove(&pid);
        let name = variable.split_once('=').map_or(variable, |(name, _)| name);
        let mut variables = environ.split(|byte| *byte == 0);
        let of_a_job = variables.find(|found| {
            found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        });
        if of_a_job.is_none() {
            if self.trusted.len() + self.bare.len() >= TRUSTED_MAX {
                self.trusted.clear();
                self.bare.clear();
            }
            self.trusted.insert(pid, now);
        }
        Ok(of_a_job != Some(variable.as_bytes()) || tree::parent(pid).is_none())
    }
}

/// The ancestors, nearest first; and this program itself where it gets what its descendants leave.
fn heirs(own: i32) -> io::Result<Vec<i32>> {
    let mut heirs = Vec::new();
    let mut next = tree::parent(own).ok_or(io::ErrorKind::NotFound)?;
    while next > 0 {
        heirs.push(next);
        next = tree::parent(next).ok_or(io::ErrorKind::NotFound)?;
    }
    if heirs.is_empty() || rustix::process::child_subreaper()?.is_some() {
        heirs.push(own);
    }
    Ok(heirs)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Reads in few calls: such files do not tell their size.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(8192);
    File::open(path)?.take(u64::MAX).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Other tests' processes may just be starting, and then nothing can be told for a while.
    fn in_the_end_none_has(variable: &str) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if none_has(variable) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn an_orphan_is_seen_and_others_are_not_taken_for_it() {
        let value = |of: &str| format!("{}-{of}", std::process::id());
        let variable = |of: &str| format!("LULL_ORPHAN_TEST={}", value(of));
        assert!(in_the_end_none_has(&variable("mine")));
        let said = Command::new("/bin/sh")
            .args(["-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"])
            .env("LULL_ORPHAN_TEST", value("mine"))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(!none_has(&variable("mine")));
        assert!(in_the_end_none_has(&variable("another")));
        assert!(!none_has(&variable("mine")), "nobody takes it for another's for good");
        let pid: i32 = String::from_utf8(said.stdout).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(in_the_end_none_has(&variable("mine")));
    }
}
