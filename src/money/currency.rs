//! Currencies: ISO 4217 alphabetic codes and their minor units.

use std::fmt;
use std::str::FromStr;

use super::{MoneyError, excerpt};

/// A currency of ISO 4217: one byte, an index into the table of codes. Ordered as the codes are.
///
/// Known are the codes of ISO 4217 list one that denote money, and the withdrawn ones that the history of the
/// European Central Bank's reference rates has (BGN, CYP, EEK, HRK, LTL, LVL, MTL, ROL, SIT, SKK, TRL). Left out are
/// metals, funds, units of account and test codes (XAU, CLF, XDR, XTS, ...): no wallet pays in them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(u8);

impl Currency {
    /// Chinese yuan renminbi, 2 decimals.
    pub const CNY: Currency = Currency::known("CNY");
    /// Euro, 2 decimals.
    pub const EUR: Currency = Currency::known("EUR");
    /// Japanese yen, no decimals.
    pub const JPY: Currency = Currency::known("JPY");
    /// Kuwaiti dinar, 3 decimals.
    pub const KWD: Currency = Currency::known("KWD");
    /// United States dollar, 2 decimals.
    pub const USD: Currency = Currency::known("USD");

    /// Reads an ISO 4217 alphabetic code: three capital letters, nothing around them.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`] for anything else.
    pub fn parse(code: &str) -> Result<Currency, MoneyError> {
        let index = TABLE.binary_search_by(|(known, _)| (*known).cmp(code)).ok();
        let index = index.and_then(|index| u8::try_from(index).ok());
        index
            .map(Currency)
            .ok_or_else(|| MoneyError::UnknownCurrency { found: excerpt(code) })
    }

    /// Every currency known, by code.
    pub fn all() -> impl Iterator<Item = Currency> {
        (0u8..).take(TABLE.len()).map(Currency)
    }

    /// The alphabetic code: "USD".
    pub fn code(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// Decimals of the minor unit (ISO 4217 list one, column "minor unit"): USD 2, JPY 0, KWD 3. Never more than 3.
    pub fn minor_digits(self) -> u32 {
        TABLE[usize::from(self.0)].1
    }

    /// The currency of a code that stands in the source; evaluated by the compiler.
    const fn known(code: &str) -> Currency {
        let code = code.as_bytes();
        let mut index = 0u8;
        loop {
            let row = TABLE[index as usize].0.as_bytes();
            if row[0] == code[0] && row[1] == code[1] && row[2] == code[2] {
                return Currency(index);
            }
            index += 1;
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Currency, MoneyError> {
        Currency::parse(code)
    }
}

/// Code and decimals of the minor unit, sorted by code. Withdrawn codes keep the minor unit they had;
/// TRL, whose kuruş had long been out of use, is kept without decimals as CLDR has it.
#[rustfmt::skip]
static TABLE: [(&str, u32); 166] = [
    ("AED", 2), ("AFN", 2), ("ALL", 2), ("AMD", 2), ("AOA", 2), ("ARS", 2), ("AUD", 2), ("AWG", 2), ("AZN", 2),
    ("BAM", 2), ("BBD", 2), ("BDT", 2), ("BGN", 2), ("BHD", 3), ("BIF", 0), ("BMD", 2), ("BND", 2), ("BOB", 2),
    ("BRL", 2), ("BSD", 2), ("BTN", 2), ("BWP", 2), ("BYN", 2), ("BZD", 2), ("CAD", 2), ("CDF", 2), ("CHF", 2),
    ("CLP", 0), ("CNY", 2), ("COP", 2), ("CRC", 2), ("CUP", 2), ("CVE", 2), ("CYP", 2), ("CZK", 2), ("DJF", 0),
    ("DKK", 2), ("DOP", 2), ("DZD", 2), ("EEK", 2), ("EGP", 2), ("ERN", 2), ("ETB", 2), ("EUR", 2), ("FJD", 2),
    ("FKP", 2), ("GBP", 2), ("GEL", 2), ("GHS", 2), ("GIP", 2), ("GMD", 2), ("GNF", 0), ("GTQ", 2), ("GYD", 2),
    ("HKD", 2), ("HNL", 2), ("HRK", 2), ("HTG", 2), ("HUF", 2), ("IDR", 2), ("ILS", 2), ("INR", 2), ("IQD", 3),
    ("IRR", 2), ("ISK", 0), ("JMD", 2), ("JOD", 3), ("JPY", 0), ("KES", 2), ("KGS", 2), ("KHR", 2), ("KMF", 0),
    ("KPW", 2), ("KRW", 0), ("KWD", 3), ("KYD", 2), ("KZT", 2), ("LAK", 2), ("LBP", 2), ("LKR", 2), ("LRD", 2),
    ("LSL", 2), ("LTL", 2), ("LVL", 2), ("LYD", 3), ("MAD", 2), ("MDL", 2), ("MGA", 2), ("MKD", 2), ("MMK", 2),
    ("MNT", 2), ("MOP", 2), ("MRU", 2), ("MTL", 2), ("MUR", 2), ("MVR", 2), ("MWK", 2), ("MXN", 2), ("MYR", 2),
    ("MZN", 2), ("NAD", 2), ("NGN", 2), ("NIO", 2), ("NOK", 2), ("NPR", 2), ("NZD", 2), ("OMR", 3), ("PAB", 2),
    ("PEN", 2), ("PGK", 2), ("PHP", 2), ("PKR", 2), ("PLN", 2), ("PYG", 0), ("QAR", 2), ("ROL", 2), ("RON", 2),
    ("RSD", 2), ("RUB", 2), ("RWF", 0), ("SAR", 2), ("SBD", 2), ("SCR", 2), ("SDG", 2), ("SEK", 2), ("SGD", 2),
    ("SHP", 2), ("SIT", 2), ("SKK", 2), ("SLE", 2), ("SOS", 2), ("SRD", 2), ("SSP", 2), ("STN", 2), ("SVC", 2),
    ("SYP", 2), ("SZL", 2), ("THB", 2), ("TJS", 2), ("TMT", 2), ("TND", 3), ("TOP", 2), ("TRL", 0), ("TRY", 2),
    ("TTD", 2), ("TWD", 2), ("TZS", 2), ("UAH", 2), ("UGX", 0), ("USD", 2), ("UYU", 2), ("UZS", 2), ("VED", 2),
    ("VES", 2), ("VND", 0), ("VUV", 0), ("WST", 2), ("XAF", 0), ("XCD", 2), ("XCG", 2), ("XOF", 0), ("XPF", 0),
    ("YER", 2), ("ZAR", 2), ("ZMW", 2), ("ZWG", 2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_code_finds_itself() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(TABLE.len() <= usize::from(u8::MAX));
        for currency in Currency::all() {
            assert_eq!(Currency::parse(currency.code()), Ok(currency));
            assert_eq!(currency.code().len(), 3);
            assert!(currency.minor_digits() <= 3);
        }
        assert_eq!(Currency::all().count(), TABLE.len());
    }

    #[test]
    fn minor_units_are_those_of_iso_4217() {
        let check = |code: &str, digits: u32| {
            assert_eq!(Currency::parse(code).unwrap().minor_digits(), digits, "{code}");
        };
        for code in ["EUR", "USD", "CNY", "HUF", "IDR", "MGA", "MRU", "XCG"] {
            check(code, 2);
        }
        for code in ["JPY", "KRW", "ISK", "VND", "CLP", "XAF", "XOF", "XPF", "UGX", "PYG"] {
            check(code, 0);
        }
        for code in ["KWD", "BHD", "OMR", "JOD", "TND", "IQD", "LYD"] {
            check(code, 3);
        }
    }

    #[test]
    fn constants_and_the_ecb_history_are_known() {
        assert_eq!(Currency::EUR.to_string(), "EUR");
        assert_eq!(format!("{:?} {:>5}", Currency::KWD, Currency::JPY), "KWD   JPY");
        assert_eq!("CNY".parse(), Ok(Currency::CNY));
        assert_eq!(Currency::USD, Currency::parse("USD").unwrap());
        for code in [
            "BGN", "HRK", "EEK", "LTL", "LVL", "CYP", "MTL", "SIT", "SKK", "ROL", "TRL", "RUB",
        ] {
            assert!(Currency::parse(code).is_ok(), "{code}");
        }
    }

    #[test]
    fn strangers_are_refused() {
        for code in [
            "",
            "usd",
            "US",
            "USDX",
            " USD",
            "USD ",
            "XXX",
            "XAU",
            "XTS",
            "UŞD",
            "U\0D",
            "\u{1f4b0}",
        ] {
            assert!(
                matches!(Currency::parse(code), Err(MoneyError::UnknownCurrency { .. })),
                "{code:?}"
            );
        }
        let long = "x".repeat(10_000);
        let Err(MoneyError::UnknownCurrency { found }) = Currency::parse(&long) else {
            panic!("parsed")
        };
        assert!(found.chars().count() <= 33);
    }
}
