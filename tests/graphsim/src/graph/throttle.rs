//! Throttling: token buckets per scope, as reference section 5.1 lists them.
//!
//! What is refused counts as well, so who goes on gets further into debt and is told to wait longer.

use std::collections::BTreeMap;

use rand::RngExt as _;

use super::{Refusal, rows::Row};
use crate::clock::{DAY, Millis};
use crate::oracle::Rule;
use crate::settings::Relaxation;
use crate::world::{Caller, Trace, World};

/// Debt grows to so many seconds' worth and no further.
const DEBT_S_MAX: f64 = 300.0;

/// What was sent so soon after a refusal may have been on its way already.
pub(crate) const ON_ITS_WAY: Millis = 250;

/// Who waits may be so much too early: clocks are coarse.
pub(crate) const COARSE: Millis = 60;

/// What is left of each scope's allowance.
#[derive(Default)]
pub(crate) struct Throttle {
    buckets: BTreeMap<String, Bucket>,
    /// When a scope was told to wait, and until when.
    paused: BTreeMap<String, (Millis, Millis)>,
    /// What the next answer tells of the limits besides.
    pub(super) told: Vec<(String, String)>,
    /// Messages of a day by app and channel.
    days: BTreeMap<(String, Millis), u32>,
}

struct Bucket {
    level: f64,
    at_ms: Millis,
}

/// One bucket that a request draws from.
struct Draw {
    key: String,
    cost: f64,
    per_s: f64,
    burst: f64,
    code: &'static str,
    /// Some services leave the header out at times.
    silent_sometimes: bool,
}

/// SharePoint tells what is left from four fifths on; the directory tells what a request cost, and from there on the share.
fn told(draw: &Draw, used: f64, left: f64) -> Vec<(String, String)> {
    let near = used >= 0.8;
    match draw.key.split(' ').next() {
        Some("sharepoint") if near => vec![
            ("ratelimit-limit".to_owned(), format!("{:.0}", draw.burst)),
            ("ratelimit-remaining".to_owned(), format!("{:.0}", left.max(0.0))),
            ("ratelimit-reset".to_owned(), format!("{:.0}", (used * draw.burst / draw.per_s).ceil())),
        ],
        Some("directory") => {
            let mut told = vec![("x-ms-resource-unit".to_owned(), format!("{:.0}", draw.cost))];
            if near {
                told.push(("x-ms-throttle-limit-percentage".to_owned(), format!("{:.2}", used.min(1.8))));
            }
            told
        }
        Some(_) | None => Vec::new(),
    }
}

impl World {
    pub(super) fn throttled(
        &mut self,
        row: &Row,
        params: &[String],
        caller: &Caller,
        _: &Trace,
    ) -> Result<(), Refusal> {
        if self.relaxed(Relaxation::Unthrottled) {
            return Ok(());
        }
        let now = self.now();
        let mut wait: Option<(f64, &'static str, bool, String)> = None;
        for draw in self.draws(row, params, caller) {
            if let Some((told, until)) = self.throttle.paused.get(&draw.key).copied()
                && now > told + ON_ITS_WAY
                && now + COARSE < until
            {
                let text =
                    format!("{} {} ({}), {} ms before its time", row.method, row.template, draw.key, until - now);
                self.oracle.violated(now, Rule::RetriedTooEarly, text);
            }
            let bucket =
                self.throttle.buckets.entry(draw.key.clone()).or_insert(Bucket { level: draw.burst, at_ms: now });
            let passed_s = now.saturating_sub(bucket.at_ms) as f64 / 1000.0;
            bucket.level = (bucket.level + passed_s * draw.per_s).min(draw.burst) - draw.cost;
            bucket.at_ms = now;
            let used = 1.0 - bucket.level / draw.burst;
            self.throttle.told = told(&draw, used, bucket.level);
            if bucket.level < 0.0 {
                bucket.level = bucket.level.max(-DEBT_S_MAX * draw.per_s);
                let seconds = -bucket.level / draw.per_s;
                if wait.as_ref().is_none_or(|(longest, ..)| seconds > *longest) {
                    wait = Some((seconds, draw.code, draw.silent_sometimes, draw.key));
                }
            }
        }
        let Some((seconds, code, silent_sometimes, key)) = wait else { return Ok(()) };
        let refusal = Refusal::new(429, code, "Application is over its limit for this scope.");
        let refusal = if key.starts_with("directory ") {
            let scope = format!("Tenant_Application/ReadWrite/{}/{}", caller.app, self.tenant);
            refusal.with("x-ms-throttle-scope", scope).with("x-ms-throttle-information", "ResourceUnitLimitExceeded")
        } else {
            refusal
        };
        if silent_sometimes && self.rng.random_bool(0.125) {
            return Err(refusal);
        }
        // Rounded up, so that who waits for it finds room.
        let retry_after = (seconds * 1000.0).ceil() / 1000.0 + 0.001;
        self.throttle.paused.insert(key, (now, now + (retry_after * 1000.0) as Millis));
        Err(refusal.with("retry-after", format!("{retry_after:.3}")))
    }

    /// Counts a message against the day of its channel, outside migration mode.
    pub(super) fn count_message(&mut self, app: &str, place: &str) -> Result<(), Refusal> {
        let (now, max) = (self.now(), self.settings.limits.channel_messages_per_day);
        if self.relaxed(Relaxation::Unthrottled) {
            return Ok(());
        }
        let today = now / DAY;
        let sent = self.throttle.days.entry((format!("{app} {place}"), today)).or_insert(0);
        if *sent >= max {
            let left_s = (today + 1) * DAY / 1000 - now / 1000;
            let text = format!("The app sent {max} messages to this conversation today.");
            return Err(Refusal::new(429, "TooManyRequests", text).with("retry-after", left_s.to_string()));
        }
        *sent += 1;
        Ok(())
    }

    /// The allowance for imports into one conversation.
    pub(super) fn count_import(&mut self, app: &str, place: &str) -> Result<(), Refusal> {
        if self.relaxed(Relaxation::Unthrottled) {
            return Ok(());
        }
        let (now, per_s) = (self.now(), self.settings.limits.import_posts_per_s);
        let bucket =
            self.throttle.buckets.entry(format!("import {app} {place}")).or_insert(Bucket { level: per_s, at_ms: now });
        let passed_s = now.saturating_sub(bucket.at_ms) as f64 / 1000.0;
        bucket.level = (bucket.level + passed_s * per_s).min(per_s) - 1.0;
        bucket.at_ms = now;
        if bucket.level >= 0.0 {
            return Ok(());
        }
        let wait = -bucket.level / per_s;
        Err(Refusal::new(429, "TooManyRequests", "Imports are too fast.").with("retry-after", format!("{wait:.3}")))
    }

    fn draws(&self, row: &Row, params: &[String], caller: &Caller) -> Vec<Draw> {
        let (limits, app, t) = (&self.settings.limits, &caller.app, row.template);
        let teams = |key: String, per_s: f64| Draw {
            key,
            cost: 1.0,
            per_s,
            burst: per_s.max(1.0),
            code: "TooManyRequests",
            silent_sometimes: true,
        };
        if t.contains("sendActivityNotification") {
            let per_s = if t.ends_with("Recipients") { 2.0 } else { limits.notifications_per_s };
            return vec![teams(format!("notify {app} {t}"), per_s)];
        }
        if t.starts_with("/teams") || t.starts_with("/chats") || t.contains("/chats/") {
            let posts = row.method == "POST" && (t.ends_with("/messages") || t.ends_with("/replies"));
            let (kind, per_s) = match (row.method, t) {
                _ if posts && t.starts_with("/chats") => ("chat-posts", 20.0),
                _ if posts => ("channel-posts", limits.channel_posts_per_s),
                ("GET", _) if t.contains("/messages") => ("message-reads", 20.0),
                ("GET", _) if t.ends_with("/members") || t.contains("/channels") => ("channel-reads", 60.0),
                ("DELETE", _) => ("deletes", 15.0),
                ("POST", "/teams") => ("team-creations", 10.0),
                _ => ("others", 30.0),
            };
            let mut draws = vec![teams(format!("{kind} {app}"), per_s)];
            if let (Some(team), true) = (params.first(), t.starts_with("/teams/")) {
                let place = match params.get(1) {
                    Some(channel) if t.contains("/channels/{channel-id}") => format!("{team}/{channel}"),
                    _ => team.clone(),
                };
                draws.push(teams(format!("one {app} {place}"), limits.channel_requests_per_s));
            }
            return draws;
        }
        let cost = |key: String, cost: f64, per_s: f64, burst: f64, code: &'static str| {
            vec![Draw { key, cost, per_s, burst, code, silent_sometimes: false }]
        };
        if t.starts_with("/drives") || t.starts_with("/sites") || t.ends_with("/drive") {
            let units = match row.method {
                "GET" if !t.ends_with("/children") && !t.ends_with("/delta") => 1.0,
                _ => 2.0,
            };
            let per_min = limits.sharepoint_units_per_min;
            return cost(format!("sharepoint {app}"), units, per_min / 60.0, per_min, "activityLimitReached");
        }
        if ["/messages", "/mailFolders", "/sendMail", "/events", "/calendarView"].iter().any(|part| t.contains(part)) {
            let (mailbox, per_10min) = (params.first().map_or("me", String::as_str), limits.mailbox_requests_per_10min);
            return cost(format!("mailbox {app} {mailbox}"), 1.0, per_10min / 600.0, per_10min, "ApplicationThrottled");
        }
        if t.starts_with("/users") || t.starts_with("/groups") || t.starts_with("/directory") {
            let units = match t {
                "/users" | "/users/delta" | "/groups/delta" => 2.0,
                "/groups/{group-id}/members" => 3.0,
                "/groups/{group-id}/transitiveMembers" => 5.0,
                _ => 1.0,
            };
            let per_10s = limits.directory_units_per_10s;
            return cost(format!("directory {app}"), units, per_10s / 10.0, per_10s, "Request_ThrottledTemporarily");
        }
        Vec::new()
    }
}
