//! Hands notifications to the proxy: what waits, when it has settled, and again after the proxy was away.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use telemetry::Metrics;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::sign::Signer;
use super::{CLEAR, MESSAGE, Notification, Push, PushSettings};
use crate::core::Core;
use crate::error::AppResult;
use crate::outgoing::address::target;
use crate::outgoing::{Call, Outgoing, OutgoingError};

/// Whoever looks at the channel has read a post within this time; then nothing goes out.
const SETTLE_MS: i64 = 2_000;
/// Between two tries while the proxy is away, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Read at once.
const BATCH: i64 = 100;
/// How long the proxy may take to answer; it asks Apple or Google meanwhile.
const TIMEOUT_S: u32 = 30;
const RECEIPTS_AT_ONCE_MAX: usize = 16;

/// What a push proxy answers.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ProxyAnswer {
    pub(crate) status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

/// The configured proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    url: String,
    outgoing: Outgoing,
    /// For receipts of devices that are passed on at once; one beyond is lost, as they are only counted.
    pub(crate) receipts: Arc<Semaphore>,
}

impl Proxy {
    /// `None` where none is configured. An operator named it, so it may be internal.
    pub(crate) fn of(settings: &PushSettings) -> Option<Self> {
        let url = settings.proxy.as_ref()?.trim_end_matches('/').to_owned();
        let host = target(&url).ok()?.host;
        let outgoing = Outgoing::new(&[host], TIMEOUT_S);
        Some(Self { outgoing, url, receipts: Arc::new(Semaphore::new(RECEIPTS_AT_ONCE_MAX)) })
    }

    /// # Errors
    /// When it does not answer, or not as a proxy does: to be tried again.
    pub(crate) async fn ask<T: Serialize>(&self, path: &str, what: &T) -> Result<ProxyAnswer, OutgoingError> {
        let body = serde_json::to_vec(what).expect("texts and numbers");
        let call = Call {
            method: Method::POST,
            url: format!("{}/api/v1/{path}", self.url),
            content_type: Some("application/json"),
            authorization: None,
            body,
        };
        let answered = self.outgoing.send(call).await?;
        let waits = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&answered.status);
        if answered.status.is_client_error() && !waits {
            // It is about this one and not about the proxy: nothing else is to wait behind it.
            return Ok(ProxyAnswer { status: "FAIL".to_owned(), error: answered.status.to_string() });
        }
        if answered.status != StatusCode::OK {
            return Err(OutgoingError::Failed(format!("the push proxy answered {}", answered.status)));
        }
        serde_json::from_slice(&answered.body).map_err(|e| OutgoingError::Failed(e.to_string()))
    }
}

impl Core {
    /// The configured proxy, if any.
    pub(crate) fn push_proxy(&self) -> Option<&Proxy> {
        self.0.push_proxy.as_ref()
    }

    /// Sends notifications to mobile devices until `stop`; none where no push proxy is configured.
    ///
    /// Cancel-safe: what was handed over and not noted is handed over again.
    pub async fn keep_pushing(self, metrics: Arc<Metrics>, stop: CancellationToken) {
        let Some(proxy) = self.push_proxy().cloned() else { return stop.cancelled().await };
        let mut changed = self.0.push_changed.subscribe();
        let mut retry = RETRY_MIN;
        loop {
            let wait = tokio::select! {
                () = stop.cancelled() => return,
                sent = self.push_due(&proxy, &metrics) => match sent {
                    Ok(next) => {
                        retry = RETRY_MIN;
                        next
                    }
                    Err(error) => {
                        tracing::info!(%error, "the push proxy is not reached; notifications wait");
                        let wait = retry;
                        retry = (retry * 2).min(RETRY_MAX);
                        Some(wait)
                    }
                },
            };
            let settle = Duration::from_millis(SETTLE_MS.unsigned_abs());
            match wait {
                Some(wait) => tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait.max(settle)) => {}
                },
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    changed = changed.changed() => if changed.is_err() { return },
                },
            }
        }
    }

    /// Hands over what is due; how long until more is.
    ///
    /// # Errors
    /// When the proxy is away; what was not handed over waits.
    pub(crate) async fn push_due(&self, proxy: &Proxy, metrics: &Metrics) -> Result<Option<Duration>, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let signer = self.in_store(|core| Signer::of(&core)).await.map_err(|e| text(&e))?;
        loop {
            let stale = self.in_store(|core| core.drop_stale_pushes()).await.map_err(|e| text(&e))?;
            metrics.mission_pushes_dropped_total.add((), stale);
            let (due, next) = self.in_store(|core| core.due_pushes(SETTLE_MS, BATCH)).await.map_err(|e| text(&e))?;
            if due.is_empty() {
                let now = self.now().0;
                return Ok(next.map(|at| Duration::from_millis((at - now).max(0).unsigned_abs())));
            }
            for push in due {
                for device in push.devices.clone() {
                    let notification = self.notification(&push, &device, &signer);
                    let answer = proxy.ask("send_push", &notification).await.map_err(|e| text(&e))?;
                    match answer.status.as_str() {
                        "OK" => metrics.mission_pushes_sent_total.inc(()),
                        "REMOVE" => {
                            self.in_store(move |core| core.forget_device(&device)).await.map_err(|e| text(&e))?
                        }
                        _ => {
                            tracing::info!(error = %answer.error, "the push proxy refused a notification");
                            metrics.mission_pushes_dropped_total.add((), 1);
                        }
                    }
                }
                self.in_store(move |core| core.pushed(&push)).await.map_err(|e| text(&e))?;
            }
        }
    }

    async fn in_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> AppResult<T> + Send + 'static,
    ) -> AppResult<T> {
        let core = self.clone();
        tokio::task::spawn_blocking(move || work(core))
            .await
            .unwrap_or_else(|e| Err(crate::error::AppError::storage("push", e)))
    }

    fn notification(&self, push: &Push, device: &str, signer: &Signer) -> Notification {
        let (platform, token) = device.split_once(':').unwrap_or(("", device));
        let ack_id = self.random_id().to_string();
        let is_clear = push.state == CLEAR;
        Notification {
            signature: signer.sign(&ack_id, token),
            ack_id,
            platform: platform.to_owned(),
            server_id: self.diagnostic_id().to_string(),
            device_id: token.to_owned(),
            post_id: if is_clear { String::new() } else { push.post.to_string() },
            category: if is_clear { String::new() } else { "CAN_REPLY".to_owned() },
            sound: String::new(),
            message: if is_clear { "" } else { MESSAGE },
            badge: push.badge,
            content_available: i64::from(is_clear),
            team_id: if is_clear { String::new() } else { push.team.clone() },
            channel_id: push.channel.to_string(),
            root_id: push.root.clone(),
            kind: if is_clear { "clear" } else { "message" }.to_owned(),
            version: "v2".to_owned(),
            is_crt_enabled: true,
            is_id_loaded: !is_clear,
        }
    }
}
