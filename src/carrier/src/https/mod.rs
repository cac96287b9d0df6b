//! The HTTPS lane: the same frames where only a web browser's traffic passes.
//!
//! ```text
//!  frames > TLS between the nodes > WebSocket > TLS to whoever terminates it > (CONNECT proxy) > TCP, port 443
//!           keys of the nodes                    web certificates
//! ```
//!
//! A firewall may end the outer TLS and read on. It reads the inner one, in which both nodes prove their own keys as they do in
//! QUIC: who sits in between can cut the connection, and can neither read nor alter nor imitate.
//!
//! The kernel is given little to send at a time, so that an urgent frame waits for about two slices and not for a
//! buffer.

pub(crate) mod meter;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod web;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use keys::{NodeKey, node_id_of_spki};
use model::{BitsPerSecond, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use shaper::SLICE_MILLIS;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::endpoint::DialError;
use crate::governor::{Governor, Lane};
use crate::quic::handshake_patience;
use crate::settings::Outlet;
use crate::tls;

use self::meter::{Meter, MeteredTcp};
use self::stream::{Stream, StreamPipe};

/// Where the WebSocket is on the web server.
const PATH: &str = "/holdfast/1";

/// Bytes that the kernel holds beside those it has sent: it takes more when a slice of the link is left, and at most this.
const UNSENT_BYTES_MAX: u64 = 16 << 10;

/// A proxy's answer to CONNECT.
const PROXY_ANSWER_MAX: usize = 8 << 10;

/// Until a connection is taken again after that has failed: descriptors may be short.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The certificate that was made here, and its key.
pub const WEB_CERTIFICATE: &str = "https.pem";

/// How an HTTPS link reaches the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpsSettings {
    /// A proxy that is asked to CONNECT, as `host:port`.
    pub proxy: Option<String>,
    /// File with `user:password` for the proxy.
    pub proxy_login: Option<PathBuf>,
    /// File with certificates (PEM) of authorities that may have signed the web certificate; without it the system's.
    pub authorities: Option<PathBuf>,
    /// The one web certificate that is talked to, in place of authorities.
    pub pin: Option<Pin>,
}

impl HttpsSettings {
    /// What contradicts itself, for the reader of the configuration.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let has_port = |at: &String| {
            at.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.proxy.as_ref().is_none_or(has_port) {
            return Some("`proxy` is `host:port`");
        }
        if self.proxy_login.is_some() && self.proxy.is_none() {
            return Some("`proxy_login` is of no use without `proxy`");
        }
        (self.pin.is_some() && self.authorities.is_some()).then_some("either `pin` or `authorities` counts, not both")
    }
}

/// SHA-256 of a web certificate, in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin([u8; 32]);

/// Text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256 of a certificate; write it as 64 hexadecimal digits")]
pub struct BadPin(String);

impl Pin {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl TryFrom<String> for Pin {
    type Error = BadPin;

    fn try_from(text: String) -> Result<Self, BadPin> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(BadPin(text))
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

/// A connection whose other side has proved its key.
pub(crate) struct Arrival {
    pub(crate) node: NodeId,
    pub(crate) pipe: StreamPipe,
}

/// Dials `expected`, once. Dropping it gives the attempt up.
pub(crate) async fn dial(
    key: NodeKey,
    expected: NodeId,
    address: String,
    out: Outlet,
    settings: HttpsSettings,
    governor: Arc<Governor>,
    lane: Arc<Lane>,
) -> Result<StreamPipe, DialError> {
    let rate = lane.rate();
    let attempt = connect(&key, expected, &address, &out, &settings, Meter::new(governor, lane));
    let (stream, meter) = match timeout(2 * handshake_patience(rate), attempt).await {
        Ok(connected) => connected.map_err(|e| DialError::Https(address.clone(), e))?,
        Err(_) => return Err(DialError::Https(address, io::ErrorKind::TimedOut.into())),
    };
    Ok(StreamPipe::new(stream, meter, rate))
}

async fn connect(
    key: &NodeKey,
    expected: NodeId,
    address: &str,
    out: &Outlet,
    settings: &HttpsSettings,
    meter: Arc<Meter>,
) -> io::Result<(Box<dyn Stream>, Arc<Meter>)> {
    let tcp = open(settings.proxy.as_deref().unwrap_or(address), out).await?;
    tune(&tcp, meter.rate())?;
    let mut tcp = MeteredTcp::new(tcp, Arc::clone(&meter));
    if settings.proxy.is_some() {
        through_proxy(&mut tcp, address, settings.proxy_login.as_deref()).await?;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    // Reads files.
    let web_client = block_in_place(|| web_client(settings))?;
    let outer = TlsConnector::from(Arc::new(web_client)).connect(name, tcp).await?;
    let url = format!("wss://{address}{PATH}");
    let web = tokio_tungstenite::client_async_with_config(url, outer, Some(web::config())).await;
    let (socket, _) = web.map_err(io::Error::other)?;
    let inner = TlsConnector::from(Arc::new(tls::client_config(key, expected, tls::ALPN_SESSION)));
    let anybody = ServerName::try_from("holdfast").map_err(io::Error::other)?;
    let stream = inner.connect(anybody, web::WebBytes::new(socket)).await?;
    Ok((Box::new(stream), meter))
}

async fn open(address: &str, out: &Outlet) -> io::Result<TcpStream> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("`{address}` is no address that can be resolved"));
    let to =
        tokio::net::lookup_host(address).await?.find(|to| out.bind.is_none_or(|own| own.is_ipv4() == to.is_ipv4()));
    let to = to.ok_or_else(unknown)?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let options = SockRef::from(&socket);
    if let Some(interface) = &out.interface {
        options.bind_device(Some(interface.as_bytes()))?;
    }
    if out.dscp > 0 {
        let class = u32::from(out.dscp) << 2;
        if to.is_ipv4() { options.set_tos_v4(class)? } else { options.set_tclass_v6(class)? }
    }
    if let Some(own) = out.bind {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(to).await
}

/// Keeps what the kernel holds short: nothing passes it.
fn tune(tcp: &TcpStream, rate: BitsPerSecond) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let unsent = rate.bytes_in_millis(SLICE_MILLIS).clamp(1, UNSENT_BYTES_MAX);
    SockRef::from(tcp).set_tcp_notsent_lowat(unsent as u32)
}

async fn through_proxy(tcp: &mut MeteredTcp, address: &str, login: Option<&Path>) -> io::Result<()> {
    let mut ask = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
    if let Some(login) = login {
        let login = tokio::fs::read_to_string(login).await?;
        ask += &format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(login.trim().as_bytes()));
    }
    ask += "\r\n";
    tcp.write_all(ask.as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer is TLS and none of ours. It is short, and comes once.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER_MAX {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        answer.push(tcp.read_u8().await?);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&answer).map_err(io::Error::other)?;
    match response.code {
        Some(200..=299) => Ok(()),
        code => Err(io::Error::other(format!("the proxy answered {}", code.unwrap_or_default()))),
    }
}

fn web_client(settings: &HttpsSettings) -> io::Result<ClientConfig> {
    let provider = tls::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3");
    if let Some(pin) = settings.pin {
        let verifier = Pinned { pin, algorithms: provider.signature_verification_algorithms };
        return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match &settings.authorities {
        Some(file) => {
            let unreadable = |e| io::Error::other(format!("{}: {e}", file.display()));
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).map_err(io::Error::other)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One web certificate and no other.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Pin::of(certificate) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The accepting side.
pub(crate) struct Door {
    listener: TcpListener,
    outer: TlsAcceptor,
    inner: TlsAcceptor,
    governor: Arc<Governor>,
}

impl Door {
    /// Listens at `address` with the web certificate of the two files, or with one of its own that is kept in `dir`.
    pub(crate) fn open(
        key: &NodeKey,
        address: SocketAddr,
        files: Option<(&Path, &Path)>,
        dir: &Path,
        governor: Arc<Governor>,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(128)?;
        let own = dir.join(WEB_CERTIFICATE);
        let (certificate, private) = match files {
            Some(files) => files,
            None => {
                make_certificate(dir, &own)?;
                (own.as_path(), own.as_path())
            }
        };
        let chain = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?;
        let chain: Vec<CertificateDer<'static>> = chain.collect::<Result<_, _>>().map_err(io::Error::other)?;
        if let Some(first) = chain.first() {
            tracing::info!(%address, pin = %Pin::of(first), "peers can come in over HTTPS");
        }
        let private = PrivateKeyDer::from_pem_file(private).map_err(io::Error::other)?;
        let outer = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(io::Error::other)?;
        let inner = TlsAcceptor::from(Arc::new(tls::server_config(key)));
        Ok(Self { listener, outer: TlsAcceptor::from(Arc::new(outer)), inner, governor })
    }

    #[cfg(test)]
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection from outside. Cancel-safe.
    pub(crate) async fn incoming(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((tcp, _)) => return tcp,
                Err(e) => tracing::debug!(reason = %e, "a connection over HTTPS could not be taken"),
            }
            sleep(ACCEPT_AGAIN).await;
        }
    }

    /// Completes it. `rate` is the lowest of any peer, since this may be each of them.
    pub(crate) async fn accept(&self, tcp: TcpStream, rate: BitsPerSecond) -> io::Result<Arrival> {
        tune(&tcp, rate)?;
        let meter = Meter::new(Arc::clone(&self.governor), Arc::new(Lane::new(rate, crate::clock::now())));
        let greeting = self.greet(MeteredTcp::new(tcp, Arc::clone(&meter)));
        let patience = 2 * handshake_patience(rate) + Duration::from_secs(10);
        let (node, stream) =
            timeout(patience, greeting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Arrival { node, pipe: StreamPipe::new(stream, meter, rate) })
    }

    async fn greet(
        &self,
        tcp: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<(NodeId, Box<dyn Stream>)> {
        let outer = self.outer.accept(tcp).await?;
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let at_path = |request: &Request, response: Response| match request.uri().path() {
            PATH => Ok(response),
            _ => {
                let mut nothing = ErrorResponse::new(None);
                *nothing.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::NOT_FOUND;
                Err(nothing)
            }
        };
        let web = tokio_tungstenite::accept_hdr_async_with_config(outer, at_path, Some(web::config())).await;
        let socket = web.map_err(io::Error::other)?;
        let stream = self.inner.accept(web::WebBytes::new(socket)).await?;
        let spki = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|spki| node_id_of_spki(spki));
        let node = spki.ok_or_else(|| io::Error::other("the peer proved no key"))?;
        Ok((node, Box::new(stream)))
    }
}

/// A certificate that nobody signed, with its key, for peers that pin it. Made once.
fn make_certificate(dir: &Path, path: &Path) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        return Ok(());
    }
    let made = rcgen::generate_simple_self_signed(vec!["holdfast".to_owned()]).map_err(io::Error::other)?;
    let temp = dir.join(format!("{WEB_CERTIFICATE}.new"));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(made.cert.pem().as_bytes())?;
    file.write_all(made.signing_key.serialize_pem().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temp, path)?;
    std::fs::File::open(dir)?.sync_all()
}
