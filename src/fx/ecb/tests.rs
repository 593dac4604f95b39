use time::macros::date;

use super::*;

fn value(table: &RateTable, code: &str) -> Option<String> {
    table
        .entries()
        .get(&code.parse().unwrap())
        .map(|entry| entry.rate.value_string())
}

#[test]
fn the_newest_row_of_the_history() {
    let table = parse_csv(SAMPLE.as_bytes(), None).unwrap();
    assert_eq!((table.base(), table.source().as_ref()), (Currency::EUR, NAME));
    assert_eq!(table.newest(), Some(date!(2026 - 10 - 30)));
    assert!(
        table
            .entries()
            .values()
            .all(|entry| entry.date == date!(2026 - 10 - 30))
    );
    assert_eq!(value(&table, "USD").as_deref(), Some("1.1172"));
    assert_eq!(value(&table, "ISK").as_deref(), Some("136"));
    assert_eq!(value(&table, "BGN"), None);
    assert_eq!(table.entries().len(), 29);
    assert!(table.skipped().is_empty());
}

#[test]
fn the_row_of_a_day_or_the_last_before_it() {
    let check = |asked, expected, usd: &str| {
        let table = parse_csv(SAMPLE.as_bytes(), Some(asked)).unwrap();
        assert_eq!(
            (table.newest(), value(&table, "USD").as_deref()),
            (Some(expected), Some(usd)),
            "{asked}"
        );
    };
    check(date!(2014 - 10 - 28), date!(2014 - 10 - 28), "1.2748");
    // A Saturday and a Sunday: Friday's rates hold.
    check(date!(2014 - 10 - 25), date!(2014 - 10 - 24), "1.2659");
    check(date!(2014 - 10 - 26), date!(2014 - 10 - 24), "1.2659");
    check(date!(2099 - 01 - 01), date!(2026 - 10 - 30), "1.1172");
    let before = parse_csv(SAMPLE.as_bytes(), Some(date!(2014 - 09 - 30)));
    let (asked, first) = (date!(2014 - 09 - 30), date!(2014 - 10 - 01));
    assert_eq!(before, Err(EcbError::BeforeFirst { asked, first }));
}

#[test]
fn rows_in_any_order_with_any_line_ends() {
    let check = |text: &str| {
        let table = parse_csv(text.as_bytes(), None).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(value(&table, "USD").as_deref(), Some("1.2748"), "{text:?}");
        assert_eq!(table.newest(), Some(date!(2014 - 10 - 28)), "{text:?}");
    };
    check("Date,USD,\n2014-10-27,1.3,\n2014-10-28,1.2748,\n2014-10-26,1.4,\n");
    check("Date,USD\r\n2014-10-28,1.2748\r\n2014-10-27,1.3");
    check("\u{feff}Date, USD, \n2014-10-28, 1.2748, \n\n");
    check("Date,USD,BGN,\n2014-10-28,1.2748,N/A,\n");
}

#[test]
fn codes_that_are_not_known_are_skipped_and_noted() {
    let table = parse_csv(b"Date,USD,XYZ,ABC,\n2014-10-28,1.2,3,N/A,\n", None).unwrap();
    assert_eq!(table.skipped(), ["XYZ"]);
    assert_eq!(table.entries().len(), 1);
    let xml =
        envelope("<Cube time='2014-10-28'><Cube currency='USD' rate='1.2'/><Cube currency='XYZ' rate='?'/></Cube>");
    let table = parse_xml(xml.as_bytes(), None).unwrap();
    assert_eq!(table.skipped(), ["XYZ"]);
}

#[test]
fn malformed_csv_names_line_field_and_what_stands_there() {
    let check = |text: &str, expected: &str| {
        let error = parse_csv(text.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
    };
    check("", "first column: expected Date, found \"\"");
    check("Date,USD,\n", "no rates in the publication");
    check("Date,USD,\n2014-10-28,N/A,\n", "no rates in the publication");
    check(
        "Time,USD,\n2014-10-28,1,\n",
        "line 1, first column: expected Date, found \"Time\"",
    );
    check(
        "Date,usd,\n2014-10-28,1,\n",
        "line 1, currency: expected three capital letters, found \"usd\"",
    );
    check(
        "Date,,USD\n2014-10-28,1,2\n",
        "line 1, currency: expected three capital letters, found \"\"",
    );
    check(
        "Date,USD,USD,\n2014-10-28,1,1,\n",
        "line 1, header: expected each currency once, found \"USD\"",
    );
    check(
        "Date,XYZ,XYZ,\n2014-10-28,1,1,\n",
        "line 1, header: expected each currency once, found \"XYZ\"",
    );
    check(
        "Date,EUR,\n2014-10-28,1,\n",
        "line 2, EUR: expected each currency but the base once",
    );
    check(
        "Date,USD,\n28 October 2014,1,\n",
        "line 2, Date: expected a date YYYY-MM-DD, found \"28 October 2014\"",
    );
    check(
        "Date,USD,\n2014-10-28,1,\n2014-02-30,1,\n",
        "line 3, Date: expected a date",
    );
    check(
        "Date,USD,\n2014-10-28,1,\n2014-10-28,1,\n",
        "line 3, Date: expected each day once",
    );
    check("Date,USD,\n2014-10-28,1,2,3\n", "line 2");
    check(
        "Date,USD,\n2014-10-28,1,2\n",
        "line 2, trailing column: expected nothing, found \"2\"",
    );
    for bad in [
        "-1.2",
        "0",
        "0.00",
        "",
        "1e3",
        "1.2345678901234",
        "1,2",
        "n/a",
        "1.2.3",
        "NaN",
    ] {
        let text = format!("Date,JPY,USD,\n2014-10-27,1,{bad:?},\n2014-10-28,130,{bad:?},\n");
        let error = parse_csv(text.as_bytes(), None).unwrap_err().to_string();
        assert!(
            error.starts_with("line 3, USD: expected a rate above zero"),
            "{bad:?}: {error}"
        );
        assert!(error.contains(&format!("found {bad:?}")), "{bad:?}: {error}");
    }
}

#[test]
fn what_is_not_text_or_too_long_is_refused() {
    let latin = b"Date,USD,\n2014-10-28,\xe9,\n";
    assert_eq!(
        parse_csv(latin, None),
        Err(EcbError::Syntax {
            line: 2,
            detail: "not UTF-8".into()
        })
    );
    assert!(parse_xml(b"<a>\xff</a>", None).is_err());
    let long = vec![b' '; BYTES_MAX + 1];
    assert_eq!(parse_csv(&long, None), Err(EcbError::TooLong { found: BYTES_MAX + 1 }));
    assert_eq!(parse_xml(&long, None), Err(EcbError::TooLong { found: BYTES_MAX + 1 }));
}

fn envelope(days: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <gesmes:Envelope xmlns:gesmes=\"http://www.gesmes.org/xml/2002-08-01\" \
         xmlns=\"http://www.ecb.int/vocabulary/2002-08-01/eurofxref\">\n\
         \t<gesmes:subject>Reference rates</gesmes:subject>\n\
         \t<gesmes:Sender>\n\t\t<gesmes:name>European Central Bank</gesmes:name>\n\t</gesmes:Sender>\n\
         \t<Cube>\n{days}\n\t</Cube>\n</gesmes:Envelope>"
    )
}

#[test]
fn the_daily_file() {
    let xml = envelope(
        "<Cube time='2014-10-28'>\n<Cube currency='USD' rate='1.2748'/>\n<Cube currency=\"JPY\" rate=\"137.45\"></Cube>\n</Cube>",
    );
    let table = parse_xml(xml.as_bytes(), None).unwrap();
    assert_eq!((table.base(), table.source().as_ref()), (Currency::EUR, NAME));
    assert_eq!(table.newest(), Some(date!(2014 - 10 - 28)));
    assert_eq!(value(&table, "USD").as_deref(), Some("1.2748"));
    assert_eq!(value(&table, "JPY").as_deref(), Some("137.45"));
    assert_eq!(table.entries().len(), 2);
    assert!(parse_xml(xml.as_bytes(), Some(date!(2014 - 10 - 27))).is_err());
}

#[test]
fn several_days_in_one_xml() {
    let xml = envelope(
        "<Cube time='2014-10-27'><Cube currency='USD' rate='1.3'/></Cube>\
         <Cube time='2014-10-28'><Cube currency='USD' rate='1.2748'/></Cube>\
         <Cube time='2014-10-24'><Cube currency='USD' rate='1.4'/></Cube>",
    );
    let check = |asked, usd| {
        assert_eq!(
            value(&parse_xml(xml.as_bytes(), asked).unwrap(), "USD").as_deref(),
            Some(usd)
        )
    };
    check(None, "1.2748");
    check(Some(date!(2014 - 10 - 27)), "1.3");
    check(Some(date!(2014 - 10 - 26)), "1.4");
}

#[test]
fn malformed_xml_names_line_field_and_what_stands_there() {
    let day = |inner: &str| envelope(&format!("<Cube time='2014-10-28'>{inner}</Cube>"));
    let check = |text: &str, expected: &str| {
        let error = parse_xml(text.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
    };
    check("", "no rates");
    check(
        "<html><body/></html>",
        "root element: expected Envelope, found \"html\"",
    );
    check(&envelope(""), "no rates");
    check(&envelope("<Cube/>"), "Cube: expected attribute time");
    check(&envelope("<Cube time='2014-10-28'/>"), "no rates");
    check(
        &envelope("<Cube time='today'/>"),
        "line 8, time: expected a date YYYY-MM-DD, found \"today\"",
    );
    check(&day("<Cube rate='1'/>"), "attribute currency");
    check(&day("<Cube currency='USD'/>"), "USD: expected attribute rate");
    check(
        &day("<Cube currency='usd' rate='1'/>"),
        "three capital letters, found \"usd\"",
    );
    check(
        &day("\n<Cube currency='USD' rate='-1'/>"),
        "line 9, USD: expected a rate above zero",
    );
    check(
        &day("<Cube currency='USD' rate='&#49;'/>"),
        "USD: expected a rate above zero",
    );
    check(
        &day("<Cube currency='USD' rate='0'/>"),
        "USD: expected a rate above zero",
    );
    check(&day("<Cube currency='USD' rate='1' rate='2'/>"), "line 8");
    check(
        &day("<Cube currency='USD' rate='1'/><Cube currency='USD' rate='1'/>"),
        "each currency but the base once",
    );
    check(
        &day("<Cube currency='EUR' rate='1'/>"),
        "each currency but the base once",
    );
    check(&day("<Cube currency='USD' rate='1'>"), "line 10");
    check(
        &format!("<!DOCTYPE x [<!ENTITY a 'b'>]>{}", day("")),
        "document type declarations are refused",
    );
    check("<gesmes:Envelope><Cube><Cube time='2014-10-28'>", "ends early");
    check(&format!("<Envelope>{}", "<a>".repeat(100)), "nested too deep");
    // A name of the file is not repeated whole, nor are line breaks: the message is a line of a log.
    let long = format!("<Envelope></{}\n>", "x".repeat(100_000));
    let error = parse_xml(long.as_bytes(), None).unwrap_err().to_string();
    assert!(error.len() < 300 && !error.contains('\n'), "{} bytes", error.len());
}

#[test]
fn garbage_is_refused_without_panic() {
    use proptest::prelude::*;
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..300))| {
        let _ = parse_csv(&bytes, None);
        let _ = parse_xml(&bytes, None);
    });
    proptest!(|(cut in 0..SAMPLE.len(), junk in "[\\PC\n,\"]{0,8}")| {
        let broken = format!("{}{junk}{}", &SAMPLE[..cut], &SAMPLE[cut..]);
        let _ = parse_csv(broken.as_bytes(), None);
    });
}
