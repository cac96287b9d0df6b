//! A tenant with an app and people, and a client that sends exactly what a test says.

use std::path::PathBuf;
use std::time::Duration;

use graphsim::{App, Lag, Oracle, Relaxation, Settings, Sim, Team, TeamMade, User};
use reqwest::{Certificate, Client, Method, redirect};
use serde_json::{Value, json};

/// Everything that the tests' app may do.
const ROLES: &[&str] = &[
    "User.Read.All",
    "Group.Read.All",
    "Organization.Read.All",
    "Teamwork.Migrate.All",
    "Team.Create",
    "Channel.Create",
    "Team.ReadBasic.All",
    "Channel.ReadBasic.All",
    "TeamMember.ReadWrite.All",
    "ChannelMessage.Read.All",
    "Files.ReadWrite.All",
    "Sites.ReadWrite.All",
    "Mail.Send",
    "Mail.ReadWrite",
    "TeamsActivity.Send",
    "Sites.Manage.All",
    "Tasks.ReadWrite.All",
    "Calendars.ReadWrite",
];

const SCOPES: &[&str] = &[
    "User.Read",
    "ChannelMessage.Send",
    "ChannelMessage.Read.All",
    "ChannelMessage.ReadWrite",
    "Mail.Send",
    "Files.ReadWrite.All",
    "Channel.ReadBasic.All",
];

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) http: Client,
    pub(crate) app: String,
    pub(crate) anna: String,
    pub(crate) ben: String,
    pub(crate) team: TeamMade,
    pub(crate) token: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Got {
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().or(self.json["error"].as_str()).unwrap_or("")
    }

    pub(crate) fn ok(self) -> Value {
        assert!(self.status < 300, "{} {}", self.status, self.text);
        self.json
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// The OpenAPI subset, which lies beside the repository or nowhere.
pub(crate) fn subset() -> Option<PathBuf> {
    let path = std::env::var_os("HOLDFAST_GRAPH_SUBSET").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/graph-openapi-subset.yaml"),
        PathBuf::from,
    );
    if path.exists() {
        return Some(path);
    }
    println!(
        "not validated: there is no OpenAPI subset at {} (HOLDFAST_GRAPH_SUBSET names another place)",
        path.display()
    );
    None
}

/// No lag and no throttling: for tests of something else.
pub(crate) fn quick() -> Settings {
    let lag = Lag { directory_ms: 0, teams_ms: 0, mail_ms: 0 };
    Settings { subset: subset(), lag, ..Settings::seeded(7) }.relax(Relaxation::Unthrottled)
}

impl World {
    pub(crate) async fn quick() -> Self {
        Self::start(quick()).await
    }

    pub(crate) async fn start(settings: Settings) -> Self {
        let sim = Sim::start(settings).unwrap();
        let authority = Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
        let http = Client::builder()
            .tls_certs_only([authority])
            .redirect(redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let app = App::new("Holdfast")
            .secret("s3cret")
            .application(ROLES)
            .delegated(SCOPES)
            .redirect("http://localhost/back");
        let app = sim.add_app(app).unwrap();
        let (anna, ben) = (sim.add_user(User::new("anna")), sim.add_user(User::new("ben")));
        let members = [anna.clone(), ben.clone()].into();
        let team = Team { display_name: "Bravo".into(), members, channels: vec!["Ops".into()], ..Team::default() };
        let team = sim.add_team(team);
        let mut world = Self { sim, http, app, anna, ben, team, token: String::new() };
        world.token = world.app_token("Holdfast").await;
        world
    }

    /// The oracle, once nothing in it is broken but what the test names.
    pub(crate) fn oracle(&self) -> Oracle {
        let oracle = self.sim.oracle();
        assert!(oracle.violations.is_empty(), "{:#?}", oracle.violations);
        oracle
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.sim.login_url(), self.sim.tenant())
    }

    pub(crate) async fn app_token(&self, _: &str) -> String {
        let scope = format!("{}/.default", self.sim.graph_url());
        let got = self
            .ask_token(&[
                ("grant_type", "client_credentials"),
                ("client_id", &self.app),
                ("client_secret", "s3cret"),
                ("scope", &scope),
            ])
            .await;
        got.ok()["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ask_token(&self, form: &[(&str, &str)]) -> Got {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request =
            self.http.post(self.token_url()).header("content-type", "application/x-www-form-urlencoded").body(body);
        read(request).await
    }

    /// A user signs in at the page and the code is redeemed; the whole answer.
    pub(crate) async fn sign_in(&self, name: &str, scope: &str) -> Value {
        let code = self.code(name, scope).await;
        self.redeem(&code).await.ok()
    }

    pub(crate) async fn code(&self, name: &str, scope: &str) -> String {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("client_id", self.app.as_str()),
                ("response_type", "code"),
                ("redirect_uri", "http://localhost:4711/back"),
                ("scope", scope),
                ("state", "st"),
                ("nonce", "nn"),
                ("code_challenge_method", "S256"),
                ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ])
            .finish();
        let page = read(self.http.get(format!(
            "{}/{}/oauth2/v2.0/authorize?{query}",
            self.sim.login_url(),
            self.sim.tenant()
        )))
        .await;
        assert_eq!(page.status, 200, "{}", page.text);
        let ctx = page.text.split("name=\"ctx\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let (login, password) = (format!("{name}@contoso.example"), format!("{name}-password"));
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("ctx", ctx.as_str()), ("login", &login), ("passwd", &password)])
            .finish();
        let url = format!("{}/{}/login", self.sim.login_url(), self.sim.tenant());
        let back =
            read(self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)).await;
        assert_eq!(back.status, 302, "{}", back.text);
        let location = url::Url::parse(back.header("location")).unwrap();
        let pairs: Vec<(String, String)> = location.query_pairs().into_owned().collect();
        assert!(pairs.contains(&("state".to_owned(), "st".to_owned())));
        pairs.into_iter().find(|(n, _)| n == "code").unwrap().1
    }

    pub(crate) async fn redeem(&self, code: &str) -> Got {
        self.ask_token(&[
            ("grant_type", "authorization_code"),
            ("client_id", &self.app),
            ("client_secret", "s3cret"),
            ("code", code),
            ("redirect_uri", "http://localhost:4711/back"),
            ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        ])
        .await
    }

    pub(crate) async fn user_token(&self, name: &str) -> String {
        let scope = format!("{}/.default", self.sim.graph_url());
        self.sign_in(name, &scope).await["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn send(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Got {
        let mut request = self.http.request(method, self.url(path)).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        read(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(&self.token, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Got {
        self.send(&self.token, Method::POST, path, Some(body)).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        if path.starts_with("https://") { path.to_owned() } else { format!("{}/v1.0{path}", self.sim.graph_url()) }
    }

    pub(crate) fn ops(&self) -> String {
        format!("/teams/{}/channels/{}", self.team.id, self.team.channels["Ops"])
    }
}

pub(crate) async fn read(request: reqwest::RequestBuilder) -> Got {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Got { status, headers, json, text }
}

pub(crate) fn html(text: &str) -> Value {
    json!({ "body": { "contentType": "html", "content": text } })
}
