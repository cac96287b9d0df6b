//! Configuration of the links.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use keys::{Peer, PeerName, PeerRole};
use model::{BitsPerSecond, ByteSize, Label, Precedence};
use shaper::budget::Budget;
use wire::parcel::LABELS_MAX;

use crate::contact::{Window, WindowSettings};
use crate::https::HttpsSettings;
use crate::idle;
use crate::parcel::ROUNDS_MAX;

/// Section `[carrier]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarrierSettings {
    /// Where peers reach this node, UDP, e.g. `0.0.0.0:7800`. Without it the node only dials.
    pub listen: Option<SocketAddr>,
    /// Where peers reach this node over HTTPS, TCP, e.g. `0.0.0.0:443`.
    pub https_listen: Option<SocketAddr>,
    /// File with the web certificate and its chain (PEM); one that nobody signed is made when absent.
    pub https_certificate: Option<PathBuf>,
    /// File with the key of the web certificate (PEM).
    pub https_key: Option<PathBuf>,
    /// Ceiling for everything sent to a peer that has no rate of its own, all headers included, e.g. `256kbit/s`.
    pub rate: BitsPerSecond,
    /// Release labels that a peer without a list of its own may get.
    #[serde(deserialize_with = "few")]
    pub labels: Vec<Label>,
    /// Files of a peer that are larger come only when somebody here wants them, e.g. `1MB`. Without it all come by themselves.
    pub files_on_request_above: Option<ByteSize>,
    /// Nothing of a backlog has moved for so long: the operator is told. 0 for never.
    pub no_progress_after_minutes: u32,
    /// Where datagrams of one-way lanes arrive, UDP, e.g. `0.0.0.0:7900`. Nothing is ever sent from there.
    pub oneway_listen: Option<SocketAddr>,
    /// How much of what others write for each other this node holds and carries on, e.g. `256MB`. Without it, nothing.
    pub transit_limit: Option<ByteSize>,
    /// For how long, in hours.
    pub transit_age_hours: u32,
    /// Sections `[carrier.peers.NAME]`.
    #[serde(deserialize_with = "coherent")]
    pub peers: BTreeMap<PeerName, PeerSettings>,
}

impl Default for CarrierSettings {
    fn default() -> Self {
        let mission = "mission".parse().expect("`mission` is a label");
        Self {
            listen: None,
            https_listen: None,
            https_certificate: None,
            https_key: None,
            rate: BitsPerSecond(256_000),
            labels: vec![Label::directory(), mission],
            files_on_request_above: None,
            no_progress_after_minutes: 15,
            oneway_listen: None,
            transit_limit: None,
            transit_age_hours: 720,
            peers: BTreeMap::new(),
        }
    }
}

/// Section `[carrier.peers.NAME]`: what differs for one peer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerSettings {
    /// Where to dial it, as `host:port`, if not where it was at enrolment.
    pub address: Option<String>,
    /// Ceiling for everything sent to it, all headers included, e.g. `64kbit/s`.
    pub rate: Option<BitsPerSecond>,
    /// Release labels that it may get.
    #[serde(deserialize_with = "some_few")]
    pub labels: Option<Vec<Label>>,
    /// Its files that are larger come only when somebody here wants them.
    pub files_on_request_above: Option<ByteSize>,
    /// The links to it, `[[carrier.peers.NAME.links]]`. Without any there is one, made of what stands above.
    #[serde(deserialize_with = "distinct")]
    pub links: Vec<LinkSettings>,
    /// This node never dials it, and raises no alarm while there is no link: there is no way, or only a one-way one.
    pub never_dial: bool,
    /// Section `[carrier.peers.NAME.oneway]`: a lane to it over which nothing comes back, such as through a data diode.
    pub oneway: Option<OneWaySettings>,
    /// The peer that carries on what is for this one, and brings what this one writes: this node does not dial it.
    pub via: Option<PeerName>,
    /// After so many minutes what was handed to that relay and has no receipt is written again.
    pub via_repeat_minutes: u32,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            address: None,
            rate: None,
            labels: None,
            files_on_request_above: None,
            links: Vec::new(),
            never_dial: false,
            oneway: None,
            via: None,
            via_repeat_minutes: 1_440,
        }
    }
}

impl PeerSettings {
    fn contradiction(&self, name: &PeerName) -> Option<&'static str> {
        match &self.via {
            None => None,
            Some(relay) if relay == name => Some("`via` names the peer itself"),
            Some(_) if self.oneway.is_some() => Some("`via` and a one-way lane cannot both lead there"),
            Some(_) if !self.links.is_empty() || self.address.is_some() => {
                Some("with `via` it has no links and no address: it is not dialled")
            }
            Some(_) => None,
        }
    }
}

/// Section `[carrier.peers.NAME.oneway]`: parcels over UDP to a peer that cannot answer there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneWaySettings {
    /// Where to send, as `host:port`: the diode, or the peer's `carrier.oneway_listen`.
    pub to: String,
    /// Own address that it leaves from.
    #[serde(default)]
    pub bind: Option<IpAddr>,
    /// Interface that it leaves through.
    #[serde(default)]
    pub interface: Option<String>,
    /// Differentiated services code point of its packets, 0 to 63.
    #[serde(default, deserialize_with = "six_bits")]
    pub dscp: u8,
    /// Ceiling for everything sent there, all headers included.
    pub rate: BitsPerSecond,
    /// How often each parcel is sent; flash two times more. 1 to 100.
    #[serde(default = "three", deserialize_with = "up_to_100")]
    pub passes: u32,
    /// Symbols that each pass has beyond those that make a parcel whole, in percent; flash has twice as many. 0 to 400.
    #[serde(default = "thirty", deserialize_with = "up_to_400")]
    pub redundancy_percent: u32,
    /// After so many minutes what has no receipt is sent again, in new parcels.
    #[serde(default = "sixty")]
    pub repeat_minutes: u32,
    /// After so many rounds without a receipt an entry counts as sent, unconfirmed, and is not sent again; 0 for never. At most 16.
    #[serde(default, deserialize_with = "up_to_16")]
    pub rounds: u32,
}

fn three() -> u32 {
    3
}

fn thirty() -> u32 {
    30
}

fn sixty() -> u32 {
    60
}

impl OneWaySettings {
    /// After which what has no receipt is sent again. 0 minutes are as soon as makes sense.
    pub(crate) fn repeat(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.repeat_minutes)).max(Duration::from_secs(5))
    }
}

fn within<'de, D: serde::Deserializer<'de>>(d: D, least: u32, most: u32) -> Result<u32, D::Error> {
    let value = <u32 as serde::Deserialize>::deserialize(d)?;
    let wrong = || serde::de::Error::custom(format!("{value} is not within {least} to {most}"));
    if (least..=most).contains(&value) { Ok(value) } else { Err(wrong()) }
}

fn up_to_100<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(d, 1, 100)
}

fn up_to_400<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(d, 0, 400)
}

fn up_to_16<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    within(d, 0, ROUNDS_MAX)
}

/// Section `[[carrier.peers.NAME.links]]`: one of several links to a peer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSettings {
    /// What operators, and the peer, call it.
    pub name: LinkName,
    /// How frames travel over it.
    #[serde(default)]
    pub lane: LaneKind,
    /// For `lane = "https"`: proxy and web certificate.
    #[serde(default)]
    pub https: HttpsSettings,
    /// Where to dial the peer over it, as `host:port`, if not where the peer is dialled otherwise.
    #[serde(default)]
    pub address: Option<String>,
    /// Own address that it leaves from.
    #[serde(default)]
    pub bind: Option<IpAddr>,
    /// Interface that it leaves through.
    #[serde(default)]
    pub interface: Option<String>,
    /// Ceiling for everything sent over it, all headers included.
    #[serde(default)]
    pub rate: Option<BitsPerSecond>,
    /// What a megabyte costs, in a unit of the operator's choice: bulk goes over the cheapest link that admits it.
    #[serde(default)]
    pub cost: u64,
    /// What its one-way delay is about, in milliseconds, until it was measured.
    #[serde(default)]
    pub delay_ms: u64,
    /// Classes that it carries; all when absent.
    #[serde(default)]
    pub classes: Option<BTreeSet<Precedence>>,
    /// Differentiated services code point of its packets, 0 to 63.
    #[serde(default, deserialize_with = "six_bits")]
    pub dscp: u8,
    /// Bytes that may be sent over it each day, UTC, all headers included.
    #[serde(default)]
    pub budget_per_day: Option<ByteSize>,
    /// Bytes that may be sent over it each month, UTC.
    #[serde(default)]
    pub budget_per_month: Option<ByteSize>,
    /// Seconds between two signs of life while nothing else is sent, 0 for none at all; by default as the lane needs it.
    #[serde(default)]
    pub keepalive_seconds: Option<u16>,
    /// When it can be used; always when empty.
    #[serde(default, deserialize_with = "sensible")]
    pub windows: Vec<WindowSettings>,
}

impl LinkSettings {
    fn contradiction(&self) -> Option<&'static str> {
        match self.lane {
            LaneKind::Quic if self.https != HttpsSettings::default() => {
                Some("`https` says something only with lane = \"https\"")
            }
            LaneKind::Quic | LaneKind::OneWay => None,
            LaneKind::Https => self.https.problem(),
        }
    }

    /// Where the peer is dialled over it; `plain` is where it is dialled otherwise. The port of HTTPS is another one.
    fn dialled_at(&self, plain: &str) -> String {
        match (&self.address, self.lane) {
            (Some(own), _) => own.clone(),
            (None, LaneKind::Quic | LaneKind::OneWay) => plain.to_owned(),
            (None, LaneKind::Https) => {
                format!("{}:{HTTPS_PORT}", plain.rsplit_once(':').map_or(plain, |(host, _)| host))
            }
        }
    }
}

/// Where a peer is dialled over HTTPS unless the link says otherwise.
const HTTPS_PORT: u16 = 443;

/// How frames travel over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneKind {
    /// QUIC over UDP.
    #[default]
    Quic,
    /// A WebSocket over TLS, for where nothing else passes.
    Https,
    /// Parcels in UDP datagrams to a side that cannot answer: a section of its own and not one of the links.
    #[serde(skip_deserializing)]
    OneWay,
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Https => "https",
            Self::OneWay => "oneway",
        })
    }
}

/// Links of one peer. More would be a mistake; each costs a connection and its keepalives.
pub(crate) const LINKS_MAX: usize = 8;

fn distinct<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<LinkSettings>, D::Error> {
    let links = <Vec<LinkSettings> as serde::Deserialize>::deserialize(d)?;
    let names: BTreeSet<&LinkName> = links.iter().map(|link| &link.name).collect();
    if names.contains(&LinkName::oneway()) {
        return Err(serde::de::Error::custom("`oneway` is the one-way lane; it has a section of its own"));
    }
    if names.len() < links.len() {
        return Err(serde::de::Error::custom("two links of a peer have the same name"));
    }
    if links.len() > LINKS_MAX {
        return Err(serde::de::Error::custom(format!("a peer has {LINKS_MAX} links at most")));
    }
    let contradiction = links.iter().find_map(|link| link.contradiction().map(|text| (&link.name, text)));
    if let Some((name, text)) = contradiction {
        return Err(serde::de::Error::custom(format!("link {name}: {text}")));
    }
    Ok(links)
}

fn coherent<'de, D: serde::Deserializer<'de>>(d: D) -> Result<BTreeMap<PeerName, PeerSettings>, D::Error> {
    let peers = <BTreeMap<PeerName, PeerSettings> as serde::Deserialize>::deserialize(d)?;
    let contradiction = peers.iter().find_map(|(name, peer)| peer.contradiction(name).map(|text| (name, text)));
    match contradiction {
        Some((name, text)) => Err(serde::de::Error::custom(format!("peer {name}: {text}"))),
        None => Ok(peers),
    }
}

/// A parcel names the labels of what is in it.
fn few<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Label>, D::Error> {
    let labels = <Vec<Label> as serde::Deserialize>::deserialize(d)?;
    let too_many = || serde::de::Error::custom(format!("a peer has {LABELS_MAX} labels at most"));
    if labels.len() > LABELS_MAX { Err(too_many()) } else { Ok(labels) }
}

fn some_few<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Vec<Label>>, D::Error> {
    few(d).map(Some)
}

fn six_bits<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u8, D::Error> {
    let value = <u8 as serde::Deserialize>::deserialize(d)?;
    let wrong = || serde::de::Error::custom(format!("{value} is no code point; 0 to 63 are"));
    if value < 64 { Ok(value) } else { Err(wrong()) }
}

fn sensible<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<WindowSettings>, D::Error> {
    let windows = <Vec<WindowSettings> as serde::Deserialize>::deserialize(d)?;
    windows.iter().try_for_each(|window| Window::parse(window).map(|_| ())).map_err(serde::de::Error::custom)?;
    Ok(windows)
}

/// What a link is called: 1 to 32 of a-z, 0-9 and -.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct LinkName(String);

/// Text that is no name of a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name for a link; use 1 to 32 of a-z, 0-9 and -")]
pub struct BadLinkName(pub String);

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of the one-way lane.
    pub(crate) fn oneway() -> Self {
        Self("oneway".to_owned())
    }

    /// Of the one link of a peer for which none are configured.
    pub(crate) fn main() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LinkName {
    type Err = BadLinkName;

    fn from_str(s: &str) -> Result<Self, BadLinkName> {
        let fits =
            (1..=32).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(s.to_owned())) } else { Err(BadLinkName(s.to_owned())) }
    }
}

impl<'de> serde::Deserialize<'de> for LinkName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <String as serde::Deserialize>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One link to a peer with everything that its settings leave to the peer's.
#[derive(Clone, Debug)]
pub(crate) struct LinkPlan {
    pub(crate) name: LinkName,
    /// Where to dial; `None` where the peer dials.
    pub(crate) address: Option<String>,
    pub(crate) out: Outlet,
    /// The way over HTTPS; QUIC without one.
    pub(crate) https: Option<HttpsSettings>,
    pub(crate) rate: BitsPerSecond,
    pub(crate) cost: u64,
    pub(crate) delay: Duration,
    /// By class.
    pub(crate) admits: [bool; 5],
    pub(crate) budget: Budget,
    pub(crate) windows: Vec<Window>,
    /// Seconds between two signs of life; 0 for none.
    pub(crate) keepalive_seconds: u16,
}

impl LinkPlan {
    pub(crate) fn kind(&self) -> LaneKind {
        match &self.https {
            None => LaneKind::Quic,
            Some(_) => LaneKind::Https,
        }
    }
}

/// Which way packets leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlet {
    pub(crate) bind: Option<IpAddr>,
    pub(crate) interface: Option<String>,
    pub(crate) dscp: u8,
}

impl CarrierSettings {
    /// What the links to a peer are called.
    pub fn link_names(&self, peer: &Peer) -> Vec<LinkName> {
        let oneway = self.peers.get(&peer.name).and_then(|p| p.oneway.as_ref()).map(|_| LinkName::oneway());
        self.links_of(peer).into_iter().map(|link| link.name).chain(oneway).collect()
    }

    /// The links to a peer, as configured.
    pub(crate) fn links_of(&self, peer: &Peer) -> Vec<LinkPlan> {
        let plain = self.plain_link(peer, LinkName::main());
        let links = self.peers.get(&peer.name).map(|p| p.links.as_slice()).unwrap_or_default();
        if links.is_empty() {
            return vec![plain];
        }
        let of = |link: &LinkSettings| LinkPlan {
            name: link.name.clone(),
            address: plain.address.as_deref().map(|plain| link.dialled_at(plain)),
            out: Outlet { bind: link.bind, interface: link.interface.clone(), dscp: link.dscp },
            https: match link.lane {
                LaneKind::Quic | LaneKind::OneWay => None,
                LaneKind::Https => Some(link.https.clone()),
            },
            rate: link.rate.unwrap_or(plain.rate),
            cost: link.cost,
            delay: Duration::from_millis(link.delay_ms),
            admits: Precedence::ALL.map(|class| link.classes.as_ref().is_none_or(|classes| classes.contains(&class))),
            budget: Budget {
                per_day: link.budget_per_day.map(|size| size.0),
                per_month: link.budget_per_month.map(|size| size.0),
            },
            keepalive_seconds: link.keepalive_seconds.unwrap_or(idle::seconds_by_default(link.lane)),
            // Parsed once already, when the configuration was read.
            windows: link.windows.iter().filter_map(|window| Window::parse(window).ok()).collect(),
        };
        links.iter().map(of).collect()
    }

    /// A link that is nothing but what the peer's own settings say: the only one, or one that the peer has and this
    /// side's configuration does not name.
    pub(crate) fn plain_link(&self, peer: &Peer, name: LinkName) -> LinkPlan {
        let address = match peer.role {
            PeerRole::Hub if self.peers.get(&peer.name).is_some_and(|p| p.never_dial || p.via.is_some()) => None,
            PeerRole::Hub => self.address_of(&peer.name, peer.address.as_deref()).map(str::to_owned),
            PeerRole::Edge => None,
        };
        LinkPlan {
            name,
            address,
            out: Outlet::default(),
            https: None,
            rate: self.rate_of(&peer.name),
            cost: 0,
            delay: Duration::ZERO,
            admits: [true; 5],
            budget: Budget::default(),
            windows: Vec::new(),
            keepalive_seconds: idle::seconds_by_default(LaneKind::Quic),
        }
    }

    /// The relay that a peer is reached over.
    pub fn via_of(&self, peer: &PeerName) -> Option<&PeerName> {
        self.peers.get(peer)?.via.as_ref()
    }

    /// The ceiling towards a peer.
    pub fn rate_of(&self, peer: &PeerName) -> BitsPerSecond {
        self.peers.get(peer).and_then(|p| p.rate).unwrap_or(self.rate)
    }

    /// What a peer may get.
    pub fn labels_of(&self, peer: &PeerName) -> &[Label] {
        self.peers.get(peer).and_then(|p| p.labels.as_deref()).unwrap_or(&self.labels)
    }

    /// Files of a peer with more bytes come only on request; `None` when all come by themselves.
    pub fn files_on_request_above_of(&self, peer: &PeerName) -> Option<u64> {
        let own = self.peers.get(peer).and_then(|p| p.files_on_request_above);
        own.or(self.files_on_request_above).map(|size| size.0)
    }

    /// Where to dial a peer; `enrolled` is what its registry record says.
    pub fn address_of<'a>(&'a self, peer: &PeerName, enrolled: Option<&'a str>) -> Option<&'a str> {
        self.peers.get(peer).and_then(|p| p.address.as_deref()).or(enrolled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_not_say_comes_from_the_section() {
        let json = r#"{"rate": "64kbit/s", "peers": {"alpha": {"rate": "9600bit/s", "address": "10.0.0.1:7800"}}}"#;
        let settings: CarrierSettings = serde_json::from_str(json).unwrap();
        let (alpha, bravo) = ("alpha".parse().unwrap(), "bravo".parse().unwrap());
        assert_eq!(settings.rate_of(&alpha), BitsPerSecond(9_600));
        assert_eq!(settings.rate_of(&bravo), BitsPerSecond(64_000));
        assert_eq!(settings.address_of(&alpha, Some("old:1")), Some("10.0.0.1:7800"));
        assert_eq!(settings.address_of(&bravo, Some("old:1")), Some("old:1"));
        assert_eq!(settings.labels_of(&alpha).len(), 2);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<CarrierSettings>(r#"{"listenn": "0.0.0.0:7800"}"#).is_err());
        assert!(serde_json::from_str::<CarrierSettings>(r#"{"peers": {"a": {"rat": "1kbit/s"}}}"#).is_err());
    }

    #[test]
    fn a_peer_behind_a_relay_has_no_way_of_its_own() {
        let of = |peer: serde_json::Value| {
            let settings = serde_json::json!({"peers": {"bravo": peer}});
            serde_json::from_value::<CarrierSettings>(settings).map_err(|e| e.to_string())
        };
        let settings = of(serde_json::json!({"via": "ship"})).unwrap();
        assert_eq!(settings.via_of(&"bravo".parse().unwrap()), Some(&"ship".parse().unwrap()));
        assert_eq!(settings.via_of(&"ship".parse().unwrap()), None);
        for (wrong, part) in [
            (serde_json::json!({"via": "bravo"}), "the peer itself"),
            (serde_json::json!({"via": "ship", "address": "192.0.2.1:7800"}), "not dialled"),
            (serde_json::json!({"via": "ship", "links": [{"name": "radio"}]}), "not dialled"),
            (serde_json::json!({"via": "ship", "oneway": {"to": "192.0.2.1:7900", "rate": "1Mbit/s"}}), "one-way"),
        ] {
            let problem = of(wrong).unwrap_err();
            assert!(problem.contains(part) && problem.contains("peer bravo"), "{problem}");
        }
    }

    fn link(json: serde_json::Value) -> Result<LinkSettings, String> {
        let settings = serde_json::json!({"peers": {"a": {"links": [json]}}});
        let settings = serde_json::from_value::<CarrierSettings>(settings).map_err(|e| e.to_string())?;
        Ok(settings.peers.into_values().next().unwrap().links.remove(0))
    }

    #[test]
    fn https_is_dialled_at_the_port_of_the_web_unless_the_link_says_otherwise() {
        let of = |json| link(json).unwrap().dialled_at("[2001:db8::7]:7800");
        assert_eq!(of(serde_json::json!({"name": "radio"})), "[2001:db8::7]:7800");
        assert_eq!(of(serde_json::json!({"name": "web", "lane": "https"})), "[2001:db8::7]:443");
        assert_eq!(of(serde_json::json!({"name": "web", "lane": "https", "address": "hub:8443"})), "hub:8443");
    }

    #[test]
    fn contradictions_about_https_are_found_when_the_configuration_is_read() {
        let of = |https| link(serde_json::json!({"name": "web", "lane": "https", "https": https}));
        let pin = "9F".repeat(32);
        assert!(of(serde_json::json!({"pin": pin, "proxy": "proxy.example:3128", "proxy_login": "/l"})).is_ok());
        for (wrong, part) in [
            (serde_json::json!({"pin": "9f"}), "64 hexadecimal digits"),
            (serde_json::json!({"pin": pin, "authorities": "/ca.pem"}), "not both"),
            (serde_json::json!({"proxy": "proxy.example"}), "host:port"),
            (serde_json::json!({"proxy_login": "/l"}), "without `proxy`"),
        ] {
            let problem = of(wrong).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
        let problem = link(serde_json::json!({"name": "radio", "https": {"pin": pin}})).unwrap_err();
        assert!(problem.contains("link radio"), "{problem}");
    }
}
