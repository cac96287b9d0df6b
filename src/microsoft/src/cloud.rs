//! Clouds and their hosts. No host is derived from another: the table names each, the configuration may replace each.

use std::fmt;

use url::Url;

/// Which Microsoft cloud the tenant is in. Tokens of one are worth nothing in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cloud {
    /// The public cloud, GCC included.
    #[default]
    #[serde(rename = "global")]
    Global,
    /// US Government L4 (GCC High).
    #[serde(rename = "usgov-l4")]
    UsGovL4,
    /// US Government L5 (DoD).
    #[serde(rename = "usgov-l5")]
    UsGovL5,
    /// Operated by 21Vianet.
    #[serde(rename = "china")]
    China,
    /// Any other, such as an air-gapped one: every host is configured.
    #[serde(rename = "other")]
    Other,
}

impl Cloud {
    /// Name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::UsGovL4 => "usgov-l4",
            Self::UsGovL5 => "usgov-l5",
            Self::China => "china",
            Self::Other => "other",
        }
    }

    /// The cloud's row; `None` for [`Cloud::Other`], of which nothing is known.
    pub fn preset(self) -> Option<Preset> {
        match self {
            Self::Global => Some(Preset {
                login: "https://login.microsoftonline.com",
                issuer: "https://login.microsoftonline.com",
                graph: "https://graph.microsoft.com",
                teams: Some("https://teams.microsoft.com"),
            }),
            Self::UsGovL4 => Some(Preset {
                login: "https://login.microsoftonline.us",
                issuer: "https://login.microsoftonline.us",
                graph: "https://graph.microsoft.us",
                teams: Some("https://gov.teams.microsoft.us"),
            }),
            Self::UsGovL5 => Some(Preset {
                login: "https://login.microsoftonline.us",
                issuer: "https://login.microsoftonline.us",
                graph: "https://dod-graph.microsoft.us",
                teams: Some("https://dod.teams.microsoft.us"),
            }),
            Self::China => Some(Preset {
                login: "https://login.chinacloudapi.cn",
                // What discovery at the login host names as issuer (from memory of 21Vianet's documents).
                issuer: "https://login.partner.microsoftonline.cn",
                graph: "https://microsoftgraph.chinacloudapi.cn",
                teams: None,
            }),
            Self::Other => None,
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hosts of a cloud as Microsoft documents them ("National cloud deployments").
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Where people and programs sign in.
    pub login: &'static str,
    /// Who the tokens say issued them.
    pub issuer: &'static str,
    /// Microsoft Graph; also what a token for it is asked for.
    pub graph: &'static str,
    /// The Teams client; `None` where Graph has no Teams.
    pub teams: Option<&'static str>,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Base of the endpoints for signing in, e.g. `https://login.microsoftonline.com/`.
    pub login: Url,
    /// Base of the issuer that tokens name.
    pub issuer: Url,
    /// Base of Graph, without version.
    pub graph: Url,
    /// What a token is asked for: the scope is this and `/.default`.
    pub resource: String,
    /// Base of the Teams client's links; `None` without Teams.
    pub teams: Option<Url>,
}

impl Hosts {
    /// Issuer of tokens of version 2 for a tenant.
    pub fn issuer_of(&self, tenant: &str) -> String {
        format!("{}/{tenant}/v2.0", self.issuer.as_str().trim_end_matches('/'))
    }

    /// The scope that asks for everything that was consented to.
    pub fn default_scope(&self) -> String {
        format!("{}/.default", self.resource)
    }
}

/// Same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}
