//! How often one address may try to sign in. Pure: time is an argument.
//!
//! The generic cell rate algorithm: each address has one moment, by which all that it asked for would be paid at the rate. An attempt is
//! admitted while that moment lies no further ahead than a burst.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderValue};

/// Addresses remembered. One takes some 50 bytes: 0.5 MB at most.
const ADDRESSES_MAX: usize = 10_000;

/// What every address may do: so many at once, and so many a second after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// Attempts of all addresses.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    /// When all attempts of the address are paid for, in microseconds.
    paid_at: HashMap<IpAddr, i64>,
}

impl Throttle {
    /// Nobody has tried anything.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, paid_at: HashMap::new() }
    }

    /// Counts an attempt; `Err` says after how many seconds the next one is admitted. A refused attempt costs nothing.
    pub(crate) fn attempt(&mut self, address: IpAddr, now_ms: i64) -> Result<(), i64> {
        if self.rate.per_second == 0 {
            return Ok(());
        }
        let now = now_ms.saturating_mul(1_000);
        let each = 1_000_000 / i64::from(self.rate.per_second);
        let network = network(address);
        let paid = self.paid_at.get(&network).copied().unwrap_or(now).max(now);
        let ahead_max = each.saturating_mul(i64::from(self.rate.burst.max(1)) - 1);
        if paid - now > ahead_max {
            return Err((paid - now - ahead_max).saturating_add(999_999) / 1_000_000);
        }
        if self.paid_at.len() >= ADDRESSES_MAX && !self.paid_at.contains_key(&network) {
            self.make_room(now);
        }
        self.paid_at.insert(network, paid + each);
        Ok(())
    }

    /// Forgets whom nothing is held against; if that is nobody, whom the least is held against.
    fn make_room(&mut self, now: i64) {
        self.paid_at.retain(|_, paid| *paid > now);
        if self.paid_at.len() >= ADDRESSES_MAX {
            let least = self.paid_at.iter().min_by_key(|(_, paid)| **paid).map(|(address, _)| *address);
            least.map(|address| self.paid_at.remove(&address));
        }
    }
}

/// A home or a phone has a whole /64 of IPv6 to choose addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Whose attempt it is: the connection's other end, or whom a trusted proxy there names last. `None` for programs on this machine,
/// which reach more than sign-in anyway.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpAddr]) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    let local = peer.is_loopback();
    if !local && !trusted_proxies.iter().any(|proxy| proxy.to_canonical() == peer) {
        return Some(peer);
    }
    // A proxy appends whom it heard from; what stands before that was sent by the client.
    let named = headers.get_all("x-forwarded-for").iter().next_back().map(HeaderValue::to_str);
    let named = named.and_then(Result::ok).and_then(|text| text.rsplit(',').next()?.trim().parse().ok());
    named.or((!local).then_some(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 5, burst: 10 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let mut throttle = Throttle::new(RATE);
        let mallory = ip("192.0.2.1");
        assert_eq!((0..100).filter(|_| throttle.attempt(mallory, 0).is_ok()).count(), 10);
        assert_eq!(throttle.attempt(mallory, 0), Err(1));
        assert!(throttle.attempt(ip("192.0.2.2"), 0).is_ok(), "others are not concerned");
        let passed = (1..=10_000).filter(|ms| throttle.attempt(mallory, *ms).is_ok()).count();
        assert_eq!(passed, 50, "in ten seconds of trying every millisecond");
        assert!(throttle.attempt(mallory, 60_000).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out_for_longer_than_the_step() {
        let mut throttle = Throttle::new(RATE);
        let ann = ip("192.0.2.1");
        throttle.attempt(ann, 100_000).unwrap();
        assert_eq!(throttle.attempt(ann, 90_000), Err(9));
        assert!(throttle.attempt(ann, 100_000).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_memory_stays_bounded() {
        let mut throttle = Throttle::new(RATE);
        let passed = (0..100u16).filter(|n| throttle.attempt(ip(&format!("2001:db8:1:2::{n:x}")), 0).is_ok()).count();
        assert_eq!(passed, 10);
        for n in 0..30_000u32 {
            let _ = throttle.attempt(IpAddr::V4(n.into()), 0);
        }
        assert_eq!(throttle.paid_at.len(), ADDRESSES_MAX);
        let held = ip("2001:db8:1:2::1");
        assert!(throttle.attempt(held, 0).is_err(), "whoever tried most is forgotten last");
    }

    #[test]
    fn zero_means_no_limit() {
        let mut throttle = Throttle::new(Rate { per_second: 0, burst: 0 });
        assert!((0..1_000).all(|_| throttle.attempt(ip("192.0.2.1"), 0).is_ok()));
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_word() {
        let forged = |text: &str| [("x-forwarded-for".parse().unwrap(), text.parse().unwrap())].into_iter().collect();
        let headers: HeaderMap = forged("203.0.113.9, 192.0.2.7");
        let proxy = ip("10.0.0.5");
        assert_eq!(client(ip("198.51.100.1"), &headers, &[proxy]), Some(ip("198.51.100.1")));
        assert_eq!(client(proxy, &headers, &[proxy]), Some(ip("192.0.2.7")));
        assert_eq!(client(ip("127.0.0.1"), &headers, &[]), Some(ip("192.0.2.7")), "a proxy on this machine");
        assert_eq!(client(ip("127.0.0.1"), &HeaderMap::new(), &[]), None);
        assert_eq!(client(proxy, &forged("nonsense"), &[proxy]), Some(proxy));
    }
}
