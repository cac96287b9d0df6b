//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::Role;
use crate::exit::Exit;

/// Keeps a mission's chat working while the world is unreachable, and forwards it when it is not.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = Exit::table(), max_term_width = 100)]
pub struct Cli {
    /// The node's data directory.
    #[arg(long, global = true, env = "HOLDFAST_DATA", default_value = "/var/lib/holdfast", value_name = "DIR")]
    pub data: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a new node: its configuration, its keys, its first account.
    Init(Init),
    /// Run this node as an edge: a tactical site that dials its hub.
    Edge,
    /// Run this node as a hub: the side that edges dial.
    Hub,
    /// Bring edges and hubs together.
    #[command(subcommand)]
    Enroll(Enroll),
    /// Show how the node is: links, what is held and since when, what to do.
    Status(Format),
    /// Show what waits for each peer, by class and stream, how much that is on the link, and when it will be there.
    Backlog(Format),
    /// Show where a post, a file or an entry is, for each peer, and what it waits for.
    Why {
        /// Id of a post or file, or an entry by its place (a number) or as origin/epoch/number.
        target: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// When the present backlog would be across over a link that is only thought of. Needs a running node, and sends nothing.
    Simulate {
        /// For which enrolled node.
        #[arg(long, value_name = "PEER")]
        to: String,
        /// The link: RATE/DELAY, then /LOSS, then /TIME@PERIOD for one that is up so long each period. Such as
        /// 64kbit/s/300ms/5%/10m@1h.
        #[arg(long, value_name = "LINK")]
        link: String,
        /// How far to look.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_760))]
        hours: u32,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// A file whose bytes are not here: what it would take, and asking for it. Needs a running node.
    #[command(subcommand)]
    File(File),
    /// Look into the journal; works whether the node runs or not.
    #[command(subcommand)]
    Journal(Journal),
    /// Emission control: what may leave this node. The state survives restarts.
    #[command(subcommand)]
    Link(Link),
    /// Carry the backlog by hand: on a stick or disk, sealed for the node that it is for. Needs a running node.
    #[command(subcommand)]
    Courier(Courier),
    /// Microsoft 365: what would go there, what was delivered and what waits, who has signed in. Needs a running node with section [microsoft].
    #[command(subcommand)]
    M365(M365),
    /// People and groups of Entra ID as accounts, and passwords that people set here before departure. Needs a running node.
    #[command(subcommand)]
    Directory(Directory),
    /// Remove a spilled post or file here and wherever it went. Shows first what would go; needs a running node.
    Purge(Purge),
    /// The configuration file.
    #[command(subcommand)]
    Config(Config),
    /// The site as a tab in Teams and Outlook.
    #[command(subcommand)]
    Teams(Teams),
    /// The keys that seal the journal on disk.
    #[command(subcommand)]
    Keys(Keys),
    /// Destroy this node's keys, then its data. There is no way back.
    Zeroize(Zeroize),
    /// Local accounts of the node's mission core.
    #[command(subcommand)]
    User(User),
    /// Move a whole server: Mattermost's bulk data in and out. By the running node, or on the files of a stopped one.
    #[command(subcommand)]
    Core(Core),
    /// See a mission cross an outage: two sites, a bad link, two minutes, nothing left behind.
    Demo(crate::demo::Options),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `teams`
#[derive(Debug, Subcommand)]
pub enum Teams {
    /// Write the app's package, and print what has to be registered in Entra for it.
    Package {
        /// Where the package goes.
        #[arg(long, default_value = "holdfast-teams.zip", value_name = "FILE")]
        output: std::path::PathBuf,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Format {
    /// Print one JSON object; its field `schema` names its form.
    #[arg(long)]
    pub json: bool,
}

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// Name under which peers know the node: 1 to 32 of a-z, 0-9 and -.
    #[arg(long)]
    pub name: Option<keys::PeerName>,
    /// Which side it is.
    #[arg(long)]
    pub role: Option<Role>,
    /// What may leave this node; asked for when absent. The rules can be refined in the configuration.
    #[arg(long)]
    pub release: Option<Release>,
    /// Make an administrator account of this name. Its password comes from --password-file, from
    /// HOLDFAST_PASSWORD, or from standard input.
    #[arg(long, value_name = "USERNAME")]
    pub admin: Option<String>,
    /// First line of this file is the administrator's password.
    #[arg(long, value_name = "FILE", requires = "admin")]
    pub password_file: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub api_listen: Option<SocketAddr>,
    /// Where metrics and health are served.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Where peers reach this node, UDP; by default 0.0.0.0:7800 for a hub and nowhere for an edge.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// What a new node releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Release {
    /// Every channel and every direct message.
    All,
    /// Open and private channels, no direct messages.
    Channels,
    /// Nothing, until the configuration says so.
    None,
}

/// `enroll`
#[derive(Debug, Subcommand)]
pub enum Enroll {
    /// At the hub: make a token that admits one edge, once.
    Invite {
        /// Name of the edge.
        name: keys::PeerName,
        /// How long the token is valid: 30m, 24h, 7d.
        #[arg(long, default_value = "24h", value_parser = parse_span)]
        valid: Duration,
        /// Where the edge reaches this hub.
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// At the edge: enroll at the hub that made the token.
    Join {
        /// The token, as the hub printed it; `-` reads it from standard input.
        token: String,
    },
    /// Print this node's card, for a node that can only be reached over a relay: both take each other's with `accept`. It is
    /// a secret, as a token is.
    Card(Format),
    /// Enroll the node of a card that was carried here by hand.
    Accept {
        /// The card, as the other node printed it; `-` reads it from standard input.
        card: String,
    },
    /// Show who is enrolled and who is invited.
    List(Format),
    /// Refuse a peer from now on.
    Remove {
        /// Its name.
        name: keys::PeerName,
    },
}

/// `file`
#[derive(Debug, Subcommand)]
pub enum File {
    /// Show how much of a file is missing here, and how long it would take.
    Show {
        /// Id of the file, as the API and `holdfast why` show it.
        id: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Ask for a file that comes only on request. Shows the same, and asks; with --class again in another class.
    Request {
        /// Id of the file.
        id: String,
        /// Class in which its bytes are to travel.
        #[arg(long, default_value = "routine")]
        class: model::Precedence,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `journal`
#[derive(Debug, Subcommand)]
pub enum Journal {
    /// List entries, the oldest first. With --json one object per line.
    List {
        /// Begin at this place in the journal.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// No more than this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Show one entry.
    Show {
        /// Its place in the journal, or its identity as origin/epoch/number.
        entry: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Read everything and check every checksum and hash. Changes nothing.
    Verify(Format),
    /// Show sizes, epochs and how far each destination is.
    Stats(Format),
    /// Read every sealed segment again now, as the background scrub does in its time: damage is kept aside and asked
    /// for from the peers. By the running node, or on the files of a stopped one.
    Scrub(Format),
    /// Write entries as JSON lines, or as they are with --raw. They leave in the clear.
    Export {
        /// Begin at this place in the journal.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// End with this place.
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
        /// Write to this file, which must not exist; standard output otherwise.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write a bundle of encoded entries.
        #[arg(long)]
        raw: bool,
    },
    /// Remove what every destination has finished with, as the node does by itself every minute. By the running node,
    /// or on the files of a stopped one.
    Trim {
        /// Only show what would go, and what the other segments wait for.
        #[arg(long)]
        dry_run: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Make the index anew from the segments. By the running node, or on the files of a stopped one.
    RebuildIndex(Format),
    /// Damaged places, and what became of what stood there.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Legal holds: marks that keep entries from being trimmed.
    #[command(subcommand)]
    Hold(JournalHold),
}

/// `journal quarantine`
#[derive(Clone, Debug, Subcommand)]
pub enum Quarantine {
    /// Show damaged places and missing entries, and what can be done about them.
    List(Format),
    /// Give up what a place held: its own entries end as quarantined for every destination, and it is no alarm any more.
    /// By the running node, or on the files of a stopped one.
    Skip {
        /// Name of the place, or `all`.
        place: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Read a place again, and ask every peer again that may hold what it held. By the running node; with a stopped
    /// one the peers are asked when it runs.
    Retry {
        /// Name of the place, or `all`.
        place: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `journal hold`
#[derive(Debug, Subcommand)]
pub enum JournalHold {
    /// Set a hold; without conditions it keeps the whole journal. It keeps what it covers and everything behind that, and
    /// delays no delivery. The journal grows until it is removed.
    Add {
        /// Its name, 1 to 64 bytes. A hold of the same name is replaced.
        name: String,
        /// Only entries of this stream: directory, team:ID or channel:ID.
        #[arg(long)]
        stream: Option<String>,
        /// Only what was written at this time or later, such as 2026-03-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only what was written before this time.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Only entries at this place in the journal or behind it.
        #[arg(long, value_name = "PLACE")]
        first: Option<u64>,
        /// Only entries at this place in the journal or before it.
        #[arg(long, value_name = "PLACE")]
        last: Option<u64>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Show the holds. With --json one object per line.
    List(Format),
    /// Remove a hold.
    Remove {
        /// Its name.
        name: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `link`
#[derive(Clone, Debug, Subcommand)]
pub enum Link {
    /// Show every link: state, rate, round trip, loss, cost, budget, contact windows.
    List(Format),
    /// Measure a link that is up, with eight small packets and their acknowledgements.
    Test {
        /// The link, as LINK or PEER/LINK.
        link: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Close a link in order and do not use it until it is resumed. Survives restarts.
    Pause {
        /// The link, as LINK or PEER/LINK.
        link: String,
    },
    /// Send nothing at all, from the moment this returns; with a link, nothing over that link. Survives restarts.
    Silence {
        /// The link, as LINK or PEER/LINK.
        #[arg(conflicts_with = "receive")]
        link: Option<String>,
        /// Go on taking what arrives one-way.
        #[arg(long)]
        receive: bool,
    },
    /// Send again; with a link, use that link again.
    Resume {
        /// The link, as LINK or PEER/LINK.
        link: Option<String>,
    },
    /// Show what may leave.
    Status(Format),
}

/// `directory`
#[derive(Debug, Subcommand)]
pub enum Directory {
    /// How the sync stands.
    Status(Format),
    /// Ask Entra now for what changed.
    Sync {
        /// Read everything anew and compare.
        #[arg(long)]
        whole: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// What would happen to accounts, and who is held because they are many at once.
    Plan(Format),
    /// Carry out what is held.
    Apply {
        /// Let those go whom `plan` shows as held, and make the accounts that wait.
        #[arg(long, required = true)]
        accept: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// What is known of somebody.
    Show {
        /// User principal name, mail nickname, address or object id.
        who: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Make links with which people set a password at this node, each good once. Whoever has a link becomes the person.
    #[command(group(clap::ArgGroup::new("whom").required(true)))]
    Enroll {
        /// Name of the account here; it may have a password already.
        #[arg(group = "whom")]
        user: Option<String>,
        /// Members of a followed group, by its name or id, who have no password here.
        #[arg(long, group = "whom", value_name = "GROUP")]
        group: Option<String>,
        /// Everybody from the directory who has no password here.
        #[arg(long, group = "whom")]
        all: bool,
        /// Address of the site as people reach it; `http.site_url` unless given.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Hours for which the links are good.
        #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=720))]
        valid_hours: u32,
        /// Write a sheet to be printed and cut (HTML, readable by the owner alone) instead of printing codes here.
        #[arg(long, value_name = "FILE")]
        sheet: Option<PathBuf>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `m365`
#[derive(Debug, Subcommand)]
pub enum M365 {
    /// Sign somebody in, so that this node may act for them: prints a code to be entered on any machine, or an address.
    SignIn {
        /// In a browser on this machine, where the tenant forbids codes.
        #[arg(long)]
        browser: bool,
        /// How to print: one object a line, first the code or address, then who signed in.
        #[command(flatten)]
        format: Format,
    },
    /// Show what would go to which target, in how many requests and how long, before anything goes.
    Plan(Format),
    /// Show how every target is: the equation, and what it waits for.
    Targets(Format),
    /// List what a target could not show, what it was not given, and what was given up.
    Missing {
        /// Of this target; of all when absent.
        target: Option<String>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Try again what was given up.
    Retry {
        /// Of this target.
        target: String,
        /// Only this one, as `missing` numbers it.
        #[arg(long, value_name = "ID")]
        item: Option<i64>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Put away what was given up. It stays counted as quarantined.
    Skip {
        /// Of this target.
        target: String,
        /// Only this one, as `missing` numbers it.
        #[arg(long, value_name = "ID")]
        item: Option<i64>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// List who has signed in.
    People(Format),
    /// Forget somebody's sign-in. Entra itself is not told.
    SignOut {
        /// Entra's id of the person, as `people` shows it.
        #[arg(value_name = "ID")]
        oid: String,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `courier`
#[derive(Debug, Subcommand)]
pub enum Courier {
    /// Write what the other node has not receipted into a directory, most urgent first, with the receipts for what it sent.
    /// A medium that gets full is continued on the next one by running the same command again.
    Export {
        /// For which enrolled node.
        #[arg(long, value_name = "PEER")]
        to: String,
        /// Where the medium is mounted.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Write at most so many bytes on this medium.
        #[arg(long, value_name = "BYTES")]
        max_bytes: Option<u64>,
        /// Leave out what was written on any medium before. For when those are known to arrive.
        #[arg(long, conflicts_with = "restart")]
        since_last: bool,
        /// Begin anew instead of going on where the last medium was full.
        #[arg(long)]
        restart: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Take in what is for this node in a directory. May be repeated, in any order of media.
    Import {
        /// Where the medium is mounted.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `purge`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Purge {
    /// What to do besides giving an order.
    #[command(subcommand)]
    pub verb: Option<PurgeVerb>,
    /// The order.
    #[command(flatten)]
    pub order: PurgeOrder,
}

/// `purge ID`
#[derive(Debug, Args)]
pub struct PurgeOrder {
    /// A post's or file's id; or an entry, by its place in the journal or as origin/epoch/number: then the post or
    /// file that it is about goes.
    #[arg(value_name = "ID")]
    pub target: Option<String>,
    /// Why. Kept in the tombstones and told to every node: write nothing of the content here.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who orders it; by default the name of the user who is signed in.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Leave the post's files.
    #[arg(long)]
    pub keep_files: bool,
    /// Take other files with the same bytes along, and parts that other files share.
    #[arg(long)]
    pub everywhere_used: bool,
    /// Do it; without this nothing is changed unless a person at the terminal agrees.
    #[arg(long)]
    pub yes: bool,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// `purge VERB`
#[derive(Debug, Subcommand)]
pub enum PurgeVerb {
    /// Show the orders, and how far each is at each node. Ends with 3 while some node is not done.
    Status {
        /// Only this order.
        id: Option<String>,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `config`
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Config {
    /// Read the file as start-up does and show every problem.
    Check(Format),
}

/// `keys`
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Show every data key, when it was made, and how many segments need it.
    List(Format),
    /// Make a new data key; a new segment begins with it at once.
    Rotate {
        /// Also seal every older segment anew, then destroy the keys that nothing needs any more. Goes on where it was
        /// when it is interrupted and run again.
        #[arg(long)]
        rewrite: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Wrap the keyring with another key file, a credential or a passphrase. The node must not run.
    Rewrap(Rewrap),
}

/// `keys rewrap`
#[derive(Debug, Args)]
pub struct Rewrap {
    /// What wraps it from now on.
    #[arg(long)]
    pub source: Source,
    /// The key file; made when it is not there.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Name of the systemd credential.
    #[arg(long, value_name = "NAME")]
    pub credential: Option<String>,
    /// First line of this file is the passphrase; without it and without the credential it is asked for.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// What can wrap the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// A key file.
    File,
    /// A systemd credential.
    Credential,
    /// A passphrase.
    Passphrase,
}

impl From<Source> for keys::WrapSource {
    fn from(source: Source) -> Self {
        match source {
            Source::File => Self::File,
            Source::Credential => Self::Credential,
            Source::Passphrase => Self::Passphrase,
        }
    }
}

/// `zeroize`
#[derive(Debug, Args)]
pub struct Zeroize {
    /// The node's name, instead of being asked for it.
    #[arg(long, value_name = "NAME")]
    pub yes_destroy: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// `user`
#[derive(Debug, Subcommand)]
pub enum User {
    /// Add a local account.
    Add {
        /// Sign-in name.
        username: String,
        /// E-mail address; by default USERNAME@localhost.
        #[arg(long)]
        email: Option<String>,
        /// May administer the core.
        #[arg(long)]
        admin: bool,
        /// First line of this file is the password; else HOLDFAST_PASSWORD, else standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Set the password of a local account.
    Password {
        /// Whose.
        username: String,
        /// First line of this file is the password; else HOLDFAST_PASSWORD, else standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

/// `core`
#[derive(Debug, Subcommand)]
pub enum Core {
    /// Write users, teams, channels and posts as Mattermost's bulk data. Whoever can read the file reads everything in it.
    Export {
        /// The archive, which must not exist.
        file: PathBuf,
        /// With the bytes of attachments and emoji.
        #[arg(long)]
        attachments: bool,
        /// With pictures of users and bots.
        #[arg(long)]
        profile_pictures: bool,
        /// With archived channels.
        #[arg(long)]
        archived: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
    /// Take in Mattermost's bulk data. Every line is looked at before anything is changed; the same archive again adds nothing.
    Import {
        /// The archive, as `mmctl export create` or `holdfast core export` wrote it.
        file: PathBuf,
        /// Only say what is wrong, with line numbers, and what there is.
        #[arg(long)]
        dry_run: bool,
        /// New channels and what is in them never leave this node, now or later. Else the release rules say what may.
        #[arg(long)]
        stay_here: bool,
        /// How to print.
        #[command(flatten)]
        format: Format,
    },
}

/// `90s`, `30m`, `24h`, `7d`.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time span; write 90s, 30m, 24h or 7d");
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    // A year: a token that outlives its mission is a risk, not a convenience.
    number
        .checked_mul(seconds)
        .filter(|s| (1..=365 * 86_400).contains(s))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is not between 1s and 365d"))
}

/// docs/cli.md: every verb as its `--help` shows it.
pub fn manual() -> String {
    let mut page = String::from(MANUAL_HEAD);
    for exit in Exit::ALL {
        page.push_str(&format!("| {} | {} |\n", exit.code(), exit.meaning()));
    }
    let mut root = <Cli as clap::CommandFactory>::command().term_width(100);
    root.build();
    describe(&root, "holdfast", &mut page);
    page
}

fn describe(command: &clap::Command, path: &str, page: &mut String) {
    let mut shown = command.clone().after_help("").bin_name(path).disable_help_subcommand(true);
    let help = shown.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## {path}\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
    for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
        describe(inner, &format!("{path} {}", inner.get_name()), page);
    }
}

const MANUAL_HEAD: &str = "\
# Command line

This page is made from the program; a test compares the two. Verbs that read take `--json` and then print one object
(`journal list`: one per line) whose field `schema` names its form, such as `holdfast.status/1`. Within a form,
fields are only added. Errors go to standard error and say what stayed intact and what to do next; with `--json` they
are an object `holdfast.error/1`.

| exit code | meaning |
|---|---|
";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_shows_exactly_what_help_shows() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
            std::fs::write(&file, manual()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), manual(), "run the tests once with HOLDFAST_UPDATE_DOCS=1");
    }

    #[test]
    fn help_ends_with_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("  4  the node does not run in this data directory"), "{help}");
    }

    #[test]
    fn spans_have_a_unit_and_a_limit() {
        assert_eq!(parse_span("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "24", "h", "0s", "366d", "-1h", "1w", "5é"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
