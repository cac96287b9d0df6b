//! What one connection still has to send and what it sent last, so that a client whose socket died
//! continues without a gap.
//!
//! push -> [ unsent, at most 256 ] -> next (gives the event its number) -> [ sent, the last 128 ]
//!                                      ^ after a resume the sent ones come first, with their old numbers
//!
//! Invariants
//! - Events are numbered from 0 without gaps, in the order they leave; replies carry no number.
//! - A client that names the number it expects next gets exactly the events from there on, or a new connection.

use std::collections::VecDeque;

use super::frame::Frame;

/// Events that may wait for a slow socket, and for a dead one until it returns (the original's number).
pub(crate) const UNSENT_MAX: usize = 256;
/// Above this fill, events that are worthless when late are dropped at the door.
pub(crate) const UNSENT_SLOW: usize = UNSENT_MAX / 2;
/// Sent events kept for a client that returns (the original's number).
const SENT_MAX: usize = 128;

/// The queue is full: the connection is too slow and must go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// What a returning client gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Everything from the number it asked for; the numbering continues.
    Continued,
    /// Events were lost: it must be greeted as a new connection.
    Lost,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    unsent: VecDeque<Frame>,
    /// Numbered events; those from `replay_from` on are to be sent again.
    sent: VecDeque<(u64, Frame)>,
    replay_from: Option<u64>,
    next: u64,
}

impl Queues {
    /// Takes a frame for sending.
    pub(crate) fn push(&mut self, frame: Frame) -> Result<(), Overflow> {
        if self.unsent.len() >= UNSENT_MAX {
            return Err(Overflow);
        }
        self.unsent.push_back(frame);
        Ok(())
    }

    /// Frames waiting.
    pub(crate) fn waiting(&self) -> usize {
        self.unsent.len()
    }

    /// The text of the next frame to write. From here on it counts as sent: should the write fail, the client
    /// has not seen its number and asks for it when it returns.
    pub(crate) fn next(&mut self) -> Option<String> {
        if let Some(from) = self.replay_from {
            let replay = self.sent.iter().find(|(number, _)| *number >= from);
            if let Some((number, frame)) = replay {
                self.replay_from = Some(number + 1);
                return Some(frame.text(Some(*number)));
            }
            self.replay_from = None;
        }
        let frame = self.unsent.pop_front()?;
        if !frame.is_event() {
            return Some(frame.text(None));
        }
        let number = self.next;
        self.next += 1;
        let text = frame.text(Some(number));
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((number, frame));
        Some(text)
    }

    /// A client is back and expects event number `expected`.
    pub(crate) fn resume(&mut self, expected: u64) -> Resume {
        // Replies answer requests of the socket that died.
        self.unsent.retain(Frame::is_event);
        if expected == self.next {
            self.replay_from = None;
            return Resume::Continued;
        }
        if self.sent.iter().any(|(number, _)| *number == expected) {
            self.replay_from = Some(expected);
            return Resume::Continued;
        }
        Resume::Lost
    }

    /// Starts the numbering again with `hello` in front of what waits.
    pub(crate) fn restart(&mut self, hello: Frame) {
        self.sent.clear();
        self.replay_from = None;
        self.next = 0;
        // One above the bound at most: the greeting must not push an event out.
        self.unsent.push_front(hello);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(n: usize) -> Frame {
        Frame::event(&super::super::frame::tests::bare_event(&format!("e{n}")))
    }

    fn seq_of(text: &str) -> u64 {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["seq"].as_u64().unwrap()
    }

    fn drain(queues: &mut Queues) -> Vec<u64> {
        std::iter::from_fn(|| queues.next()).map(|text| seq_of(&text)).collect()
    }

    #[test]
    fn a_returning_client_gets_what_it_missed_and_the_numbering_continues() {
        let mut queues = Queues::default();
        (0..5).for_each(|n| queues.push(event(n)).unwrap());
        assert_eq!(drain(&mut queues), [0, 1, 2, 3, 4]);
        queues.push(event(5)).unwrap();
        assert_eq!(queues.resume(3), Resume::Continued);
        assert_eq!(drain(&mut queues), [3, 4, 5]);
        assert_eq!(queues.resume(6), Resume::Continued, "nothing was lost");
        assert!(drain(&mut queues).is_empty());
    }

    #[test]
    fn a_client_that_missed_more_than_is_kept_is_told_so() {
        let mut queues = Queues::default();
        for n in 0..SENT_MAX + 1 {
            queues.push(event(n)).unwrap();
            queues.next();
        }
        assert_eq!(queues.resume(0), Resume::Lost);
        assert_eq!(queues.resume(500), Resume::Lost, "a number from the future is not ours");
        queues.push(event(1)).unwrap();
        queues.restart(event(0));
        assert_eq!(drain(&mut queues), [0, 1]);
    }

    #[test]
    fn a_full_queue_says_so_and_keeps_what_it_has() {
        let mut queues = Queues::default();
        (0..UNSENT_MAX).for_each(|n| queues.push(event(n)).unwrap());
        assert_eq!(queues.push(event(0)), Err(Overflow));
        assert_eq!(drain(&mut queues).len(), UNSENT_MAX);
    }

    #[test]
    fn replies_have_no_number_and_do_not_survive_their_socket() {
        let mut queues = Queues::default();
        queues.push(Frame::ok(7, None)).unwrap();
        assert_eq!(queues.next().unwrap(), r#"{"seq_reply":7,"status":"OK"}"#);
        queues.push(Frame::ok(8, None)).unwrap();
        queues.push(event(0)).unwrap();
        assert_eq!(queues.resume(0), Resume::Continued);
        assert_eq!(drain(&mut queues), [0]);
    }

    proptest! {
        /// Sockets die at any moment, even while events are repeated: the client, which counts what it saw,
        /// ends up with 0, 1, 2, ... or is told that events were lost.
        #[test]
        fn whenever_sockets_die_the_client_sees_every_number_once(steps in prop::collection::vec((0usize..40, 0usize..40), 1..30)) {
            let mut queues = Queues::default();
            let mut seen: u64 = 0;
            for (pushed, read) in steps {
                (0..pushed).for_each(|n| { let _ = queues.push(event(n)); });
                // The writer runs ahead of what reaches the client.
                let texts: Vec<String> = std::iter::from_fn(|| queues.next()).collect();
                for text in texts.iter().take(read) {
                    prop_assert_eq!(seq_of(text), seen);
                    seen += 1;
                }
                match queues.resume(seen) {
                    Resume::Continued => {}
                    Resume::Lost => {
                        queues.restart(event(0));
                        seen = 0;
                    }
                }
            }
        }
    }
}
