//! Passing on what other sites' cores notify, for those that reach this node and not the proxy.
//!
//! It takes the push proxy's API and gives its answers. Only listed addresses may use it, and what is passed on holds ids alone,
//! whatever the sender put in. It keeps no queue: while the proxy is away the sender gets 502 and keeps its own.

use std::net::IpAddr;

use http::StatusCode;
use model::Id;

use super::sender::{Proxy, ProxyAnswer};
use super::{MESSAGE, Notification, Receipt};
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::outgoing::address::Allowed;

/// Longest field that is passed on: ids and a token of at most 4 kB.
const FIELD_BYTES_MAX: usize = 4_096;

// What these fields may say (Mattermost `server/public/model/push_notification.go` and `session.go`): in a field for any text,
// any text could be passed on.
const KINDS: &[&str] = &["message", "clear", "update_badge", "session", "test"];
const CATEGORIES: &[&str] = &["CAN_REPLY"];
const SOUNDS: &[&str] = &["none"];
const VERSIONS: &[&str] = &["v1", "v2"];

/// Such as `apple_rn` or `android_rnbeta-v2`, which new releases of the apps may add to.
fn is_platform(text: &str) -> bool {
    let rest = text.strip_prefix("apple").or_else(|| text.strip_prefix("android"));
    rest.is_some_and(|rest| {
        rest.len() <= 16 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
    })
}

/// A token of a device, a name of a server or a signature: one word.
fn is_handle(text: &str) -> bool {
    (1..=FIELD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

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
            let known = receipt.post_id.is_empty() || receipt.post_id.parse::<Id>().is_ok();
            return match known && fields.iter().all(|field| is_handle(field)) {
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
        let is_signed = n.signature.is_empty() || is_handle(&n.signature);
        if !is_signed || [&n.server_id, &n.device_id].iter().any(|field| !is_handle(field)) {
            return refused("Failed because of a server Id, device Id or signature that is none");
        }
        let ids = [&n.ack_id, &n.post_id, &n.team_id, &n.channel_id, &n.root_id];
        if ids.iter().any(|id| !id.is_empty() && id.parse::<Id>().is_err()) {
            return refused("Failed because of an Id that is none");
        }
        let words = [(&n.kind, KINDS), (&n.category, CATEGORIES), (&n.sound, SOUNDS), (&n.version, VERSIONS)];
        let is_known = |(word, known): &(&String, &[&str])| word.is_empty() || known.contains(&word.as_str());
        if !words.iter().all(is_known) || !is_platform(&n.platform) {
            return refused("Failed because of a word that this site does not know");
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
