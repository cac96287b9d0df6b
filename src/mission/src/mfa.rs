//! A second factor at sign-in: time-based one-time passwords (RFC 6238, SHA-1, 6 digits, 30 s), as every authenticator app makes them.
//!
//! The secret is this node's own and never leaves it. A code opens one session: one of the same or an earlier time step is refused.

use data_encoding::BASE32_NOPAD;
use model::Id;
use rusqlite::{Connection, params};
use totp_rs::Builder;

use crate::access::require_self;
use crate::core::Core;
use crate::error::{AppError, AppResult};
use crate::rows::{get, run};
use crate::types::Session;
use crate::users::require_user;

/// RFC 4226 wants 160 bits; 20 bytes are 32 letters without padding, which all apps take.
const SECRET_BYTES: usize = 20;
const STEP_S: u64 = 30;
/// Steps by which the user's clock may be off in either direction.
const SKEW: u16 = 1;

/// What a user's second factor is.
struct Factor {
    secret: String,
    is_active: bool,
    /// Time step of the last code that was taken.
    used_step: i64,
}

fn factor(db: &Connection, user: Id) -> AppResult<Factor> {
    let sql = "SELECT mfa_secret, mfa_active, mfa_used FROM users WHERE id = ?1";
    let found = get(db, sql, [user.as_str()], |r| {
        Ok(Factor { secret: r.get(0)?, is_active: r.get(1)?, used_step: r.get(2)? })
    })?;
    found.ok_or_else(|| AppError::not_found("GetUser", "app.user.missing_account.const"))
}

/// Why a code is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadCode {
    /// Not six digits, e.g. none at all: the client has to ask for it.
    Malformed,
    Wrong,
}

/// The time step whose code this is, which must be later than `used_step`.
fn step_of(code: &str, secret: &str, now_s: u64, used_step: i64) -> Result<i64, BadCode> {
    let code = code.trim();
    if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadCode::Malformed);
    }
    let key = BASE32_NOPAD.decode(secret.as_bytes()).map_err(|_| BadCode::Wrong)?;
    let totp = Builder::new().with_secret(key).with_step_duration(STEP_S).with_skew(SKEW).build_noncompliant();
    let step = totp.check(code, now_s).and_then(|step| i64::try_from(step).ok());
    step.filter(|step| *step > used_step).ok_or(BadCode::Wrong)
}

impl Core {
    /// Makes a new secret for the user's authenticator app; it counts once it is activated. Base 32.
    ///
    /// # Errors
    /// 403 for others', 501 where the configuration forbids it.
    pub fn generate_mfa_secret(&self, by: &Session, user: Id) -> AppResult<String> {
        require_self("generateMfaSecret", by, user)?;
        self.require_mfa_enabled("GenerateMfaSecret")?;
        let mut key = [0; SECRET_BYTES];
        getrandom::fill(&mut key).expect("the operating system gives random bytes");
        let secret = BASE32_NOPAD.encode(&key);
        self.write(|tx| {
            require_user(&tx.db, user)?;
            if factor(&tx.db, user)?.is_active {
                // A new secret would lock out the app that is in use.
                run(&tx.db, "UPDATE users SET mfa_active = 0 WHERE id = ?1", [user.as_str()])?;
            }
            let sql = "UPDATE users SET mfa_secret = ?2, mfa_used = 0 WHERE id = ?1";
            run(&tx.db, sql, [user.as_str(), &secret])?;
            Ok(secret)
        })
    }

    /// Demands the second factor from now on. `code` proves that the app knows the secret.
    ///
    /// # Errors
    /// 401 for a wrong code, 403 for others', 501 where the configuration forbids it.
    pub fn activate_mfa(&self, by: &Session, user: Id, code: &str) -> AppResult<()> {
        require_self("updateUserMfa", by, user)?;
        self.require_mfa_enabled("ActivateMfa")?;
        let now_s = self.now_s();
        self.write(|tx| {
            let factor = factor(&tx.db, user)?;
            let step = step_of(code, &factor.secret, now_s, factor.used_step).map_err(|why| match why {
                BadCode::Malformed => AppError::new(
                    "ActivateMfa",
                    "mfa.activate.app_error",
                    "Error attempting to activate MFA token.",
                    500,
                ),
                BadCode::Wrong => {
                    AppError::new("ActivateMfa", "mfa.activate.bad_token.app_error", "Invalid MFA token.", 401)
                }
            })?;
            let sql = "UPDATE users SET mfa_active = 1, mfa_used = ?2 WHERE id = ?1";
            run(&tx.db, sql, params![user.as_str(), step])?;
            tx.tell_user_updated(&require_user(&tx.db, user)?.user);
            Ok(())
        })
    }

    /// Demands no second factor, and forgets the secret.
    ///
    /// # Errors
    /// 403 for others'.
    pub fn deactivate_mfa(&self, by: &Session, user: Id) -> AppResult<()> {
        require_self("updateUserMfa", by, user)?;
        self.write(|tx| {
            require_user(&tx.db, user)?;
            run(&tx.db, "UPDATE users SET mfa_active = 0, mfa_secret = '' WHERE id = ?1", [user.as_str()])?;
            tx.tell_user_updated(&require_user(&tx.db, user)?.user);
            Ok(())
        })
    }

    /// Holds a code against the second factor of whoever just gave the right password. Wrong codes count like wrong passwords;
    /// none at all does not, since clients ask so whether one is needed.
    pub(crate) fn check_mfa(&self, user: Id, code: &str) -> AppResult<()> {
        if !self.0.settings.multifactor {
            return Ok(());
        }
        let now_s = self.now_s();
        // In one transaction, so that two who present the same code are not both let in.
        let outcome = self.write(|tx| {
            let factor = factor(&tx.db, user)?;
            if !factor.is_active {
                return Ok(Ok(()));
            }
            match step_of(code, &factor.secret, now_s, factor.used_step) {
                Ok(step) => {
                    run(&tx.db, "UPDATE users SET mfa_used = ?2 WHERE id = ?1", params![user.as_str(), step])?;
                    Ok(Ok(()))
                }
                Err(why) => {
                    if !code.is_empty() {
                        let sql = "UPDATE users SET failed_attempts = failed_attempts + 1 WHERE id = ?1";
                        run(&tx.db, sql, [user.as_str()])?;
                    }
                    Ok::<_, AppError>(Err(why))
                }
            }
        })?;
        outcome.map_err(|why| match why {
            BadCode::Malformed => {
                AppError::new("CheckUserMfa", "mfa.validate_token.authenticate.app_error", "Invalid MFA token.", 401)
            }
            BadCode::Wrong => {
                AppError::new("checkUserMfa", "api.user.check_user_mfa.bad_code.app_error", "Invalid MFA token.", 401)
            }
        })
    }

    fn require_mfa_enabled(&self, where_: &'static str) -> AppResult<()> {
        if self.0.settings.multifactor {
            return Ok(());
        }
        let message = "Multi-factor authentication has been disabled on this server.";
        Err(AppError::new(where_, "mfa.mfa_disabled.app_error", message, 501))
    }

    fn now_s(&self) -> u64 {
        u64::try_from(self.0.clock.now().0 / 1_000).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of the test vectors in RFC 6238, appendix B.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn codes_are_those_of_the_standard() {
        // The last six of the eight digits there.
        for (at, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (2_000_000_000, "279037")]
        {
            assert_eq!(step_of(code, SECRET, at, 0), Ok(i64::try_from(at / 30).unwrap()), "{at}");
        }
    }

    #[test]
    fn a_code_counts_once_and_for_a_minute_and_a_half() {
        let (at, code) = (1_234_567_890, "005924");
        let step = step_of(code, SECRET, at, 0).unwrap();
        assert_eq!(step_of(code, SECRET, at, step), Err(BadCode::Wrong), "again");
        assert_eq!(step_of(code, SECRET, at + 30, 0), Ok(step));
        assert_eq!(step_of(code, SECRET, at - 30, 0), Ok(step));
        assert_eq!(step_of(code, SECRET, at + 60, 0), Err(BadCode::Wrong));
        assert_eq!(step_of("", SECRET, at, 0), Err(BadCode::Malformed));
        assert_eq!(step_of("12345a", SECRET, at, 0), Err(BadCode::Malformed));
        assert_eq!(step_of("000000", "", at, 0), Err(BadCode::Wrong));
    }
}
