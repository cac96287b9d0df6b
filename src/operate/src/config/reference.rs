//! Every key of the configuration: what it is for and what it is when absent.
//!
//! The file that `init` writes and docs/configuration.md are made from this table.

use std::fmt::Write as _;

use super::Role;

/// A section of the file.
pub struct Section {
    /// Its name in brackets. The part [`ANY`] stands for a name that the operator chooses.
    pub name: &'static str,
    /// How often it stands in the file.
    pub shape: Shape,
    /// What it is about.
    pub help: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Section {
    fn header(&self) -> String {
        match self.shape {
            Shape::One | Shape::Named | Shape::Optional => format!("[{}]", self.name),
            Shape::List => format!("[[{}]]", self.name),
        }
    }
}

/// How often a section stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Once.
    One,
    /// Once for each name: `[carrier.peers.NAME]`.
    Named,
    /// As a list, in order: `[[capture.release]]`.
    List,
    /// Once or not at all; what it is about does not run without it.
    Optional,
}

/// The part of a section's name that the operator chooses.
const ANY: &str = "NAME";

/// A key of a section.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is when absent.
    pub default: Default,
    /// What it is for, with its unit.
    pub help: &'static str,
}

/// What a key is when absent.
pub enum Default {
    /// It must be there; an example as TOML.
    Required(&'static str),
    /// This, as TOML.
    Is(&'static str),
    /// Nothing; an example as TOML.
    Unset(&'static str),
}

use Default::{Is, Required, Unset};

/// All sections, in the order of the file.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "node",
        shape: Shape::One,
        help: "Who this node is.",
        keys: &[
            Key {
                name: "name",
                default: Required("\"alpha\""),
                help: "Name under which peers and operators know the node: 1 to 32 of a-z, 0-9 and -.",
            },
            Key {
                name: "role",
                default: Required("\"edge\""),
                help: "`edge` (a tactical site, dials its hub) or `hub`.",
            },
        ],
    },
    Section {
        name: "api",
        shape: Shape::One,
        help: "Where mission users connect with a Mattermost client.",
        keys: &[Key {
            name: "listen",
            default: Is("\"127.0.0.1:8065\""),
            help: "Address and port of the API (HTTP). Put a TLS proxy in front before it leaves the box.",
        }],
    },
    Section {
        name: "metrics",
        shape: Shape::One,
        help: "Metrics and health for a monitoring system.",
        keys: &[Key {
            name: "listen",
            default: Is("\"127.0.0.1:9465\""),
            help: "Address and port of `/metrics`, `/healthz` and `/readyz`.",
        }],
    },
    Section {
        name: "log",
        shape: Shape::One,
        help: "What is logged, to standard error.",
        keys: &[
            Key { name: "format", default: Is("\"text\""), help: "`text`, or `json` for one object per line." },
            Key {
                name: "filter",
                default: Is("\"info\""),
                help: "error, warn, info, debug or trace, or `room=level` pairs: \"info,carrier=debug\". HOLDFAST_LOG in the environment comes before it.",
            },
        ],
    },
    Section {
        name: "core",
        shape: Shape::One,
        help: "The mission core: accounts, sessions, posts and files.",
        keys: &[
            Key { name: "site_name", default: Is("\"Holdfast\""), help: "Name shown where people sign in." },
            Key { name: "max_file_bytes", default: Is("104857600"), help: "Largest file in bytes." },
            Key {
                name: "max_import_bytes",
                default: Is("10737418240"),
                help: "Largest archive in bytes that a system administrator may upload for an import; `holdfast core import` has no such limit.",
            },
            Key { name: "max_post_runes", default: Is("16383"), help: "Longest message in characters." },
            Key {
                name: "session_hours",
                default: Is("720"),
                help: "Life of a web session in hours; activity prolongs it.",
            },
            Key {
                name: "session_hours_mobile",
                default: Is("720"),
                help: "Life of a mobile session in hours; activity prolongs it.",
            },
            Key {
                name: "late_after_seconds",
                default: Is("60"),
                help: "A post from another node that is older than this on arrival is marked late.",
            },
            Key {
                name: "open_registration",
                default: Is("false"),
                help: "May anyone who reaches the API make an account? The first account may always be made.",
            },
            Key { name: "password_min_chars", default: Is("8"), help: "Shortest password in bytes." },
            Key {
                name: "login_attempts_max",
                default: Is("10"),
                help: "Wrong passwords in a row before sign-in is refused until a new one is set (`holdfast user password`).",
            },
            Key { name: "max_team_members", default: Is("10000"), help: "Most members of one team." },
            Key {
                name: "users_may_create_tokens",
                default: Is("true"),
                help: "May users other than administrators make personal access tokens?",
            },
            Key {
                name: "multifactor",
                default: Is("true"),
                help: "May users demand a code of an authenticator app at their sign-in? Off, no code is asked for.",
            },
        ],
    },
    Section {
        name: "core.integrations",
        shape: Shape::One,
        help: "Webhooks, slash commands, buttons and dialogs of other programs. Requests go to the public internet only, unless listed.",
        keys: &[
            Key {
                name: "allowed_internal",
                default: Is("[]"),
                help: "Names, addresses and networks that may be called although they are not public, e.g. `\"10.1.2.0/24\"`.",
            },
            Key { name: "timeout_seconds", default: Is("30"), help: "How long a program may take to answer." },
            Key {
                name: "username_override",
                default: Is("false"),
                help: "May integrations choose the name under which their posts are shown?",
            },
            Key {
                name: "icon_override",
                default: Is("false"),
                help: "May integrations choose the picture with which their posts are shown?",
            },
        ],
    },
    Section {
        name: "core.push",
        shape: Shape::One,
        help: "Notifications to mobile devices, by way of a push proxy. They hold ids and counts, never content; devices ask this site for that.",
        keys: &[
            Key {
                name: "proxy",
                default: Unset("\"https://push.example\""),
                help: "URL of a push proxy: Mattermost's own program, or a Holdfast that relays to one. Without it nothing is sent.",
            },
            Key {
                name: "stale_after_minutes",
                default: Is("60"),
                help: "What waited longer than this, because the proxy was not reached, is dropped.",
            },
            Key {
                name: "relay_for",
                default: Is("[]"),
                help: "Addresses and networks of other sites that may send their notifications by way of this one, e.g. `\"10.1.2.0/24\"`.",
            },
        ],
    },
    Section {
        name: "http",
        shape: Shape::One,
        help: "The API.",
        keys: &[
            Key {
                name: "site_url",
                default: Unset("\"https://chat.example\""),
                help: "URL under which people reach the site. Without it clients use the URL they were given.",
            },
            Key { name: "max_json_bytes", default: Is("300000"), help: "Largest JSON body in bytes." },
            Key {
                name: "logins_per_second",
                default: Is("5"),
                help: "Attempts to sign in or sign up that one address may make each second, after a burst; 0 for no limit.",
            },
            Key { name: "login_burst", default: Is("10"), help: "Attempts that one address may make at once." },
            Key {
                name: "trusted_proxies",
                default: Is("[]"),
                help: "Addresses of proxies whose `X-Forwarded-For` names the client. One on this machine needs no entry.",
            },
            Key {
                name: "webapp",
                default: Unset("\"/usr/share/mattermost/client\""),
                help: "Directory of Mattermost's built web app (`client/` of a release), served to browsers as it is.",
            },
            Key {
                name: "frame_ancestors",
                default: Is("\"\""),
                help: "Origins that may show the web app in a frame, besides the site itself, separated by spaces.",
            },
        ],
    },
    Section {
        name: "capture",
        shape: Shape::One,
        help: "What may leave this node, and how urgent it is. Without a release rule nothing leaves.",
        keys: &[Key {
            name: "directory",
            default: Is("false"),
            help: "Release users' profiles (names, never credentials) under the label `directory`. Needed wherever posts go.",
        }],
    },
    Section {
        name: "capture.release",
        shape: Shape::List,
        help: "A release rule. The first that fits gives the label; what no rule fits stays here, withheld and counted.",
        keys: &[
            Key {
                name: "label",
                default: Required("\"mission\""),
                help: "Label for what fits. A peer gets what carries one of its labels (carrier.labels).",
            },
            Key {
                name: "teams",
                default: Is("[\"*\"]"),
                help: "Team names; * stands for any characters. Does not concern direct and group messages.",
            },
            Key {
                name: "channels",
                default: Is("[\"*\"]"),
                help: "Channel names as in the URL; * stands for any characters. Does not concern direct and group messages.",
            },
            Key {
                name: "kinds",
                default: Is("[\"open\", \"private\"]"),
                help: "Kinds of channels: open, private, direct, group.",
            },
        ],
    },
    Section {
        name: "capture.precedence",
        shape: Shape::List,
        help: "How urgent ordinary posts are. The first rule that fits counts; a post's own priority counts where it is higher.",
        keys: &[
            Key {
                name: "class",
                default: Required("\"immediate\""),
                help: "flash, immediate, priority, routine or deferred.",
            },
            Key { name: "teams", default: Is("[\"*\"]"), help: "Team names; * stands for any characters." },
            Key { name: "channels", default: Is("[\"*\"]"), help: "Channel names; * stands for any characters." },
        ],
    },
    Section {
        name: "carrier",
        shape: Shape::One,
        help: "The links to peers.",
        keys: &[
            Key {
                name: "listen",
                default: Unset("\"0.0.0.0:7800\""),
                help: "UDP address and port where peers reach this node. A hub needs it; without it the node only dials.",
            },
            Key {
                name: "https_listen",
                default: Unset("\"0.0.0.0:443\""),
                help: "TCP address and port where peers reach this node over HTTPS, for networks that pass nothing else. Enrolment needs `listen`.",
            },
            Key {
                name: "https_certificate",
                default: Unset("\"/etc/holdfast/https.crt\""),
                help: "Web certificate with its chain (PEM). Without it one that nobody signed is made (`https.pem` in the data directory); the log shows its fingerprint, which peers can pin.",
            },
            Key {
                name: "https_key",
                default: Unset("\"/etc/holdfast/https.key\""),
                help: "Key of the web certificate (PEM).",
            },
            Key {
                name: "rate",
                default: Is("\"256kbit/s\""),
                help: "Ceiling for everything sent to a peer that has no rate of its own, all headers included.",
            },
            Key {
                name: "labels",
                default: Is("[\"directory\", \"mission\"]"),
                help: "Release labels that a peer without a list of its own may get. What has another label is withheld and counted.",
            },
            Key {
                name: "files_on_request_above",
                default: Unset("\"1MB\""),
                help: "Files of a peer that are larger come only when a reader opens one or `holdfast file request` asks; posts show their names and sizes at once. Without it all files come by themselves, behind everything else.",
            },
            Key {
                name: "no_progress_after_minutes",
                default: Is("15"),
                help: "When something is held for a peer and nothing of it has moved for so long, the health check `backlog NAME` says so; 0 for never. A link that is silent by order raises no alarm.",
            },
            Key {
                name: "oneway_listen",
                default: Unset("\"0.0.0.0:7900\""),
                help: "Where datagrams of one-way lanes arrive, UDP. Nothing is ever sent from there. Datagrams of nodes that are not enrolled are dropped unread.",
            },
            Key {
                name: "transit_limit",
                default: Unset("\"256MB\""),
                help: "How much this node holds of what enrolled nodes write for each other, sealed, to carry it on as a relay; the less urgent classes fill 70 to 95 % of it. Without it this node carries nothing on.",
            },
            Key {
                name: "transit_age_hours",
                default: Is("720"),
                help: "For how long it holds a parcel that it cannot hand on. Whoever wrote it holds what is in it.",
            },
        ],
    },
    Section {
        name: "carrier.peers.NAME",
        shape: Shape::Named,
        help: "What differs for one peer; NAME is the name under which it was enrolled.",
        keys: &[
            Key {
                name: "address",
                default: Unset("\"hub.example:7800\""),
                help: "Where to dial it, if not where it was at enrolment.",
            },
            Key {
                name: "rate",
                default: Unset("\"64kbit/s\""),
                help: "Ceiling for everything sent to it, all headers included.",
            },
            Key { name: "labels", default: Unset("[\"directory\"]"), help: "Release labels that it may get." },
            Key {
                name: "files_on_request_above",
                default: Unset("\"256kB\""),
                help: "Its files that are larger come only when somebody here wants them.",
            },
            Key {
                name: "never_dial",
                default: Is("false"),
                help: "This node never dials it and raises no alarm while there is no link, as where the only way there, or from there, is a data diode. The peer may still dial.",
            },
            Key {
                name: "via",
                default: Unset("\"ship\""),
                help: "The enrolled node that carries on what is for this peer, sealed: a relay, with `carrier.transit_limit` there. The peer is not dialled then.",
            },
            Key {
                name: "via_repeat_minutes",
                default: Is("1440"),
                help: "After so many minutes, when nothing new waits, what was handed to that relay and has no receipt is written and handed over again.",
            },
        ],
    },
    Section {
        name: "carrier.peers.NAME.oneway",
        shape: Shape::Named,
        help: "A lane to that peer over which nothing comes back, such as through a data diode: parcels in UDP datagrams of 1,176 bytes, with repair symbols and repeated. Nothing counts as arrived before a receipt comes by another way. Operators call it the link `oneway`.",
        keys: &[
            Key {
                name: "to",
                default: Required("\"192.0.2.40:7900\""),
                help: "Where to send: the diode, or the peer's `carrier.oneway_listen`.",
            },
            Key { name: "bind", default: Unset("\"192.0.2.10\""), help: "Own address that its packets leave from." },
            Key { name: "interface", default: Unset("\"eth1\""), help: "Interface that its packets leave through." },
            Key { name: "dscp", default: Is("0"), help: "Differentiated services code point of its packets, 0 to 63." },
            Key {
                name: "rate",
                default: Required("\"1Mbit/s\""),
                help: "Ceiling for everything sent there, all headers and repetitions included. Below what the diode carries: it cannot say when it drops.",
            },
            Key {
                name: "passes",
                default: Is("3"),
                help: "How often each parcel is sent, 1 to 100; every pass has symbols of its own that add to those before. Flash has two passes more.",
            },
            Key {
                name: "redundancy_percent",
                default: Is("30"),
                help: "Symbols that each pass has beyond those that make a parcel whole, 0 to 400. Flash has twice as many.",
            },
            Key {
                name: "repeat_minutes",
                default: Is("60"),
                help: "After so many minutes what has no receipt is sent again, in new parcels; what is new goes first. 0: every 5 seconds.",
            },
            Key {
                name: "rounds",
                default: Is("0"),
                help: "After so many rounds without a receipt an entry counts as `sent, unconfirmed` and is not sent again, at most 16; 0 for never. It is held all the same, since nobody knows whether it arrived.",
            },
        ],
    },
    Section {
        name: "carrier.peers.NAME.links",
        shape: Shape::List,
        help: "One of several links to that peer, used together as one: flash goes over each of them, bulk over the cheapest, and when one is lost the others carry on. Each needs an address, an own address or an interface that tells it from the others. Without this section there is one link, made of the peer's settings. The side that is dialled finds a link by the name that the dialling side gives it.",
        keys: &[
            Key { name: "name", default: Required("\"satellite\""), help: "1 to 32 of a-z, 0-9 and -." },
            Key {
                name: "lane",
                default: Is("\"quic\""),
                help: "`quic` (UDP), or `https`: a WebSocket over TLS, for where nothing else passes. It dials the peer's `carrier.https_listen`, at port 443 unless the link has an `address`. Give it a `cost` above the others', and it is used when they are gone.",
            },
            Key {
                name: "https",
                default: Unset(
                    "{ pin = \"9f86...\", proxy = \"proxy.example:3128\", proxy_login = \"/etc/holdfast/proxy\" }",
                ),
                help: "For `https`. Which web certificate counts: `pin` (its SHA-256), or one that the `authorities` of a PEM file have signed, or else the system's; behind a firewall that inspects TLS that is the firewall's authority, and it still reads nothing. `proxy` is asked to CONNECT, with the `user:password` in the file `proxy_login`.",
            },
            Key {
                name: "address",
                default: Unset("\"203.0.113.7:7800\""),
                help: "Where to dial the peer over it, if not at the peer's address.",
            },
            Key {
                name: "bind",
                default: Unset("\"192.0.2.10\""),
                help: "Own address that its packets leave from, so that two uplinks are two.",
            },
            Key { name: "interface", default: Unset("\"wwan0\""), help: "Interface that its packets leave through." },
            Key {
                name: "rate",
                default: Unset("\"128kbit/s\""),
                help: "Ceiling for everything sent over it, all headers included, if not the peer's.",
            },
            Key {
                name: "cost",
                default: Is("0"),
                help: "What a megabyte costs, in any unit. Priority, routine, deferred and control go over the cheapest links that admit them; flash and immediate over any.",
            },
            Key {
                name: "delay_ms",
                default: Is("0"),
                help: "What its one-way delay is about, until it is measured. Urgent entries are offered to the quickest link first.",
            },
            Key {
                name: "classes",
                default: Unset("[\"flash\", \"immediate\"]"),
                help: "Classes of entries that it carries, all when absent. Control frames (greetings, receipts) pass in any case.",
            },
            Key {
                name: "dscp",
                default: Is("0"),
                help: "Differentiated services code point of its packets, 0 to 63; 46 is expedited forwarding.",
            },
            Key {
                name: "keepalive_seconds",
                default: Unset("0"),
                help: "Seconds between two signs of life while nothing else is sent. By default 100, and 150 over HTTPS: less than 200 bytes a minute in both directions together. 0: not a byte leaves on either side while there is nothing to say; then nobody notices that the peer is gone before something waits for it, and a firewall that forgets idle connections keeps the peer from reaching this node. The side that wants to hear less is obeyed.",
            },
            Key {
                name: "budget_per_day",
                default: Unset("\"20MB\""),
                help: "Bytes that may be sent over it each day (UTC), all headers included; what is left over is not carried into the next. Kept over restarts and crashes; setting the clock while the node runs opens no new one. The peer's side needs a budget of its own for what it sends.",
            },
            Key {
                name: "budget_per_month",
                default: Unset("\"400MB\""),
                help: "The same for each calendar month (UTC). With both, the smaller rest counts.",
            },
            Key {
                name: "windows",
                default: Unset("[{ cron = \"0 */3 * * *\", minutes = 12, rate = \"64kbit/s\" }]"),
                help: "When it can be used, UTC; always when absent. Each is a `cron` expression with `minutes`, or a `start` and an `end` such as \"2026-03-01T06:00:00Z\", and may have a `rate` of its own below the link's.",
            },
        ],
    },
    Section {
        name: "journal",
        shape: Shape::One,
        help: "The durable log in which everything waits for its destinations.",
        keys: &[
            Key {
                name: "limit_bytes",
                default: Is("\"4GB\""),
                help: "Above this size nothing more is accepted until destinations have caught up. 4GB is a week at 54kbit/s. Files are refused from four reserves below it on, flash last.",
            },
            Key {
                name: "reserve_bytes",
                default: Is("\"64MiB\""),
                help: "Kept for flash, receipts and trimming, of limit_bytes and as a file on the disk; at most 2 % of either (1 MiB on a small disk). 0 keeps none.",
            },
            Key {
                name: "segment_bytes",
                default: Is("\"64MiB\""),
                help: "A segment file is closed at this size, 4KiB to 1GiB. Space is freed one segment at a time.",
            },
        ],
    },
    Section {
        name: "scrub",
        shape: Shape::One,
        help: "The background verification of the journal: damage is found while a peer can still mend it.",
        keys: &[
            Key {
                name: "every_days",
                default: Is("7"),
                help: "Every sealed segment is read again within so many days, 1 to 365.",
            },
            Key {
                name: "bytes_per_second",
                default: Is("\"5MiB\""),
                help: "No more than this is read in a second, 64KiB or more.",
            },
        ],
    },
    Section {
        name: "keys",
        shape: Shape::One,
        help: "What wraps the keyring (keys/journal.keys), with whose keys the journal is sealed on disk. After a change: `holdfast keys rewrap`.",
        keys: &[
            Key {
                name: "source",
                default: Is("\"file\""),
                help: "`file` (a key file; protects what is on another medium), `credential` (systemd hands it over, from a TPM for instance) or `passphrase`.",
            },
            Key {
                name: "file",
                default: Unset("\"/media/stick/holdfast.key\""),
                help: "The key file. Without it `keys/wrapping.key` in the data directory, which whoever takes the whole disk takes too.",
            },
            Key {
                name: "credential",
                default: Is("\"holdfast.journal\""),
                help: "Name of the systemd credential (LoadCredential=, LoadCredentialEncrypted=) with 16 random bytes or more, or with the passphrase.",
            },
            Key {
                name: "passphrase_file",
                default: Unset("\"/run/holdfast/passphrase\""),
                help: "Its first line is the passphrase. Without credential and file it is asked for at the terminal.",
            },
        ],
    },
    Section {
        name: "microsoft",
        shape: Shape::Optional,
        help: "The way to Entra ID and Microsoft 365. Without this section nothing of it runs and nothing is sent there.",
        keys: &[
            Key {
                name: "tenant",
                default: Required("\"11111111-2222-3333-4444-555555555555\""),
                help: "Id of the tenant (directory id).",
            },
            Key {
                name: "client",
                default: Required("\"66666666-7777-8888-9999-000000000000\""),
                help: "Application (client) id of the registration in Entra.",
            },
            Key {
                name: "cloud",
                default: Is("\"global\""),
                help: "`global` (with GCC), `usgov-l4` (GCC High), `usgov-l5` (DoD), `china`, or `other`, for which every host below is set.",
            },
            Key {
                name: "login",
                default: Unset("\"https://login.example.ic.gov\""),
                help: "Where to sign in, in place of the cloud's. No host is derived from another.",
            },
            Key {
                name: "issuer",
                default: Unset("\"https://login.example.ic.gov\""),
                help: "Base of the issuer that tokens and the tenant's discovery name, in place of the cloud's.",
            },
            Key {
                name: "graph",
                default: Unset("\"https://graph.example.ic.gov\""),
                help: "Microsoft Graph, in place of the cloud's.",
            },
            Key {
                name: "resource",
                default: Unset("\"https://graph.example.ic.gov\""),
                help: "What a token for Graph is asked for: the scope is this and `/.default`.",
            },
            Key {
                name: "teams",
                default: Unset("\"https://teams.example.ic.gov\""),
                help: "The Teams client, for links, in place of the cloud's.",
            },
            Key {
                name: "secret_file",
                default: Unset("\"/run/credentials/holdfast/entra-secret\""),
                help: "File with the client secret. Either this or a certificate; with neither only people sign in.",
            },
            Key {
                name: "certificate_file",
                default: Unset("\"/etc/holdfast/entra.crt\""),
                help: "File with the certificate (PEM) that was uploaded to the registration. Better than a secret.",
            },
            Key {
                name: "key_file",
                default: Unset("\"/etc/holdfast/entra.key\""),
                help: "File with its RSA key (PEM).",
            },
            Key {
                name: "roots_file",
                default: Unset("\"/etc/holdfast/roots.pem\""),
                help: "Certification authorities (PEM) that are believed on this way, and no others; the operating system's when absent.",
            },
            Key {
                name: "proxy",
                default: Unset("\"http://proxy.example.org:3128\""),
                help: "HTTP proxy on the way. Proxies of the environment are not heeded.",
            },
            Key {
                name: "rate",
                default: Unset("\"256kbit/s\""),
                help: "Ceiling of what is sent to Microsoft, most urgent first; none when absent. It is not part of `carrier.rate`.",
            },
            Key {
                name: "probe_seconds",
                default: Is("60"),
                help: "Seconds between two probes while the state stays, 10 or more; about 6 KB each. Seldom while calls show the same.",
            },
            Key {
                name: "keys_stale_hours",
                default: Is("168"),
                help: "Hours for which Entra's last signing keys are believed, after their first day, while Entra is not reachable: so long the Teams tab signs people in.",
            },
        ],
    },
    Section {
        name: "microsoft.target",
        shape: Shape::List,
        help: "A destination in Microsoft 365. Nothing goes there but what its labels, teams and channels name; `holdfast m365 plan` shows what would go before anything goes.",
        keys: &[
            Key {
                name: "name",
                default: Required("\"archive\""),
                help: "Names it in its ledger, in status and metrics: 1 to 32 of a-z, 0-9 and -. Renamed, it is another target that begins anew.",
            },
            Key {
                name: "kind",
                default: Required("\"sharepoint-archive\""),
                help: "`sharepoint-archive` (files, and a record for each channel and day), `teams-delegated` (posts of one service account), `teams-digest` (one post and notices), `teams-import` (posts with their own authors and times; global cloud alone), `mail` (a letter that sums up), `mail-import` (messages in a folder of a mailbox, with their own dates).",
            },
            Key { name: "labels", default: Is("[]"), help: "Release labels that it may carry. None: nothing goes." },
            Key {
                name: "teams",
                default: Is("[]"),
                help: "Team names; `*` stands for any characters. None: nothing goes.",
            },
            Key {
                name: "channels",
                default: Is("[]"),
                help: "Channel names (as in the URL); `*` stands for any characters. Direct and group messages go to no target.",
            },
            Key {
                name: "precedences",
                default: Is("[]"),
                help: "Classes that go: flash, immediate, priority, routine, deferred. All when empty.",
            },
            Key {
                name: "required",
                default: Is("true"),
                help: "Does the journal keep what this target has not finished with?",
            },
            Key { name: "drive", default: Unset("\"b!AbC\""), help: "Id of the drive, for `sharepoint-archive`." },
            Key {
                name: "folder",
                default: Unset("\"Holdfast\""),
                help: "Folder in the drive, for `sharepoint-archive`; folder at the top of the mailbox, for `mail-import`, made where it is missing.",
            },
            Key {
                name: "team",
                default: Unset("\"77777777-2222-3333-4444-555555555555\""),
                help: "Id of the team, for the kinds that write to Teams.",
            },
            Key {
                name: "channel",
                default: Unset("\"19:abc@thread.tacv2\""),
                help: "Id of the channel, for the kinds that write to Teams.",
            },
            Key {
                name: "account",
                default: Unset("\"88888888-2222-3333-4444-555555555555\""),
                help: "Object id of the user who posts and who signed in with `holdfast m365 sign-in`: an application may not post. For `teams-import` the user to whom is attributed, with the name in the text, what people wrote whom Entra does not know; nobody signs in.",
            },
            Key {
                name: "mailbox",
                default: Unset("\"holdfast@example.org\""),
                help: "Mailbox that sends, for `mail`, or is written to, for `mail-import`. Restrict the application to it in Exchange.",
            },
            Key {
                name: "recipients",
                default: Is("[]"),
                help: "Whom it goes to: addresses for `mail`, object ids of users for the notices of `teams-digest`.",
            },
            Key {
                name: "link",
                default: Unset("\"https://teams.microsoft.com/l/entity/APP/holdfast\""),
                help: "Where a click on a notice of `teams-digest` leads: a deep link of Teams.",
            },
            Key {
                name: "gather_seconds",
                default: Is("60"),
                help: "Seconds for which changes of a record or digest are gathered before it is written; something urgent waits 2 s. With `teams-import`: before its channel is opened, however urgent.",
            },
            Key {
                name: "open_minutes",
                default: Is("30"),
                help: "Minutes for which `teams-import` keeps its channel open at most, 1 or more: while it is open nobody else can post there. A health check tells when it is open for longer.",
            },
            Key {
                name: "closed_minutes",
                default: Is("15"),
                help: "Minutes for which `teams-import` leaves its channel to people before it opens it again.",
            },
        ],
    },
    Section {
        name: "microsoft.directory",
        shape: Shape::Optional,
        help: "People and groups of Entra as accounts and members here.",
        keys: &[
            Key { name: "enabled", default: Is("false"), help: "Whether the sync runs." },
            Key {
                name: "people",
                default: Is("\"of-groups\""),
                help: "Who gets an account: `of-groups` (members of the groups below) or `all`.",
            },
            Key { name: "guests", default: Is("false"), help: "Whether people of other organisations get one." },
            Key { name: "interval_minutes", default: Is("15"), help: "Minutes between two rounds, 1 or more." },
            Key {
                name: "disabled_grace_minutes",
                default: Is("0"),
                help: "Minutes after which a sign-in that Entra blocks ends the account here.",
            },
            Key {
                name: "gone_grace_hours",
                default: Is("24"),
                help: "Hours after which somebody who was deleted, or is in no followed group any longer, loses the account.",
            },
            Key {
                name: "gone",
                default: Is("\"disable\""),
                help: "What becomes of it then: `disable` (what they wrote stays) or `keep`.",
            },
            Key {
                name: "most_at_once_percent",
                default: Is("10"),
                help: "No more than so many percent of the accounts end or lose places in a day without an operator.",
            },
            Key { name: "most_at_once_least", default: Is("5"), help: "So many may, whatever the percentage says." },
            Key {
                name: "new_at_once_least",
                default: Is("100"),
                help: "So many accounts are made in a day without an operator, or as many as there are already.",
            },
            Key {
                name: "people_kept_max",
                default: Is("200000"),
                help: "So many people are kept; where there are more, only members of followed groups and who has an account.",
            },
        ],
    },
    Section {
        name: "microsoft.directory.groups",
        shape: Shape::List,
        help: "Groups that are followed, and where they lead.",
        keys: &[
            Key {
                name: "id",
                default: Required("\"11111111-2222-3333-4444-555555555555\""),
                help: "Object id of the group.",
            },
            Key {
                name: "team",
                default: Unset("\"operations\""),
                help: "Team that its members join, by its name in URLs; without, the group only says who gets an account.",
            },
            Key {
                name: "channels",
                default: Is("[]"),
                help: "Channels of the team that they join besides its standard ones.",
            },
        ],
    },
    Section {
        name: "microsoft.app",
        shape: Shape::Optional,
        help: "The site as a tab in Teams and Outlook; needs `http.site_url` with https. `holdfast teams package` makes the app.",
        keys: &[
            Key {
                name: "library",
                default: Required("\"/usr/share/holdfast/MicrosoftTeams.min.js\""),
                help: "File `dist/umd/MicrosoftTeams.min.js` of the npm package `@microsoft/teams-js`; the node serves it itself.",
            },
            Key {
                name: "developer",
                default: Required("\"Task Force\""),
                help: "Who answers for the app, up to 32 characters.",
            },
            Key {
                name: "website",
                default: Required("\"https://example.org\""),
                help: "Page about whoever answers for it.",
            },
            Key { name: "privacy", default: Required("\"https://example.org/privacy\""), help: "Page on privacy." },
            Key {
                name: "terms",
                default: Required("\"https://example.org/terms\""),
                help: "Page with the terms of use.",
            },
            Key { name: "name", default: Is("\"Holdfast\""), help: "Name below the icon, up to 30 characters." },
            Key {
                name: "version",
                default: Is("\"1.0.0\""),
                help: "Version of the package; a changed package needs a higher one.",
            },
            Key {
                name: "id",
                default: Unset("\"77777777-8888-9999-aaaa-bbbbbbbbbbbb\""),
                help: "Id of the Teams app; without it one that belongs to the site's address.",
            },
        ],
    },
];

/// Names that may stand directly in the section `path` (empty for the top): keys and the next part of sections.
/// `None` when any name may.
pub(super) fn names_in(path: &str) -> Option<Vec<&'static str>> {
    let mut names = Vec::new();
    for section in SECTIONS {
        let Some(below) = below(section, path) else { continue };
        match below.first() {
            None => names.extend(section.keys.iter().map(|k| k.name)),
            Some(&ANY) => return None,
            Some(next) if names.contains(next) => {}
            Some(next) => names.push(next),
        }
    }
    Some(names)
}

/// Is `path` a section, or above one?
pub(super) fn is_section(path: &str) -> bool {
    SECTIONS.iter().any(|s| below(s, path).is_some())
}

/// The parts of the section's name that come after `path`; `None` when it lies elsewhere.
fn below(section: &Section, path: &str) -> Option<Vec<&'static str>> {
    let mut parts = section.name.split('.');
    let fits = path.split('.').filter(|p| !p.is_empty()).all(|p| parts.next().is_some_and(|q| q == p || q == ANY));
    fits.then(|| parts.collect())
}

/// A value chosen at `init`.
pub struct Chosen {
    /// Section it belongs to.
    pub section: &'static str,
    /// Key in it.
    pub key: &'static str,
    /// The value as TOML.
    pub value: String,
}

/// The commented file of a new node: chosen values are set, all others stand behind `#` with their default.
pub fn template(role: Role, chosen: &[Chosen]) -> String {
    let mut file = format!(
        "# Configuration of a Holdfast {}. Every key is here; those behind a # have the value shown.\n\
         # After a change: holdfast config check, then restart the node.\n",
        role.as_str()
    );
    for section in SECTIONS {
        file.push('\n');
        comment(&mut file, section.help);
        let set = |key: &Key| chosen.iter().find(|c| c.section == section.name && c.key == key.name);
        let chosen_here = section.keys.iter().any(|k| set(k).is_some());
        let _ = match section.shape {
            Shape::One => writeln!(file, "[{}]", section.name),
            Shape::List if chosen_here => writeln!(file, "[[{}]]", section.name),
            Shape::List | Shape::Named | Shape::Optional => writeln!(file, "# {}", section.header()),
        };
        for key in section.keys {
            comment(&mut file, key.help);
            let _ = match (set(key), &key.default) {
                (Some(c), _) => writeln!(file, "{} = {}", key.name, c.value),
                (None, Required(text) | Is(text) | Unset(text)) => writeln!(file, "# {} = {text}", key.name),
            };
        }
    }
    file
}

fn comment(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 100 {
            let _ = writeln!(file, "{line}");
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(file, "{line}");
}

/// docs/configuration.md.
pub fn manual() -> String {
    let mut page = String::from(MANUAL_HEAD);
    for section in SECTIONS {
        let (header, help) = (section.header(), section.help);
        let _ = write!(page, "\n## `{header}`\n\n{help}\n\n| key | when absent | meaning |\n|---|---|---|\n");
        for key in section.keys {
            let absent = match key.default {
                Required(example) => format!("required, e.g. `{example}`"),
                Is(value) => format!("`{value}`"),
                Unset(example) => format!("not set; e.g. `{example}`"),
            };
            let _ = writeln!(page, "| `{}` | {absent} | {} |", key.name, key.help);
        }
    }
    page
}

const MANUAL_HEAD: &str = "\
# Configuration

One TOML file, `holdfast.toml`, in the node's data directory (`--data DIR` or `HOLDFAST_DATA`, by default
`/var/lib/holdfast`). `holdfast init` writes it with every key. `holdfast config check` reads it as start-up does
and shows each problem with file, line and column; an unknown key is an error. A change counts from the next start.
Sizes are written as `\"64KiB\"` or `\"100MB\"`, rates as `\"256kbit/s\"`.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, parse};
    use std::path::Path;

    const NODE: &str = "[node]\nname = \"alpha\"\nrole = \"edge\"\n";

    #[test]
    fn the_manual_lists_exactly_the_keys_of_the_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
            std::fs::write(&file, manual()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), manual(), "run the tests once with HOLDFAST_UPDATE_DOCS=1");
    }

    /// The section with what it requires.
    fn required(name: &str) -> String {
        let section = SECTIONS.iter().find(|s| s.name == name).unwrap();
        let mut text = format!("{}\n", section.header());
        for key in section.keys {
            if let Required(value) = key.default {
                let _ = writeln!(text, "{} = {value}", key.name);
            }
        }
        text
    }

    /// serde names the keys that a struct has when it meets one that it has not.
    fn keys_of_struct(section: &str, header: &str) -> Vec<String> {
        let open = if section.is_empty() { String::new() } else { format!("{header}\n") };
        // Of what lies below the section [microsoft] serde speaks only once that has what it requires.
        let node = match section {
            "node" => String::new(),
            _ if section.starts_with("microsoft.") => format!("{NODE}{}", required("microsoft")),
            _ => NODE.to_owned(),
        };
        let text = match section {
            "" => "not-a-key = 1\n".to_owned(),
            _ => format!("{node}{open}not-a-key = 1\n"),
        };
        let message = toml::from_str::<Settings>(&text).unwrap_err().message().to_owned();
        let listed = message.split_once("expected").unwrap_or_else(|| panic!("[{section}]: {message}")).1;
        let mut names: Vec<String> = listed.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn every_key_of_every_settings_struct_is_documented_and_no_other() {
        let top = (String::new(), String::new());
        for (section, header) in SECTIONS.iter().map(|s| (s.name.to_owned(), s.header())).chain([top]) {
            // The names of peers are the operator's.
            let mut documented = names_in(&section).unwrap();
            documented.sort_unstable();
            assert_eq!(keys_of_struct(&section, &header.replace(ANY, "bravo")), documented, "[{section}]");
        }
    }

    #[test]
    fn the_documented_defaults_are_the_real_ones() {
        let mut spelt_out = NODE.to_owned();
        for section in SECTIONS.iter().filter(|s| s.name != "node" && s.shape == Shape::One) {
            let _ = writeln!(spelt_out, "[{}]", section.name);
            for key in section.keys {
                if let Is(value) = key.default {
                    let _ = writeln!(spelt_out, "{} = {value}", key.name);
                }
            }
        }
        let spelt_out = parse(Path::new("f"), &spelt_out).unwrap_or_else(|e| panic!("{e:#?}"));
        let absent = parse(Path::new("f"), NODE).unwrap();
        assert_eq!(format!("{spelt_out:#?}"), format!("{absent:#?}"));
    }

    #[test]
    fn the_documented_defaults_of_an_optional_section_are_the_real_ones() {
        for section in SECTIONS.iter().filter(|s| s.shape == Shape::Optional) {
            let above = if section.name == "microsoft" { String::new() } else { required("microsoft") };
            let least = format!("{NODE}{above}{}", required(section.name));
            let mut spelt_out = least.clone();
            for key in section.keys {
                if let Is(value) = key.default {
                    let _ = writeln!(spelt_out, "{} = {value}", key.name);
                }
            }
            // The files that it names are on no machine here.
            let read = |text: &str| toml::from_str::<Settings>(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(format!("{:#?}", read(&spelt_out)), format!("{:#?}", read(&least)), "[{}]", section.name);
        }
    }

    #[test]
    fn the_file_of_a_new_node_passes_its_own_check_and_holds_every_key() {
        let chosen = [
            Chosen { section: "node", key: "name", value: "\"alpha\"".to_owned() },
            Chosen { section: "node", key: "role", value: "\"edge\"".to_owned() },
        ];
        let file = template(Role::Edge, &chosen);
        parse(Path::new("f"), &file).unwrap_or_else(|e| panic!("{e:#?}\n{file}"));
        for section in SECTIONS {
            for key in section.keys {
                assert!(file.contains(&format!("{} = ", key.name)), "{}.{}", section.name, key.name);
            }
        }
        assert!(file.lines().all(|l| l.chars().count() <= 120), "{file}");
    }
}
