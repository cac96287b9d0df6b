//! `holdfast directory`: accounts as Entra has them, and links with which people set a password here.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use microsoft::directory::{Asked, PersonView, Place, Plan, Planned, SyncStatus, Why};
use qrcodegen::{QrCode, QrCodeEcc};
use serde::Serialize;

use super::block_on;
use crate::admin::client;
use crate::cli::Directory;
use crate::directory::{DirectoryAnswer, DirectoryAsk, Link, Whom};
use crate::exit::{Done, Exit, Failure};
use crate::layout::Layout;
use crate::{config, output, show};

/// People of one list that are shown by name.
const SHOWN: usize = 20;

pub(super) fn run(layout: &Layout, verb: Directory) -> Done {
    let ask = |ask: &DirectoryAsk| block_on(client::post::<DirectoryAnswer>(layout.data(), "/v1/directory", ask));
    match verb {
        Directory::Status(format) => {
            let DirectoryAnswer::Status(status) = ask(&DirectoryAsk::Status)? else { return Err(odd()) };
            print(format.json, "holdfast.directory-status/1", &*status, || status_text(&status));
        }
        Directory::Sync { whole, format } => {
            let DirectoryAnswer::Done(asked) = ask(&DirectoryAsk::Round { whole })? else { return Err(odd()) };
            print(format.json, "holdfast.directory-done/1", &*asked, || done_text(&asked));
        }
        Directory::Apply { accept: _, format } => {
            let DirectoryAnswer::Done(asked) = ask(&DirectoryAsk::Accept)? else { return Err(odd()) };
            print(format.json, "holdfast.directory-done/1", &*asked, || done_text(&asked));
        }
        Directory::Plan(format) => {
            let DirectoryAnswer::Plan(plan) = ask(&DirectoryAsk::Plan)? else { return Err(odd()) };
            print(format.json, "holdfast.directory-plan/1", &plan, || plan_text(&plan));
        }
        Directory::Show { who, format } => {
            let DirectoryAnswer::People(people) = ask(&DirectoryAsk::Show { who: who.clone() })? else {
                return Err(odd());
            };
            if people.is_empty() {
                return Err(Failure::new(
                    format!("nobody called `{who}` is known from the directory"),
                    "give a user principal name, mail nickname, address or object id",
                ));
            }
            print(format.json, "holdfast.directory-people/1", &People { people: &people }, || people_text(&people));
        }
        Directory::Enroll { user, group, all: _, url, valid_hours, sheet, format } => {
            let configured = config::load(layout.data())?.http.site_url;
            let Some(site) = url.or(configured) else {
                return Err(Failure::with(
                    Exit::Usage,
                    "where people reach the site is not known; no link was made",
                    "set http.site_url, or give --url https://...",
                ));
            };
            let whom = match (user, group) {
                (Some(user), _) => Whom::User(user),
                (None, Some(group)) => Whom::Group(group),
                (None, None) => Whom::All,
            };
            let DirectoryAnswer::Links(links) = ask(&DirectoryAsk::Enroll { whom, valid_hours })? else {
                return Err(odd());
            };
            let links: Vec<Shown<'_>> = links.iter().map(|link| Shown::new(&site, link)).collect();
            match sheet {
                Some(file) => {
                    write_sheet(&file, &links)?;
                    let wrote = Sheet { sheet: &file, links: links.len() };
                    print(format.json, "holdfast.directory-sheet/1", &wrote, || {
                        format!("{} links are in {}; print it, then destroy the file", links.len(), file.display())
                    });
                }
                None => {
                    print(format.json, "holdfast.directory-links/1", &Links { links: &links }, || links_text(&links))
                }
            }
        }
    }
    Ok(Exit::Ok)
}

fn odd() -> Failure {
    Failure::new("the node answered something else", "use a `holdfast` of the same version as the running node")
}

fn print<T: Serialize>(json: bool, schema: &'static str, value: &T, text: impl FnOnce() -> String) {
    #[derive(Serialize)]
    struct WithSchema<'a, T> {
        schema: &'static str,
        #[serde(flatten)]
        value: &'a T,
    }
    match json {
        true => output::json(&WithSchema { schema, value }),
        false => output::line(text().trim_end()),
    }
}

#[derive(Serialize)]
struct People<'a> {
    people: &'a [PersonView],
}

#[derive(Serialize)]
struct Links<'a> {
    links: &'a [Shown<'a>],
}

#[derive(Serialize)]
struct Sheet<'a> {
    sheet: &'a Path,
    links: usize,
}

#[derive(Serialize)]
struct Shown<'a> {
    username: &'a str,
    name: &'a str,
    url: String,
    expires_at: i64,
}

impl<'a> Shown<'a> {
    fn new(site: &str, link: &'a Link) -> Self {
        let url = format!("{}{}", site.trim_end_matches('/'), link.path);
        Self { username: &link.username, name: &link.name, url, expires_at: link.expires_at.0 }
    }
}

fn place(place: &Place) -> String {
    place.channel.as_ref().map_or_else(|| place.team.clone(), |channel| format!("{}/{channel}", place.team))
}

fn status_text(status: &SyncStatus) -> String {
    let at = |at: Option<model::UnixMillis>| at.map_or_else(|| "never".to_owned(), show::time);
    let sizes = status.sizes;
    let mut text = format!(
        "people    {} known, as of {}\ngroups    {} followed, as of {}\naccounts  {} can sign in\nround     {}\n",
        sizes.people,
        at(status.people_as_of),
        sizes.groups,
        at(status.groups_as_of),
        sizes.accounts,
        at(status.last_round),
    );
    if sizes.held > 0 {
        let _ = writeln!(text, "held      {} people: `holdfast directory plan`", sizes.held);
    }
    if sizes.held_new > 0 {
        let _ = writeln!(text, "new       {} people wait for an operator: `holdfast directory plan`", sizes.held_new);
    }
    for absent in &status.absent {
        let _ = writeln!(text, "absent    {}: nobody is sent there", place(absent));
    }
    for full in &status.full {
        let _ = writeln!(text, "full      {}: people wait for room there", place(full));
    }
    if let Some(trouble) = &status.trouble {
        let _ = writeln!(text, "trouble   {trouble}");
    }
    text
}

fn done_text(asked: &Asked) -> String {
    let done = &asked.done;
    format!(
        "accounts: {} made, {} changed, {} ended, {} restored; memberships: {} begun, {} ended\n{}",
        done.created,
        done.changed,
        done.disabled,
        done.restored,
        done.joined,
        done.left,
        plan_text(&asked.plan)
    )
}

fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for (what, list) in [
        ("would be made", &plan.create),
        ("would be changed", &plan.change),
        ("would be restored", &plan.restore),
        ("would end", &plan.disable),
        ("end when their grace is over", &plan.waiting),
        ("are held: `holdfast directory apply --accept` lets them go", &plan.held),
        ("would be made and are many at once: `holdfast directory apply --accept` makes them", &plan.create_held),
    ] {
        if list.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{} {what}", list.len());
        for planned in list.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}", planned_text(planned));
        }
        if list.len() > SHOWN {
            let _ = writeln!(text, "  and {} more (--json lists all)", list.len() - SHOWN);
        }
    }
    if text.is_empty() { "nothing is to be done".to_owned() } else { text }
}

fn planned_text(planned: &Planned) -> String {
    let why = planned.why.map(|why| format!("  {}", why_text(why))).unwrap_or_default();
    let due = planned.due.map(|due| format!(", on {}", show::time(due))).unwrap_or_default();
    format!("{}  {}{why}{due}", planned.key, planned.name)
}

fn why_text(why: Why) -> &'static str {
    use microsoft::directory::Gone;
    match why {
        Why::Disabled => "sign-in is blocked",
        Why::Untold => "Entra did not say whether sign-in is allowed",
        Why::Gone(Gone::SoftDeleted) => "deleted, can be restored for 30 days",
        Why::Gone(Gone::Deleted) => "deleted for good",
        Why::Gone(Gone::Absent) => "not in the directory any longer",
        Why::InNoGroup => "in no group that is followed",
        Why::Guest => "a guest",
    }
}

fn people_text(people: &[PersonView]) -> String {
    let mut text = String::new();
    for person in people {
        let account = match person.account {
            None => "none",
            Some(true) => "can sign in",
            Some(false) => "ended",
        };
        let places: Vec<String> = person.places.iter().map(place).collect();
        let why = person.why_not.map(|why| format!(" ({})", why_text(why))).unwrap_or_default();
        let _ = writeln!(
            text,
            "{}\n  {} {}\n  account   {account}{why}\n  groups    {}\n  places    {}",
            person.key,
            person.user_principal_name,
            person.display_name,
            person.groups.join(", "),
            places.join(", "),
        );
    }
    text
}

fn links_text(links: &[Shown<'_>]) -> String {
    if links.is_empty() {
        return "everybody has a password here".to_owned();
    }
    let mut text = String::new();
    for link in links {
        let until = show::time(model::UnixMillis(link.expires_at));
        let _ = writeln!(text, "{}  {}  until {until}\n{}", link.username, link.name, link.url);
        if let Some(code) = code(&link.url) {
            text.push_str(&in_terminal(&code));
        }
        text.push('\n');
    }
    text
}

fn code(url: &str) -> Option<QrCode> {
    QrCode::encode_text(url, QrCodeEcc::Medium).ok()
}

/// Light modules around a code, as scanners need them.
const QUIET: i32 = 4;

/// Two rows of modules to a line. What is drawn is the light ones: terminals are dark.
fn in_terminal(code: &QrCode) -> String {
    let mut text = String::new();
    let span = -QUIET..code.size() + QUIET;
    for y in span.clone().step_by(2) {
        for x in span.clone() {
            let light = |y: i32| !code.get_module(x, y) && y < code.size() + QUIET;
            text.push(match (light(y), light(y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push('\n');
    }
    text
}

fn in_html(code: &QrCode) -> String {
    let side = code.size() + 2 * QUIET;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(path, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    format!("<svg viewBox=\"0 0 {side} {side}\" role=\"img\" aria-label=\"link\"><path d=\"{path}\"/></svg>")
}

/// One card for each person, to be cut apart.
fn sheet(links: &[Shown<'_>]) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Passwords for the mission</title><style>\
         body{font:11pt sans-serif}article{break-inside:avoid;border:1px dashed;padding:4mm;margin:2mm}\
         svg{width:45mm;float:right}code{font-size:8pt;overflow-wrap:anywhere}</style>\n",
    );
    for link in links {
        let until = show::time(model::UnixMillis(link.expires_at));
        let (name, username, url) = (escape(link.name), escape(link.username), escape(&link.url));
        let picture = code(&link.url).map(|code| in_html(&code)).unwrap_or_default();
        let _ = writeln!(
            html,
            "<article>{picture}<h2>{name}</h2><p>Sign in as <b>{username}</b></p><p>Set your password by {until}, once:</p>\
             <p><code>{url}</code></p><div style=\"clear:both\"></div></article>"
        );
    }
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The links are secrets: nobody else may read the file, and none that is there is written over.
fn write_sheet(file: &Path, links: &[Shown<'_>]) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| opened.write_all(sheet(links).as_bytes()));
    written.map_err(|e| Failure::io("writing", file, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown<'static> {
        let url = format!("https://site.example/holdfast/enroll?token={}", "a".repeat(64));
        Shown { username: "anna", name: "Anna <b>", url, expires_at: 1_800_000_000_000 }
    }

    #[test]
    fn a_code_in_the_terminal_is_the_code() {
        let code = code(&shown().url).unwrap();
        let rows: Vec<Vec<char>> = in_terminal(&code).lines().map(|line| line.chars().collect()).collect();
        for y in 0..code.size() {
            for x in 0..code.size() {
                let (row, column) = ((y + QUIET) as usize, (x + QUIET) as usize);
                let light = match rows[row / 2][column] {
                    '█' => true,
                    '▀' => row % 2 == 0,
                    '▄' => row % 2 == 1,
                    _ => false,
                };
                assert_eq!(light, !code.get_module(x, y), "{x} {y}");
            }
        }
    }

    #[test]
    fn a_sheet_is_its_owners_alone_and_never_takes_anothers_place() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sheet.html");
        write_sheet(&file, &[shown()]).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let html = std::fs::read_to_string(&file).unwrap();
        assert!(html.contains("Anna &lt;b&gt;") && html.contains("<svg") && !html.contains("<script"));
        assert!(write_sheet(&file, &[]).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), html);
    }
}
