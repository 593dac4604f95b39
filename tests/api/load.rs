//! Many callers at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use causeway::pb::gateway::v1::{FixedSide, ListPaymentsRequest, payment::State};
use futures_util::future::join_all;

use crate::support::{ALIPAY, APPLE, Network, PAYPAL, Route, Settings};

const CALLERS: usize = 200;
/// Each caller pays at least as often as this, so that a list has more than a page can hold, and no more than that.
const PAYMENTS_EACH: std::ops::RangeInclusive<usize> = 6..=12;
const ENOUGH: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_callers_at_once() {
    let network = Network::with(Settings {
        // A machine that is busy with all of this is no reason to abort.
        voting_ms: 60_000,
        command_ms: 30_000,
        inquiry_ms: 30_000,
        ..Settings::default()
    })
    .await;
    let routes = [
        Route::USD_CNY,
        Route::CNY_USD,
        Route::EUR_USD,
        Route::CNY_EUR,
        Route::EUR_CNY,
        Route::JPY_KWD,
        Route::KWD_JPY,
    ];
    let clients: Vec<_> = [APPLE, ALIPAY, PAYPAL]
        .into_iter()
        .flat_map(|name| (0..4).map(move |_| name))
        .map(|name| (name, network.partner(name)))
        .collect();
    let begun = Instant::now();
    let (paid, quoted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|caller| {
        let route = routes[caller % routes.len()];
        let of_partner: Vec<_> = clients.iter().filter(|(name, _)| *name == route.from).collect();
        let client = of_partner[caller % of_partner.len()].1.clone();
        let (paid, quoted) = (Arc::clone(&paid), Arc::clone(&quoted));
        tokio::spawn(async move {
            for index in 0..*PAYMENTS_EACH.end() {
                if index >= *PAYMENTS_EACH.start() && begun.elapsed() > ENOUGH {
                    break;
                }
                let id = format!("c-{caller}-{index}");
                let request = if index % 3 == 0 {
                    let quote = client
                        .quote(route.quote(FixedSide::Send, "100"))
                        .await
                        .expect("a quote");
                    quoted.fetch_add(1, Ordering::Relaxed);
                    route.by_quote(&id, &quote.name)
                } else {
                    route.send(&id, "100")
                };
                let payment = client.create(request.clone()).await.expect("no error under load");
                assert_eq!(payment.state(), State::Completed, "{payment:?}");
                paid.fetch_add(1, Ordering::Relaxed);
                // Some callers are not sure that they were answered.
                if index % 4 == 0 {
                    let again = client.create(request).await.expect("no error under load");
                    assert_eq!(again.name, payment.name);
                }
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let (paid, quoted) = (paid.load(Ordering::Relaxed), quoted.load(Ordering::Relaxed));
    println!(
        "{paid} payments, {quoted} of them by quote, by {CALLERS} callers in {:?}",
        begun.elapsed()
    );
    assert!(paid >= CALLERS * PAYMENTS_EACH.start(), "{paid}");
    assert!(quoted >= 2 * CALLERS, "{quoted}");

    let audit = network.audit().await;
    assert_eq!((audit.completed, audit.aborted, audit.disputed), (paid, 0, 0));
    assert_eq!(audit.movements, 2 * paid);
    // More than a page can hold.
    let operator = network.operator();
    for (asked, got) in [
        (5_000, 1_000),
        (1_001, 1_000),
        (1_000, 1_000),
        (999, 999),
        (i32::MAX, 1_000),
    ] {
        let request = ListPaymentsRequest {
            page_size: asked,
            ..ListPaymentsRequest::default()
        };
        let page = operator.list(request).await.unwrap();
        assert_eq!(page.payments.len(), got, "asked for {asked}");
        assert!(!page.next_page_token.is_empty());
    }
}
