//! `holdfast teams package`: the app of this site for Teams and Outlook, and what to register for it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use microsoft::package::{CLIENTS, TeamsApp};
use microsoft::{MicrosoftSettings, PackageError, Registration};
use serde::Serialize;

use crate::cli::Teams;
use crate::config::{Settings, load};
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::output;

#[derive(Serialize)]
struct Packed<'a> {
    schema: &'static str,
    file: &'a PathBuf,
    app: String,
    registration: &'a Registration,
}

pub(super) fn run(layout: &Layout, Teams::Package { output: path, format }: Teams) -> Done {
    let settings = load(layout.data())?;
    let app = app_of(&settings)?;
    let failed = |e: &std::io::Error| Failure::io("writing", &path, e);
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    let exists = || {
        Failure::new(
            format!("{} exists; nothing was written", path.display()),
            "name a file that does not exist, or move that one away",
        )
    };
    let mut file =
        opened.map_err(|e| if e.kind() == std::io::ErrorKind::AlreadyExists { exists() } else { failed(&e) })?;
    file.write_all(&app.zip()).and_then(|()| file.sync_all()).map_err(|e| failed(&e))?;
    let registration = app.registration();
    match format.json {
        true => output::json(&Packed {
            schema: "holdfast.teams-package/1",
            file: &path,
            app: app.id().to_string(),
            registration: &registration,
        }),
        false => tell(&path, &app, &registration),
    }
    Ok(Exit::Ok)
}

fn app_of(settings: &Settings) -> Result<TeamsApp, Failure> {
    let missing = |what: &str| {
        Failure::with(
            Exit::Config,
            format!("{what} is not set; nothing was written"),
            "docs/microsoft365.md shows the section [microsoft.app] and what it needs",
        )
    };
    let Some(microsoft) = &settings.microsoft else { return Err(missing("section [microsoft]")) };
    let MicrosoftSettings { app: Some(app), .. } = microsoft else { return Err(missing("section [microsoft.app]")) };
    let Some(site_url) = &settings.http.site_url else { return Err(missing("http.site_url")) };
    let read =
        microsoft.read().map_err(|e| Failure::with(Exit::Config, e.to_string(), "correct it in the configuration"))?;
    TeamsApp::new(app.clone(), read.client, site_url).map_err(|e| {
        let next = match e {
            PackageError::Site(_) => "set http.site_url to the https address under which Teams' clients reach the site",
            PackageError::Setting { .. } => "correct it in the configuration",
        };
        Failure::with(Exit::Config, format!("{e}; nothing was written"), next)
    })
}

fn tell(path: &std::path::Path, app: &TeamsApp, registration: &Registration) {
    output::line(format!("{} holds the app {} with the tab {}", path.display(), app.id(), registration.tab));
    output::line("");
    output::line("Register in Entra, for the application that [microsoft] names. Either in the portal:");
    output::line(format!("  1. Expose an API: application ID URI  {}", registration.identifier_uri));
    output::line(format!("     and the scope  {}, admins and users may consent", microsoft::package::SCOPE));
    output::line("  2. Manifest: requestedAccessTokenVersion  2");
    output::line(
        "  3. API permissions, Microsoft Graph: User.Read (delegated), TeamsActivity.Send (application); consent",
    );
    output::line("  4. Expose an API: authorised client applications, with that scope:");
    for (name, id) in CLIENTS {
        output::line(format!("       {id}  {name}"));
    }
    output::line("Or by two changes, the second after the first:");
    let application = registration.application;
    for patch in &registration.patches {
        output::line(format!("  PATCH /v1.0/applications(appId='{application}')"));
        output::line(format!("  {patch}"));
    }
    output::line("");
    output::line("Then upload the file in the Teams admin centre: Manage apps, Upload.");
}
