//! zstd with a cap: the only place that calls it.

use std::io::Read;

use crate::WireError;

/// Compresses. `level` is 1..=19; 3 where CPU matters, 19 for a thin link.
pub fn compress(bytes: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(bytes, level).expect("compressing into a growing buffer fails only when memory is exhausted")
}

/// Inflates to at most `max` bytes; a frame that holds more is refused, and its announced size is not believed.
///
/// # Errors
/// When the bytes are no zstd frame, or hold more than `max`.
pub fn decompress_capped(bytes: &[u8], max: usize) -> Result<Vec<u8>, WireError> {
    const WHAT: &str = "a compressed part";
    let malformed = |_| WireError::Malformed(WHAT);
    // 8 KiB at a time: the output grows with what really comes out.
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(malformed)?.single_frame();
    // Windows beyond the cap cannot be needed; 2^10 is zstd's smallest.
    let window_log = usize::BITS - max.max(1 << 10).leading_zeros();
    decoder.window_log_max(window_log).map_err(malformed)?;
    let mut out = Vec::new();
    decoder.by_ref().take(max as u64 + 1).read_to_end(&mut out).map_err(malformed)?;
    if out.len() > max {
        return Err(WireError::TooLarge { what: WHAT, found: out.len() as u64, max: max as u64 });
    }
    if !decoder.finish().is_empty() {
        return Err(WireError::NotCanonical(WHAT));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_survive_compression(bytes in prop::collection::vec(0u8..8, 0..5_000)) {
            prop_assert_eq!(decompress_capped(&compress(&bytes, 3), bytes.len()), Ok(bytes));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decompress_capped(&bytes, 1_000);
        }
    }

    #[test]
    fn a_bomb_is_refused_at_its_cap() {
        let bomb = compress(&vec![0; 50_000_000], 19);
        assert!(bomb.len() < 10_000);
        assert!(decompress_capped(&bomb, 65_536).is_err());
    }

    #[test]
    fn bytes_behind_the_frame_are_refused() {
        let mut bytes = compress(b"hello", 3);
        bytes.push(0);
        assert!(decompress_capped(&bytes, 100).is_err());
    }
}
