//! Mattermost's own web app, served from the directory it was built into (`client/` of a release) as its server
//! does: `static/` with long-lived caching, `root.html` under every other address that is not the API's.
//!
//! Invariants
//! - The directory is only read. Where the site lies below a path, what names addresses (`root.html`, `manifest.json`
//!   and style sheets) is rewritten on its way out.
//! - Nothing outside the directory is served.
//!
//! Sources: Mattermost server/channels/web/static.go, server/channels/utils/subpath.go.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any_service;
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;
use tower_http::compression::CompressionLayer;
use tower_http::services::ServeDir;

/// Where a client reaches the site: `/`, or `/path` without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subpath(String);

/// What is rewritten is held in memory as a whole: style sheets, none of which comes near.
const REWRITTEN_BYTES_MAX: usize = 16 << 20;

/// A year, as the original says it: the names of these files change with their content.
const FOR_LONG: HeaderValue = HeaderValue::from_static("max-age=31556926, public");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache, max-age=31556926, public");
const NOT_THERE: HeaderValue = HeaderValue::from_static("no-cache, public");

/// The title that a release is built with.
const BUILT_TITLE: &str = "<title>Mattermost</title>";

impl Subpath {
    /// The path of a site's URL.
    pub(crate) fn of(site_url: Option<&str>) -> Self {
        let path =
            site_url.and_then(|url| url.parse::<Uri>().ok()).map(|uri| uri.path().trim_end_matches('/').to_owned());
        Self(path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into()))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0 == "/"
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the app's files lie, with a slash at the end.
    fn of_static(&self) -> String {
        format!("{}/static/", self.0.trim_end_matches('/'))
    }
}

/// A built web app in its directory.
#[derive(Clone, Debug)]
pub(crate) struct WebApp {
    dir: PathBuf,
    subpath: Subpath,
    site_name: String,
    frame_ancestors: String,
}

impl WebApp {
    /// `frame_ancestors` are the origins that may show the app in a frame, as in the policy header, besides the
    /// site itself.
    pub(crate) fn new(dir: &Path, subpath: Subpath, site_name: &str, frame_ancestors: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            subpath,
            site_name: site_name.to_owned(),
            frame_ancestors: frame_ancestors.trim().to_owned(),
        }
    }

    /// Adds `static/` to the routes of the API.
    pub(crate) fn routes(&self, router: Router) -> Router {
        let files = ServeDir::new(&self.dir).append_index_html_on_directories(false);
        let app = self.clone();
        let serve = tower::service_fn(move |request: Request| {
            let (app, files) = (app.clone(), files.clone());
            async move { Ok::<_, Infallible>(app.file(files, request).await) }
        });
        router.nest_service("/static", any_service(serve).layer(CompressionLayer::new()))
    }

    /// One file below `static/`.
    async fn file(&self, files: ServeDir, mut request: Request) -> Response {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let is_rewritten = !self.subpath.is_root() && (name == "manifest.json" || name.ends_with(".css"));
        if is_rewritten {
            // Offsets in what is on the disk mean nothing in what is sent.
            for conditional in [header::RANGE, header::IF_RANGE] {
                request.headers_mut().remove(conditional);
            }
        }
        let Ok(answer) = files.oneshot(request).await;
        let mut answer = answer.map(Body::new);
        if is_rewritten && answer.status() == StatusCode::OK {
            answer = self.rewritten(answer).await;
        }
        let caching = match answer.status() {
            StatusCode::NOT_FOUND => NOT_THERE,
            _ if name == "remote_entry.js" => ASK_AGAIN,
            _ => FOR_LONG,
        };
        answer.headers_mut().insert(header::CACHE_CONTROL, caching);
        with_common_headers(answer)
    }

    async fn rewritten(&self, answer: Response) -> Response {
        let (mut parts, body) = answer.into_parts();
        let Ok(whole) = Limited::new(body, REWRITTEN_BYTES_MAX).collect().await else {
            return status_only(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let text = String::from_utf8_lossy(&whole.to_bytes()).replace("/static/", &self.subpath.of_static());
        for of_the_disk in [header::CONTENT_LENGTH, header::ACCEPT_RANGES, header::ETAG] {
            parts.headers.remove(of_the_disk);
        }
        Response::from_parts(parts, Body::from(text))
    }

    /// The page that starts the app, for every address that a reader may have kept.
    ///
    /// # Errors
    /// When `root.html` cannot be read.
    pub(crate) async fn root(&self, method: &Method) -> io::Result<Response> {
        let built = tokio::fs::read_to_string(self.dir.join("root.html")).await?;
        let page = match method {
            &Method::HEAD => Bytes::new(),
            _ => Bytes::from(self.page(&built)),
        };
        let mut answer = Response::new(Body::from(page));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
        if self.frame_ancestors.is_empty() {
            // It knows no list, and some browsers heed it besides the policy.
            headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
        }
        let policy = HeaderValue::from_str(&self.policy()).map_err(io::Error::other)?;
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        Ok(with_common_headers(answer))
    }

    /// `root.html` with the site's name and path.
    fn page(&self, built: &str) -> String {
        let title = format!("<title>{}</title>", super::escape(&self.site_name));
        let named = built.replacen(BUILT_TITLE, &title, 1);
        if self.subpath.is_root() {
            return named;
        }
        let script = format!("<script id=\"publicPathInWindowScript\">{}</script>", self.public_path_script());
        let policy = format!("content=\"script-src 'self'{}", self.script_hash());
        named
            .replace("\"/static/", &format!("\"{}", self.subpath.of_static()))
            .replacen("<script id=\"publicPathInWindowScript\"></script>", &script, 1)
            .replacen("content=\"script-src 'self'", &policy, 1)
    }

    /// Tells the app's loader where its files are.
    fn public_path_script(&self) -> String {
        format!("window.publicPath='{}'", self.subpath.of_static())
    }

    /// Lets that one script run; none is needed at the root of a host.
    fn script_hash(&self) -> String {
        match self.subpath.is_root() {
            true => String::new(),
            false => format!(" 'sha256-{}'", BASE64.encode(&Sha256::digest(self.public_path_script()))),
        }
    }

    fn policy(&self) -> String {
        let ancestors = format!("'self' {}", self.frame_ancestors);
        format!("frame-ancestors {}; script-src 'self'{}", ancestors.trim_end(), self.script_hash())
    }
}

fn with_common_headers(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert("permissions-policy", HeaderValue::from_static(""));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn status_only(status: StatusCode) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
