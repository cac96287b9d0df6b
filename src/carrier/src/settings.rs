//! Configuration of the links.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use keys::PeerName;
use model::{BitsPerSecond, Label};

/// Section `[carrier]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarrierSettings {
    /// Where peers reach this node, UDP, e.g. `0.0.0.0:7800`. Without it the node only dials.
    pub listen: Option<SocketAddr>,
    /// Ceiling for everything sent to a peer that has no rate of its own, all headers included, e.g. `256kbit/s`.
    pub rate: BitsPerSecond,
    /// Release labels that a peer without a list of its own may get.
    pub labels: Vec<Label>,
    /// Sections `[carrier.peers.NAME]`.
    pub peers: BTreeMap<PeerName, PeerSettings>,
}

impl Default for CarrierSettings {
    fn default() -> Self {
        let mission = "mission".parse().expect("`mission` is a label");
        Self {
            listen: None,
            rate: BitsPerSecond(256_000),
            labels: vec![Label::directory(), mission],
            peers: BTreeMap::new(),
        }
    }
}

/// Section `[carrier.peers.NAME]`: what differs for one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerSettings {
    /// Where to dial it, as `host:port`, if not where it was at enrolment.
    pub address: Option<String>,
    /// Ceiling for everything sent to it, all headers included, e.g. `64kbit/s`.
    pub rate: Option<BitsPerSecond>,
    /// Release labels that it may get.
    pub labels: Option<Vec<Label>>,
}

impl CarrierSettings {
    /// The ceiling towards a peer.
    pub fn rate_of(&self, peer: &PeerName) -> BitsPerSecond {
        self.peers.get(peer).and_then(|p| p.rate).unwrap_or(self.rate)
    }

    /// What a peer may get.
    pub fn labels_of(&self, peer: &PeerName) -> &[Label] {
        self.peers.get(peer).and_then(|p| p.labels.as_deref()).unwrap_or(&self.labels)
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
}
