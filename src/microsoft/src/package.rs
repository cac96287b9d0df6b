//! The Teams app of a site: its package for the organisation's catalogue, and what Entra has to know of it.
//!
//! Sources: Microsoft Teams app manifest v1.30; Microsoft Teams "Configure your tab app in Microsoft Entra ID"; "Tab
//! requirements" for who may frame a tab.

use std::io::{Cursor, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};
use uuid::{Builder, Uuid};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::cloud::Cloud;

const MANIFEST_VERSION: &str = "1.30";
const SCHEMA: &str = "https://developer.microsoft.com/json-schemas/teams/v1.30/MicrosoftTeams.schema.json";
const COLOR: &[u8] = include_bytes!("package/color.png");
const OUTLINE: &[u8] = include_bytes!("package/outline.png");

/// The delegated permission that the tab's token carries.
pub const SCOPE: &str = "access_as_user";

/// Kind of notice that announces what arrived; its parameter is [`DIGEST_PARAMETER`].
pub const DIGEST_ACTIVITY: &str = "missionDigest";
/// What the notice says, in a few words.
pub const DIGEST_PARAMETER: &str = "summary";

/// Clients of Microsoft that may ask for the tab's token without asking the person ("Pre-authorized clients").
pub const CLIENTS: [(&str, &str); 9] = [
    ("Teams, web", "5e3ce6c0-2b1f-4285-8d4b-75ee78787346"),
    ("Teams, desktop and mobile", "1fec8e78-bce4-4aaf-ab1b-5451cc387264"),
    ("Outlook, web", "bc59ab01-8403-45c6-8796-ac3ef710b3e3"),
    ("Outlook, desktop; Office, mobile", "d3590ed6-52b3-4102-aeff-aad2292ab01c"),
    ("Outlook, mobile", "27922004-5251-4030-b22d-91ecd9a37ea4"),
    ("Microsoft 365, web", "4765445b-32c6-49b0-83e6-1d93765276ca"),
    ("Microsoft 365, desktop", "0ec893e0-5785-4de6-99da-4ed124e5296c"),
    ("Copilot", "ab3be6b7-f5df-413d-ac2d-abf1e3fd9c0b"),
    ("Office, all", "ea5a67f6-b6f3-4338-b240-c655ddc3cc8e"),
];

/// Graph, as applications name it.
const GRAPH_APP: &str = "00000003-0000-0000-c000-000000000000";
/// `User.Read`, delegated.
const USER_READ: &str = "e1fe6dd8-ba31-4d61-89e7-88639da4683d";
/// `TeamsActivity.Send`, application.
const ACTIVITY_SEND: &str = "a267235f-af13-44dc-8385-c1dc93023186";

/// Who may show the tab in a frame, as in the directive `frame-ancestors`; empty where nothing is known.
pub fn frame_ancestors(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Global => {
            "https://*.cloud.microsoft https://teams.microsoft.com https://*.teams.microsoft.com \
             https://*.microsoft365.com https://*.office.com https://outlook.office.com https://outlook.office365.com \
             https://outlook-sdf.office.com https://outlook-sdf.office365.com"
        }
        Cloud::UsGovL4 => {
            "https://*.cloud.microsoft https://gov.teams.microsoft.us https://*.gov.teams.microsoft.us \
             https://*.office365.us https://outlook.office365.us"
        }
        Cloud::UsGovL5 => {
            "https://*.cloud.microsoft https://dod.teams.microsoft.us https://*.dod.teams.microsoft.us \
             https://*.dod.online.office365.us"
        }
        Cloud::China | Cloud::Other => "",
    }
}

/// Section `[microsoft.app]`: the tab in Teams and Outlook. Without it there is none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSettings {
    /// File with the library of the host applications, `MicrosoftTeams.min.js` of the npm package
    /// `@microsoft/teams-js`. It is served from here, because the network that it usually comes from is not there.
    pub library: std::path::PathBuf,
    /// Id of the Teams app; without it one that belongs to the site's address.
    pub id: Option<Uuid>,
    /// Version of the package; a change of the package needs a higher one.
    #[serde(default = "version")]
    pub version: String,
    /// Name below the icon.
    #[serde(default = "name")]
    pub name: String,
    /// Who answers for the app.
    pub developer: String,
    /// Page about whoever answers for it.
    pub website: Url,
    /// Page on privacy.
    pub privacy: Url,
    /// Page with the terms of use.
    pub terms: Url,
}

fn version() -> String {
    "1.0.0".into()
}

fn name() -> String {
    "Holdfast".into()
}

/// A Teams app that can be packed.
#[derive(Clone, Debug)]
pub struct TeamsApp {
    settings: AppSettings,
    client: Uuid,
    /// Where people reach the site, with a slash at its end.
    site: Url,
}

/// Why there can be no package. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The site has no address that Teams would open.
    #[error("http.site_url is `{0}`; Teams opens only https addresses with a name that its clients can resolve")]
    Site(String),
    /// A text does not fit the manifest.
    #[error("microsoft.app.{key}: {problem}")]
    Setting {
        /// Key within the section.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl TeamsApp {
    /// Checks what the manifest's schema asks for.
    ///
    /// # Errors
    /// When the site has no name and TLS, or a text is too long.
    pub fn new(settings: AppSettings, client: Uuid, site_url: &str) -> Result<Self, PackageError> {
        let refused = || PackageError::Site(site_url.to_owned());
        let mut site: Url = site_url.parse().map_err(|_| refused())?;
        if site.scheme() != "https" || !matches!(site.host(), Some(Host::Domain(_))) {
            return Err(refused());
        }
        if !site.path().ends_with('/') {
            site.set_path(&format!("{}/", site.path()));
        }
        let short = |key, text: &str, max: usize| match text.trim().is_empty() || text.chars().count() > max {
            true => Err(PackageError::Setting { key, problem: format!("1 to {max} characters, not `{text}`") }),
            false => Ok(()),
        };
        short("name", &settings.name, 30)?;
        short("developer", &settings.developer, 32)?;
        let parts: Vec<_> = settings.version.split('.').collect();
        if parts.len() != 3 || parts.iter().any(|part| part.parse::<u32>().is_err()) {
            let problem = format!("`{}` is no version such as 1.0.0", settings.version);
            return Err(PackageError::Setting { key: "version", problem });
        }
        for (key, url) in [("website", &settings.website), ("privacy", &settings.privacy), ("terms", &settings.terms)] {
            if url.scheme() != "https" {
                return Err(PackageError::Setting { key, problem: format!("`{url}` is no https address") });
            }
        }
        Ok(Self { settings, client, site })
    }

    /// Id of the Teams app.
    pub fn id(&self) -> Uuid {
        self.settings.id.unwrap_or_else(|| self.derived_id("teams app"))
    }

    /// File with the library of the host applications.
    pub fn library(&self) -> &std::path::Path {
        &self.settings.library
    }

    /// The same for the same site always.
    fn derived_id(&self, what: &str) -> Uuid {
        let hash = Sha256::digest(format!("holdfast {what} {}", self.site));
        let bytes = std::array::from_fn(|i| hash[i]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Name of the site as `validDomains` and the identifier URI hold it.
    fn domain(&self) -> String {
        let port = self.site.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.site.host_str().unwrap_or_default())
    }

    /// What a token for the tab is asked for (`aud` of tokens of version 1).
    pub fn identifier_uri(&self) -> String {
        format!("api://{}/{}", self.domain(), self.client)
    }

    /// Address of the tab's page.
    pub fn tab_url(&self) -> Url {
        self.site.join("holdfast/tab").expect("a path can be joined to an https address")
    }

    /// `manifest.json`
    pub fn manifest(&self) -> Value {
        let app = &self.settings;
        json!({
            "$schema": SCHEMA,
            "manifestVersion": MANIFEST_VERSION,
            "version": app.version,
            "id": self.id(),
            "developer": {
                "name": app.developer,
                "websiteUrl": app.website,
                "privacyUrl": app.privacy,
                "termsOfUseUrl": app.terms,
            },
            "name": { "short": app.name, "full": format!("{}: the mission's channels", app.name) },
            "description": {
                "short": "The mission's channels, also while its site is out of reach.",
                "full": "Read and write the channels of a field site. What is written while the site is out of reach \
                         waits and is delivered when it is back; every page says how old it is.",
            },
            "icons": { "color": "color.png", "outline": "outline.png" },
            "accentColor": "#1C58D9",
            "staticTabs": [{
                "entityId": "holdfast",
                "name": app.name,
                "contentUrl": self.tab_url(),
                "websiteUrl": self.site,
                "scopes": ["personal"],
            }],
            "permissions": ["identity"],
            "devicePermissions": ["media", "notifications"],
            "validDomains": [self.domain()],
            "webApplicationInfo": { "id": self.client, "resource": self.identifier_uri() },
            "activities": {
                "activityTypes": [{
                    "type": DIGEST_ACTIVITY,
                    "description": "Messages of a field site have arrived",
                    "templateText": format!("{{{DIGEST_PARAMETER}}}"),
                }],
            },
        })
    }

    /// The package: the manifest and its two pictures. The same for the same settings, byte for byte.
    pub fn zip(&self) -> Vec<u8> {
        let manifest = serde_json::to_vec_pretty(&self.manifest()).expect("the manifest is plain JSON");
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default());
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [("manifest.json", &manifest[..]), ("color.png", COLOR), ("outline.png", OUTLINE)] {
            zip.start_file(name, options).expect("the names differ");
            zip.write_all(bytes).expect("memory takes it");
        }
        zip.finish().expect("memory takes it").into_inner()
    }

    /// What has to be registered in Entra for it.
    pub fn registration(&self) -> Registration {
        let scope = self.derived_id("scope");
        let first = json!({
            "identifierUris": [self.identifier_uri()],
            "api": {
                "requestedAccessTokenVersion": 2,
                "oauth2PermissionScopes": [{
                    "id": scope,
                    "value": SCOPE,
                    "type": "User",
                    "isEnabled": true,
                    "adminConsentDisplayName": "Sign in to the mission's channels",
                    "adminConsentDescription": "Lets Teams and Outlook tell the site who its user is.",
                    "userConsentDisplayName": "Sign in to the mission's channels",
                    "userConsentDescription": "Lets Teams and Outlook tell the site who you are.",
                }],
            },
            "requiredResourceAccess": [{
                "resourceAppId": GRAPH_APP,
                "resourceAccess": [
                    { "id": USER_READ, "type": "Scope" },
                    { "id": ACTIVITY_SEND, "type": "Role" },
                ],
            }],
        });
        let clients = CLIENTS.map(|(_, id)| json!({ "appId": id, "delegatedPermissionIds": [scope] }));
        let second = json!({
            "api": { "preAuthorizedApplications": clients },
        });
        Registration {
            application: self.client,
            identifier_uri: self.identifier_uri(),
            tab: self.tab_url(),
            patches: vec![first, second],
        }
    }
}

/// What an administrator enters in Entra, as changes of `PATCH /v1.0/applications(appId='{application}')`. The second
/// names the scope that the first one makes, so they are two.
#[derive(Clone, Debug, Serialize)]
pub struct Registration {
    /// The application (client) id that is changed.
    pub application: Uuid,
    /// Its identifier URI.
    pub identifier_uri: String,
    /// Address of the tab's page.
    pub tab: Url,
    /// The changes in their order.
    pub patches: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::Path;

    use super::*;

    fn settings() -> AppSettings {
        serde_json::from_value(json!({
            "library": "teams.js",
            "developer": "Task Force",
            "website": "https://example.mil",
            "privacy": "https://example.mil/privacy",
            "terms": "https://example.mil/terms",
        }))
        .unwrap()
    }

    fn app(site: &str) -> Result<TeamsApp, PackageError> {
        TeamsApp::new(settings(), Uuid::from_u128(7), site)
    }

    #[test]
    fn the_manifest_satisfies_the_published_schema() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/teams-manifest.schema.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            return println!("skipped: {} is absent", path.display());
        };
        let schema = jsonschema::draft4::new(&serde_json::from_str(&text).unwrap()).unwrap();
        let manifest = app("https://chat.example.mil/mission").unwrap().manifest();
        let complaints: Vec<String> =
            schema.iter_errors(&manifest).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let mut bad = manifest.clone();
        bad["staticTabs"][0]["nonsense"] = json!(1);
        assert!(!schema.is_valid(&bad), "the schema finds what is wrong");
    }

    #[test]
    fn everything_in_the_package_names_the_same_site() {
        let app = app("https://chat.example.mil/mission").unwrap();
        let manifest = app.manifest();
        let client = "00000000-0000-0000-0000-000000000007";
        assert_eq!(manifest["staticTabs"][0]["contentUrl"], "https://chat.example.mil/mission/holdfast/tab");
        assert_eq!(manifest["validDomains"], json!(["chat.example.mil"]));
        assert_eq!(manifest["webApplicationInfo"]["resource"], format!("api://chat.example.mil/{client}"));
        let registration = app.registration();
        assert_eq!(registration.patches[0]["identifierUris"][0], manifest["webApplicationInfo"]["resource"]);
        let scope = &registration.patches[0]["api"]["oauth2PermissionScopes"][0]["id"];
        let allowed = registration.patches[1]["api"]["preAuthorizedApplications"].as_array().unwrap();
        assert_eq!(allowed.len(), CLIENTS.len());
        assert!(allowed.iter().all(|client| client["delegatedPermissionIds"][0] == *scope));
    }

    #[test]
    fn the_package_is_the_manifest_with_two_pictures_and_always_the_same() {
        let app = app("https://chat.example.mil").unwrap();
        let bytes = app.zip();
        assert_eq!(bytes, app.zip());
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut text = String::new();
        zip.by_name("manifest.json").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), app.manifest());
        for (name, side) in [("color.png", 192_u32), ("outline.png", 32)] {
            let mut picture = Vec::new();
            zip.by_name(name).unwrap().read_to_end(&mut picture).unwrap();
            // Width and height stand behind the signature and the head of the first chunk.
            assert_eq!(picture[16..24], [side.to_be_bytes(), side.to_be_bytes()].concat(), "{name}");
        }
        assert_eq!(zip.len(), 3);
    }

    #[test]
    fn a_site_that_teams_would_not_open_is_refused() {
        for site in ["http://chat.example.mil", "https://192.0.2.7", "https://[::1]", "chat.example.mil", ""] {
            assert!(matches!(app(site), Err(PackageError::Site(_))), "{site}");
        }
        let named = |change: fn(&mut AppSettings)| {
            let mut settings = settings();
            change(&mut settings);
            TeamsApp::new(settings, Uuid::nil(), "https://chat.example.mil").unwrap_err().to_string()
        };
        assert!(named(|s| s.name = "x".repeat(31)).starts_with("microsoft.app.name:"));
        assert!(named(|s| s.developer = " ".into()).starts_with("microsoft.app.developer:"));
        assert!(named(|s| s.version = "1.0".into()).starts_with("microsoft.app.version:"));
        assert!(named(|s| s.terms = "http://example.mil".parse().unwrap()).starts_with("microsoft.app.terms:"));
    }
}
