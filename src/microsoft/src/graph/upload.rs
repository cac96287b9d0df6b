//! Large files: a session, pieces in exact ranges, and going on where it stopped, also after a restart.
//!
//! ```text
//!  create --> upload address (a secret) --> PUT ranges, none with a token --> the file
//!     `--sealed state to the ledger          ^ lost or refused: ask which range is next
//! ```

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{BitsPerSecond, Precedence};
use serde::{Deserialize, Serialize};
use tracing::debug;
use url::Url;

use super::call::{Acting, Call, CallBody, Failure, Retry, Scope};
use super::throttle::Outcome;
use super::{Graph, refusal, retry_after};
use crate::environment::HeldBecause;
use crate::transport::{Came, Lost, Out};

/// Every piece but the last is a multiple of this, by SharePoint's rule.
pub const PIECE_UNIT_BYTES: u64 = 320 * 1024;

/// Largest piece that is sent, 10 MiB: SharePoint takes up to 60 MiB, and a lost piece is sent whole again.
const PIECE_BYTES_MAX: u64 = 32 * PIECE_UNIT_BYTES;

/// A piece is to be through in this time, where the rate is known.
const PIECE_SECONDS: u64 = 30;

/// Largest answer about an upload.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Pieces that may fail in a row, and sessions that are begun, before the caller is told.
const FAULTS_MAX: u32 = 5;
const SESSIONS_MAX: u32 = 2;

/// Where the bytes of a file come from.
pub trait UploadSource: Send + Sync {
    /// Size of the whole, in bytes; the same at each call.
    fn len(&self) -> u64;

    /// Is there nothing to upload?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` bytes from `offset` on.
    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, io::Result<Bytes>>;
}

impl UploadSource for Bytes {
    fn len(&self) -> u64 {
        Bytes::len(self) as u64
    }

    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, io::Result<Bytes>> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(offset + len).ok());
        let part = range.filter(|(_, end)| *end <= Bytes::len(self)).map(|(start, end)| self.slice(start..end));
        Box::pin(async move { part.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof)) })
    }
}

/// What is to be uploaded.
#[derive(Clone, Debug)]
pub struct UploadPlan {
    /// The `POST .../createUploadSession` that begins it.
    pub create: Call,
    /// A session that was begun before, from the ledger.
    pub resume: Option<UploadState>,
}

/// A session that was begun: its address is a secret, so it is sealed. Goes into the ledger and back.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadState(pub Vec<u8>);

impl std::fmt::Debug for UploadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UploadState({} sealed bytes)", self.0.len())
    }
}

/// How far an upload is.
#[derive(Debug)]
pub struct UploadProgress<'a> {
    /// To be made durable before this returns: with it a restart goes on.
    pub state: &'a UploadState,
    /// Bytes that the other side holds, from the beginning on.
    pub stored_bytes: u64,
}

/// A file in a drive, as far as it is used here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveItem {
    /// Id within its drive.
    pub id: String,
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Size in bytes.
    #[serde(default)]
    pub size: u64,
    /// `"{GUID},n"`; the GUID is what an attachment of a Teams message refers to.
    pub e_tag: Option<String>,
    /// Where people open it.
    pub web_url: Option<String>,
    /// Facts of a file; none for a folder.
    pub file: Option<FileFacts>,
}

/// Facts of a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFacts {
    /// Hashes of its content.
    #[serde(default)]
    pub hashes: FileHashes,
}

/// Hashes of a file's content.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileHashes {
    /// Base64; what SharePoint and OneDrive for Business give.
    pub quick_xor_hash: Option<String>,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Session {
    url: Url,
    total: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    upload_url: Url,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    next_expected_ranges: Vec<String>,
}

/// What the other side wants next.
enum Next {
    /// From here on; up to and without the second, if it names one.
    Range(u64, Option<u64>),
    /// The session is gone: it ended, expired, or all of it was taken.
    Gone,
    /// The file is there.
    Done(Box<DriveItem>),
}

impl Graph {
    /// Uploads a file, from where a former session stopped if there is one. `progress` is called with the sealed state before
    /// the first byte of a session and after each piece; what it keeps survives a restart.
    ///
    /// Cancel-safe: the next call goes on from the last state.
    ///
    /// # Errors
    /// [`Failure::Held`] and [`Failure::Throttled`]: the session stands, go on later with its state. [`Failure::Unknown`]: the
    /// session has ended and the file may be there: its hash tells; if it is not, begin without the state.
    pub async fn upload(
        &self,
        plan: UploadPlan,
        source: impl UploadSource,
        mut progress: impl FnMut(UploadProgress<'_>) -> io::Result<()> + Send,
    ) -> Result<DriveItem, Failure> {
        let total = source.len();
        if source.is_empty() {
            return Err(Failure::Broken("an empty file has no session; it is put at once".to_owned()));
        }
        let former = plan.resume.as_ref().and_then(|state| self.unseal(state)).filter(|s| s.total == total);
        let mut session = former;
        for _ in 0..SESSIONS_MAX {
            let resumed = session.is_some();
            let current = match session.take() {
                Some(session) => session,
                None => self.create(&plan.create, total).await?,
            };
            let state = self.seal(&current);
            let keep = |stored_bytes: u64, progress: &mut (dyn FnMut(UploadProgress<'_>) -> io::Result<()> + Send)| {
                progress(UploadProgress { state: &state, stored_bytes })
                    .map_err(|e| Failure::Held(HeldBecause::Unreachable(format!("the state could not be kept: {e}"))))
            };
            keep(0, &mut progress)?;
            let mut all_sent = false;
            let mut faults = 0;
            let mut next = if resumed { self.expected(&plan.create, &current).await? } else { Next::Range(0, None) };
            loop {
                match next {
                    Next::Done(item) => return Ok(*item),
                    // Of a session that was begun before nobody knows here how far it came.
                    Next::Gone if all_sent || resumed => {
                        let why = "the upload session has ended, with the last piece or by its age";
                        return Err(Failure::Unknown(why.to_owned()));
                    }
                    Next::Gone => break,
                    Next::Range(start, end) => {
                        if start >= total {
                            return Err(Failure::Broken(format!("byte {start} of {total} is asked for")));
                        }
                        keep(start, &mut progress)?;
                        let len = piece(self.settings().rate).min(end.unwrap_or(total).min(total) - start);
                        let bytes = source.read(start, len).await.map_err(|e| {
                            Failure::Held(HeldBecause::Unreachable(format!("the file could not be read: {e}")))
                        })?;
                        let last = start + len == total;
                        all_sent |= last;
                        let taken = self.put(&plan.create, &current, start, bytes).await?;
                        // The same range asked for once more is no progress either.
                        let moved =
                            taken.as_ref().is_some_and(|next| !matches!(next, Next::Range(to, _) if *to <= start));
                        faults = if moved { 0 } else { faults + 1 };
                        if faults >= FAULTS_MAX {
                            let why = "pieces of the file are lost again and again".to_owned();
                            return Err(Failure::Held(HeldBecause::Unreachable(why)));
                        }
                        next = match taken {
                            Some(next) => next,
                            None => self.expected(&plan.create, &current).await?,
                        };
                    }
                }
            }
        }
        Err(Failure::Broken(format!("{SESSIONS_MAX} upload sessions ended before the file was taken")))
    }

    async fn create(&self, create: &Call, total: u64) -> Result<Session, Failure> {
        // A session nobody uses ends by itself, so asking twice does no harm.
        let answer = self.call(Call { retry: Retry::Safe, ..create.clone() }).await?;
        let Created { upload_url: url } = answer.json()?;
        if url.scheme() != "https" {
            return Err(Failure::Broken("the upload address is not https".to_owned()));
        }
        Ok(Session { url, total })
    }

    /// Sends one piece. `None`: whether it arrived is not known, or it was refused for now.
    async fn put(&self, create: &Call, session: &Session, start: u64, bytes: Bytes) -> Result<Option<Next>, Failure> {
        let range = format!("bytes {start}-{}/{}", start + bytes.len() as u64 - 1, session.total);
        let place = self.turn(&pacing(create, Method::PUT), true).await?;
        let sent = self.anonymous(Method::PUT, session, Some((range, bytes)), create.precedence).await;
        let came = match sent {
            Ok(came) => came,
            Err(Lost::NotSent(held)) => return Err(Failure::Held(held)),
            Err(Lost::Unknown(why)) => {
                debug!(why, "a piece of an upload got no answer");
                return Ok(None);
            }
            Err(Lost::TooLarge(_)) => return Err(Failure::Broken("the answer to a piece is too large".to_owned())),
        };
        let wait = retry_after(&came.headers, self.0.environment.clock.now());
        let jitter = self.0.environment.fraction();
        match came.status.as_u16() {
            429 | 509 => {
                let until = place.done(self.now(), Outcome::TooFast { retry_after: wait, jitter });
                self.soon(until).map(|()| None)
            }
            500 | 502..=504 => {
                let until = place.done(self.now(), Outcome::Ailing { retry_after: wait, jitter });
                if came.status == StatusCode::SERVICE_UNAVAILABLE {
                    self.0.transport.leave_connections();
                }
                self.soon(until).map(|()| None)
            }
            _ => {
                place.done(self.now(), Outcome::Answered);
                answered(came, wait)
            }
        }
    }

    /// Asks which range is next.
    async fn expected(&self, create: &Call, session: &Session) -> Result<Next, Failure> {
        for _ in 0..FAULTS_MAX {
            let place = self.turn(&pacing(create, Method::GET), true).await?;
            let came =
                self.anonymous(Method::GET, session, None, create.precedence).await.map_err(|lost| match lost {
                    Lost::NotSent(held) => Failure::Held(held),
                    Lost::Unknown(why) => Failure::Held(HeldBecause::Unreachable(why)),
                    Lost::TooLarge(_) => Failure::Broken("the answer about an upload is too large".to_owned()),
                })?;
            let wait = retry_after(&came.headers, self.0.environment.clock.now());
            if came.status.as_u16() == 429 || came.status.is_server_error() {
                let jitter = self.0.environment.fraction();
                self.soon(place.done(self.now(), Outcome::Ailing { retry_after: wait, jitter }))?;
                continue;
            }
            place.done(self.now(), Outcome::Answered);
            let next = answered(came, wait)?;
            return next.ok_or_else(|| Failure::Broken("the other side does not say which range is next".to_owned()));
        }
        let why = "the other side does not say how far the file is".to_owned();
        Err(Failure::Held(HeldBecause::Unreachable(why)))
    }

    /// Is a pause short enough to be waited for here?
    fn soon(&self, until: Option<Duration>) -> Result<(), Failure> {
        match until {
            Some(until) if until > self.now() + super::WAIT_INSIDE_MAX => {
                Err(Failure::Throttled { until: self.wall(until) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A request to an upload address: never with a token.
    async fn anonymous(
        &self,
        method: Method,
        session: &Session,
        piece: Option<(String, Bytes)>,
        precedence: Precedence,
    ) -> Result<Came, Lost> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let body = piece.map(|(range, bytes)| {
            headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("digits are a header value"));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            bytes
        });
        let url = session.url.clone();
        self.0.transport.send(Out { method, url, headers, body, precedence, answer_bytes_max: ANSWER_BYTES_MAX }).await
    }

    fn seal(&self, session: &Session) -> UploadState {
        let plain = serde_json::to_vec(session).expect("an address and a number become JSON");
        UploadState(self.0.environment.vault.seal(&plain))
    }

    fn unseal(&self, state: &UploadState) -> Option<Session> {
        serde_json::from_slice(&self.0.environment.vault.open(&state.0)?.0).ok()
    }
}

/// What counts against the limits for a request about an upload.
fn pacing(create: &Call, method: Method) -> Call {
    let Call { scope, precedence, .. } = create;
    let (path, headers, body) = (String::new(), Vec::new(), CallBody::None);
    let (scope, precedence): (Scope, Precedence) = (scope.clone(), *precedence);
    Call { method, path, headers, body, acting: Acting::App, scope, precedence, retry: Retry::Safe }
}

/// Size of a piece at this rate.
fn piece(rate: Option<BitsPerSecond>) -> u64 {
    let in_time = rate.map_or(PIECE_BYTES_MAX, |rate| rate.bytes_in_millis(PIECE_SECONDS * 1000));
    (in_time / PIECE_UNIT_BYTES * PIECE_UNIT_BYTES).clamp(PIECE_UNIT_BYTES, PIECE_BYTES_MAX)
}

/// What an answer about an upload says. `None`: the range was not the next one.
fn answered(came: Came, wait: Option<Duration>) -> Result<Option<Next>, Failure> {
    let broken = |e: serde_json::Error| Failure::Broken(format!("the answer about an upload: {e}"));
    match came.status.as_u16() {
        202 => range(&came.body).map(Some),
        // The state of a session, or the finished file.
        200 | 201 => match serde_json::from_slice::<Expected>(&came.body) {
            Ok(_) => range(&came.body).map(Some),
            Err(_) => serde_json::from_slice(&came.body).map(|item| Some(Next::Done(Box::new(item)))).map_err(broken),
        },
        404 | 410 => Ok(Some(Next::Gone)),
        416 => Ok(None),
        _ => Err(Failure::Refused(refusal(came, "none", wait))),
    }
}

fn range(body: &[u8]) -> Result<Next, Failure> {
    let wrong = || Failure::Broken("the answer about an upload names no range".to_owned());
    let expected: Expected = serde_json::from_slice(body).map_err(|_| wrong())?;
    let mut ranges = expected.next_expected_ranges.iter().map(|text| {
        let (start, end) = text.split_once('-')?;
        // Ends are inclusive, as in Content-Range.
        let end = if end.is_empty() { None } else { Some(end.parse::<u64>().ok()?.checked_add(1)?) };
        Some((start.parse::<u64>().ok()?, end))
    });
    // They may come in any order; the lowest is the one that is taken.
    let all: Option<Vec<_>> = ranges.by_ref().collect();
    let (start, end) = all.ok_or_else(wrong)?.into_iter().min().ok_or_else(wrong)?;
    match end {
        Some(end) if end <= start => Err(wrong()),
        Some(_) | None => Ok(Next::Range(start, end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_multiples_of_320_kib_that_fit_the_rate() {
        for (rate, bytes) in [
            (None, PIECE_BYTES_MAX),
            (Some(BitsPerSecond(9_600)), PIECE_UNIT_BYTES),
            (Some(BitsPerSecond(256_000)), 2 * PIECE_UNIT_BYTES),
            (Some(BitsPerSecond(1_000_000_000)), PIECE_BYTES_MAX),
        ] {
            assert_eq!(piece(rate), bytes, "{rate:?}");
            assert_eq!(piece(rate) % PIECE_UNIT_BYTES, 0);
        }
    }

    #[test]
    fn the_lowest_of_several_missing_ranges_is_next() {
        let next = |text: &str| range(format!(r#"{{"nextExpectedRanges":[{text}]}}"#).as_bytes());
        assert!(matches!(next(r#""655360-","0-327679""#), Ok(Next::Range(0, Some(327_680)))));
        assert!(matches!(next(r#""327680-""#), Ok(Next::Range(327_680, None))));
        for bad in ["", r#""x-""#, r#""5""#, r#""9-3""#, r#""-""#] {
            assert!(next(bad).is_err(), "{bad}");
        }
    }
}
