//! Who takes part: networks, their accounts, and the corridors between them. No behaviour.

use crate::requests::{ALIPAY, APPLE, PAYPAL};

pub const GATEWAY: &str = "gateway";
pub const OPERATOR: &str = "ops";

/// One day of rates, of the euro: USD, JPY and CNY as the European Central Bank had them, and KWD, which it does not quote.
pub const RATES: &str = "Date,USD,JPY,CNY,KWD\n2014-10-28,1.2748,137.94,7.7935,0.36814\n";

/// A partner network.
pub struct Cast {
    pub name: &'static str,
    pub currencies: &'static [&'static str],
    /// As `causeway mock-partner --account` has them. The poor run dry, the capped have a limit, the gone are closed.
    pub accounts: &'static [&'static str],
}

pub const CAST: [Cast; 3] = [
    Cast {
        name: APPLE,
        currencies: &["USD", "JPY"],
        accounts: &[
            "alice:USD:1000000.00",
            "ann:USD:1000000.00",
            "poor:USD:60.00",
            "capped:USD:100000.00:limit=25.00",
            "gone:USD:1000.00:closed",
            "yuki:JPY:100000000",
        ],
    },
    Cast {
        name: ALIPAY,
        currencies: &["CNY", "KWD"],
        accounts: &[
            "bao:CNY:1000000.00",
            "bo:CNY:1000000.00",
            "poor:CNY:60.00",
            "gone:CNY:0.00:closed",
            "omar:KWD:1000000.000",
        ],
    },
    Cast {
        name: PAYPAL,
        currencies: &["EUR"],
        accounts: &[
            "carla:EUR:1000000.00",
            "carl:EUR:1000000.00",
            "poor:EUR:60.00",
            "gone:EUR:10.00:closed",
        ],
    },
];

/// One way that money goes.
#[derive(Clone, Copy, Debug)]
pub struct Corridor {
    pub from: &'static str,
    pub source: &'static str,
    pub to: &'static str,
    pub target: &'static str,
    /// Its table in the gateway's configuration, but for the two ends.
    pub terms: &'static str,
}

const fn corridor(
    (from, source): (&'static str, &'static str),
    (to, target): (&'static str, &'static str),
    terms: &'static str,
) -> Corridor {
    Corridor {
        from,
        source,
        to,
        target,
        terms,
    }
}

/// Some quotes of the second one lapse before anybody gets round to them.
pub const CORRIDORS: [Corridor; 8] = [
    corridor((APPLE, "USD"), (ALIPAY, "CNY"), "margin = \"0.0025\"\nfee = \"0.30\""),
    corridor(
        (ALIPAY, "CNY"),
        (APPLE, "USD"),
        "margin = \"0.003\"\nquote_ttl_ms = 1500",
    ),
    corridor((PAYPAL, "EUR"), (APPLE, "USD"), "margin = \"0.001\"\nfee = \"0.10\""),
    corridor((APPLE, "USD"), (PAYPAL, "EUR"), ""),
    corridor((ALIPAY, "CNY"), (PAYPAL, "EUR"), "fee = \"0.40\""),
    corridor((PAYPAL, "EUR"), (ALIPAY, "CNY"), "margin = \"0.0125\"\nfee = \"0.05\""),
    corridor((APPLE, "JPY"), (ALIPAY, "KWD"), "margin = \"0.005\"\nfee = \"15\""),
    corridor((ALIPAY, "KWD"), (APPLE, "JPY"), "margin = \"0.005\"\nfee = \"0.125\""),
];
