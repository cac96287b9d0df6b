//! The `Range` header (RFC 9110, section 14): one byte range, else the whole.

/// Which bytes to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Whole,
    /// First and last byte, both included.
    Part {
        first: u64,
        last: u64,
    },
    /// The range lies outside; answer 416.
    Outside,
}

/// Reads a `Range` header against a content of `len` bytes.
///
/// Several ranges and units other than bytes are allowed to be ignored (RFC 9110, 14.2), so they get the whole.
pub(crate) fn span(header: Option<&str>, len: u64) -> Span {
    let Some(range) = header.and_then(|h| h.strip_prefix("bytes=")) else { return Span::Whole };
    if range.contains(',') {
        return Span::Whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Span::Whole };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Span::Whole,
        (Ok(first), _) if first >= len && (last.is_empty() || last.parse::<u64>().is_ok()) => Span::Outside,
        (Ok(first), Ok(last)) => Span::Part { first, last: last.min(len - 1) },
        (Ok(first), Err(_)) if last.is_empty() => Span::Part { first, last: len - 1 },
        (Err(_), Ok(0)) if first.is_empty() => Span::Outside,
        (Err(_), Ok(tail)) if first.is_empty() && len > 0 => {
            Span::Part { first: len.saturating_sub(tail), last: len - 1 }
        }
        (Err(_), Ok(_)) if first.is_empty() => Span::Outside,
        _ => Span::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_clipped_to_the_content() {
        assert_eq!(span(Some("bytes=0-3"), 10), Span::Part { first: 0, last: 3 });
        assert_eq!(span(Some("bytes=8-"), 10), Span::Part { first: 8, last: 9 });
        assert_eq!(span(Some("bytes=8-99"), 10), Span::Part { first: 8, last: 9 });
        assert_eq!(span(Some("bytes=-3"), 10), Span::Part { first: 7, last: 9 });
        assert_eq!(span(Some("bytes=-30"), 10), Span::Part { first: 0, last: 9 });
    }

    #[test]
    fn a_range_behind_the_end_is_outside() {
        assert_eq!(span(Some("bytes=10-"), 10), Span::Outside);
        assert_eq!(span(Some("bytes=0-0"), 0), Span::Outside);
        assert_eq!(span(Some("bytes=-0"), 10), Span::Outside);
        assert_eq!(span(Some("bytes=-1"), 0), Span::Outside);
    }

    #[test]
    fn what_is_not_one_byte_range_gets_the_whole() {
        for header in ["bytes=0-1,3-4", "lines=0-1", "bytes=x-y", "bytes=5-3", "bytes=7", "bytes=-"] {
            assert_eq!(span(Some(header), 10), Span::Whole, "{header}");
        }
        assert_eq!(span(None, 10), Span::Whole);
    }
}
