//! Receipts of devices, and the push proxy's API for other sites.

use std::sync::Arc;

use axum::body::Body;

use super::call::Call;
use super::reply::Reply;
use super::routes::Streamed;
use crate::error::{AppError, AppResult};
use crate::push::Receipt;
use crate::push::relay::{disabled, pass_on};

/// Largest notification or receipt.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// A device received a notification, and asks what it says where that had ids alone.
pub(crate) fn ack(call: &Call) -> AppResult<Reply> {
    let receipt: Receipt = serde_json::from_slice(&call.body).map_err(|e| {
        let id = "api.push_notifications_ack.message.parse.app_error";
        AppError::bad("pushNotificationAck", id, "An error occurred building the push notification ack message.")
            .detail(e)
    })?;
    let Some(proxy) = call.core().push_proxy().cloned() else { return Err(disabled()) };
    if let Ok(slot) = Arc::clone(&proxy.receipts).try_acquire_owned() {
        let passed = receipt.clone();
        call.state.in_background(async move {
            let _slot = slot;
            // Statistics of whoever runs the proxy; a lost one is lost.
            if let Err(error) = proxy.ask("ack", &passed).await {
                tracing::debug!(%error, "a device's receipt was not passed on");
            }
        });
    }
    if receipt.is_id_loaded && receipt.kind == "message" && !receipt.post_id.is_empty() {
        return Reply::json(&call.core().push_told(call.session()?, &receipt)?);
    }
    Reply::ok()
}

pub(crate) fn relay_push(call: Call, body: Body) -> Streamed {
    Box::pin(relay(call, body, false))
}

pub(crate) fn relay_receipt(call: Call, body: Body) -> Streamed {
    Box::pin(relay(call, body, true))
}

async fn relay(call: Call, body: Body, is_receipt: bool) -> AppResult<Reply> {
    let body =
        axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|e| AppError::body_param("push", "body").detail(e))?;
    let passed = match call.core().take_push(&call.address, &body, is_receipt)? {
        Ok(passed) => passed,
        Err(answer) => return Reply::json(&answer),
    };
    let proxy = call.core().push_proxy().ok_or_else(disabled)?;
    Reply::json(&pass_on(proxy, &passed).await?)
}
