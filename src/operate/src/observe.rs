//! The metrics listener: `/metrics`, `/healthz`, `/readyz`.
//!
//! The pages say nothing about users or content, so they need no sign-in; by default they listen on this machine only.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use telemetry::{Grade, Health, Metrics};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

/// What the pages show.
#[derive(Clone)]
pub struct Observed {
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// Its health board.
    pub health: Health,
}

/// Binds the listener.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).await.map_err(|e| {
        Failure::new(
            format!("listening on {listen} for metrics failed: {e}; nothing was started"),
            "set metrics.listen to a free address and port",
        )
    })
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, observed: Observed, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(observed)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(observed: Observed) -> axum::Router {
    axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(observed)
}

async fn metrics(State(o): State<Observed>) -> Response {
    o.metrics
        .process_health_checks
        .set_count((), o.health.checks().iter().filter(|c| c.grade != Grade::Ok).count() as u64);
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], o.metrics.exposition()).into_response()
}

#[derive(Deserialize)]
struct Asked {
    verbose: Option<String>,
}

/// 200 while nothing fails; a degraded node is healthy, since restarting it would not help.
async fn healthz(State(o): State<Observed>, Query(asked): Query<Asked>) -> Response {
    page(&o.health, o.health.grade() != Grade::Failing, &asked)
}

/// 200 while mission users can be served.
async fn readyz(State(o): State<Observed>, Query(asked): Query<Asked>) -> Response {
    page(&o.health, o.health.is_ready(), &asked)
}

fn page(health: &Health, good: bool, asked: &Asked) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = if good { "ok\n".to_owned() } else { "not ok\n".to_owned() };
    if asked.verbose.is_some() {
        for check in health.checks() {
            text.push_str(&format!("[{}] {}: {}\n", check.grade.as_str(), check.name, check.text));
            if let Some(next) = check.next_step {
                text.push_str(&format!("    next step: {next}\n"));
            }
        }
    }
    (status, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use telemetry::Verdict;
    use tower::ServiceExt as _;

    use super::*;
    use carrier::SystemClock;

    async fn ask(observed: &Observed, path: &str) -> (StatusCode, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router(observed.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn observed() -> Observed {
        Observed { metrics: Arc::new(Metrics::new()), health: Health::new(Arc::new(SystemClock)) }
    }

    #[tokio::test]
    async fn a_node_is_ready_from_the_end_of_its_start_and_through_an_outage() {
        let o = observed();
        assert_eq!(ask(&o, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(&o, "/healthz").await.0, StatusCode::OK);
        o.health.set_ready(true);
        o.health.report("link bravo", Verdict::degraded("no answer", "check the radio"));
        assert_eq!(ask(&o, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
        let (_, text) = ask(&o, "/readyz?verbose").await;
        assert_eq!(text, "ok\n[degraded] link bravo: no answer\n    next step: check the radio\n");
        o.health.report("journal", Verdict::failing("disk full", "free space"));
        assert_eq!(ask(&o, "/healthz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn metrics_count_the_checks_that_are_not_ok() {
        let o = observed();
        o.health.report("journal", Verdict::ok("fine"));
        o.health.report("link bravo", Verdict::degraded("no answer", "check the radio"));
        let (status, text) = ask(&o, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("holdfast_process_health_checks 1\n"), "{text}");
    }
}
