//! `holdfast init`: makes a node where there is none.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use keys::{ChunkSecret, KeysSettings, NodeKey, PeerName, SealingKey};

use clap::ValueEnum as _;

use super::user;
use crate::accounts::{self, OfflineCore};
use crate::admin::NewUser;
use crate::cli::{Init, Release};
use crate::config::reference::{Chosen, template};
use crate::config::{self, Role, Settings};
use crate::exit::{Done, Exit, Failure, chain};
use crate::layout::Layout;
use crate::{lock, output, secrets};

/// Where a hub listens for edges unless told otherwise.
const HUB_LISTEN: &str = "0.0.0.0:7800";

pub(super) fn run(layout: &Layout, args: Init) -> Done {
    refuse_existing(layout)?;
    let name = match args.name {
        Some(name) => name,
        None => {
            ask("Name of the node (a-z, 0-9, -)", "--name", |text| text.parse::<PeerName>().map_err(|e| chain(&e)))?
        }
    };
    let role = match args.role {
        Some(role) => role,
        None => ask("Role, edge or hub", "--role", |text| match text {
            "edge" => Ok(Role::Edge),
            "hub" => Ok(Role::Hub),
            _ => Err(format!("`{text}` is neither edge nor hub")),
        })?,
    };
    let release = match args.release {
        Some(release) => release,
        None => ask("What may leave this node: all, channels (no direct messages) or none", "--release", |text| {
            Release::from_str(text, false).map_err(|_| format!("`{text}` is none of all, channels and none"))
        })?,
    };
    let admin = args.admin.map(|username| {
        let password = user::password(args.password_file.as_deref(), "HOLDFAST_PASSWORD", &username)?;
        let email = user::default_email(&username);
        Ok::<_, Failure>(NewUser { username, email, password, admin: true })
    });
    let admin = admin.transpose()?;
    let text = |value: &dyn std::fmt::Display| format!("\"{value}\"");
    let mut chosen = vec![
        Chosen { section: "node", key: "name", value: text(&name) },
        Chosen { section: "node", key: "role", value: text(&role.as_str()) },
    ];
    let mut listen = |section, key, address: Option<SocketAddr>| {
        chosen.extend(address.map(|a| Chosen { section, key, value: text(&a) }));
    };
    listen("api", "listen", args.api_listen);
    listen("metrics", "listen", args.metrics_listen);
    let hub_listen = HUB_LISTEN.parse().expect("the constant is an address");
    listen("carrier", "listen", args.listen.or((role == Role::Hub).then_some(hub_listen)));

    chosen.extend(rules(release));

    make_private_dir(layout.data())?;
    let lock = lock::take(layout.data())?;
    let key = NodeKey::open(&layout.keys()).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    ChunkSecret::open(&layout.keys()).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    SealingKey::open(&layout.keys()).map_err(|e| Failure::new(chain(&e), e.next_step()))?;
    secrets::open_keyring(layout, &KeysSettings::default())?;
    // The configuration comes last: until it is there, init can be repeated.
    write_new(&layout.config(), &template(role, &chosen))?;
    let settings = config::load(layout.data())?;
    drop(lock);
    if let Some(admin) = &admin {
        make_admin(layout, &settings, admin)?;
    }
    output::line(format!("{} {name} is ready in {}", role.as_str(), layout.data().display()));
    output::line(format!("  node id        {}", key.node_id()));
    output::line(format!("  configuration  {}", layout.config().display()));
    let next = match role {
        Role::Edge => "get a token at the hub (`holdfast enroll invite`), then `holdfast enroll join TOKEN`",
        Role::Hub => "start it with `holdfast hub`, then `holdfast enroll invite NAME` for each edge",
    };
    output::line(format!("  next step      {next}"));
    Ok(Exit::Ok)
}

/// The configuration of a choice.
fn rules(release: Release) -> Vec<Chosen> {
    let kinds = match release {
        Release::All => "[\"open\", \"private\", \"direct\", \"group\"]",
        Release::Channels => "[\"open\", \"private\"]",
        Release::None => return Vec::new(),
    };
    let rule = |key, value: &str| Chosen { section: "capture.release", key, value: value.to_owned() };
    let directory = Chosen { section: "capture", key: "directory", value: "true".to_owned() };
    vec![directory, rule("label", "\"mission\""), rule("kinds", kinds)]
}

fn make_admin(layout: &Layout, settings: &Settings, admin: &NewUser) -> Result<(), Failure> {
    let added = OfflineCore::open(layout, settings).and_then(|core| accounts::add(core.core(), admin));
    added.map(drop).map_err(|e| {
        Failure::new(
            format!("the node is made, but {}", e.text),
            format!("make the account with `holdfast user add {} --admin`", admin.username),
        )
    })
}

fn refuse_existing(layout: &Layout) -> Result<(), Failure> {
    let config = layout.config();
    let key = NodeKey::load(&layout.keys()).ok().flatten();
    if !config.exists() {
        return Ok(());
    }
    let who = match (config::load(layout.data()), key) {
        (Ok(settings), Some(key)) => {
            format!("the {} `{}` with node id {}", settings.node.role.as_str(), settings.node.name, key.node_id())
        }
        (Ok(settings), None) => {
            format!("the {} `{}`, without its key", settings.node.role.as_str(), settings.node.name)
        }
        (Err(_), Some(key)) => format!("a node with id {} whose configuration has problems", key.node_id()),
        (Err(_), None) => "a configuration with problems and no key".to_owned(),
    };
    Err(Failure::with(
        Exit::InUse,
        format!("in {} there is already {who}; nothing was changed", layout.data().display()),
        "name another directory with --data, or move the old one away if it is meant to end",
    ))
}

/// A directory that only its owner may enter.
fn make_private_dir(dir: &Path) -> Result<(), Failure> {
    let fail = |e: &std::io::Error| Failure::io("making", dir, e);
    if !dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| fail(&e))?;
    }
    let mode = fs::metadata(dir).map_err(|e| fail(&e))?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|e| fail(&e)),
    }
}

/// Writes a file that must not be there yet, durably.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().map_err(|e| Failure::io("writing", path, &e))
}

/// Asks a person until the answer is good; without a person the flag is needed.
fn ask<T>(question: &str, flag: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
    let missing = || Failure::with(Exit::Usage, format!("{flag} is missing; nothing was made"), format!("add {flag}"));
    if !output::is_interactive() {
        return Err(missing());
    }
    loop {
        output::ask(&format!("{question}: "));
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        match read {
            Ok(0) | Err(_) => return Err(missing()),
            Ok(_) => {}
        }
        match parse(line.trim()) {
            Ok(value) => return Ok(value),
            Err(wrong) => output::note(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(dir: &Path, name: &str, role: Role) -> Done {
        let args = Init {
            name: Some(name.parse().unwrap()),
            role: Some(role),
            api_listen: None,
            metrics_listen: None,
            listen: None,
            release: Some(Release::Channels),
            admin: None,
            password_file: None,
        };
        run(&Layout::new(dir), args)
    }

    #[test]
    fn a_new_node_is_private_and_starts_from_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("alpha");
        assert_eq!(init(&data, "alpha", Role::Edge), Ok(Exit::Ok));
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(data.join(config::FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        let settings = config::load(&data).unwrap();
        assert_eq!((settings.node.name.as_str(), settings.node.role), ("alpha", Role::Edge));
    }

    #[test]
    fn a_hub_listens_for_edges() {
        let dir = tempfile::tempdir().unwrap();
        init(&dir.path().join("h"), "h", Role::Hub).unwrap();
        assert_eq!(config::load(&dir.path().join("h")).unwrap().carrier.listen, Some(HUB_LISTEN.parse().unwrap()));
    }

    #[test]
    fn what_may_leave_is_what_was_chosen() {
        use capture::ChannelKind::{Direct, Group, Open, Private};
        for (release, kinds) in [
            (Release::All, Some(vec![Open, Private, Direct, Group])),
            (Release::Channels, Some(vec![Open, Private])),
            (Release::None, None),
        ] {
            let node = [
                Chosen { section: "node", key: "name", value: "\"a\"".to_owned() },
                Chosen { section: "node", key: "role", value: "\"edge\"".to_owned() },
            ];
            let chosen: Vec<Chosen> = node.into_iter().chain(rules(release)).collect();
            let settings = config::parse(Path::new("f"), &template(Role::Edge, &chosen)).unwrap();
            assert_eq!(settings.capture.release.first().map(|r| r.kinds.clone()), kinds);
            assert_eq!(settings.capture.directory, kinds.is_some());
        }
    }

    #[test]
    fn a_node_that_is_there_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "alpha", Role::Edge).unwrap();
        let before = fs::read(dir.path().join(config::FILE)).unwrap();
        let refused = init(dir.path(), "bravo", Role::Hub).unwrap_err();
        assert_eq!(refused.exit, Exit::InUse);
        assert!(refused.text.contains("there is already the edge `alpha` with node id "), "{}", refused.text);
        assert_eq!(fs::read(dir.path().join(config::FILE)).unwrap(), before);
    }

    #[test]
    fn an_init_that_was_cut_off_can_be_repeated_and_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let key = NodeKey::open(&layout.keys()).unwrap();
        init(dir.path(), "alpha", Role::Edge).unwrap();
        assert_eq!(NodeKey::load(&layout.keys()).unwrap().unwrap().node_id(), key.node_id());
    }
}
