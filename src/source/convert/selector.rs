//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::report::Report;
use crate::types::{Operator, Requirement, Selector};

/// Every selector of a list; the path of the list stands in the messages.
pub(super) fn selectors(report: &mut Report, path: &str, list: &[LabelSelector]) -> Vec<Selector> {
    list.iter().enumerate().map(|(i, selector)| one(report, &format!("{path}[{i}]"), selector)).collect()
}

fn one(report: &mut Report, path: &str, selector: &LabelSelector) -> Selector {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In,
        values: [value.clone()].into(),
    });
    let mut requirements: Vec<Requirement> = labels.collect();
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        requirements.extend(requirement(report, &format!("{path}.matchExpressions[{i}]"), expression));
    }
    Selector(requirements)
}

fn requirement(report: &mut Report, path: &str, expression: &LabelSelectorRequirement) -> Option<Requirement> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            report.error(
                format!("{path}.operator"),
                format!("{other:?} is no operator"),
                "use In, NotIn, Exists or DoesNotExist",
            );
            return None;
        }
    };
    let values = expression.values.clone().unwrap_or_default();
    let wants_values = matches!(operator, Operator::In | Operator::NotIn);
    if wants_values == values.is_empty() {
        let (message, hint) = match wants_values {
            true => ("is empty", "name at least one value"),
            false => ("is not empty", "leave it out: Exists and DoesNotExist take no values"),
        };
        report.error(format!("{path}.values"), format!("{message} for {}", expression.operator), hint);
        return None;
    }
    Some(Requirement { key: expression.key.clone(), operator, values: values.into_iter().collect() })
}
