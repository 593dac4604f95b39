use super::*;

const GOOD: &str = r#"
listen = "127.0.0.1:7000"
store = "causeway.sqlite"
[tls]
ca = "ca.pem"
cert = "gateway.pem"
key = "gateway.key"
[rates]
source = "sample"
date = "2014-10-28"
[[partner]]
name = "apple-pay"
identity = "spiffe://causeway.dev/partner/apple-pay"
endpoint = "https://localhost:7001"
currencies = ["USD"]
[[partner]]
name = "alipay"
identity = "spiffe://causeway.dev/partner/alipay"
endpoint = "https://localhost:7002"
currencies = ["CNY"]
[[corridor]]
from = "apple-pay/USD"
to = "alipay/CNY"
margin = "0.0025"
fee = "0.30"
send_max = "10000"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/causeway/gateway.toml"))
}

#[test]
fn a_good_file_is_taken_and_its_paths_are_relative_to_it() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.store, Path::new("/etc/causeway/causeway.sqlite"));
    assert_eq!(config.partners.len(), 2);
    let (corridor, terms) = config.corridors.iter().next().unwrap();
    assert_eq!((corridor.source, corridor.target), (Currency::USD, Currency::CNY));
    assert_eq!(terms.pricing.fee.to_string(), "0.30 USD");
    // Unless said otherwise, the paying network initiates.
    assert_eq!(
        terms.initiators.iter().map(PartnerName::as_str).collect::<Vec<_>>(),
        ["apple-pay"]
    );
    assert!(config.rates.source.is_pinned());
    // Metrics are served where that is asked for.
    assert_eq!(config.metrics, None);
    let asked = GOOD.replace("[rates]", "[metrics]\nlisten = \"127.0.0.1:9464\"\n[rates]");
    assert_eq!(parse(&asked).unwrap().metrics, Some(([127, 0, 0, 1], 9464).into()));
}

#[test]
fn a_wrong_file_names_the_key_what_was_found_and_what_is_allowed() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("listen = \"127.0.0.1:7000\"", "", &["missing field `listen`"]),
        (
            "listen = \"127.0.0.1:7000\"",
            "listen = \"nowhere\"",
            &["listen", "nowhere", "127.0.0.1:7000"],
        ),
        (
            "[rates]",
            "[metrics]\nlisten = \"9464\"\n[rates]",
            &["metrics.listen", "9464", "127.0.0.1:9464"],
        ),
        (
            "[rates]",
            "[metrics]\nport = 9464\n[rates]",
            &["metrics", "port", "unknown field"],
        ),
        (
            "listen = \"127.0.0.1:7000\"",
            "listen = 7000",
            &["listen", "integer", "string"],
        ),
        ("listen =", "lisen =", &["lisen", "unknown field", "listen"]),
        ("\"sample\"", "\"oracle\"", &["rates.source", "oracle", "ecb-csv"]),
        (
            "\"2014-10-28\"",
            "\"28.10.2014\"",
            &["rates.date", "28.10.2014", "2014-10-28"],
        ),
        (
            "source = \"sample\"",
            "source = \"ecb-https\"\nurl = \"http://x\"",
            &["rates.url", "http://x", "https://"],
        ),
        (
            "source = \"sample\"",
            "source = \"ecb-csv\"",
            &["rates.path", "nothing", "path of a file"],
        ),
        (
            "name = \"alipay\"",
            "name = \"Alipay\"",
            &["partner[1].name", "Alipay", "a-z"],
        ),
        (
            "name = \"alipay\"",
            "name = \"apple-pay\"",
            &["partner[1].name", "apple-pay", "a name of its own"],
        ),
        (
            "spiffe://causeway.dev/partner/alipay",
            "spiffe://causeway.dev/partner/apple-pay",
            &["partner[1].identity", "identity of its own"],
        ),
        (
            "spiffe://causeway.dev/partner/alipay",
            "alipay",
            &["partner[1].identity", "\"alipay\"", "spiffe://"],
        ),
        (
            "spiffe://causeway.dev/partner/alipay",
            "spiffe://causeway.dev/operator/alipay",
            &["partner[1].identity", "operator", "spiffe://causeway.dev/partner/NAME"],
        ),
        (
            "spiffe://causeway.dev/partner/alipay",
            "spiffe://other.dev/partner/alipay",
            &["partner[1].identity", "other.dev", "spiffe://causeway.dev/partner/NAME"],
        ),
        (
            "https://localhost:7002",
            "http://localhost:7002",
            &["partner[1].endpoint", "http://", "https://"],
        ),
        ("[\"CNY\"]", "[\"CNX\"]", &["partner[1].currencies", "CNX", "ISO 4217"]),
        ("[\"CNY\"]", "[]", &["partner[1].currencies", "[]", "at least one"]),
        (
            "to = \"alipay/CNY\"",
            "to = \"alipay\"",
            &["corridor[0].to", "alipay", "PARTNER/CURRENCY"],
        ),
        (
            "to = \"alipay/CNY\"",
            "to = \"alipay/USD\"",
            &["corridor[0].to", "alipay/USD", "CNY"],
        ),
        (
            "to = \"alipay/CNY\"",
            "to = \"paypal/EUR\"",
            &["corridor[0].to", "paypal", "alipay, apple-pay"],
        ),
        (
            "fee = \"0.30\"",
            "fee = \"0.305\"",
            &["corridor[0].fee", "0.305", "USD"],
        ),
        (
            "fee = \"0.30\"",
            "fee = 0.30",
            &["corridor[0].fee", "floating point", "string"],
        ),
        (
            "margin = \"0.0025\"",
            "margin = \"2.5\"",
            &["corridor[0].margin", "2.5", "below 1"],
        ),
        (
            "send_max = \"10000\"",
            "send_max = \"1\"\nsend_min = \"2\"",
            &["corridor[0].send_max", "1.00", "2.00"],
        ),
        (
            "send_max = \"10000\"",
            "quote_ttl_ms = 5",
            &["corridor[0].quote_ttl_ms", "5", "1000 to 86400000"],
        ),
        (
            "send_max = \"10000\"",
            "initiators = [\"x\"]",
            &["corridor[0].initiators", "\"x\"", "alipay, apple-pay"],
        ),
        (
            "[tls]",
            "[timing]\nvoting_ms = 100\nvoting_min_ms = 200\n[tls]",
            &["timing.voting_min_ms", "200", "100"],
        ),
        (
            "[tls]",
            "[timing]\ndelivery_ladder_ms = []\n[tls]",
            &["timing.delivery_ladder_ms", "0 rungs", "1 to 32"],
        ),
        (
            "[tls]",
            "[timing]\njitter_percent = 101\n[tls]",
            &["timing.jitter_percent", "101", "0 to 100"],
        ),
        (
            "[tls]",
            "[limits]\nmessage_bytes = 1\n[tls]",
            &["limits.message_bytes", "1", "1024"],
        ),
        ("listen", "= =", &["TOML"]),
    ];
    for (from, to, needles) in rows {
        assert!(GOOD.contains(from), "the row changes nothing: {from}");
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        for needle in *needles {
            assert!(
                error.contains(needle),
                "{from} -> {to}\nshould name {needle:?}: {error}"
            );
        }
        assert!(error.contains("/etc/causeway/gateway.toml"), "{error}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let text = GOOD
        .replace("\"0.30\"", "\"x\"")
        .replace("https://localhost:7001", "x")
        .replace("127.0.0.1:7000", "x");
    let Err(ConfigError::Invalid { problems, .. }) = parse(&text) else {
        panic!("should be invalid")
    };
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["listen", "partner[0].endpoint", "corridor[0].fee"]);
}
