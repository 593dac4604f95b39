//! The bank's daily file as XML: a table has entries, all of one day that was asked for or before it.
#![no_main]

use causeway::fx::ecb::parse_xml;
use causeway_fuzz::rates::check_table;
use libfuzzer_sys::fuzz_target;
use time::macros::date;

fuzz_target!(|data: &[u8]| {
    for asked in [None, Some(date!(2014 - 10 - 28))] {
        let Some(table) = check_table(parse_xml(data, asked), asked) else {
            continue;
        };
        let date = table.newest().expect("it has a day");
        let mut text = format!("<Envelope><Cube><Cube time=\"{date}\">");
        for (currency, entry) in table.entries() {
            text += &format!("<Cube currency=\"{currency}\" rate='{}'/>", entry.rate.value_string());
        }
        text += "</Cube></Cube></Envelope>";
        let again = parse_xml(text.as_bytes(), asked).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again.entries(), table.entries());
    }
});
