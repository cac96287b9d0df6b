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

/// A key made for these tests with `openssl genrsa 2048`; it protects nothing.
pub(crate) const RSA_KEY_PEM: &str = "-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQDag7Q4nl1cucRU
WXK9jqkZZgfAvEtiRbEJL3jebzTv05KzCVNUSlvehGSN17jqwxvGob6uzSF/pJhh
DrCPPGWBDE1vvQY2kzG642xEBKlwjR2oMAnYGRve6eGZfGY2xg7XwaJ/u5UbeTKQ
hAFh7JWXpZQJNntl4lAPa+fkyPjx9+zBgjKwsMM7TIaTn9Q9sF1jrkJleCvN1QKy
Q0UTIlJz47SPZ2N4CiiBIs6vMhIJjMIPpnrO0ADv9RqftL23WHEM/iCqEXehmms2
LcUcf4OvWdC61AcfqssMr3rbVukpMg2jaifXSNGQRCiHegUk9H4zxSAP5wCBmOJ0
K4k47/nhAgMBAAECggEABZ4/QvlnYxvvnU+TcKY7WMjTyDPPKF6sV5Ud4XIwhT4G
Vo4V02P6CrWStEbonTiY/TlpYqspglOkC1LKXVRrM68ySn4sq7iLHcf9H56TEK7A
JXPevOygV9HhmAWnxx6+gPOcjvYutj8eerK6Kl9f1T9PmBELiSoRbuQSWUKFjAsM
ojUUwiuzsHvnIXlz5AOCQsOHmTrXd0t8riSi2re7ycldtUJMJAhhssI+I+UVbvD3
I2BPPj/MoH0OHbuS5lHHW3GER1vND8xad3f95amRQsi0WgCJdwFONCOPwecaZcyn
rkI1taKSsokGE6q4+ySH0RO1dXv47scX0AAzZd5P8QKBgQD2UoXpKytPgGGI1MQk
Qy1ubgZWpDa2kdyzN0BgzvRQ26Tkk9cBoEQ3QJc4kErRFDAFMRj+vDf0GvORYHP7
qrsJJVrdlCzfXLUHDPO7GlWI+TjXR0SRYbhMECkfAi0hK2GLLRXNK8kqfYri0dnb
BKtFiG0auuY5YcEpPSRVHDiilQKBgQDjGX4xBdTHt/D5lg127zVBkUNJ/L6xh3xX
IhW7MRlrQhQLmIFutObzqWKUu4IE8Vn9sOfwq0ailxE+rqny1apec5VTqinPeutt
m483LxB3iyNiepDohI2VZ4S0DGJnrvSYgUj24FOx1/g60U6h3dC/fWGpsIzx2rYO
vJJPTAKTHQKBgF5zolmYbhEcH0pCm7tz7vXLRq7uZPR41fH6m7sDYHeo4X+smONM
uxucrt/HpIirfwZen0D+l04JD6CNJaw4+WM2abNRYCt99wRvGP6DyIyvU/Zoo4hD
ulGgWMRFJ1zyr4KYlSWJRqf+X8U9xpXPIoWVHJEFXcZfD5xqj4X7PlRJAoGACljd
AQrM+RSObDDECEk52fTuZe6YGaqcpbOt3cuM5vApzaVzMEIZy7xJ+5DXibYdbYuj
5blIDJxpcruujpvhmVAW26sDIKrvEx1lVxRT4b57LD99Xrq7YLVIvJNb4HF+P3yU
gHsUFSRL8RIcTQ+4NSFXU83xfguDBATffbFu5JkCgYAEuipdQuGJdmvrMGSN07y7
wCZjGG/Vg9Atmb9Xa18CrGAhiHu/9AkR8bnLUBgvEWUJop2W4N0SC0cVwEfpLp9S
LmUJ4XUWhCwmELX22pigDPKpYhuNCn/QiVx3JLgweDtwitJOgXVYl/opTjwgW3M9
a0S549HUnayvroGiqE77jw==
-----END PRIVATE KEY-----";

/// Its modulus and exponent, as a set of keys names them.
pub(crate) const RSA_N: &str = "2oO0OJ5dXLnEVFlyvY6pGWYHwLxLYkWxCS943m8079OSswlTVEpb3oRkjde46sMbxqG-rs0hf6SYYQ6wjzxlgQxNb70GNpMxuuNsRASpcI0dqDAJ2Bkb3unhmXxmNsYO18Gif7uVG3kykIQBYeyVl6WUCTZ7ZeJQD2vn5Mj48ffswYIysLDDO0yGk5_UPbBdY65CZXgrzdUCskNFEyJSc-O0j2djeAoogSLOrzISCYzCD6Z6ztAA7_Uan7S9t1hxDP4gqhF3oZprNi3FHH-Dr1nQutQHH6rLDK9621bpKTINo2on10jRkEQoh3oFJPR-M8UgD-cAgZjidCuJOO_54Q";
pub(crate) const RSA_E: &str = "AQAB";
