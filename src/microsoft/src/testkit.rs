//! What the tests of this room share.

use std::sync::atomic::{AtomicU64, Ordering};

use model::Sensitive;

use crate::environment::Vault;

/// A vault whose sealing is reversible and differs each time; only tests hold it.
pub(crate) struct TestVault {
    key: u8,
    count: AtomicU64,
}

impl TestVault {
    pub(crate) fn new(key: u8) -> Self {
        Self { key, count: AtomicU64::new(1) }
    }
}

impl Vault for TestVault {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let count = self.count.fetch_add(1, Ordering::SeqCst) as u8;
        let mut sealed = vec![self.key, count];
        sealed.extend(plain.iter().map(|b| b ^ count ^ 0xA5));
        sealed
    }

    fn open(&self, sealed: &[u8]) -> Option<Sensitive<Vec<u8>>> {
        let [key, count, rest @ ..] = sealed else { return None };
        (*key == self.key).then(|| Sensitive(rest.iter().map(|b| b ^ count ^ 0xA5).collect()))
    }
}
