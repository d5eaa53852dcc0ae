//! Ids and times that look like a vendor's and are the same in every run.

/// A counter that makes ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    /// A UUID of version 4 by its shape.
    pub(crate) fn uuid(&mut self) -> String {
        let n = self.number();
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}", mixed >> 32, (mixed >> 16) & 0xffff, mixed & 0xfff, n & 0xfff)
    }

    /// Twenty-four hexadecimal digits, as document stores make them.
    pub(crate) fn object(&mut self) -> String {
        let n = self.number();
        format!("{:08x}{n:016x}", n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff)
    }
}

/// RFC 3339 in UTC (`2026-03-01T12:00:00Z`) of seconds since 1970. Days to civil date after Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".
pub(crate) fn rfc3339(unix: u64) -> String {
    let days = i64::try_from(unix / 86400).unwrap_or(0) + 719_468;
    let (second, era) = (unix % 86400, days.div_euclid(146_097));
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_582_934_400, "2020-02-29T00:00:00Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix), text);
        }
    }
}
