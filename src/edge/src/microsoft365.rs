//! What `microsoft` gets from this node: permission to send, over emission control and the configured rate, and a place for
//! secrets, over the keyring.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrier::{CarrierHandle, Emission};
use futures_util::future::BoxFuture;
use keys::{DataKeys, KeyNumber, SALT_LEN, random_salt};
use microsoft::{Budget, Graph, GraphEnvironment, GraphSettings, HeldBecause, SettingsError, Vault};
use model::{BitsPerSecond, Precedence, Sensitive};
use shaper::{Demand, Lane, Shaper};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::{Environment, SiteConfig};

/// Files of `microsoft` lie below this name in the data directory.
pub(crate) const DIR: &str = "microsoft";

/// Largest piece at once; TCP cuts it as it likes.
const PIECE_BYTES: usize = 16 * 1024;

/// The client for this node.
pub(crate) fn open(
    settings: &GraphSettings,
    config: &SiteConfig,
    environment: &Environment,
    carrier: &CarrierHandle,
) -> Result<Graph, SettingsError> {
    let budget = Arc::new(Outward::new(carrier.emission_changes(), settings.rate));
    let vault = Arc::new(KeyringVault(config.data_keys.clone()));
    let dir = config.data_dir.join(DIR);
    let Environment { clock, metrics, health } = environment.clone();
    Graph::new(settings, GraphEnvironment::system(clock, metrics, health, budget, vault, dir))
}

/// Permission to send: none while emission control forbids it, else at the rate, most urgent first.
struct Outward {
    emission: watch::Receiver<Emission>,
    pacer: Option<Mutex<Pacer>>,
    moved: Notify,
    began: Instant,
}

struct Pacer {
    shaper: Shaper,
    /// Who waits, by class.
    waiting: [usize; Precedence::ALL.len()],
}

impl Outward {
    fn new(emission: watch::Receiver<Emission>, rate: Option<BitsPerSecond>) -> Self {
        // Emission control is looked at here: it may change while somebody waits.
        let shaper = |rate| Shaper::new(rate, PIECE_BYTES, shaper::Emission::Normal, Duration::ZERO);
        let pacer = rate.map(|rate| Mutex::new(Pacer { shaper: shaper(rate), waiting: [0; Precedence::ALL.len()] }));
        Self { emission, pacer, moved: Notify::new(), began: Instant::now() }
    }

    async fn grant(&self, precedence: Precedence, bytes: u64) -> Result<u64, HeldBecause> {
        let mut emission = self.emission.clone();
        let _place = self.pacer.as_ref().map(|pacer| Place::take(pacer, precedence, &self.moved));
        loop {
            if !emission.borrow_and_update().may_emit() {
                return Err(HeldBecause::Emission);
            }
            let Some(pacer) = &self.pacer else { return Ok(bytes) };
            let moved = self.moved.notified();
            let wake = match lock(pacer).ask(self.began.elapsed(), precedence, bytes) {
                Ok(granted) => return Ok(granted),
                Err(wake) => wake,
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.began + wake) => {}
                () = moved => {}
                changed = emission.changed() => if changed.is_err() {
                    // The links are gone: the node stops.
                    return Err(HeldBecause::Emission);
                },
            }
        }
    }
}

impl Budget for Outward {
    fn take(&self, precedence: Precedence, bytes: u64) -> BoxFuture<'_, Result<u64, HeldBecause>> {
        Box::pin(self.grant(precedence, bytes))
    }

    fn forbidden(&self) -> BoxFuture<'_, HeldBecause> {
        let mut emission = self.emission.clone();
        Box::pin(async move {
            // An error means that the links are gone: the node stops.
            let _ = emission.wait_for(|emission| !emission.may_emit()).await;
            HeldBecause::Emission
        })
    }
}

impl Pacer {
    /// Bytes that may leave, else when to ask again.
    fn ask(&mut self, now: Duration, precedence: Precedence, bytes: u64) -> Result<u64, Duration> {
        let demand = Demand { control: false, classes: self.waiting.map(|n| n > 0) };
        match self.shaper.grant(now, &demand) {
            Some(grant) if grant.lane == Lane::Class(precedence) => {
                let granted = bytes.min(grant.bytes as u64);
                self.shaper.spent(grant.lane, usize::try_from(granted).unwrap_or(grant.bytes));
                Ok(granted)
            }
            // It is another's turn, who is being woken.
            Some(_) => Err(now + TURN),
            None => Err(self.shaper.wake_at().unwrap_or(now + TURN).max(now + TURN)),
        }
    }
}

/// Whoever is not next looks again after this, if nothing woke it.
const TURN: Duration = Duration::from_millis(5);

fn lock(pacer: &Mutex<Pacer>) -> MutexGuard<'_, Pacer> {
    // A holder that panicked left a credit that is at worst a slice too large.
    pacer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one who waits; taken back when it has what it wants or gives up.
struct Place<'a> {
    pacer: &'a Mutex<Pacer>,
    precedence: Precedence,
    moved: &'a Notify,
}

impl<'a> Place<'a> {
    fn take(pacer: &'a Mutex<Pacer>, precedence: Precedence, moved: &'a Notify) -> Self {
        lock(pacer).waiting[precedence.index()] += 1;
        Self { pacer, precedence, moved }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(self.pacer).waiting[self.precedence.index()] -= 1;
        self.moved.notify_waiters();
    }
}

/// Seals with the newest data key of the keyring: key number (4 bytes), salt, sealed bytes. Whoever destroys the keyring
/// destroys what is sealed too.
struct KeyringVault(DataKeys);

/// Each sealing has a salt of its own, and with it a key of its own, so one nonce is enough.
const NONCE: [u8; 12] = [0; 12];

const PLACE: &[u8] = b"microsoft vault v1";

impl Vault for KeyringVault {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let (number, key) = self.0.newest().expect("a node that runs has a data key");
        let salt = random_salt();
        let mut sealed = [number.0.to_be_bytes().as_slice(), &salt].concat();
        let from = sealed.len();
        sealed.extend_from_slice(plain);
        key.segment_cipher(&salt, PLACE).seal(NONCE, PLACE, &mut sealed, from);
        sealed
    }

    fn open(&self, sealed: &[u8]) -> Option<Sensitive<Vec<u8>>> {
        let (number, rest) = sealed.split_first_chunk::<4>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_LEN>()?;
        let key = self.0.get(KeyNumber(u32::from_be_bytes(*number)))?;
        key.segment_cipher(salt, PLACE).open(NONCE, PLACE, sealed).map(Sensitive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::DataKey;

    fn keyring(first: u8) -> DataKeys {
        DataKeys::new([(KeyNumber(1), DataKey::from_bytes([first; 32])), (KeyNumber(2), DataKey::from_bytes([9; 32]))])
    }

    #[test]
    fn what_is_sealed_opens_with_its_keyring_and_only_unaltered() {
        let vault = KeyringVault(keyring(1));
        let sealed = vault.seal(b"a refresh token");
        assert_eq!(vault.open(&sealed), Some(Sensitive(b"a refresh token".to_vec())));
        assert_ne!(vault.seal(b"a refresh token"), sealed);
        for at in [0, 5, sealed.len() - 1] {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(vault.open(&altered), None, "byte {at}");
        }
        assert_eq!(vault.open(b"short"), None);
        let before = KeyringVault(DataKeys::new([(KeyNumber(1), DataKey::from_bytes([1; 32]))])).seal(b"old");
        assert_eq!(vault.open(&before), Some(Sensitive(b"old".to_vec())), "a key was added since");
        assert_eq!(KeyringVault(keyring(7)).open(&before), None, "another node");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_granted_while_emission_is_forbidden_and_whoever_waits_is_told() {
        let (sender, receiver) = watch::channel(Emission::Silent);
        let budget = Arc::new(Outward::new(receiver, Some(BitsPerSecond(8_000))));
        assert_eq!(budget.take(Precedence::Flash, 1).await, Err(HeldBecause::Emission));
        sender.send_replace(Emission::Normal);
        while budget.take(Precedence::Routine, 240).await == Ok(240) && budget.began.elapsed() < Duration::from_secs(2)
        {
        }
        let forbidden = budget.forbidden();
        let waits = budget.take(Precedence::Routine, 240);
        sender.send_replace(Emission::ReceiveOnly);
        assert_eq!(waits.await, Err(HeldBecause::Emission));
        assert_eq!(forbidden.await, HeldBecause::Emission);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_an_urgent_call_passes_a_large_body() {
        let (_sender, receiver) = watch::channel(Emission::Normal);
        let budget = Arc::new(Outward::new(receiver, Some(BitsPerSecond(64_000))));
        let bulk = {
            let budget = Arc::clone(&budget);
            async move {
                let mut sent = 0;
                while budget.began.elapsed() < Duration::from_secs(10) {
                    sent += budget.take(Precedence::Deferred, 16_384).await.unwrap();
                }
                sent
            }
        };
        let urgent = {
            let budget = Arc::clone(&budget);
            async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let asked = budget.began.elapsed();
                budget.take(Precedence::Flash, 400).await.unwrap();
                budget.began.elapsed() - asked
            }
        };
        let (sent, waited) = tokio::join!(bulk, urgent);
        assert!((70_000..=80_400).contains(&sent), "64 kbit/s for 10 s are 80,000 bytes: {sent}");
        assert!(waited < Duration::from_millis(150), "one slice of 50 ms is ahead at most: {waited:?}");
    }
}
