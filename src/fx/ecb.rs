//! The European Central Bank's euro foreign exchange reference rates, as it publishes them: the history as CSV and the
//! daily file as XML. Pure.
//!
//! Layouts: <https://www.ecb.europa.eu/stats/policy_and_exchange_rates/euro_reference_exchange_rates/>.
//!
//! Invariant: a table read here has at least one entry, and all its entries are of one day.

use std::fmt::Display;

use csv::StringRecord;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use time::Date;

use super::table::{self, RateTable};
use crate::money::{Currency, Rate};

/// The name that the rates carry: reuse is free with the source named.
pub const NAME: &str = "European Central Bank";

/// The most bytes of a publication: 16 MiB. The history from 1999 has 2 MB.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;

/// October 2014 and the 90 days up to 2026-10-30, in the layout of the history. Source: European Central Bank.
pub const SAMPLE: &str = include_str!("data/ecb-sample.csv");

/// Where a currency had no rate on a day.
const NOT_AVAILABLE: &str = "N/A";
/// Elements within elements; the bank's files have three.
const XML_DEPTH_MAX: usize = 8;

/// Why a publication could not be read. The source is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EcbError {
    /// More than [`BYTES_MAX`].
    #[error("publication of {found} bytes, at most {BYTES_MAX}")]
    TooLong {
        /// Bytes that came.
        found: usize,
    },
    /// Not UTF-8, not CSV, or not XML.
    #[error("line {line}: {detail}")]
    Syntax {
        /// Line of the file, from 1.
        line: u64,
        /// What the reader says, shortened.
        detail: String,
    },
    /// One field is not what it must be.
    #[error("line {line}, {field}: expected {expected}, found {found:?}")]
    Field {
        /// Line of the file, from 1.
        line: u64,
        /// The field: a column's name, or an attribute's.
        field: String,
        /// What must stand there.
        expected: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// There is no day in the publication, or no rate on it.
    #[error("no rates in the publication")]
    Empty,
    /// The day that was asked for is before the first one.
    #[error("no rates on or before {asked}: the first are of {first}")]
    BeforeFirst {
        /// The day that was asked for.
        asked: Date,
        /// The first day that is there.
        first: Date,
    },
}

/// Reads the history (`eurofxref-hist.csv`): the newest row, or the newest not later than `asked`, since reference
/// rates hold over weekends and holidays. The order of the rows does not matter.
///
/// Codes that are not known as currencies are skipped and noted in [`RateTable::skipped`]; `N/A` is no entry.
///
/// # Errors
/// [`EcbError`]. Every row must have a date and as many fields as the header; the values of the chosen row are checked.
pub fn parse_csv(bytes: &[u8], asked: Option<Date>) -> Result<RateTable, EcbError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text(bytes)?.as_bytes());
    let header = reader.headers().map_err(|error| csv_syntax(&error))?.clone();
    let columns = columns(&header)?;

    let mut days = Days::new(asked);
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| csv_syntax(&error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let date = parse_date(record.get(0).unwrap_or_default(), line, "Date")?;
        days.offer(date, line, || record.clone())?;
    }
    let (date, line, row) = days.chosen()?;
    let mut table = RateTable::new(Currency::EUR, NAME);
    for (index, column) in columns.iter().enumerate() {
        let value = row.get(index + 1).unwrap_or_default();
        match column {
            Column::Trailing if value.is_empty() => {}
            Column::Trailing => return Err(field(line, "trailing column", "nothing", value)),
            Column::Currency(_) | Column::Unknown(_) if value == NOT_AVAILABLE => {}
            Column::Currency(currency) => insert(&mut table, *currency, value, date, line)?,
            Column::Unknown(code) => table.skip(code),
        }
    }
    not_empty(table)
}

/// Reads the daily file (`eurofxref-daily.xml`): `gesmes:Envelope`, `Cube`, `Cube time=`, `Cube currency= rate=`.
/// The files of several days have the same layout: the newest day is read, or the newest not later than `asked`.
///
/// Codes that are not known as currencies are skipped and noted in [`RateTable::skipped`].
///
/// # Errors
/// [`EcbError`]. Document type declarations are refused, entities are not expanded.
pub fn parse_xml(bytes: &[u8], asked: Option<Date>) -> Result<RateTable, EcbError> {
    let text = text(bytes)?;
    let mut reader = Reader::from_str(text);
    let mut lines = Lines {
        text,
        position: 0,
        line: 1,
    };
    let mut days = Days::new(asked);
    let mut day: Option<(Date, u64, Vec<XmlRate>)> = None;
    // The names of the open elements; a day is the `Cube` at the third level.
    let mut depth = 0;
    loop {
        let event = reader.read_event();
        let position = if event.is_err() {
            reader.error_position()
        } else {
            reader.buffer_position()
        };
        let line = lines.at(position);
        let syntax = |detail: &dyn Display| syntax(line, detail);
        match event.map_err(|error| syntax(&error))? {
            Event::Start(element) => {
                depth += 1;
                if depth > XML_DEPTH_MAX {
                    return Err(syntax(&"elements nested too deep"));
                }
                open(&element, depth, line, &mut day)?;
            }
            Event::Empty(element) => {
                open(&element, depth + 1, line, &mut day)?;
                if depth + 1 == DAY_DEPTH {
                    close_day(&mut day, &mut days)?;
                }
            }
            Event::End(_) => {
                if depth == DAY_DEPTH {
                    close_day(&mut day, &mut days)?;
                }
                depth -= 1;
            }
            Event::DocType(_) => return Err(syntax(&"document type declarations are refused")),
            Event::Eof if depth > 0 => return Err(syntax(&"the document ends early")),
            Event::Eof => break,
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::GeneralRef(_) => {}
        }
    }
    let (date, _, rates) = days.chosen()?;
    let mut table = RateTable::new(Currency::EUR, NAME);
    for XmlRate { code, value, line } in rates {
        match Currency::parse(&code) {
            Ok(currency) => insert(&mut table, currency, &value, date, line)?,
            Err(_) => table.skip(code),
        }
    }
    not_empty(table)
}

/// How deep the `Cube` of a day lies: `Envelope`, `Cube`, `Cube time=`.
const DAY_DEPTH: usize = 3;

/// One `Cube currency= rate=`, not yet understood: only the chosen day's are.
struct XmlRate {
    code: String,
    value: String,
    line: u64,
}

/// Keeps the best of the days seen, so that a long history is read in one pass.
struct Days<T> {
    asked: Option<Date>,
    best: Option<(Date, u64, T)>,
    first: Option<Date>,
}

impl<T> Days<T> {
    fn new(asked: Option<Date>) -> Days<T> {
        Days {
            asked,
            best: None,
            first: None,
        }
    }

    fn offer(&mut self, date: Date, line: u64, row: impl FnOnce() -> T) -> Result<(), EcbError> {
        self.first = Some(self.first.map_or(date, |first| first.min(date)));
        let best = self.best.as_ref().map(|(best, ..)| *best);
        if best == Some(date) {
            return Err(field(line, "Date", "each day once", &date.to_string()));
        }
        if best < Some(date) && self.asked.is_none_or(|asked| date <= asked) {
            self.best = Some((date, line, row()));
        }
        Ok(())
    }

    fn chosen(self) -> Result<(Date, u64, T), EcbError> {
        match (self.best, self.asked, self.first) {
            (Some(best), ..) => Ok(best),
            (None, Some(asked), Some(first)) => Err(EcbError::BeforeFirst { asked, first }),
            (None, ..) => Err(EcbError::Empty),
        }
    }
}

/// What a column of the history holds.
enum Column {
    Currency(Currency),
    Unknown(String),
    /// Every row of the history ends with a comma.
    Trailing,
}

fn columns(header: &StringRecord) -> Result<Vec<Column>, EcbError> {
    let line = header.position().map_or(1, csv::Position::line);
    let first = header.get(0).unwrap_or_default();
    if first != "Date" {
        return Err(field(line, "first column", "Date", first));
    }
    let mut columns = Vec::with_capacity(header.len());
    for (index, code) in header.iter().enumerate().skip(1) {
        if code.is_empty() && index == header.len() - 1 {
            columns.push(Column::Trailing);
            continue;
        }
        check_code(code, line)?;
        if header.iter().skip(1).take(index - 1).any(|before| before == code) {
            return Err(field(line, "header", "each currency once", code));
        }
        columns.push(Currency::parse(code).map_or_else(|_| Column::Unknown(code.to_owned()), Column::Currency));
    }
    Ok(columns)
}

fn open(
    element: &BytesStart<'_>,
    depth: usize,
    line: u64,
    day: &mut Option<(Date, u64, Vec<XmlRate>)>,
) -> Result<(), EcbError> {
    let name = element.local_name();
    let name = name.as_ref();
    if depth == 1 && name != "Envelope" {
        return Err(field(line, "root element", "Envelope", name));
    }
    if name != "Cube" {
        return Ok(());
    }
    let attribute = |wanted: &str| -> Result<Option<String>, EcbError> {
        let mut found = None;
        // Every attribute is looked at, so that one that comes twice is refused.
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| syntax(line, &error))?;
            if attribute.key.as_ref() == wanted {
                found = Some(attribute.value.into_owned());
            }
        }
        Ok(found)
    };
    if depth == DAY_DEPTH {
        let time = attribute("time")?.ok_or_else(|| field(line, "Cube", "attribute time", ""))?;
        *day = Some((parse_date(&time, line, "time")?, line, Vec::new()));
    } else if let (Some((_, _, rates)), true) = (day.as_mut(), depth == DAY_DEPTH + 1) {
        let code = attribute("currency")?.ok_or_else(|| field(line, "Cube", "attribute currency", ""))?;
        let value = attribute("rate")?.ok_or_else(|| field(line, &code, "attribute rate", ""))?;
        check_code(&code, line)?;
        rates.push(XmlRate { code, value, line });
    }
    Ok(())
}

fn close_day(day: &mut Option<(Date, u64, Vec<XmlRate>)>, days: &mut Days<Vec<XmlRate>>) -> Result<(), EcbError> {
    match day.take() {
        Some((date, line, rates)) => days.offer(date, line, || rates),
        None => Ok(()),
    }
}

/// Line numbers of growing positions, counted as the reader goes.
struct Lines<'a> {
    text: &'a str,
    position: usize,
    line: u64,
}

impl Lines<'_> {
    fn at(&mut self, position: u64) -> u64 {
        let end = usize::try_from(position).unwrap_or(usize::MAX).min(self.text.len());
        let passed = self.text.as_bytes().get(self.position..end).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.position = self.position.max(end);
        self.line
    }
}

/// The bytes as text, bounded, without the mark that some editors put first.
fn text(bytes: &[u8]) -> Result<&str, EcbError> {
    if bytes.len() > BYTES_MAX {
        return Err(EcbError::TooLong { found: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
        syntax(line, &"not UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn parse_date(text: &str, line: u64, name: &str) -> Result<Date, EcbError> {
    table::parse_date(text).map_err(|_| field(line, name, "a date YYYY-MM-DD", text))
}

fn check_code(code: &str, line: u64) -> Result<(), EcbError> {
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(field(line, "currency", "three capital letters", code));
    }
    Ok(())
}

fn insert(table: &mut RateTable, currency: Currency, value: &str, date: Date, line: u64) -> Result<(), EcbError> {
    let rate = Rate::parse(Currency::EUR, currency, value)
        .map_err(|_| field(line, currency.code(), "a rate above zero of at most 12 digits", value))?;
    table
        .insert(rate, date)
        .map_err(|_| field(line, currency.code(), "each currency but the base once", value))
}

fn not_empty(table: RateTable) -> Result<RateTable, EcbError> {
    if table.entries().is_empty() {
        Err(EcbError::Empty)
    } else {
        Ok(table)
    }
}

fn csv_syntax(error: &csv::Error) -> EcbError {
    let line = error.position().map_or(1, csv::Position::line);
    syntax(line, error)
}

/// The readers repeat names of the file, however long: a line of a log does not.
fn syntax(line: u64, detail: &dyn Display) -> EcbError {
    const CHARS_MAX: usize = 200;
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let detail = detail.to_string().chars().map(shown).take(CHARS_MAX).collect();
    EcbError::Syntax { line, detail }
}

fn field(line: u64, field: &str, expected: &'static str, found: &str) -> EcbError {
    const CHARS_MAX: usize = 32;
    let shorten = |text: &str| text.chars().take(CHARS_MAX).collect();
    EcbError::Field {
        line,
        field: shorten(field),
        expected,
        found: shorten(found),
    }
}

#[cfg(test)]
mod tests;
