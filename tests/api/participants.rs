//! Partner networks that misbehave, each command in each way, and what becomes of the payment.

use causeway::pb::{
    gateway::v1::{AnswerAt, CreatePaymentRequest, Outcome, Payment, payment::State, payment_branch},
    mock::v1::{
        Fault,
        fault::{Command, Kind},
    },
};

use crate::support::{
    ALIPAY, APPLE, BOUND, Client, Mock, Network, Route, Settings,
    clients::{branch, branch_states, fault, latency, once, refusal},
    network::principal,
    requests::partner,
    wait_for,
};

/// Commands time out soon, votes do not: an answer that never comes is made up for by an inquiry.
fn impatient() -> Settings {
    Settings {
        command_ms: 300,
        inquiry_ms: 300,
        ..Settings::default()
    }
}

struct Bench {
    network: Network,
    apple: Client,
    mocks: [Mock; 2],
    payments: usize,
}

impl Bench {
    async fn new(settings: Settings) -> Self {
        let network = Network::with(settings).await;
        Self {
            apple: network.partner(APPLE),
            mocks: [network.mock(APPLE), network.mock(ALIPAY)],
            network,
            payments: 0,
        }
    }

    /// Pays while the network at this end of the payment (0 debit, 1 credit) has these faults and the other has those;
    /// every one of them must fire. Answers with the payment as it is answered.
    async fn pay_with(&mut self, end: usize, faults: Vec<Fault>, others: Vec<Fault>) -> Payment {
        self.payments += 1;
        self.mocks[end].set_faults(faults.clone()).await;
        self.mocks[1 - end].set_faults(others.clone()).await;
        let request = Route::USD_CNY.send(&format!("r-{}", self.payments), "10");
        let payment = self.apple.create(request).await.unwrap();
        for (mock, faults) in [(&self.mocks[end], faults), (&self.mocks[1 - end], others)] {
            let fired = mock.fired().await;
            assert_eq!(fired.len(), faults.len());
            assert!(
                fired.iter().all(|times| *times > 0),
                "{}: {fired:?} of {faults:?}: {payment:?}",
                mock.name
            );
            mock.set_faults([]).await;
        }
        payment
    }
}

/// The partner at this end.
fn at(end: usize) -> String {
    partner([APPLE, ALIPAY][end])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_late_or_doubled_vote_or_commit_changes_nothing() {
    let mut bench = Bench::new(impatient()).await;
    let mut exercised = 0;
    for end in [0, 1] {
        for command in [Command::Prepare, Command::Commit] {
            for faults in [
                vec![once(Kind::LoseAnswer, command)],
                vec![once(Kind::LoseRequest, command)],
                vec![once(Kind::AnswerTwice, command)],
                vec![fault(Kind::AnswerTwice, Command::Unspecified)],
                vec![Fault {
                    count: 1,
                    ..latency(command, 5_000)
                }],
                // Lost, and the inquiry about it is lost too, late, or answered twice.
                vec![
                    once(Kind::LoseAnswer, command),
                    once(Kind::LoseAnswer, Command::GetBranch),
                ],
                vec![
                    once(Kind::LoseAnswer, command),
                    once(Kind::LoseRequest, Command::GetBranch),
                ],
                vec![
                    once(Kind::LoseRequest, command),
                    once(Kind::AnswerTwice, Command::GetBranch),
                ],
                vec![
                    once(Kind::LoseAnswer, command),
                    Fault {
                        count: 1,
                        ..latency(Command::GetBranch, 5_000)
                    },
                ],
                // Again and again.
                vec![Fault {
                    count: 4,
                    ..fault(Kind::LoseRequest, Command::Unspecified)
                }],
            ] {
                let what = format!("{end} {faults:?}");
                let payment = bench.pay_with(end, faults, vec![]).await;
                assert_eq!(payment.state(), State::Completed, "{what}: {payment:?}");
                exercised += 1;
            }
        }
        // Nothing to forget yet; and a hold that is forgotten before the vote is known is taken anew.
        for faults in [
            vec![once(Kind::ForgetHold, Command::Prepare)],
            vec![
                once(Kind::LoseAnswer, Command::Prepare),
                once(Kind::ForgetHold, Command::GetBranch),
            ],
        ] {
            let payment = bench.pay_with(end, faults, vec![]).await;
            assert_eq!(payment.state(), State::Completed, "{payment:?}");
            exercised += 1;
        }
    }
    let audit = bench.network.audit().await;
    assert_eq!((exercised, audit.completed, audit.movements), (44, 44, 88));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_late_or_doubled_abort_releases_all_the_same() {
    let mut bench = Bench::new(impatient()).await;
    let mut exercised = 0;
    for end in [0, 1] {
        for faults in [
            vec![once(Kind::LoseAnswer, Command::Abort)],
            vec![once(Kind::LoseRequest, Command::Abort)],
            vec![once(Kind::AnswerTwice, Command::Abort)],
            vec![once(Kind::ForgetHold, Command::Abort)],
            vec![Fault {
                count: 1,
                ..latency(Command::Abort, 5_000)
            }],
            vec![
                once(Kind::LoseRequest, Command::Abort),
                once(Kind::LoseAnswer, Command::GetBranch),
            ],
            vec![
                once(Kind::LoseRequest, Command::Abort),
                once(Kind::ForgetHold, Command::GetBranch),
            ],
        ] {
            let what = format!("{end} {faults:?}");
            // The other network refuses, and this one must let go; slowly, so that there is a hold to let go of.
            let others = vec![latency(Command::Prepare, 100), refusal("AG01")];
            let payment = bench.pay_with(end, faults, others).await;
            assert_eq!(payment.state(), State::Aborted, "{what}: {payment:?}");
            let outcome = payment.outcome.unwrap();
            assert_eq!(
                (outcome.reason.as_str(), outcome.partner),
                ("TRANSACTION_FORBIDDEN", at(1 - end)),
                "{what}"
            );
            exercised += 1;
        }
    }
    let audit = bench.network.audit().await;
    assert_eq!((exercised, audit.aborted, audit.movements), (14, 14, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_with_its_code_and_whose_it_is() {
    let mut bench = Bench::new(Settings::default()).await;
    let mut exercised = 0;
    for end in [0, 1] {
        for (code, reason) in [
            ("AM04", "INSUFFICIENT_FUNDS"),
            ("AC03", "ACCOUNT_UNKNOWN"),
            ("AC04", "ACCOUNT_CLOSED"),
            ("AG01", "TRANSACTION_FORBIDDEN"),
            ("AM02", "AMOUNT_OVER_LIMIT"),
            ("TM01", "VOTING_TIMED_OUT"),
            ("MS03", "REFUSED_BY_PARTNER"),
            ("RR04", "REFUSED_BY_PARTNER"),
        ] {
            let payment = bench.pay_with(end, vec![refusal(code)], vec![]).await;
            check_aborted(&payment, (code, reason, &at(end)));
            assert_eq!(
                payment.branches[end].state(),
                payment_branch::State::Refused,
                "{payment:?}"
            );
            assert_eq!(bench.apple.get(&payment.name).await.unwrap(), payment);
            exercised += 1;
        }
    }
    // A code that is none of ISO 20022's form is not passed on.
    let payment = bench.pay_with(1, vec![refusal("x")], vec![]).await;
    check_aborted(&payment, ("MS03", "REFUSED_BY_PARTNER", &at(1)));
    let audit = bench.network.audit().await;
    assert_eq!((exercised + 1, audit.aborted, audit.movements), (17, 17, 0));
}

fn check_aborted(payment: &Payment, (code, reason, partner): (&str, &str, &str)) {
    assert_eq!(payment.state(), State::Aborted, "{payment:?}");
    let Outcome {
        code: found_code,
        reason: found_reason,
        detail,
        partner: found_partner,
    } = payment.outcome.clone().unwrap();
    let found = (found_code.as_str(), found_reason.as_str(), found_partner.as_str());
    assert_eq!(found, (code, reason, partner), "{payment:?}");
    assert!(!detail.is_empty(), "{payment:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_pay_or_be_paid() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let rows = [
        ("poor", "bao", "10", "AM04", "INSUFFICIENT_FUNDS", APPLE),
        ("capped", "bao", "50.01", "AM02", "AMOUNT_OVER_LIMIT", APPLE),
        ("gone", "bao", "10", "AC04", "ACCOUNT_CLOSED", APPLE),
        ("nobody", "bao", "10", "AC03", "ACCOUNT_UNKNOWN", APPLE),
        ("yuki", "bao", "10", "AM03", "REFUSED_BY_PARTNER", APPLE),
        ("alice", "gone", "10", "AC04", "ACCOUNT_CLOSED", ALIPAY),
        ("alice", "nobody", "10", "AC03", "ACCOUNT_UNKNOWN", ALIPAY),
    ];
    for (index, (payer, payee, amount, code, reason, by)) in rows.into_iter().enumerate() {
        let route = Route {
            payer,
            payee,
            ..Route::USD_CNY
        };
        let payment = apple.create(route.send(&format!("r-{index}"), amount)).await.unwrap();
        check_aborted(&payment, (code, reason, &partner(by)));
        // Refused for ever: the retry does not try again.
        assert_eq!(
            apple.create(route.send(&format!("r-{index}"), amount)).await.unwrap(),
            payment
        );
    }
    // The limits themselves are within.
    for (payer, amount) in [("poor", "5.00"), ("capped", "50.00")] {
        let route = Route {
            payer,
            ..Route::USD_CNY
        };
        apple.pay(route.send(payer, amount)).await;
    }
    let empty = Route {
        payer: "poor",
        ..Route::USD_CNY
    };
    let payment = apple.create(empty.send("r-empty", "1")).await.unwrap();
    check_aborted(&payment, ("AM04", "INSUFFICIENT_FUNDS", &partner(APPLE)));
    let audit = network.audit().await;
    assert_eq!(
        (audit.completed, audit.aborted, audit.movements),
        (2, rows.len() + 1, 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_networks_refuse_and_one_of_them_is_named() {
    let network = Network::start().await;
    network.mock(APPLE).set_faults([refusal("AM04")]).await;
    network.mock(ALIPAY).set_faults([refusal("AC03")]).await;
    let payment = network
        .partner(APPLE)
        .create(Route::USD_CNY.send("r-1", "10"))
        .await
        .unwrap();
    assert_eq!(payment.state(), State::Aborted, "{payment:?}");
    let outcome = payment.outcome.unwrap();
    let by: (&str, &str) = (&outcome.reason, &outcome.partner);
    assert!(
        [
            ("INSUFFICIENT_FUNDS", "partners/apple-pay"),
            ("ACCOUNT_UNKNOWN", "partners/alipay")
        ]
        .contains(&by),
        "{outcome:?}"
    );
    assert_eq!(network.audit().await.movements, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_let_go_before_commit_is_disputed_and_the_other_side_still_commits() {
    let mut bench = Bench::new(Settings::default()).await;
    for end in [0, 1] {
        // The other network is slower: what it does comes after the dispute.
        let faults = vec![once(Kind::ForgetHold, Command::Commit)];
        let payment = bench.pay_with(end, faults, vec![latency(Command::Commit, 100)]).await;
        assert_eq!(payment.state(), State::Disputed, "{payment:?}");
        let what = "the other network commits";
        let payment = wait_for(what, BOUND, || async {
            let payment = bench.apple.get(&payment.name).await.unwrap();
            let committed = payment.branches[1 - end].state() == payment_branch::State::Committed;
            if committed { Ok(payment) } else { Err(payment) }
        })
        .await;
        assert_eq!(payment.state(), State::Disputed, "{payment:?}");
        assert_eq!(
            payment.branches[end].state(),
            payment_branch::State::Disputed,
            "{payment:?}"
        );
        let outcome = payment.outcome.clone().unwrap();
        assert_eq!(
            (outcome.reason.as_str(), outcome.partner),
            ("HEURISTIC_ABORT", at(end)),
            "{payment:?}"
        );
        assert!(payment.end_time.is_none(), "{payment:?}");
        // The retry is told the same, and nothing moves again.
        let again = bench
            .apple
            .create(Route::USD_CNY.send(&format!("r-{}", bench.payments), "10"))
            .await;
        assert_eq!(again.unwrap().state(), State::Disputed);
        assert_eq!(
            bench.network.operator().list_all("state = DISPUTED").await.len(),
            end + 1
        );
    }
    // An operator is called: each is counted and an error in the log.
    let metrics = bench.network.metrics().await;
    for (name, errors) in [(APPLE, 1), (ALIPAY, 1)] {
        for (outcome, count) in [("abort", errors), ("commit", 0)] {
            let labels = [("partner", name), ("outcome", outcome)];
            let found = metrics.value("causeway_participant_heuristic_outcomes_total", &labels);
            assert_eq!(found, count, "{name} {outcome}");
        }
    }
    let errors = bench.network.log().lines(&["ERROR", "disputed", "HEURISTIC_ABORT"]);
    assert_eq!(errors.len(), 2, "{errors:?}");
    // What is disputed stays so over a restart.
    bench.network.stop_gateway().await;
    bench.network.start_gateway().await;
    let disputed = bench.network.operator().list_all("state = DISPUTED").await;
    assert_eq!(disputed.len(), 2);
    for payment in disputed {
        let mut states = branch_states(&payment);
        states.sort();
        assert_eq!(
            states,
            [payment_branch::State::Committed, payment_branch::State::Disputed],
            "{payment:?}"
        );
    }
    let audit = bench.network.audit().await;
    assert_eq!((audit.disputed, audit.movements), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_down_when_asked_to_vote_aborts_the_payment_in_time() {
    let mut network = Network::with(Settings {
        voting_ms: 800,
        ..Settings::default()
    })
    .await;
    let apple = network.partner(APPLE);
    network.kill_partner(ALIPAY).await;
    let request = CreatePaymentRequest {
        answer_at: AnswerAt::Decision.into(),
        ..Route::USD_CNY.send("r-1", "100")
    };
    let payment = apple.create(request.clone()).await.unwrap();
    assert_eq!(payment.state(), State::Aborting, "it cannot be told: {payment:?}");
    let outcome = payment.outcome.clone().unwrap();
    let found = (outcome.code.as_str(), outcome.reason.as_str(), outcome.partner.as_str());
    assert_eq!(found, ("TM01", "VOTING_TIMED_OUT", "partners/alipay"), "{payment:?}");
    assert!(
        outcome.detail.contains("alipay (credit)"),
        "it says who was waited for: {outcome:?}"
    );
    // The payer's funds are free at once, although the other network is still down.
    wait_for("the payer's hold is released", BOUND, || async {
        let held = network.mock(APPLE).holds("prepared").await;
        if held.is_empty() { Ok(()) } else { Err(held) }
    })
    .await;
    network.start_partner(ALIPAY).await;
    let ended = apple.reaches(&payment.name, &[State::Aborted]).await;
    assert_eq!(ended.outcome, payment.outcome);
    // The abort is remembered there, for a Prepare that might still come.
    let tombstones = network.mock(ALIPAY).holds("aborted").await;
    assert_eq!(tombstones.len(), 1, "{tombstones:?}");
    assert_eq!(apple.create(request).await.unwrap(), ended);
    let audit = network.audit().await;
    assert_eq!((audit.aborted, audit.movements), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_answers_too_slowly_aborts_the_payment_in_time() {
    let mut bench = Bench::new(Settings {
        voting_ms: 600,
        ..Settings::default()
    })
    .await;
    for end in [0, 1] {
        let payment = bench
            .pay_with(end, vec![latency(Command::Prepare, 60_000)], vec![])
            .await;
        check_aborted(&payment, ("TM01", "VOTING_TIMED_OUT", &at(end)));
    }
    let audit = bench.network.audit().await;
    assert_eq!((audit.aborted, audit.movements), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_down_when_told_to_commit_commits_when_it_is_back() {
    let mut network = Network::start().await;
    let apple = network.partner(APPLE);
    for (name, other) in [(ALIPAY, APPLE), (APPLE, ALIPAY)] {
        network
            .mock(name)
            .set_faults([fault(Kind::LoseRequest, Command::Commit)])
            .await;
        let request = CreatePaymentRequest {
            answer_at: AnswerAt::Decision.into(),
            ..Route::USD_CNY.send(name, "100")
        };
        let payment = apple.create(request).await.unwrap();
        assert_eq!(payment.state(), State::Committing, "{payment:?}");
        network.mock(name).fires(2).await;
        network.kill_partner(name).await;
        // The other side does not wait for it.
        wait_for("the other network commits", BOUND, || async {
            let moved = network.mock(other).movements(&payment.name).await;
            if moved.len() == 1 { Ok(()) } else { Err(moved) }
        })
        .await;
        assert_eq!(apple.get(&payment.name).await.unwrap().state(), State::Committing);
        network.start_partner(name).await;
        apple.reaches(&payment.name, &[State::Completed]).await;
    }
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.movements), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_crashes_after_each_command_finds_its_way_back() {
    let mut network = Network::start().await;
    let apple = network.partner(APPLE);
    let mut exercised = 0;
    for name in [APPLE, ALIPAY] {
        for (command, state) in [
            (Command::Prepare, State::Completed),
            (Command::Commit, State::Completed),
            (Command::Abort, State::Aborted),
        ] {
            let what = format!("{name} {command:?}");
            let other = if name == APPLE { ALIPAY } else { APPLE };
            network.mock(name).set_faults([fault(Kind::CrashAfter, command)]).await;
            if state == State::Aborted {
                network
                    .mock(other)
                    .set_faults([latency(Command::Prepare, 100), refusal("AG01")])
                    .await;
            }
            let request = Route::USD_CNY.send(&format!("{name}-{exercised}"), "100");
            let call = tokio::spawn({
                let (apple, request) = (apple.clone(), request.clone());
                async move { apple.create(request).await }
            });
            network.has_crashed(name).await;
            network.mock(other).set_faults([]).await;
            network.start_partner(name).await;
            let payment = call.await.unwrap().unwrap();
            assert_eq!(payment.state(), state, "{what}: {payment:?}");
            exercised += 1;
        }
    }
    let audit = network.audit().await;
    assert_eq!(
        (exercised, audit.completed, audit.aborted, audit.movements),
        (6, 4, 2, 8)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_network_does_not_hold_up_payments_that_it_has_no_part_in() {
    let network = Network::start().await;
    let (apple, alipay) = (network.partner(APPLE), network.mock(ALIPAY));
    alipay.set_faults([latency(Command::Prepare, 60_000)]).await;
    let slow: Vec<_> = (0..20)
        .map(|index| {
            let apple = apple.clone();
            tokio::spawn(async move { apple.create(Route::USD_CNY.send(&format!("slow-{index}"), "1")).await })
        })
        .collect();
    alipay.fires(20).await;
    for index in 0..5 {
        apple.pay(Route::USD_EUR.send(&format!("fast-{index}"), "1")).await;
    }
    assert!(slow.iter().all(|call| !call.is_finished()));
    for payment in apple.list_all("state = PREPARING").await {
        apple.cancel(&payment.name).await.unwrap();
    }
    for call in slow {
        assert_eq!(call.await.unwrap().unwrap().state(), State::Aborted);
    }
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted, audit.movements), (5, 20, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_at_the_partners_address_is_not_spoken_to() {
    // The gateway proves who answers; a partner with another's certificate gets no Prepare.
    let mut network = Network::with(Settings {
        voting_ms: 800,
        ..Settings::default()
    })
    .await;
    network.kill_partner(ALIPAY).await;
    network
        .start_impostor(ALIPAY, &principal(causeway::authn::Role::Partner, "paypal"))
        .await;
    let apple = network.partner(APPLE);
    let request = CreatePaymentRequest {
        answer_at: AnswerAt::Decision.into(),
        ..Route::USD_CNY.send("r-1", "100")
    };
    let payment = apple.create(request).await.unwrap();
    assert_eq!(payment.state(), State::Aborting, "{payment:?}");
    assert_eq!(payment.outcome.as_ref().unwrap().reason, "VOTING_TIMED_OUT");
    network.kill_partner(ALIPAY).await;
    network.start_partner(ALIPAY).await;
    let ended = apple.reaches(&payment.name, &[State::Aborted]).await;
    let known = [payment_branch::State::Aborted; 2];
    assert_eq!(branch_states(&ended), known, "{ended:?}");
    assert_eq!(branch(&ended, "credit").reference, "");
    assert_eq!(network.audit().await.movements, 0);
}
