//! Takes finished results to the coordinator: the first at once, and those that get ready meanwhile together.
//!
//! Each result keeps an answer of its own, whatever becomes of those it travelled with.

use std::{collections::VecDeque, sync::Arc};

use futures_util::future;
use lull_shared::{
    client::ClientError,
    jobs::{RESULTS_MAX, ResultOutcome, SubmitResult, SubmitResults},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Duration, Instant, sleep_until},
};

use crate::api::{CoordinatorApi, Verdict, verdict};

/// Results that get ready while others are on their way wait no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(5);
/// Most bytes of output that travel together.
const BYTES_MAX: usize = 1024 * 1024;

type Answer = Result<(), Arc<ClientError>>;

/// A pool's coordinator, and the results on their way to it. Clones share the way.
#[derive(Clone)]
pub(crate) struct Courier {
    pub(crate) api: Arc<dyn CoordinatorApi>,
    ready: mpsc::UnboundedSender<Parcel>,
}

struct Parcel {
    result: SubmitResult,
    answer: oneshot::Sender<Answer>,
}

impl Courier {
    /// Must be called inside the runtime.
    pub(crate) fn new(api: Arc<dyn CoordinatorApi>) -> Self {
        let (ready, inbox) = mpsc::unbounded_channel();
        // Ends with the last handle.
        tokio::spawn(carry(Arc::clone(&api), inbox));
        Self { api, ready }
    }

    /// Sends a result, alone or with others.
    pub(crate) async fn submit(&self, result: SubmitResult) -> Answer {
        let (answer, answered) = oneshot::channel();
        // A task that is gone drops both, and the answer says so.
        let _ = self.ready.send(Parcel { result, answer });
        answered.await.unwrap_or_else(|_| {
            let source = "the request broke off".into();
            Err(Arc::new(ClientError::Unreachable { address: self.api.address(), source }))
        })
    }
}

async fn carry(api: Arc<dyn CoordinatorApi>, mut inbox: mpsc::UnboundedReceiver<Parcel>) {
    let mut trips = JoinSet::new();
    let mut waiting = VecDeque::new();
    let mut leave_at = Instant::now();
    loop {
        while !waiting.is_empty() && (trips.is_empty() || leave_at <= Instant::now()) {
            trips.spawn(travel(Arc::clone(&api), load(&mut waiting)));
        }
        tokio::select! {
            parcel = inbox.recv() => {
                let Some(parcel) = parcel else { return };
                if waiting.is_empty() {
                    leave_at = Instant::now() + GATHER_MAX;
                }
                waiting.push_back(parcel);
                while let Ok(parcel) = inbox.try_recv() {
                    waiting.push_back(parcel);
                }
            }
            Some(_) = trips.join_next() => {}
            () = sleep_until(leave_at), if !waiting.is_empty() => {}
        }
    }
}

/// Takes as many as one request carries.
fn load(waiting: &mut VecDeque<Parcel>) -> Vec<Parcel> {
    let mut load = Vec::new();
    let mut bytes = 0;
    while let Some(parcel) = waiting.front()
        && load.len() < RESULTS_MAX
    {
        bytes += parcel.result.output.iter().map(|part| part.data.len()).sum::<usize>();
        if !load.is_empty() && bytes > BYTES_MAX {
            break;
        }
        load.extend(waiting.pop_front());
    }
    // Nobody waits for what lost its lease meanwhile.
    load.retain(|parcel: &Parcel| !parcel.answer.is_closed());
    load
}

async fn travel(api: Arc<dyn CoordinatorApi>, parcels: Vec<Parcel>) {
    if parcels.len() < 2 {
        return alone(api.as_ref(), parcels).await;
    }
    let results = parcels.iter().map(|parcel| parcel.result.clone()).collect();
    match api.submit_results(&SubmitResults { results }).await {
        Ok(reply) if reply.replies.len() == parcels.len() => {
            for (parcel, outcome) in parcels.into_iter().zip(reply.replies) {
                parcel.settle(match outcome {
                    ResultOutcome::Recorded(_) => Ok(()),
                    ResultOutcome::Refused(problem) => Err(Arc::new(ClientError::Problem(problem))),
                });
            }
        }
        Ok(_) => {
            let what = "a wrong number of replies".to_owned();
            let error = ClientError::Protocol { address: api.address(), what, source: None };
            settle_all(parcels, &Arc::new(error));
        }
        Err(error) if matches!(verdict(&error), Verdict::Later | Verdict::NotWelcome) => {
            settle_all(parcels, &Arc::new(error));
        }
        // What is wrong with one must not be said of all: by itself each gets its own answer.
        Err(error) => {
            tracing::debug!(error = %error, "results go out one by one");
            alone(api.as_ref(), parcels).await;
        }
    }
}

async fn alone(api: &dyn CoordinatorApi, parcels: Vec<Parcel>) {
    let each = parcels.into_iter().map(async |parcel| {
        let recorded = api.submit_result(&parcel.result).await;
        parcel.settle(recorded.map(drop).map_err(Arc::new));
    });
    future::join_all(each).await;
}

fn settle_all(parcels: Vec<Parcel>, error: &Arc<ClientError>) {
    for parcel in parcels {
        parcel.settle(Err(Arc::clone(error)));
    }
}

impl Parcel {
    fn settle(self, answer: Answer) {
        // Who sent it may have lost the lease meanwhile.
        let _ = self.answer.send(answer);
    }
}
