//! Several calls in one request: one round trip over a link with seconds of delay. Each still counts against the limits.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::Precedence;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::{Acting, Answer, Call, CallBody, Failure, Retry, Scope};
use super::throttle::Outcome;
use super::{Graph, recorded, refusal, retry_after};
use crate::transport::Came;

/// Calls in one batch at most, by Graph's rule.
pub const BATCH_MAX: usize = 20;

/// One call of a batch.
#[derive(Clone, Debug)]
pub struct BatchItem {
    /// Name within the batch; no two are alike, upper and lower case being the same.
    pub id: String,
    /// The call. All of a batch act on behalf of the same.
    pub call: Call,
    /// Names of those that must have succeeded before. Either none of a batch depends on any, or each on the one before it.
    pub depends_on: Vec<String>,
}

#[derive(Deserialize)]
struct Responses {
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    id: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    body: Option<Value>,
}

impl Graph {
    /// Makes up to [`BATCH_MAX`] calls in one request; results come in the order of `items`.
    ///
    /// # Errors
    /// When the batch as a whole was not sent or not answered; [`Failure::Unknown`] then holds for each of its calls.
    pub async fn batch(&self, items: Vec<BatchItem>) -> Result<Vec<Result<Answer, Failure>>, Failure> {
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let acting = first.call.acting.clone();
        check(&items, &acting)?;
        let precedence = items.iter().map(|item| item.call.precedence).min().unwrap_or(Precedence::Deferred);
        let safe = items.iter().all(|item| item.call.retry == Retry::Safe);
        let mut places = Vec::with_capacity(items.len());
        for item in &items {
            places.push(self.turn(&item.call, false).await?);
            if let Some(recorder) = &self.0.environment.recorder {
                recorder(&recorded(&item.call));
            }
        }
        let outer = Call {
            method: Method::POST,
            path: "/$batch".to_owned(),
            headers: Vec::new(),
            body: CallBody::Json(json!({"requests": items.iter().map(request).collect::<Vec<_>>()})),
            acting,
            scope: Scope::Tenant,
            precedence,
            retry: if safe { Retry::Safe } else { Retry::Once },
        };
        let answer = self.call(outer).await?;
        let Responses { responses } = answer.json().map_err(|broken| match safe {
            true => broken,
            false => Failure::Unknown(broken.to_string()),
        })?;
        let mut by_id: BTreeMap<String, Response> =
            responses.into_iter().map(|response| (response.id.to_ascii_lowercase(), response)).collect();
        let results = items.iter().zip(places).map(|(item, place)| {
            let id = &answer.client_request_id;
            let Some(came) = by_id.remove(&item.id.to_ascii_lowercase()).and_then(came) else {
                return Err(Failure::Unknown(format!("the batch says nothing of call {}", item.id)));
            };
            let wait = retry_after(&came.headers, self.0.environment.clock.now());
            let jitter = self.0.environment.fraction();
            match came.status.as_u16() {
                200..=399 => {
                    place.done(self.now(), Outcome::Answered);
                    let Came { status, headers, body } = came;
                    Ok(Answer { status, headers, body, client_request_id: id.clone() })
                }
                429 | 509 => {
                    let until = place.done(self.now(), Outcome::TooFast { retry_after: wait, jitter });
                    Err(Failure::Throttled { until: self.wall(until.unwrap_or_else(|| self.now())) })
                }
                500 | 502..=504 => {
                    place.done(self.now(), Outcome::Ailing { retry_after: wait, jitter });
                    let refusal = refusal(came, id, wait);
                    match item.call.retry {
                        Retry::Safe => Err(Failure::Refused(refusal)),
                        Retry::Once => Err(Failure::Unknown(refusal.to_string())),
                    }
                }
                _ => {
                    place.done(self.now(), Outcome::Answered);
                    Err(Failure::Refused(refusal(came, id, wait)))
                }
            }
        });
        Ok(results.collect())
    }
}

fn check(items: &[BatchItem], acting: &Acting) -> Result<(), Failure> {
    let wrong = |text: &str| Err(Failure::Broken(format!("the batch is not sent: {text}")));
    let mut ids: Vec<String> = items.iter().map(|item| item.id.to_ascii_lowercase()).collect();
    ids.sort_unstable();
    ids.dedup();
    if items.len() > BATCH_MAX || ids.len() != items.len() {
        return wrong("at most 20 calls, each with a name of its own");
    }
    if items.iter().any(|item| item.call.acting != *acting) {
        return wrong("its calls act on behalf of different people");
    }
    Ok(())
}

fn request(item: &BatchItem) -> Value {
    let mut headers: Map<String, Value> = item
        .call
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), Value::from(value.to_str().ok()?))))
        .collect();
    let mut request = json!({"id": item.id, "method": item.call.method.as_str(), "url": item.call.path});
    match &item.call.body {
        CallBody::None => {}
        CallBody::Json(value) => {
            headers.insert("Content-Type".to_owned(), "application/json".into());
            request["body"] = value.clone();
        }
        CallBody::Bytes { content_type, bytes } => {
            headers.insert("Content-Type".to_owned(), content_type.to_str().unwrap_or_default().into());
            request["body"] = BASE64.encode(bytes).into();
        }
    }
    if !headers.is_empty() {
        request["headers"] = Value::Object(headers);
    }
    if !item.depends_on.is_empty() {
        request["dependsOn"] = item.depends_on.clone().into();
    }
    request
}

/// One answer as if it had come alone. `None` when its status is none.
fn came(response: Response) -> Option<Came> {
    let status = StatusCode::from_u16(response.status).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in response.headers {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) {
            headers.insert(name, value);
        }
    }
    let body = match response.body {
        None => Bytes::new(),
        // What is not JSON comes as base64.
        Some(Value::String(text)) if !crate::entra::discovery::is_json(&headers) => {
            BASE64.decode(text.as_bytes()).map_or_else(|_| Bytes::from(text), Bytes::from)
        }
        Some(value) => Bytes::from(value.to_string()),
    };
    Some(Came { status, headers, body })
}
