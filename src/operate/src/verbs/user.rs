//! `holdfast user`, and passwords from where they may come.

use std::path::Path;

use super::block_on;
use crate::accounts::{self, OfflineCore};
use crate::admin::{NewPassword, NewUser, Password, UserAdded, client};
use crate::cli::User;
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::{config, output};

pub(super) fn run(layout: &Layout, verb: User) -> Done {
    let settings = config::load(layout.data())?;
    match verb {
        User::Add { username, email, admin, password_file } => {
            let email = email.unwrap_or_else(|| default_email(&username));
            let password = password(password_file.as_deref(), "HOLDFAST_PASSWORD", &username)?;
            let user = NewUser { username, email, password, admin };
            let added = match block_on(client::post::<UserAdded>(layout.data(), "/v1/user", &user)) {
                Err(e) if e.exit == Exit::NotRunning => {
                    accounts::add(OfflineCore::open(layout, &settings)?.core(), &user)?
                }
                answer => answer?,
            };
            output::line(format!("added {} ({})", added.username, added.id));
        }
        User::Password { username, password_file } => {
            let password = password(password_file.as_deref(), "HOLDFAST_PASSWORD", &username)?;
            let change = NewPassword { username, password };
            match block_on(client::post::<()>(layout.data(), "/v1/user/password", &change)) {
                Err(e) if e.exit == Exit::NotRunning => {
                    accounts::set_password(OfflineCore::open(layout, &settings)?.core(), &change)?
                }
                answer => answer?,
            }
            output::line(format!("the password of {} is set", change.username));
        }
    }
    Ok(Exit::Ok)
}

/// An address that is unique on the node and goes nowhere.
pub(super) fn default_email(username: &str) -> String {
    format!("{username}@localhost")
}

/// The password from a file, from the environment, from a person, or from standard input: never from an argument,
/// where every user of the machine could read it.
pub(super) fn password(file: Option<&Path>, variable: &str, username: &str) -> Result<Password, Failure> {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let text = if let Some(file) = file {
        first_line(std::fs::read_to_string(file).map_err(|e| Failure::io("reading", file, &e))?)
    } else if let Ok(text) = std::env::var(variable) {
        text
    } else if output::is_interactive() {
        typed_twice(username)?
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|e| Failure::io("reading", Path::new("standard input"), &e))?;
        first_line(line)
    };
    match text.is_empty() {
        false => Ok(Password(text)),
        true => Err(Failure::with(
            Exit::Usage,
            "no password was given; nothing was changed",
            format!("give one with --password-file FILE, in {variable}, or on standard input"),
        )),
    }
}

fn typed_twice(username: &str) -> Result<String, Failure> {
    let terminal = console::Term::stderr();
    let read = |prompt: &str| {
        output::ask(prompt);
        terminal.read_secure_line().map_err(|e| Failure::io("reading", Path::new("the terminal"), &e))
    };
    let first = read(&format!("Password of {username}: "))?;
    match read("The same again: ")? == first {
        true => Ok(first),
        false => Err(Failure::with(Exit::Usage, "the two passwords differ; nothing was changed", "try again")),
    }
}
