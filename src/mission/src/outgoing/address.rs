//! Where a request may go: pure functions from texts and addresses to a verdict.
//!
//! Whoever makes a webhook or a command chooses the URL, and the request leaves from inside the mission network. So a target is
//! refused unless every address behind it is one of the public internet, or an operator listed it.
//!
//! Sources: the IANA registries of special-purpose addresses (RFC 6890 and its successors), the WHATWG URL standard for the ways
//! of writing an IPv4 address, RFC 6052 and RFC 4291 for IPv4 within IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;
use http::uri::Scheme;

/// Longest URL that is called.
const URL_BYTES_MAX: usize = 2_048;

/// Why a request does not go out. Shown to whoever set the URL up; says nothing of the network behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not a URL of http or https with a host, or one with a user name in it.
    #[error("the URL cannot be called: {0}")]
    Url(&'static str),
    /// The host is not on the public internet and not listed.
    #[error("{0} is not on the public internet; an administrator can list it in core.integrations.allowed_internal")]
    Internal(String),
}

/// A URL that may be tried, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) is_https: bool,
    /// A name in lower case without a final dot, or the text of an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query for the request line.
    pub(crate) path: String,
    /// `Host` of the request.
    pub(crate) authority: String,
    /// The address, where the host is one, however it is written.
    pub(crate) literal: Option<IpAddr>,
}

/// Hosts and networks that may be called although they are not public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    names: Vec<String>,
    networks: Vec<(IpAddr, u8)>,
}

impl Allowed {
    /// Entries are names, addresses or networks as `10.1.0.0/16`.
    ///
    /// # Errors
    /// The first entry that is none of these.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, String> {
        let mut allowed = Self::default();
        for entry in entries {
            let text = entry.trim().to_ascii_lowercase();
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits)),
                None => (text.as_str(), None),
            };
            match (address.parse::<IpAddr>(), bits.map(str::parse::<u8>)) {
                (Ok(address), None) => allowed.networks.push((address, width(address))),
                (Ok(address), Some(Ok(bits))) if bits <= width(address) => allowed.networks.push((address, bits)),
                (Err(_), None) if is_name(address) => allowed.names.push(address.to_owned()),
                (Ok(_), Some(_)) | (Err(_), None | Some(_)) => return Err(entry.clone()),
            }
        }
        Ok(allowed)
    }

    fn has_name(&self, host: &str) -> bool {
        self.names.iter().any(|name| name == host)
    }

    /// Is the address listed, by itself or by its network?
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        // What is written as IPv6 and means IPv4 goes by the rule for IPv4.
        let address = address.to_canonical();
        self.networks.iter().any(|(network, bits)| prefix(*network, *bits) == prefix(address, *bits))
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first bits of an address, with its family.
fn prefix(address: IpAddr, bits: u8) -> (bool, u128) {
    let number = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (address.is_ipv4(), if bits == 0 { 0 } else { number >> (128 - u32::from(bits)) })
}

fn is_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && !text.is_empty() && text.split('.').all(label)
}

/// Reads a URL.
///
/// # Errors
/// [`Refusal::Url`] for what no request is made of.
pub(crate) fn target(url: &str) -> Result<Target, Refusal> {
    if url.len() > URL_BYTES_MAX || url.bytes().any(|b| !(0x21..0x7f).contains(&b)) || url.contains('\\') {
        return Err(Refusal::Url("it is too long, or has characters that must be escaped"));
    }
    let uri: Uri = url.split('#').next().unwrap_or("").parse().map_err(|_| Refusal::Url("it is no URL"))?;
    let is_https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(_) | None => return Err(Refusal::Url("only http and https are called")),
    };
    let authority = uri.authority().ok_or(Refusal::Url("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(Refusal::Url("it carries a user name"));
    }
    let host = authority.host();
    let after = &authority.as_str()[host.len()..];
    let port = match after.strip_prefix(':') {
        None if after.is_empty() => {
            if is_https {
                443
            } else {
                80
            }
        }
        Some(port) => {
            let digits = Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
            let number = digits.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
            number.ok_or(Refusal::Url("its port is none"))?
        }
        None => return Err(Refusal::Url("its host is none")),
    };
    let (host, literal) = host_of(host)?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let shown = if matches!(literal, Some(IpAddr::V6(_))) { format!("[{host}]") } else { host.clone() };
    let is_default = port == if is_https { 443 } else { 80 };
    let authority = if is_default { shown } else { format!("{shown}:{port}") };
    Ok(Target { is_https, host, port, path, authority, literal })
}

/// The host as a name or an address.
fn host_of(host: &str) -> Result<(String, Option<IpAddr>), Refusal> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(Refusal::Url("its host is none"))?;
        // A zone (`%eth0`) only makes sense within this box.
        let address: Ipv6Addr = inner.parse().map_err(|_| Refusal::Url("its host is no address"))?;
        return Ok((address.to_string(), Some(IpAddr::V6(address))));
    }
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if !is_name(host) {
        return Err(Refusal::Url("its host is no name"));
    }
    let last = host.rsplit('.').next().unwrap_or("");
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if !is_number {
        return Ok((host.to_owned(), None));
    }
    let address = ipv4_of(host).ok_or(Refusal::Url("its host is no address"))?;
    Ok((address.to_string(), Some(IpAddr::V4(address))))
}

/// An IPv4 address in any of the forms that resolvers take: one to four parts, each decimal, octal (`0177`) or hexadecimal.
fn ipv4_of(host: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = host.split('.').collect();
    let number = |text: &str| match text.strip_prefix("0x") {
        Some("") => Some(0),
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    };
    let numbers = parts.iter().map(|part| number(part)).collect::<Option<Vec<u64>>>()?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|n| *n > 255) || *last >= 1 << (8 * (4 - first.len())) {
        return None;
    }
    let whole = first.iter().enumerate().fold(*last, |sum, (n, part)| sum | part << (8 * (3 - n)));
    u32::try_from(whole).ok().map(Ipv4Addr::from_bits)
}

/// Names that mean this box or its network whatever a resolver says.
fn is_inner_name(host: &str) -> bool {
    const NAMES: [&str; 5] =
        ["localhost", "ip6-localhost", "ip6-loopback", "broadcasthost", "metadata.google.internal"];
    const SUFFIXES: [&str; 8] =
        [".localhost", ".localdomain", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".onion"];
    NAMES.contains(&host) || SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
}

/// Is the address one of the public internet?
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const SPECIAL: [(Ipv4Addr, u8); 21] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        // Among them the metadata of clouds, as is the next but three.
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(168, 63, 129, 16), 32),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 31, 196, 0), 24),
        (Ipv4Addr::new(192, 52, 193, 0), 24),
        (Ipv4Addr::new(192, 88, 99, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(192, 175, 48, 0), 24),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        (Ipv4Addr::new(224, 0, 0, 0), 4),
        (Ipv4Addr::new(233, 252, 0, 0), 24),
        (Ipv4Addr::new(240, 0, 0, 0), 4),
        (Ipv4Addr::new(255, 255, 255, 255), 32),
    ];
    let address = IpAddr::V4(address);
    !SPECIAL.iter().any(|(network, bits)| prefix(IpAddr::V4(*network), *bits) == prefix(address, *bits))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    const fn net(a: u16, b: u16, c: u16) -> Ipv6Addr {
        Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
    }
    /// Within the global unicast space, what is not of the public internet: protocol assignments with Teredo and ORCHID,
    /// documentation, 6to4, AS112.
    const SPECIAL: [(Ipv6Addr, u8); 5] = [
        (net(0x2001, 0, 0), 23),
        (net(0x2001, 0xdb8, 0), 32),
        (net(0x2002, 0, 0), 16),
        (net(0x2620, 0x4f, 0x8000), 48),
        (net(0x3fff, 0, 0), 20),
    ];
    let within = |network: Ipv6Addr, bits| prefix(IpAddr::V6(network), bits) == prefix(IpAddr::V6(address), bits);
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    // How a network without IPv4 writes one (NAT64, RFC 6052): what counts is where it leads.
    if within(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96) {
        let [.., high, low] = address.segments();
        return is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    // The interface part of ISATAP holds an IPv4 address that a router on the way may act on.
    let [_, _, _, _, isatap @ .., high, low] = address.segments();
    if matches!(isatap, [0 | 0x200, 0x5efe])
        && !is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    {
        return false;
    }
    within(net(0x2000, 0, 0), 3) && !SPECIAL.iter().any(|(network, bits)| within(*network, *bits))
}

/// May the request go, as far as the text of its URL tells? Says no to what can be refused without asking a resolver.
///
/// # Errors
/// [`Refusal::Internal`].
pub(crate) fn check_text(target: &Target, allowed: &Allowed) -> Result<(), Refusal> {
    let refused = || Err(Refusal::Internal(target.host.clone()));
    match target.literal {
        Some(address) if !is_public(address) && !allowed.has_address(address) => refused(),
        None if is_inner_name(&target.host) && !allowed.has_name(&target.host) => refused(),
        Some(_) | None => Ok(()),
    }
}

/// The addresses to which a connection may be made: all that were found, if each of them may be called. One that may not spoils
/// the lot, since the next answer could hold it alone.
///
/// # Errors
/// [`Refusal::Internal`].
pub(crate) fn check_addresses(
    target: &Target,
    found: &[SocketAddr],
    allowed: &Allowed,
    is_own: impl Fn(IpAddr) -> bool,
) -> Result<Vec<SocketAddr>, Refusal> {
    check_text(target, allowed)?;
    let may = |address: IpAddr| {
        allowed.has_name(&target.host)
            || allowed.has_address(address)
            || (is_public(address) && !is_own(address.to_canonical()))
    };
    match !found.is_empty() && found.iter().all(|address| may(address.ip())) {
        // The port is that of the URL, whatever the resolver made of it.
        true => Ok(found.iter().map(|address| SocketAddr::new(address.ip(), target.port)).collect()),
        false => Err(Refusal::Internal(target.host.clone())),
    }
}

#[cfg(test)]
#[path = "table.rs"]
mod table;
