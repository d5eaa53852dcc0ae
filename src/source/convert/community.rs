//! Communities and names for them.

use ironcast_bgp::{Community as Standard, InvalidValue, LargeCommunity};

use super::{Converted, report::Report};
use crate::source::api::Community;

/// A community of either size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommunityValue {
    /// RFC 1997.
    Standard(Standard),
    /// RFC 8092.
    Large(LargeCommunity),
}

impl CommunityValue {
    /// `65000:100`, `large:64500:1:2`, `64500:1:2` or a well-known name; the error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text.starts_with("large:") || text.matches(':').count() == 2 {
            true => text.parse().map(Self::Large),
            false => text.parse().map(Self::Standard),
        }
    }
}

/// Names and what they stand for. An entry that is wrong is refused alone: an advertisement that uses its name
/// is told so.
pub fn communities(object: &Community) -> Converted<Vec<(String, CommunityValue)>> {
    let mut report = Report::new(object);
    let mut named: Vec<(String, CommunityValue)> = Vec::new();
    for (i, entry) in object.spec.communities.iter().enumerate() {
        let field = format!("spec.communities[{i}]");
        if entry.name.is_empty() || entry.name.contains(':') {
            report.error(
                format!("{field}.name"),
                format!("{:?} is no name", entry.name),
                "use letters without a colon",
            );
        } else if named.iter().any(|(name, _)| *name == entry.name) {
            report.error(format!("{field}.name"), format!("{:?} stands twice", entry.name), "name each community once");
        } else {
            let hint = "write asn:value, large:global:local1:local2 or a well-known name (no-export)";
            let value = report.take(&format!("{field}.value"), CommunityValue::parse(&entry.value), hint);
            named.extend(value.map(|value| (entry.name.clone(), value)));
        }
    }
    report.keep(named)
}
