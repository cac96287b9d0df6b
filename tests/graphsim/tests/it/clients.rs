//! Microsoft's own clients, unchanged. `scripts/test clients` installs them.

use std::path::Path;
use std::process::{Command, Output};

use graphsim::{Effect, Oracle, Relaxation, Settings, Sim, What};
use serde_json::json;

use crate::world::subset;

/// With everything on that these clients can bear: lag, throttling, all rules but what is named.
fn settings() -> Settings {
    Settings { subset: subset(), ..Settings::seeded(11) }.relax(Relaxation::RepeatedAssertion)
}

fn run(sim: &Sim, interpreter: &str, script: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("authority.pem");
    std::fs::write(&authority, sim.ca_pem()).unwrap();
    let line = json!({
        "login": sim.login_url(), "graph": sim.graph_url(), "upload": sim.upload_url(), "abroad": sim.abroad_url(),
        "control": sim.control_url(), "tenant": sim.tenant(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients").join(script);
    Command::new("timeout")
        .args(["240", interpreter])
        .arg(script)
        .env("GRAPHSIM", line.to_string())
        .env("REQUESTS_CA_BUNDLE", &authority)
        .env("SSL_CERT_FILE", &authority)
        .env("NODE_EXTRA_CA_CERTS", &authority)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}

/// The script ended well, nobody broke a rule, and what was relaxed for it is told.
fn good(sim: &Sim, done: &Output) -> Oracle {
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let oracle = sim.oracle();
    let last: Vec<_> = oracle.requests.iter().rev().take(8).collect();
    assert!(
        done.status.success(),
        "{}\n{out}{err}\nviolations: {:#?}\nlast requests: {last:#?}",
        done.status,
        oracle.violations
    );
    assert!(oracle.violations.is_empty(), "{:#?}", oracle.violations);
    println!("{out}relaxed: {:?}; held against the OpenAPI subset: {}", sim.relaxed(), oracle.validated);
    assert_eq!(sim.validates(), oracle.validated > 0);
    oracle
}

fn texts(oracle: &Oracle) -> Vec<&str> {
    oracle.of(What::MessagePosted).map(|e: &Effect| e.detail["sent"]["content"].as_str().unwrap()).collect()
}

fn paths(oracle: &Oracle) -> Vec<&str> {
    oracle.of(What::FileWritten).map(|e| e.detail["path"].as_str().unwrap()).collect()
}

#[test]
fn official_python_clients_sign_in_read_post_send_and_upload() {
    let Ok(python) = std::env::var("HOLDFAST_PYTHON") else {
        return println!(
            "skipped: HOLDFAST_PYTHON is not set; `scripts/test clients` installs the clients and sets it"
        );
    };
    let sim = Sim::start_with_control(settings().relax(Relaxation::UnevenRanges)).unwrap();
    let oracle = good(&sim, &run(&sim, &python, "graph_official.py"));
    assert_eq!(texts(&oracle), ["<p>from <b>Python</b></p>", "and a reply"]);
    assert_eq!(paths(&oracle), ["/Ops/small.txt", "/Ops/large.bin"]);
    assert_eq!(oracle.of(What::MailSent).count(), 1);
}

#[test]
fn official_javascript_clients_sign_in_read_post_and_upload() {
    if std::env::var("HOLDFAST_NODE_MODULES").is_err() {
        return println!(
            "skipped: HOLDFAST_NODE_MODULES is not set; `scripts/test clients` installs the clients and sets it"
        );
    }
    let sim = Sim::start_with_control(settings()).unwrap();
    let oracle = good(&sim, &run(&sim, "node", "graph_official.mjs"));
    assert_eq!(texts(&oracle), ["<p>from Node</p>", "and a reply", "in a batch"]);
    assert_eq!(paths(&oracle), ["/Ops/small.txt", "/Ops/large.bin"]);
}
