//! Group commit for stores that have none: what the most careful user of them would build around them.

use tokio::sync::{mpsc, oneshot};

use crate::Error;

/// Writes several records durably with one commit.
pub(crate) trait BatchStore: Send {
    fn write(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), Error>;
}

/// One record on its way to the thread that owns the store, and whom to tell.
struct Job {
    record: (u64, Vec<u8>),
    done: oneshot::Sender<bool>,
}

/// Hands records of many writers to one thread, which commits all that waits at once.
#[derive(Clone)]
pub(crate) struct Gather(mpsc::Sender<Job>);

impl Gather {
    /// Serves `store` on a thread of `scope` until the last handle is dropped.
    pub(crate) fn serve<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        store: &'scope mut dyn BatchStore,
        writers: usize,
    ) -> Self {
        let (jobs, mut queue) = mpsc::channel(writers);
        scope.spawn(move || serve(store, &mut queue));
        Self(jobs)
    }

    /// Ends when the record is durable.
    pub(crate) async fn write(&self, record: (u64, Vec<u8>)) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.0.send(Job { record, done }).await.map_err(|_| "the store's thread ended")?;
        if answer.await? { Ok(()) } else { Err("the store refused a batch".into()) }
    }
}

fn serve(store: &mut dyn BatchStore, queue: &mut mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let rest = std::iter::from_fn(|| queue.try_recv().ok());
        let (records, waiting): (Vec<_>, Vec<_>) =
            std::iter::once(first).chain(rest).map(|job| (job.record, job.done)).unzip();
        let written = store.write(&records).is_ok();
        for done in waiting {
            // A writer that gave up needs no answer.
            let _ = done.send(written);
        }
    }
}
