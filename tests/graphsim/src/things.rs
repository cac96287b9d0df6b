//! What a test puts into the tenant: apps, users, groups, teams, chats, sites. The control port reads the same from JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A secret of an app.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// What the app sends.
    pub value: String,
    /// Simulated time at which it ends; never if absent.
    #[serde(default)]
    pub expires_ms: Option<u64>,
}

/// An app registration, with what an administrator consented to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct App {
    /// Client id; drawn if empty.
    pub id: String,
    /// Shown on the sign-in page.
    pub name: String,
    /// Passwords of the app.
    pub secrets: Vec<Secret>,
    /// Certificates in PEM that sign its assertions.
    pub certificates: Vec<String>,
    /// Application permissions of Graph, consented.
    pub application: BTreeSet<String>,
    /// Delegated permissions of Graph, consented for everybody.
    pub delegated: BTreeSet<String>,
    /// Where codes may be sent; compared exactly, but for the port of `http://localhost`.
    pub redirects: BTreeSet<String>,
    /// `api://...`, the audience of tokens for the app itself.
    pub identifier_uri: Option<String>,
    /// Whether it has no secret that it could keep: a command line, a page.
    pub public: bool,
    /// Ids of sites that `Sites.Selected` opens to it.
    pub sites: BTreeSet<String>,
    /// Teams app whose manifest names this app, for activity notifications.
    pub teams_app: Option<TeamsApp>,
}

/// A Teams app in the organisation's catalogue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TeamsApp {
    /// Id in the catalogue; drawn if empty.
    pub id: String,
    /// Id in the manifest.
    pub external_id: String,
    /// Activity types that the manifest declares, with the parameters of their templates.
    pub activity_types: BTreeMap<String, BTreeSet<String>>,
    /// Users, teams and chats that have it installed.
    pub installed_for: BTreeSet<String>,
}

impl App {
    /// A confidential client.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// With a secret that does not end.
    pub fn secret(mut self, value: &str) -> Self {
        self.secrets.push(Secret { value: value.to_owned(), expires_ms: None });
        self
    }

    /// With a certificate in PEM.
    pub fn certificate(mut self, pem: &str) -> Self {
        self.certificates.push(pem.to_owned());
        self
    }

    /// With application permissions of Graph.
    pub fn application(mut self, names: &[&str]) -> Self {
        self.application.extend(names.iter().map(|n| (*n).to_owned()));
        self
    }

    /// With delegated permissions of Graph.
    pub fn delegated(mut self, names: &[&str]) -> Self {
        self.delegated.extend(names.iter().map(|n| (*n).to_owned()));
        self
    }

    /// With a redirect URI.
    pub fn redirect(mut self, uri: &str) -> Self {
        self.redirects.insert(uri.to_owned());
        self
    }

    /// With the audience of its own tokens.
    pub fn identifier_uri(mut self, uri: &str) -> Self {
        self.identifier_uri = Some(uri.to_owned());
        self
    }

    /// Without secrets: a native client.
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }
}

/// A user of the directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct User {
    /// Object id; drawn if empty.
    pub id: String,
    /// Sign-in name, with its domain.
    pub user_principal_name: String,
    /// Name for people.
    pub display_name: String,
    /// What is typed on the sign-in page.
    pub password: String,
    /// Whether a second factor is asked for.
    pub mfa: bool,
    /// Whether the account may not sign in.
    pub disabled: bool,
    /// Further properties, as Graph names them.
    pub properties: serde_json::Map<String, Value>,
}

impl User {
    /// `name@contoso.example` with a password that is `name`'s own.
    pub fn new(name: &str) -> Self {
        Self {
            user_principal_name: format!("{name}@contoso.example"),
            display_name: name.to_owned(),
            password: format!("{name}-password"),
            ..Self::default()
        }
    }
}

/// A group of the directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Group {
    /// Object id; drawn if empty.
    pub id: String,
    /// Name for people.
    pub display_name: String,
    /// Object ids.
    pub members: BTreeSet<String>,
    /// Further properties, as Graph names them.
    pub properties: serde_json::Map<String, Value>,
}

/// A team that exists before the test begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Team {
    /// Id, which is that of its group; drawn if empty.
    pub id: String,
    /// Name for people.
    pub display_name: String,
    /// Text for people.
    pub description: String,
    /// Object ids of its members.
    pub members: BTreeSet<String>,
    /// Names of channels beside General.
    pub channels: Vec<String>,
}

/// What came into being with a team.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TeamMade {
    /// Id of the team and of its group.
    pub id: String,
    /// Channel ids by name, General among them.
    pub channels: BTreeMap<String, String>,
    /// Drive of its site.
    pub drive: String,
    /// Id of its site.
    pub site: String,
}

/// A chat that exists before the test begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Chat {
    /// `oneOnOne`, `group` or `meeting`.
    pub chat_type: String,
    /// Name of a group chat.
    pub topic: Option<String>,
    /// Object ids.
    pub members: BTreeSet<String>,
}
