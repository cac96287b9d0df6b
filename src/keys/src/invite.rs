//! Enrolment tokens: one secret admits one node, once.
//!
//! ```text
//!  token    hf1.<base32 of the payload, lower case, no padding>
//!  payload  secret[16] | hub NodeId[16] | expiry u64 BE (ms) | name len u8 | name | address len u8 | address | check[4]
//!  check    first 4 bytes of BLAKE3 over all before it, so that a mistyped character is told from a wrong token
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use model::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::file::{read_private, write_private};
use crate::{KeysError, PeerName};

const FILE: &str = "invites.json";
const FORMAT: &str = "holdfast-invites/1";
const PREFIX: &str = "hf1.";
/// Longest `host:port`: a DNS name has at most 253 characters, but a length byte must hold it.
const ADDRESS_LEN_MAX: usize = 255;
/// Longest token text accepted; the longest possible payload (333 bytes) gives 537 characters.
const TOKEN_LEN_MAX: usize = 1024;
/// Expired invites are shown this long, so that "expired" is answered rather than "unknown".
const KEEP_EXPIRED_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// An invitation, as the token's text carries it to the edge.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Name under which the hub will know the edge.
    pub name: PeerName,
    /// The hub that issued it: the edge talks to nobody else.
    pub hub: NodeId,
    /// Where the hub listens, as `host:port`.
    pub address: String,
    /// Not valid after this, by the hub's clock.
    pub expires_at: UnixMillis,
    secret: Secret,
}

#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
struct Secret([u8; 16]);

/// Text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not start with `hf1.`.
    #[error("this is no enrolment token: it should start with `hf1.`")]
    NotAToken,
    /// A character is missing, added or wrong.
    #[error("the enrolment token was not copied correctly: its checksum does not fit")]
    Mistyped,
}

impl TokenError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NotAToken => "get a token at the hub with `holdfast enroll invite NAME`",
            Self::Mistyped => "copy the whole token again, from `hf1.` to its last character",
        }
    }
}

impl Invite {
    /// The secret, for sending it to the hub through the secure channel.
    pub fn expose_secret(&self) -> &[u8; 16] {
        &self.secret.0
    }

    /// The token to hand to the edge's operator. Whoever has it can enrol, so treat it as a password.
    pub fn to_token(&self) -> Zeroizing<String> {
        let mut payload = Zeroizing::new(Vec::with_capacity(TOKEN_LEN_MAX));
        payload.extend_from_slice(&self.secret.0);
        payload.extend_from_slice(&self.hub.0);
        payload.extend_from_slice(&self.expires_at.0.to_be_bytes());
        for text in [self.name.as_str(), &self.address] {
            payload.push(u8::try_from(text.len()).expect("names and addresses are checked where an invite is made"));
            payload.extend_from_slice(text.as_bytes());
        }
        let check = blake3::hash(&payload);
        payload.extend_from_slice(&check.as_bytes()[..4]);
        let text = Zeroizing::new(BASE32_NOPAD.encode(&payload));
        Zeroizing::new(format!("{PREFIX}{}", text.to_ascii_lowercase()))
    }
}

impl FromStr for Invite {
    type Err = TokenError;

    fn from_str(s: &str) -> Result<Self, TokenError> {
        let s = Zeroizing::new(s.trim().to_ascii_lowercase());
        let text = s.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        if text.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Mistyped);
        }
        let upper = Zeroizing::new(text.to_ascii_uppercase());
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| TokenError::Mistyped)?);
        let (payload, check) = bytes.split_last_chunk::<4>().ok_or(TokenError::Mistyped)?;
        if blake3::hash(payload).as_bytes()[..4] != check[..] {
            return Err(TokenError::Mistyped);
        }
        Self::parse(payload).ok_or(TokenError::Mistyped)
    }
}

impl Invite {
    fn parse(payload: &[u8]) -> Option<Self> {
        let (secret, rest) = payload.split_first_chunk::<16>()?;
        let (hub, rest) = rest.split_first_chunk::<16>()?;
        let (expiry, rest) = rest.split_first_chunk::<8>()?;
        let text = |rest: &[u8]| -> Option<(String, usize)> {
            let len = usize::from(*rest.first()?);
            Some((String::from_utf8(rest.get(1..=len)?.to_vec()).ok()?, len + 1))
        };
        let (name, used) = text(rest)?;
        let (address, used_too) = text(&rest[used..])?;
        if used + used_too != rest.len() {
            return None;
        }
        Some(Self {
            name: name.parse().ok()?,
            hub: NodeId(*hub),
            address,
            expires_at: UnixMillis(i64::from_be_bytes(*expiry)),
            secret: Secret(*secret),
        })
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite(for {} to {})", self.name, self.hub)
    }
}

/// Why the hub does not admit a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefused {
    /// The hub never issued it, or has forgotten it.
    #[error("this hub does not know the enrolment token")]
    Unknown,
    /// Too late.
    #[error("the enrolment token for `{name}` has expired")]
    Expired {
        /// Whom it was for.
        name: PeerName,
    },
    /// Another node was quicker.
    #[error("the enrolment token for `{name}` was already used by another node, {by}")]
    UsedByAnother {
        /// Whom it was for.
        name: PeerName,
        /// Who used it.
        by: NodeId,
    },
    /// The token is meant for a node of another name.
    #[error("the enrolment token is for `{invited}`, but this node is called `{asked}`")]
    OtherName {
        /// Whom it is for.
        invited: PeerName,
        /// Who asked.
        asked: PeerName,
    },
    /// The hub could not make the admission durable.
    #[error("the hub could not record the enrolment")]
    NotRecorded(#[source] KeysError),
}

impl JoinRefused {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Unknown => {
                "check that the token belongs to this hub; get a new one there with `holdfast enroll invite NAME`"
            }
            Self::Expired { .. } => "get a new token at the hub with `holdfast enroll invite NAME`",
            Self::UsedByAnother { .. } => {
                "if that node is not yours, remove it at the hub with `holdfast enroll remove NAME` and tell your \
                 security officer; then get a new token"
            }
            Self::OtherName { .. } => "set node.name to the invited name, or get a token for this name",
            Self::NotRecorded(_) => "check the hub's disk, then run the enrolment again with the same token",
        }
    }
}

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteState {
    /// Waiting for its node.
    Open,
    /// A node has enrolled with it.
    Used {
        /// Which node.
        node: NodeId,
        /// When.
        at: UnixMillis,
    },
}

/// What the hub knows of an invitation; the secret is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InviteSummary {
    /// Whom it is for.
    pub name: PeerName,
    /// Not valid after this.
    pub expires_at: UnixMillis,
    /// Where it stands.
    pub state: InviteState,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: PeerName,
    secret_hash: String,
    expires_at: UnixMillis,
    state: InviteState,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    format: String,
    invites: Vec<Stored>,
}

/// The hub's invitations, in `keys/invites.json`. Every change is durable before the call returns.
pub struct InviteBook {
    path: PathBuf,
    invites: Mutex<Vec<Stored>>,
}

impl InviteBook {
    /// Reads the invitations of the key directory `dir`; none yet is an empty book.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(FILE);
        let mut invites = Vec::new();
        if let Some(bytes) = read_private(&path)? {
            let damaged = |why: String| KeysError::Damaged { path: path.clone(), why };
            let book: Book = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
            if book.format != FORMAT {
                return Err(damaged(format!("its format is `{}`, not `{FORMAT}`", book.format)));
            }
            invites = book.invites;
        }
        Ok(Self { path, invites: Mutex::new(invites) })
    }

    /// Makes an invitation for `name`, valid for `valid_ms`. An older open one for that name is withdrawn.
    ///
    /// # Errors
    /// When it cannot be recorded; no token is valid then.
    ///
    /// # Panics
    /// When `address` is longer than 255 bytes.
    pub fn create(
        &self,
        name: PeerName,
        hub: NodeId,
        address: &str,
        now: UnixMillis,
        valid_ms: i64,
    ) -> Result<Invite, KeysError> {
        assert!(address.len() <= ADDRESS_LEN_MAX, "an address has at most {ADDRESS_LEN_MAX} bytes");
        let mut secret = Secret([0u8; 16]);
        getrandom::fill(&mut secret.0).expect("the operating system gives random bytes once it has booted");
        let expires_at = UnixMillis(now.0.saturating_add(valid_ms));
        let mut invites = self.lock();
        let mut changed = invites.clone();
        changed.retain(|i| {
            let withdrawn = i.name == name && i.state == InviteState::Open;
            !withdrawn && i.expires_at.0.saturating_add(KEEP_EXPIRED_MS) > now.0
        });
        let secret_hash = HEXLOWER.encode(&hash_of(&secret.0));
        changed.push(Stored { name: name.clone(), secret_hash, expires_at, state: InviteState::Open });
        self.write(&changed)?;
        *invites = changed;
        Ok(Invite { name, hub, address: address.to_owned(), expires_at, secret })
    }

    /// Admits `node` with the secret of an invitation, once; the same node may repeat it, since answers get lost.
    ///
    /// # Errors
    /// The reason why the node is not admitted; nothing was changed then.
    pub fn redeem(
        &self,
        secret: &[u8; 16],
        node: NodeId,
        asked: &PeerName,
        now: UnixMillis,
    ) -> Result<PeerName, JoinRefused> {
        let mut invites = self.lock();
        let wanted = HEXLOWER.encode(&hash_of(secret));
        // All are compared, each in constant time, so that timing tells nothing about which came close.
        let mut found = None;
        for (at, invite) in invites.iter().enumerate() {
            if bool::from(invite.secret_hash.as_bytes().ct_eq(wanted.as_bytes())) {
                found = Some(at);
            }
        }
        let at = found.ok_or(JoinRefused::Unknown)?;
        let name = invites[at].name.clone();
        match invites[at].state {
            InviteState::Used { node: by, .. } if by == node => return Ok(name),
            InviteState::Used { node: by, .. } => return Err(JoinRefused::UsedByAnother { name, by }),
            InviteState::Open => {}
        }
        if now > invites[at].expires_at {
            return Err(JoinRefused::Expired { name });
        }
        if name != *asked {
            return Err(JoinRefused::OtherName { invited: name, asked: asked.clone() });
        }
        let mut changed = invites.clone();
        changed[at].state = InviteState::Used { node, at: now };
        self.write(&changed).map_err(JoinRefused::NotRecorded)?;
        *invites = changed;
        Ok(name)
    }

    /// Withdraws the open invitation for `name`. Returns whether there was one.
    ///
    /// # Errors
    /// When it cannot be recorded; the invitation then stands.
    pub fn withdraw(&self, name: &PeerName) -> Result<bool, KeysError> {
        let mut invites = self.lock();
        let mut changed = invites.clone();
        changed.retain(|i| i.name != *name || i.state != InviteState::Open);
        let withdrawn = changed.len() < invites.len();
        if withdrawn {
            self.write(&changed)?;
            *invites = changed;
        }
        Ok(withdrawn)
    }

    /// Every invitation, oldest first.
    pub fn list(&self) -> Vec<InviteSummary> {
        let summary = |i: &Stored| InviteSummary { name: i.name.clone(), expires_at: i.expires_at, state: i.state };
        self.lock().iter().map(summary).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stored>> {
        self.invites.lock().expect("nothing panics while holding the invitations")
    }

    fn write(&self, invites: &[Stored]) -> Result<(), KeysError> {
        let book = Book { format: FORMAT.to_owned(), invites: invites.to_vec() };
        write_private(&self.path, &serde_json::to_vec_pretty(&book).expect("invitations have a JSON form"))
    }
}

impl fmt::Debug for InviteBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteBook").field("path", &self.path).finish_non_exhaustive()
    }
}

fn hash_of(secret: &[u8; 16]) -> [u8; 32] {
    blake3::derive_key("holdfast invite v1", secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const HOUR: i64 = 3_600_000;
    const ALPHA: NodeId = NodeId([1; 16]);
    const BRAVO: NodeId = NodeId([2; 16]);
    const HUB: NodeId = NodeId([9; 16]);

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    fn book() -> (tempfile::TempDir, InviteBook, Invite) {
        let dir = tempfile::tempdir().unwrap();
        let book = InviteBook::open(dir.path()).unwrap();
        let invite = book.create(name("alpha"), HUB, "hub.example:7800", NOW, HOUR).unwrap();
        (dir, book, invite)
    }

    #[test]
    fn a_token_carries_all_that_the_edge_needs() {
        let (_dir, _book, invite) = book();
        let token = invite.to_token();
        assert_eq!(token.parse::<Invite>(), Ok(invite.clone()));
        assert_eq!(
            format!(" {}\n", token.to_uppercase()).parse::<Invite>(),
            Ok(invite),
            "case and blanks do not matter"
        );
    }

    #[test]
    fn every_mistyped_character_is_told_from_a_wrong_token() {
        let (_dir, _book, invite) = book();
        let token = invite.to_token();
        for at in PREFIX.len()..token.len() {
            let mut wrong = token.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(wrong.parse::<Invite>(), Err(TokenError::Mistyped), "character {at}");
        }
        assert_eq!(token[..token.len() - 1].parse::<Invite>(), Err(TokenError::Mistyped));
        assert_eq!("password".parse::<Invite>(), Err(TokenError::NotAToken));
    }

    #[test]
    fn a_token_admits_one_node_and_that_node_may_ask_again_even_late() {
        let (dir, book, invite) = book();
        let secret = invite.expose_secret();
        assert_eq!(book.redeem(secret, ALPHA, &name("alpha"), NOW).unwrap(), name("alpha"));
        let book = InviteBook::open(dir.path()).unwrap();
        let late = UnixMillis(NOW.0 + 2 * HOUR);
        assert_eq!(book.redeem(secret, ALPHA, &name("alpha"), late).unwrap(), name("alpha"));
        let refused = book.redeem(secret, BRAVO, &name("alpha"), NOW).unwrap_err();
        assert!(matches!(refused, JoinRefused::UsedByAnother { by: ALPHA, .. }), "{refused}");
    }

    #[test]
    fn wrong_expired_withdrawn_and_misdirected_tokens_are_refused_each_with_its_reason() {
        let (_dir, book, invite) = book();
        let secret = invite.expose_secret();
        assert!(matches!(book.redeem(&[0; 16], ALPHA, &name("alpha"), NOW), Err(JoinRefused::Unknown)));
        let refused = book.redeem(secret, ALPHA, &name("bravo"), NOW).unwrap_err();
        assert!(matches!(refused, JoinRefused::OtherName { .. }), "{refused}");
        let late = UnixMillis(NOW.0 + HOUR + 1);
        assert!(matches!(book.redeem(secret, ALPHA, &name("alpha"), late), Err(JoinRefused::Expired { .. })));
        assert!(book.withdraw(&name("alpha")).unwrap());
        assert!(matches!(book.redeem(secret, ALPHA, &name("alpha"), NOW), Err(JoinRefused::Unknown)));
    }

    #[test]
    fn the_secret_lies_on_disk_as_a_hash_only() {
        let (dir, _book, invite) = book();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!text.contains(&HEXLOWER.encode(invite.expose_secret())));
        assert!(!format!("{invite:?}").contains(&HEXLOWER.encode(invite.expose_secret())));
    }

    #[test]
    fn a_second_invitation_for_a_name_replaces_the_first() {
        let (_dir, book, first) = book();
        book.create(name("alpha"), HUB, "hub.example:7800", NOW, HOUR).unwrap();
        assert_eq!(book.list().len(), 1);
        assert!(matches!(book.redeem(first.expose_secret(), ALPHA, &name("alpha"), NOW), Err(JoinRefused::Unknown)));
    }

    proptest! {
        #[test]
        fn hostile_token_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Invite::parse(&bytes);
            let _ = String::from_utf8_lossy(&bytes).parse::<Invite>();
            let _ = format!("hf1.{}", BASE32_NOPAD.encode(&bytes)).parse::<Invite>();
        }
    }
}
