//! Hooks, commands, buttons and dialogs, with a program at the other end.

use std::sync::Mutex;

use super::*;
use crate::outgoing::tests::server;

/// A program that answers every request so, with what it was asked.
async fn program(answer: &Value, tasks: &mut JoinSet<()>) -> (String, Arc<Mutex<Vec<String>>>) {
    let body = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let (address, asked) = server([head, body].concat().into_bytes(), tasks).await;
    (format!("http://127.0.0.1:{}/hook", address.port()), asked)
}

fn body_of(asked: &Mutex<Vec<String>>, n: usize) -> String {
    asked.lock().unwrap()[n].split("\r\n\r\n").nth(1).unwrap_or("").to_owned()
}

async fn newest(site: &Site, by: &Person, channel: &str) -> Value {
    let list = site.get(&format!("/api/v4/channels/{channel}/posts?per_page=5"), &by.bearer()).await.json;
    list["posts"][list["order"][0].as_str().unwrap()].clone()
}

impl Site {
    async fn run(&self, by: &Person, channel: &str, command: &str) -> Answer {
        let body = json!({ "channel_id": channel, "command": command }).to_string();
        self.post("/api/v4/commands/execute", &by.bearer(), body).await
    }

    async fn incoming(&self, world: &World, new: Value) -> String {
        let mut hook = json!({ "channel_id": world.channel, "display_name": "watch", "username": "hookname" });
        hook.as_object_mut().unwrap().extend(new.as_object().unwrap().clone());
        let made = self.post("/api/v4/hooks/incoming", &world.admin.bearer(), hook.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.json);
        format!("/hooks/{}", made.json["id"].as_str().unwrap())
    }
}

// --- incoming hooks

#[tokio::test]
async fn a_program_posts_by_a_hook_in_every_form() {
    let site = Site::new().await;
    let world = site.world().await;
    let hook = site.incoming(&world, json!({})).await;
    let said = json!({
        "text": "alarm <https://a.example|here> <!channel>", "username": "Sensor 4", "icon_emoji": "bell",
        "props": { "card": "x", "override_username": "root", "from_webhook": "no" },
        "attachments": [{ "text": "<u|v>", "fields": [{ "title": "t", "value": 3 }],
            "actions": [{ "name": "Ack", "integration": { "url": "http://127.0.0.1/x", "context": { "secret": 1 } } }] }],
    });
    let done = site.post(&hook, &[], said.to_string()).await;
    assert_eq!((done.status, done.text(), done.header("content-type")), (200, "ok", "text/plain"));
    let post = newest(&site, &world.bob, &world.channel).await;
    assert_eq!(
        (&post["message"], &post["type"]),
        (&json!("alarm [here](https://a.example) @channel"), &json!("slack_attachment"))
    );
    let props = &post["props"];
    assert_eq!((&props["from_webhook"], &props["override_username"]), (&json!("true"), &json!("Sensor 4")));
    assert_eq!((&props["override_icon_emoji"], &props["card"]), (&json!("bell"), &json!("x")));
    assert_eq!(props["webhook_display_name"], "watch");
    let attachment = &props["attachments"][0];
    assert_eq!((&attachment["text"], &attachment["fields"][0]["value"]), (&json!("[v](u)"), &json!("3")));
    assert_eq!(attachment["actions"][0]["id"].as_str().unwrap().len(), 26);
    assert!(!post.to_string().contains("secret"), "where a button leads to stays here");

    let form = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let payload = format!("payload={}", r#"{"text":"by+form"}"#.replace('"', "%22"));
    assert_eq!(site.post(&hook, &form, payload).await.status, 200);
    assert_eq!(newest(&site, &world.bob, &world.channel).await["message"], "by form");
    let multi = [("content-type", "multipart/form-data; boundary=cut".to_owned())];
    let part = "--cut\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nby parts\r\n--cut--\r\n";
    assert_eq!(site.post(&hook, &multi, part).await.status, 200);
    assert_eq!(newest(&site, &world.bob, &world.channel).await["message"], "by parts");
    assert_eq!(site.post(&hook, &[], "{\"text\":\"two\nlines\"}").await.status, 200);
    assert_eq!(newest(&site, &world.bob, &world.channel).await["message"], "two\nlines");
    let elsewhere = json!({ "text": "other", "channel": "log" }).to_string();
    assert_eq!(site.post(&hook, &[], elsewhere).await.status, 200);
    let post = newest(&site, &world.bob, &world.other_channel).await;
    assert_eq!((&post["message"], &post["props"]["override_username"]), (&json!("other"), &json!("hookname")));
    let direct = json!({ "text": "psst", "channel": "@bob" }).to_string();
    assert_eq!(site.post(&hook, &[], direct).await.status, 200);
    let long = json!({ "text": "x".repeat(40_000) }).to_string();
    assert_eq!(site.post(&hook, &[], long).await.status, 200);
    let list = site.get(&format!("/api/v4/channels/{}/posts", world.channel), &world.bob.bearer()).await.json;
    let lens: Vec<usize> =
        (0..3).map(|n| list["posts"][list["order"][n].as_str().unwrap()]["message"].as_str().unwrap().len()).collect();
    assert_eq!(lens, [40_000 - 2 * 16_383, 16_383, 16_383]);
}

#[tokio::test]
async fn a_hook_takes_no_nonsense_and_goes_no_further_than_its_maker() {
    let site = Site::new().await;
    let world = site.world().await;
    let locked = site.incoming(&world, json!({ "channel_locked": true })).await;
    let text = json!({ "text": "x" }).to_string();
    for (path, body, status, id) in [
        (locked.as_str(), "{", 400, "web.incoming_webhook.decode.app_error"),
        (locked.as_str(), r#"{"text":""}"#, 400, "web.incoming_webhook.general.app_error"),
        ("/hooks/ybndrfg8ejkmcpqxot1uwisza3", text.as_str(), 400, "web.incoming_webhook.general.app_error"),
        (locked.as_str(), r#"{"text":"x","channel":"log"}"#, 403, "web.incoming_webhook.general.app_error"),
        (locked.as_str(), r#"{"text":"x","channel":"nowhere"}"#, 404, "web.incoming_webhook.general.app_error"),
        (locked.as_str(), r#"{"text":"x","channel":"@nobody"}"#, 400, "web.incoming_webhook.general.app_error"),
        (locked.as_str(), r#"{"text":"x","type":"system_x"}"#, 400, "web.incoming_webhook.general.app_error"),
    ] {
        let answer = site.post(path, &[], body.to_owned()).await;
        assert_eq!((answer.status, answer.id()), (status, id), "{body}");
    }
    let new = json!({ "channel_id": world.channel }).to_string();
    let refused = site.post("/api/v4/hooks/incoming", &world.bob.bearer(), new).await;
    assert_eq!((refused.status, refused.id()), (403, "api.context.permissions.app_error"));
    let of_bob = json!({ "channel_id": world.channel, "user_id": world.bob.id }).to_string();
    let of_bob = site.post("/api/v4/hooks/incoming", &world.admin.bearer(), of_bob).await.json["id"].clone();
    let left = format!("/api/v4/users/{}", world.bob.id);
    let of_bob = format!("/hooks/{}", of_bob.as_str().unwrap());
    assert_eq!(site.post(&of_bob, &[], text.clone()).await.status, 200);
    let gone = locked.replace("/hooks/", "/api/v4/hooks/incoming/");
    assert_eq!(site.get(&gone, &world.bob.bearer()).await.status, 403);
    let list = site.get(&format!("/api/v4/hooks/incoming?team_id={}", world.team), &world.admin.bearer()).await;
    assert_eq!(list.json.as_array().unwrap().len(), 2);
    assert_eq!(site.request(&Method::DELETE, &left, &world.admin.bearer(), "").await.status, 200);
    assert_eq!(site.post(&of_bob, &[], text.clone()).await.id(), "web.incoming_webhook.general.app_error");
    assert_eq!(site.request(&Method::DELETE, &gone, &world.admin.bearer(), "").await.status, 200);
    assert_eq!(site.get(&gone, &world.admin.bearer()).await.status, 404);
    assert_eq!(site.post(&locked, &[], text).await.id(), "web.incoming_webhook.general.app_error");
}

// --- outgoing hooks

#[tokio::test]
async fn a_program_is_told_of_a_word_and_its_answer_is_posted() {
    let (site, mut tasks) = (Site::new().await, JoinSet::new());
    let world = site.world().await;
    let (url, asked) = program(&json!({ "text": "heard", "response_type": "comment" }), &mut tasks).await;
    let new = json!({
        "team_id": world.team, "display_name": "ears", "trigger_words": ["!call"], "callback_urls": [url],
        "content_type": "application/json",
    });
    let made = site.post("/api/v4/hooks/outgoing", &world.admin.bearer(), new.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.json);
    site.say(&world.bob, &world.channel, "nothing !call").await;
    let post = site.say(&world.bob, &world.channel, "!call the ship").await;
    site.until(|| !asked.lock().unwrap().is_empty()).await;
    let told: Value = serde_json::from_str(&body_of(&asked, 0)).unwrap();
    assert_eq!((&told["token"], &told["text"]), (&made.json["token"], &json!("!call the ship")));
    assert_eq!((&told["user_name"], &told["trigger_word"]), (&json!("bob"), &json!("!call")));
    assert_eq!((&told["post_id"], &told["team_domain"]), (&post["id"], &json!("mission")));
    let mut answer = Value::Null;
    for _ in 0..100 {
        answer = newest(&site, &world.bob, &world.channel).await;
        if answer["message"] == "heard" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((&answer["message"], &answer["root_id"]), (&json!("heard"), &post["id"]));
    assert_eq!(asked.lock().unwrap().len(), 1, "its own answer does not set it off");
    let path = format!("/api/v4/hooks/outgoing/{}", made.json["id"].as_str().unwrap());
    let token = site.post(&format!("{path}/regen_token"), &world.admin.bearer(), "").await;
    assert_ne!(token.json["token"], made.json["token"]);
    assert_eq!(site.request(&Method::DELETE, &path, &world.admin.bearer(), "").await.status, 200);
    for (url, why) in [("http://10.0.0.1/", "inside"), ("http://[::1]/", "this box"), ("ftp://a.example/", "no http")] {
        let new = json!({ "team_id": world.team, "trigger_words": ["x"], "callback_urls": [url] }).to_string();
        let refused = site.post("/api/v4/hooks/outgoing", &world.admin.bearer(), new).await;
        assert_eq!((refused.status, refused.id()), (400, "model.outgoing_hook.is_valid.url.app_error"), "{why}");
    }
}

// --- commands

#[tokio::test]
async fn the_built_in_commands_do_what_they_say() {
    let site = Site::new().await;
    let world = site.world().await;
    let (bob, channel) = (&world.bob, world.channel.as_str());
    let shrug = site.run(bob, channel, "/shrug well").await;
    assert_eq!(
        shrug.json,
        json!({
            "response_type": "in_channel", "text": "well ¯\\\\\\_(ツ)\\_/¯", "username": "", "channel_id": "", "icon_url": "",
            "type": "", "props": null, "goto_location": "", "trigger_id": "", "skip_slack_parsing": false,
            "attachments": null, "extra_responses": null,
        })
    );
    assert_eq!(newest(&site, bob, channel).await["message"], shrug.json["text"]);
    site.run(bob, channel, "/me waves").await;
    let me = newest(&site, bob, channel).await;
    assert_eq!((&me["message"], &me["type"]), (&json!("*waves*"), &json!("me")));
    let mut socket = site.socket("", Some(bob)).await.unwrap();
    for (command, shown) in [
        ("/away", "away"),
        ("/dnd", "dnd"),
        ("/online", "online"),
        ("/help", "/shrug"),
        ("/code", "needed"),
        ("/search x", "not supported"),
        ("/mute", "muted"),
        ("/mute", "no longer"),
        ("/status :cat: at sea", "at sea"),
        ("/status clear", "cleared"),
        ("/kick @nobody", "no such user"),
        ("/join ~nowhere", "no such channel"),
        ("/invite @nobody", "no user"),
        ("/collapse", "folded"),
    ] {
        let done = site.run(bob, channel, command).await;
        assert_eq!((done.status, &done.json["response_type"]), (200, &json!("ephemeral")), "{command} {}", done.json);
        assert!(done.json["text"].as_str().unwrap().contains(shown), "{command}: {}", done.json["text"]);
        let told = socket.next_event("ephemeral_message").await;
        let told: Value = serde_json::from_str(told["data"]["post"].as_str().unwrap()).unwrap();
        assert_eq!((&told["message"], &told["type"]), (&done.json["text"], &json!("system_ephemeral")), "{command}");
    }
    assert_eq!(site.run(bob, channel, "/header new words").await.status, 200);
    let path = format!("/api/v4/channels/{channel}");
    assert_eq!(site.get(&path, &bob.bearer()).await.json["header"], "new words");
    let sent = site.run(bob, channel, "/msg @root hello there").await.json;
    assert!(sent["goto_location"].as_str().unwrap().contains("/mission/channels/"), "{sent}");
    site.user("carol").await;
    let group = site.run(bob, channel, "/groupmsg @root,@carol to you both").await.json;
    assert!(group["goto_location"].as_str().unwrap().len() > 40, "{group}");
    assert_eq!(site.run(bob, channel, "/logout").await.json["goto_location"], "/login");
    let left = site.run(bob, channel, "/leave").await;
    assert_eq!(left.json["goto_location"], "/mission/channels/town-square");
    let refused = site.run(bob, channel, "/shrug").await;
    assert!(matches!(refused.status, 200 | 403), "{}", refused.json);
    let joined = site.run(bob, &world.other_channel, "/join ~ops").await;
    assert_eq!(joined.json["goto_location"], "/mission/channels/ops");
    for (command, status, id) in [
        ("/nosuch", 404, "api.command.execute_command.not_found.app_error"),
        ("no slash", 400, "api.command.execute_command.start.app_error"),
        ("/", 400, "api.command.execute_command.start.app_error"),
    ] {
        let answer = site.run(bob, channel, command).await;
        assert_eq!((answer.status, answer.id()), (status, id), "{command}");
    }
}

#[tokio::test]
async fn commands_are_suggested_and_their_secrets_are_not_told() {
    let site = Site::new().await;
    let world = site.world().await;
    let new = json!({
        "team_id": world.team, "trigger": "Weather", "method": "P", "url": "https://weather.example/x",
        "auto_complete": true, "auto_complete_desc": "Tells the weather", "auto_complete_hint": "[place]",
    });
    let made = site.post("/api/v4/commands", &world.admin.bearer(), new.to_string()).await;
    assert_eq!((made.status, &made.json["trigger"]), (201, &json!("weather")), "{}", made.json);
    assert_eq!(made.json["token"].as_str().unwrap().len(), 26);
    let path = format!("/api/v4/teams/{}/commands", world.team);
    let list = site.get(&format!("{path}/autocomplete"), &world.bob.bearer()).await.json;
    let of = |word: &str| list.as_array().unwrap().iter().find(|c| c["trigger"] == word).unwrap().clone();
    assert_eq!(
        (&of("weather")["url"], &of("weather")["token"], &of("weather")["creator_id"]),
        (&json!(""), &json!(""), &json!(""))
    );
    assert_eq!(of("shrug")["auto_complete"], true);
    let typed = site.get(&format!("{path}/autocomplete_suggestions?user_input=/We"), &world.bob.bearer()).await.json;
    assert_eq!(
        typed,
        json!([{ "Complete": "weather", "Suggestion": "weather", "Hint": "[place]", "Description": "Tells the weather", "IconData": "" }])
    );
    let custom = format!("/api/v4/commands?team_id={}&custom_only=true", world.team);
    assert_eq!(site.get(&custom, &world.bob.bearer()).await.status, 403);
    assert_eq!(site.get(&custom, &world.admin.bearer()).await.json[0]["token"], made.json["token"]);
    let one = format!("/api/v4/commands/{}", made.json["id"].as_str().unwrap());
    assert_eq!(site.get(&one, &world.bob.bearer()).await.id(), "api.command.command_not_found.app_error");
    let token = site.request(&Method::PUT, &format!("{one}/regen_token"), &world.admin.bearer(), "").await.json;
    assert_ne!(token["token"], made.json["token"]);
    for (field, value, id) in [
        ("trigger", "shrug", "api.command.duplicate_trigger.app_error"),
        ("trigger", "weather", "api.command.duplicate_trigger.app_error"),
        ("trigger", "/x", "model.command.is_valid.trigger.app_error"),
        ("method", "X", "model.command.is_valid.method.app_error"),
        ("url", "http://169.254.169.254/latest", "model.command.is_valid.url_http.app_error"),
    ] {
        let mut bad = new.clone();
        bad["trigger"] = "other".into();
        bad[field] = value.into();
        let refused = site.post("/api/v4/commands", &world.admin.bearer(), bad.to_string()).await;
        assert_eq!((refused.status, refused.id()), (400, id), "{field} {value}");
    }
    assert_eq!(site.post("/api/v4/commands", &world.bob.bearer(), new.to_string()).await.status, 403);
    assert_eq!(site.request(&Method::DELETE, &one, &world.admin.bearer(), "").await.status, 200);
}

#[tokio::test]
async fn a_command_asks_its_program_and_shows_what_it_says() {
    let (site, mut tasks) = (Site::new().await, JoinSet::new());
    let world = site.world().await;
    let (url, asked) =
        program(&json!({ "response_type": "in_channel", "text": "fair <a|b>", "username": "Met" }), &mut tasks).await;
    let new = json!({ "team_id": world.team, "trigger": "weather", "method": "P", "url": url }).to_string();
    let made = site.post("/api/v4/commands", &world.admin.bearer(), new).await.json;
    let done = site.run(&world.bob, &world.channel, "/weather for @root in ~ops").await;
    assert_eq!((done.status, &done.json["text"]), (200, &json!("fair [b](a)")), "{}", done.json);
    assert_eq!(done.json["trigger_id"].as_str().unwrap().len(), 26);
    let post = newest(&site, &world.bob, &world.channel).await;
    assert_eq!((&post["message"], &post["user_id"]), (&json!("fair [b](a)"), &json!(world.bob.id)));
    assert_eq!((&post["props"]["from_webhook"], &post["props"]["override_username"]), (&json!("true"), &json!("Met")));
    let asked_for = asked.lock().unwrap()[0].clone();
    assert!(asked_for.contains(&format!("authorization: Token {}", made["token"].as_str().unwrap())), "{asked_for}");
    let form = Query::parse(&body_of(&asked, 0));
    assert_eq!((form.get("command"), form.get("text")), (Some("/weather"), Some("for @root in ~ops")));
    assert_eq!((form.get("user_mentions"), form.get("channel_mentions")), (Some("root"), Some("ops")));
    assert_eq!((form.get("user_name"), form.get("team_domain")), (Some("bob"), Some("mission")));

    // It answers once more, later, at the address that only it knows.
    let answer: String = site
        .core
        .read::<_, rusqlite::Error>(|db| db.query_row("SELECT id FROM command_answers", [], |r| r.get(0)))
        .unwrap();
    let later = format!("/hooks/commands/{answer}");
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    assert_eq!(site.post(&later, &[], "still fair").await.text(), "ok");
    let told = socket.next_event("ephemeral_message").await;
    assert!(told["data"]["post"].as_str().unwrap().contains("still fair"));
    for _ in 0..4 {
        assert_eq!(site.post(&later, &[], "again").await.status, 200);
    }
    assert_eq!(site.post(&later, &[], "too often").await.id(), "web.command_webhook.general.app_error");

    let (silent, _) = server(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(), &mut tasks).await;
    let new = json!({ "team_id": world.team, "trigger": "broken", "method": "G", "url": format!("http://{silent}/") });
    site.post("/api/v4/commands", &world.admin.bearer(), new.to_string()).await;
    let broken = site.run(&world.bob, &world.channel, "/broken").await;
    assert_eq!((broken.status, broken.id()), (500, "api.command.execute_command.failed_resp.app_error"));

    // Whoever left says nothing any more, not even by a program that they asked.
    site.run(&world.bob, &world.channel, "/weather").await;
    let newest = "SELECT id FROM command_answers ORDER BY create_at DESC, uses LIMIT 1";
    let answer: String = site.core.read::<_, rusqlite::Error>(|db| db.query_row(newest, [], |r| r.get(0))).unwrap();
    let gone = format!("/api/v4/users/{}", world.bob.id);
    assert_eq!(site.request(&Method::DELETE, &gone, &world.admin.bearer(), "").await.status, 200);
    assert_eq!(site.post(&format!("/hooks/commands/{answer}"), &[], "late").await.status, 404);
}

// --- buttons and dialogs

#[tokio::test]
async fn a_button_asks_its_program_which_changes_the_post_and_opens_a_dialog() {
    let (site, mut tasks) = (Site::new().await, JoinSet::new());
    let world = site.world().await;
    let hook = site.incoming(&world, json!({})).await;
    let answer = json!({ "update": { "message": "taken by bob", "props": {} }, "ephemeral_text": "thank you" });
    let (url, asked) = program(&answer, &mut tasks).await;
    let said = json!({ "text": "who goes?", "attachments": [{ "actions": [{ "id": "go", "name": "I", "type": "button",
        "integration": { "url": url, "context": { "secret": 7 } } }] }] });
    site.post(&hook, &[], said.to_string()).await;
    let post = newest(&site, &world.bob, &world.channel).await;
    let path = format!("/api/v4/posts/{}/actions", post["id"].as_str().unwrap());
    let mut socket = site.socket("", Some(&world.bob)).await.unwrap();
    let pressed = site.post(&format!("{path}/go"), &world.bob.bearer(), "{}").await;
    assert_eq!((pressed.status, &pressed.json["status"]), (200, &json!("OK")), "{}", pressed.json);
    let told: Value = serde_json::from_str(&body_of(&asked, 0)).unwrap();
    assert_eq!((&told["context"], &told["user_name"]), (&json!({ "secret": 7 }), &json!("bob")));
    assert_eq!(told["trigger_id"], pressed.json["trigger_id"]);
    let changed = newest(&site, &world.bob, &world.channel).await;
    assert_eq!((&changed["message"], &changed["props"]["from_webhook"]), (&json!("taken by bob"), &json!("true")));
    assert!(socket.next_event("ephemeral_message").await["data"]["post"].as_str().unwrap().contains("thank you"));

    let dialog = json!({ "trigger_id": pressed.json["trigger_id"], "url": url, "dialog": { "title": "Details" } });
    assert_eq!(site.post("/api/v4/actions/dialogs/open", &[], dialog.to_string()).await.status, 200);
    let opened = socket.next_event("open_dialog").await;
    let opened: Value = serde_json::from_str(opened["data"]["dialog"].as_str().unwrap()).unwrap();
    assert_eq!(opened["dialog"]["title"], "Details");
    let sent = json!({ "url": url, "callback_id": "c", "channel_id": world.channel, "team_id": world.team,
        "submission": { "field": "value" } });
    let submitted = site.post("/api/v4/actions/dialogs/submit", &world.bob.bearer(), sent.to_string()).await;
    assert_eq!((submitted.status, &submitted.json), (200, &json!({})));
    let told: Value = serde_json::from_str(&body_of(&asked, 1)).unwrap();
    assert_eq!((&told["type"], &told["submission"]["field"]), (&json!("dialog_submission"), &json!("value")));
    assert_eq!(told["user_id"], world.bob.id);

    let mut inside = sent.clone();
    inside["url"] = "http://192.168.0.1/admin".into();
    let refused = site.post("/api/v4/actions/dialogs/submit", &world.bob.bearer(), inside.to_string()).await;
    assert_eq!((refused.status, refused.id()), (400, "api.post.do_action.action_integration.app_error"));
    site.clock.step(60_000);
    let late = site.post("/api/v4/actions/dialogs/open", &[], dialog.to_string()).await;
    assert_eq!((late.status, late.id()), (400, "interactive_message.decode_trigger_id.expired"));
    let unknown = site.post(&format!("{path}/other"), &world.bob.bearer(), "{}").await;
    assert_eq!((unknown.status, unknown.id()), (404, "api.post.do_action.action_id.app_error"));
}

#[tokio::test]
async fn links_are_not_looked_up() {
    let site = Site::new().await;
    let bob = site.user("bob").await;
    let preview = site.post("/api/v4/opengraph", &bob.bearer(), r#"{"url":"https://a.example"}"#).await;
    assert_eq!((preview.status, preview.id()), (501, "api.post.link_preview_disabled.app_error"));
    assert_eq!(site.get("/api/v4/image?url=https%3A%2F%2Fa.example", &bob.bearer()).await.status, 501);
}
