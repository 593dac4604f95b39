//! The filter of `ListPayments`: comparisons joined by AND (a part of AIP-160).

use crate::{coordinator::protocol::Phase, payment::RequestId};

const CHARS_MAX: usize = 1_000;
/// How much of a wrong filter goes back to the caller.
const FOUND_CHARS_MAX: usize = 80;
const STATES: [&str; 6] = Phase::NAMES;

/// What to list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// These states; empty means any.
    pub states: Vec<&'static str>,
    /// Created at or after this, in milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Created before this, in milliseconds since the Unix epoch.
    pub before_ms: Option<i64>,
    /// Of this request.
    pub request_id: Option<RequestId>,
}

/// Why a filter was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("has {0} characters; at most {CHARS_MAX}")]
    TooLong(usize),
    #[error("{0:?} is not a comparison; FIELD OPERATOR VALUE, joined by AND")]
    NotAComparison(String),
    #[error("has no field {0:?}; state, create_time, request_id")]
    Field(String),
    #[error("{field} does not take {found:?}; {allowed}")]
    Operator {
        field: &'static str,
        found: String,
        allowed: &'static str,
    },
    #[error("{field} is {found:?}; {allowed}")]
    Value {
        field: &'static str,
        found: String,
        allowed: String,
    },
    #[error("leaves nothing to list")]
    Nothing,
}

impl Filter {
    /// Reads a filter; the empty one lists all.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let chars = text.chars().count();
        if chars > CHARS_MAX {
            return Err(FilterError::TooLong(chars));
        }
        let mut filter = Self::default();
        if text.trim().is_empty() {
            return Ok(filter);
        }
        let mut states = STATES.to_vec();
        for comparison in text.split(" AND ") {
            let (field, operator, value) =
                split(comparison).ok_or_else(|| FilterError::NotAComparison(excerpt(comparison.trim())))?;
            match field {
                "state" => {
                    let value = value.strip_prefix("STATE_").unwrap_or(value);
                    if !STATES.contains(&value) {
                        return Err(FilterError::Value {
                            field: "state",
                            found: excerpt(value),
                            allowed: STATES.join(", "),
                        });
                    }
                    match operator {
                        "=" => states.retain(|state| *state == value),
                        "!=" => states.retain(|state| *state != value),
                        _ => {
                            return Err(FilterError::Operator {
                                field: "state",
                                found: excerpt(operator),
                                allowed: "= or !=",
                            });
                        }
                    }
                }
                "create_time" => filter.create_time(operator, value)?,
                "request_id" => {
                    if operator != "=" {
                        return Err(FilterError::Operator {
                            field: "request_id",
                            found: excerpt(operator),
                            allowed: "=",
                        });
                    }
                    let id = RequestId::parse(value).map_err(|error| FilterError::Value {
                        field: "request_id",
                        found: excerpt(value),
                        allowed: error.to_string(),
                    })?;
                    if filter.request_id.as_ref().is_some_and(|other| *other != id) {
                        return Err(FilterError::Nothing);
                    }
                    filter.request_id = Some(id);
                }
                other => return Err(FilterError::Field(excerpt(other))),
            }
        }
        if states.is_empty() {
            return Err(FilterError::Nothing);
        }
        if states.len() < STATES.len() {
            filter.states = states;
        }
        Ok(filter)
    }

    /// Instants are kept to the millisecond, so a bound that lies within one is moved to its edge.
    fn create_time(&mut self, operator: &str, value: &str) -> Result<(), FilterError> {
        let time: prost_types::Timestamp = value.parse().map_err(|_| FilterError::Value {
            field: "create_time",
            found: excerpt(value),
            allowed: "an instant of RFC 3339: \"2026-01-31T00:00:00Z\"".into(),
        })?;
        let floor_ms = time
            .seconds
            .saturating_mul(1_000)
            .saturating_add(i64::from(time.nanos) / 1_000_000);
        let exact = time.nanos % 1_000_000 == 0;
        let ceiling_ms = if exact { floor_ms } else { floor_ms.saturating_add(1) };
        let (from_ms, before_ms) = match operator {
            ">=" => (Some(ceiling_ms), None),
            ">" => (Some(floor_ms.saturating_add(1)), None),
            "<" => (None, Some(ceiling_ms)),
            "<=" => (None, Some(floor_ms.saturating_add(1))),
            _ => {
                return Err(FilterError::Operator {
                    field: "create_time",
                    found: excerpt(operator),
                    allowed: "<, <=, > or >=",
                });
            }
        };
        self.from_ms = self.from_ms.max(from_ms);
        self.before_ms = match (self.before_ms, before_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(())
    }
}

/// What an error repeats of a filter: enough to find it.
fn excerpt(text: &str) -> String {
    text.chars().take(FOUND_CHARS_MAX).collect()
}

/// `FIELD OPERATOR VALUE`; the value may stand in double quotes.
fn split(comparison: &str) -> Option<(&str, &str, &str)> {
    let comparison = comparison.trim();
    let start = comparison.find(['=', '!', '<', '>'])?;
    let rest = &comparison[start..];
    let length = rest.find(|c| !matches!(c, '=' | '!' | '<' | '>')).unwrap_or(rest.len());
    let (field, operator) = (comparison[..start].trim(), &rest[..length]);
    let value = rest[length..].trim();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').filter(|value| !value.contains('"'))?,
        None => value,
    };
    (!field.is_empty() && !value.is_empty()).then_some((field, operator, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_are_taken() {
        assert_eq!(Filter::parse(" "), Ok(Filter::default()));
        assert_eq!(Filter::parse("state = COMPLETED").unwrap().states, ["COMPLETED"]);
        assert_eq!(Filter::parse("state=\"STATE_ABORTED\"").unwrap().states, ["ABORTED"]);
        assert_eq!(
            Filter::parse("state != COMPLETED AND state != ABORTED")
                .unwrap()
                .states
                .len(),
            4
        );
        let times = Filter::parse(
            r#"create_time >= "1970-01-01T00:00:01Z" AND create_time < 1970-01-01T00:00:02Z AND create_time <= 1970-01-01T00:00:03Z"#,
        )
        .unwrap();
        assert_eq!((times.from_ms, times.before_ms), (Some(1_000), Some(2_000)));
        let within = Filter::parse("create_time > 1970-01-01T00:00:00.0005Z").unwrap();
        assert_eq!(within.from_ms, Some(1));
        assert_eq!(
            Filter::parse("request_id = r-1").unwrap().request_id.unwrap().as_str(),
            "r-1"
        );
    }

    #[test]
    fn filters_that_are_not() {
        for (text, needle) in [
            ("state", "not a comparison"),
            ("= COMPLETED", "not a comparison"),
            ("state = ", "not a comparison"),
            ("state = \"COMPLETED", "not a comparison"),
            ("state = DONE", "state is \"DONE\"; PREPARING"),
            ("state < COMPLETED", "state does not take \"<\"; = or !="),
            ("state = COMPLETED AND state = ABORTED", "leaves nothing"),
            ("request_id = a AND request_id = b", "leaves nothing"),
            ("amount > 5", "no field \"amount\""),
            ("create_time > yesterday", "RFC 3339"),
            ("create_time = 1970-01-01T00:00:02Z", "does not take \"=\""),
            ("request_id != x", "does not take"),
            ("request_id = a b", "request_id is"),
        ] {
            let error = Filter::parse(text).unwrap_err().to_string();
            assert!(error.contains(needle), "{text}: {error}");
        }
        // Whatever is wrong, the filter does not come back whole.
        let long = "x".repeat(900);
        for text in [
            long.clone(),
            format!("{long} = a"),
            format!("state = {long}"),
            format!("state {} COMPLETED", "<".repeat(900)),
            format!("request_id {} a", "!".repeat(900)),
            format!("create_time > {long}"),
            format!("create_time {} 1970-01-01T00:00:02Z", ">".repeat(900)),
            format!("request_id = {long}"),
        ] {
            let error = Filter::parse(&text).unwrap_err().to_string();
            assert!(error.len() < 300, "{} characters: {error}", error.len());
        }
        assert!(
            Filter::parse(&"x".repeat(1_001))
                .unwrap_err()
                .to_string()
                .contains("1001 characters")
        );
    }
}
