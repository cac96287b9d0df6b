//! Enrolment: a new edge shows its token to the hub, and each learns the other's key, name, chunk secret and sealing key.
//!
//! ```text
//!  edge                                   hub                 QUIC, ALPN holdfast-enroll/1, one bidirectional stream
//!   | dials the NodeId in the token        |                   the edge verifies the hub's key, the hub sees the edge's
//!   | Ask{1, secret, name, chunk secret,   |
//!   |      sealing key} ------------------>|                   CBOR, end of stream
//!   |                                      | redeem, register  both durable before the answer
//!   |<- Welcome{hub's name, chunk secret,  |
//!   |           sealing key}               |                   or Refused{text, next step}
//! ```
//!
//! A lost answer costs nothing: the same node may ask again with the same token and gets the same answer.

use std::sync::Arc;
use std::time::Duration;

use keys::{
    ChunkSecret, Invite, InviteBook, JoinRefused, KeysError, NodeKey, Peer, PeerName, PeerRegistry, PeerRole,
    SealingPublic,
};
use minicbor::{Decode, Encode};
use model::{BitsPerSecond, Clock};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::clock::{self, jitter};
use crate::doorway::Place;
use crate::endpoint::{DialError, Plug, Proven};
use crate::governor::{Governor, Lane};
use crate::pipe::CloseCode;
use crate::{CarrierError, Emission};

/// An ask and an answer are about 1,320 bytes, most of it the sealing key; a refusal has two sentences.
const MESSAGE_BYTES_MAX: usize = 4096;
/// The only version of the exchange.
const VERSION: u8 = 1;
/// One attempt, from the question to the answer, after the connection stands. Four datagrams at 1,200 bit/s are 32 s.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Encode, Decode)]
struct Ask {
    #[n(0)]
    version: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: [u8; 16],
    #[n(2)]
    name: String,
    #[cbor(n(3), with = "minicbor::bytes")]
    chunk_secret: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    sealing: Vec<u8>,
}

#[derive(Encode, Decode)]
enum Answer {
    #[n(0)]
    Welcome {
        #[n(0)]
        hub_name: String,
        #[cbor(n(1), with = "minicbor::bytes")]
        chunk_secret: [u8; 32],
        #[cbor(n(2), with = "minicbor::bytes")]
        sealing: Vec<u8>,
    },
    #[n(1)]
    Refused {
        #[n(0)]
        text: String,
        #[n(1)]
        next_step: String,
    },
}

/// Why the enrolment did not come about. The node is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// Nothing may be emitted.
    #[error("emission control is `{0}`: nothing was sent")]
    Emission(Emission),
    /// No socket.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// The hub could not be reached in time.
    #[error("the hub at {address} did not answer: {why}")]
    NoAnswer {
        /// Where it was dialled.
        address: String,
        /// What the last attempt ended with.
        why: String,
    },
    /// Something else than the hub of the token answers there.
    #[error("the node at {address} is not the hub that issued the token; nothing was told to it")]
    OtherNode {
        /// Where it was dialled.
        address: String,
    },
    /// The hub answered no.
    #[error("{text}")]
    Refused {
        /// The hub's reason.
        text: String,
        /// What the hub says to do.
        next_step: String,
    },
    /// The hub's answer makes no sense.
    #[error("the hub's answer cannot be understood")]
    Protocol,
}

impl EnrollError {
    /// What the operator should do.
    pub fn next_step(&self) -> &str {
        match self {
            Self::Emission(_) => "set emission control to normal first: `holdfast link resume`",
            Self::Carrier(e) => e.next_step(),
            Self::NoAnswer { .. } => {
                "check that the hub runs and that its UDP port can be reached from here, then run the same command again"
            }
            Self::OtherNode { .. } => "check the hub's address in the token; get a new token from the right hub",
            Self::Refused { next_step, .. } => next_step,
            Self::Protocol => "bring both nodes to the same release, then run the same command again",
        }
    }
}

/// What an edge needs to enrol.
pub struct EnrollOptions<'a> {
    /// The invitation, parsed from the token.
    pub invite: &'a Invite,
    /// This node's key.
    pub key: &'a NodeKey,
    /// This node's name; it must be the invited one.
    pub name: &'a PeerName,
    /// The secret under which this node names its chunks.
    pub chunk_secret: &'a ChunkSecret,
    /// What is sealed for this node is sealed with this.
    pub sealing: &'a SealingPublic,
    /// Ceiling for what is sent, headers included.
    pub rate: BitsPerSecond,
    /// The node's emission state.
    pub emission: Emission,
    /// For how long to try.
    pub patience: Duration,
    /// For the time of enrolment.
    pub clock: &'a dyn Clock,
}

/// Enrols this node at the hub that issued the token. Returns the hub's record for this node's registry; the caller adds
/// it there. Repeats itself while answers are lost, until `patience` is over.
///
/// Dropping the future gives up; the hub may have registered this node by then, and asking again is fine.
///
/// # Errors
/// With the reason and the next step; see [`EnrollError`].
pub async fn enroll_join(options: EnrollOptions<'_>) -> Result<Peer, EnrollError> {
    if !options.emission.may_emit() {
        return Err(EnrollError::Emission(options.emission));
    }
    let governor = Arc::new(Governor::new(true, options.rate));
    let plug = Plug::open(options.key.clone(), None, governor)
        .map_err(|source| CarrierError::Bind { address: "any port".to_owned(), source })?;
    let lane = Arc::new(Lane::new(options.rate, clock::now()));
    let mut last = "no attempt was made".to_owned();
    let trying = async {
        loop {
            match attempt(&plug, &lane, &options).await {
                Ok(peer) => return Ok(peer),
                Err(Attempt::Final(e)) => return Err(e),
                Err(Attempt::Again(why)) => last = why,
            }
            sleep(Duration::from_millis(200) + jitter(Duration::from_secs(1))).await;
        }
    };
    let result = timeout(options.patience, trying).await;
    plug.close().await;
    result.unwrap_or_else(|_| Err(EnrollError::NoAnswer { address: options.invite.address.clone(), why: last }))
}

enum Attempt {
    Final(EnrollError),
    Again(String),
}

async fn attempt(plug: &Plug, lane: &Arc<Lane>, options: &EnrollOptions<'_>) -> Result<Peer, Attempt> {
    let address = &options.invite.address;
    let again = |e: &dyn std::fmt::Display| Attempt::Again(e.to_string());
    let proven = plug.dial(options.invite.hub, address, lane, false).await.map_err(|e| match e {
        DialError::OtherNode(_) => Attempt::Final(EnrollError::OtherNode { address: address.clone() }),
        e @ (DialError::Resolve(_)
        | DialError::Local(..)
        | DialError::Outlet(_)
        | DialError::Https(..)
        | DialError::NoAnswer(_)
        | DialError::Lost(_)) => Attempt::Again(e.to_string()),
    })?;
    let ask = Ask {
        version: VERSION,
        secret: *options.invite.expose_secret(),
        name: options.name.to_string(),
        chunk_secret: *options.chunk_secret.expose(),
        sealing: options.sealing.as_bytes().to_vec(),
    };
    let question = Zeroizing::new(minicbor::to_vec(&ask).expect("writing to a Vec cannot fail"));
    let exchange = async {
        let (mut send, mut recv) = proven.connection.open_bi().await.map_err(|e| again(&e))?;
        send.write_all(&question).await.map_err(|e| again(&e))?;
        send.finish().map_err(|e| again(&e))?;
        recv.read_to_end(MESSAGE_BYTES_MAX).await.map(Zeroizing::new).map_err(|e| again(&e))
    };
    let bytes = timeout(ANSWER_PATIENCE, exchange).await.map_err(|_| again(&"the answer was lost"))??;
    let answer: Answer = minicbor::decode(&bytes).map_err(|_| Attempt::Final(EnrollError::Protocol))?;
    proven.connection.close(CloseCode::Done.number(), b"");
    match answer {
        Answer::Refused { text, next_step } => Err(Attempt::Final(EnrollError::Refused { text, next_step })),
        Answer::Welcome { hub_name, chunk_secret, sealing } => Ok(Peer {
            node: proven.node,
            name: hub_name.parse().map_err(|_: KeysError| Attempt::Final(EnrollError::Protocol))?,
            spki: proven.spki,
            chunk_secret: ChunkSecret::from_bytes(chunk_secret),
            sealing: SealingPublic::from_bytes(&sealing).ok_or(Attempt::Final(EnrollError::Protocol))?,
            role: PeerRole::Hub,
            address: Some(address.clone()),
            enrolled_at: options.clock.now(),
        }),
    }
}

/// The hub's side.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) invites: Arc<InviteBook>,
    pub(crate) registry: Arc<PeerRegistry>,
    pub(crate) name: PeerName,
    pub(crate) chunk_secret: ChunkSecret,
    pub(crate) sealing: SealingPublic,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Desk {
    /// Answers one enrolment connection, while it keeps its place. Returns whom it admitted. Not cancel-safe: what was admitted stays.
    pub(crate) async fn serve(&self, proven: Proven, place: &Place) -> Option<Peer> {
        let exchange = async {
            let question = async {
                let (send, mut recv) = proven.connection.accept_bi().await.ok()?;
                Some((send, Zeroizing::new(recv.read_to_end(MESSAGE_BYTES_MAX).await.ok()?)))
            };
            // Whoever has asked gets an answer: what is decided stays.
            let (mut send, question) = place.keep(question).await??;
            // Durable writes block; the file is small and enrolments are rare.
            let (answer, admitted) = tokio::task::block_in_place(|| self.decide(&proven, &question));
            let bytes = Zeroizing::new(minicbor::to_vec(&answer).expect("writing to a Vec cannot fail"));
            send.write_all(&bytes).await.ok()?;
            send.finish().ok()?;
            let _ = send.stopped().await;
            Some(admitted)
        };
        let served = timeout(ANSWER_PATIENCE, exchange).await;
        proven.connection.close(CloseCode::Done.number(), b"");
        served.ok().flatten().flatten()
    }

    fn decide(&self, proven: &Proven, question: &[u8]) -> (Answer, Option<Peer>) {
        let refused = |text: &dyn std::fmt::Display, next_step: &str| {
            (Answer::Refused { text: text.to_string(), next_step: next_step.to_owned() }, None)
        };
        let Ok(ask) = minicbor::decode::<Ask>(question) else {
            return refused(&"the hub cannot understand the request", "bring both nodes to the same release");
        };
        if ask.version != VERSION {
            return refused(&"the hub speaks another version of enrolment", "bring both nodes to the same release");
        }
        let name: PeerName = match ask.name.parse() {
            Ok(name) => name,
            Err(e) => return refused(&e, KeysError::next_step(&e)),
        };
        let Some(sealing) = SealingPublic::from_bytes(&ask.sealing) else {
            return refused(&"the node told no sealing key", "bring both nodes to the same release");
        };
        let now = self.clock.now();
        let name = match self.invites.redeem(&ask.secret, proven.node, &name, now) {
            Ok(name) => name,
            Err(e) => {
                tracing::warn!(node = %proven.node, reason = %e, "enrolment refused");
                return refused(&e, JoinRefused::next_step(&e));
            }
        };
        let peer = Peer {
            node: proven.node,
            name,
            spki: proven.spki.clone(),
            chunk_secret: ChunkSecret::from_bytes(ask.chunk_secret),
            sealing,
            role: PeerRole::Edge,
            address: None,
            enrolled_at: now,
        };
        if let Err(e) = self.registry.add(peer.clone()) {
            return refused(&e, e.next_step());
        }
        tracing::info!(node = %peer.node, name = %peer.name, "node enrolled");
        let welcome = Answer::Welcome {
            hub_name: self.name.to_string(),
            chunk_secret: *self.chunk_secret.expose(),
            sealing: self.sealing.as_bytes().to_vec(),
        };
        (welcome, Some(peer))
    }
}
