//! Section `[microsoft]` of the configuration, and what it becomes once read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{BitsPerSecond, Sensitive};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::cloud::{Cloud, Hosts};
use crate::package::AppSettings;
use crate::targets::{TargetKind, TargetSettings};

/// Section `[microsoft]`. Without the section nothing of this room runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MicrosoftSettings {
    /// Which cloud; gives the hosts below.
    #[serde(default)]
    pub cloud: Cloud,
    /// Where to sign in, in place of the cloud's.
    pub login: Option<String>,
    /// Base of the issuer that tokens name, in place of the cloud's.
    pub issuer: Option<String>,
    /// Graph, in place of the cloud's.
    pub graph: Option<String>,
    /// What a token is asked for, in place of the cloud's Graph.
    pub resource: Option<String>,
    /// The Teams client, in place of the cloud's.
    pub teams: Option<String>,
    /// Id of the tenant.
    pub tenant: String,
    /// Application (client) id that was registered in Entra.
    pub client: String,
    /// File with the client secret.
    pub secret_file: Option<PathBuf>,
    /// File with the certificate (PEM) that was registered.
    pub certificate_file: Option<PathBuf>,
    /// File with its RSA key (PEM).
    pub key_file: Option<PathBuf>,
    /// File with the certification authorities (PEM) that are believed, in place of the operating system's.
    pub roots_file: Option<PathBuf>,
    /// HTTP proxy on the way to Microsoft, as `http://host:port`.
    pub proxy: Option<String>,
    /// Ceiling of what is sent to Microsoft.
    pub rate: Option<BitsPerSecond>,
    /// The tab in Teams and Outlook; without the section there is none.
    pub app: Option<AppSettings>,
    /// Seconds between probes while the state does not change.
    #[serde(default = "probe_seconds")]
    pub probe_seconds: u32,
    /// Hours for which the last signing keys are believed while Entra is not reachable.
    #[serde(default = "keys_stale_hours")]
    pub keys_stale_hours: u32,
    /// Where mission activity goes. None: nothing goes.
    #[serde(default)]
    pub target: Vec<TargetSettings>,
    /// People and groups as accounts.
    #[serde(default)]
    pub directory: crate::directory::DirectorySettings,
}

fn probe_seconds() -> u32 {
    60
}

fn keys_stale_hours() -> u32 {
    7 * 24
}

/// How this node proves that it is the registered application.
#[derive(Clone)]
pub enum Credential {
    /// A client secret.
    Secret(Sensitive<String>),
    /// A certificate, with the key that signs assertions.
    Certificate {
        /// The certificate.
        certificate: CertificateDer<'static>,
        /// Its RSA key, as PEM.
        key: Sensitive<Vec<u8>>,
    },
    /// None: only people can sign in, by device code or with a browser.
    Public,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret([sensitive])",
            Self::Certificate { .. } => "Certificate([sensitive])",
            Self::Public => "Public",
        })
    }
}

/// The section once read: hosts complete, files loaded.
#[derive(Clone, Debug)]
pub struct GraphSettings {
    /// Which cloud: decides what Graph offers.
    pub cloud: Cloud,
    /// Where everything is.
    pub hosts: Hosts,
    /// Id of the tenant.
    pub tenant: Uuid,
    /// Application (client) id.
    pub client: Uuid,
    /// How the application proves itself.
    pub credential: Credential,
    /// Certification authorities that are believed; `None`: the operating system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Proxy on the way.
    pub proxy: Option<Url>,
    /// Ceiling of what is sent.
    pub rate: Option<BitsPerSecond>,
    /// The tab in Teams and Outlook.
    pub app: Option<AppSettings>,
    /// Between probes while the state does not change.
    pub probe_every: Duration,
    /// How long the last signing keys are believed while Entra is not reachable.
    pub keys_stale_max: Duration,
    /// Where mission activity goes.
    pub targets: Vec<TargetSettings>,
}

/// What is wrong with the section. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("microsoft.{key}: {problem}")]
pub struct SettingsError {
    /// Key within the section.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn wrong<T>(key: &'static str, problem: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { key, problem: problem.into() })
}

impl MicrosoftSettings {
    /// Checks the section and reads the files that it names.
    ///
    /// # Errors
    /// When a value is missing or of no use, or a file cannot be read.
    pub fn read(&self) -> Result<GraphSettings, SettingsError> {
        self.directory.read()?;
        let proxy = self.proxy.as_deref().map(|text| base("proxy", text, &["http", "https"])).transpose()?;
        if self.probe_seconds < PROBE_SECONDS_MIN {
            return wrong("probe_seconds", format!("at least {PROBE_SECONDS_MIN}: probes are not to be felt"));
        }
        self.check_targets()?;
        Ok(GraphSettings {
            targets: self.target.clone(),
            cloud: self.cloud,
            hosts: self.hosts()?,
            tenant: guid("tenant", &self.tenant)?,
            client: guid("client", &self.client)?,
            credential: self.credential()?,
            roots: self.roots_file.as_deref().map(|path| certificates("roots_file", path)).transpose()?,
            proxy,
            rate: self.rate,
            app: self.app.clone(),
            probe_every: Duration::from_secs(self.probe_seconds.into()),
            keys_stale_max: Duration::from_secs(u64::from(self.keys_stale_hours) * 3600),
        })
    }

    fn check_targets(&self) -> Result<(), SettingsError> {
        let mut names = std::collections::BTreeSet::new();
        let mut archives = std::collections::BTreeMap::new();
        for target in &self.target {
            if let Some((key, problem)) = target.problem(self.cloud) {
                return wrong("target", format!("{key}: {problem}"));
            }
            if !names.insert(&target.name) {
                return wrong(
                    "target",
                    format!("name: `{}` is there twice; each target has its own ledger", target.name),
                );
            }
            if let Some(other) = target.archive().and_then(|place| archives.insert(place, &target.name)) {
                let both = format!("folder: `{other}` and `{}` would replace each other's records", target.name);
                return wrong("target", both);
            }
        }
        for target in self.target.iter().filter(|target| target.kind == TargetKind::TeamsImport) {
            let shares = |other: &&TargetSettings| {
                other.name != target.name && other.channel_of_teams() == target.channel_of_teams()
            };
            if let Some(other) = self.target.iter().find(shares) {
                return wrong(
                    "target",
                    format!(
                        "channel: `{}` imports into the channel that `{}` writes to; nobody else can post while it is open for \
                         import, so each needs one of its own",
                        target.name, other.name
                    ),
                );
            }
        }
        Ok(())
    }

    /// The rules of the directory sync; `None` where it is off.
    ///
    /// # Errors
    /// When a value is of no use.
    pub fn directory_rules(&self) -> Result<Option<crate::directory::Rules>, SettingsError> {
        let rules = self.directory.read()?;
        Ok(self.directory.enabled.then_some(rules))
    }

    fn hosts(&self) -> Result<Hosts, SettingsError> {
        let preset = self.cloud.preset();
        let pick = |key, own: &Option<String>, preset: Option<&str>| match own.as_deref().or(preset) {
            Some(text) => base(key, text, &["https"]),
            None => wrong(key, "needed with cloud = \"other\": no host is derived from another"),
        };
        let resource = match (&self.resource, preset) {
            (Some(text), _) => base("resource", text, &["https", "api"])?.as_str().trim_end_matches('/').to_owned(),
            (None, Some(preset)) => preset.graph.to_owned(),
            (None, None) => {
                return wrong("resource", "needed with cloud = \"other\": what a token for Graph is asked for");
            }
        };
        let teams = self.teams.as_deref().or(preset.and_then(|p| p.teams));
        Ok(Hosts {
            login: pick("login", &self.login, preset.map(|p| p.login))?,
            issuer: pick("issuer", &self.issuer, preset.map(|p| p.issuer))?,
            graph: pick("graph", &self.graph, preset.map(|p| p.graph))?,
            resource,
            teams: teams.map(|text| base("teams", text, &["https"])).transpose()?,
        })
    }

    fn credential(&self) -> Result<Credential, SettingsError> {
        match (&self.secret_file, &self.certificate_file, &self.key_file) {
            (None, None, None) => Ok(Credential::Public),
            (Some(path), None, None) => {
                let bytes = read("secret_file", path)?;
                let Ok(text) = String::from_utf8(bytes) else {
                    return wrong("secret_file", format!("{} holds no text", path.display()));
                };
                match text.trim() {
                    "" => wrong("secret_file", format!("{} is empty", path.display())),
                    secret => Ok(Credential::Secret(Sensitive(secret.to_owned()))),
                }
            }
            (None, Some(certificate), Some(key)) => {
                let certificate = certificates("certificate_file", certificate)?.swap_remove(0);
                let key_pem = read("key_file", key)?;
                if jsonwebtoken::EncodingKey::from_rsa_pem(&key_pem).is_err() {
                    return wrong("key_file", format!("{} holds no RSA key in PEM", key.display()));
                }
                Ok(Credential::Certificate { certificate, key: Sensitive(key_pem) })
            }
            (None, Some(_), None) => wrong("key_file", "needed beside certificate_file"),
            (None, None, Some(_)) => wrong("certificate_file", "needed beside key_file"),
            (Some(_), _, _) => wrong("secret_file", "either a secret or a certificate with its key, not both"),
        }
    }
}

/// More often would be felt on the thinnest link: a probe is about 6 KB.
const PROBE_SECONDS_MIN: u32 = 10;

fn guid(key: &'static str, text: &str) -> Result<Uuid, SettingsError> {
    let parsed = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    parsed.ok_or_else(|| SettingsError {
        key,
        problem: format!("`{text}` is no id such as 11111111-2222-3333-4444-555555555555; the Entra portal shows it"),
    })
}

fn base(key: &'static str, text: &str, schemes: &[&str]) -> Result<Url, SettingsError> {
    let url: Url = text.parse().map_err(|e| SettingsError { key, problem: format!("`{text}` is no URL: {e}") })?;
    let bare = url.path().trim_matches('/').is_empty() || url.scheme() == "api";
    if !schemes.contains(&url.scheme()) || !url.has_host() || !url.username().is_empty() {
        return wrong(key, format!("`{text}`: a URL that begins with {}://", schemes.join(":// or ")));
    }
    if !bare || url.query().is_some() || url.fragment().is_some() {
        return wrong(key, format!("`{text}`: only scheme, host and port"));
    }
    Ok(url)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, SettingsError> {
    let bytes = fs::read(path)
        .map_err(|e| SettingsError { key, problem: format!("{} cannot be read: {e}", path.display()) })?;
    if bytes.len() > FILE_BYTES_MAX {
        return wrong(key, format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

/// Largest of the files: every public certification authority there is takes about 250 kB.
const FILE_BYTES_MAX: usize = 1024 * 1024;

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let pem = read(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => wrong(key, format!("{} holds no certificate in PEM", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_archives_in_one_folder_are_refused() {
        let with = |second: &str| {
            let target = |name, folder: &str| serde_json::json!({ "name": name, "kind": "sharepoint-archive", "drive": "d", "folder": folder });
            let targets = [target("one", "Ops/Log"), target("two", second)];
            let settings = serde_json::json!({ "tenant": "t", "client": "c", "target": targets });
            serde_json::from_value::<MicrosoftSettings>(settings).unwrap().check_targets()
        };
        assert!(with("Ops/Other").is_ok());
        let refused = with("/ops/log/").unwrap_err().to_string();
        assert!(refused.contains("`one` and `two`"), "{refused}");
    }
}
