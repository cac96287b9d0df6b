//! Own parcels for a peer that is reached over a relay: planned, handed to the relay, noted as handed over.
//!
//! Two plans, as over a one-way lane: what was never handed to the relay, and, when nothing of that waits, rounds of what was
//! and has no receipt. A round is for what the relay or the way behind it lost; it costs as much as was held.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use keys::{Peer, PeerName};
use model::{NodeId, Precedence};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::parcel::Parcel;

use super::{OwnState, Transit, ViaStatus};
use crate::clock;
use crate::parcel::{Lane, Made, ParcelDesk, ParcelRefused};

/// Bytes planned at a time: what the relay's link carries in a second, so that urgent posts are behind little, not much below
/// what seals it, and at most one parcel of a courier.
const PLAN_BYTES: std::ops::RangeInclusive<usize> = 20 << 10..=256 << 10;

/// How often it is looked for what is new, at the least.
const PLAN_EVERY: Duration = Duration::from_millis(250);

/// How often the figures for the operator are made anew.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// After the relay has refused a parcel for good: somebody has to change something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(20);

/// The repetition that is configured as 0 minutes.
const REPEAT_MIN: Duration = Duration::from_secs(5);

/// The way to one peer over a relay.
pub(crate) struct Via {
    peer: PeerName,
    relay: PeerName,
    transit: Arc<Transit>,
    desk: Arc<ParcelDesk>,
    status: Mutex<ViaStatus>,
}

/// Parcels that were planned together and are not noted as handed over, the oldest first.
type Groups = VecDeque<Vec<u64>>;

enum Group {
    Waits,
    Over,
    Refused(&'static str),
}

impl Via {
    pub(crate) fn new(peer: PeerName, relay: PeerName, transit: Arc<Transit>, desk: Arc<ParcelDesk>) -> Self {
        let status = ViaStatus { relay: relay.to_string(), ..ViaStatus::default() };
        Self { peer, relay, transit, desk, status: Mutex::new(status) }
    }

    pub(crate) fn peer(&self) -> &PeerName {
        &self.peer
    }

    pub(crate) fn status(&self) -> ViaStatus {
        let relay = self.relay();
        let relay_is_up = relay.is_some_and(|relay| self.transit.is_up(relay));
        ViaStatus { relay_is_up, ..self.noted().clone() }
    }

    fn noted(&self) -> MutexGuard<'_, ViaStatus> {
        self.status.lock().expect("nothing panics while holding what is known of a way")
    }

    fn relay(&self) -> Option<NodeId> {
        let to = self.transit.o.registry.by_name(self.peer.as_str())?.node;
        self.transit.next_hop(to)
    }

    /// Hands over until `stop`. Cancel-safe: what is not noted as handed over is planned again.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let handing = async {
            loop {
                if let Some(peer) = self.transit.o.registry.by_name(self.peer.as_str()) {
                    let pause = match self.hand_over(&peer).await {
                        Ok(()) => PAUSE,
                        Err(why) => {
                            tracing::warn!(peer = %self.peer, relay = %self.relay, why, "the relay refuses parcels; they are offered again later");
                            self.noted().refusal = why.to_owned();
                            REFUSED_PAUSE
                        }
                    };
                    self.transit.forget_own(peer.node, None);
                    sleep(pause).await;
                }
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = handing => {}
        }
    }

    /// Until the peer is another one, the plan has to begin anew, or the relay refuses parcels for good.
    async fn hand_over(&self, peer: &Peer) -> Result<(), &'static str> {
        let (name, registry) = (peer.name.as_str(), &self.transit.o.registry);
        if self.desk.begin_oneway(name, Lane::OneWay, 0).await.is_err() {
            return Ok(());
        }
        let mut changed = self.transit.subscribe();
        let (mut new, mut again) = (Groups::new(), Groups::new());
        let (mut round, mut count_at) = (false, clock::now());
        // What was offered to a relay that is another one now is offered again.
        let relay = self.relay();
        while registry.by_name(name).as_ref() == Some(peer) && self.relay() == relay {
            for (lane, queue) in [(Lane::OneWay, &mut new), (Lane::OneWayAgain, &mut again)] {
                while let Some(group) = queue.front() {
                    match self.look(group) {
                        Group::Waits => break,
                        Group::Refused(why) => return Err(why),
                        Group::Over => {
                            self.transit.forget_own(peer.node, Some(group));
                            queue.pop_front();
                            if self.desk.sent(name, lane, 0).await.is_err() {
                                return Ok(());
                            }
                            self.noted().refusal.clear();
                        }
                    }
                }
            }
            let planned = match self.relay().filter(|relay| self.transit.is_up(*relay)) {
                Some(relay) => self.plan(peer.node, relay, &mut new, &mut again, &mut round).await,
                None => Ok(false),
            };
            let more = match planned {
                Ok(more) => more,
                Err(e) => {
                    tracing::debug!(peer = %self.peer, error = %e, "the plan for a relay begins anew");
                    return Ok(());
                }
            };
            if clock::now() >= count_at {
                count_at = clock::now() + COUNT_EVERY;
                let handed_over = self.desk.unconfirmed(name, 0).await.unwrap_or_default();
                self.noted().handed_over = handed_over;
            }
            if !more {
                // Nothing new within that time is as good as something new.
                let _ = timeout(PLAN_EVERY, changed.changed()).await;
            }
        }
        Ok(())
    }

    fn look(&self, group: &[u64]) -> Group {
        for name in group {
            match self.transit.own_state(*name) {
                Some(OwnState::Taken) => {}
                Some(OwnState::Refused(why)) => return Group::Refused(why.as_str()),
                Some(OwnState::Offered) | None => return Group::Waits,
            }
        }
        Group::Over
    }

    /// Makes more parcels when there is room for them. True when there may be more at once.
    async fn plan(
        &self,
        to: NodeId,
        relay: NodeId,
        new: &mut Groups,
        again: &mut Groups,
        round: &mut bool,
    ) -> Result<bool, ParcelRefused> {
        let (name, settings) = (self.peer.as_str(), &self.transit.o.settings);
        let second = usize::try_from(settings.rate_of(&self.relay).0 / 8).unwrap_or(usize::MAX);
        let bytes = second.clamp(*PLAN_BYTES.start(), *PLAN_BYTES.end());
        let room = self.transit.offered_bytes(to) < 2 * bytes;
        // What passes everything else passes what is offered too.
        let least = if room { Precedence::Deferred } else { Precedence::Immediate };
        let made = self.desk.next(name, Lane::OneWay, bytes, least).await?;
        if self.put(to, relay, &made, new) || !room {
            return Ok(room);
        }
        if !*round && new.is_empty() && self.desk.repeat_is_due(name, self.repeat()).await? {
            self.desk.begin_oneway(name, Lane::OneWayAgain, 0).await?;
            *round = true;
        }
        if !*round {
            return Ok(false);
        }
        let made = self.desk.next(name, Lane::OneWayAgain, bytes, Precedence::Deferred).await?;
        let more = self.put(to, relay, &made, again);
        *round = more || !made.done;
        Ok(more)
    }

    fn repeat(&self) -> Duration {
        let peer = self.transit.o.settings.peers.get(&self.peer);
        let minutes = peer.map_or(0, |peer| peer.via_repeat_minutes);
        (Duration::from_secs(60) * minutes).max(REPEAT_MIN)
    }

    /// Offers what was made, as a group of its own. False when it was nothing.
    fn put(&self, to: NodeId, relay: NodeId, made: &Made, queue: &mut Groups) -> bool {
        let mut rest = made.bytes.as_slice();
        let mut group = Vec::new();
        while let Ok(parcel) = Parcel::read(rest) {
            rest = &rest[parcel.as_bytes().len()..];
            let class = parcel.header.precedence;
            group.push(self.transit.offer(to, relay, class, parcel.into_bytes()));
        }
        let any = !group.is_empty();
        if any {
            queue.push_back(group);
        }
        any
    }
}
