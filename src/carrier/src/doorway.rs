//! Places for those who are at the door: few, and shared out by where they come from.
//!
//! Before somebody has proved a key, nobody knows whether it is an enrolled peer. It costs a signature, some kilobytes, and a place for as
//! long as a thin link needs. Without rules, whoever opens connections and says nothing would have all places, for ever.
//!
//! Invariants
//! - While there is room everybody gets in.
//! - When there is none, a newcomer gets a place of the source that has most, if that has more than the newcomer's would have then;
//!   else the oldest place of all, if its handshake has had the time of a quick link.
//! - Whoever loses a place hears of it at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// When all places are taken by as many sources, a newcomer need not wait longer than this for the oldest to get on: a handshake of
/// twelve datagrams at 64 kbit/s, repeated once, and some round trips over a satellite.
const UNDISTURBED: Duration = Duration::from_secs(6);

/// Where somebody comes from: what one operator gives to one customer, since who has one address of it has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source(u128);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No address of IPv6, of which the lower bits are left out.
            IpAddr::V4(v4) => Self(u128::from(v4.to_ipv6_mapped()) >> 8),
            IpAddr::V6(v6) => Self(u128::from(v6) >> 72 << 72),
        }
    }
}

/// The places.
#[derive(Debug)]
pub(crate) struct Doorway {
    places: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By age: numbers are given out in order.
    by_number: BTreeMap<u64, (Source, Instant, CancellationToken)>,
    by_source: BTreeMap<Source, usize>,
    next: u64,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    doorway: Arc<Doorway>,
    number: u64,
    lost: CancellationToken,
}

impl Doorway {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, taken: Mutex::default() })
    }

    /// Places that are taken.
    pub(crate) fn busy(&self) -> usize {
        self.taken().by_number.len()
    }

    /// A place for somebody from `address`; `None` when others need theirs as much.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Place> {
        let source = Source::of(address);
        let mut taken = self.taken();
        if taken.by_number.len() >= self.places {
            let lost = taken.to_give_up(source, now)?;
            taken.remove(lost)?.cancel();
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.by_number.insert(number, (source, now, lost.clone()));
        *taken.by_source.entry(source).or_default() += 1;
        Some(Place { doorway: Arc::clone(self), number, lost })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while holding the places")
    }
}

impl Taken {
    /// Whose place a newcomer from `source` gets.
    fn to_give_up(&self, source: Source, now: Instant) -> Option<u64> {
        let own = self.by_source.get(&source).copied().unwrap_or(0);
        let (most, count) = self.by_source.iter().max_by_key(|(_, count)| **count)?;
        if *count > own + 1 {
            return self.by_number.iter().find(|(_, (of, ..))| of == most).map(|(number, _)| *number);
        }
        let (number, (_, since, _)) = self.by_number.first_key_value()?;
        (now.saturating_duration_since(*since) >= UNDISTURBED).then_some(*number)
    }

    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (source, _, lost) = self.by_number.remove(&number)?;
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        Some(lost)
    }
}

impl Place {
    /// Carries out what the place is for, unless it is lost meanwhile: then `None`.
    pub(crate) async fn keep<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.lost.run_until_cancelled(work).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorway.taken().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(a: u8, b: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, a, b).into()
    }

    #[test]
    fn one_source_has_all_places_only_while_nobody_else_comes() {
        let (doorway, now) = (Doorway::new(128), clock::now());
        let strangers: Vec<Place> = (0..128).filter_map(|n| doorway.enter(v4(1, n), now)).collect();
        assert_eq!((strangers.len(), doorway.busy()), (128, 128));
        assert!(doorway.enter(v4(1, 200), now).is_none(), "it would take its own place");
        let others: Vec<Place> = (0..100).filter_map(|n| doorway.enter(v4(2, n), now)).collect();
        assert_eq!((others.len(), doorway.busy()), (64, 128), "half of them");
        let lost = strangers.iter().filter(|place| place.lost.is_cancelled()).count();
        assert_eq!(lost, 64);
        assert!(strangers[..64].iter().all(|place| place.lost.is_cancelled()), "the oldest first");
        drop(strangers);
        assert_eq!(doorway.busy(), 64, "a lost place is given back once");
        drop(others);
        assert_eq!(doorway.busy(), 0);
    }

    #[test]
    fn of_as_many_sources_as_places_the_oldest_gives_way_after_a_while() {
        let (doorway, now) = (Doorway::new(16), clock::now());
        let strangers: Vec<Place> = (0..16).filter_map(|n| doorway.enter(v4(n, 1), now)).collect();
        assert!(doorway.enter(v4(100, 1), now + UNDISTURBED / 2).is_none());
        let place = doorway.enter(v4(100, 1), now + UNDISTURBED);
        assert!(place.is_some() && strangers[0].lost.is_cancelled() && !strangers[1].lost.is_cancelled());
    }

    #[test]
    fn a_source_is_what_one_customer_has() {
        let v6 = |third: u16, last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, third, last, 0, 0, 0, last));
        assert_eq!(Source::of(v4(1, 1)), Source::of(v4(1, 200)));
        assert_ne!(Source::of(v4(1, 1)), Source::of(v4(2, 1)));
        assert_eq!(Source::of(v6(1, 0)), Source::of(v6(1, 0xff)));
        assert_ne!(Source::of(v6(1, 1)), Source::of(v6(2, 1)));
        let mapped = IpAddr::from(Ipv4Addr::new(10, 0, 1, 9).to_ipv6_mapped());
        assert_eq!(Source::of(mapped), Source::of(v4(1, 1)));
    }
}
