//! The mock partner from outside: over mutual TLS, as the gateway and its testers meet it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use prost_types::Timestamp;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Channel};
use tonic_types::StatusExt;

use super::*;
use crate::{
    authn::Role,
    certs::{self, CertsOptions},
    pb::{
        gateway::v1::{
            GetDecisionRequest, GetDecisionResponse,
            decision_service_server::{DecisionService, DecisionServiceServer},
            get_decision_response::Decision,
        },
        mock::v1::{self as mock, mock_service_client::MockServiceClient},
        money::v1::Money,
        participant::v1::{
            self as participant, Branch, Direction, PrepareRequest, branch::State,
            participant_service_client::ParticipantServiceClient,
        },
    },
};

/// Nothing here takes longer unless it hangs.
const BOUND: Duration = Duration::from_secs(30);

fn principal(path: &str) -> Principal {
    Principal::parse(&format!("spiffe://causeway.dev/{path}")).unwrap()
}

/// Certificates for everybody, and a directory for stores.
struct House {
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let gateways = vec!["gateway".to_owned(), "impostor".to_owned()];
        certs::generate(&CertsOptions {
            dir: dir.path().to_owned(),
            gateways,
            ..CertsOptions::default()
        })
        .unwrap();
        House { dir }
    }

    fn tls(&self, path: &str) -> TlsFiles {
        certs::files_of(self.dir.path(), &principal(path))
    }

    /// The network "alipay" with what the tests need.
    fn options(&self) -> MockOptions {
        let accounts = [
            "alice:USD:100.00",
            "bob:USD:0",
            "capped:USD:500.00:limit=10.00",
            "gone:USD:5.00:closed",
            "yuki:JPY:1000",
        ];
        MockOptions {
            accounts: accounts.map(|text| text.parse().unwrap()).to_vec(),
            ..MockOptions::new(
                "alipay",
                self.tls("partner/alipay"),
                self.dir.path().join("alipay.sqlite"),
            )
        }
    }

    async fn start(&self, options: MockOptions) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(options, listener, async { drop(stopped.await) }));
        Running { addr, stop, server }
    }

    fn channel(&self, running: &Running, caller: &str) -> Channel {
        let endpoint = format!("https://{}", running.addr);
        tls::channel(
            &endpoint,
            &self.tls(caller),
            &principal("partner/alipay"),
            ChannelOptions::default(),
        )
        .unwrap()
    }

    fn gateway(&self, running: &Running) -> Gateway {
        Gateway {
            client: ParticipantServiceClient::new(self.channel(running, "gateway/gateway")),
        }
    }

    fn tester(&self, running: &Running) -> Tester {
        Tester {
            client: MockServiceClient::new(self.channel(running, "operator/ops")),
        }
    }
}

struct Running {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), MockError>>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(BOUND, self.server)
            .await
            .expect("does not stop")
            .unwrap()
            .unwrap();
    }

    /// As if the process had died.
    async fn kill(self) {
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
    }
}

/// The gateway's side.
#[derive(Clone)]
struct Gateway {
    client: ParticipantServiceClient<Channel>,
}

impl Gateway {
    async fn prepare(&mut self, request: PrepareRequest) -> Result<Branch, Status> {
        timeout(BOUND, self.client.prepare(request))
            .await
            .expect("hangs")
            .map(Response::into_inner)
    }

    async fn commit(&mut self, payment: &str, branch: &str) -> Result<Branch, Status> {
        let request = participant::CommitRequest {
            payment: payment.to_owned(),
            branch: branch.to_owned(),
        };
        timeout(BOUND, self.client.commit(request))
            .await
            .expect("hangs")
            .map(Response::into_inner)
    }

    async fn abort(&mut self, payment: &str, branch: &str) -> Result<Branch, Status> {
        let request = participant::AbortRequest {
            payment: payment.to_owned(),
            branch: branch.to_owned(),
        };
        timeout(BOUND, self.client.abort(request))
            .await
            .expect("hangs")
            .map(Response::into_inner)
    }

    async fn get(&mut self, payment: &str, branch: &str) -> Result<Branch, Status> {
        let request = participant::GetBranchRequest {
            payment: payment.to_owned(),
            branch: branch.to_owned(),
        };
        timeout(BOUND, self.client.get_branch(request))
            .await
            .expect("hangs")
            .map(Response::into_inner)
    }
}

/// The tester's side, which also audits: every look at the accounts checks that they sum to zero.
struct Tester {
    client: MockServiceClient<Channel>,
}

impl Tester {
    /// (balance, held) by "account currency".
    async fn accounts(&mut self) -> BTreeMap<String, (String, String)> {
        let accounts = self
            .client
            .list_accounts(mock::ListAccountsRequest {})
            .await
            .unwrap()
            .into_inner()
            .accounts;
        let mut sums = BTreeMap::<String, i128>::new();
        for account in &accounts {
            let balance = account.balance.as_ref().unwrap();
            let minor: i128 = balance.amount.replace('.', "").parse().unwrap();
            *sums.entry(balance.currency.clone()).or_default() += minor;
        }
        assert!(sums.values().all(|sum| *sum == 0), "{sums:?}");
        let entry = |account: mock::Account| {
            let (balance, held) = (account.balance.unwrap(), account.held.unwrap());
            (
                format!("{} {}", account.account, balance.currency),
                (balance.amount, held.amount),
            )
        };
        accounts.into_iter().map(entry).collect()
    }

    async fn account(&mut self, name: &str) -> (String, String) {
        self.accounts()
            .await
            .remove(name)
            .unwrap_or_else(|| panic!("no account {name}"))
    }

    async fn movements(&mut self) -> Vec<mock::Movement> {
        let listed = self
            .client
            .list_movements(mock::ListMovementsRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(listed.total_count, listed.movements.len() as i64);
        listed.movements
    }

    async fn holds(&mut self, state: &str) -> Vec<mock::Hold> {
        let request = mock::ListHoldsRequest {
            state: state.to_owned(),
            payment: String::new(),
        };
        self.client.list_holds(request).await.unwrap().into_inner().holds
    }

    async fn put(&mut self, account: mock::Account) -> Result<mock::Account, Status> {
        let request = mock::PutAccountRequest { account: Some(account) };
        self.client.put_account(request).await.map(Response::into_inner)
    }

    async fn set_faults(&mut self, faults: Vec<mock::Fault>) {
        self.client.set_faults(mock::SetFaultsRequest { faults }).await.unwrap();
    }

    async fn fired(&mut self) -> Vec<i64> {
        let faults = self
            .client
            .list_faults(mock::ListFaultsRequest {})
            .await
            .unwrap()
            .into_inner()
            .faults;
        faults.into_iter().map(|fault| fault.fired_count).collect()
    }
}

fn money(currency: &str, amount: &str) -> Money {
    Money {
        currency: currency.to_owned(),
        amount: amount.to_owned(),
    }
}

fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp {
        seconds: store::now_ms() / 1_000 + seconds,
        nanos: 0,
    }
}

fn debit(payment: &str, account: &str, amount: &str) -> PrepareRequest {
    PrepareRequest {
        payment: payment.to_owned(),
        branch: "debit".to_owned(),
        direction: Direction::Debit.into(),
        account: account.to_owned(),
        amount: Some(money("USD", amount)),
        decide_by_time: Some(in_seconds(60)),
        hold_expire_time: Some(in_seconds(600)),
        end_to_end_id: "e2e".to_owned(),
    }
}

fn credit(payment: &str, account: &str, amount: &str) -> PrepareRequest {
    PrepareRequest {
        branch: "credit".to_owned(),
        direction: Direction::Credit.into(),
        ..debit(payment, account, amount)
    }
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

fn violated(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details
        .bad_request()
        .map(|bad| bad.field_violations.clone())
        .unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn every_sequence_of_commands_ends_where_the_protocol_says() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let mut bob_minor = 0;
    // P prepare, C commit, A abort, G get. Answers: p prepared, c committed, a aborted, ? unknown.
    for (index, (commands, answers, moves)) in [
        ("PPGCCGPA", "pppccccc", true),
        ("PAAGPC", "paaaaa", false),
        ("APPGCA", "aaaaaa", false),
        ("CGPC", "??pc", true),
        ("GAGPC", "?aaaa", false),
        ("CAC", "?aa", false),
        ("PCAAC", "pcccc", true),
    ]
    .into_iter()
    .enumerate()
    {
        for leg in ["debit", "credit"] {
            let payment = format!("payments/{index}-{leg}");
            let prepare = if leg == "debit" {
                debit(&payment, "bob", "1.50")
            } else {
                credit(&payment, "bob", "1.50")
            };
            if leg == "debit" {
                // Room for every debit.
                let balance = format!("{}.{:02}", (bob_minor + 150) / 100, (bob_minor + 150) % 100);
                let bob = mock::Account {
                    account: "bob".to_owned(),
                    balance: Some(money("USD", &balance)),
                    ..Default::default()
                };
                tester.put(bob).await.unwrap();
                bob_minor += 150;
            }
            let before = tester.movements().await.len();
            let mut references = Vec::new();
            for (step, (command, expected)) in commands.chars().zip(answers.chars()).enumerate() {
                let answer = match command {
                    'P' => gateway.prepare(prepare.clone()).await,
                    'C' => gateway.commit(&payment, leg).await,
                    'A' => gateway.abort(&payment, leg).await,
                    _ => gateway.get(&payment, leg).await,
                };
                let got = match &answer {
                    Ok(branch) => {
                        references.push(branch.reference.clone());
                        assert_eq!((&branch.payment, branch.branch.as_str()), (&payment, leg));
                        assert_eq!(branch.refusal, None);
                        match branch.state() {
                            State::Prepared => 'p',
                            State::Committed => 'c',
                            State::Aborted => 'a',
                            State::Refused | State::Unspecified => '!',
                        }
                    }
                    Err(status) => {
                        assert_eq!(
                            (status.code(), reason(status).as_str()),
                            (Code::NotFound, "BRANCH_UNKNOWN")
                        );
                        assert_eq!(status.get_error_details().error_info().unwrap().domain, "causeway");
                        '?'
                    }
                };
                assert_eq!(got, expected, "{commands} step {step}");
                let held = if got == 'p' && leg == "debit" { "1.50" } else { "0.00" };
                assert_eq!(tester.account("bob USD").await.1, held, "{commands} step {step}");
            }
            references.dedup();
            assert_eq!(references.len(), 1, "{commands}");
            let moved = &tester.movements().await[before..];
            assert_eq!(moved.len(), usize::from(moves), "{commands}");
            if moves {
                bob_minor = if leg == "debit" {
                    bob_minor - 150
                } else {
                    bob_minor + 150
                };
                assert_eq!(moved[0].payment, payment);
                assert_eq!(moved[0].branch, leg);
                assert_eq!(moved[0].amount, Some(money("USD", "1.50")));
            }
            let (balance, _) = tester.account("bob USD").await;
            assert_eq!(
                balance.replace('.', "").parse::<i64>().unwrap(),
                bob_minor,
                "{commands} {leg}"
            );
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn each_refusal_has_its_code_and_is_final() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let late = |request: PrepareRequest| PrepareRequest {
        decide_by_time: Some(in_seconds(-5)),
        ..request
    };
    let yen = |request: PrepareRequest| PrepareRequest {
        amount: Some(money("JPY", "5")),
        ..request
    };
    let cases = [
        (debit("payments/funds", "alice", "100.01"), "AM04"),
        (debit("payments/unknown", "nobody", "1"), "AC03"),
        (credit("payments/unknown-payee", "nobody", "1"), "AC03"),
        (credit("payments/own", "settlement", "1"), "AC03"),
        (debit("payments/world", "world", "1"), "AC03"),
        (yen(debit("payments/currency", "alice", "1")), "AM03"),
        (debit("payments/closed", "gone", "1"), "AC04"),
        (credit("payments/closed-payee", "gone", "1"), "AC04"),
        (debit("payments/limit", "capped", "10.01"), "AM02"),
        (credit("payments/limit-payee", "capped", "10.01"), "AM02"),
        (late(debit("payments/late", "alice", "1")), "TM01"),
        // The first reason wins.
        (late(debit("payments/late-unknown", "nobody", "1")), "TM01"),
        (debit("payments/closed-poor", "gone", "100"), "AC04"),
        (debit("payments/limit-poor", "capped", "1000"), "AM02"),
    ];
    let mut refusals = Vec::new();
    for (request, code) in cases {
        let (payment, leg) = (request.payment.clone(), request.branch.clone());
        let refused = gateway.prepare(request.clone()).await.unwrap();
        assert_eq!(refused.state(), State::Refused, "{payment}");
        let refusal = refused.refusal.clone().unwrap();
        assert_eq!(refusal.code, code, "{payment}: {}", refusal.detail);
        assert!((1..=200).contains(&refusal.detail.len()));
        assert_eq!(gateway.commit(&payment, &leg).await.unwrap(), refused);
        assert_eq!(gateway.abort(&payment, &leg).await.unwrap(), refused);
        assert_eq!(gateway.get(&payment, &leg).await.unwrap(), refused);
        refusals.push((request, refused));
    }
    // The reasons go away, the refusals do not.
    for (account, currency, balance) in [
        ("alice", "USD", "1000.00"),
        ("alice", "JPY", "1000"),
        ("nobody", "USD", "1000.00"),
        ("gone", "USD", "1000.00"),
        ("capped", "USD", "1000.00"),
    ] {
        let balance = Some(money(currency, balance));
        tester
            .put(mock::Account {
                account: account.to_owned(),
                balance,
                ..Default::default()
            })
            .await
            .unwrap();
    }
    for (request, refused) in refusals {
        let again = PrepareRequest {
            decide_by_time: Some(in_seconds(60)),
            ..request.clone()
        };
        assert_eq!(gateway.prepare(again.clone()).await.unwrap(), refused);
        let own = matches!(request.account.as_str(), "settlement" | "world");
        let new = PrepareRequest {
            payment: format!("{}-2", request.payment),
            ..again
        };
        let expected = if own { State::Refused } else { State::Prepared };
        let answer = gateway.prepare(new.clone()).await.unwrap();
        assert_eq!(answer.state(), expected, "{answer:?}");
        gateway.abort(&new.payment, &new.branch).await.unwrap();
    }
    assert!(tester.movements().await.is_empty());
    assert!(tester.holds("prepared").await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn holds_count_against_the_balance() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    gateway.prepare(debit("payments/1", "alice", "60")).await.unwrap();
    let refused = gateway.prepare(debit("payments/2", "alice", "40.01")).await.unwrap();
    assert_eq!(refused.refusal.unwrap().code, "AM04");
    // Money on its way in cannot be spent.
    gateway.prepare(credit("payments/3", "alice", "50")).await.unwrap();
    assert_eq!(
        gateway
            .prepare(debit("payments/4", "alice", "40.01"))
            .await
            .unwrap()
            .state(),
        State::Refused
    );
    assert_eq!(
        gateway
            .prepare(debit("payments/5", "alice", "40"))
            .await
            .unwrap()
            .state(),
        State::Prepared
    );
    assert_eq!(
        tester.account("alice USD").await,
        ("100.00".to_owned(), "100.00".to_owned())
    );
    gateway.commit("payments/3", "credit").await.unwrap();
    gateway.commit("payments/1", "debit").await.unwrap();
    assert_eq!(
        tester.account("alice USD").await,
        ("90.00".to_owned(), "40.00".to_owned())
    );
    assert_eq!(
        tester.account("settlement USD").await,
        ("10.00".to_owned(), "0.00".to_owned())
    );
    // A balance below what is held would break the promise to commit.
    let poor = mock::Account {
        account: "alice".to_owned(),
        balance: Some(money("USD", "39.99")),
        ..Default::default()
    };
    let status = tester.put(poor).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "BALANCE_BELOW_HELD")
    );
    running.stop().await;
}

#[tokio::test]
async fn both_legs_of_a_payment_can_be_in_one_network() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    gateway.prepare(debit("payments/1", "alice", "25")).await.unwrap();
    gateway.prepare(credit("payments/1", "bob", "25")).await.unwrap();
    gateway.commit("payments/1", "debit").await.unwrap();
    gateway.commit("payments/1", "credit").await.unwrap();
    let accounts = tester.accounts().await;
    let balances: Vec<_> = accounts
        .iter()
        .map(|(name, (balance, _))| format!("{name} {balance}"))
        .collect();
    assert_eq!(
        balances,
        [
            "alice USD 75.00",
            "bob USD 25.00",
            "capped USD 500.00",
            "gone USD 5.00",
            "settlement USD 0.00",
            "world JPY -1000",
            "world USD -605.00",
            "yuki JPY 1000",
        ]
    );
    running.stop().await;
}

#[tokio::test]
async fn other_terms_for_the_same_branch_are_a_mismatch() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let first = debit("payments/1", "alice", "10.00");
    let prepared = gateway.prepare(first.clone()).await.unwrap();
    let refused = gateway.prepare(debit("payments/2", "nobody", "10.00")).await.unwrap();
    for (other, fields) in [
        (
            PrepareRequest {
                account: "bob".to_owned(),
                ..first.clone()
            },
            "account",
        ),
        (
            PrepareRequest {
                amount: Some(money("USD", "10.01")),
                ..first.clone()
            },
            "amount.amount",
        ),
        (
            PrepareRequest {
                amount: Some(money("EUR", "10.00")),
                ..first.clone()
            },
            "amount.currency",
        ),
        (
            PrepareRequest {
                direction: Direction::Credit.into(),
                ..first.clone()
            },
            "direction",
        ),
        (debit("payments/1", "bob", "1.00"), "account,amount.amount"),
        (debit("payments/2", "bob", "10.00"), "account"),
    ] {
        let status = gateway.prepare(other).await.expect_err(fields);
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "BRANCH_MISMATCH"),
            "{fields}"
        );
        assert_eq!(
            status.get_error_details().error_info().unwrap().metadata["fields"],
            fields
        );
    }
    // The same amount in other digits, and other instants, are the same command.
    let same = PrepareRequest {
        amount: Some(money("USD", "10")),
        decide_by_time: Some(in_seconds(-90)),
        hold_expire_time: Some(in_seconds(-80)),
        ..first
    };
    assert_eq!(gateway.prepare(same).await.unwrap(), prepared);
    assert_eq!(gateway.get("payments/2", "debit").await.unwrap(), refused);
    assert_eq!(tester.account("alice USD").await.1, "10.00");
    running.stop().await;
}

#[tokio::test]
async fn malformed_fields_are_named() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let mut gateway = house.gateway(&running);
    let good = || debit("payments/1", "alice", "1");
    let nonsense = Some(Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    for (request, fields, expected_reason) in [
        (
            PrepareRequest {
                payment: "1".to_owned(),
                ..good()
            },
            "payment",
            "",
        ),
        (
            PrepareRequest {
                payment: "payments/".to_owned(),
                ..good()
            },
            "payment",
            "",
        ),
        (
            PrepareRequest {
                payment: "payments/a/b".to_owned(),
                ..good()
            },
            "payment",
            "",
        ),
        (
            PrepareRequest {
                branch: "fee".to_owned(),
                ..good()
            },
            "branch",
            "",
        ),
        (PrepareRequest { direction: 0, ..good() }, "direction", ""),
        (PrepareRequest { direction: 7, ..good() }, "direction", ""),
        (
            PrepareRequest {
                direction: Direction::Credit.into(),
                ..good()
            },
            "direction",
            "",
        ),
        (
            PrepareRequest {
                account: String::new(),
                ..good()
            },
            "account",
            "",
        ),
        (
            PrepareRequest {
                account: "a b".to_owned(),
                ..good()
            },
            "account",
            "",
        ),
        (
            PrepareRequest {
                account: "a".repeat(65),
                ..good()
            },
            "account",
            "",
        ),
        (PrepareRequest { amount: None, ..good() }, "amount", ""),
        (
            PrepareRequest {
                amount: Some(money("USD", "0.00")),
                ..good()
            },
            "amount.amount",
            "",
        ),
        (
            PrepareRequest {
                amount: Some(money("USD", "-1")),
                ..good()
            },
            "amount.amount",
            "AMOUNT_MALFORMED",
        ),
        (
            PrepareRequest {
                amount: Some(money("USD", "1.234")),
                ..good()
            },
            "amount.amount",
            "AMOUNT_TOO_MANY_DECIMALS",
        ),
        (
            PrepareRequest {
                amount: Some(money("dollar", "1")),
                ..good()
            },
            "amount.currency",
            "CURRENCY_UNKNOWN",
        ),
        (
            PrepareRequest {
                decide_by_time: None,
                ..good()
            },
            "decide_by_time",
            "",
        ),
        (
            PrepareRequest {
                hold_expire_time: nonsense,
                ..good()
            },
            "hold_expire_time",
            "",
        ),
        (
            PrepareRequest {
                end_to_end_id: String::new(),
                ..good()
            },
            "end_to_end_id",
            "",
        ),
        (
            PrepareRequest::default(),
            "payment branch direction account end_to_end_id decide_by_time hold_expire_time amount",
            "",
        ),
    ] {
        let status = gateway.prepare(request).await.expect_err(fields);
        assert_eq!(status.code(), Code::InvalidArgument, "{fields}");
        assert_eq!(violated(&status).join(" "), fields);
        assert_eq!(reason(&status), expected_reason, "{fields}");
    }
    for status in [
        gateway.commit("", "debit").await.unwrap_err(),
        gateway.abort("", "debit").await.unwrap_err(),
        gateway.get("", "debit").await.unwrap_err(),
    ] {
        assert_eq!(
            (status.code(), violated(&status).join(" ").as_str()),
            (Code::InvalidArgument, "payment")
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn two_hundred_at_once_get_exactly_what_is_there() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let ask = |index: usize| {
        let mut gateway = gateway.clone();
        async move {
            gateway
                .prepare(debit(&format!("payments/{index}"), "alice", "1.00"))
                .await
                .unwrap()
        }
    };
    let branches = join_all((0..200).map(ask)).await;
    let prepared: Vec<_> = branches
        .iter()
        .filter(|branch| branch.state() == State::Prepared)
        .collect();
    assert_eq!(prepared.len(), 100);
    let others = branches.iter().filter(|branch| branch.state() != State::Prepared);
    assert!(
        others
            .clone()
            .all(|branch| branch.refusal.as_ref().unwrap().code == "AM04")
    );
    assert_eq!(
        tester.account("alice USD").await,
        ("100.00".to_owned(), "100.00".to_owned())
    );
    // Each twice and at once, every second one aborted: what comes first, stays.
    let finish = |(index, branch): (usize, &&Branch)| {
        let (mut gateway, payment) = (gateway.clone(), branch.payment.clone());
        async move {
            if index % 2 == 0 {
                gateway.commit(&payment, "debit").await
            } else {
                gateway.abort(&payment, "debit").await
            }
        }
    };
    let twice = prepared.iter().enumerate().chain(prepared.iter().enumerate());
    let finished = join_all(twice.map(finish)).await;
    assert!(finished.iter().all(|answer| answer.is_ok()));
    assert_eq!(
        tester.account("alice USD").await,
        ("50.00".to_owned(), "0.00".to_owned())
    );
    assert_eq!(tester.movements().await.len(), 50);
    assert_eq!(tester.holds("committed").await.len(), 50);
    running.stop().await;
}

#[tokio::test]
async fn what_was_answered_is_in_the_file_and_survives() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    gateway.prepare(debit("payments/held", "alice", "30")).await.unwrap();
    gateway.prepare(debit("payments/done", "alice", "20")).await.unwrap();
    gateway.commit("payments/done", "debit").await.unwrap();
    gateway.abort("payments/never", "credit").await.unwrap();
    gateway.prepare(debit("payments/no", "nobody", "20")).await.unwrap();
    let (accounts, movements, holds) = (
        tester.accounts().await,
        tester.movements().await,
        tester.holds("").await,
    );

    // The file as it is right after the last answer, with the server still running: as a power cut would leave it.
    let copy = tempfile::tempdir().unwrap();
    for name in ["alipay.sqlite", "alipay.sqlite-wal"] {
        std::fs::copy(house.dir.path().join(name), copy.path().join(name)).unwrap();
    }
    running.kill().await;

    let from_copy = MockOptions {
        store: copy.path().join("alipay.sqlite"),
        ..house.options()
    };
    for options in [from_copy, house.options()] {
        let running = house.start(options).await;
        let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
        assert_eq!(tester.accounts().await, accounts);
        assert_eq!(tester.movements().await, movements);
        assert_eq!(tester.holds("").await, holds);
        let state = |branch: Result<Branch, Status>| branch.unwrap().state();
        assert_eq!(
            state(gateway.prepare(credit("payments/never", "bob", "1")).await),
            State::Aborted
        );
        assert_eq!(
            state(gateway.prepare(debit("payments/no", "nobody", "20")).await),
            State::Refused
        );
        assert_eq!(state(gateway.commit("payments/done", "debit").await), State::Committed);
        assert_eq!(state(gateway.commit("payments/held", "debit").await), State::Committed);
        assert_eq!(
            tester.account("alice USD").await,
            ("50.00".to_owned(), "0.00".to_owned())
        );
        running.stop().await;
    }
}

#[tokio::test]
async fn seeds_open_accounts_only_once() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let mut gateway = house.gateway(&running);
    gateway.prepare(debit("payments/1", "alice", "100")).await.unwrap();
    gateway.commit("payments/1", "debit").await.unwrap();
    running.stop().await;
    let running = house.start(house.options()).await;
    assert_eq!(house.tester(&running).account("alice USD").await.0, "0.00");
    running.stop().await;
}

#[test]
fn seeds_parse() {
    let seed = AccountSeed::parse("alice:USD:1000.00:limit=50:closed").unwrap();
    let expected = AccountSetup {
        account: "alice".to_owned(),
        currency: "USD".to_owned(),
        balance: 100_000,
        closed: true,
        payment_limit: Some(5_000),
    };
    assert_eq!(seed.setup, expected);
    for (text, detail) in [
        ("", "currency is missing"),
        (":USD:1", "1 to 64"),
        ("alice", "currency is missing"),
        ("alice:USD", "balance is missing"),
        ("alice:USD:1.234", "more decimals"),
        ("alice:usd:1", "three capital letters"),
        ("alice:USD:-1", "plain decimal"),
        ("alice:USD:1:limit=x", "plain decimal"),
        ("alice:USD:1:frozen", "neither"),
        ("world:USD:1", "network's own"),
    ] {
        let error = AccountSeed::parse(text).expect_err(text).to_string();
        assert!(error.contains(detail), "{text}: {error}");
    }
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let faults = |texts: &[&str]| {
        let specs = texts.iter().map(|text| FaultSpec::parse(text).unwrap()).collect();
        Faults::new(specs).list()
    };

    tester.set_faults(faults(&["lose-answer:prepare:1"])).await;
    let lost = gateway
        .prepare(debit("payments/answer", "alice", "1"))
        .await
        .unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    assert_eq!(
        gateway.get("payments/answer", "debit").await.unwrap().state(),
        State::Prepared
    );

    tester.set_faults(faults(&["lose-request:prepare:1"])).await;
    let lost = gateway
        .prepare(debit("payments/request", "alice", "1"))
        .await
        .unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    assert_eq!(
        gateway.get("payments/request", "debit").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        gateway
            .prepare(debit("payments/request", "alice", "1"))
            .await
            .unwrap()
            .state(),
        State::Prepared
    );

    tester.set_faults(faults(&["refuse:any:1:AG01"])).await;
    for _ in 0..2 {
        let refused = gateway.prepare(debit("payments/refuse", "alice", "1")).await.unwrap();
        assert_eq!(refused.refusal.unwrap().code, "AG01");
    }

    tester.set_faults(faults(&["answer-twice"])).await;
    gateway.prepare(debit("payments/twice", "alice", "1")).await.unwrap();
    gateway.commit("payments/twice", "debit").await.unwrap();
    assert_eq!(tester.movements().await.len(), 1);
    assert_eq!(tester.fired().await, [2]);

    tester.set_faults(faults(&["forget-hold:commit:1"])).await;
    let held = tester.account("alice USD").await.1;
    gateway.prepare(debit("payments/forget", "alice", "1")).await.unwrap();
    let forgotten = gateway.commit("payments/forget", "debit").await.unwrap_err();
    assert_eq!(reason(&forgotten), "BRANCH_UNKNOWN");
    assert_eq!(tester.account("alice USD").await.1, held);

    tester.set_faults(faults(&["latency:get-branch:1:300:50"])).await;
    let begun = std::time::Instant::now();
    gateway.get("payments/answer", "debit").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    let bad = vec![
        mock::Fault::default(),
        mock::Fault {
            kind: 3,
            count: -1,
            ..Default::default()
        },
    ];
    let status = tester
        .client
        .set_faults(mock::SetFaultsRequest { faults: bad })
        .await
        .unwrap_err();
    assert_eq!(violated(&status), ["faults[0].kind", "faults[1].count"]);
    assert_eq!(tester.fired().await, [1], "a bad request replaces nothing");
    tester.set_faults(Vec::new()).await;
    assert!(tester.fired().await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_crash_after_an_action_keeps_the_action_and_answers_nothing() {
    let house = House::new();
    let crashed = CancellationToken::new();
    let on_crash = crashed.clone();
    let options = MockOptions {
        faults: vec!["crash-after:prepare:1".parse().unwrap()],
        crash: Arc::new(move || on_crash.cancel()),
        ..house.options()
    };
    let running = house.start(options).await;
    let mut gateway = house.gateway(&running);
    let mut caller = gateway.clone();
    let call = tokio::spawn(async move { caller.prepare(debit("payments/1", "alice", "5")).await });
    timeout(BOUND, crashed.cancelled()).await.expect("no crash");
    let addr = running.addr;
    running.kill().await;
    let status = call.await.unwrap().unwrap_err();
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal),
        "{status:?}"
    );
    // Restarted on the same address, the gateway's channel finds it again by itself.
    let listener = TcpListener::bind(addr).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(house.options(), listener, async { drop(stopped.await) }));
    eventually("the gateway reconnects", || {
        let mut gateway = gateway.clone();
        async move {
            gateway
                .get("payments/1", "debit")
                .await
                .is_ok_and(|branch| branch.state() == State::Prepared)
        }
    })
    .await;
    assert_eq!(
        gateway.commit("payments/1", "debit").await.unwrap().state(),
        State::Committed
    );
    Running { addr, stop, server }.stop().await;
}

#[tokio::test]
async fn ten_thousand_prepares_wait_at_once_and_can_be_given_up() {
    const CALLS: usize = 10_000;
    let house = House::new();
    let faults = vec!["latency:prepare:0:600000".parse().unwrap()];
    let running = house
        .start(MockOptions {
            store: ":memory:".into(),
            faults,
            ..house.options()
        })
        .await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let mut calls = tokio::task::JoinSet::new();
    for index in 0..CALLS {
        let mut client = gateway.client.clone();
        calls.spawn(async move {
            client
                .prepare(debit(&format!("payments/{index}"), "alice", "0.01"))
                .await
        });
    }
    let waiting = async {
        while tester.fired().await != [CALLS as i64] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, waiting).await.expect("not all in flight");
    assert!(calls.try_join_next().is_none(), "none has been answered yet");
    // All are given up at once, and the partner goes on.
    calls.shutdown().await;
    tester.set_faults(Vec::new()).await;
    assert_eq!(
        gateway
            .prepare(debit("payments/after", "alice", "1"))
            .await
            .unwrap()
            .state(),
        State::Prepared
    );
    assert_eq!(tester.holds("").await.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn shutdown_waits_for_running_calls_but_not_for_ever() {
    let house = House::new();
    let options = || MockOptions {
        drain_timeout: Duration::from_millis(500),
        ..house.options()
    };
    for (latency, answered) in [("latency:prepare:0:200", true), ("latency:prepare:0:600000", false)] {
        let running = house
            .start(MockOptions {
                faults: vec![latency.parse().unwrap()],
                ..options()
            })
            .await;
        let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
        let call = tokio::spawn(async move { gateway.prepare(debit("payments/1", "alice", "1")).await });
        let begun = async {
            while tester.fired().await != [1] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BOUND, begun).await.expect("the call does not arrive");
        running.stop().await;
        assert_eq!(call.await.unwrap().is_ok(), answered, "{latency}");
    }
}

#[tokio::test]
async fn services_are_for_those_they_are_for() {
    let house = House::new();
    let link = GatewayLink {
        endpoint: "https://127.0.0.1:1".to_owned(),
        principal: principal("gateway/gateway"),
    };
    let strict = house
        .start(MockOptions {
            gateway: Some(link),
            ..house.options()
        })
        .await;
    let other_store = house.dir.path().join("other.sqlite");
    let any = house
        .start(MockOptions {
            store: other_store,
            ..house.options()
        })
        .await;
    for (running, caller, participant_allowed, mock_allowed) in [
        (&strict, "gateway/gateway", true, true),
        (&strict, "gateway/impostor", false, true),
        (&any, "gateway/impostor", true, true),
        (&any, "partner/alipay", false, true),
        (&any, "partner/apple-pay", false, false),
        (&any, "operator/ops", false, true),
    ] {
        let channel = house.channel(running, caller);
        let mut gateway = Gateway {
            client: ParticipantServiceClient::new(channel.clone()),
        };
        let status = gateway.get("payments/1", "debit").await.unwrap_err();
        let expected = if participant_allowed {
            Code::NotFound
        } else {
            Code::PermissionDenied
        };
        assert_eq!(status.code(), expected, "{caller}: {status:?}");
        let listed = MockServiceClient::new(channel)
            .list_faults(mock::ListFaultsRequest {})
            .await;
        assert_eq!(listed.is_ok(), mock_allowed, "{caller}: {listed:?}");
        if let Err(status) = listed {
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::PermissionDenied, "PRINCIPAL_NOT_ALLOWED")
            );
        }
    }
    // A valid certificate that names nobody.
    let authority = certs::Authority::open(house.dir.path()).unwrap();
    let nobody = certs::issue(&authority, &certs::LeafSpec::default()).unwrap();
    let files = nobody.write(house.dir.path(), "nobody", &authority).unwrap();
    let endpoint = format!("https://{}", any.addr);
    let channel = tls::channel(
        &endpoint,
        &files,
        &principal("partner/alipay"),
        ChannelOptions::default(),
    )
    .unwrap();
    let status = MockServiceClient::new(channel)
        .list_faults(mock::ListFaultsRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // The same names in another realm.
    let foreign = Principal::new(Role::Operator, "ops", "elsewhere.dev").unwrap();
    let foreign = certs::issue(&authority, &certs::LeafSpec::of(&foreign)).unwrap();
    let files = foreign.write(house.dir.path(), "foreign", &authority).unwrap();
    let channel = tls::channel(
        &endpoint,
        &files,
        &principal("partner/alipay"),
        ChannelOptions::default(),
    )
    .unwrap();
    let status = MockServiceClient::new(channel)
        .list_faults(mock::ListFaultsRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    strict.stop().await;
    any.stop().await;
}

#[tokio::test]
async fn health_and_both_reflections_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    use tonic_reflection::pb::{v1, v1alpha};
    let house = House::new();
    let running = house.start(house.options()).await;
    let channel = house.channel(&running, "operator/ops");
    for service in [
        "causeway.participant.v1.ParticipantService",
        "causeway.mock.v1.MockService",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(channel.clone())
            .check(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let message = v1::server_reflection_request::MessageRequest::FileContainingSymbol(
        "causeway.participant.v1.ParticipantService".to_owned(),
    );
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(
        answer,
        v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
    ));
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let message = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.message().await.unwrap().unwrap().message_response.is_some());
    running.stop().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_store_says_so() {
    let house = House::new();
    let running = house.start(house.options()).await;
    house.tester(&running).accounts().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = serve(house.options(), listener, std::future::pending())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, MockError::Store(StoreError::InUse(path)) if path.ends_with("alipay.sqlite")),
        "{error}"
    );
    running.stop().await;
}

/// A gateway that only decides.
#[derive(Clone, Default)]
struct Decisions {
    by_payment: Arc<Mutex<BTreeMap<String, Decision>>>,
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    connected: Arc<Mutex<u32>>,
}

impl Decisions {
    fn decide(&self, payment: &str, decision: Decision) {
        lock(&self.by_payment).insert(payment.to_owned(), decision);
    }

    fn asked(&self, payment: &str) -> u32 {
        lock(&self.asked).get(payment).copied().unwrap_or(0)
    }

    async fn serve(&self, tls: &TlsFiles) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connected = self.connected.clone();
        let incoming = tls::incoming(listener, tls::server_config(tls).unwrap(), ListenLimits::default())
            .inspect(move |_| *lock(&connected) += 1);
        let service = DecisionServiceServer::new(self.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        addr
    }
}

#[tonic::async_trait]
impl DecisionService for Decisions {
    async fn get_decision(
        &self,
        request: Request<GetDecisionRequest>,
    ) -> Result<Response<GetDecisionResponse>, Status> {
        let caller = request
            .extensions()
            .get::<tls::PeerInfo>()
            .unwrap()
            .principal
            .clone()
            .unwrap();
        assert_eq!(caller, principal("partner/alipay"));
        let payment = request.into_inner().payment;
        *lock(&self.asked).entry(payment.clone()).or_default() += 1;
        let decision = lock(&self.by_payment).get(&payment).copied();
        let decision = decision.ok_or_else(|| Status::unavailable("not now"))?.into();
        Ok(Response::new(GetDecisionResponse {
            decision,
            retry_time: None,
        }))
    }
}

#[tokio::test]
async fn branches_in_doubt_are_asked_about_until_they_are_decided() {
    let house = House::new();
    let decisions = Decisions::default();
    let addr = decisions.serve(&house.tls("gateway/gateway")).await;
    let gateway_principal = principal("gateway/gateway");
    let options = || MockOptions {
        gateway: Some(GatewayLink {
            endpoint: format!("https://{addr}"),
            principal: gateway_principal.clone(),
        }),
        inquiry: InquiryOptions {
            ladder: vec![Duration::from_millis(20)],
            interval: Duration::from_millis(10),
            ..InquiryOptions::default()
        },
        ..house.options()
    };
    let running = house.start(options()).await;
    let mut gateway = house.gateway(&running);
    let expired = |request: PrepareRequest| PrepareRequest {
        hold_expire_time: Some(in_seconds(-1)),
        ..request
    };
    for payment in [
        "payments/commit",
        "payments/abort",
        "payments/pending",
        "payments/silent",
    ] {
        gateway.prepare(expired(debit(payment, "alice", "10"))).await.unwrap();
    }
    gateway
        .prepare(expired(credit("payments/payee", "bob", "7")))
        .await
        .unwrap();
    gateway.prepare(debit("payments/young", "alice", "10")).await.unwrap();
    decisions.decide("payments/pending", Decision::Pending);
    // The questions outlive the process.
    eventually("asked before the restart", || async {
        decisions.asked("payments/silent") > 0
    })
    .await;
    running.kill().await;
    let running = house.start(options()).await;
    let (gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    decisions.decide("payments/commit", Decision::Commit);
    decisions.decide("payments/payee", Decision::Commit);
    decisions.decide("payments/abort", Decision::Abort);
    for (payment, leg, state) in [
        ("payments/commit", "debit", State::Committed),
        ("payments/payee", "credit", State::Committed),
        ("payments/abort", "debit", State::Aborted),
    ] {
        eventually(payment, || {
            let mut gateway = gateway.clone();
            async move { gateway.get(payment, leg).await.unwrap().state() == state }
        })
        .await;
    }
    // Neither PENDING nor errors let go, however often.
    for payment in ["payments/pending", "payments/silent"] {
        let before = decisions.asked(payment);
        eventually(payment, || async { decisions.asked(payment) >= before + 5 }).await;
        assert_eq!(
            gateway.clone().get(payment, "debit").await.unwrap().state(),
            State::Prepared
        );
    }
    assert_eq!(decisions.asked("payments/young"), 0, "its hold has not expired");
    assert_eq!(
        tester.account("alice USD").await,
        ("90.00".to_owned(), "30.00".to_owned())
    );
    assert_eq!(tester.account("bob USD").await, ("7.00".to_owned(), "0.00".to_owned()));
    assert_eq!(tester.movements().await.len(), 2);
    // Decided is decided: nobody asks any more.
    let asked = decisions.asked("payments/commit");
    let others = decisions.asked("payments/silent");
    eventually("more rounds", || async {
        decisions.asked("payments/silent") >= others + 3
    })
    .await;
    assert_eq!(decisions.asked("payments/commit"), asked);
    running.stop().await;
}

#[tokio::test]
async fn an_impostor_decides_nothing() {
    let house = House::new();
    let decisions = Decisions::default();
    decisions.decide("payments/1", Decision::Commit);
    let addr = decisions.serve(&house.tls("gateway/impostor")).await;
    let link = GatewayLink {
        endpoint: format!("https://{addr}"),
        principal: principal("gateway/gateway"),
    };
    let inquiry = InquiryOptions {
        ladder: vec![Duration::from_millis(10)],
        interval: Duration::from_millis(10),
        ..InquiryOptions::default()
    };
    let running = house
        .start(MockOptions {
            gateway: Some(link),
            inquiry,
            ..house.options()
        })
        .await;
    let mut gateway = house.gateway(&running);
    let expired = PrepareRequest {
        hold_expire_time: Some(in_seconds(-1)),
        ..debit("payments/1", "alice", "10")
    };
    gateway.prepare(expired).await.unwrap();
    // Every question is a connection, which the inquirer gives up once it has seen the certificate.
    eventually("the impostor is tried again and again", || async {
        *lock(&decisions.connected) >= 3
    })
    .await;
    assert_eq!(
        gateway.get("payments/1", "debit").await.unwrap().state(),
        State::Prepared
    );
    assert_eq!(decisions.asked("payments/1"), 0);
    running.stop().await;
}

#[tokio::test]
async fn amounts_at_the_edge_are_counted_or_refused() {
    let house = House::new();
    let running = house.start(house.options()).await;
    let (mut gateway, mut tester) = (house.gateway(&running), house.tester(&running));
    let rich = |account: &str| mock::Account {
        account: account.to_owned(),
        balance: Some(money("USD", "9999999999999.99")),
        ..Default::default()
    };
    tester.put(rich("rich")).await.unwrap();
    gateway
        .prepare(debit("payments/1", "rich", "9999999999999.99"))
        .await
        .unwrap();
    gateway
        .prepare(credit("payments/2", "rich", "9999999999999.99"))
        .await
        .unwrap();
    gateway.commit("payments/2", "credit").await.unwrap();
    assert_eq!(tester.account("rich USD").await.0, "19999999999999.98");
    gateway.commit("payments/1", "debit").await.unwrap();
    assert_eq!(tester.account("rich USD").await.0, "9999999999999.99");
    let own = tester.put(rich("settlement")).await.unwrap_err();
    assert_eq!(
        (own.code(), violated(&own).join(" ").as_str()),
        (Code::InvalidArgument, "account.account")
    );
    let digits = mock::Account {
        balance: Some(money("USD", "10000000000000.00")),
        ..rich("richer")
    };
    assert_eq!(reason(&tester.put(digits).await.unwrap_err()), "AMOUNT_TOO_LARGE");
    let limit = mock::Account {
        payment_limit: Some(money("EUR", "1")),
        ..rich("rich")
    };
    assert_eq!(
        violated(&tester.put(limit).await.unwrap_err()),
        ["account.payment_limit.currency"]
    );
    running.stop().await;
}
