//! Group commit for stores that have none: what the most careful user of them would build around them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::Error;

/// Writes several records durably with one commit.
pub(crate) trait BatchStore: Send {
    fn write(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), Error>;
}

/// One record on its way to the thread that owns the store, and whom to tell.
struct Job {
    record: (u64, Vec<u8>),
    done: SyncSender<bool>,
}

/// Hands records of many writers to one thread, which commits all that waits at once.
pub(crate) struct Gather(SyncSender<Job>);

impl Gather {
    /// Serves `store` on a thread of `scope` until the value is dropped.
    pub(crate) fn serve<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        store: &'scope mut dyn BatchStore,
        writers: usize,
    ) -> Self {
        let (jobs, queue) = sync_channel(writers);
        scope.spawn(move || serve(store, &queue));
        Self(jobs)
    }

    /// Returns when the record is durable.
    pub(crate) fn write(&self, record: (u64, Vec<u8>)) -> Result<(), Error> {
        let (done, answer) = sync_channel(1);
        self.0.send(Job { record, done }).map_err(|_| "the store's thread ended")?;
        if answer.recv()? { Ok(()) } else { Err("the store refused a batch".into()) }
    }
}

fn serve(store: &mut dyn BatchStore, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let (records, waiting): (Vec<_>, Vec<_>) =
            std::iter::once(first).chain(queue.try_iter()).map(|job| (job.record, job.done)).unzip();
        let written = store.write(&records).is_ok();
        for done in waiting {
            // A writer that gave up needs no answer.
            let _ = done.send(written);
        }
    }
}

/// One sync for all who wrote before it began; whoever comes first leads.
#[derive(Default)]
pub(crate) struct SharedSync {
    state: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    running: bool,
}

impl SharedSync {
    /// Returns when a sync that began after this call has ended. `sync` is called by one thread at a time.
    pub(crate) fn wait(&self, sync: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        let mut rounds = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = rounds.begun + 1;
        loop {
            if rounds.ended >= wanted {
                return Ok(());
            }
            if !rounds.running {
                rounds.running = true;
                rounds.begun += 1;
                let round = rounds.begun;
                drop(rounds);
                let result = sync();
                rounds = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                rounds.running = false;
                if result.is_ok() {
                    rounds.ended = round;
                }
                self.ended.notify_all();
                result?;
            } else {
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
