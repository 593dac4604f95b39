//! Who takes part: three networks, their currencies and accounts, and the gateways' configuration.

use std::path::Path;

use causeway::{
    authn::{Principal, Role},
    config::Config,
};

use crate::random::Random;

pub const TRUST_DOMAIN: &str = "simulation.test";

/// The networks and the currencies that each holds.
pub const NETWORKS: [(&str, &[&str]); 3] = [
    ("apple-pay", &["USD", "EUR"]),
    ("alipay", &["CNY"]),
    ("paypal", &["JPY", "KWD"]),
];

/// What goes where. The payee's network may ask for a payment where it is written last.
pub const CORRIDORS: [(&str, &str, &str); 7] = [
    ("apple-pay/USD", "alipay/CNY", "apple-pay"),
    ("alipay/CNY", "apple-pay/USD", "alipay"),
    ("apple-pay/EUR", "paypal/JPY", "apple-pay"),
    ("paypal/JPY", "apple-pay/EUR", "paypal"),
    ("paypal/KWD", "alipay/CNY", "paypal"),
    ("alipay/CNY", "paypal/KWD", "paypal"),
    // Both branches in one network.
    ("apple-pay/USD", "apple-pay/EUR", "apple-pay"),
];

/// ISO 4217.
pub fn decimals(currency: &str) -> u32 {
    match currency {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    }
}

/// Accounts with money, in every currency of their network.
pub const RICH: u64 = 6;
/// What a rich account opens with, in minor units.
pub const RICH_MINOR: u64 = 10_000_000_000_000;
/// Accounts with hardly any.
pub const POOR: u64 = 2;
pub const POOR_MINOR: u64 = 5_000;

/// An account's name, drawn; now and then one that refuses.
pub fn account(random: &mut Random) -> String {
    match random.below(40) {
        0 => "closed-0".into(),
        1 => "nobody".into(),
        2..=4 => format!("poor-{}", random.below(POOR)),
        _ => format!("rich-{}", random.below(RICH)),
    }
}

pub fn principal(network: usize) -> Principal {
    Principal::new(Role::Partner, NETWORKS[network].0, TRUST_DOMAIN).expect("the names are right")
}

/// Timings that differ from world to world.
#[derive(Clone, Debug)]
pub struct Timings {
    pub voting_ms: u64,
    pub command_ms: u64,
    pub hold_ms: u64,
    pub recovery_interval_ms: u64,
    pub quote_ttl_ms: u64,
    pub calls_per_partner: u64,
    pub expire_after_ms: u64,
}

impl Timings {
    pub fn draw(random: &mut Random) -> Self {
        Self {
            voting_ms: random.between(1_500, 15_000),
            command_ms: random.between(300, 8_000),
            hold_ms: random.spread(1_000, 60_000),
            recovery_interval_ms: random.spread(1_000, 30_000),
            quote_ttl_ms: random.between(2_000, 60_000),
            // Now and then so few that commands queue.
            calls_per_partner: if random.below(4) == 0 {
                random.between(1, 4)
            } else {
                2_048
            },
            expire_after_ms: random.spread(1_000, 600_000),
        }
    }
}

pub fn config(timings: &Timings) -> Config {
    let Timings {
        voting_ms,
        command_ms,
        hold_ms,
        recovery_interval_ms,
        quote_ttl_ms,
        calls_per_partner,
        expire_after_ms,
    } = timings;
    let refresh_after_ms = expire_after_ms / 2;
    let mut text = format!(
        r#"
listen = "127.0.0.1:7000"
store = "none.sqlite"
trust_domain = "{TRUST_DOMAIN}"
[tls]
ca = "none.pem"
cert = "none.pem"
key = "none.key"
[rates]
source = "sample"
expire_after_ms = {expire_after_ms}
refresh_after_ms = {refresh_after_ms}
[timing]
command_ms = {command_ms}
inquiry_ms = {command_ms}
voting_ms = {voting_ms}
voting_min_ms = 500
hold_ms = {hold_ms}
recovery_interval_ms = {recovery_interval_ms}
[limits]
calls_per_partner = {calls_per_partner}
"#
    );
    for (name, currencies) in NETWORKS {
        text += &format!(
            r#"
[[partner]]
name = "{name}"
identity = "spiffe://{TRUST_DOMAIN}/partner/{name}"
endpoint = "https://localhost:7001"
currencies = {currencies:?}
"#
        );
    }
    for (from, to, initiator) in CORRIDORS {
        text += &format!(
            r#"
[[corridor]]
from = "{from}"
to = "{to}"
margin = "0.0025"
quote_ttl_ms = {quote_ttl_ms}
initiators = ["{initiator}"]
"#
        );
        if from.ends_with("USD") {
            text += "fee = \"0.30\"\nsend_max = \"5000.00\"\n";
        }
    }
    Config::parse(&text, Path::new("simulation.toml")).unwrap_or_else(|error| panic!("{error}"))
}
