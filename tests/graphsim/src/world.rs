//! The tenant and everything in it. One lock, one writer: what is committed is committed at once and as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::clock::{Clock, Millis};
use crate::entra::Entra;
use crate::faults::FaultRule;
use crate::graph::directory::Directory;
use crate::graph::files::Files;
use crate::graph::lists::Lists;
use crate::graph::mail::Mail;
use crate::graph::planner::Planner;
use crate::graph::teams::Teams;
use crate::graph::throttle::Throttle;
use crate::oracle::{Effect, Oracle, What};
use crate::settings::{Relaxation, Settings};

/// Where the ports are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Urls {
    pub(crate) login: String,
    pub(crate) graph: String,
    pub(crate) upload: String,
    pub(crate) abroad: String,
}

/// The tenant and everything in it.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<Clock>,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) tenant: String,
    pub(crate) urls: Urls,
    pub(crate) entra: Entra,
    pub(crate) directory: Directory,
    pub(crate) teams: Teams,
    pub(crate) files: Files,
    pub(crate) mail: Mail,
    pub(crate) lists: Lists,
    pub(crate) planner: Planner,
    pub(crate) throttle: Throttle,
    pub(crate) faults: Vec<FaultRule>,
    pub(crate) oracle: Oracle,
    /// By how much the `Date` of answers is wrong, in milliseconds.
    pub(crate) date_off_ms: i64,
    /// When a request was told to wait by a failure that was asked for, and until when, by method and path.
    pub(crate) told_to_wait: BTreeMap<(String, String), (Millis, Millis)>,
    /// Requests to each mailbox that are not answered yet.
    pub(crate) in_flight: BTreeMap<String, u32>,
    /// Pages of lists that were handed out as `$skiptoken`, by token.
    pub(crate) skips: BTreeMap<String, usize>,
}

/// Who asks Graph, as its token says.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) app: String,
    /// `None`: the app for itself.
    pub(crate) user: Option<String>,
    pub(crate) permissions: BTreeSet<String>,
}

/// What an effect is traced by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) request_id: String,
    pub(crate) client_request_id: String,
}

impl World {
    pub(crate) fn new(settings: Settings, clock: Arc<Clock>, urls: Urls) -> Result<Self, crate::pki::PkiError> {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let tenant = guid(&mut rng);
        Ok(Self {
            clock,
            tenant,
            urls,
            entra: Entra::new()?,
            directory: Directory::default(),
            teams: Teams::default(),
            files: Files::default(),
            mail: Mail::default(),
            lists: Lists::default(),
            planner: Planner::default(),
            in_flight: BTreeMap::new(),
            throttle: Throttle::default(),
            faults: Vec::new(),
            oracle: Oracle::default(),
            date_off_ms: 0,
            told_to_wait: BTreeMap::new(),
            skips: BTreeMap::new(),
            rng,
            settings,
        })
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(crate) fn guid(&mut self) -> String {
        guid(&mut self.rng)
    }

    /// A text that nobody guesses.
    pub(crate) fn secret(&mut self, prefix: &str) -> String {
        let bytes: [u8; 32] = self.rng.random();
        format!("{prefix}{}", data_encoding::BASE64URL_NOPAD.encode(&bytes))
    }

    /// When a write that is made now is seen elsewhere.
    pub(crate) fn after_lag(&mut self, lag_ms: Millis) -> Millis {
        let drawn = if lag_ms == 0 { 0 } else { self.rng.random_range(0..=lag_ms) };
        self.now() + drawn
    }

    pub(crate) fn relaxed(&self, relaxation: Relaxation) -> bool {
        self.settings.relaxed.contains(&relaxation)
    }

    pub(crate) fn commit(
        &mut self,
        caller: &Caller,
        trace: &Trace,
        what: What,
        place: impl Into<String>,
        id: impl Into<String>,
        detail: Value,
    ) {
        let effect = Effect {
            seq: self.oracle.effects.len() as u64 + 1,
            at_ms: self.now(),
            what,
            app: caller.app.clone(),
            user: caller.user.clone(),
            place: place.into(),
            id: id.into(),
            request_id: trace.request_id.clone(),
            client_request_id: trace.client_request_id.clone(),
            detail,
        };
        self.oracle.effects.push(effect);
    }
}

/// A random GUID, version 4.
pub(crate) fn guid(rng: &mut ChaCha8Rng) -> String {
    let mut b: [u8; 16] = rng.random();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&b);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
