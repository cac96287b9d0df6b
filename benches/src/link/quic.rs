//! quinn with its own congestion controllers: what an application gets that opens a stream and writes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::flow::{Delivered, Plan};
use crate::Error;
use emulator::{FAR, Link, NEAR};

const PORT: u16 = 4433;
const NAME: &str = "bench.invalid";

/// Larger than any path's bandwidth times delay here, so that flow control limits nothing.
const WINDOW_BYTES: u32 = 8 << 20;

/// A handshake at 30 % loss may need many repetitions; slower than this is not delivered.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Cubic,
    Bbr,
}

/// What is sent over the one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    /// As much as fits until this is measured.
    Until(Plan),
    /// So many bytes, and it ends when the receiver has them all or this time is over.
    Bytes(u64, Duration),
}

/// Sends over one stream of a fresh connection and records what the receiving application has read.
///
/// # Errors
/// When no connection comes about.
pub(crate) fn send(link: &Link, control: Control, amount: Amount, delivered: &Delivered<'_>) -> Result<(), Error> {
    let certificate = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let certificate = certificate.cert.der().clone();
    let over = async || match amount {
        Amount::Bytes(_, time) => tokio::time::sleep(time).await,
        Amount::Until(plan) => {
            while !delivered.is_measured(plan) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let server = server(control, certificate.clone(), key.into())?;
            link.far.run_async(async || receive(server, over(), delivered).await)
        });
        let sent = link.near.run_async(async || {
            let client = client(control, certificate.clone())?;
            tokio::select! { done = transmit(client, amount) => done, () = over() => Ok(()) }
        });
        let received = receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent.and(received)
    })
}

async fn transmit(client: ClientConfig, amount: Amount) -> Result<(), Error> {
    let mut endpoint = Endpoint::client(SocketAddr::from((NEAR, 0)))?;
    endpoint.set_default_client_config(client);
    let connection = endpoint.connect(SocketAddr::from((FAR, PORT)), NAME)?.await?;
    let mut stream = connection.open_uni().await?;
    let block = super::noise(1, 64 << 10);
    match amount {
        // The caller ends it.
        Amount::Until(_) => loop {
            stream.write_all(&block).await?;
        },
        Amount::Bytes(bytes, _) => {
            let mut left = bytes;
            while left > 0 {
                let now = left.min(block.len() as u64);
                stream.write_all(&block[..now as usize]).await?;
                left -= now;
            }
            stream.finish()?;
            // Until the receiver has confirmed everything.
            stream.stopped().await?;
            Ok(())
        }
    }
}

async fn receive(server: ServerConfig, over: impl Future<Output = ()>, delivered: &Delivered<'_>) -> Result<(), Error> {
    let socket = std::net::UdpSocket::bind((FAR, PORT))?;
    let runtime = quinn::default_runtime().ok_or("no runtime for quinn")?;
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)?;
    let work = async {
        let incoming = endpoint.accept().await.ok_or("the endpoint was closed")?;
        let connection = tokio::time::timeout(HANDSHAKE_MAX, incoming).await??;
        let mut stream = connection.accept_uni().await?;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
            delivered.add(chunk.bytes.len() as u64);
        }
        Ok::<_, Error>(())
    };
    // At the end of the time the sender just stops.
    let done = tokio::select! { done = work => done, () = over => Ok(()) };
    endpoint.close(VarInt::from_u32(0), b"");
    done
}

fn transport(control: Control) -> Arc<TransportConfig> {
    let control: Arc<dyn ControllerFactory + Send + Sync> = match control {
        Control::Cubic => Arc::new(CubicConfig::default()),
        Control::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut config = TransportConfig::default();
    config
        // The default of 30 s would end connections in an outage.
        .max_idle_timeout(Some(VarInt::from_u32(120_000).into()))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .congestion_controller_factory(control);
    Arc::new(config)
}

fn server(
    control: Control,
    certificate: CertificateDer<'static>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(control));
    Ok(config)
}

fn client(control: Control, certificate: CertificateDer<'static>) -> Result<ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(control));
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
