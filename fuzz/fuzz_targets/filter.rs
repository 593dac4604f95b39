//! The filter of `ListPayments`: what is taken means the same when it is written again; an error is a sentence.
#![no_main]

use causeway::fuzzing::{Filter, FilterError};
use causeway_fuzz::{MESSAGE_CHARS_MAX, text};
use libfuzzer_sys::fuzz_target;

/// All that are.
const STATES: [&str; 6] = [
    "PREPARING",
    "COMMITTING",
    "COMPLETED",
    "ABORTING",
    "ABORTED",
    "DISPUTED",
];

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    match Filter::parse(text) {
        Ok(filter) => {
            assert!(filter.states.len() < STATES.len() && filter.states.iter().all(|state| STATES.contains(state)));
            if let Some(again) = written(&filter) {
                assert_eq!(Filter::parse(&again).as_ref(), Ok(&filter), "{text:?} became {again:?}");
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.chars().count() <= MESSAGE_CHARS_MAX,
                "{} characters",
                message.chars().count()
            );
            if let FilterError::TooLong(chars) = error {
                assert_eq!(chars, text.chars().count());
            }
        }
    }
});

/// The same filter, if its instants have a spelling in RFC 3339 (years 0 to 9999).
fn written(filter: &Filter) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    if !filter.states.is_empty() {
        let left_out = STATES.iter().filter(|state| !filter.states.contains(state));
        parts.extend(left_out.map(|state| format!("state != {state}")));
    }
    for (operator, ms) in [(">=", filter.from_ms), ("<", filter.before_ms)] {
        let Some(ms) = ms else { continue };
        let spelled = (-62_135_596_800_000..253_402_300_800_000).contains(&ms);
        if !spelled {
            return None;
        }
        let timestamp = prost_types::Timestamp {
            seconds: ms.div_euclid(1_000),
            nanos: (ms.rem_euclid(1_000) * 1_000_000) as i32,
        };
        parts.push(format!("create_time {operator} \"{timestamp}\""));
    }
    if let Some(id) = &filter.request_id {
        parts.push(format!("request_id = {id}"));
    }
    Some(parts.join(" AND "))
}
