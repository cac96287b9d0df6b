//! Log set-up: one subscriber per process, to standard error.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for the eye.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Section `[log]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `text` or `json`.
    pub format: LogFormat,
    /// What is logged: a level, or `room=level` pairs, such as `info,carrier=debug`.
    /// The environment variable `HOLDFAST_LOG` comes before it.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".to_owned() }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter does not parse.
    #[error("`{filter}` is no log filter: {reason}; nothing was started")]
    BadFilter {
        /// The text.
        filter: String,
        /// What the parser says.
        reason: String,
    },
    /// A subscriber is there already.
    #[error("logging is set up already; it goes on as it was")]
    AlreadySet,
}

impl LogError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::BadFilter { .. } => {
                "set log.filter or HOLDFAST_LOG to error, warn, info, debug, trace or `room=level` pairs"
            }
            Self::AlreadySet => "call it once per process",
        }
    }
}

impl LogSettings {
    /// Checks the filter without setting anything up.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn check(&self) -> Result<(), LogError> {
        parse(&self.filter).map(drop)
    }

    /// Starts logging for the whole process. `environment` is the value of `HOLDFAST_LOG`, which comes first.
    ///
    /// # Errors
    /// When the filter does not parse or logging was started before.
    pub fn start(&self, environment: Option<&str>) -> Result<(), LogError> {
        let filter = parse(environment.filter(|e| !e.is_empty()).unwrap_or(&self.filter))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let done = match self.format {
            LogFormat::Text => builder.with_ansi(false).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        done.map_err(|_| LogError::AlreadySet)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::from_str(filter).map_err(|e| LogError::BadFilter { filter: filter.to_owned(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anything_starts() {
        let settings = |filter: &str| LogSettings { filter: filter.to_owned(), ..LogSettings::default() };
        assert!(settings("info,carrier=debug").check().is_ok());
        let error = settings("carrier=loud").check().unwrap_err();
        assert!(error.to_string().starts_with("`carrier=loud` is no log filter"), "{error}");
    }
}
