//! The one way by which this core asks something of another server: webhooks, commands, buttons and dialogs of integrations.
//!
//! ```text
//!  URL --target--> name --one resolution--> addresses --every one checked--> connect to one of those --> at most 1 MiB back
//! ```
//!
//! Invariants
//! - A connection goes to an address that was checked, and to no other: there is one resolution per request, so a name that
//!   changes its mind between check and connection gains nothing.
//! - No answer leads to another request: redirects are answers.
//! - Time, size and number of requests are bounded.
//! - No setting of the environment (proxies) is heeded.

pub(crate) mod address;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use self::address::{Allowed, Refusal, Target, check_addresses, check_text, target};

/// Largest answer that is read, as the original's.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Requests at once. More wait; a slow integration must not take every connection of the box.
const AT_ONCE_MAX: usize = 32;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// A request to an integration.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: String,
    /// MIME type of the body; none for a request without.
    pub(crate) content_type: Option<&'static str>,
    /// `Authorization`, e.g. `Token <token of the command>`.
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What an integration answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer. The integration may have been asked all the same, but for a refusal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutgoingError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the integration did not answer in {0} seconds")]
    TimedOut(u64),
    #[error("the integration answered with more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the integration could not be asked: {0}")]
    Failed(String),
}

/// What a client does with the outside.
pub(crate) trait Network: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
    /// Is it an address of this box?
    fn is_own(&self, address: IpAddr) -> bool;
}

struct Real;

impl Network for Real {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(to))
    }

    fn is_own(&self, address: IpAddr) -> bool {
        // Only one's own addresses can be bound.
        UdpSocket::bind((address, 0)).is_ok()
    }
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outgoing {
    allowed: Arc<Allowed>,
    timeout: Duration,
    network: Arc<dyn Network>,
    tls: Arc<OnceLock<TlsConnector>>,
    slots: Arc<Semaphore>,
}

impl Outgoing {
    /// A client that may also call what is listed. Entries that are neither name, address nor network were refused with the
    /// configuration; here they count for nothing.
    pub(crate) fn new(allowed_internal: &[String], timeout_s: u32) -> Self {
        Self::over(allowed_internal, timeout_s, Arc::new(Real))
    }

    pub(crate) fn over(allowed_internal: &[String], timeout_s: u32, network: Arc<dyn Network>) -> Self {
        let allowed = Allowed::parse(allowed_internal).unwrap_or_else(|entry| {
            tracing::error!(%entry, "core.integrations.allowed_internal: no name, address or network; nothing is allowed");
            Allowed::default()
        });
        Self {
            allowed: Arc::new(allowed),
            timeout: Duration::from_secs(u64::from(timeout_s.max(1))),
            network,
            tls: Arc::default(),
            slots: Arc::new(Semaphore::new(AT_ONCE_MAX)),
        }
    }

    /// May this URL be stored as one to call? Asks no resolver.
    ///
    /// # Errors
    /// What speaks against it.
    pub(crate) fn check_url(&self, url: &str) -> Result<(), Refusal> {
        check_text(&target(url)?, &self.allowed)
    }

    /// Asks and waits for the answer, whatever its status.
    ///
    /// Cancel-safe: dropped, the connection is closed; the integration may have been asked.
    ///
    /// # Errors
    /// See [`OutgoingError`].
    pub(crate) async fn send(&self, call: Call) -> Result<Answered, OutgoingError> {
        let target = target(&call.url)?;
        check_text(&target, &self.allowed)?;
        let work = async {
            let _slot = self.slots.acquire().await;
            let stream = self.connect(&target).await?;
            match target.is_https {
                true => exchange(self.secure(&target, stream).await?, &target, call).await,
                false => exchange(stream, &target, call).await,
            }
        };
        let timed_out = OutgoingError::TimedOut(self.timeout.as_secs());
        tokio::time::timeout(self.timeout, work).await.unwrap_or(Err(timed_out))
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, OutgoingError> {
        let found = match target.literal {
            Some(address) => vec![SocketAddr::new(address, target.port)],
            None => self.network.resolve(&target.host, target.port).await.map_err(failed)?,
        };
        let checked = check_addresses(target, &found, &self.allowed, |address| self.network.is_own(address))?;
        let mut last = OutgoingError::Failed("no address".to_owned());
        for address in checked.into_iter().take(ADDRESSES_MAX) {
            match self.network.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = failed(error),
            }
        }
        Err(last)
    }

    async fn secure(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, OutgoingError> {
        let connector = self.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider has the protocols of its own default")
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        });
        let name = ServerName::try_from(target.host.clone()).map_err(failed)?;
        connector.connect(name, stream).await.map_err(failed)
    }
}

async fn exchange<S>(stream: S, target: &Target, call: Call) -> Result<Answered, OutgoingError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut request = Request::builder().method(call.method).uri(&target.path);
    request = request.header(header::HOST, &target.authority).header(header::ACCEPT, "application/json");
    request = request.header(header::USER_AGENT, concat!("holdfast/", env!("CARGO_PKG_VERSION")));
    if let Some(kind) = call.content_type {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    if let Some(authorization) = &call.authorization {
        let mut value = HeaderValue::from_str(authorization).map_err(failed)?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Full::new(Bytes::from(call.body))).map_err(failed)?;
    let ask = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let content_type = content_type.to_owned();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { OutgoingError::TooLarge } else { failed(error) })?;
        Ok(Answered { status, content_type, body: body.to_bytes().to_vec() })
    };
    // The connection ends before the last of its bytes are read here; the answer decides.
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answered = ask => answered,
        never = drive => never,
    }
}

fn failed(error: impl std::fmt::Display) -> OutgoingError {
    OutgoingError::Failed(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// A network of test: names resolve to what the test says, answer by answer, and every connection goes to one server.
    pub(crate) struct Pretend {
        pub(crate) server: SocketAddr,
        pub(crate) answers: Vec<Vec<SocketAddr>>,
        pub(crate) resolved: AtomicUsize,
        pub(crate) connected: Mutex<Vec<SocketAddr>>,
    }

    impl Network for Pretend {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let n = self.resolved.fetch_add(1, Ordering::SeqCst);
            let answer = self.answers[n.min(self.answers.len() - 1)].clone();
            Box::pin(async move { Ok(answer) })
        }

        fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
            self.connected.lock().unwrap().push(to);
            Box::pin(TcpStream::connect(self.server))
        }

        fn is_own(&self, _: IpAddr) -> bool {
            false
        }
    }

    /// A server that answers every connection with these bytes and keeps what it was asked.
    pub(crate) async fn server(answer: Vec<u8>, tasks: &mut JoinSet<()>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 64 * 1024];
                let n = stream.read(&mut bytes).await.unwrap();
                kept.lock().unwrap().push(String::from_utf8_lossy(&bytes[..n]).into_owned());
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        (address, asked)
    }

    pub(crate) fn network(server: SocketAddr, answers: &[&[&str]]) -> Arc<Pretend> {
        let each = |list: &&[&str]| list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 1)).collect();
        Arc::new(Pretend {
            server,
            answers: answers.iter().map(each).collect(),
            resolved: AtomicUsize::new(0),
            connected: Mutex::default(),
        })
    }

    fn get(url: &str) -> Call {
        Call { method: Method::GET, url: url.to_owned(), content_type: None, authorization: None, body: Vec::new() }
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_and_only_what_was_checked_is_connected_to() {
        let mut tasks = JoinSet::new();
        let (server, asked) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(), &mut tasks).await;
        // The second answer would be this box: a name that rebinds.
        let network = network(server, &[&["8.8.8.8"], &["127.0.0.1"]]);
        let outgoing = Outgoing::over(&[], 5, network.clone());
        let call = Call {
            method: Method::POST,
            content_type: Some("application/json"),
            authorization: Some("Token secret".to_owned()),
            body: b"{}".to_vec(),
            ..get("http://rebind.example:81/hook?a=b")
        };
        let answered = outgoing.send(call).await.unwrap();
        assert_eq!((answered.status, answered.body.as_slice()), (StatusCode::OK, &b"hi"[..]));
        assert_eq!(network.resolved.load(Ordering::SeqCst), 1);
        assert_eq!(*network.connected.lock().unwrap(), ["8.8.8.8:81".parse().unwrap()]);
        let asked = asked.lock().unwrap()[0].to_lowercase();
        assert!(asked.starts_with("post /hook?a=b http/1.1\r\n") && asked.contains("host: rebind.example:81\r\n"));
        assert!(asked.contains("authorization: token secret\r\n") && asked.ends_with("{}"), "{asked}");
        let error = outgoing.send(get("http://rebind.example/")).await.unwrap_err();
        assert!(matches!(error, OutgoingError::Refused(Refusal::Internal(_))), "{error}");
        assert_eq!(network.connected.lock().unwrap().len(), 1, "nothing was connected to");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_leads_nowhere() {
        let mut tasks = JoinSet::new();
        for (status, location) in [
            ("301 Moved", "http://127.0.0.1/"),
            ("302 Found", "http://8.8.8.8/"),
            ("307 T", "//169.254.169.254/"),
            ("308 P", "/x"),
        ] {
            let answer = format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            let (server, asked) = server(answer.into_bytes(), &mut tasks).await;
            let network = network(server, &[&["8.8.8.8"]]);
            let answered = Outgoing::over(&[], 5, network.clone()).send(get("http://hook.example/")).await.unwrap();
            assert!(answered.status.is_redirection());
            assert_eq!((asked.lock().unwrap().len(), network.connected.lock().unwrap().len()), (1, 1));
        }
    }

    #[tokio::test]
    async fn size_and_time_end() {
        let mut tasks = JoinSet::new();
        let mut large = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        large.resize(ANSWER_BYTES_MAX + 1_000, b'x');
        let (address, _) = server(large, &mut tasks).await;
        let outgoing = Outgoing::over(&[], 20, network(address, &[&["8.8.8.8"]]));
        let error = outgoing.send(get("http://hook.example/")).await.unwrap_err();
        assert!(matches!(error, OutgoingError::TooLarge), "{error}");
        // Accepts and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outgoing = Outgoing::over(&[], 1, network(silent.local_addr().unwrap(), &[&["8.8.8.8"]]));
        let error = outgoing.send(get("http://hook.example/")).await.unwrap_err();
        assert!(matches!(error, OutgoingError::TimedOut(1)), "{error}");
        let (garbage, _) = server(b"SSH-2.0-x\r\n".to_vec(), &mut tasks).await;
        let outgoing = Outgoing::over(&[], 5, network(garbage, &[&["8.8.8.8"]]));
        assert!(matches!(outgoing.send(get("http://hook.example/")).await.unwrap_err(), OutgoingError::Failed(_)));
    }

    #[tokio::test]
    async fn this_box_is_reached_only_when_it_is_listed() {
        let mut tasks = JoinSet::new();
        let (address, asked) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), &mut tasks).await;
        let url = format!("http://127.0.0.1:{}/", address.port());
        let refused = Outgoing::new(&[], 5).send(get(&url)).await.unwrap_err();
        assert!(matches!(refused, OutgoingError::Refused(_)), "{refused}");
        let named = format!("http://localhost:{}/", address.port());
        assert!(Outgoing::new(&[], 5).send(get(&named)).await.is_err());
        assert!(asked.lock().unwrap().is_empty());
        Outgoing::new(&["127.0.0.0/8".to_owned()], 5).send(get(&url)).await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 1);
        assert!(Real.is_own("127.0.0.1".parse().unwrap()) && !Real.is_own("8.8.8.8".parse().unwrap()));
        assert!(Outgoing::new(&[], 5).check_url("http://10.0.0.1/x").is_err());
    }
}
