//! AS_PATH (RFC 4271 §4.3 b), two or four octets per AS (RFC 6793).

/// The kind of a path segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// AS_SEQUENCE.
    Sequence,
    /// AS_SET, deprecated (RFC 9774).
    Set,
}

/// A path, checked, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AsPath<'a> {
    octets: &'a [u8],
    four_octet: bool,
}

/// One segment of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Ordered or not.
    pub kind: SegmentKind,
    octets: &'a [u8],
    four_octet: bool,
}

impl<'a> AsPath<'a> {
    /// Checks a path: known segments that are not empty and fit, and no AS 0 (RFC 7607). AS_SET is refused
    /// (RFC 9774), and so are the segments of a confederation (RFC 5065 §5): this speaker is in none.
    pub fn check(octets: &'a [u8], four_octet: bool) -> Option<Self> {
        let width = if four_octet { 4 } else { 2 };
        let mut rest = octets;
        while let [kind, count, tail @ ..] = rest {
            let (numbers, tail) = tail.split_at_checked(usize::from(*count) * width)?;
            let zero = numbers.chunks_exact(width).any(|asn| asn.iter().all(|o| *o == 0));
            if *kind != 2 || *count == 0 || zero {
                return None;
            }
            rest = tail;
        }
        rest.is_empty().then_some(Self { octets, four_octet })
    }

    /// The segments in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let (mut rest, four_octet) = (self.octets, self.four_octet);
        std::iter::from_fn(move || {
            let [kind, count, tail @ ..] = rest else { return None };
            let (octets, tail) = tail.split_at_checked(usize::from(*count) * if four_octet { 4 } else { 2 })?;
            rest = tail;
            let kind = if *kind == 1 { SegmentKind::Set } else { SegmentKind::Sequence };
            Some(Segment { kind, octets, four_octet })
        })
    }

    /// Every AS in order; 23456 stands for what two octets cannot say.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.segments().flat_map(|s| s.numbers())
    }
}

impl<'a> Segment<'a> {
    /// The AS numbers of the segment.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let width = if self.four_octet { 4 } else { 2 };
        self.octets.chunks_exact(width).map(|asn| asn.iter().fold(0, |n, o| n << 8 | u32::from(*o)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_both_widths() {
        let path = AsPath::check(&[2, 2, 0xFC, 0x59, 0, 1], false).expect("valid");
        assert_eq!(path.numbers().collect::<Vec<_>>(), [64601, 1]);
        let path = AsPath::check(&[2, 1, 0, 1, 0, 0], true).expect("valid");
        assert_eq!(path.numbers().collect::<Vec<_>>(), [65536]);
    }

    #[test]
    fn damaged_paths_are_refused() {
        let damaged: [&[u8]; 7] =
            [&[2], &[2, 0], &[2, 1, 0, 0], &[2, 2, 0, 1], &[1, 1, 0, 1], &[3, 1, 0, 1], &[9, 1, 0, 1]];
        for octets in damaged {
            assert_eq!(AsPath::check(octets, false), None, "{octets:?}");
        }
    }
}
