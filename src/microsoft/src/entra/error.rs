//! What Entra ID refuses with, and what is to be done about it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use Advice::{AskAPerson, FixConfiguration, Retry};

/// Who can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advice {
    /// Time: it is tried again by itself.
    Retry,
    /// A person has to sign in, consent or unlock an account.
    AskAPerson,
    /// The registration, the secret, the certificate or the configuration of this node is wrong.
    FixConfiguration,
}

impl Advice {
    /// Name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::AskAPerson => "ask-a-person",
            Self::FixConfiguration => "fix-configuration",
        }
    }
}

/// A refusal by Entra ID. Nothing was sent to Graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntraError {
    /// Who can help.
    pub advice: Advice,
    /// `error` of the answer, e.g. `invalid_grant`.
    pub error: String,
    /// First of `error_codes`: the number behind `AADSTS`.
    pub code: Option<u32>,
    /// What it means and what to do, from the table; Entra's own words where the table has no row.
    pub text: String,
    /// `suberror`, e.g. `bad_token`.
    pub suberror: Option<String>,
    /// Claims that a new sign-in has to ask for.
    pub claims: Option<String>,
    /// What Microsoft's support asks for.
    pub correlation_id: Option<String>,
    /// Asked to wait for so long.
    pub retry_after: Option<Duration>,
    /// The refresh token that was used is worth nothing any more.
    pub forget_refresh_token: bool,
    /// By how many seconds Entra's clock is ahead, where that may be the cause.
    pub clock_ahead_seconds: Option<i64>,
}

impl fmt::Display for EntraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "Entra ID refused with AADSTS{code} ({}): {}", self.error, self.text)?,
            None => write!(f, "Entra ID refused with {}: {}", self.error, self.text)?,
        }
        if let Some(ahead) = self.clock_ahead_seconds {
            let side = if ahead > 0 { "behind" } else { "ahead of" };
            write!(f, "; this node's clock is {} s {side} Entra's: set it first", ahead.abs())?;
        }
        Ok(())
    }
}

impl std::error::Error for EntraError {}

/// Body of a refusal, RFC 6749 section 5.2 with Entra's additions.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) error_description: String,
    #[serde(default)]
    pub(crate) error_codes: Vec<u32>,
    pub(crate) suberror: Option<String>,
    pub(crate) claims: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

impl ErrorBody {
    /// What the refusal means. `clock_ahead_seconds`: by how much the other side's clock was ahead in this answer.
    pub(crate) fn judge(
        self,
        status: u16,
        retry_after: Option<Duration>,
        clock_ahead_seconds: Option<i64>,
    ) -> EntraError {
        let code = self.error_codes.first().copied().or_else(|| code_in(&self.error_description));
        let row = code.and_then(row_of);
        let (advice, text, fate) = match row {
            Some(row) => (row.advice, row.text.to_owned(), row.fate),
            None => (advice_of(&self.error, status), first_line(&self.error_description), Fate::Keep),
        };
        // A transient status outranks a table that knows only what the code usually means.
        let advice = if status == 429 || status >= 500 { Advice::Retry } else { advice };
        let skewed = clock_ahead_seconds.filter(|s| s.abs() > 300);
        let clock = skewed.filter(|_| code.is_some_and(|code| CLOCK_CODES.contains(&code)));
        EntraError {
            advice,
            error: if self.error.is_empty() { format!("HTTP {status}") } else { self.error },
            code,
            text,
            suberror: self.suberror,
            claims: self.claims,
            correlation_id: self.correlation_id,
            retry_after,
            forget_refresh_token: advice == Advice::AskAPerson && fate == Fate::Forget,
            clock_ahead_seconds: clock,
        }
    }
}

/// Refusals behind which a wrong clock may stand.
const CLOCK_CODES: [u32; 4] = [700024, 500133, 80013, 700027];

/// What becomes of the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Forget,
}

struct Row {
    codes: &'static [u32],
    advice: Advice,
    fate: Fate,
    text: &'static str,
}

const fn row(codes: &'static [u32], advice: Advice, text: &'static str) -> Row {
    Row { codes, advice, fate: Fate::Keep, text }
}

const fn ended(codes: &'static [u32], text: &'static str) -> Row {
    Row { codes, advice: Advice::AskAPerson, fate: Fate::Forget, text }
}

/// Microsoft's "Microsoft Entra authentication and authorization error codes", by what a program can do about them.
const TABLE: &[Row] = &[
    row(&[50034, 50020, 51004, 90072], AskAPerson, "the account is not in this tenant; sign in with one that is"),
    row(&[50055, 50144], AskAPerson, "the password has expired; its owner has to change it"),
    row(&[50057], AskAPerson, "the account is disabled"),
    row(&[50053], AskAPerson, "the account is locked after too many attempts; wait or have it unlocked"),
    row(&[50056, 50126], AskAPerson, "the name or the password is wrong"),
    row(&[50058], AskAPerson, "nobody is signed in; sign in"),
    row(
        &[50072, 50074, 50076, 50078, 50079, 50097, 50158, 700020],
        AskAPerson,
        "a second factor or a known device is asked for; sign in interactively",
    ),
    row(
        &[53000, 53001, 53002, 53003, 53004, 53011, 530032, 530035, 50131],
        AskAPerson,
        "Conditional Access or security defaults forbid this way of signing in; use another way or have the policy changed",
    ),
    row(&[50105], AskAPerson, "the account is not assigned to the application; an administrator has to assign it"),
    ended(
        &[50173, 50133, 50089, 70008, 700082, 70043, 700081],
        "the sign-in was revoked or has expired; its owner has to sign in again",
    ),
    ended(&[700084], "the sign-in of a browser lasts 24 hours and has expired; sign in again"),
    row(
        &[65001, 65004, 650056, 650057, 90094, 90008],
        AskAPerson,
        "consent is missing; an administrator has to consent to the application's permissions",
    ),
    row(
        &[700016, 70001, 7000112, 90002, 500011, 650052],
        FixConfiguration,
        "the application, the tenant or the resource is not known or disabled; check microsoft.tenant, client and resource",
    ),
    row(
        &[90038, 50049, 900432],
        FixConfiguration,
        "the tenant is in another cloud; check microsoft.cloud and the hosts",
    ),
    row(
        &[70002, 7000215, 7000218, 7000222],
        FixConfiguration,
        "the client secret is wrong, missing or expired; make a new one and put it into microsoft.secret_file",
    ),
    row(
        &[700025, 700027, 700030, 50012, 50048],
        FixConfiguration,
        "the certificate does not fit the registration; upload the one of microsoft.certificate_file in Entra",
    ),
    row(&[700024], FixConfiguration, "the assertion is outside its time; check this node's clock"),
    row(
        &[70011, 28002, 28003, 700022, 700023, 1002012],
        FixConfiguration,
        "the scope is not valid; check microsoft.resource",
    ),
    row(
        &[50011, 501481, 700005, 50194],
        FixConfiguration,
        "the registration does not fit this sign-in; check its redirect addresses and that it is of this tenant only",
    ),
    row(&[54005], AskAPerson, "the code was used already; sign in again"),
    row(&[70016], Retry, "nobody has entered the code yet"),
    row(&[70018, 70019, 90120], AskAPerson, "the code is wrong, used or has expired; begin again"),
    row(
        &[50013, 500133, 240002],
        AskAPerson,
        "the token of the Teams tab is not valid or has expired; open the tab again",
    ),
    row(&[7000114], FixConfiguration, "the application may not act on behalf of people; check its registration"),
    row(&[50196], Retry, "too many requests in a row; no token is asked for during five minutes"),
    row(&[50033, 90006, 90012, 90024, 90033, 90090, 50000, 50087], Retry, "Entra ID has a passing fault"),
    row(&[90055], Retry, "the tenant is throttled"),
    row(&[80001, 80002, 80005, 80014], Retry, "Entra ID does not reach the directory on premises"),
    row(&[80013], Retry, "the clock of the directory on premises is wrong"),
];

fn row_of(code: u32) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.codes.contains(&code))
}

/// What the standard's own words mean, for codes that the table does not know.
fn advice_of(error: &str, status: u16) -> Advice {
    match error {
        "temporarily_unavailable" | "server_error" | "authorization_pending" | "slow_down" => Retry,
        "invalid_grant"
        | "interaction_required"
        | "login_required"
        | "consent_required"
        | "access_denied"
        | "authorization_declined"
        | "expired_token"
        | "bad_verification_code" => AskAPerson,
        _ if status == 429 || status >= 500 => Retry,
        _ => FixConfiguration,
    }
}

/// The number behind `AADSTS` in Entra's words: some answers have no `error_codes`.
fn code_in(description: &str) -> Option<u32> {
    let rest = description.split_once("AADSTS")?.1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn first_line(description: &str) -> String {
    let line = description.lines().next().unwrap_or_default();
    let line = line.split(" Trace ID:").next().unwrap_or(line).trim();
    if line.is_empty() { "Entra ID gave no reason".to_owned() } else { line.chars().take(300).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(error: &str, codes: &[u32], status: u16, ahead: Option<i64>) -> EntraError {
        ErrorBody { error: error.to_owned(), error_codes: codes.to_vec(), ..ErrorBody::default() }
            .judge(status, None, ahead)
    }

    #[test]
    fn no_code_has_two_rows() {
        let mut codes: Vec<u32> = TABLE.iter().flat_map(|row| row.codes).copied().collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn each_kind_of_refusal_names_who_can_help() {
        for (code, advice) in [
            (7000222, FixConfiguration),
            (700027, FixConfiguration),
            (90038, FixConfiguration),
            (65001, AskAPerson),
            (50076, AskAPerson),
            (50196, Retry),
            (90033, Retry),
        ] {
            assert_eq!(judged("invalid_client", &[code], 400, None).advice, advice, "{code}");
        }
        assert_eq!(judged("temporarily_unavailable", &[], 400, None).advice, Retry);
        assert_eq!(judged("invalid_grant", &[], 400, None).advice, AskAPerson);
        assert_eq!(judged("invalid_client", &[7000215], 503, None).advice, Retry, "a 503 says nothing of the secret");
    }

    #[test]
    fn a_revoked_grant_drops_its_refresh_token_and_a_second_factor_does_not() {
        assert!(judged("invalid_grant", &[50173], 400, None).forget_refresh_token);
        assert!(judged("invalid_grant", &[700082], 400, None).forget_refresh_token);
        assert!(!judged("invalid_grant", &[50076], 400, None).forget_refresh_token);
        assert!(!judged("invalid_grant", &[50173], 503, None).forget_refresh_token);
    }

    #[test]
    fn an_assertion_outside_its_time_blames_the_clock_only_when_it_is_off() {
        let off = judged("invalid_client", &[700024], 401, Some(-7200));
        assert_eq!(off.clock_ahead_seconds, Some(-7200));
        assert!(off.to_string().contains("7200 s ahead of Entra's"), "{off}");
        assert_eq!(judged("invalid_client", &[700024], 401, Some(2)).clock_ahead_seconds, None);
        assert_eq!(judged("invalid_client", &[7000215], 401, Some(-7200)).clock_ahead_seconds, None);
    }

    #[test]
    fn the_code_is_found_in_the_words_when_there_is_no_list() {
        let body = ErrorBody {
            error: "invalid_grant".to_owned(),
            error_description: "AADSTS50173: The provided grant has expired. Trace ID: 1".to_owned(),
            ..ErrorBody::default()
        };
        assert_eq!(body.judge(400, None, None).code, Some(50173));
    }
}
