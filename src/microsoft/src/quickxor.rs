//! The hash that SharePoint and OneDrive tell of a file (`file.hashes.quickXorHash`).
//!
//! 160 bits; byte `i` is XORed in at bit `11 * i mod 160`, and at the end the length in bytes as 64 bits, little-endian, into
//! the last eight bytes. It finds damage and proves nothing against an attacker; here it only settles whether an
//! upload whose answer was lost has arrived (reference 4.4).

use data_encoding::BASE64;

/// Bytes of the hash.
const WIDTH: usize = 20;
/// Bits by which the place moves with each byte.
const SHIFT: usize = 11;

/// A hash in the making.
#[derive(Clone, Debug, Default)]
pub struct QuickXor {
    cell: [u8; WIDTH],
    length: u64,
}

impl QuickXor {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // The place repeats after 160 bytes: 11 * 160 is a multiple of 160.
        let mut bit = (self.length % (WIDTH as u64 * 8)) as usize * SHIFT % (WIDTH * 8);
        for byte in bytes {
            let wide = u16::from(*byte) << (bit % 8);
            let (low, high) = (bit / 8, (bit / 8 + 1) % WIDTH);
            self.cell[low] ^= wide as u8;
            self.cell[high] ^= (wide >> 8) as u8;
            bit = (bit + SHIFT) % (WIDTH * 8);
        }
        self.length += bytes.len() as u64;
    }

    /// The hash as Graph writes it: base64.
    pub fn finish(mut self) -> String {
        for (cell, byte) in self.cell[WIDTH - 8..].iter_mut().zip(self.length.to_le_bytes()) {
            *cell ^= byte;
        }
        BASE64.encode(&self.cell)
    }

    /// The hash of bytes that are all there.
    pub fn of(bytes: &[u8]) -> String {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_values_come_out() {
        let every: Vec<u8> = (0..4).flat_map(|_| 0..=255u8).collect();
        for (bytes, hash) in [
            (&b""[..], "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            (b"\x4a", "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (b"hello world", "aCgDG9jwBhDc4Q1yawMZAAAAAAA="),
            (&every, "h7xr2dbCayZCQYR9KKhlwDuT4UI="),
        ] {
            assert_eq!(QuickXor::of(bytes), hash);
        }
    }

    #[test]
    fn pieces_give_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * 31 % 251) as u8).collect();
        for size in [1, 7, 160, 161, 4_096] {
            let mut hash = QuickXor::default();
            bytes.chunks(size).for_each(|piece| hash.update(piece));
            assert_eq!(hash.finish(), QuickXor::of(&bytes), "{size}");
        }
    }
}
