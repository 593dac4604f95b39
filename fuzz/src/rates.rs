//! What holds of every table of rates.

use causeway::{
    fx::{RateTable, ecb::EcbError},
    money::Currency,
};
use time::Date;

/// The table, if there is one. An error is a sentence, whatever the file holds.
pub fn check_table(parsed: Result<RateTable, EcbError>, asked: Option<Date>) -> Option<RateTable> {
    let table = match parsed {
        Ok(table) => table,
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.chars().count() <= crate::MESSAGE_CHARS_MAX,
                "{} characters",
                message.chars().count()
            );
            return None;
        }
    };
    assert!(!table.entries().is_empty());
    let day = table.newest().expect("it has entries");
    assert!(asked.is_none_or(|asked| day <= asked));
    for (currency, entry) in table.entries() {
        assert_eq!(
            (entry.rate.base(), entry.rate.quote(), entry.date),
            (Currency::EUR, *currency, day)
        );
        assert!(entry.value() > Default::default());
    }
    Some(table)
}
