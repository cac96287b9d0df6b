//! Mail: sending shows late, and messages keep the dates that they are given.

use std::time::Duration;

use graphsim::{Lag, Settings, What};
use serde_json::json;

use crate::world::{World, quick};

#[tokio::test]
async fn what_is_sent_shows_later_in_sent_items_and_at_the_recipient() {
    let lag = Lag { mail_ms: 60_000, ..Lag::default() };
    let world = World::start(Settings { lag, ..quick() }).await;
    let message = json!({
        "subject": "Report", "body": { "contentType": "text", "content": "all well" },
        "toRecipients": [{ "emailAddress": { "address": "ben@contoso.example" } }],
        "internetMessageHeaders": [{ "name": "x-holdfast", "value": "1" }], "internetMessageId": "<1@holdfast.example>",
    });
    let path = format!("/users/{}/sendMail", world.anna);
    let sent = world.post(&path, json!({ "message": message })).await;
    assert_eq!((sent.status, sent.text.as_str()), (202, ""));
    let query = "$filter=internetMessageId%20eq%20%27%3C1@holdfast.example%3E%27&$select=subject";
    let find = |who: &str, folder: &str| format!("/users/{who}/mailFolders/{folder}/messages?{query}");
    world.sim.advance(Duration::from_secs(61));
    assert_eq!(world.get(&find(&world.anna, "sentitems")).await.ok()["value"][0]["subject"], "Report");
    assert_eq!(world.get(&find(&world.ben, "inbox")).await.ok()["value"].as_array().unwrap().len(), 1);
    let nobody = world.post(&path, json!({ "message": { "subject": "x" } })).await;
    assert_eq!(nobody.code(), "ErrorInvalidRecipients");
    assert_eq!(world.oracle().of(What::MailSent).count(), 1);
}

#[tokio::test]
async fn a_message_in_a_folder_keeps_its_dates_only_by_extended_properties() {
    let world = World::quick().await;
    let path = format!("/users/{}/mailFolders/inbox/messages", world.anna);
    let mut message = json!({
        "subject": "Then", "body": { "contentType": "text", "content": "x" }, "internetMessageId": "<2@holdfast.example>",
        "singleValueExtendedProperties": [
            { "id": "Integer 0x0E07", "value": "1" }, { "id": "SystemTime 0x0E06", "value": "2026-02-03T04:05:06Z" },
            { "id": "String {66f5a359-4659-4830-9070-00047ec6ac6e} Name holdfastId", "value": "e1" },
        ],
    });
    let made = world.post(&path, message.clone()).await.ok();
    assert_eq!(
        (made["isDraft"].as_bool(), made["receivedDateTime"].as_str()),
        (Some(false), Some("2026-02-03T04:05:06Z"))
    );
    let named = "singleValueExtendedProperties/any(p:p/id eq 'String {66f5a359-4659-4830-9070-00047ec6ac6e} Name holdfastId' and p/value eq 'e1')";
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("$filter", named).finish();
    let found = world.get(&format!("/users/{}/messages?{query}", world.anna)).await.ok();
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    message["receivedDateTime"] = json!("2026-02-03T04:05:06Z");
    assert_eq!(world.post(&path, message).await.code(), "ErrorInvalidPropertySet");
    world.oracle();
}
