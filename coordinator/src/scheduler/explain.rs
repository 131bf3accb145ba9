//! Why a job waits, in words and numbers. Pure.

use std::time::Duration;

use lull_shared::{
    ids::WorkerId,
    jobs::{Ahead, Explanation, JobState, Network, Pool, Requirements, WaitReason},
    time::Timestamp,
    workers::{Worker, WorkerState},
};

use super::{fair_share::TURN, placement};
use crate::model::{Capabilities, WaitFacts};

/// Says why a job waits, by what is known of it and of the pool.
#[must_use]
pub fn explain(facts: &WaitFacts, now: Timestamp) -> Explanation {
    let job = &facts.job;
    let mut explanation = Explanation {
        job_id: job.job_id,
        status: job.status,
        reason: None,
        sentences: Vec::new(),
        pool: None,
        ahead: None,
    };
    if job.status != JobState::Pending && !facts.ready {
        explanation.sentences.push(not_waiting(facts));
        return explanation;
    }
    let first = if job.held {
        Some((WaitReason::Held, "It is held. Release it to let it run.".to_owned()))
    } else if job.blocked_by > 0 {
        let jobs = count(job.blocked_by.into(), "job");
        Some((WaitReason::Blocked, format!("It waits for {jobs} to complete.")))
    } else {
        job.not_before.map(|end| (WaitReason::Backoff, in_backoff(facts, end, now)))
    };
    let pool = look_at(facts);
    let (pool_reason, pool_words) = judge_pool(facts, &pool, now);
    let ahead = Ahead { own: facts.own_ahead, others: others_ahead(facts) };
    match first {
        Some((reason, sentence)) => {
            explanation.reason = Some(reason);
            explanation.sentences.push(sentence);
            if pool_reason == WaitReason::NoneFits {
                explanation.sentences.push(pool_words);
            }
        }
        None => {
            let comes_later = ahead.own + ahead.others > 0;
            let starts = pool_reason == WaitReason::Starting;
            explanation.reason =
                Some(if starts && comes_later { WaitReason::OthersFirst } else { pool_reason });
            explanation.sentences.push(pool_words);
            if comes_later && pool_reason != WaitReason::NoneFits {
                explanation.sentences.push(in_line(ahead));
            }
        }
    }
    if pool.failed_before > 0 && pool_reason != WaitReason::NoneFits {
        explanation.sentences.push(format!(
            "It failed on {} before, which {} it again only when no other can.",
            count(pool.failed_before.into(), "PC"),
            if pool.failed_before == 1 { "gets" } else { "get" },
        ));
    }
    explanation.pool = Some(pool);
    explanation.ahead = Some(ahead);
    explanation
}

fn not_waiting(facts: &WaitFacts) -> String {
    let job = &facts.job;
    let on = job.hostname.as_deref().unwrap_or("a PC");
    match (job.status, &job.error_message) {
        (JobState::Running, _) if job.array.is_some() => {
            "All of its jobs have begun; none waits.".to_owned()
        }
        (JobState::Pending | JobState::Running, _) => format!("It runs on {on}."),
        (JobState::Completed, _) => "It completed.".to_owned(),
        (JobState::Failed, Some(why)) => format!("It failed: {why}."),
        (JobState::Failed, None) => "It failed.".to_owned(),
        (JobState::Cancelled, _) => "It was cancelled.".to_owned(),
    }
}

fn in_backoff(facts: &WaitFacts, end: Timestamp, now: Timestamp) -> String {
    let why = facts.job.error_message.as_deref().unwrap_or("it failed");
    format!("It is tried again in {}: {why}.", duration(end.since(now)))
}

/// The pool as the job sees it.
fn look_at(facts: &WaitFacts) -> Pool {
    let mut pool = Pool { workers: number(facts.workers.len()), ..Pool::default() };
    for worker in &facts.workers {
        if !placement::meets(&facts.requirements, &capabilities(worker)) {
            continue;
        }
        pool.fitting += 1;
        pool.failed_before += u32::from(facts.failed_on.contains(&worker.worker_id));
        *kind_of(worker, &mut pool) += 1;
    }
    pool
}

/// The part of the pool that a worker which fits belongs to.
fn kind_of<'a>(worker: &Worker, pool: &'a mut Pool) -> &'a mut u32 {
    match worker.status {
        WorkerState::Offline => &mut pool.offline,
        _ if worker.sick_since.is_some() => &mut pool.sick,
        _ if worker.draining => &mut pool.draining,
        WorkerState::Draining => &mut pool.draining,
        WorkerState::Suspended => &mut pool.suspended,
        WorkerState::Ready | WorkerState::Working | WorkerState::Unknown => {
            if is_busy(worker) {
                &mut pool.busy
            } else {
                &mut pool.free
            }
        }
    }
}

fn is_busy(worker: &Worker) -> bool {
    worker.running.len() >= worker.slots as usize
}

fn capabilities(worker: &Worker) -> Capabilities {
    Capabilities {
        os: worker.os.clone(),
        arch: worker.arch.clone(),
        cpu_count: worker.cpu_count,
        memory_bytes: worker.memory_bytes,
        labels: worker.labels.clone(),
        sandbox_level: worker.sandbox_level,
        network: worker.network,
    }
}

fn judge_pool(facts: &WaitFacts, pool: &Pool, now: Timestamp) -> (WaitReason, String) {
    if pool.workers == 0 {
        let words = "No PC has joined the pool yet. Let one join with a join code.";
        return (WaitReason::NoneFits, words.to_owned());
    }
    if pool.fitting == 0 {
        return (WaitReason::NoneFits, unmet(facts));
    }
    let asked = wishes(&facts.requirements);
    let mut words = if asked.is_empty() || pool.fitting == pool.workers {
        format!("{} can run it", of(pool.fitting, pool.workers))
    } else {
        format!("It needs {}: {} can run it", join(&asked), of(pool.fitting, pool.workers))
    };
    let busy = match first_free(facts) {
        Some((id, at)) if pool.busy > 0 => {
            let host = facts.workers.iter().find(|it| it.worker_id == id);
            let host = host.map_or("one", |it| it.hostname.as_str());
            let left = at.since(now);
            let when = if left < Duration::from_secs(1) {
                "any moment".to_owned()
            } else {
                format!("in about {}", duration(left))
            };
            format!("busy ({host} is expected to be free {when})")
        }
        _ => "busy".to_owned(),
    };
    let parts: Vec<String> = [
        (pool.free, "with a free slot"),
        (pool.busy, busy.as_str()),
        (pool.suspended, "with the owner at work"),
        (pool.offline, "switched off or out of reach"),
        (pool.draining, "draining"),
        (pool.sick, "set aside because everybody's jobs fail there"),
    ]
    .into_iter()
    .filter(|(pcs, _)| *pcs > 0)
    .map(|(pcs, what)| format!("{pcs} {what}"))
    .collect();
    words = format!("{words}; of these, {}.", join(&parts));
    let reason = if pool.free > 0 {
        WaitReason::Starting
    } else if pool.busy > 0 {
        WaitReason::AllBusy
    } else {
        WaitReason::NoneAvailable
    };
    (reason, words)
}

/// What no PC of the pool meets: each wish that nobody has, or that nobody has all of them together.
fn unmet(facts: &WaitFacts) -> String {
    let asked = &facts.requirements;
    let single = singles(asked);
    let nobody: Vec<String> = single
        .iter()
        .filter(|(_, wish)| {
            !facts.workers.iter().any(|worker| placement::meets(wish, &capabilities(worker)))
        })
        .map(|(words, _)| words.clone())
        .collect();
    let pcs = count(facts.workers.len() as u64, "PC");
    if nobody.is_empty() {
        let each = single.iter().map(|(words, wish)| {
            let has = facts.workers.iter().filter(|it| placement::meets(wish, &capabilities(it)));
            format!("{words} ({} of {})", has.count(), facts.workers.len())
        });
        return format!("No PC has all it needs together: {}.", join(&each.collect::<Vec<_>>()));
    }
    format!("It needs {}: none of {pcs} has that.", join(&nobody))
}

/// Each wish alone, with its words.
fn singles(asked: &Requirements) -> Vec<(String, Requirements)> {
    let nothing = || Requirements {
        min_sandbox: lull_shared::workers::SandboxLevel::L0,
        ..Requirements::default()
    };
    let mut wishes = Vec::new();
    if let Some(os) = &asked.os {
        let words = if os == "unix" { "Linux or macOS".to_owned() } else { os.clone() };
        wishes.push((words, Requirements { os: asked.os.clone(), ..nothing() }));
    }
    if let Some(arch) = &asked.arch {
        wishes.push((arch.clone(), Requirements { arch: asked.arch.clone(), ..nothing() }));
    }
    if asked.min_cpus > 1 {
        let words = count(asked.min_cpus.into(), "processor");
        wishes.push((words, Requirements { min_cpus: asked.min_cpus, ..nothing() }));
    }
    if asked.min_memory_bytes > 0 {
        let words = format!("{} of memory", gigabytes(asked.min_memory_bytes));
        let min_memory_bytes = asked.min_memory_bytes;
        wishes.push((words, Requirements { min_memory_bytes, ..nothing() }));
    }
    for label in &asked.labels {
        let labels = [label.clone()].into();
        wishes.push((format!("label {label}"), Requirements { labels, ..nothing() }));
    }
    if asked.network == Network::Internet {
        let words = "a network that reaches the internet".to_owned();
        wishes.push((words, Requirements { network: Network::Internet, ..nothing() }));
    }
    let words = format!("isolation {}", asked.min_sandbox.name().to_uppercase());
    wishes.push((words, Requirements { min_sandbox: asked.min_sandbox, ..nothing() }));
    wishes
}

/// What the submission asked for beyond the usual.
fn wishes(asked: &Requirements) -> Vec<String> {
    let usual = asked.min_sandbox == Requirements::default().min_sandbox;
    let mut wishes: Vec<String> = singles(asked).into_iter().map(|(words, _)| words).collect();
    if usual {
        wishes.pop();
    }
    wishes
}

fn first_free(facts: &WaitFacts) -> Option<(WorkerId, Timestamp)> {
    let fits = |id: &WorkerId| {
        facts.workers.iter().any(|worker| {
            worker.worker_id == *id
                && is_busy(worker)
                && placement::meets(&facts.requirements, &capabilities(worker))
        })
    };
    facts.expected_free.iter().filter(|(id, _)| fits(id)).min_by_key(|(_, at)| *at).copied()
}

/// How many jobs of others come first: those of higher priority, and of the same priority as many as other users
/// get turns until this user's turns have come to this job.
fn others_ahead(facts: &WaitFacts) -> u64 {
    let turn_of = |weight: u32| TURN / u64::from(weight.max(1));
    let (served, weight) = facts.turn;
    let own_turn = served.max(facts.last_turn) + facts.own_ahead * turn_of(weight);
    let by_turns = facts.others.iter().map(|(served, weight, jobs)| {
        let begins = (*served).max(facts.last_turn);
        own_turn.saturating_sub(begins).div_ceil(turn_of(*weight)).min(*jobs)
    });
    facts.higher_priority + by_turns.sum::<u64>()
}

fn in_line(ahead: Ahead) -> String {
    let parts: Vec<String> = [(ahead.own, "of yours"), (ahead.others, "of others")]
        .into_iter()
        .filter(|(jobs, _)| *jobs > 0)
        .map(|(jobs, whose)| format!("{} {whose}", count(jobs, "job")))
        .collect();
    let come = if ahead.own + ahead.others == 1 { "comes" } else { "come" };
    format!("{} {come} first.", join(&parts))
}

fn of(some: u32, all: u32) -> String {
    if all == 1 { "the one PC of the pool".to_owned() } else { format!("{some} of {all} PCs") }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn join(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn gigabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 30);
    match (tenths / 10, tenths % 10) {
        (0, _) => format!("{} MiB", bytes.div_ceil(1 << 20)),
        (whole, 0) => format!("{whole} GiB"),
        (whole, tenth) => format!("{whole}.{tenth} GiB"),
    }
}

fn duration(left: Duration) -> String {
    match left.as_secs() {
        secs @ 0..100 => format!("{} s", secs.max(1)),
        secs @ 100..6000 => format!("{} min", secs.div_ceil(60)),
        secs => format!("{} h", secs.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests;
