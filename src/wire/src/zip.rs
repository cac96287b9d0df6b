//! Zip containers (docx, xlsx, pptx, odt, jar, ...) as a stream in which an edit stays small, and back.
//!
//! ```text
//!  container  header | deflated member | header | deflated member | ... directory
//!  expanded   part ... , bytes as they are
//!  part       bytes as they are | plain length, recipe length | recipe | plain bytes of one member
//! ```
//! `bytes as they are` begin with their number; numbers are minimal varints. One changed word of a document changes every
//! bit of its deflated member that follows, but only itself in the expanded stream. The recipe (see `predict`) brings the
//! member back bit for bit. Whatever is no deflated member stays as it is, so that any bytes have an expanded form; the
//! directory is not believed and not needed.
//!
//! Memory: container and expanded stream are in memory where they are made, one member where they are read;
//! each is at most [`CONTAINER_BYTES_MAX`].

use std::ops::Range;

use crate::WireError;
use crate::chunk::CONTAINER_BYTES_MAX;
use crate::deflate::NotDeflate;
use crate::predict::{Explainer, Steps, rebuild};
use crate::reader::put_varint;

/// What expands further is kept whole: XML of office documents comes to 10 or 20 times, a bomb to 1,000 times.
const RATIO_MAX: usize = 64;

/// A recipe may be this share of the member: beyond, its writer is too unlike zlib for the expansion to pay.
const RECIPE_SHARE: usize = 3;

/// How a zip container begins: the first member's header.
pub(crate) const MAGIC: &[u8; 4] = b"PK\x03\x04";

const HEADER_BYTES: usize = 30;
const ENCRYPTED: u16 = 1;
/// The sizes follow the member.
const SIZES_LATER: u16 = 8;
const DEFLATED: u16 = 8;

/// Expands a container. `None` when nothing in it is gained, when it is too large, or when it is not proven that the
/// same bytes come back: then it is kept whole.
pub(crate) fn expand(container: &[u8]) -> Option<Vec<u8>> {
    if !container.starts_with(MAGIC) || container.len() > CONTAINER_BYTES_MAX {
        return None;
    }
    let bytes_max = container.len().saturating_mul(RATIO_MAX).min(CONTAINER_BYTES_MAX);
    let mut out = Vec::with_capacity(container.len() * 2);
    let mut explainer = Explainer::new();
    let mut plain = Vec::new();
    // Plain bytes of members that were not taken: work for nothing, which must have an end.
    let mut in_vain = 0;
    let (mut as_is_from, mut at) = (0, 0);
    while let Some(member) = next_member(container, &mut at) {
        // What stays as it is must fit too.
        let room = bytes_max.checked_sub(out.len() + container.len() - as_is_from)?;
        plain.clear();
        let explained = explainer.explain(&container[member.clone()], &mut plain, room);
        let taken = explained.ok().filter(|e| {
            let pays = plain.len() > e.len && e.recipe.len() <= e.len / RECIPE_SHARE + 64;
            pays && plain.len() + e.recipe.len() <= room
        });
        let Some(explained) = taken else {
            in_vain += plain.len();
            if in_vain > bytes_max {
                return None;
            }
            continue;
        };
        put_as_is(&container[as_is_from..member.start], &mut out);
        put_varint(&mut out, plain.len() as u64);
        put_varint(&mut out, explained.recipe.len() as u64);
        out.extend_from_slice(&explained.recipe);
        out.extend_from_slice(&plain);
        as_is_from = member.start + explained.len;
        at = as_is_from;
    }
    if as_is_from == 0 {
        return None;
    }
    put_as_is(&container[as_is_from..], &mut out);
    (out.len() <= bytes_max && brings_back(&out, container)).then_some(out)
}

fn put_as_is(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The next place at or after `at` where a deflated member may stand, and moves `at` to it.
fn next_member(container: &[u8], at: &mut usize) -> Option<Range<usize>> {
    loop {
        let rest = container.get(*at..)?;
        let header_at = *at + rest.windows(MAGIC.len()).position(|four| four == MAGIC)?;
        *at = header_at + MAGIC.len();
        let header: &[u8; HEADER_BYTES] = container.get(header_at..header_at + HEADER_BYTES)?.try_into().ok()?;
        let short = |from: usize| u16::from_le_bytes([header[from], header[from + 1]]);
        let flags = short(6);
        if short(8) != DEFLATED || flags & ENCRYPTED != 0 {
            continue;
        }
        let begin = header_at + HEADER_BYTES + usize::from(short(26)) + usize::from(short(28));
        let size = u32::from_le_bytes([header[18], header[19], header[20], header[21]]) as usize;
        // Where sizes follow the member, or are too large for their field, its end shows when it is read.
        let is_open = flags & SIZES_LATER != 0 || size == u32::MAX as usize;
        let end = if is_open { container.len() } else { begin.saturating_add(size) };
        if begin < end && end <= container.len() {
            *at = begin;
            return Some(begin..end);
        }
    }
}

/// The proof: the receiver's own way back.
fn brings_back(expanded: &[u8], container: &[u8]) -> bool {
    let mut left = container;
    let mut collapser = Collapser::new(expanded.len() as u64);
    let mut same = |bytes: &[u8]| {
        left = left.strip_prefix(bytes).ok_or(NotDeflate)?;
        Ok::<(), NotDeflate>(())
    };
    let done = expanded.chunks(1 << 20).try_for_each(|piece| collapser.push(piece, &mut same));
    done.is_ok() && collapser.finish().is_ok() && left.is_empty()
}

/// Bringing a container back was not possible.
#[derive(Debug)]
pub(crate) enum Failed<E> {
    /// The stream is no expanded container.
    Stream(WireError),
    /// The container's bytes were not taken.
    Taker(E),
}

impl<E> From<NotDeflate> for Failed<E> {
    fn from(_: NotDeflate) -> Self {
        Self::Stream(WireError::Malformed("a container's recipe"))
    }
}

/// Turns an expanded stream back into its container, piece by piece. Holds one member.
pub(crate) struct Collapser {
    state: State,
    /// Of the stream, by its announced length.
    left: u64,
    /// The number being read, and how many bits of it are there.
    number: (u64, u32),
    /// Of a member: recipe and plain bytes.
    held: Vec<u8>,
    steps: Steps,
}

#[derive(Clone, Copy)]
enum State {
    AsIsLen,
    AsIs(u64),
    PlainLen,
    RecipeLen { plain: usize },
    Member { recipe: usize, whole: usize },
}

impl Collapser {
    /// For a stream of `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { state: State::AsIsLen, left: bytes, number: (0, 0), held: Vec::new(), steps: Steps::new() }
    }

    /// Takes the next piece of the stream; what can be told of the container goes to `write`.
    pub(crate) fn push<E>(
        &mut self,
        mut piece: &[u8],
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), Failed<E>> {
        if piece.len() as u64 > self.left {
            return Err(Failed::Stream(WireError::Malformed("an expanded container's length")));
        }
        while !piece.is_empty() {
            match self.state {
                State::AsIsLen | State::PlainLen | State::RecipeLen { .. } => {
                    let (byte, rest) = piece.split_first().expect("checked above");
                    piece = rest;
                    self.left -= 1;
                    if let Some(number) = self.digit(*byte).map_err(Failed::Stream)? {
                        self.state = self.after(number).map_err(Failed::Stream)?;
                    }
                }
                State::AsIs(len) => {
                    let (bytes, rest) = piece.split_at(piece.len().min(usize::try_from(len).unwrap_or(usize::MAX)));
                    piece = rest;
                    self.left -= bytes.len() as u64;
                    write(bytes).map_err(Failed::Taker)?;
                    let len = len - bytes.len() as u64;
                    self.state = if len == 0 { State::PlainLen } else { State::AsIs(len) };
                }
                State::Member { recipe, whole } => {
                    let (bytes, rest) = piece.split_at(piece.len().min(whole - self.held.len()));
                    piece = rest;
                    self.left -= bytes.len() as u64;
                    self.held.extend_from_slice(bytes);
                    if self.held.len() == whole {
                        let (recipe, plain) = self.held.split_at(recipe);
                        rebuild(plain, recipe, &mut self.steps, |bytes| write(bytes).map_err(Failed::Taker))?;
                        self.held.clear();
                        self.state = State::AsIsLen;
                    }
                }
            }
        }
        Ok(())
    }

    /// The stream ended. `Err` when it should not have.
    pub(crate) fn finish(&self) -> Result<(), WireError> {
        match self.state {
            State::PlainLen if self.number.1 == 0 && self.left == 0 => Ok(()),
            State::PlainLen | State::AsIsLen | State::AsIs(_) | State::RecipeLen { .. } | State::Member { .. } => {
                Err(WireError::Truncated("an expanded container"))
            }
        }
    }

    /// One more byte of a number; the number when it is complete.
    fn digit(&mut self, byte: u8) -> Result<Option<u64>, WireError> {
        let (value, bits) = self.number;
        // No length here needs more than 35 bits.
        if bits > 28 || (byte == 0 && bits > 0) {
            return Err(WireError::Malformed("a number"));
        }
        let value = value | u64::from(byte & 0x7f) << bits;
        let more = byte & 0x80 != 0;
        self.number = if more { (value, bits + 7) } else { (0, 0) };
        Ok((!more).then_some(value))
    }

    fn after(&mut self, number: u64) -> Result<State, WireError> {
        // What is announced must still come, so that nothing is held for what never can.
        if number > self.left {
            return Err(WireError::Truncated("an expanded container"));
        }
        let len = usize::try_from(number).ok().filter(|len| *len <= CONTAINER_BYTES_MAX);
        let len = len.ok_or(WireError::TooLarge {
            what: "a part of a container",
            found: number,
            max: CONTAINER_BYTES_MAX as u64,
        });
        Ok(match self.state {
            State::AsIsLen if number == 0 => State::PlainLen,
            State::AsIsLen => State::AsIs(number),
            State::PlainLen => State::RecipeLen { plain: len? },
            State::RecipeLen { plain } => {
                let recipe = len?;
                if recipe == 0 || (recipe + plain) as u64 > self.left {
                    return Err(WireError::Truncated("an expanded container"));
                }
                State::Member { recipe, whole: recipe + plain }
            }
            state @ (State::AsIs(_) | State::Member { .. }) => state,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write as _;

    use proptest::prelude::*;

    /// A container as office programs write it; with `later` the sizes follow each member.
    pub(crate) fn container(members: &[(&str, &[u8])], level: u32, later: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut directory = Vec::new();
        for (name, plain) in members {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(plain).unwrap();
            let packed = encoder.finish().unwrap();
            let sizes = [0xfeed_beef, packed.len() as u32, plain.len() as u32].map(u32::to_le_bytes).concat();
            let flags = if later { SIZES_LATER } else { 0 };
            let mut header = [20, flags, DEFLATED, 0, 33].map(u16::to_le_bytes).concat();
            header.extend_from_slice(if later { &[0; 12] } else { &sizes });
            header.extend_from_slice(&[name.len() as u16, 0].map(u16::to_le_bytes).concat());
            directory.extend_from_slice(b"PK\x01\x02\x14\0");
            directory.extend_from_slice(&header);
            directory.extend_from_slice(&[0; 10]);
            directory.extend_from_slice(&(out.len() as u32).to_le_bytes());
            directory.extend_from_slice(name.as_bytes());
            out.extend_from_slice(MAGIC);
            out.extend_from_slice(&header);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&packed);
            if later {
                out.extend_from_slice(b"PK\x07\x08");
                out.extend_from_slice(&sizes);
            }
        }
        let directory_at = out.len() as u32;
        out.extend_from_slice(&directory);
        out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        out.extend_from_slice(&[members.len() as u16; 2].map(u16::to_le_bytes).concat());
        out.extend_from_slice(&[directory.len() as u32, directory_at].map(u32::to_le_bytes).concat());
        out.extend_from_slice(&[0; 2]);
        out
    }

    /// Text that repeats itself as markup does.
    pub(crate) fn markup(bytes: usize, seed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut state = seed;
        while out.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (style, word) = (state >> 60, state >> 40 & 0xfff);
            write!(out, "<w:r><w:rPr><w:b w:val=\"{style}\"/></w:rPr><w:t>word{word:x}</w:t></w:r>").unwrap();
        }
        out.truncate(bytes);
        out
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    /// Back from any expanded stream, in pieces of `step`.
    fn collapse(expanded: &[u8], announced: u64, step: usize) -> Result<Vec<u8>, Failed<()>> {
        let mut collapser = Collapser::new(announced);
        let mut out = Vec::new();
        for piece in expanded.chunks(step) {
            collapser.push(piece, |bytes| {
                out.extend_from_slice(bytes);
                if out.len() > 8 << 20 { Err(()) } else { Ok(()) }
            })?;
        }
        collapser.finish().map_err(Failed::Stream)?;
        Ok(out)
    }

    #[test]
    fn a_container_comes_back_bit_for_bit_whatever_effort_its_writer_made() {
        let (text, media) = (markup(300_000, 1), noise(70_000));
        let members: [(&str, &[u8]); 5] =
            [("a.xml", &markup(900, 2)), ("word/document.xml", &text), ("m.png", &media), ("none", b""), ("b", b"b")];
        for level in 0..=9 {
            for later in [false, true] {
                let content = container(&members, level, later);
                let expanded = expand(&content);
                // Nothing is gained where nothing was compressed.
                assert_eq!(expanded.is_some(), level > 0, "level {level}");
                let Some(expanded) = expanded else { continue };
                assert!(expanded.windows(text.len()).any(|w| w == text), "level {level}: the text in the clear");
                let more = expanded.len() - text.len() - media.len();
                assert!(more < 4_000, "level {level}: {more} bytes besides");
                for step in [1, 1_000, usize::MAX] {
                    let back = collapse(&expanded, expanded.len() as u64, step).unwrap();
                    assert!(back == content, "level {level} in steps of {step}");
                }
            }
        }
    }

    #[test]
    fn what_zlib_wrote_needs_no_more_than_its_tables() {
        let content = container(&[("word/document.xml", &markup(300_000, 3))], 6, false);
        let expanded = expand(&content).unwrap();
        let more = expanded.len() - 300_000;
        assert!(more < 700, "{more} bytes besides the text");
    }

    #[test]
    fn a_bomb_is_kept_whole() {
        let zeros = vec![0; 30 << 20];
        let content = container(&[("bomb", &zeros)], 9, false);
        assert!(content.len() < 100_000);
        assert!(expand(&content).is_none());
        // A hundred that would each be small enough are not inflated one after the other for nothing.
        let many: Vec<(&str, &[u8])> = (0..100).map(|_| ("bomb", &zeros[..2 << 20])).collect();
        let content = container(&many, 9, false);
        let ratio = expand(&content).map_or(0, |e| e.len() / content.len());
        assert!(ratio <= RATIO_MAX, "{ratio} times");
    }

    #[test]
    fn a_stream_that_announces_much_is_refused_before_it_is_held() {
        let mut stream = vec![0];
        put_varint(&mut stream, 60 << 20);
        assert!(collapse(&stream, stream.len() as u64, 1).is_err(), "more than the stream has");
        assert!(collapse(&stream, 100 << 20, 1).is_err(), "the stream ends");
        let mut stream = vec![0];
        put_varint(&mut stream, CONTAINER_BYTES_MAX as u64 + 1);
        assert!(collapse(&stream, u64::MAX, 1).is_err(), "more than a container may have");
    }

    #[test]
    fn the_form_is_the_one_that_other_nodes_read() {
        // Bytes of the first release: a change here is a new coding with a number of its own.
        let content = container(&[("a", b"abcabcabcabcabcabcabcabd")], 6, false);
        let expanded = expand(&content).expect("expands");
        let from = MAGIC.len() + 26 + 1;
        assert_eq!(expanded[0] as usize, from);
        assert_eq!(&expanded[1..=from], &content[..from]);
        let member = [&[24, 5][..], &[0, 3, 6, 6, 0], b"abcabcabcabcabcabcabcabd"].concat();
        assert_eq!(&expanded[from + 1..from + 1 + member.len()], member);
    }

    #[derive(Clone, Debug)]
    enum Change {
        Set(prop::sample::Index, u8),
        Cut(prop::sample::Index),
        Insert(prop::sample::Index, Vec<u8>),
        Repeat(prop::sample::Index),
    }

    fn change() -> impl Strategy<Value = Change> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
            at().prop_map(Change::Cut),
            (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
            at().prop_map(Change::Repeat),
        ]
    }

    fn changed(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
        for change in changes {
            let place = |at: prop::sample::Index| if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
            match change {
                Change::Set(at, byte) => {
                    let at = place(at);
                    if let Some(place) = bytes.get_mut(at) {
                        *place = byte;
                    }
                }
                Change::Cut(at) => bytes.truncate(place(at).max(MAGIC.len())),
                Change::Insert(at, new) => {
                    let at = place(at);
                    bytes.splice(at..at, new);
                }
                Change::Repeat(at) => bytes.extend_from_within(place(at)..),
            }
        }
        bytes
    }

    fn any_container() -> impl Strategy<Value = Vec<u8>> {
        let member = prop_oneof![
            (0usize..6_000, any::<u64>()).prop_map(|(len, seed)| markup(len, seed)),
            prop::collection::vec(any::<u8>(), 0..800),
            (any::<u8>(), 0usize..70_000).prop_map(|(byte, len)| vec![byte; len]),
        ];
        (prop::collection::vec(member, 0..5), 0u32..=9, any::<bool>()).prop_map(|(members, level, later)| {
            let members: Vec<(&str, &[u8])> = members.iter().map(|m| ("name.xml", m.as_slice())).collect();
            container(&members, level, later)
        })
    }

    proptest! {
        // Each makes several containers and tries every guesser on them.
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever it is made of: expanded it comes back, or it is kept whole.
        #[test]
        fn any_container_comes_back_or_is_kept_whole(
            content in any_container(),
            changes in prop::collection::vec(change(), 0..6),
            step in 1usize..5_000,
        ) {
            let content = changed(content, changes);
            if let Some(expanded) = expand(&content) {
                prop_assert!(expanded.len() <= content.len() * RATIO_MAX);
                let back = collapse(&expanded, expanded.len() as u64, step);
                prop_assert!(back.is_ok_and(|back| back == content));
            }
        }

        /// A stream from outside may hold anything: it is refused or gives bytes, within its caps.
        #[test]
        fn a_changed_stream_is_refused_or_gives_some_bytes(
            content in any_container(),
            changes in prop::collection::vec(change(), 1..6),
            step in 1usize..5_000,
        ) {
            if let Some(expanded) = expand(&content) {
                let stream = changed(expanded, changes);
                let _ = collapse(&stream, stream.len() as u64, step);
            }
        }

        #[test]
        fn noise_is_no_stream_that_harms(noise in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = collapse(&noise, noise.len() as u64, 7);
            let _ = expand(&[MAGIC.as_slice(), &noise].concat());
        }
    }
}
