//! quickXorHash as OneDrive and SharePoint compute it, written for the simulator alone: what is tested has its own.

/// 160 bits: each byte is XORed in 11 bits further than the one before, wrapping; at the end the length goes into the
/// last eight bytes.
pub(crate) fn quick_xor(bytes: &[u8]) -> String {
    let mut state = [0u8; 20];
    let mut at = 0usize; // bit position
    for byte in bytes {
        let (cell, bit) = (at / 8, at % 8);
        let wide = u16::from(*byte) << bit;
        state[cell] ^= wide.to_le_bytes()[0];
        state[(cell + 1) % 20] ^= wide.to_le_bytes()[1];
        at = (at + 11) % 160;
    }
    for (cell, byte) in state[12..].iter_mut().zip((bytes.len() as u64).to_le_bytes()) {
        *cell ^= byte;
    }
    data_encoding::BASE64.encode(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_reference() {
        let counting: Vec<u8> = (0..4).flat_map(|_| 0..=255u8).collect();
        for (bytes, hash) in [
            (&b""[..], "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            (b"\x4a", "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (b"hello world", "aCgDG9jwBhDc4Q1yawMZAAAAAAA="),
            (&counting, "h7xr2dbCayZCQYR9KKhlwDuT4UI="),
        ] {
            assert_eq!(quick_xor(bytes), hash);
        }
    }
}
