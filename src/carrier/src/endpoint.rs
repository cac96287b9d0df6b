//! One UDP socket, one quinn endpoint: dials and accepts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use keys::NodeKey;
use model::{BitsPerSecond, NodeId};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportErrorCode,
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::time::timeout;

use crate::governor::{Governor, Lane};
use crate::pipe::CloseCode;
use crate::quic::{self, SharedRate};
use crate::settings::Outlet;
use crate::socket::{self, GovernedSocket};
use crate::tls;

/// The node's end of links: of all that have no outlet of their own, or of one that has.
pub(crate) struct Plug {
    key: NodeKey,
    endpoint: Endpoint,
    server: Option<Arc<QuicServerConfig>>,
    governor: Arc<Governor>,
    /// Names the socket at the governor.
    number: u32,
}

/// A connection whose other side has proved its key.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) connection: Connection,
    pub(crate) node: NodeId,
    pub(crate) spki: Vec<u8>,
    /// What the connection's window follows.
    pub(crate) rate: SharedRate,
    /// Is this a session, or an enrolment?
    pub(crate) session: bool,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("`{0}` is no address that can be resolved")]
    Resolve(String),
    #[error("cannot dial {0}: {1}")]
    Local(SocketAddr, quinn::ConnectError),
    #[error("the link's own address or interface cannot be used: {0}")]
    Outlet(io::Error),
    #[error("no answer from {0}")]
    NoAnswer(SocketAddr),
    #[error("no connection over HTTPS to {0}: {1}")]
    Https(String, io::Error),
    #[error("{0} is another node than the one enrolled")]
    OtherNode(SocketAddr),
    #[error("{0}")]
    Lost(ConnectionError),
}

/// With secrets that are the same after a restart: a peer that was not told of it probes its old connection, and what
/// knows that connection no more must be able to say so (RFC 9000, 10.3). Ed25519 signs alike each time, and nobody else can.
fn endpoint_config(key: &NodeKey) -> EndpointConfig {
    let secret = key.sign(b"holdfast quic stateless reset v1");
    let ids = blake3::derive_key("holdfast quic connection ids v1", &secret);
    let ids = u64::from_le_bytes(ids[..8].try_into().expect("eight bytes"));
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

impl Plug {
    /// Binds the socket. Must be called within a tokio runtime.
    pub(crate) fn open(key: NodeKey, listen: Option<SocketAddr>, governor: Arc<Governor>) -> io::Result<Self> {
        Self::bound(key, listen, &Outlet::default(), governor)
    }

    /// A socket of its own for a link that leaves by `out`. Must be called within a tokio runtime.
    pub(crate) fn beside(&self, out: &Outlet) -> io::Result<Self> {
        Self::bound(self.key.clone(), None, out, Arc::clone(&self.governor))
    }

    fn bound(key: NodeKey, listen: Option<SocketAddr>, out: &Outlet, governor: Arc<Governor>) -> io::Result<Self> {
        let number = governor.next_socket();
        let socket = GovernedSocket::new(socket::bind(listen, out)?, number, out.dscp, Arc::clone(&governor))?;
        let server = listen.is_some().then(|| tls::server(&key));
        // Only makes the endpoint listen: each connection is accepted with settings of its own.
        let config = server.clone().map(|s| ServerConfig::with_crypto(s));
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(&key),
            config,
            Arc::new(socket),
            Arc::new(TokioRuntime),
        )?;
        Ok(Self { key, endpoint, server, governor, number })
    }

    pub(crate) fn governor(&self) -> &Arc<Governor> {
        &self.governor
    }

    pub(crate) fn key(&self) -> &NodeKey {
        &self.key
    }

    pub(crate) fn governor_shared(&self) -> Arc<Governor> {
        Arc::clone(&self.governor)
    }

    /// Charges what goes to `address` through this socket to `lane`.
    pub(crate) fn assign(&self, address: SocketAddr, lane: &Arc<Lane>) {
        self.governor.assign((self.number, address), lane);
    }

    /// Forgets an address, unless it belongs to another lane by now.
    pub(crate) fn release(&self, address: SocketAddr, lane: &Arc<Lane>) {
        self.governor.release((self.number, address), lane);
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection attempt from outside; `None` once closed. Cancel-safe.
    pub(crate) async fn incoming(&self) -> Option<Incoming> {
        self.endpoint.accept().await
    }

    /// Dials `expected` at `address` over `lane`, once. Not cancel-safe, but dropping it gives the attempt up cleanly.
    pub(crate) async fn dial(
        &self,
        expected: NodeId,
        address: &str,
        lane: &Arc<Lane>,
        session: bool,
    ) -> Result<Proven, DialError> {
        let resolve = || DialError::Resolve(address.to_owned());
        let to = tokio::net::lookup_host(address).await.map_err(|_| resolve())?.next().ok_or_else(resolve)?;
        self.assign(to, lane);
        let rate = SharedRate::new(lane.rate());
        let alpn = if session { tls::ALPN_SESSION } else { tls::ALPN_ENROLL };
        let mut config = quinn::ClientConfig::new(tls::client(&self.key, expected, alpn));
        config.transport_config(quic::transport(&rate));
        // The name is not sent (see `tls::client`), but quinn wants one.
        let attempt = self.endpoint.connect_with(config, to, "holdfast").map_err(|e| DialError::Local(to, e))?;
        let result = match timeout(quic::handshake_patience(lane.rate()), attempt).await {
            Err(_) | Ok(Err(ConnectionError::TimedOut)) => Err(DialError::NoAnswer(to)),
            Ok(Err(ConnectionError::TransportError(e))) if e.code == TransportErrorCode::crypto(KEY_REFUSED) => {
                Err(DialError::OtherNode(to))
            }
            Ok(Err(e)) => Err(DialError::Lost(e)),
            Ok(Ok(connection)) => Ok(connection),
        };
        match result {
            Ok(connection) => proven(connection, rate).ok_or(DialError::OtherNode(to)),
            Err(e) => {
                self.release(to, lane);
                Err(e)
            }
        }
    }

    /// Completes a connection attempt from outside. `rate` is the lowest of any peer, since this may be each of them.
    pub(crate) async fn accept(&self, incoming: Incoming, rate: BitsPerSecond) -> Result<Proven, ConnectionError> {
        let Some(server) = &self.server else { return Err(ConnectionError::LocallyClosed) };
        let shared = SharedRate::new(rate);
        let mut config = ServerConfig::with_crypto(Arc::clone(server) as Arc<dyn quinn::crypto::ServerConfig>);
        config.transport_config(quic::transport(&shared));
        let attempt = incoming.accept_with(Arc::new(config))?;
        let patience = quic::handshake_patience(rate) + Duration::from_secs(10);
        let connection = timeout(patience, attempt).await.map_err(|_| ConnectionError::TimedOut)??;
        proven(connection, shared).ok_or(ConnectionError::LocallyClosed)
    }

    /// Closes every connection and waits a moment for the word to get out.
    pub(crate) async fn close(&self) {
        self.endpoint.close(CloseCode::Done.number(), b"the node is stopping");
        let _ = timeout(CLOSE_GRACE, self.endpoint.wait_idle()).await;
    }
}

/// A peer that misses the goodbye notices the silence by itself; the journal is safe either way.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// The TLS alert `access_denied`, with which rustls answers `ApplicationVerificationFailure` of our verifier.
const KEY_REFUSED: u8 = 49;

fn proven(connection: Connection, rate: SharedRate) -> Option<Proven> {
    let spki = tls::proven_key(&connection)?;
    let session = tls::protocol(&connection)? == tls::ALPN_SESSION;
    Some(Proven { node: keys::node_id_of_spki(&spki), spki, connection, rate, session })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const RATE: BitsPerSecond = BitsPerSecond(1_000_000);

    fn plug(key: &NodeKey, listen: bool) -> Plug {
        let listen = listen.then(|| "127.0.0.1:0".parse().unwrap());
        Plug::open(key.clone(), listen, Arc::new(Governor::new(true, RATE))).unwrap()
    }

    fn lane() -> Arc<Lane> {
        Arc::new(Lane::new(RATE, clock::now()))
    }

    async fn accept_one(hub: &Plug) -> Result<Proven, ConnectionError> {
        hub.accept(hub.incoming().await.unwrap(), RATE).await
    }

    #[tokio::test]
    async fn both_sides_learn_the_key_the_other_has_proved() {
        let (edge_key, hub_key) = (NodeKey::generate(), NodeKey::generate());
        let (edge, hub) = (plug(&edge_key, false), plug(&hub_key, true));
        let address = hub.local_addr().unwrap().to_string();
        let lane = lane();
        let (dialled, accepted) = tokio::join!(edge.dial(hub_key.node_id(), &address, &lane, true), accept_one(&hub));
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(dialled.node, hub_key.node_id());
        assert_eq!(accepted.node, edge_key.node_id());
        assert_eq!(accepted.spki, edge_key.spki());
        assert!(dialled.session && accepted.session);
    }

    #[tokio::test]
    async fn a_node_that_is_not_the_expected_one_is_not_talked_to() {
        let (edge, hub) = (plug(&NodeKey::generate(), false), plug(&NodeKey::generate(), true));
        let address = hub.local_addr().unwrap().to_string();
        let (lane, expected) = (lane(), NodeKey::generate().node_id());
        let (dialled, _) = tokio::join!(edge.dial(expected, &address, &lane, true), accept_one(&hub));
        assert!(matches!(dialled, Err(DialError::OtherNode(_))), "{dialled:?}");
    }
}
