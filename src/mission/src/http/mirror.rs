//! What a mirror says of the sites that it shows: how old what is read may be, in a banner of the clients and in a header.

use std::sync::{PoisonError, RwLock};

use http::HeaderValue;
use jiff::Timestamp;
use model::UnixMillis;
use serde_json::{Map, Value};

use super::ApiState;
use crate::events::{Broadcast, EventSink as _};

/// Says of every answer how old what it shows of each site may be: `alpha;as-of="2026-11-23T14:03:00Z";away`.
pub(crate) const HEADER: &str = "x-holdfast-as-of";

const BANNER_COLOR: &str = "#8c5a00";
const BANNER_TEXT_COLOR: &str = "#ffffff";

/// Another site whose content is read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredSite {
    /// Under which name users know it.
    pub name: String,
    /// It was heard then, the last time; `None` when never.
    pub as_of: Option<UnixMillis>,
    /// It can be reached now.
    pub is_reached: bool,
}

/// What is known of the sites.
#[derive(Debug, Default)]
pub(crate) struct Mirror(RwLock<Said>);

#[derive(Debug, Default)]
struct Said {
    header: Option<HeaderValue>,
    banner: String,
}

impl ApiState {
    /// Says from now on what these sites are like. Clients that are connected hear of a site that is lost or back; the
    /// times of those that are reached change only the header.
    pub fn tell_of_sites(&self, sites: &[MirroredSite]) {
        let banner = banner(sites);
        let is_news = {
            let mut said = self.mirror.0.write().unwrap_or_else(PoisonError::into_inner);
            said.header = header(sites);
            let is_news = said.banner != banner;
            said.banner = banner;
            is_news
        };
        if is_news {
            let config: Map<String, Value> =
                serde_json::from_slice(&self.client_config(true)).expect("it is an object");
            self.ws.publish(Broadcast::to_all("config_changed").with("config", config));
        }
    }

    /// What clients see of the settings, as JSON.
    pub(crate) fn client_config(&self, signed_in: bool) -> Vec<u8> {
        let said = self.mirror.0.read().unwrap_or_else(PoisonError::into_inner);
        let config = self.config.json(signed_in);
        if said.banner.is_empty() || !signed_in {
            return config.as_bytes().to_vec();
        }
        let mut config: Map<String, Value> = serde_json::from_str(config).expect("it is an object");
        let fields = [
            ("EnableBanner", "true"),
            ("BannerText", &said.banner),
            ("BannerColor", BANNER_COLOR),
            ("BannerTextColor", BANNER_TEXT_COLOR),
            ("AllowBannerDismissal", "true"),
        ];
        config.extend(fields.map(|(name, value)| (name.to_owned(), value.into())));
        serde_json::to_vec(&config).expect("an object of texts serialises")
    }

    /// The value of [`HEADER`].
    pub(crate) fn as_of(&self) -> Option<HeaderValue> {
        self.mirror.0.read().unwrap_or_else(PoisonError::into_inner).header.clone()
    }
}

fn header(sites: &[MirroredSite]) -> Option<HeaderValue> {
    let site = |site: &MirroredSite| {
        let as_of = site.as_of.map_or(String::new(), |at| format!(";as-of=\"{}\"", utc(at, "%Y-%m-%dT%H:%M:%SZ")));
        format!("{}{as_of};{}", site.name, if site.is_reached { "reached" } else { "away" })
    };
    let all: Vec<String> = sites.iter().map(site).collect();
    (!all.is_empty()).then(|| HeaderValue::from_str(&all.join(", ")).ok()).flatten()
}

/// Names what is away, and nothing that changes while it is.
fn banner(sites: &[MirroredSite]) -> String {
    let away = |site: &MirroredSite| match site.as_of {
        Some(at) => format!("{} as of {}", site.name, utc(at, "%H:%M UTC on %-d %B %Y")),
        None => format!("{}, which was not heard yet", site.name),
    };
    let away: Vec<String> = sites.iter().filter(|site| !site.is_reached).map(away).collect();
    match away.is_empty() {
        true => String::new(),
        false => format!(
            "Out of reach: you read {}. What you write is kept and goes there when the link is back.",
            away.join(", ")
        ),
    }
}

fn utc(at: UnixMillis, format: &str) -> String {
    Timestamp::from_millisecond(at.0)
        .map_or_else(|_| "an unknown time".to_owned(), |at| at.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, as_of: Option<i64>, is_reached: bool) -> MirroredSite {
        MirroredSite { name: name.into(), as_of: as_of.map(UnixMillis), is_reached }
    }

    #[test]
    fn the_banner_names_what_is_away_and_since_when() {
        let at = Some(1_795_442_306_482);
        assert_eq!(banner(&[site("alpha", at, true)]), "");
        assert_eq!(
            banner(&[site("alpha", at, false), site("bravo", None, false), site("charlie", at, true)]),
            "Out of reach: you read alpha as of 13:58 UTC on 23 November 2026, bravo, which was not heard yet. What you \
             write is kept and goes there when the link is back."
        );
    }

    #[test]
    fn the_header_tells_of_every_site() {
        let sites = [site("alpha", Some(1_795_442_306_482), true), site("bravo", None, false)];
        assert_eq!(header(&sites).unwrap(), "alpha;as-of=\"2026-11-23T13:58:26Z\";reached, bravo;away");
        assert_eq!(header(&[]), None);
    }
}
