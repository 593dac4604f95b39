//! ListPayments: filters, pages, and that what is listed is what was answered.

use std::collections::BTreeSet;

use causeway::pb::{
    gateway::v1::{ListPaymentsRequest, Payment, payment::State},
    mock::v1::fault::{Command, Kind},
};
use futures_util::future::join_all;
use prost_types::Timestamp;

use crate::support::{
    ALIPAY, APPLE, BOUND, Client, Network, PAYPAL, Route, audit,
    clients::{fault, latency, refusal},
    wait_for,
};

async fn page(client: &Client, page_size: i32, page_token: &str, filter: &str) -> (Vec<Payment>, String) {
    let request = ListPaymentsRequest {
        page_size,
        page_token: page_token.into(),
        filter: filter.into(),
    };
    let page = client.list(request).await.unwrap();
    (page.payments, page.next_page_token)
}

fn order(payment: &Payment) -> (Timestamp, String) {
    (payment.create_time.unwrap(), payment.name.clone())
}

fn is_newest_first(payments: &[Payment]) -> bool {
    let key = |payment: &Payment| {
        let (time, name) = order(payment);
        (time.seconds, time.nanos, name)
    };
    payments.windows(2).all(|pair| key(&pair[0]) > key(&pair[1]))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_no_gaps_and_no_repeats_while_new_payments_arrive() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let first: Vec<_> = join_all((0..25).map(|index| apple.pay(Route::USD_CNY.send(&format!("r-{index}"), "1"))))
        .await
        .into_iter()
        .map(|payment| payment.name)
        .collect();
    for (client, what) in [
        (&apple, "initiator"),
        (&network.partner(ALIPAY), "payee"),
        (&network.operator(), "operator"),
    ] {
        let (mut seen, mut token, mut sizes) = (Vec::new(), String::new(), Vec::new());
        loop {
            let (payments, next) = page(client, 10, &token, "").await;
            sizes.push(payments.len());
            seen.extend(payments);
            if next.is_empty() {
                break;
            }
            token = next;
            // Between two pages; newer than all that is still to come.
            apple
                .pay(Route::USD_CNY.send(&format!("{what}-{}", sizes.len()), "1"))
                .await;
        }
        assert!(is_newest_first(&seen), "{what}");
        let names: Vec<_> = seen.iter().map(|payment| payment.name.clone()).collect();
        let unique: BTreeSet<_> = names.iter().cloned().collect();
        assert_eq!(unique.len(), names.len(), "{what}: a payment stands on two pages");
        assert!(
            first.iter().all(|name| unique.contains(name)),
            "{what}: a payment stands on none"
        );
        assert_eq!(sizes[..2], [10, 10], "{what}: {sizes:?}");
        assert!(sizes.len() >= 3, "{what}: {sizes:?}");
    }
    assert_eq!(network.audit().await.completed, apple.list_all("").await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_one_leads_through_all_of_them() {
    // Payments of one millisecond are told apart by their ids.
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let answered = join_all((0..40).map(|index| apple.pay(Route::USD_CNY.send(&format!("r-{index}"), "1")))).await;
    network.audit().await;
    for size in [1, 3, 39, 40, 41] {
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (payments, next) = page(&apple, size, &token, "").await;
            pages += 1;
            assert!(pages <= 41, "the pages never end");
            seen.extend(payments);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        let names: BTreeSet<_> = seen.iter().map(|payment| payment.name.clone()).collect();
        assert_eq!((seen.len(), names.len()), (40, 40), "size {size}");
        assert!(is_newest_first(&seen), "size {size}");
        assert_eq!(pages, (40 + size - 1) / size, "size {size}: no empty page at the end");
    }
    // What was answered is what is read, in the list and alone.
    let listed = apple.list_all("").await;
    for payment in &answered {
        assert_eq!(listed.iter().find(|listed| listed.name == payment.name), Some(payment));
        assert_eq!(&apple.get(&payment.name).await.unwrap(), payment);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_is_the_size_of_a_page_unless_another_is_asked_for() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    join_all((0..51).map(|index| apple.pay(Route::USD_CNY.send(&format!("r-{index}"), "1")))).await;
    network.audit().await;
    let (payments, token) = page(&apple, 0, "", "").await;
    assert_eq!(payments.len(), 50);
    let (rest, end) = page(&apple, 0, &token, "").await;
    assert_eq!((rest.len(), end.as_str()), (1, ""));
    let (all, end) = page(&apple, 51, "", "").await;
    assert_eq!((all.len(), end.as_str()), (51, ""));
    assert_eq!([payments, rest].concat(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_show_what_they_say() {
    let network = Network::start().await;
    let (apple, alipay, paypal, operator) = (
        network.partner(APPLE),
        network.partner(ALIPAY),
        network.partner(PAYPAL),
        network.operator(),
    );
    let mock = network.mock(ALIPAY);
    let mut names = Vec::new();
    for index in 0..3 {
        names.push(apple.pay(Route::USD_CNY.send(&format!("done-{index}"), "1")).await.name);
    }
    mock.set_faults([refusal("AC04")]).await;
    names.push(apple.create(Route::USD_CNY.send("refused", "1")).await.unwrap().name);
    mock.set_faults([fault(Kind::ForgetHold, Command::Commit)]).await;
    names.push(apple.create(Route::USD_CNY.send("forgotten", "1")).await.unwrap().name);
    mock.set_faults([latency(Command::Prepare, 60_000)]).await;
    let open = tokio::spawn({
        let apple = apple.clone();
        async move { apple.create(Route::USD_CNY.send("open", "1")).await }
    });
    mock.fires(1).await;
    // The same request_id of another partner.
    paypal.pay(Route::EUR_USD.send("done-0", "1")).await;
    let quiet = "the store has it all";
    wait_for(quiet, BOUND, || async {
        let (done, preparing) = (
            operator.list_all("state = COMPLETED").await.len(),
            operator.list_all("state = PREPARING").await.len(),
        );
        if (done, preparing) == (4, 1) {
            Ok(())
        } else {
            Err((done, preparing))
        }
    })
    .await;
    let all = apple.list_all("").await;
    assert_eq!(all.len(), 7);
    let time = |payment: &Payment| payment.create_time.unwrap().to_string();
    let (newest, oldest) = (time(&all[0]), time(&all[6]));
    let third = time(all.iter().find(|payment| payment.name == names[2]).unwrap());
    let rows = [
        ("state = COMPLETED".to_owned(), 4),
        ("state = STATE_COMPLETED".to_owned(), 4),
        ("state=\"COMPLETED\"".to_owned(), 4),
        ("state = ABORTED".to_owned(), 1),
        ("state = DISPUTED".to_owned(), 1),
        ("state = PREPARING".to_owned(), 1),
        ("state = COMMITTING".to_owned(), 0),
        ("state != COMPLETED".to_owned(), 3),
        ("state != COMPLETED AND state != ABORTED".to_owned(), 2),
        ("request_id = done-1".to_owned(), 1),
        ("request_id = done-1 AND state = COMPLETED".to_owned(), 1),
        ("request_id = done-1 AND state = ABORTED".to_owned(), 0),
        ("request_id = never".to_owned(), 0),
        (format!("create_time >= {oldest}"), 7),
        (format!("create_time <= \"{newest}\""), 7),
        (format!("create_time < \"{oldest}\""), 0),
        (format!("create_time > {newest}"), 0),
        (format!("create_time > {oldest} AND create_time < {newest}"), usize::MAX),
        (format!("create_time <= {third}"), usize::MAX),
        ("create_time < 2001-01-01T00:00:00Z".to_owned(), 0),
        ("create_time >= 2001-01-01T00:00:00.000000001Z".to_owned(), 7),
    ];
    for (filter, count) in &rows {
        let found = apple.list_all(filter).await;
        if *count == usize::MAX {
            // By the payments' own times, compared here.
            let expected: Vec<_> = all
                .iter()
                .filter(
                    |payment| match filter.contains(&third) && filter.starts_with("create_time <= ") {
                        true => time(payment) <= third,
                        false => time(payment) > oldest && time(payment) < newest,
                    },
                )
                .cloned()
                .collect();
            assert_eq!(found, expected, "{filter}");
        } else {
            assert_eq!(found.len(), *count, "{filter}: {found:?}");
        }
        assert!(found.iter().all(|payment| all.contains(payment)), "{filter}");
    }
    // Everybody's own, and an operator's all of them.
    assert_eq!(alipay.list_all("").await.len(), 6);
    assert_eq!(paypal.list_all("").await.len(), 1);
    assert_eq!(operator.list_all("").await.len(), 7);
    // A request_id is the initiator's: the payee's network does not find the payment by it.
    assert_eq!(alipay.list_all("request_id = done-1").await, []);
    let of_paypal = paypal.list_all("request_id = done-0").await;
    assert_eq!(of_paypal[0].initiator, "partners/paypal");
    let of_apple = apple.list_all("request_id = done-0").await;
    assert_eq!(
        (of_apple.len(), of_apple[0].initiator.as_str()),
        (1, "partners/apple-pay")
    );

    let preparing = apple.list_all("state = PREPARING").await;
    apple.cancel(&preparing[0].name).await.unwrap();
    assert_eq!(open.await.unwrap().unwrap().state(), State::Aborted);
    mock.set_faults([]).await;
    audit::wait_until_quiet(&operator, &network.mocks()).await;
    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted, audit.disputed), (4, 2, 1));
}
