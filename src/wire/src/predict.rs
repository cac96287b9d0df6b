//! A compressor's decisions, guessed from the plain bytes: what is left to write down is where the guess was wrong.
//!
//! ```text
//!  DEFLATE stream --> plain bytes + recipe --> the same stream
//!
//!  recipe   guesser u8 | block ... | padding u8
//!  block    last u8 bit 0, kind u8 bits 1-2
//!           | kind 0 (stored): length, padding u8
//!           | kind 2 (own tables): bits of the tables, their bytes
//!           | kinds 1 and 2: tokens, then until they are used up: guesses that were right [, the token instead]
//!  token    0 literal | length - 2, distance
//! ```
//! Numbers are minimal varints. The guesser does what zlib does at one of its levels, to the order in which it looks at
//! candidates: for what zlib made the recipe is the block heads alone, and other writers differ here and there. A
//! wrong guess costs bytes, never correctness: the recipe is proven by rebuilding before it is used.

use crate::deflate::{
    BitWriter, BlockKind, MATCH_LEN_MAX, MATCH_LEN_MIN, NotDeflate, TABLE_BITS_MAX, TableBits, Tables, Token, Visitor,
    WINDOW, parse,
};
use crate::reader::{Reader, put_varint};

/// Places that may be looked at for one container, so that no content costs more than some seconds.
pub(crate) const STEPS_MAX: u64 = 2_000_000_000;

/// Tokens of one stream: 32 MiB in memory. What needs more is hardly compressed, or larger than what is expanded.
const TOKENS_MAX: usize = 8 << 20;

/// Tokens on which guessers are compared.
const TRIAL_TOKENS: usize = 8 << 10;

/// How one compressor looks for matches: a row of zlib's `configuration_table`, and the size of its hash.
#[derive(Clone, Copy, Debug)]
struct Habit {
    /// A match this long before makes it look at a quarter of the candidates.
    good: usize,
    /// A match this long makes it not look for a better one at the next byte (lazy), or not note the bytes inside (greedy).
    lazy: usize,
    /// A match this long is taken at once.
    nice: usize,
    /// Candidates looked at.
    chain: u32,
    /// Looks one byte ahead before it takes a match.
    is_lazy: bool,
    /// Bits of the hash; more candidates share a smaller one.
    hash_bits: u32,
}

const fn habit(good: usize, lazy: usize, nice: usize, chain: u32, is_lazy: bool, hash_bits: u32) -> Habit {
    Habit { good, lazy, nice, chain, is_lazy, hash_bits }
}

/// The recipe names them by index: only ever append. In the order in which they are tried: usual ones first.
const HABITS: [Habit; 18] = [
    habit(8, 16, 128, 128, true, 15),
    habit(32, 258, 258, 4096, true, 15),
    habit(4, 4, 8, 4, false, 15),
    habit(8, 32, 128, 256, true, 15),
    habit(8, 16, 32, 32, true, 15),
    habit(4, 4, 16, 16, true, 15),
    habit(4, 6, 32, 32, false, 15),
    habit(4, 5, 16, 8, false, 15),
    habit(32, 128, 258, 1024, true, 15),
    habit(8, 16, 128, 128, true, 16),
    habit(32, 258, 258, 4096, true, 16),
    habit(4, 4, 8, 4, false, 16),
    habit(8, 32, 128, 256, true, 16),
    habit(8, 16, 32, 32, true, 16),
    habit(4, 4, 16, 16, true, 16),
    habit(4, 6, 32, 32, false, 16),
    habit(4, 5, 16, 8, false, 16),
    habit(32, 128, 258, 1024, true, 16),
];

/// What is left of [`STEPS_MAX`].
#[derive(Debug)]
pub(crate) struct Steps(u64);

impl Steps {
    pub(crate) fn new() -> Self {
        Self(STEPS_MAX)
    }

    fn take(&mut self, steps: usize) -> Result<(), NotDeflate> {
        self.0 = self.0.checked_sub(steps as u64).ok_or(NotDeflate)?;
        Ok(())
    }
}

/// A stream that can be rebuilt from its plain bytes.
pub(crate) struct Explained {
    /// Bytes of the stream.
    pub(crate) len: usize,
    pub(crate) recipe: Vec<u8>,
}

/// Explains streams; remembers who wrote the last one, since those of one container have one writer.
pub(crate) struct Explainer {
    steps: Steps,
    last_habit: usize,
}

impl Explainer {
    pub(crate) fn new() -> Self {
        Self { steps: Steps::new(), last_habit: 0 }
    }

    /// Reads the stream at the start of `bytes` and appends its plain bytes, at most `plain_max`, to `plain`, which is
    /// left with anything when this fails.
    pub(crate) fn explain(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        plain_max: usize,
    ) -> Result<Explained, NotDeflate> {
        let begin = plain.len();
        let mut found = Collected::default();
        let (len, padding) = parse(bytes, plain, plain_max, &mut found)?;
        let plain = &plain[begin..];
        self.steps.take(plain.len())?;
        let habit = self.best_habit(&found, plain)?;
        self.last_habit = habit;
        let mut recipe = vec![habit as u8];
        let mut guesser = Guesser::new(plain, HABITS[habit]);
        let mut tokens = found.tokens.iter();
        for block in &found.blocks {
            put_block_head(block, &mut recipe);
            if let BlockKind::Stored { len, .. } = block.kind {
                guesser.pass(usize::from(len));
                continue;
            }
            put_varint(&mut recipe, block.tokens as u64);
            let mut right = 0;
            for token in tokens.by_ref().take(block.tokens) {
                let token = unpack(*token);
                let guess = guesser.guess(&mut self.steps)?;
                guesser.accept(guess, token);
                if guess == token {
                    right += 1;
                    continue;
                }
                put_varint(&mut recipe, right);
                right = 0;
                match token {
                    Token::Literal => put_varint(&mut recipe, 0),
                    Token::Match { len, dist } => {
                        put_varint(&mut recipe, u64::from(len) - 2);
                        put_varint(&mut recipe, u64::from(dist));
                    }
                }
            }
            if right > 0 {
                put_varint(&mut recipe, right);
            }
        }
        recipe.push(padding);
        Ok(Explained { len, recipe })
    }

    fn best_habit(&mut self, found: &Collected, plain: &[u8]) -> Result<usize, NotDeflate> {
        let usual = self.last_habit;
        let mut best = (usize::MAX, usual);
        for habit in std::iter::once(usual).chain((0..HABITS.len()).filter(|habit| *habit != usual)) {
            let wrong = self.wrong_guesses(found, plain, HABITS[habit], best.0)?;
            if wrong < best.0 {
                best = (wrong, habit);
            }
            if wrong == 0 {
                break;
            }
        }
        Ok(best.1)
    }

    fn wrong_guesses(
        &mut self,
        found: &Collected,
        plain: &[u8],
        habit: Habit,
        enough: usize,
    ) -> Result<usize, NotDeflate> {
        let mut guesser = Guesser::new(plain, habit);
        let mut tokens = found.tokens.iter().take(TRIAL_TOKENS);
        let mut wrong = 0;
        for block in &found.blocks {
            if let BlockKind::Stored { len, .. } = block.kind {
                guesser.pass(usize::from(len));
                continue;
            }
            for token in tokens.by_ref().take(block.tokens) {
                let guess = guesser.guess(&mut self.steps)?;
                guesser.accept(guess, unpack(*token));
                wrong += usize::from(guess != unpack(*token));
            }
            if wrong >= enough {
                break;
            }
        }
        Ok(wrong)
    }
}

/// Rebuilds a stream from its plain bytes; its bytes go to `write` in pieces of at most some 64 KiB.
///
/// # Errors
/// When the recipe does not fit the plain bytes, or `write` refuses.
pub(crate) fn rebuild<E: From<NotDeflate>>(
    plain: &[u8],
    recipe: &[u8],
    steps: &mut Steps,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let bad = |_| NotDeflate;
    let mut recipe = Reader::new(recipe, "a recipe");
    let habit = HABITS.get(usize::from(recipe.u8().map_err(bad)?)).ok_or(NotDeflate)?;
    steps.take(plain.len())?;
    let mut guesser = Guesser::new(plain, *habit);
    let mut out = BitWriter::default();
    loop {
        let head = recipe.u8().map_err(bad)?;
        let (last, kind) = (head & 1, head >> 1);
        out.put(u64::from(head & 0b111), 3);
        let own_tables;
        let tables = match kind {
            0 => {
                let len = recipe.varint().map_err(bad)?;
                let len = u16::try_from(len).map_err(|_| NotDeflate)?;
                out.put_padding(recipe.u8().map_err(bad)?);
                out.put(u64::from(len), 16);
                out.put(u64::from(!len), 16);
                let stored = plain.get(guesser.at..guesser.at + usize::from(len)).ok_or(NotDeflate)?;
                out.bytes.extend_from_slice(stored);
                guesser.pass(stored.len());
                None
            }
            1 => Some(Tables::fixed()),
            2 => {
                let bits = recipe.capped("a block's tables", TABLE_BITS_MAX).map_err(bad)?;
                let bytes = recipe.take(bits.div_ceil(8)).map_err(bad)?.to_vec();
                let described = TableBits { bits, bytes };
                own_tables = Tables::from_bits(&described)?;
                out.put_table(&described);
                Some(&own_tables)
            }
            _ => return Err(NotDeflate.into()),
        };
        if let Some(tables) = tables {
            let mut left = recipe.capped("a block's tokens", plain.len() - guesser.at).map_err(bad)?;
            while left > 0 {
                let right = recipe.capped("right guesses", left).map_err(bad)?;
                for _ in 0..right {
                    let guess = guesser.guess(steps)?;
                    guesser.write(tables, guess, guess, &mut out)?;
                    if out.bytes.len() >= 32 << 10 {
                        write(&out.bytes)?;
                        out.bytes.clear();
                    }
                }
                left -= right;
                if left == 0 {
                    break;
                }
                let token = match recipe.capped("a match", MATCH_LEN_MAX - 2).map_err(bad)? {
                    0 => Token::Literal,
                    len => {
                        let dist = recipe.capped("a distance", WINDOW).map_err(bad)?.max(1);
                        Token::Match { len: len as u16 + 2, dist: dist as u16 }
                    }
                };
                let guess = guesser.guess(steps)?;
                guesser.write(tables, guess, token, &mut out)?;
                left -= 1;
            }
            out.put_end_of_block(tables)?;
        }
        if out.bytes.len() >= 32 << 10 {
            write(&out.bytes)?;
            out.bytes.clear();
        }
        if last == 1 {
            break;
        }
    }
    out.put_padding(recipe.u8().map_err(bad)?);
    if guesser.at != plain.len() || !recipe.is_empty() {
        return Err(NotDeflate.into());
    }
    write(&out.bytes)
}

fn put_block_head(block: &Block, recipe: &mut Vec<u8>) {
    let last = u8::from(block.last);
    match &block.kind {
        BlockKind::Stored { len, padding } => {
            recipe.push(last);
            put_varint(recipe, u64::from(*len));
            recipe.push(*padding);
        }
        BlockKind::Fixed => recipe.push(last | 1 << 1),
        BlockKind::Dynamic(table) => {
            recipe.push(last | 2 << 1);
            put_varint(recipe, table.bits as u64);
            recipe.extend_from_slice(&table.bytes);
        }
    }
}

struct Block {
    last: bool,
    kind: BlockKind,
    tokens: usize,
}

/// All decisions of a stream.
#[derive(Default)]
struct Collected {
    blocks: Vec<Block>,
    /// Packed: 0 literal, else length and distance.
    tokens: Vec<u32>,
}

impl Visitor for Collected {
    fn block(&mut self, last: bool, kind: BlockKind) -> Result<(), NotDeflate> {
        // Empty blocks cost their writer 10 bits each and us a hundred bytes.
        if self.blocks.len() >= TOKENS_MAX / 64 {
            return Err(NotDeflate);
        }
        self.blocks.push(Block { last, kind, tokens: 0 });
        Ok(())
    }

    fn token(&mut self, token: Token) -> Result<(), NotDeflate> {
        if self.tokens.len() >= TOKENS_MAX {
            return Err(NotDeflate);
        }
        self.tokens.push(match token {
            Token::Literal => 0,
            Token::Match { len, dist } => u32::from(len) << 16 | u32::from(dist),
        });
        if let Some(block) = self.blocks.last_mut() {
            block.tokens += 1;
        }
        Ok(())
    }
}

fn unpack(token: u32) -> Token {
    match token {
        0 => Token::Literal,
        packed => Token::Match { len: (packed >> 16) as u16, dist: packed as u16 },
    }
}

/// A match that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Candidate {
    len: usize,
    dist: usize,
}

const NONE: Candidate = Candidate { len: MATCH_LEN_MIN - 1, dist: 0 };

/// zlib's `MAX_DIST`: it never looks further back.
const DIST_MAX: usize = WINDOW - 262;
/// Lazy levels do not take three bytes from further back than this.
const TOO_FAR: usize = 4096;

/// Guesses one token after the other.
struct Guesser<'a> {
    plain: &'a [u8],
    habit: Habit,
    /// The next token begins here.
    at: usize,
    /// Places before this one are noted.
    noted: usize,
    /// By hash: the newest place; 0 for none, which like in zlib hides the very first place.
    newest: Vec<u32>,
    /// By place modulo the window: the place before it with the same hash.
    before: Vec<u32>,
    /// What was found at `at` when the guess before looked ahead.
    ahead: Option<Candidate>,
}

impl<'a> Guesser<'a> {
    fn new(plain: &'a [u8], habit: Habit) -> Self {
        // Short streams come in thousands: no larger tables than they can fill.
        let before = vec![0; WINDOW.min(plain.len().next_power_of_two())];
        Self { plain, habit, at: 0, noted: 0, newest: vec![0; 1 << habit.hash_bits], before, ahead: None }
    }

    fn hash(&self, at: usize) -> Option<usize> {
        let shift = self.habit.hash_bits.div_ceil(3);
        let three = self.plain.get(at..at + MATCH_LEN_MIN)?;
        let [a, b, c] = [three[0], three[1], three[2]].map(usize::from);
        Some(((a << (2 * shift)) ^ (b << shift) ^ c) & ((1 << self.habit.hash_bits) - 1))
    }

    fn note_up_to(&mut self, end: usize) {
        while self.noted < end {
            if let Some(hash) = self.hash(self.noted) {
                let slot = self.noted & (self.before.len() - 1);
                self.before[slot] = self.newest[hash];
                self.newest[hash] = self.noted as u32;
            }
            self.noted += 1;
        }
    }

    /// Looks for a match at `at` that is longer than `than`.
    fn look(&mut self, at: usize, than: usize, steps: &mut Steps) -> Result<Candidate, NotDeflate> {
        self.note_up_to(at);
        let none = Candidate { len: than, dist: 0 };
        let Some(hash) = self.hash(at) else { return Ok(none) };
        let mut place = self.newest[hash] as usize;
        if place == 0 || at - place > DIST_MAX {
            return Ok(none);
        }
        let ahead = &self.plain[at..self.plain.len().min(at + MATCH_LEN_MAX)];
        let nice = self.habit.nice.min(self.plain.len() - at);
        let mut left = if than >= self.habit.good { self.habit.chain >> 2 } else { self.habit.chain };
        let lowest = at.saturating_sub(DIST_MAX);
        let mut best = none;
        let mut looked = 0;
        while best.len < ahead.len() {
            looked += 1;
            // Most candidates fail at the byte that would make them longer.
            if self.plain[place + best.len] == ahead[best.len] {
                let here = &self.plain[place..];
                let len = ahead.iter().zip(here).take_while(|(a, b)| a == b).count();
                looked += len / 8;
                if len > best.len {
                    best = Candidate { len, dist: at - place };
                    if len >= nice {
                        break;
                    }
                }
            }
            place = self.before[place & (self.before.len() - 1)] as usize;
            left -= 1;
            if place <= lowest || left == 0 {
                break;
            }
        }
        steps.take(looked)?;
        Ok(best)
    }

    /// As [`Self::look`], with what zlib's lazy levels decline.
    fn look_lazy(&mut self, at: usize, than: usize, steps: &mut Steps) -> Result<Candidate, NotDeflate> {
        if than >= self.habit.lazy {
            return Ok(NONE);
        }
        let found = self.look(at, than, steps)?;
        Ok(if found.len == MATCH_LEN_MIN && found.dist > TOO_FAR { NONE } else { found })
    }

    fn guess(&mut self, steps: &mut Steps) -> Result<Token, NotDeflate> {
        let at = self.at;
        let ahead = self.ahead.take();
        if !self.habit.is_lazy {
            let found = self.look(at, NONE.len, steps)?;
            return Ok(if found.len > NONE.len { token(found) } else { Token::Literal });
        }
        let found = match ahead {
            Some(found) => found,
            None => self.look_lazy(at, NONE.len, steps)?,
        };
        if found.len <= NONE.len {
            return Ok(Token::Literal);
        }
        let next = self.look_lazy(at + 1, found.len, steps)?;
        if next.len > found.len {
            self.ahead = Some(next);
            return Ok(Token::Literal);
        }
        Ok(token(found))
    }

    /// Goes on from what was really chosen.
    fn accept(&mut self, guess: Token, real: Token) {
        let end = self.at + real.plain_len();
        if guess != real || real != Token::Literal {
            self.ahead = None;
        }
        let notes_all = self.habit.is_lazy || real.plain_len() <= self.habit.lazy;
        if notes_all {
            self.note_up_to(end);
        } else {
            // Greedy levels note only the first byte of a long match.
            self.note_up_to(self.at + 1);
            self.noted = end;
        }
        self.at = end;
    }

    /// Passes bytes that no token stands for.
    fn pass(&mut self, len: usize) {
        self.ahead = None;
        self.at += len;
        self.note_up_to(self.at);
    }

    fn write(&mut self, tables: &Tables, guess: Token, real: Token, out: &mut BitWriter) -> Result<(), NotDeflate> {
        let literal = *self.plain.get(self.at).ok_or(NotDeflate)?;
        if self.at + real.plain_len() > self.plain.len() {
            return Err(NotDeflate);
        }
        self.accept(guess, real);
        out.put_token(tables, real, literal)
    }
}

fn token(found: Candidate) -> Token {
    Token::Match { len: found.len as u16, dist: found.dist as u16 }
}
