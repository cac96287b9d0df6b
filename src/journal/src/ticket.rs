//! The answer to an append, when it is durable: for threads to wait on and for futures to await.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::AppendError;
use crate::figures::Stopwatch;

/// An append on its way to the disk. Dropping it does not take the append back.
///
/// `wait` blocks the thread; `.await` does not, and is cancel-safe: a ticket may be polled again later.
#[must_use = "the append is durable only once the ticket says so"]
pub struct Ticket<T>(Arc<Slot<T>>);

/// The committer's side of a [`Ticket`]. Dropped without an answer it reports the journal as closed.
pub(crate) struct Completer<T>(Arc<Slot<T>>, Stopwatch);

struct Slot<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

struct State<T> {
    answer: Option<Result<T, AppendError>>,
    answered: bool,
    /// A thread waits for `done`: waking nobody costs a system call.
    waiting: bool,
    waker: Option<Waker>,
}

/// A ticket and the means to answer it.
pub(crate) fn ticket<T>() -> (Completer<T>, Ticket<T>) {
    let slot = Arc::new(Slot {
        state: Mutex::new(State { answer: None, answered: false, waiting: false, waker: None }),
        done: Condvar::new(),
    });
    (Completer(Arc::clone(&slot), Stopwatch::start()), Ticket(slot))
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Ticket<T> {
    /// Blocks until the append is durable or has failed.
    ///
    /// # Errors
    /// When it was not accepted; nothing of it is then in the journal.
    pub fn wait(self) -> Result<T, AppendError> {
        let mut state = self.0.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state.waiting = true;
            state = self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Completer<T> {
    /// When the ticket was made.
    pub(crate) fn asked(&self) -> Stopwatch {
        self.1
    }

    pub(crate) fn complete(self, answer: Result<T, AppendError>) {
        self.put(answer);
    }

    fn put(&self, answer: Result<T, AppendError>) {
        let mut state = self.0.lock();
        state.answer = Some(answer);
        state.answered = true;
        let (waiting, waker) = (state.waiting, state.waker.take());
        drop(state);
        if waiting {
            self.0.done.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        let answered = self.0.lock().answered;
        if !answered {
            self.put(Err(AppendError::Closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_that_nobody_answers_says_that_the_journal_is_closed() {
        let (completer, ticket) = ticket::<()>();
        drop(completer);
        assert!(matches!(ticket.wait(), Err(AppendError::Closed)));
    }
}
