//! Passing on what other sites' cores notify, for those that reach this node and not the proxy.
//!
//! It takes the push proxy's API and gives its answers. Only listed addresses may use it, and what is passed on holds ids alone,
//! whatever the sender put in. It keeps no queue: while the proxy is away the sender gets 502 and keeps its own.

use std::net::IpAddr;

use http::StatusCode;

use super::sender::{Proxy, ProxyAnswer};
use super::{MESSAGE, Notification, Receipt};
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::outgoing::address::Allowed;

/// Longest field that is passed on: ids and a token of at most 4 kB.
const FIELD_BYTES_MAX: usize = 4_096;

/// What is passed on.
pub(crate) enum Passed {
    Notification(Box<Notification>),
    Receipt(Receipt),
}

impl Core {
    /// Reads what a site at this address wants passed on; an answer at once where the original gives one.
    ///
    /// # Errors
    /// 403 for addresses that are not listed, 501 where no proxy is configured.
    pub(crate) fn take_push(
        &self,
        from: &str,
        body: &[u8],
        is_receipt: bool,
    ) -> AppResult<Result<Passed, ProxyAnswer>> {
        let settings = &self.settings().push;
        let listed = Allowed::parse(&settings.relay_for).unwrap_or_default();
        if !from.parse::<IpAddr>().is_ok_and(|address| listed.has_address(address)) {
            return Err(AppError::new(
                "push",
                "holdfast.push.relay.app_error",
                "This site relays nothing for you.",
                403,
            ));
        }
        if settings.proxy.is_none() {
            return Err(disabled());
        }
        let refused = |error: &str| Ok(Err(ProxyAnswer { status: "FAIL".to_owned(), error: error.to_owned() }));
        if is_receipt {
            let Ok(receipt) = serde_json::from_slice::<Receipt>(body) else {
                return refused("Failed to read ack body");
            };
            let fields = [&receipt.id, &receipt.platform, &receipt.kind];
            return match fields.iter().all(|field| !field.is_empty() && field.len() <= FIELD_BYTES_MAX) {
                true => Ok(Ok(Passed::Receipt(receipt))),
                false => refused("Failed because of missing ack Id, platform or type"),
            };
        }
        let Ok(mut notification) = serde_json::from_slice::<Notification>(body) else {
            return refused("Failed to read message body");
        };
        let n = &notification;
        if n.server_id.is_empty() || n.device_id.is_empty() {
            return refused("Failed because of missing server Id or device Id");
        }
        let fields = [&n.ack_id, &n.platform, &n.server_id, &n.device_id, &n.post_id, &n.channel_id, &n.signature];
        if fields.iter().any(|field| field.len() > FIELD_BYTES_MAX) {
            return refused("Failed because a field is too long");
        }
        if notification.kind == "message" {
            notification.message = MESSAGE;
        }
        Ok(Ok(Passed::Notification(Box::new(notification))))
    }
}

/// Hands it to the proxy.
///
/// # Errors
/// 502 while the proxy is away: the sender keeps it.
pub(crate) async fn pass_on(proxy: &Proxy, what: &Passed) -> AppResult<ProxyAnswer> {
    let answer = match what {
        Passed::Notification(notification) => proxy.ask("send_push", notification).await,
        Passed::Receipt(receipt) => proxy.ask("ack", receipt).await,
    };
    answer.map_err(|e| {
        let status = StatusCode::BAD_GATEWAY.as_u16();
        AppError::new("push", "holdfast.push.away.app_error", "The push proxy is not reached; try again later.", status)
            .detail(e)
    })
}

/// As the original without a push proxy.
pub(crate) fn disabled() -> AppError {
    let id = "api.push_notification.disabled.app_error";
    AppError::new("pushNotificationAck", id, "Push Notifications are disabled on this server.", 501)
}
