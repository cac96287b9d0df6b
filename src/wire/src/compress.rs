//! zstd with a cap: the only place that calls it.

use std::io::Read;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::EncoderDictionary;
use zstd::zstd_safe::{CCtx, CParameter, DCtx};

use crate::WireError;

/// Compresses. `level` is 1..=19; 3 where CPU matters, 19 for a thin link.
pub fn compress(bytes: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(bytes, level).expect("compressing into a growing buffer fails only when memory is exhausted")
}

/// As [`compress`], for bytes that are like `base`: what they share with it costs next to nothing. `None` when zstd does not
/// take the base.
pub fn compress_from(bytes: &[u8], base: &[u8], level: i32) -> Option<Vec<u8>> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
    context.ref_prefix(base).ok()?;
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).ok()?;
    Some(out)
}

/// Inflates what [`compress_from`] made of the same base, to at most `max` bytes.
///
/// # Errors
/// When the bytes are no zstd frame, hold more than `max`, or refer to something else.
pub fn decompress_from_capped(bytes: &[u8], base: &[u8], max: usize) -> Result<Vec<u8>, WireError> {
    let malformed = |_| WireError::Malformed("a part compressed from another");
    let mut context = DCtx::create();
    context.ref_prefix(base).map_err(malformed)?;
    // Room for `max` and no more: what would be longer is refused by zstd itself.
    let mut out = Vec::with_capacity(max);
    context.decompress(&mut out, bytes).map_err(malformed)?;
    Ok(out)
}

/// A look at some of the bytes: `false` when they are spread like noise (pictures, video, what is compressed or sealed
/// already), so that compressing them would cost time and gain nothing.
pub fn may_shrink(bytes: &[u8]) -> bool {
    // As many samples as make the spread of noise over 256 values certain; fewer bytes are cheap to try.
    const SAMPLES: usize = 4_096;
    if bytes.len() < SAMPLES {
        return true;
    }
    let mut counts = [0u32; 256];
    let step = bytes.len() / SAMPLES;
    bytes.iter().step_by(step).take(SAMPLES).for_each(|byte| counts[usize::from(*byte)] += 1);
    // Noise has some 16 of each value, and a sum of squares of 69,616 with a deviation of 362; text has many times that.
    let squares: u64 = counts.iter().map(|count| u64::from(*count).pow(2)).sum();
    squares > 76_000
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

/// What begins every zstd frame that [`squeeze`] makes: the magic number, no flags, and a window (RFC 8878, 3.1.1).
/// The window written here is the largest that a batch can need, 256 KiB; decoding into one piece needs none.
const HEAD: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, 8 << 3];

/// Length of the head of a block: last or not, its type, and its size, in 3 bytes.
const BLOCK_HEAD: usize = 3;
const LAST: u32 = 1;
const COMPRESSED: u32 = 2 << 1;

/// Compresses against a dictionary and takes off what the other side knows: the frame's head and, where there is a single
/// block, that block's (`true`). `None` when nothing is gained.
pub(crate) fn squeeze(plain: &[u8], dictionary: &EncoderDictionary<'_>) -> Option<(bool, Vec<u8>)> {
    const WHY: &str = "these are known to zstd, and compressing fails only when memory is exhausted";
    let mut zstd = Compressor::with_prepared_dictionary(dictionary).expect(WHY);
    for off in [CParameter::ContentSizeFlag(false), CParameter::ChecksumFlag(false), CParameter::DictIdFlag(false)] {
        zstd.set_parameter(off).expect(WHY);
    }
    let frame = zstd.compress(plain).expect(WHY);
    let (head, blocks) = frame.split_at_checked(HEAD.len())?;
    assert_eq!(head[..5], HEAD[..5], "zstd writes no optional field that it was told to leave out");
    let (block_head, block) = blocks.split_first_chunk::<BLOCK_HEAD>()?;
    let block_head = u32::from_le_bytes([block_head[0], block_head[1], block_head[2], 0]);
    let is_single = block_head & 7 == LAST | COMPRESSED;
    if is_single {
        assert_eq!(block_head as usize >> 3, block.len(), "the last block ends the frame");
    }
    let packed = if is_single { block } else { blocks };
    (packed.len() < plain.len()).then(|| (is_single, packed.to_vec()))
}

/// Gives back what [`squeeze`] was given, at most `max` bytes.
///
/// # Errors
/// When the bytes are none of its, or hold more.
pub(crate) fn unsqueeze(bytes: &[u8], is_single: bool, dictionary: &[u8], max: usize) -> Result<Vec<u8>, WireError> {
    let malformed = |_| WireError::Malformed("a compressed part");
    let mut frame = HEAD.to_vec();
    if is_single {
        let head = LAST | COMPRESSED | (bytes.len() as u32) << 3;
        frame.extend_from_slice(&head.to_le_bytes()[..BLOCK_HEAD]);
    }
    frame.extend_from_slice(bytes);
    let mut zstd = Decompressor::with_dictionary(dictionary).map_err(malformed)?;
    zstd.decompress(&frame, max).map_err(malformed)
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
            let _ = decompress_from_capped(&bytes, &bytes, 1_000);
        }
    }

    #[test]
    fn a_bomb_is_refused_at_its_cap() {
        let bomb = compress(&vec![0; 50_000_000], 19);
        assert!(bomb.len() < 10_000);
        assert!(decompress_capped(&bomb, 65_536).is_err());
    }

    #[test]
    fn what_is_like_its_base_costs_next_to_nothing_and_comes_back_only_from_it() {
        let mut base = vec![0; 65_536];
        blake3::Hasher::new().finalize_xof().fill(&mut base);
        let mut edited = base.clone();
        edited.splice(30_000..30_004, *b"edited");
        for level in [1, 3, 9, 19] {
            let packed = compress_from(&edited, &base, level).unwrap();
            assert!(packed.len() < 100, "level {level}: {} bytes", packed.len());
            assert_eq!(decompress_from_capped(&packed, &base, edited.len()).as_ref(), Ok(&edited));
            assert!(decompress_from_capped(&packed, &base, edited.len() - 1).is_err(), "beyond its cap");
            assert_ne!(decompress_from_capped(&packed, &edited[..40_000], edited.len()).as_ref(), Ok(&edited));
        }
        // Bytes that zstd would take for a dictionary of its own are a base like any other.
        base[..4].copy_from_slice(&0xec30_a437_u32.to_le_bytes());
        let packed = compress_from(&edited, &base, 3).unwrap();
        assert_eq!(decompress_from_capped(&packed, &base, edited.len()), Ok(edited));
    }

    #[test]
    fn noise_is_not_worth_a_try_and_text_is() {
        let mut noise = vec![0; 65_536];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for len in [4_096, 16_384, 65_535, 65_536] {
            assert!(!may_shrink(&noise[..len]), "{len} bytes of noise");
            let text: Vec<u8> = noise[..len].iter().map(|byte| b"the quick fox 01"[usize::from(byte % 16)]).collect();
            assert!(may_shrink(&text), "{len} bytes of text");
            // As in a table of numbers: all values, some of them often.
            let skewed: Vec<u8> = noise[..len].iter().map(|byte| byte & byte.rotate_left(3)).collect();
            assert!(may_shrink(&skewed), "{len} bytes of a table");
        }
        assert!(may_shrink(&noise[..100]), "few bytes cost nothing to try");
    }

    #[test]
    fn bytes_behind_the_frame_are_refused() {
        let mut bytes = compress(b"hello", 3);
        bytes.push(0);
        assert!(decompress_capped(&bytes, 100).is_err());
    }
}
