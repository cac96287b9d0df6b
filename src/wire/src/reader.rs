//! Reading and writing the primitive parts of a layout: minimal varints and length-prefixed bytes.

use crate::WireError;

/// Cursor over bytes from outside.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which are (part of) a `what`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(WireError::Truncated(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    /// The bytes before the next `end`, which is passed.
    pub(crate) fn until(&mut self, end: u8) -> Result<&'a [u8], WireError> {
        let at = self.rest.iter().position(|byte| *byte == end).ok_or(WireError::Truncated(self.what))?;
        let found = &self.rest[..at];
        self.rest = &self.rest[at + 1..];
        Ok(found)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("take returned N bytes"))
    }

    /// LEB128, refused unless minimal.
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(WireError::Malformed("a number"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, WireError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A count or length that must not exceed `max`.
    pub(crate) fn capped(&mut self, what: &'static str, max: usize) -> Result<usize, WireError> {
        let found = self.varint()?;
        match usize::try_from(found) {
            Ok(n) if n <= max => Ok(n),
            _ => Err(WireError::TooLarge { what, found, max: max as u64 }),
        }
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Decodes one CBOR value with `ctx` and moves behind it.
    pub(crate) fn cbor<C, T: minicbor::Decode<'a, C>>(&mut self, ctx: &mut C) -> Result<T, WireError> {
        let mut decoder = minicbor::Decoder::new(self.rest);
        let value = decoder.decode_with(ctx).map_err(|_| WireError::Malformed(self.what))?;
        self.rest = &self.rest[decoder.position()..];
        Ok(value)
    }

    pub(crate) fn rest_len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::NotCanonical(self.what)) }
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(crate) fn put_cbor<C, T: minicbor::Encode<C>>(out: &mut Vec<u8>, value: &T, ctx: &mut C) {
    minicbor::encode_with(value, out, ctx).expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive_their_bytes(n: u64, m: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            put_zigzag(&mut out, m);
            let mut reader = Reader::new(&out, "test");
            prop_assert_eq!(reader.varint(), Ok(n));
            prop_assert_eq!(reader.zigzag(), Ok(m));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_number_with_needless_bytes_is_refused() {
        assert!(Reader::new(&[0x80, 0x00], "test").varint().is_err());
        assert!(Reader::new(&[0xff; 10], "test").varint().is_err());
    }
}
