//! The simulator as a process, for tests in other languages. It prints one line of JSON with its addresses and ends when
//! its standard input does, so that nothing outlives the test that started it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use clap::Parser;
use graphsim::{Cloud, Relaxation, Settings, Sim};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A simulator of Entra ID and Microsoft Graph for tests.
#[derive(Parser)]
struct Arguments {
    /// Everything that is drawn is drawn from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// global, usgov, china, ussec or usnat.
    #[arg(long, default_value = "global", value_parser = named::<Cloud>)]
    cloud: Cloud,
    /// The OpenAPI subset; without it nothing is validated.
    #[arg(long)]
    subset: Option<PathBuf>,
    /// Rules to switch off by name, such as repeated-assertion.
    #[arg(long, value_parser = named::<Relaxation>)]
    relax: Vec<Relaxation>,
    /// JSON with the fields of the lag.
    #[arg(long)]
    lag: Option<String>,
    /// JSON with the fields of the limits.
    #[arg(long)]
    limits: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let settings = Settings {
        seed: arguments.seed,
        cloud: arguments.cloud,
        subset: arguments.subset,
        relaxed: arguments.relax.into_iter().collect(),
        lag: arguments.lag.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
        limits: arguments.limits.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
        ..Settings::default()
    };
    let sim = Sim::start_with_control(settings)?;
    let line = json!({
        "login": sim.login_url(), "graph": sim.graph_url(), "upload": sim.upload_url(), "abroad": sim.abroad_url(),
        "control": sim.control_url(), "tenant": sim.tenant(), "caPem": sim.ca_pem(), "relaxed": sim.relaxed(),
        "validates": sim.validates(),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    let mut ignored = [0; 64];
    while std::io::stdin().read(&mut ignored)? > 0 {}
    Ok(())
}

fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|e| e.to_string())
}
