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
    #[inline]
    pub fn check(octets: &'a [u8], four_octet: bool) -> Option<Self> {
        let mut rest = octets;
        while !rest.is_empty() {
            let [kind, count, tail @ ..] = rest else { return None };
            let length = usize::from(*count) * if four_octet { 4 } else { 2 };
            let (numbers, tail) = tail.split_at_checked(length)?;
            let zero = match four_octet {
                true => numbers.as_chunks::<4>().0.contains(&[0; 4]),
                false => numbers.as_chunks::<2>().0.contains(&[0; 2]),
            };
            if *kind != 2 || *count == 0 || zero {
                return None;
            }
            rest = tail;
        }
        Some(Self { octets, four_octet })
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
    pub fn numbers(&self) -> Numbers<'a> {
        Numbers::new(*self)
    }
}

/// The AS numbers of a path.
#[derive(Debug, Clone)]
pub struct Numbers<'a> {
    /// What is left: of the segment at hand, and after it.
    segment: &'a [u8],
    rest: &'a [u8],
    four_octet: bool,
}

impl<'a> Numbers<'a> {
    fn new(path: AsPath<'a>) -> Self {
        Self { segment: &[], rest: path.octets, four_octet: path.four_octet }
    }
}

impl Iterator for Numbers<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let width = if self.four_octet { 4 } else { 2 };
        while self.segment.is_empty() {
            let [_, count, tail @ ..] = self.rest else { return None };
            (self.segment, self.rest) = tail.split_at_checked(usize::from(*count) * width)?;
        }
        let (asn, segment) = self.segment.split_at_checked(width)?;
        self.segment = segment;
        Some(asn.iter().fold(0, |n, o| n << 8 | u32::from(*o)))
    }
}

impl<'a> Segment<'a> {
    /// The AS numbers of the segment.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let width = if self.four_octet { 4 } else { 2 };
        self.octets.chunks_exact(width).map(|asn| asn.iter().fold(0, |n, o| n << 8 | u32::from(*o)))
    }
}

/// The numbers of an AS_PATH of two octets with those of the AS4_PATH in place of its last ones.
#[derive(Debug, Clone)]
pub struct MergedPath<'a> {
    own: Numbers<'a>,
    /// How many of the AS_PATH come before the AS4_PATH.
    before: usize,
    wide: Numbers<'a>,
}

impl<'a> MergedPath<'a> {
    /// RFC 6793 §4.2.3: an AS4_PATH that is longer than the AS_PATH is of no use.
    pub(super) fn new(own: AsPath<'a>, wide: Option<AsPath<'a>>) -> Self {
        let own = Numbers::new(own);
        let wide = Numbers::new(wide.unwrap_or_default());
        match own.clone().count().checked_sub(wide.clone().count()) {
            Some(before) => Self { own, before, wide },
            None => Self { own, before: usize::MAX, wide: Numbers::new(AsPath::default()) },
        }
    }
}

impl Iterator for MergedPath<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.before > 0
            && let Some(asn) = self.own.next()
        {
            self.before -= 1;
            return Some(asn);
        }
        self.wide.next()
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
    fn wide_path_stands_for_the_end_of_the_narrow_one() {
        let own = AsPath::check(&[2, 3, 0, 9, 0x5B, 0xA0, 0, 1], false).expect("valid");
        let of = |octets| MergedPath::new(own, Some(AsPath::check(octets, true).expect("valid"))).collect::<Vec<_>>();
        assert_eq!(of(&[2, 2, 0, 1, 0, 0, 0, 0, 0, 1]), [9, 65536, 1]);
        assert_eq!(of(&[2, 3, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0, 1]), [9, 65536, 1]);
        let longer = [2, 4, 0, 0, 0, 8, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0, 1];
        assert_eq!(of(&longer), [9, 23456, 1], "longer than the path that it stands for");
        assert_eq!(MergedPath::new(own, None).collect::<Vec<_>>(), [9, 23456, 1]);
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
