//! DEFLATE (RFC 1951) seen as its decisions: blocks, code tables and tokens, read and written bit by bit.
//!
//! ```text
//!  stream --Parser--> block head, tokens, block head, tokens ...      --Writer--> the same stream
//!                          `--> plain bytes
//! ```
//! An inflater of the usual kind forgets which of the many equal streams it read. Here everything that tells one from
//! another is kept: written again, the decisions give the same bits.

use std::sync::LazyLock;

/// Longest match.
pub(crate) const MATCH_LEN_MAX: usize = 258;
/// Shortest match.
pub(crate) const MATCH_LEN_MIN: usize = 3;
/// How far back a match may lie.
pub(crate) const WINDOW: usize = 32 << 10;

/// The bytes are no DEFLATE stream, or one that is written in a way which is not reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotDeflate;

/// What stands for the next plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// One byte as it is.
    Literal,
    /// `len` bytes that stood `dist` bytes before.
    Match {
        /// 3..=258.
        len: u16,
        /// 1..=32768.
        dist: u16,
    },
}

impl Token {
    /// Plain bytes that it stands for.
    pub(crate) fn plain_len(self) -> usize {
        match self {
            Self::Literal => 1,
            Self::Match { len, .. } => usize::from(len),
        }
    }
}

/// How a block's tokens are coded.
#[derive(Clone, Debug)]
pub(crate) enum BlockKind {
    /// Bytes as they are, and the bits that fill the byte before them.
    Stored {
        /// Plain bytes.
        len: u16,
        /// The filling bits; zero by every sane writer.
        padding: u8,
    },
    /// The code tables of the standard.
    Fixed,
    /// Code tables of its own, as the bits that describe them.
    Dynamic(TableBits),
}

/// The description of a block's code tables, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableBits {
    /// How many bits count.
    pub(crate) bits: usize,
    /// The bits, least significant first.
    pub(crate) bytes: Vec<u8>,
}

/// The most that a description takes: 14 bits, 19 x 3, and 320 lengths of at most 7 + 7 bits.
pub(crate) const TABLE_BITS_MAX: usize = 14 + 57 + 320 * 14;

const LEN_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LEN_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DIST_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
const DIST_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const LENGTHS_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const END_OF_BLOCK: u16 = 256;
const CODE_LEN_MAX: usize = 15;

static FIXED: LazyLock<Tables> = LazyLock::new(|| {
    let mut lengths = [8u8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Tables { literals: Code::new(&lengths).expect("RFC 1951 3.2.6"), distances: Code::new(&[5; 30]).expect("RFC 1951") }
});

/// Both code tables of a block.
pub(crate) struct Tables {
    literals: Code,
    distances: Code,
}

impl Tables {
    /// Those of the standard.
    pub(crate) fn fixed() -> &'static Self {
        &FIXED
    }

    /// Reads a description.
    fn read(bits: &mut BitReader<'_>) -> Result<Self, NotDeflate> {
        let literal_count = bits.take(5)? as usize + 257;
        let distance_count = bits.take(5)? as usize + 1;
        let length_count = bits.take(4)? as usize + 4;
        if literal_count > 286 || distance_count > 30 {
            return Err(NotDeflate);
        }
        let mut lengths = [0u8; 19];
        for at in &LENGTHS_ORDER[..length_count] {
            lengths[*at] = bits.take(3)? as u8;
        }
        let code = Code::new(&lengths)?;
        let mut all = [0u8; 286 + 30];
        let total = literal_count + distance_count;
        let mut at = 0;
        while at < total {
            let symbol = code.read(bits)?;
            let (value, times) = match symbol {
                0..=15 => (symbol as u8, 1),
                16 => (*all[..at].last().ok_or(NotDeflate)?, 3 + bits.take(2)? as usize),
                17 => (0, 3 + bits.take(3)? as usize),
                _ => (0, 11 + bits.take(7)? as usize),
            };
            all.get_mut(at..at + times).filter(|_| at + times <= total).ok_or(NotDeflate)?.fill(value);
            at += times;
        }
        let (literals, distances) = all[..total].split_at(literal_count);
        Ok(Self { literals: Code::new(literals)?, distances: Code::new(distances)? })
    }

    /// The tables that a description gives; all of its bits count.
    pub(crate) fn from_bits(described: &TableBits) -> Result<Self, NotDeflate> {
        let mut bits = BitReader::new(&described.bytes);
        let tables = Self::read(&mut bits)?;
        if bits.at() == described.bits { Ok(tables) } else { Err(NotDeflate) }
    }
}

/// A canonical Huffman code, for both directions.
struct Code {
    /// Index: the next 9 bits of the stream. Symbol and length; length 0 where the code is longer or unknown.
    quick: Vec<(u16, u8)>,
    /// How many codes each length has.
    counts: [u16; CODE_LEN_MAX + 1],
    /// Symbols in the order of their codes.
    symbols: Vec<u16>,
    /// For each symbol its code, ready for least-significant-first writing, and its length; 0 for none.
    codes: Vec<(u16, u8)>,
}

const QUICK_BITS: usize = 9;

impl Code {
    fn new(lengths: &[u8]) -> Result<Self, NotDeflate> {
        let mut counts = [0u16; CODE_LEN_MAX + 1];
        for len in lengths {
            counts[usize::from(*len)] += 1;
        }
        counts[0] = 0;
        let mut left = 1i32;
        for count in &counts[1..] {
            left = (left << 1) - i32::from(*count);
            if left < 0 {
                return Err(NotDeflate);
            }
        }
        // A code with gaps is legal only for one or no symbol; others are read all the same, a gap is noticed when met.
        let mut next = [0u16; CODE_LEN_MAX + 1];
        let mut first = [0u16; CODE_LEN_MAX + 1];
        for len in 1..CODE_LEN_MAX {
            next[len + 1] = (next[len] + counts[len]) << 1;
            first[len + 1] = first[len] + counts[len];
        }
        let mut symbols = vec![0; usize::from(first[CODE_LEN_MAX] + counts[CODE_LEN_MAX])];
        let mut codes = vec![(0, 0); lengths.len()];
        let mut quick = vec![(0, 0); 1 << QUICK_BITS];
        for (symbol, len) in lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
            let at = usize::from(*len);
            let code = next[at].reverse_bits() >> (16 - at);
            next[at] += 1;
            symbols[usize::from(first[at])] = symbol as u16;
            first[at] += 1;
            codes[symbol] = (code, *len);
            if at <= QUICK_BITS {
                for index in (usize::from(code)..1 << QUICK_BITS).step_by(1 << at) {
                    quick[index] = (symbol as u16, *len);
                }
            }
        }
        Ok(Self { quick, counts, symbols, codes })
    }

    fn read(&self, bits: &mut BitReader<'_>) -> Result<u16, NotDeflate> {
        let ahead = bits.peek();
        let (symbol, len) = self.quick[ahead as usize & ((1 << QUICK_BITS) - 1)];
        if len > 0 {
            bits.skip(usize::from(len))?;
            return Ok(symbol);
        }
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for (len, count) in self.counts.iter().enumerate().skip(1) {
            code |= (ahead >> (len - 1)) as i32 & 1;
            let count = i32::from(*count);
            if code - count < first {
                bits.skip(len)?;
                return self.symbols.get((index + code - first) as usize).copied().ok_or(NotDeflate);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(NotDeflate)
    }

    fn write(&self, symbol: u16, out: &mut BitWriter) -> Result<(), NotDeflate> {
        let (code, len) = self.codes.get(usize::from(symbol)).copied().filter(|(_, len)| *len > 0).ok_or(NotDeflate)?;
        out.put(u64::from(code), usize::from(len));
        Ok(())
    }
}

/// Bits of a byte string, least significant first.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// At least 32 bits from here on; zeros beyond the end.
    fn peek(&self) -> u64 {
        let from = self.at / 8;
        let word = match self.bytes.get(from..from + 8) {
            Some(eight) => u64::from_le_bytes(eight.try_into().expect("eight bytes")),
            None => {
                let mut word = [0; 8];
                let rest = self.bytes.get(from..).unwrap_or_default();
                word[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(word)
            }
        };
        word >> (self.at % 8)
    }

    fn skip(&mut self, bits: usize) -> Result<(), NotDeflate> {
        self.at += bits;
        if self.at <= self.bytes.len() * 8 { Ok(()) } else { Err(NotDeflate) }
    }

    /// At most 16 bits.
    fn take(&mut self, bits: usize) -> Result<u16, NotDeflate> {
        let value = self.peek() & ((1 << bits) - 1);
        self.skip(bits)?;
        Ok(value as u16)
    }

    /// The bits up to the next whole byte.
    fn take_padding(&mut self) -> Result<u8, NotDeflate> {
        Ok(self.take((8 - self.at % 8) % 8)? as u8)
    }

    fn copy(&self, from: usize, to: usize) -> TableBits {
        let mut out = BitWriter::default();
        let mut reader = Self { bytes: self.bytes, at: from };
        while reader.at < to {
            let bits = (to - reader.at).min(16);
            out.put(reader.peek() & ((1 << bits) - 1), bits);
            reader.at += bits;
        }
        out.put_padding(0);
        TableBits { bits: to - from, bytes: out.bytes }
    }
}

/// Writes bits, least significant first.
#[derive(Default)]
pub(crate) struct BitWriter {
    pub(crate) bytes: Vec<u8>,
    pending: u64,
    pending_bits: usize,
}

impl BitWriter {
    /// At most 48 bits.
    pub(crate) fn put(&mut self, value: u64, bits: usize) {
        self.pending |= value << self.pending_bits;
        self.pending_bits += bits;
        while self.pending_bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// Fills the last byte with bits of `padding`.
    pub(crate) fn put_padding(&mut self, padding: u8) {
        let bits = (8 - self.pending_bits % 8) % 8;
        self.put(u64::from(padding) & ((1 << bits) - 1), bits);
    }

    /// Copies a description of tables.
    pub(crate) fn put_table(&mut self, table: &TableBits) {
        let mut left = table.bits;
        for byte in &table.bytes {
            let bits = left.min(8);
            self.put(u64::from(*byte) & ((1 << bits) - 1), bits);
            left -= bits;
        }
    }

    /// A token of a block with these tables; `literal` is the byte at its place.
    pub(crate) fn put_token(&mut self, tables: &Tables, token: Token, literal: u8) -> Result<(), NotDeflate> {
        match token {
            Token::Literal => tables.literals.write(u16::from(literal), self),
            Token::Match { len, dist } => {
                let at = LEN_BASE.partition_point(|base| *base <= len) - 1;
                tables.literals.write(257 + at as u16, self)?;
                self.put(u64::from(len - LEN_BASE[at]), usize::from(LEN_EXTRA[at]));
                let at = DIST_BASE.partition_point(|base| *base <= dist) - 1;
                tables.distances.write(at as u16, self)?;
                self.put(u64::from(dist - DIST_BASE[at]), usize::from(DIST_EXTRA[at]));
                Ok(())
            }
        }
    }

    pub(crate) fn put_end_of_block(&mut self, tables: &Tables) -> Result<(), NotDeflate> {
        tables.literals.write(END_OF_BLOCK, self)
    }
}

/// What reading a stream meets, in order.
pub(crate) trait Visitor {
    /// A block begins.
    fn block(&mut self, last: bool, kind: BlockKind) -> Result<(), NotDeflate>;
    /// The next token of the block.
    fn token(&mut self, token: Token) -> Result<(), NotDeflate>;
}

/// Reads a stream from the start of `bytes` to its end, appending at most `plain_max` plain bytes to `plain`.
/// Returns the stream's length and the bits that fill its last byte.
pub(crate) fn parse(
    bytes: &[u8],
    plain: &mut Vec<u8>,
    plain_max: usize,
    visitor: &mut impl Visitor,
) -> Result<(usize, u8), NotDeflate> {
    let mut bits = BitReader::new(bytes);
    let begin = plain.len();
    loop {
        let last = bits.take(1)? == 1;
        let own_tables;
        let tables = match bits.take(2)? {
            0 => {
                let padding = bits.take_padding()?;
                let len = bits.take(16)?;
                if bits.take(16)? != !len {
                    return Err(NotDeflate);
                }
                let from = bits.at / 8;
                let stored = bytes.get(from..from + usize::from(len)).ok_or(NotDeflate)?;
                if plain.len() - begin + stored.len() > plain_max {
                    return Err(NotDeflate);
                }
                visitor.block(last, BlockKind::Stored { len, padding })?;
                plain.extend_from_slice(stored);
                bits.skip(stored.len() * 8)?;
                None
            }
            1 => {
                visitor.block(last, BlockKind::Fixed)?;
                Some(Tables::fixed())
            }
            2 => {
                let from = bits.at;
                own_tables = Tables::read(&mut bits)?;
                visitor.block(last, BlockKind::Dynamic(bits.copy(from, bits.at)))?;
                Some(&own_tables)
            }
            _ => return Err(NotDeflate),
        };
        while let Some(tables) = tables {
            let symbol = tables.literals.read(&mut bits)?;
            let room = plain_max - (plain.len() - begin);
            if symbol < END_OF_BLOCK {
                if room == 0 {
                    return Err(NotDeflate);
                }
                plain.push(symbol as u8);
                visitor.token(Token::Literal)?;
                continue;
            }
            if symbol == END_OF_BLOCK {
                break;
            }
            let at = usize::from(symbol - END_OF_BLOCK - 1);
            let (base, extra) = LEN_BASE.get(at).zip(LEN_EXTRA.get(at)).ok_or(NotDeflate)?;
            let len = base + bits.take(usize::from(*extra))?;
            // 258 has a symbol of its own; written as 227 + 31 it is not reproduced.
            if usize::from(len) == MATCH_LEN_MAX && *extra > 0 {
                return Err(NotDeflate);
            }
            let at = usize::from(tables.distances.read(&mut bits)?);
            let (base, extra) = DIST_BASE.get(at).zip(DIST_EXTRA.get(at)).ok_or(NotDeflate)?;
            let dist = base + bits.take(usize::from(*extra))?;
            let from = (plain.len() - begin).checked_sub(usize::from(dist)).ok_or(NotDeflate)? + begin;
            if room < usize::from(len) {
                return Err(NotDeflate);
            }
            if dist >= len {
                plain.extend_from_within(from..from + usize::from(len));
            } else {
                for at in from..from + usize::from(len) {
                    plain.push(plain[at]);
                }
            }
            visitor.token(Token::Match { len, dist })?;
        }
        if last {
            let padding = bits.take_padding()?;
            return Ok((bits.at / 8, padding));
        }
    }
}
