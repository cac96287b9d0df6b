//! A hub behind firewalls of several kinds, each in a few lines.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::governor::time_on_link;
use crate::keeper::NOT_ENROLLED;
use crate::tests::{FAST, Node, Relay, peer, settled, until};
use crate::{CarrierSettings, PeerState};
use keys::PeerRole;

/// A hub that listens on HTTPS too, and the key of the edge that is enrolled there.
fn hub() -> (Node, NodeKey) {
    let (edge, key) = (NodeKey::generate(), NodeKey::generate());
    let settings = CarrierSettings {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        https_listen: Some("127.0.0.1:0".parse().unwrap()),
        rate: FAST,
        ..CarrierSettings::default()
    };
    let peers = vec![peer(&edge, "alpha", PeerRole::Edge, None)];
    (Node::start_with(tempfile::tempdir().unwrap(), "base", settings, peers, key), edge)
}

fn pin_of(hub: &Node) -> String {
    Pin::of(&CertificateDer::from_pem_file(hub.dir.path().join(WEB_CERTIFICATE)).unwrap()).to_string()
}

/// An edge whose one link, or whose second link, is over HTTPS.
fn edge(hub: &Node, key: NodeKey, links: serde_json::Value) -> Node {
    let settings = serde_json::json!({ "rate": "4Mbit/s", "peers": { "base": { "links": links } } });
    let settings: CarrierSettings = serde_json::from_value(settings).unwrap();
    let peers = vec![peer(&hub.key, "base", PeerRole::Hub, Some("127.0.0.1:9".parse().unwrap()))];
    Node::start_with(tempfile::tempdir().unwrap(), "alpha", settings, peers, key)
}

async fn crosses(edge: &Node, hub: &Node) {
    edge.says_later(0..80);
    hub.says_later(1_000..1_080);
    until("everything", || edge.confirmed() && hub.confirmed()).await;
    assert_eq!((hub.heard(), edge.heard()), (80, 80));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_cross_over_https_where_udp_leads_nowhere() {
    let (hub, key) = hub();
    let https = hub.shared.https_addr().unwrap().to_string();
    let edge = edge(
        &hub,
        key,
        serde_json::json!([
            { "name": "quic" },
            { "name": "web", "lane": "https", "address": https, "https": { "pin": pin_of(&hub) }, "cost": 1 },
        ]),
    );
    until("the link", || edge.is_up()).await;
    crosses(&edge, &hub).await;
    let links = edge.shared.status().remove(0).links;
    assert!(!matches!(links[0].state, PeerState::Up { .. }));
    assert!(matches!(links[1].state, PeerState::Up { .. }));
    assert!(links[1].wire_bytes_up > 80_000 && links[1].wire_bytes_down > 80_000, "{links:?}");
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_web_certificate_than_the_pinned_one_is_not_talked_to() {
    let (hub, key) = hub();
    let https = hub.shared.https_addr().unwrap().to_string();
    let edge = edge(
        &hub,
        key,
        serde_json::json!([
            { "name": "web", "lane": "https", "address": https, "https": { "pin": "00".repeat(32) } },
        ]),
    );
    until("the refusal", || matches!(edge.state(), PeerState::Down { last, .. } if last.contains("HTTPS"))).await;
    assert_eq!(hub.links_up(), 0);
    edge.stopped().await;
    hub.stopped().await;
}

/// What a man in the middle has read, and whether the next message towards the hub gets a flipped bit.
#[derive(Default)]
struct Middle {
    read: Mutex<Vec<u8>>,
    flips: AtomicBool,
    flipped: AtomicBool,
    connections: AtomicU64,
}

/// An authority that the operator's network has, and nobody else trusts.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A file with its certificate.
    fn file(&self, dir: &Path) -> PathBuf {
        let path = dir.join("authority.pem");
        std::fs::write(&path, self.certificate.pem()).unwrap();
        path
    }
}

/// A firewall that ends TLS with a certificate that its authority signs for the hub's name, and begins another to the hub.
async fn inspecting(
    hub: SocketAddr,
    authority: &Authority,
    middle: Arc<Middle>,
    tasks: &mut JoinSet<()>,
) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let forged = rcgen::CertificateParams::new(vec![hub.ip().to_string()]).unwrap();
    let forged = forged.signed_by(&key, &authority.issuer).unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![forged.der().clone()], private).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    tasks.spawn(async move {
        let mut inside = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, middle) = (acceptor.clone(), Arc::clone(&middle));
            inside.spawn(async move {
                let Ok(from) = acceptor.accept(tcp).await else { return };
                let verifier = Arc::new(Anything(tls::provider().signature_verification_algorithms));
                let client = ClientConfig::builder_with_provider(tls::provider());
                let client = client.with_safe_default_protocol_versions().unwrap().dangerous();
                let client = client.with_custom_certificate_verifier(verifier).with_no_client_auth();
                let tcp = TcpStream::connect(hub).await.unwrap();
                let name = ServerName::try_from("holdfast").unwrap();
                let Ok(to) = TlsConnector::from(Arc::new(client)).connect(name, tcp).await else { return };
                middle.connections.fetch_add(1, Ordering::SeqCst);
                let (from_read, from_write) = tokio::io::split(from);
                let (to_read, to_write) = tokio::io::split(to);
                let _ = tokio::join!(
                    forward(from_read, to_write, &middle, true),
                    forward(to_read, from_write, &middle, false)
                );
            });
        }
    });
    address
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    middle: &Middle,
    towards_hub: bool,
) -> io::Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return to.shutdown().await;
        }
        middle.read.lock().unwrap().extend_from_slice(&buffer[..len]);
        // The last byte of a message lies in the tag of the inner record, or in what it protects.
        if towards_hub && len > 200 && middle.flips.swap(false, Ordering::SeqCst) {
            buffer[len - 1] ^= 1;
            middle.flipped.store(true, Ordering::SeqCst);
        }
        to.write_all(&buffer[..len]).await?;
        to.flush().await?;
    }
}

#[derive(Debug)]
struct Anything(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_reads_tls_reads_nothing_and_cannot_alter_a_bit_unnoticed() {
    let (hub, key) = hub();
    let (middle, authority, mut tasks) = (Arc::new(Middle::default()), Authority::new(), JoinSet::new());
    let address = inspecting(hub.shared.https_addr().unwrap(), &authority, Arc::clone(&middle), &mut tasks).await;
    let file = authority.file(hub.dir.path());
    let edge = edge(
        &hub,
        key,
        serde_json::json!([
            { "name": "web", "lane": "https", "address": address.to_string(), "https": { "authorities": file } },
        ]),
    );
    until("the link", || edge.is_up()).await;
    crosses(&edge, &hub).await;
    let read = middle.read.lock().unwrap().clone();
    let saw = |what: &[u8]| read.windows(what.len()).any(|window| window == what);
    assert!(saw(b"GET /holdfast/1"), "it does read what is meant for it");
    assert!(!saw(b"scripted"), "the greeting's name is not meant for it");
    assert_eq!(middle.connections.load(Ordering::SeqCst), 1);

    middle.flips.store(true, Ordering::SeqCst);
    edge.says_later(100..200);
    until("the rest, over another connection", || hub.heard() == 180 && edge.confirmed()).await;
    assert!(middle.flipped.load(Ordering::SeqCst));
    assert!(middle.connections.load(Ordering::SeqCst) >= 2, "the altered connection was given up");
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_whose_authority_the_operator_has_not_named_is_not_talked_to() {
    let (hub, key) = hub();
    let (middle, mut tasks) = (Arc::new(Middle::default()), JoinSet::new());
    let (theirs, ours) = (Authority::new(), Authority::new());
    let address = inspecting(hub.shared.https_addr().unwrap(), &theirs, Arc::clone(&middle), &mut tasks).await;
    let links = |https: serde_json::Value| serde_json::json!([{ "name": "web", "lane": "https", "address": address.to_string(), "https": https }]);
    let refused =
        |edge: &Node| matches!(edge.state(), PeerState::Down { last, .. } if last.contains("invalid peer certificate"));
    // Another authority is named; or none, so that the system's count.
    for https in [serde_json::json!({ "authorities": ours.file(hub.dir.path()) }), serde_json::json!({})] {
        let edge = edge(&hub, key.clone(), links(https));
        until("the refusal", || refused(&edge)).await;
        edge.stopped().await;
    }
    assert_eq!((hub.links_up(), middle.connections.load(Ordering::SeqCst)), (0, 0));
    hub.stopped().await;
}

/// A proxy that connects whoever knows the password.
async fn connecting(tasks: &mut JoinSet<()>) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, refused) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&refused);
    tasks.spawn(async move {
        let mut inside = JoinSet::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            inside.spawn(async move {
                let mut ask = Vec::new();
                while !ask.ends_with(b"\r\n\r\n") {
                    ask.push(tcp.read_u8().await.unwrap());
                }
                let ask = String::from_utf8(ask).unwrap();
                // BASE64("mission:secret")
                if !ask.contains("Proxy-Authorization: Basic bWlzc2lvbjpzZWNyZXQ=\r\n") {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = tcp.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
                    return;
                }
                let target = ask.split(' ').nth(1).unwrap().to_owned();
                let mut to = TcpStream::connect(target).await.unwrap();
                tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tcp, &mut to).await;
            });
        }
    });
    (address, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_asked_to_connect_and_told_the_password() {
    let (hub, key) = hub();
    let mut tasks = JoinSet::new();
    let (proxy, refused) = connecting(&mut tasks).await;
    let https = hub.shared.https_addr().unwrap().to_string();
    let login = hub.dir.path().join("login");
    std::fs::write(&login, "mission:wrong\n").unwrap();
    let edge = edge(
        &hub,
        key,
        serde_json::json!([{
            "name": "web", "lane": "https", "address": https,
            "https": { "pin": pin_of(&hub), "proxy": proxy.to_string(), "proxy_login": login },
        }]),
    );
    until("the refusal", || refused.load(Ordering::SeqCst) > 0).await;
    assert!(!edge.is_up());
    std::fs::write(&login, "mission:secret\n").unwrap();
    until("the link", || edge.is_up()).await;
    crosses(&edge, &hub).await;
    edge.stopped().await;
    hub.stopped().await;
}

/// A TCP path to the hub that carries so much and no more, and may go dead without a word.
struct Path443 {
    address: SocketAddr,
    dead: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Path443 {
    /// `rate`: towards the hub.
    async fn to(hub: SocketAddr, rate: Option<BitsPerSecond>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mut tasks) = (listener.local_addr().unwrap(), JoinSet::new());
        let (dead, carried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let state = (Arc::clone(&dead), Arc::clone(&carried));
        tasks.spawn(async move {
            let mut inside = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(hub).await else { continue };
                let ((from, to_near), (back, to_far)) = (near.into_split(), far.into_split());
                let (up, down) = (state.clone(), state.clone());
                inside.spawn(carry(from, to_far, rate, up.0, up.1));
                inside.spawn(carry(back, to_near, None, down.0, down.1));
            }
        });
        Self { address, dead, carried, _tasks: tasks }
    }

    fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    rate: Option<BitsPerSecond>,
    dead: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
) {
    let mut buffer = [0u8; 1_000];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if let Some(rate) = rate {
            sleep(time_on_link(len as u64, rate)).await;
        }
        while dead.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
        carried.fetch_add(len as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

fn web_link(address: SocketAddr, pin: &str) -> serde_json::Value {
    serde_json::json!({ "name": "web", "lane": "https", "address": address.to_string(), "https": { "pin": pin } })
}

/// The path carries a quarter of what the operator believes, and has room for megabytes, as proxies have.
#[tokio::test(flavor = "multi_thread")]
async fn flash_is_not_stuck_behind_bulk_in_the_buffers_of_a_slow_path() {
    let (hub, key) = hub();
    let slow = Path443::to(hub.shared.https_addr().unwrap(), Some(BitsPerSecond(1_000_000))).await;
    let edge = edge(&hub, key, serde_json::json!([web_link(slow.address, &pin_of(&hub))]));
    until("the link", || edge.is_up()).await;
    // 1.2 MB: ten seconds of this path.
    edge.says_later(0..1_000);
    until("a part of it", || hub.heard() >= 250).await;
    for n in 1_000..1_005 {
        let (bulk, begun) = (hub.heard(), crate::clock::now());
        edge.says_flash(n..n + 1);
        until("the flash", || hub.has_heard(n)).await;
        let overtook_by = hub.heard() - bulk;
        assert!(overtook_by < 80, "{overtook_by} frames went before, in {:?}", begun.elapsed());
        until("more of it", || hub.heard() >= bulk + 100).await;
    }
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_over_https_when_udp_dies_and_back_and_the_session_notices_nothing() {
    let (hub, key) = hub();
    let radio = Relay::to(hub.address()).await;
    let path = Path443::to(hub.shared.https_addr().unwrap(), None).await;
    let mut web = web_link(path.address, &pin_of(&hub));
    web["cost"] = 5.into();
    let quic = serde_json::json!({ "name": "radio", "address": radio.address.to_string() });
    let edge = edge(&hub, key, serde_json::json!([quic, web]));
    until("both links", || edge.links_up() == 2 && hub.links_up() == 2).await;
    let before = path.carried.load(Ordering::SeqCst);
    edge.says_later(0..600);
    until("a part of it", || hub.heard() > 100).await;
    assert!(path.carried.load(Ordering::SeqCst) - before < 10_000, "the cheaper link carries it");
    radio.set_down(true);
    until("more of it, over HTTPS", || hub.heard() > 350).await;
    radio.set_down(false);
    until("the radio again", || edge.links_up() == 2).await;
    path.set_dead(true);
    until("all of it", || hub.heard() == 600 && edge.confirmed()).await;
    path.set_dead(false);
    until("both again", || edge.links_up() == 2 && hub.links_up() == 2).await;
    assert_eq!((edge.sessions(), hub.sessions()), (1, 1), "the conversation noticed nothing");
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_enrolled_is_told_so_over_https_too() {
    let (hub, _) = hub();
    let address = hub.shared.https_addr().unwrap();
    let stranger = edge(&hub, NodeKey::generate(), serde_json::json!([web_link(address, &pin_of(&hub))]));
    let denied = PeerState::Denied { text: NOT_ENROLLED.to_owned() };
    until("the refusal", || stranger.state() == denied).await;
    stranger.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_than_the_enrolled_one_is_not_talked_to_whatever_its_web_certificate() {
    let (hub, key) = hub();
    let (impostor, _) = self::hub();
    let links = serde_json::json!([web_link(impostor.shared.https_addr().unwrap(), &pin_of(&impostor))]);
    let edge = edge(&hub, key, links);
    until("the refusal", || matches!(edge.state(), PeerState::Down { last, .. } if last.contains("HTTPS"))).await;
    assert_eq!((hub.links_up(), impostor.links_up()), (0, 0));
    edge.stopped().await;
    hub.stopped().await;
    impostor.stopped().await;
}

/// A WebSocket to the hub as anybody can open one.
async fn web_socket(
    hub: &Node,
    path: &str,
) -> Result<tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>, String> {
    let address = hub.shared.https_addr().unwrap();
    let settings = HttpsSettings { pin: Some(pin_of(hub).try_into().unwrap()), ..HttpsSettings::default() };
    let name = ServerName::try_from("holdfast").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(web_client(&settings).unwrap())).connect(name, tcp).await.unwrap();
    let opened = tokio_tungstenite::client_async(format!("wss://{address}{path}"), tls).await;
    opened.map(|(socket, _)| socket).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_out_of_turn_is_cut_off_and_the_hub_serves_others() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;

    let (hub, key) = hub();
    let elsewhere = web_socket(&hub, "/").await.unwrap_err();
    assert!(elsewhere.contains("404"), "{elsewhere}");
    // No TLS of a node; a message that is not binary; one that is larger than any that is sent.
    let garbage = vec![Message::binary(vec![7; 2_000])];
    let large = vec![Message::binary(vec![0x16; 1 << 20])];
    for messages in [garbage, vec![Message::text("hello")], large] {
        let mut socket = web_socket(&hub, PATH).await.unwrap();
        for message in messages {
            // An error here is the refusal itself.
            let _ = socket.send(message).await;
        }
        let cut = async { while let Some(Ok(_)) = socket.next().await {} };
        timeout(Duration::from_secs(30), cut).await.expect("it is cut off");
    }
    // Some who say nothing at all hold only what is theirs.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(hub.shared.https_addr().unwrap()).await.unwrap());
    }
    let edge = edge(&hub, key, serde_json::json!([web_link(hub.shared.https_addr().unwrap(), &pin_of(&hub))]));
    until("the link", || edge.is_up()).await;
    crosses(&edge, &hub).await;
    edge.stopped().await;
    hub.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_says_nothing_over_https_and_a_budget_is_kept() {
    let (hub, key) = hub();
    let path = Path443::to(hub.shared.https_addr().unwrap(), None).await;
    let mut web = web_link(path.address, &pin_of(&hub));
    web["budget_per_day"] = "100kB".into();
    let edge = edge(&hub, key, serde_json::json!([web]));
    until("the link", || edge.is_up()).await;
    edge.shared.set_emission(crate::Emission::Silent).unwrap();
    until("it shows", || edge.state() == PeerState::Silent).await;
    let before = settled(&path.carried).await;
    edge.says_later(0..200);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(path.carried.load(Ordering::SeqCst), before, "emitted while silent");
    edge.shared.set_emission(crate::Emission::Normal).unwrap();
    let held = || matches!(&edge.shared.status()[0].links[0].state, PeerState::Held { why } if why.contains("budget"));
    until("the end of the budget", held).await;
    let spent = edge.shared.status()[0].links[0].wire_bytes_up;
    assert!(hub.heard() > 10 && !edge.confirmed());
    assert!((95_000..=100_000).contains(&spent), "{spent}");
    edge.stopped().await;
    hub.stopped().await;
}
