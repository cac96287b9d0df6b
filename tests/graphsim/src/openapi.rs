//! The OpenAPI subset, where it is at hand: what arrives and what the simulator answers is held against it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{Draft, Registry, Validator};
use serde_json::Value;

use crate::http::{Answer, Body, Request};

const URI: &str = "urn:graphsim:subset";

/// The subset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// It cannot be read.
    #[error("the OpenAPI subset at {path} cannot be read: {source}")]
    Read {
        /// Where it was looked for.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no such document.
    #[error("the OpenAPI subset at {path} is not understood: {text}")]
    Parse {
        /// Where it lies.
        path: String,
        /// What is wrong.
        text: String,
    },
}

/// The document, with validators made when they are first needed.
pub struct Contract {
    document: Value,
    registry: Registry<'static>,
    validators: Mutex<HashMap<String, Option<Arc<Validator>>>>,
}

impl Contract {
    /// Reads the YAML file.
    pub fn read(path: &Path) -> Result<Self, ContractError> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| ContractError::Read { path: shown.clone(), source })?;
        let broken = |text: String| ContractError::Parse { path: shown.clone(), text };
        let document: Value = serde_saphyr::from_str(&text).map_err(|e| broken(e.to_string()))?;
        if !document["paths"].is_object() {
            return Err(broken("it has no paths".to_owned()));
        }
        let registry = Registry::new()
            .add(URI, document.clone())
            .and_then(|builder| builder.prepare())
            .map_err(|e| broken(e.to_string()))?;
        Ok(Self { document, registry, validators: Mutex::default() })
    }

    /// The paths with their operations.
    pub fn paths(&self) -> &Value {
        &self.document["paths"]
    }

    /// What is wrong with a request, if anything is.
    pub(crate) fn request(
        &self,
        template: &str,
        method: &str,
        media: &str,
        request: &Request,
        json: &Value,
    ) -> Option<String> {
        let method = method.to_ascii_lowercase();
        let operation = &self.document["paths"][template][&method];
        let wanted = &operation["requestBody"];
        let said = |text: String| Some(format!("{method} {template}: {text}"));
        for (name, _) in request.query.iter().filter(|(name, _)| name.starts_with('$')) {
            let known = name == "$skiptoken" || name == "$deltatoken" || self.has_parameter(operation, name);
            if !known {
                return said(format!("query option {name} is not listed"));
            }
        }
        if wanted.is_null() {
            return if request.body.is_empty() { None } else { said("a body where none is expected".to_owned()) };
        }
        if request.body.is_empty() {
            let needed = wanted["required"] == true && !template.ends_with("/content");
            return if needed { said("the body is missing".to_owned()) } else { None };
        }
        let content = wanted["content"].as_object();
        let media = match content {
            // Files come as whatever they are.
            Some(content) if content.contains_key("application/octet-stream") => return None,
            Some(content) if content.contains_key(media) => media,
            Some(_) | None => return said(format!("content type `{media}` is not listed")),
        };
        if media != "application/json" {
            return None;
        }
        let pointer = format!("/paths/{}/{method}/requestBody/content/application~1json/schema", escape(template));
        self.complain(&pointer, json).and_then(said)
    }

    /// What is wrong with an answer, if anything is.
    pub(crate) fn answer(&self, template: &str, method: &str, answer: &Answer) -> Option<String> {
        let method = method.to_ascii_lowercase();
        let responses = &self.document["paths"][template][&method]["responses"];
        let status = answer.status.to_string();
        let said = |text: String| Some(format!("answer {status} to {method} {template}: {text}"));
        let listed = !responses[&status].is_null();
        if !listed && answer.status < 400 && answer.status != 302 {
            return said("the status is not listed".to_owned());
        }
        let Body::Json(value) = &answer.body else { return None };
        let pointer = if listed {
            let schema = &responses[&status]["content"]["application/json"]["schema"];
            if schema.is_null() {
                return said("a body where none is listed".to_owned());
            }
            format!("/paths/{}/{method}/responses/{status}/content/application~1json/schema", escape(template))
        } else {
            "/components/schemas/odata.error".to_owned()
        };
        self.complain(&pointer, value).and_then(said)
    }

    fn has_parameter(&self, operation: &Value, name: &str) -> bool {
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| {
            let of_ref = parameter["$ref"].as_str().and_then(|r| self.document.pointer(r.trim_start_matches('#')));
            of_ref.unwrap_or(parameter)["name"] == name
        })
    }

    fn complain(&self, pointer: &str, value: &Value) -> Option<String> {
        let validator = {
            let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
            validators.entry(pointer.to_owned()).or_insert_with(|| self.validator(pointer).map(Arc::new)).clone()
        };
        let Some(validator) = validator else { return Some(format!("no schema at {pointer}")) };
        let complaints: Vec<String> =
            validator.iter_errors(value).take(3).map(|e| format!("{e} at {}", e.instance_path())).collect();
        if complaints.is_empty() { None } else { Some(complaints.join("; ")) }
    }

    fn validator(&self, pointer: &str) -> Option<Validator> {
        self.document.pointer(pointer)?;
        let schema = serde_json::json!({ "$ref": format!("{URI}#{}", pointer.replace('{', "%7B").replace('}', "%7D").replace('$', "%24")) });
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_registry(&self.registry)
            .should_validate_formats(true)
            .build(&schema)
            .inspect_err(|e| tell(&e.to_string()))
            .ok()
    }
}

#[allow(clippy::print_stderr, reason = "a test tool says where its own tools fail")]
fn tell(text: &str) {
    eprintln!("graphsim: {text}");
}

fn escape(template: &str) -> String {
    template.replace('~', "~0").replace('/', "~1")
}
