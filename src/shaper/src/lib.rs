//! Which bytes next on a link: a token bucket at the configured rate, most urgent class first. No I/O, no clock.
//!
//! ```text
//!  waiting: control, flash ... deferred --grant--> (class, bytes) --session makes a frame--> spent(class, bytes)
//! ```
//!
//! Invariants
//! - In any 10 s no more is granted than the rate allows plus one slice.
//! - Control passes everything, a more urgent class passes a lesser one at the next slice.
//! - A class that waits gets at least a twentieth of the rate, however much waits above it.
//! - In any emission state but [`Emission::Normal`] nothing is granted.
//!
//! Not here: what the bytes are (`link`), sockets (`carrier`).
//! Start reading at [`Shaper::grant`].

use std::time::Duration;

use model::{BitsPerSecond, Precedence};

/// Smallest slice. Below this a frame's and a datagram's own overhead dominates; at 9.6 kbit/s it takes 200 ms.
pub const SLICE_BYTES_MIN: usize = 240;

/// How long a slice may occupy the link: an urgent entry waits for one slice at most.
pub const SLICE_MILLIS: u64 = 50;

/// May this node emit at all? State that survives restarts; kept by the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Send and receive.
    Normal,
    /// Receive; send nothing, receipts and keepalives included.
    ReceiveOnly,
    /// Neither.
    Silent,
}

/// What may be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Greetings, receipts, skips, wants: small frames that everything else waits for.
    Control,
    /// Entries and file slices of a class.
    Class(Precedence),
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Control frames wait.
    pub control: bool,
    /// By class: something waits.
    pub classes: [bool; 5],
}

/// Permission to send one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// For what.
    pub lane: Lane,
    /// Largest frame, as it stands on the link.
    pub bytes: usize,
}

/// Paces one link.
#[derive(Clone, Debug)]
pub struct Shaper;

#[allow(unused_variables, reason = "this interface landed ahead of its body")]
impl Shaper {
    /// A shaper that may grant one slice at once. `path_mtu`: largest datagram payload, or frame for a stream.
    pub fn new(rate: BitsPerSecond, path_mtu: usize, emission: Emission, now: Duration) -> Self {
        panic!("this signature landed ahead of its body")
    }

    /// Changes the rate from `now` on.
    pub fn set_rate(&mut self, rate: BitsPerSecond, now: Duration) {
        panic!("this signature landed ahead of its body")
    }

    /// Changes the emission state.
    pub fn set_emission(&mut self, emission: Emission, now: Duration) {
        panic!("this signature landed ahead of its body")
    }

    /// What may be sent now. Asking changes nothing; call [`Shaper::spent`] for what was sent.
    pub fn grant(&mut self, now: Duration, demand: &Demand) -> Option<Grant> {
        panic!("this signature landed ahead of its body")
    }

    /// Bytes that went onto the link, as they stand there (with the stream's length prefix).
    pub fn spent(&mut self, lane: Lane, bytes: usize) {
        panic!("this signature landed ahead of its body")
    }

    /// When a grant that was refused for want of tokens would be given; `None` when emission forbids it.
    pub fn wake_at(&self) -> Option<Duration> {
        panic!("this signature landed ahead of its body")
    }
}
