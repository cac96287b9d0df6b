//! `$batch`: up to twenty requests, each for itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};

use super::{Refusal, body_value};
use crate::http::{Answer, Request};
use crate::openapi::Contract;
use crate::oracle::{Rule, Seen};
use crate::world::{Caller, Trace, World};

const ITEMS_MAX: usize = 20;

impl World {
    pub(super) fn batch(
        &mut self,
        request: &Request,
        caller: &Caller,
        contract: Option<&Contract>,
        trace: &Trace,
    ) -> Result<Answer, Refusal> {
        let body: Value =
            serde_json::from_slice(&request.body).map_err(|_| Refusal::bad("Invalid batch payload format."))?;
        if let Some(complaint) = contract.and_then(|c| c.request("/$batch", "POST", &request.media(), request, &body)) {
            let now = self.now();
            self.oracle.violated(now, Rule::RequestOutsideContract, complaint.clone());
            return Err(Refusal::bad(complaint));
        }
        let items = body["requests"].as_array().ok_or_else(|| Refusal::bad("Invalid batch payload format."))?;
        if items.is_empty() || items.len() > ITEMS_MAX {
            return Err(Refusal::bad(format!(
                "Number of batch request steps exceeds the maximum value of {ITEMS_MAX}."
            )));
        }
        let mut seen = BTreeSet::new();
        for item in items {
            let id = item["id"].as_str().ok_or_else(|| Refusal::bad("Every request needs an id."))?;
            if !seen.insert(id.to_ascii_lowercase()) {
                return Err(Refusal::bad(format!("Request Id {id} is not unique.")));
            }
            for other in item["dependsOn"].as_array().into_iter().flatten() {
                if !other.as_str().is_some_and(|o| seen.contains(&o.to_ascii_lowercase())) {
                    return Err(Refusal::bad("dependsOn must name requests that stand before it."));
                }
            }
            if !item["body"].is_null() && content_type(&item["headers"]).is_none() {
                return Err(Refusal::bad(format!(
                    "Write request id {id} does not contain Content-Type header or body."
                )));
            }
        }
        let mut statuses: BTreeMap<String, u16> = BTreeMap::new();
        let mut responses = Vec::new();
        for item in items {
            let id = item["id"].as_str().unwrap_or("").to_ascii_lowercase();
            let failed = item["dependsOn"].as_array().into_iter().flatten().any(|other| {
                other.as_str().and_then(|o| statuses.get(&o.to_ascii_lowercase())).is_none_or(|s| *s >= 400)
            });
            let answer = if failed {
                Refusal::new(424, "FailedDependency", "A request that this one depends on failed.")
                    .answer(self.now(), trace)
            } else {
                self.item(item, caller, contract, trace)
            };
            statuses.insert(id, answer.status);
            let mut headers: Map<String, Value> = answer.headers.iter().map(|(n, v)| (title(n), json!(v))).collect();
            let mut response = json!({ "id": item["id"], "status": answer.status });
            if let Some(body) = body_value(&answer) {
                headers.insert("Content-Type".to_owned(), json!(answer.rendered().0));
                response["body"] = body;
            }
            response["headers"] = Value::Object(headers);
            responses.push(response);
        }
        // Answers come in any order.
        for at in (1..responses.len()).rev() {
            let with = rand::RngExt::random_range(&mut self.rng, 0..=at);
            responses.swap(at, with);
        }
        Ok(Answer::json(200, json!({ "responses": responses })))
    }

    fn item(&mut self, item: &Value, caller: &Caller, contract: Option<&Contract>, trace: &Trace) -> Answer {
        let url = item["url"].as_str().unwrap_or("");
        let Some(relative) = url.strip_prefix('/').filter(|u| !u.starts_with("v1.0/") && !u.starts_with("$batch"))
        else {
            return Refusal::bad("Batch urls are relative and without a version.").answer(self.now(), trace);
        };
        let mut headers = HeaderMap::new();
        for (name, value) in item["headers"].as_object().into_iter().flatten() {
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_str(value.as_str().unwrap_or(""));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
        let json_body = content_type(&item["headers"]).is_some_and(|t| t.starts_with("application/json"));
        let body = match &item["body"] {
            Value::Null => Bytes::new(),
            Value::String(text) if !json_body => match data_encoding::BASE64.decode(text.as_bytes()) {
                Ok(bytes) => Bytes::from(bytes),
                Err(_) => return Refusal::bad("The body is not base64.").answer(self.now(), trace),
            },
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Bytes::from(item["body"].to_string())
            }
        };
        let method = item["method"].as_str().unwrap_or("GET").parse().unwrap_or(Method::GET);
        let request = Request::new(method, &format!("/v1.0/{relative}"), headers, body);
        let path = request.path.strip_prefix("/v1.0/").unwrap_or("").to_owned();
        let trace = Trace {
            request_id: self.guid(),
            client_request_id: request.header("client-request-id").unwrap_or(&trace.client_request_id).to_owned(),
        };
        let (answer, template) = self.one(&request, &path, caller, contract, &trace);
        self.oracle.requests.push(Seen {
            at_ms: self.clock.now(),
            host: "graph",
            method: request.method.to_string(),
            path: template,
            status: answer.status,
            client_request_id: trace.client_request_id.clone(),
            body_bytes: request.body.len(),
            failure: None,
        });
        self.with_graph_headers(answer, &trace)
    }
}

fn content_type(headers: &Value) -> Option<String> {
    let headers = headers.as_object()?;
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"))?;
    Some(value.as_str()?.to_ascii_lowercase())
}

/// `retry-after` as `Retry-After`, which is how names stand in a batch's JSON.
fn title(name: &str) -> String {
    name.split('-')
        .map(|word| word.chars().next().map_or(String::new(), |c| c.to_ascii_uppercase().to_string() + &word[1..]))
        .collect::<Vec<_>>()
        .join("-")
}
