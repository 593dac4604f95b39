//! The gateway and the partners are killed, and every wallet moves once or not at all.

use causeway::{
    coordinator::HaltPoint,
    pb::{
        gateway::v1::{self as pb, payment::State},
        mock::v1::{
            ListMovementsRequest,
            fault::{Command, Kind},
        },
    },
};

use crate::world::{
    ALIPAY, APPLE, QUICK, Totals, World, beside_others, eventually, fault, insist, latency, order, quote_request,
    quoted,
};

/// Kills the gateway at the point, starts it again, and answers with what the payment came to. With `retry` the caller
/// sends its request again; without, nobody asks and the gateway ends it by itself.
async fn killed_at(point: HaltPoint, payer: &str, retry: bool) -> (World, String, Option<pb::Payment>) {
    let mut world = World::new(QUICK);
    world.start_gateway(&["--halt-at", point.name()]);
    let client = world.payments();
    let quote = world.quotes().create_quote(quote_request()).await.unwrap().into_inner();
    let request = quoted("r-1", payer, &quote.name);
    let first = {
        let (mut client, request) = (client.clone(), request.clone());
        tokio::spawn(async move { client.create_payment(request).await })
    };
    let line = tokio::task::block_in_place(|| world.gateway().wait_for(&format!("halted at {point}:")));
    let name = line.rsplit(": ").next().unwrap().to_owned();
    world.gateway().kill();
    let first = first.await.unwrap();
    if point == HaltPoint::AfterEnded {
        // The answer does not wait for the end to be written: that it ended is so all the same.
        assert!(first.unwrap().into_inner().end_time.is_some());
    } else {
        assert!(first.is_err(), "{point}: nobody can have answered");
    }
    world.start_gateway(&[]);
    let answer = match retry {
        true => Some(insist(&client, &request).await.unwrap()),
        false => None,
    };
    (world, name, answer)
}

async fn state(world: &World, name: &str) -> Option<State> {
    match world
        .payments()
        .get_payment(pb::GetPaymentRequest { name: name.into() })
        .await
    {
        Ok(response) => Some(response.into_inner().state()),
        Err(status) if status.code() == tonic::Code::NotFound => None,
        Err(status) => panic!("{status}"),
    }
}

async fn ended(world: &World, name: &str) -> State {
    eventually("the payment's end", async || {
        state(world, name)
            .await
            .filter(|state| matches!(state, State::Completed | State::Aborted))
    })
    .await
}

/// Whether a payment that can be paid passes the point.
fn on_the_way_to_commit(point: HaltPoint) -> bool {
    !matches!(point, HaltPoint::BeforeAbortDecided | HaltPoint::AfterAbortDecided)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_and_asked_again_the_wallets_move_once() {
    let _machine = beside_others();
    let mut points = 0;
    for point in HaltPoint::ALL.into_iter().filter(|point| on_the_way_to_commit(*point)) {
        let (world, name, answer) = killed_at(point, "alice", true).await;
        let answer = answer.unwrap();
        assert_eq!((answer.state(), &answer.name), (State::Completed, &name), "{point}");
        assert_eq!(world.moved(&name).await, (1, 1), "{point}");
        assert_eq!(
            world.totals().await,
            Totals {
                movements: [1, 1],
                waiting: 0,
                balanced: true
            },
            "{point}"
        );
        points += 1;
    }
    assert_eq!(points, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_and_never_asked_again_both_sides_agree() {
    let _machine = beside_others();
    for point in HaltPoint::ALL.into_iter().filter(|point| on_the_way_to_commit(*point)) {
        let (world, name, _) = killed_at(point, "alice", false).await;
        if point == HaltPoint::BeforeBegun {
            assert_eq!(state(&world, &name).await, None, "nothing had begun");
            assert_eq!(
                world.totals().await,
                Totals {
                    movements: [0, 0],
                    waiting: 0,
                    balanced: true
                }
            );
            continue;
        }
        assert_eq!(
            ended(&world, &name).await,
            State::Completed,
            "{point}: its holds are met again"
        );
        assert_eq!(world.moved(&name).await, (1, 1), "{point}");
        assert_eq!(
            world.totals().await,
            Totals {
                movements: [1, 1],
                waiting: 0,
                balanced: true
            },
            "{point}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_point_of_an_abort_no_wallet_moves() {
    let _machine = beside_others();
    let points = [
        HaltPoint::AfterBegun,
        HaltPoint::BeforeAbortDecided,
        HaltPoint::AfterAbortDecided,
        HaltPoint::AfterEnded,
    ];
    for point in points {
        let (world, name, answer) = killed_at(point, "poor", true).await;
        let answer = answer.unwrap();
        let outcome = answer.outcome.clone().unwrap_or_default();
        assert_eq!(
            (answer.state(), outcome.code.as_str()),
            (State::Aborted, "AM04"),
            "{point}: {answer:?}"
        );
        assert_eq!(world.moved(&name).await, (0, 0), "{point}");
        let quiet = eventually("the release of the holds", async || {
            let totals = world.totals().await;
            (totals.waiting == 0).then_some(totals)
        })
        .await;
        assert_eq!(
            quiet,
            Totals {
                movements: [0, 0],
                waiting: 0,
                balanced: true
            },
            "{point}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partners_that_crash_after_acting_move_once() {
    let _machine = beside_others();
    let mut crashes = 0;
    for partner in [APPLE, ALIPAY] {
        for command in ["prepare", "commit"] {
            let mut world = World::new(QUICK);
            world.partner(partner).kill();
            world.start_partner(partner, &[&format!("crash-after:{command}:1")]);
            world.start_gateway(&[]);
            let (client, request) = (world.payments(), order("r-1", "alice"));
            let paying = tokio::spawn({
                let (client, request) = (client.clone(), request.clone());
                async move { insist(&client, &request).await }
            });
            tokio::task::block_in_place(|| world.partner(partner).wait());
            crashes += 1;
            world.start_partner(partner, &[]);
            let payment = paying.await.unwrap().unwrap();
            let end = ended(&world, &payment.name).await;
            // Back before the time to decide was over: the hold is met again.
            assert_eq!(end, State::Completed, "{partner} {command}: {payment:?}");
            assert_eq!(world.moved(&payment.name).await, (1, 1), "{partner} {command}");
            assert_eq!(
                world.totals().await,
                Totals {
                    movements: [1, 1],
                    waiting: 0,
                    balanced: true
                }
            );
        }
    }
    assert_eq!(crashes, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_is_away_for_the_commit_gets_it_when_it_is_back() {
    let _machine = beside_others();
    let mut world = World::new(QUICK);
    world.start_gateway(&["--halt-at", "after-commit-decided"]);
    let mut client = world.payments();
    let paying = tokio::spawn(async move { client.create_payment(order("r-1", "alice")).await });
    let line = tokio::task::block_in_place(|| world.gateway().wait_for("halted at"));
    let name = line.rsplit(": ").next().unwrap().to_owned();
    world.partner(ALIPAY).kill();
    world.gateway().kill();
    drop(paying);
    world.start_gateway(&[]);
    eventually("the debit", async || {
        let control = world
            .control(APPLE)
            .list_movements(ListMovementsRequest::default())
            .await
            .unwrap()
            .into_inner();
        (control.total_count == 1).then_some(())
    })
    .await;
    assert_eq!(
        state(&world, &name).await,
        Some(State::Committing),
        "one side is still to be told"
    );
    world.start_partner(ALIPAY, &[]);
    assert_eq!(ended(&world, &name).await, State::Completed);
    assert_eq!(world.moved(&name).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_outlives_its_gateway_is_asked_for_and_released() {
    let _machine = beside_others();
    // The gateway's store is gone with its machine: a new one knows nothing, and unknown is aborted.
    let mut world = World::new(
        &QUICK
            .replace("hold_ms = 60000", "hold_ms = 1000")
            .replace("voting_ms = 5000", "voting_ms = 1000"),
    );
    world.start_gateway(&["--halt-at", "before-commit-decided"]);
    let mut client = world.payments();
    let paying = tokio::spawn(async move { client.create_payment(order("r-1", "alice")).await });
    tokio::task::block_in_place(|| world.gateway().wait_for("halted at"));
    world.gateway().kill();
    drop(paying);
    assert_eq!(world.totals().await.waiting, 2);
    for suffix in ["", "-wal", "-shm", ".mark"] {
        let file = world.path().join(format!("gateway.sqlite{suffix}"));
        if file.exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    world.start_gateway(&[]);
    let totals = eventually("the release of the holds", async || {
        let totals = world.totals().await;
        (totals.waiting == 0).then_some(totals)
    })
    .await;
    assert_eq!(
        totals,
        Totals {
            movements: [0, 0],
            waiting: 0,
            balanced: true
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_and_a_second_gateway_on_the_same_file_is_refused() {
    let _machine = beside_others();
    let mut world = World::new(QUICK);
    world.start_gateway(&[]);
    let config = world.path().join("gateway.toml").display().to_string();
    let arguments = ["serve", "--config", &config].map(str::to_owned);
    // Its port is taken too: the store must not even be looked at then. Give it another.
    let text = std::fs::read_to_string(&config).unwrap();
    let own_port = text.lines().next().unwrap().to_owned();
    std::fs::write(&config, text.replace(&own_port, "listen = \"127.0.0.1:0\"")).unwrap();
    let mut second = crate::process::Process::start("second gateway", &arguments);
    tokio::task::block_in_place(|| second.wait_for("another process is using this store"));
    assert_eq!(second.wait().code(), Some(1));

    world.set_faults(ALIPAY, &[latency(Command::Prepare, 500)]).await;
    let mut client = world.payments();
    let paying = tokio::spawn(async move { client.create_payment(order("r-1", "alice")).await });
    eventually("the hold", async || {
        let totals = world.totals().await;
        (totals.waiting >= 1).then_some(())
    })
    .await;
    let status = tokio::task::block_in_place(|| world.gateway().terminate());
    assert_eq!(status.code(), Some(0), "a stop is no failure");
    let payment = paying.await.unwrap().unwrap().into_inner();
    assert_eq!(payment.state(), State::Completed, "what was under way was let finish");
    assert_eq!(
        world.totals().await,
        Totals {
            movements: [1, 1],
            waiting: 0,
            balanced: true
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_partner_that_is_away() {
    let _machine = beside_others();
    let mut world = World::new(&format!("{QUICK}drain_ms = 500\n"));
    world.start_gateway(&[]);
    world
        .set_faults(ALIPAY, &[fault(Kind::LoseRequest, Command::Commit, 0)])
        .await;
    let mut client = world.payments();
    let mut request = order("r-1", "alice");
    request.answer_at = pb::AnswerAt::Decision.into();
    let payment = client.create_payment(request).await.unwrap().into_inner();
    assert_eq!(payment.state(), State::Committing);
    let status = tokio::task::block_in_place(|| world.gateway().terminate());
    assert_eq!(status.code(), Some(0));
    world.set_faults(ALIPAY, &[]).await;
    world.start_gateway(&[]);
    assert_eq!(ended(&world, &payment.name).await, State::Completed);
    assert_eq!(world.moved(&payment.name).await, (1, 1));
}
