//! What a simulator is started with.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock::{Millis, Time};

/// Which cloud is played. Only what Graph offers differs; hosts are the simulator's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// The public cloud and GCC.
    #[default]
    Global,
    /// GCC High and DoD.
    Usgov,
    /// 21Vianet.
    China,
    /// Air-gapped, secret.
    Ussec,
    /// Air-gapped, top secret.
    Usnat,
}

impl Cloud {
    /// As the OpenAPI subset names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Usgov => "usgov",
            Self::China => "china",
            Self::Ussec => "ussec",
            Self::Usnat => "usnat",
        }
    }
}

/// A rule of the simulator that is stricter than the service, or than an official client can bear, and may be switched
/// off by name. What is switched off is printed with every report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relaxation {
    /// A client assertion may be used more than once while it is valid. MSAL for Python and for Node reuse theirs.
    RepeatedAssertion,
    /// Authorization codes may be asked for without PKCE.
    CodeWithoutPkce,
    /// Ranges of an upload need not be multiples of 320 KiB. msgraph-core for Python sends one byte too many each time.
    UnevenRanges,
    /// No request is throttled.
    Unthrottled,
}

/// How long writes take to be seen elsewhere, in simulated milliseconds; each write draws from zero to this.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lag {
    /// Directory objects in lists, look-ups and deltas.
    pub directory_ms: Millis,
    /// Teams, channels and members, after their creation through Graph.
    pub teams_ms: Millis,
    /// Mail in Sent Items and in the recipient's inbox.
    pub mail_ms: Millis,
}

impl Default for Lag {
    fn default() -> Self {
        Self { directory_ms: 1_500, teams_ms: 1_500, mail_ms: 1_000 }
    }
}

/// Limits that depend on the tenant or that tests make small to reach.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Messages per app, channel and day outside migration mode.
    pub channel_messages_per_day: u32,
    /// Requests per second of one app on one team or channel.
    pub channel_requests_per_s: f64,
    /// Posts of channel messages per second, app and tenant.
    pub channel_posts_per_s: f64,
    /// Imported messages per second and channel.
    pub import_posts_per_s: f64,
    /// Requests of one app to one mailbox in ten minutes.
    pub mailbox_requests_per_10min: f64,
    /// Requests of one app to one mailbox at the same time.
    pub mailbox_concurrent: u32,
    /// Real milliseconds that Graph takes for each answer; requests to one mailbox overlap by it.
    pub answer_after_ms: u64,
    /// Resource units of SharePoint per app and minute.
    pub sharepoint_units_per_min: f64,
    /// Resource units of the directory per app and ten seconds.
    pub directory_units_per_10s: f64,
    /// Activity notifications per second and app.
    pub notifications_per_s: f64,
    /// Largest page of a directory delta.
    pub delta_page: usize,
    /// Largest page of other lists where the client does not ask for less.
    pub page: usize,
    /// Equal token requests in five minutes before AADSTS50196.
    pub equal_token_requests: usize,
    /// Bytes that a drive holds.
    pub drive_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channel_messages_per_day: 3_000,
            channel_requests_per_s: 4.0,
            channel_posts_per_s: 50.0,
            import_posts_per_s: 5.0,
            mailbox_requests_per_10min: 10_000.0,
            mailbox_concurrent: 4,
            answer_after_ms: 0,
            sharepoint_units_per_min: 1_200.0,
            directory_units_per_10s: 3_500.0,
            notifications_per_s: 5.0,
            delta_page: 100,
            page: 100,
            equal_token_requests: 100,
            drive_bytes: 1 << 40,
        }
    }
}

/// What its hosts are called and where they listen. Uploads and what is abroad have another name than the services, as they do
/// in earnest: a client decides by it where a token goes.
#[derive(Clone, Debug)]
pub struct Names {
    /// Of Entra and Graph: a name or an IPv4 address of the namespace that the simulator is started in.
    pub services: String,
    /// Of uploads and of what is abroad.
    pub elsewhere: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { services: "localhost".to_owned(), elsewhere: "127.0.0.1".to_owned() }
    }
}

/// What a simulator is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// The cloud that is played.
    pub cloud: Cloud,
    /// Where time comes from.
    pub time: Time,
    /// The OpenAPI subset; nothing is validated without it.
    pub subset: Option<PathBuf>,
    /// Where it listens.
    pub names: Names,
    /// How slowly writes are seen.
    pub lag: Lag,
    /// What is throttled when.
    pub limits: Limits,
    /// Rules that are switched off.
    pub relaxed: BTreeSet<Relaxation>,
}

impl Settings {
    /// The defaults with a seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// With one more rule switched off.
    pub fn relax(mut self, relaxation: Relaxation) -> Self {
        self.relaxed.insert(relaxation);
        self
    }
}
