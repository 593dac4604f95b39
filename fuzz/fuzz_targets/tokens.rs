//! Page tokens and resume tokens: a token that is taken is one that was given, letter for letter.
#![no_main]

use causeway::{
    api::Caller,
    fuzzing::{PageToken, ResumeToken},
    payment::{PartnerName, PaymentId},
    store::ListPosition,
};
use causeway_fuzz::text;
use libfuzzer_sys::fuzz_target;

const FILTER: &str = "state = ABORTED";

fuzz_target!(|data: &[u8]| {
    let caller = Caller::Partner(PartnerName::parse("apple-pay").expect("a name"));
    let other = Caller::Partner(PartnerName::parse("alipay").expect("a name"));
    if let Some(text) = text(data) {
        if let Some(position) = PageToken::parse(text, &caller, FILTER) {
            assert_eq!(PageToken::text(position, &caller, FILTER), text);
        }
        if let Some(sequence) = ResumeToken::parse(text) {
            assert_eq!(ResumeToken::text(sequence), text);
        }
    }
    // And of any place there is one, for its caller and its filter alone.
    if let Some((bytes, _)) = data.split_first_chunk::<24>() {
        let (begin, id) = bytes.split_at(8);
        let position = ListPosition {
            begin_ms: i64::from_be_bytes(begin.try_into().expect("eight bytes")),
            id: PaymentId::from_bytes(id.try_into().expect("sixteen bytes")),
        };
        let token = PageToken::text(position, &caller, FILTER);
        assert_eq!(PageToken::parse(&token, &caller, FILTER), Some(position));
        assert_eq!(PageToken::parse(&token, &other, FILTER), None);
        assert_eq!(PageToken::parse(&token, &caller, ""), None);
        assert_eq!(ResumeToken::parse(&token), None);
        let sequence = u64::from_be_bytes(begin.try_into().expect("eight bytes"));
        assert_eq!(ResumeToken::parse(&ResumeToken::text(sequence)), Some(sequence));
    }
});
