//! Writes the inputs that the corpora start from: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

use std::{fs, path::Path};

use causeway::{
    certs::{Authority, LeafSpec, issue},
    coordinator::protocol::{Decision, Event, Knowledge, Record},
    fuzzing::{ResumeToken, encode_quote, encode_record},
    payment::{Outcome, PaymentId, Quote, QuoteId, Reason},
    pb::{
        gateway::v1::{self as pb, FixedSide},
        money::v1::Money,
        participant::v1::{Branch, Refusal, branch::State},
    },
};
use prost::Message;

fn main() {
    let terms = causeway_fuzz::terms();
    let payment = PaymentId::derive(&terms.initiator, &terms.order.request_id).to_string();
    let quote = QuoteId::from_random([7; 16]).to_string();
    requests(&quote);
    records(&terms);
    branches(&payment);
    for (n, name) in [&payment, &quote, "rates/USD-CNY", "USD", "", "partners/apple-pay"]
        .iter()
        .enumerate()
    {
        seed("names", n, name.as_bytes());
    }
    for (n, filter) in [
        "",
        "state = COMPLETED",
        "state != STATE_COMPLETED AND state != \"ABORTED\"",
        "create_time >= \"2026-01-31T00:00:00Z\" AND create_time < 2026-02-01T00:00:00.5Z",
        "create_time > 1970-01-01T00:00:00.0005+01:00 AND create_time <= 2026-02-01T00:00:00Z",
        "request_id = r-1",
    ]
    .iter()
    .enumerate()
    {
        seed("filter", n, filter.as_bytes());
    }
    seed("tokens", 0, ResumeToken::text(77).as_bytes());
    seed("tokens", 1, &[3; 24]);
    for (n, text) in [
        "0",
        "12.34",
        "0.000001",
        "999999999999999",
        "6.11350800126",
        "0.0025",
        "1e3",
        "-1",
        "EUR",
        "1.",
    ]
    .iter()
    .enumerate()
    {
        seed("money", n, text.as_bytes());
    }
    rates();
    let authority = Authority::new(30).expect("a key");
    let uri = "spiffe://causeway.dev/partner/apple-pay".to_owned();
    for (n, uris) in [vec![uri.clone()], vec![uri.clone(), uri.clone()], vec![]]
        .into_iter()
        .enumerate()
    {
        let leaf = issue(
            &authority,
            &LeafSpec {
                uris,
                ..LeafSpec::default()
            },
        );
        seed("identity", n, leaf.expect("a certificate").certificate_der());
    }
    seed("identity", 3, uri.as_bytes());
    let example = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway.example.toml"));
    seed("config", 0, &example.expect("the example"));
    let small = "listen = \"127.0.0.1:7000\"\nstore = \"s.sqlite\"\n[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n\
        [rates]\nsource = \"sample\"\n\
        [[partner]]\nname = \"a\"\nidentity = \"spiffe://x/partner/a\"\nendpoint = \"https://a:1\"\ncurrencies = [\"USD\"]\n\
        [[partner]]\nname = \"b\"\nidentity = \"spiffe://x/partner/b\"\nendpoint = \"https://b:1\"\ncurrencies = [\"CNY\"]\n\
        [[corridor]]\nfrom = \"a/USD\"\nto = \"b/CNY\"\nmargin = \"0.0025\"\nfee = \"0.30\"\n";
    seed("config", 1, small.as_bytes());
}

fn requests(quote: &str) {
    let money = |amount: &str| {
        Some(Money {
            currency: "USD".into(),
            amount: amount.into(),
        })
    };
    let party = |partner: &str, account: &str| {
        Some(pb::Party {
            partner: format!("partners/{partner}"),
            account: account.into(),
        })
    };
    let market = pb::payment::Pricing::Market(pb::payment::MarketOrder {
        fixed_side: FixedSide::Send.into(),
        amount: money("10.00"),
        worst_rate: "6".into(),
        source_currency: "USD".into(),
        target_currency: "CNY".into(),
    });
    for (n, pricing) in [Some(market), Some(pb::payment::Pricing::Quote(quote.into())), None]
        .into_iter()
        .enumerate()
    {
        let request = pb::CreatePaymentRequest {
            payment: Some(Box::new(pb::Payment {
                payer: party("apple-pay", "alice"),
                payee: party("alipay", "bob"),
                pricing,
                ..pb::Payment::default()
            })),
            request_id: "r-1".into(),
            ..pb::CreatePaymentRequest::default()
        };
        seed("create_payment", n, &request.encode_to_vec());
    }
    for (n, side) in [FixedSide::Send, FixedSide::Unspecified].into_iter().enumerate() {
        let request = pb::CreateQuoteRequest {
            quote: Some(pb::Quote {
                corridor: Some(pb::Corridor {
                    source_partner: "partners/apple-pay".into(),
                    source_currency: "USD".into(),
                    target_partner: "partners/alipay".into(),
                    target_currency: "CNY".into(),
                }),
                payer_account: "alice".into(),
                fixed_side: side.into(),
                amount: money("10.00"),
                ..pb::Quote::default()
            }),
        };
        seed("create_quote", n, &request.encode_to_vec());
    }
}

fn records(terms: &std::sync::Arc<causeway::payment::Terms>) {
    let yes = || Knowledge::Prepared { reference: "H1".into() };
    let outcome = Outcome::new(Reason::InsufficientFunds, "no funds", Some(&terms.initiator));
    for (n, event) in [
        Event::Begun(terms.clone()),
        Event::Decided {
            decision: Decision::Commit,
            branches: vec![yes(), yes()],
        },
        Event::Decided {
            decision: Decision::Abort(outcome.clone()),
            branches: vec![Knowledge::Refused, Knowledge::Unknown],
        },
        Event::Ended {
            branches: vec![Knowledge::Aborted, Knowledge::Refused],
        },
        Event::Disputed {
            outcome,
            branches: vec![Knowledge::Contradicted, yes()],
        },
    ]
    .into_iter()
    .enumerate()
    {
        let record = encode_record(&Record { at_ms: 1, event });
        seed("record", n, &[&[0], record.as_slice()].concat());
    }
    let quote = Quote {
        id: QuoteId::from_random([7; 16]),
        owner: terms.initiator.clone(),
        source_partner: terms.order.payer.partner.clone(),
        target_partner: terms.order.payee.partner.clone(),
        payer_account: Some(terms.order.payer.account.clone()),
        payee_account: None,
        fixed_send: true,
        conversion: terms.conversion.clone(),
        origin: terms.origin.clone(),
        create_ms: 1,
        expire_ms: 2,
    };
    seed("record", 5, &[&[1], encode_quote(&quote).as_slice()].concat());
}

fn branches(payment: &str) {
    let states = [
        State::Prepared,
        State::Refused,
        State::Committed,
        State::Aborted,
        State::Unspecified,
    ];
    for (n, state) in states.into_iter().enumerate() {
        let branch = Branch {
            payment: payment.into(),
            branch: "debit".into(),
            state: state.into(),
            reference: "H1".into(),
            refusal: (state == State::Refused).then(|| Refusal {
                code: "AM04".into(),
                detail: "no funds".into(),
            }),
        };
        seed("branch", n, &[&[16], branch.encode_to_vec().as_slice()].concat());
    }
    seed("branch", 5, b"\x08\x05no such branch here");
}

fn rates() {
    let csv = "Date, USD, JPY, XYZ, \n2014-10-28, 1.2748, 137.55, 1, \n2014-10-27, 1.2679, N/A, N/A, \n";
    seed("rates_csv", 0, csv.as_bytes());
    let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<gesmes:Envelope xmlns:gesmes=\"g\" xmlns=\"e\">\
        <gesmes:subject>Reference rates</gesmes:subject><Cube><Cube time='2014-10-28'><Cube currency='USD' rate='1.2748'/>\
        <Cube currency='JPY' rate='137.55'/><Cube currency='XYZ' rate='1'/></Cube></Cube></gesmes:Envelope>\n";
    seed("rates_xml", 0, xml.as_bytes());
    let two = "<Envelope><Cube><Cube time=\"2014-10-28\"><Cube currency=\"USD\" rate=\"1.2\"></Cube></Cube>\
        <Cube time=\"2014-10-29\"><Cube currency=\"USD\" rate=\"1.3\"/></Cube></Cube></Envelope>";
    seed("rates_xml", 1, two.as_bytes());
}

fn seed(target: &str, n: usize, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("seed-{n:02}")), bytes).expect("a file");
}
