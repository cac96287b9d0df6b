//! Things of the peer that are partly here, within a bound of bytes.

use std::collections::VecDeque;

use wire::frame::Assembly;

use crate::limits::PARTIAL_BYTES_MAX;

/// What a thing takes beside its bytes.
const OVERHEAD: usize = 256;

/// Things that are partly here, by name.
#[derive(Debug)]
pub(crate) struct Partials<K> {
    /// What was added to longest ago comes first.
    things: VecDeque<(K, Assembly)>,
    bytes: usize,
}

impl<K> Default for Partials<K> {
    fn default() -> Self {
        Self { things: VecDeque::new(), bytes: 0 }
    }
}

impl<K: PartialEq> Partials<K> {
    pub(crate) fn take(&mut self, name: &K) -> Option<Assembly> {
        let at = self.things.iter().position(|(n, _)| n == name)?;
        let (_, assembly) = self.things.remove(at)?;
        self.bytes -= assembly.len() + OVERHEAD;
        Some(assembly)
    }

    /// Keeps what is here of a thing that was not kept or was taken. Returns those that are dropped for want of room: they
    /// were sent, and do not come again unless they are asked for.
    #[must_use]
    pub(crate) fn keep(&mut self, name: K, assembly: Assembly) -> Vec<K> {
        self.bytes += assembly.len() + OVERHEAD;
        self.things.push_back((name, assembly));
        let mut dropped = Vec::new();
        while self.bytes > PARTIAL_BYTES_MAX
            && let Some((oldest, assembly)) = self.things.pop_front()
        {
            self.bytes -= assembly.len() + OVERHEAD;
            dropped.push(oldest);
        }
        dropped
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.things.retain(|(name, _)| keep(name));
        self.bytes = self.things.iter().map(|(_, assembly)| assembly.len() + OVERHEAD).sum();
    }

    /// The most recent last.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &(K, Assembly)> {
        self.things.iter()
    }
}
