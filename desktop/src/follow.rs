//! Events on their way to the page: one task per followed job or pool, which ends with it, the page or a word.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::{StreamExt as _, stream::BoxStream};
use lull_shared::{client::ClientError, problem::Problem};
use serde::Serialize;
use tokio::task::AbortHandle;

/// One message to the page.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FollowMessage<E> {
    /// Something happened to what is followed.
    Event(E),
    /// Something happened to the following itself.
    Link(Link),
}

/// What happens to the following itself, tagged like the events it travels among.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Link {
    /// The connection was lost; following goes on by itself when it is back.
    Disconnected,
    /// Following ended for good before what is followed did.
    Refused {
        /// Why.
        problem: Problem,
    },
}

/// Names one running task for the page.
pub type FollowId = u32;

/// The tasks that feed the page.
#[derive(Debug, Default)]
pub struct Follows {
    next: AtomicU32,
    running: Mutex<HashMap<FollowId, AbortHandle>>,
}

impl Follows {
    /// Sends everything in `events` to `page` until one of them ends. `page` says false when nobody listens.
    pub fn start<E: Send + 'static>(
        &self,
        mut events: BoxStream<'static, Result<E, ClientError>>,
        page: impl Fn(FollowMessage<E>) -> bool + Send + 'static,
    ) -> FollowId {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let (message, last) = match event {
                    Ok(event) => (FollowMessage::Event(event), false),
                    Err(error) => {
                        let problem = error.to_problem();
                        (FollowMessage::Link(Link::Refused { problem }), true)
                    }
                };
                if !page(message) || last {
                    return;
                }
            }
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, task| !task.is_finished());
        running.insert(id, task.abort_handle());
        id
    }

    /// Ends one; an unknown one has ended already.
    pub fn stop(&self, id: FollowId) {
        let stopped = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(task) = stopped {
            task.abort();
        }
    }

    /// Ends all: the page is gone.
    pub fn stop_all(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, task) in running.drain() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{future, stream};
    use lull_shared::{output::OutputEvent, problem::ProblemKind};
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn events_arrive_in_order_and_a_refusal_is_the_last() {
        let refusal = ClientError::Problem(Problem::new(ProblemKind::NotFound));
        let events = stream::iter([Ok(started(1)), Ok(started(2)), Err(refusal), Ok(started(3))]);
        let (page, mut heard) = page();
        Follows::default().start(events.boxed(), page);

        assert_eq!(heard.recv().await.unwrap()["attempt"], 1);
        assert_eq!(heard.recv().await.unwrap()["attempt"], 2);
        let last = heard.recv().await.unwrap();
        assert_eq!(last["event"], "refused");
        assert_eq!(last["problem"]["kind"], "not_found");
        assert_eq!(heard.recv().await, None);
    }

    #[tokio::test]
    async fn what_the_page_stops_sends_nothing_more() {
        let follows = Follows::default();
        let endless = || stream::once(future::ready(Ok(started(1)))).chain(stream::pending());
        let (page_1, mut heard_1) = page();
        let (page_2, mut heard_2) = page();
        let first = follows.start(endless().boxed(), page_1);
        follows.start(endless().boxed(), page_2);
        assert!(heard_1.recv().await.is_some() && heard_2.recv().await.is_some());

        follows.stop(first);
        assert_eq!(heard_1.recv().await, None);
        follows.stop_all();
        assert_eq!(heard_2.recv().await, None);
    }

    fn page() -> (
        impl Fn(FollowMessage<OutputEvent>) -> bool + Send + 'static,
        mpsc::UnboundedReceiver<serde_json::Value>,
    ) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (move |message| sender.send(serde_json::to_value(message).unwrap()).is_ok(), receiver)
    }

    fn started(attempt: u32) -> OutputEvent {
        OutputEvent::Started { attempt, hostname: "desk-12".to_owned() }
    }
}
