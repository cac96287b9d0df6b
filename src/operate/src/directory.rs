//! The directory sync and local enrolment as the CLI asks for them and the node answers.

use microsoft::directory::{Ask, Asked, PersonView, Plan, SyncHandle, SyncStatus};
use mission::Core;
use mission::types::User;
use model::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Links of one request: a sheet of more is printed in parts.
const LINKS_MAX: usize = 5_000;

const HOUR_MS: i64 = 3_600_000;

/// Body of `POST /v1/directory`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DirectoryAsk {
    /// How the sync stands.
    Status,
    /// What would happen to accounts.
    Plan,
    /// A round now.
    Round {
        /// Everything, or what changed?
        whole: bool,
    },
    /// Lets those go who are held.
    Accept,
    /// What is known of somebody.
    Show {
        /// User principal name, mail nickname, address or object id.
        who: String,
    },
    /// Makes links with which people set a password here.
    Enroll {
        /// Who.
        whom: Whom,
        /// For how long they are good.
        valid_hours: u32,
    },
}

/// For whom links are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Whom {
    /// One account, by its name here; also one that has a password.
    User(String),
    /// Members of a followed group who have no password here.
    Group(String),
    /// Everybody from the directory who has no password here.
    All,
}

/// Answer to [`DirectoryAsk`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectoryAnswer {
    /// How it stands.
    Status(Box<SyncStatus>),
    /// What would happen.
    Plan(Plan),
    /// What happened.
    Done(Box<Asked>),
    /// Who was meant.
    People(Vec<PersonView>),
    /// The links, by name.
    Links(Vec<Link>),
}

/// A link that is good once. Whoever has it becomes the person.
#[derive(Clone, Serialize, Deserialize)]
pub struct Link {
    /// Name of the account.
    pub username: String,
    /// The person's name.
    pub name: String,
    /// Path and query below the site's address.
    pub path: String,
    /// Until when.
    pub expires_at: UnixMillis,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Does what was asked. Touches the disk.
///
/// # Errors
/// When the sync is off, or does not do it; then nothing was changed.
pub(crate) async fn answer(
    core: &Core,
    sync: Option<&SyncHandle>,
    ask: DirectoryAsk,
) -> Result<DirectoryAnswer, Failure> {
    let on = || {
        sync.ok_or_else(|| {
            Failure::new(
                "the directory sync is off at this node; nothing was changed",
                "set microsoft.directory.enabled = true and restart the node",
            )
        })
    };
    let order = async |ask| {
        let asked = on()?.ask(ask).await;
        let asked = asked.map_err(|why| Failure::new(why, "see `holdfast directory status` and the node's log"));
        asked.map(|asked| DirectoryAnswer::Done(Box::new(asked)))
    };
    match ask {
        DirectoryAsk::Status => Ok(DirectoryAnswer::Status(Box::new(on()?.status()))),
        DirectoryAsk::Plan => {
            let plan = on()?.plan();
            plan.map(DirectoryAnswer::Plan).ok_or_else(|| {
                Failure::new(
                    "nothing is known of the directory yet",
                    "run `holdfast directory sync` while it is reachable",
                )
            })
        }
        DirectoryAsk::Round { whole } => order(Ask::Round { whole }).await,
        DirectoryAsk::Accept => order(Ask::Accept).await,
        DirectoryAsk::Show { who } => Ok(DirectoryAnswer::People(on()?.find(&who))),
        DirectoryAsk::Enroll { whom, valid_hours } => {
            let people = people(core, sync, &whom)?;
            if people.len() > LINKS_MAX {
                let text = format!("{} people are more than {LINKS_MAX} at once; no link was made", people.len());
                return Err(Failure::new(text, "go group by group"));
            }
            let core = core.clone();
            let made = tokio::task::spawn_blocking(move || links(&core, &people, valid_hours));
            made.await.expect("the core does not panic").map(DirectoryAnswer::Links)
        }
    }
}

fn people(core: &Core, sync: Option<&SyncHandle>, whom: &Whom) -> Result<Vec<User>, Failure> {
    let failed = |e: mission::error::AppError| Failure::new(e.message.into_owned(), "check the disk, then try again");
    match whom {
        Whom::User(name) => {
            let found = core.user_by_username(name).map_err(|_| {
                Failure::new(format!("there is no account `{name}`; no link was made"), "check the spelling")
            })?;
            Ok(vec![found])
        }
        Whom::All => core.without_password().map_err(failed),
        Whom::Group(group) => {
            let members = sync.and_then(|sync| sync.members_of(group)).ok_or_else(|| {
                Failure::new(
                    format!("no group `{group}` is followed, or it was not read yet; no link was made"),
                    "`holdfast directory status` shows when groups were read",
                )
            })?;
            let objects: std::collections::BTreeSet<String> =
                members.iter().map(|key| key.object.to_string()).collect();
            let mut people = core.without_password().map_err(failed)?;
            people.retain(|user| user.auth_data.as_ref().is_some_and(|object| objects.contains(object)));
            Ok(people)
        }
    }
}

fn links(core: &Core, people: &[User], valid_hours: u32) -> Result<Vec<Link>, Failure> {
    let link = |user: &User| {
        let made = core.operator_enrols(user.id, i64::from(valid_hours) * HOUR_MS);
        let made = made.map_err(|e| {
            Failure::new(
                format!("no link for {}: {}; those before it are good", user.username, e.message.trim_end_matches('.')),
                "correct what it says and run it again: new links end the earlier ones",
            )
        })?;
        Ok(Link {
            name: format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
            path: format!("{}?token={}", mission::http::enroll::PATH, made.token),
            username: made.username,
            expires_at: made.expires_at,
        })
    };
    people.iter().map(link).collect()
}
