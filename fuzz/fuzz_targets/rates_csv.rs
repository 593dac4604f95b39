//! The bank's history as CSV: a table has entries, all of one day that was asked for or before it.
#![no_main]

use causeway::{
    fx::ecb::parse_csv,
    money::{Currency, Rate},
};
use causeway_fuzz::rates::check_table;
use libfuzzer_sys::fuzz_target;
use time::macros::date;

fuzz_target!(|data: &[u8]| {
    for asked in [None, Some(date!(2014 - 10 - 28))] {
        let Some(table) = check_table(parse_csv(data, asked), asked) else {
            continue;
        };
        // Written again it is the same table.
        let date = table.newest().expect("it has a day");
        let mut text = String::from("Date");
        table
            .entries()
            .keys()
            .for_each(|currency| text += &format!(",{currency}"));
        text += &format!("\n{date}");
        table
            .entries()
            .values()
            .for_each(|entry| text += &format!(",{}", entry.rate.value_string()));
        let again = parse_csv(text.as_bytes(), asked).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again.entries(), table.entries());
        let (mid, _) = table
            .mid(Currency::EUR, *table.entries().keys().next().expect("an entry"))
            .expect("it is there");
        assert_eq!(Rate::parse(mid.base(), mid.quote(), &mid.value_string()), Ok(mid));
    }
});
