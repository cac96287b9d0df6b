//! Who a person is in Microsoft Entra ID.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// A GUID as Entra writes it: 8-4-4-4-12 hexadecimal digits; displayed in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Guid(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// Text that is not a GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID: 8-4-4-4-12 hexadecimal digits are expected")]
pub struct BadGuid;

/// Where the hyphens stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl FromStr for Guid {
    type Err = BadGuid;

    fn from_str(text: &str) -> Result<Self, BadGuid> {
        let text = text.as_bytes();
        if text.len() != 36 || HYPHENS.iter().any(|at| text[*at] != b'-') {
            return Err(BadGuid);
        }
        let mut digits = text.iter().enumerate().filter(|(at, _)| !HYPHENS.contains(at)).map(|(_, digit)| {
            let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            value.ok_or(BadGuid)
        });
        let mut guid = [0; 16];
        for byte in &mut guid {
            let mut next = || digits.next().unwrap_or(Err(BadGuid));
            *byte = next()? << 4 | next()?;
        }
        Ok(Self(guid))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let hyphen = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

/// Key of a person in Entra: tenant (`tid`) and object (`oid`). Neither ever changes or is given to somebody else, unlike
/// user principal names and mail addresses. Displayed as `entra:{tid}:{oid}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct EntraKey {
    /// The tenant, claim `tid`.
    #[n(0)]
    pub tenant: Guid,
    /// The person's object there, claim `oid`.
    #[n(1)]
    pub object: Guid,
}

impl fmt::Display for EntraKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entra:{}:{}", self.tenant, self.object)
    }
}

impl FromStr for EntraKey {
    type Err = BadGuid;

    fn from_str(text: &str) -> Result<Self, BadGuid> {
        let (tenant, object) = text.strip_prefix("entra:").and_then(|rest| rest.split_once(':')).ok_or(BadGuid)?;
        Ok(Self { tenant: tenant.parse()?, object: object.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written_and_case_does_not_matter() {
        let text = "entra:00112233-4455-6677-8899-aabbccddeeff:ffeeddcc-bbaa-9988-7766-554433221100";
        let key: EntraKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(text.to_uppercase().replacen("ENTRA", "entra", 1).parse(), Ok(key));
    }

    #[test]
    fn nothing_else_is_a_guid() {
        let good = "00112233-4455-6677-8899-aabbccddeeff";
        for at in 0..good.len() {
            let mut bad = good.to_owned();
            bad.replace_range(at..=at, "g");
            assert_eq!(bad.parse::<Guid>(), Err(BadGuid), "{bad}");
        }
        for bad in
            ["", "00112233445566778899aabbccddeeff", "{00112233-4455-6677-8899-aabbccddeef}", &format!("{good}0")]
        {
            assert_eq!(bad.parse::<Guid>(), Err(BadGuid), "{bad}");
        }
        assert_eq!(format!("{good}:{good}").parse::<EntraKey>(), Err(BadGuid));
    }
}
