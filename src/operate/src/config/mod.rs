//! The configuration of a node: `<data>/holdfast.toml`, parsed whole before anything starts.
//!
//! `holdfast config check` and start-up share [`load`]. Each room owns the struct of its section; here they come
//! together. What a key is for, with its default, is in [`reference`], from which the file that `init` writes and
//! docs/configuration.md are made; a test holds the table against the structs.

mod problem;
pub mod reference;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use microsoft::PackageError;
use serde::Deserialize;

pub use problem::{Problem, Source};

use crate::exit::{Exit, Failure};

/// File name below the data directory.
pub const FILE: &str = "holdfast.toml";

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Who the node is.
    pub node: NodeSettings,
    /// Where mission users connect.
    #[serde(default)]
    pub api: ApiSettings,
    /// Where metrics and health are served.
    #[serde(default)]
    pub metrics: MetricsSettings,
    /// What is logged.
    #[serde(default)]
    pub log: telemetry::LogSettings,
    /// The mission core.
    #[serde(default)]
    pub core: mission::CoreSettings,
    /// The API.
    #[serde(default)]
    pub http: mission::http::HttpSettings,
    /// What may leave, and how urgent it is.
    #[serde(default)]
    pub capture: capture::CaptureSettings,
    /// The links to peers.
    #[serde(default)]
    pub carrier: carrier::CarrierSettings,
    /// The durable log of entries.
    #[serde(default)]
    pub journal: journal::JournalSettings,
    /// How often the log is read again.
    #[serde(default)]
    pub scrub: journal::ScrubSettings,
    /// What wraps the keys that seal the log.
    #[serde(default)]
    pub keys: keys::KeysSettings,
    /// The way to Microsoft 365; without the section nothing of it runs.
    pub microsoft: Option<microsoft::MicrosoftSettings>,
}

/// Section `[node]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// The name under which peers know it.
    pub name: keys::PeerName,
    /// Which side it is.
    pub role: Role,
}

/// Which side a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A tactical site: dials its hub.
    Edge,
    /// The enterprise side: edges dial it.
    Hub,
}

impl Role {
    /// Name used in the configuration and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Hub => "hub",
        }
    }

    /// The same as a metric label.
    pub fn in_metrics(self) -> telemetry::Role {
        match self {
            Self::Edge => telemetry::Role::Edge,
            Self::Hub => telemetry::Role::Hub,
        }
    }
}

/// Section `[api]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSettings {
    /// Where the Mattermost-compatible API listens.
    pub listen: SocketAddr,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8065)) }
    }
}

/// Section `[metrics]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    /// Where `/metrics`, `/healthz` and `/readyz` listen.
    pub listen: SocketAddr,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9465)) }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("there is no node in {}: {} does not exist", .0.parent().unwrap_or(.0).display(), .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("reading {} failed: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} has more than {FILE_BYTES_MAX} bytes: this is no configuration", .0.display())]
    TooLarge(PathBuf),
    /// It does not say what a node needs.
    #[error("{}", problem::report(.0))]
    Wrong(Vec<Problem>),
}

/// The commented file with every key has some 10 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl ConfigError {
    /// What the operator should do.
    pub fn next_step(&self) -> String {
        match self {
            Self::Missing(path) => {
                let dir = path.parent().unwrap_or(path).display();
                format!("make one with `holdfast init --data {dir}`, or name another directory with --data")
            }
            Self::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::InvalidData => {
                "save the file as UTF-8, or restore it from a backup".to_owned()
            }
            Self::Unreadable { .. } => "run this as the owner of the data directory or as root".to_owned(),
            Self::TooLarge(_) => "restore the file from a backup".to_owned(),
            Self::Wrong(_) => {
                "correct the file and run `holdfast config check`; docs/configuration.md has every key".to_owned()
            }
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::with(Exit::Config, e.to_string(), e.next_step())
    }
}

/// Reads and checks the configuration in the data directory `dir`.
///
/// # Errors
/// Every problem that was found, each with its place in the file.
pub fn load(dir: &Path) -> Result<Settings, ConfigError> {
    let path = dir.join(FILE);
    let size = std::fs::metadata(&path).map(|m| m.len());
    match size {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(ConfigError::Missing(path)),
        Err(error) => return Err(ConfigError::Unreadable { path, error }),
        Ok(bytes) if bytes > FILE_BYTES_MAX => return Err(ConfigError::TooLarge(path)),
        Ok(_) => {}
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text).map_err(ConfigError::Wrong),
        Err(error) => Err(ConfigError::Unreadable { path, error }),
    }
}

/// Parses and checks the text of a configuration; `file` is for the messages.
///
/// # Errors
/// As for [`load`].
pub fn parse(file: &Path, text: &str) -> Result<Settings, Vec<Problem>> {
    let source = Source::new(file, text);
    let table = toml::de::DeTable::parse(text).map_err(|e| vec![source.toml_error(&e)])?;
    let unknown = source.unknown_keys(table.get_ref());
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let settings: Settings = toml::from_str(text).map_err(|e| vec![source.toml_error(&e)])?;
    let problems = check(&settings, &|key, message| source.at_key(table.get_ref(), key, message));
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// What the types cannot say.
fn check(settings: &Settings, at: &dyn Fn(&str, String) -> Problem) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(e) = settings.log.check() {
        problems.push(at("log.filter", e.to_string()));
    }
    if settings.api.listen == settings.metrics.listen && settings.api.listen.port() != 0 {
        problems.push(at("metrics.listen", "the API listens on the same address and port".to_owned()));
    }
    if settings.node.role == Role::Hub && settings.carrier.listen.is_none() {
        problems.push(at("carrier.listen", "a hub needs an address where edges reach it".to_owned()));
    }
    if settings.carrier.https_certificate.is_some() != settings.carrier.https_key.is_some() {
        problems.push(at(
            "carrier.https_certificate",
            "a web certificate needs its key, and a key its certificate".to_owned(),
        ));
    }
    if let Err(entry) = settings.core.integrations.check() {
        let problem = format!("`{entry}` is neither a name, nor an address, nor a network as 10.1.0.0/16");
        problems.push(at("core.integrations.allowed_internal", problem));
    }
    if let Err((key, problem)) = settings.core.push.check() {
        problems.push(at(key, problem));
    }
    if let Some((key, message)) = settings.scrub.problem() {
        problems.push(at(key, message.to_owned()));
    }
    if let Some((key, message)) = crate::secrets::check(&settings.keys) {
        problems.push(at(key, message));
    }
    if let Some(section) = &settings.microsoft {
        let read = section.read();
        let directory = section.directory.read().err();
        let wrong = [read.as_ref().err(), directory.as_ref()];
        problems.extend(wrong.into_iter().flatten().map(|e| at(&format!("microsoft.{}", e.key), e.problem.clone())));
        problems.extend(read.ok().and_then(|read| check_app(&read, settings.http.site_url.as_deref(), at)));
    }
    problems
}

/// The tab in Teams and Outlook.
fn check_app(
    read: &microsoft::GraphSettings,
    site_url: Option<&str>,
    at: &dyn Fn(&str, String) -> Problem,
) -> Option<Problem> {
    let app = read.app.clone()?;
    if !app.library.is_file() {
        let problem =
            format!("{} is no file; it is part of the npm package @microsoft/teams-js", app.library.display());
        return Some(at("microsoft.app.library", problem));
    }
    let problem = microsoft::TeamsApp::new(app, read.client, site_url.unwrap_or_default()).err()?;
    let key = match &problem {
        PackageError::Setting { key, .. } => format!("microsoft.app.{key}"),
        PackageError::Site(_) => "http.site_url".to_owned(),
    };
    Some(at(&key, problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "[node]\nname = \"alpha\"\nrole = \"edge\"\n";

    fn problems(rest: &str) -> Vec<Problem> {
        parse(Path::new("holdfast.toml"), &format!("{NODE}{rest}")).unwrap_err()
    }

    fn place(problem: &Problem) -> (usize, usize) {
        (problem.line, problem.column)
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_line_and_the_right_spelling() {
        let found = problems("\n[api]\nlisen = \"127.0.0.1:1\"\n");
        assert_eq!(place(&found[0]), (6, 1));
        assert_eq!(found[0].help.as_deref(), Some("did you mean `listen`?"));
        let text = found[0].to_string();
        assert!(text.starts_with("holdfast.toml:6:1: unknown key `lisen` in [api]\n"), "{text}");
        assert!(text.contains("6 | lisen = \"127.0.0.1:1\"\n  | ^^^^^\n"), "{text}");
    }

    #[test]
    fn every_unknown_key_is_reported_at_once() {
        let found = problems("colour = 1\n[jurnal]\nx = 1\n");
        assert_eq!(found.iter().map(place).collect::<Vec<_>>(), [(4, 1), (5, 2)]);
        assert_eq!(found[1].help.as_deref(), Some("did you mean `journal`?"));
        assert!(found[0].help.as_deref().unwrap().starts_with("[node] has the keys"), "{found:?}");
    }

    #[test]
    fn a_wrong_value_points_at_the_value() {
        let found = problems("[journal]\nlimit_bytes = \"4 parsecs\"\n");
        assert_eq!(place(&found[0]), (5, 15));
        assert!(found[0].message.contains("`4 parsecs` is no size"), "{}", found[0].message);
        let found = problems("[api]\nlisten = \"localhost\"\n");
        assert_eq!(place(&found[0]), (5, 10));
        let found = problems("[log]\nfilter = \"carrier=loud\"\n");
        assert_eq!(place(&found[0]), (5, 10));
    }

    #[test]
    fn a_peer_has_any_name_and_known_keys() {
        let found = problems("[carrier.peers.bravo]\nraet = \"64kbit/s\"\n");
        assert_eq!(found[0].message, "unknown key `raet` in [carrier.peers.bravo]");
        assert_eq!(found[0].help.as_deref(), Some("did you mean `rate`?"));
    }

    #[test]
    fn a_web_certificate_without_its_key_is_told() {
        let found = problems("[carrier]\nhttps_certificate = \"/etc/holdfast/https.crt\"\n");
        assert!(found[0].message.contains("needs its key"), "{}", found[0].message);
    }

    #[test]
    fn what_is_wrong_on_the_way_to_microsoft_is_told_before_anything_starts() {
        let ids = "[microsoft]\ntenant = \"11111111-2222-4333-8444-555555555555\"\nclient = \"66666666-2222-4333-8444-555555555555\"\n";
        for (rest, said) in [
            ("[microsoft]\ntenant = \"example.org\"\nclient = \"x\"\n".to_owned(), "is no id"),
            (format!("{ids}secret_file = \"/nowhere/secret\"\n"), "cannot be read"),
            (format!("{ids}cloud = \"other\"\n"), "needed with cloud"),
            (format!("{ids}login = \"http://login.example\"\n"), "a URL that begins with https://"),
            (format!("{ids}login = \"https://login.example/tenant\"\n"), "only scheme, host and port"),
            (format!("{ids}certificate_file = \"/etc/x.pem\"\n"), "needed beside certificate_file"),
            (format!("{ids}probe_seconds = 1\n"), "at least 10"),
        ] {
            let found = problems(&rest);
            assert!(found[0].message.contains(said), "{rest}: {}", found[0].message);
        }
        let settings = parse(Path::new("holdfast.toml"), &format!("{NODE}{ids}")).unwrap();
        let read = settings.microsoft.unwrap().read().unwrap();
        assert_eq!(read.hosts.graph.as_str(), "https://graph.microsoft.com/");
        assert_eq!(read.hosts.default_scope(), "https://graph.microsoft.com/.default");
    }

    #[test]
    fn what_teams_would_not_open_is_told_before_anything_starts() {
        let with = |site: &str, more: &str, library: &str| {
            format!(
                "[http]\n{site}\n[microsoft]\ntenant = \"11111111-2222-4333-8444-555555555555\"\n\
                 client = \"66666666-2222-4333-8444-555555555555\"\n[microsoft.app]\nlibrary = \"{library}\"\n\
                 developer = \"Task Force\"\nwebsite = \"https://example.org\"\nprivacy = \"https://example.org/p\"\n\
                 terms = \"https://example.org/t\"\n{more}\n"
            )
        };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let site = "site_url = \"https://chat.example.org\"";
        for (rest, said) in [
            (with(site, "", "/nowhere/teams.js"), "/nowhere/teams.js is no file"),
            (with("", "", file), "Teams opens only https addresses"),
            (with("site_url = \"https://192.0.2.1\"", "", file), "Teams opens only https addresses"),
            (with(site, "version = \"1\"", file), "no version such as 1.0.0"),
        ] {
            let found = problems(&rest);
            assert!(found[0].message.contains(said), "{rest}: {}", found[0].message);
        }
        assert!(parse(Path::new("f"), &format!("{NODE}{}", with(site, "", file))).is_ok());
    }

    #[test]
    fn a_hub_without_an_address_is_told_at_the_section_or_the_top() {
        let found = parse(Path::new("f"), "[node]\nname = \"h\"\nrole = \"hub\"\n[carrier]\n").unwrap_err();
        assert_eq!(place(&found[0]), (4, 2));
    }

    #[test]
    fn broken_toml_points_at_the_break() {
        assert_eq!(problems("[api\n")[0].line, 4);
    }

    #[test]
    fn a_missing_name_says_which_section_lacks_it() {
        let found = parse(Path::new("f"), "[node]\nrole = \"hub\"\n").unwrap_err();
        assert!(found[0].message.contains("missing field `name`"), "{}", found[0].message);
        assert_eq!(found[0].line, 1);
    }

    #[test]
    fn columns_count_characters_and_tabs_stay_aligned() {
        let found = problems("[log]\n\tfilter = \"größe=loud\" # ä\n");
        assert_eq!(place(&found[0]), (5, 11));
    }

    #[test]
    fn an_absent_file_is_told_from_a_wrong_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(ConfigError::Missing(_))));
        std::fs::write(dir.path().join(FILE), "nonsense").unwrap();
        assert!(matches!(load(dir.path()), Err(ConfigError::Wrong(_))));
    }
}
