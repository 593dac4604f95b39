//! After the faults: everything must end by itself, everybody must get an answer, and nothing may move any more. Then the
//! evidence is gathered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use causeway::pb::{
    gateway::v1::{ListPaymentsRequest, Payment, payment_service_client::PaymentServiceClient},
    mock::v1 as mock,
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    callers::{Desk, Slip},
    cast::{CAST, OPERATOR},
    cluster::Cluster,
    evidence::{Books, Change, Evidence, Opening, Question, Watch},
    history::{History, is_definite},
    watchers::{nothing_is_held, replay_all, replay_some},
};

/// Within so long after the last fault every payment must have ended and every hold be gone. What is left over then is in
/// doubt. A partner asks about a hold 4, 8 and 38 s after it expired if nobody tells it first.
pub const HEALS_WITHIN: Duration = Duration::from_secs(90);
/// Every order is asked for once more within so long, or is left as it is.
const ASKS_WITHIN: Duration = Duration::from_secs(180);
/// Questions at once.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

type Client = PaymentServiceClient<Channel>;

/// A watcher that is still watching.
pub struct Watching {
    pub who: &'static str,
    pub in_all: watch::Sender<Option<usize>>,
    pub seen: JoinHandle<Vec<Change>>,
}

/// Waits until everything has ended and nothing is held, or until it should have.
pub async fn heal(cluster: &Cluster, since: Instant) {
    let operator = cluster.as_operator();
    while since.elapsed() < HEALS_WITHIN {
        let open = list(&operator, "state != COMPLETED AND state != ABORTED").await;
        if open.is_some_and(|open| open.is_empty()) && nothing_is_held(cluster).await {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Asks once more for every order, with the same body, until the answer is definite.
pub async fn ask_for_all(cluster: &Cluster, history: &Arc<History>) {
    let until = Instant::now() + ASKS_WITHIN;
    let desks: Vec<_> = CAST
        .iter()
        .map(|cast| (cast.name, Desk::new(cluster.as_partner(cast.name), Arc::clone(history))))
        .collect();
    let asked = stream::iter(history.orders()).for_each_concurrent(AT_ONCE, |order| {
        let (_, desk) = desks
            .iter()
            .find(|(name, _)| *name == order.key.initiator)
            .expect("a network of the cast");
        async move {
            let slip = Slip {
                key: order.key,
                request: order.request,
            };
            // One that never got there begins now, and ends like any other.
            while Instant::now() < until && !is_definite(&desk.create(&slip, Question::Replay, PATIENCE, None).await) {
                sleep(Duration::from_millis(50)).await;
            }
        }
    });
    asked.await;
}

/// Everything that the auditor judges.
pub async fn gather(cluster: &Cluster, history: &History, watching: Vec<Watching>) -> Evidence {
    let operator = cluster.as_operator();
    let payments = list(&operator, "").await.expect("all is well");
    let feed = replay_all(&operator).await;
    let mut replays = Vec::new();
    for Watching { who, in_all, .. } in &watching {
        let replay = if *who == OPERATOR {
            feed.clone()
        } else {
            let wanted = payments.iter().filter(|payment| takes_part(payment, who)).count();
            // A payment that has ended has three changes. Of fewer or more the auditor hears from the operator's feed.
            let client = PaymentServiceClient::new(cluster.as_partner(who));
            replay_some(&client, wanted * 3).await
        };
        in_all.send_replace(Some(replay.len()));
        replays.push(replay);
    }
    let mut watches = Vec::new();
    for (Watching { who, seen, .. }, replay) in watching.into_iter().zip(replays) {
        let live = seen.await.expect("the watcher does not panic");
        watches.push(Watch { who, live, replay });
    }
    let mut books = Vec::new();
    for cast in &CAST {
        books.push(books_of(cluster, cast.name, cast.accounts).await);
    }
    Evidence {
        orders: history.orders(),
        payments,
        books,
        hanging: history.hanging(),
        watches,
    }
}

fn takes_part(payment: &Payment, who: &str) -> bool {
    let name = format!("partners/{who}");
    let parties = [&payment.payer, &payment.payee];
    payment.initiator == name || parties.into_iter().flatten().any(|party| party.partner == name)
}

/// Every payment that the filter lets through, over all pages; none if the gateway does not answer.
async fn list(client: &Client, filter: &str) -> Option<Vec<Payment>> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListPaymentsRequest {
            page_size: 1_000,
            page_token,
            filter: filter.into(),
        };
        let mut client = client.clone();
        let page = timeout(PATIENCE, client.list_payments(request))
            .await
            .ok()?
            .ok()?
            .into_inner();
        all.extend(page.payments);
        if page.next_page_token.is_empty() {
            return Some(all);
        }
        page_token = page.next_page_token;
    }
}

async fn books_of(cluster: &Cluster, network: &'static str, opened: &[&str]) -> Books {
    let mut control = cluster.control(network).expect("it is alive");
    let openings: Vec<_> = opened.iter().map(|text| opening(text)).collect();
    let accounts = control.list_accounts(mock::ListAccountsRequest {}).await;
    let accounts = accounts.expect("all is well").into_inner().accounts;
    let holds = control
        .list_holds(mock::ListHoldsRequest {
            state: "prepared".into(),
            payment: String::new(),
        })
        .await;
    let mut movements = Vec::new();
    // By account, for no list is longer than 10,000; then by nobody's, should there be any.
    for opening in &openings {
        let request = mock::ListMovementsRequest {
            account: opening.account.clone(),
            payment: String::new(),
        };
        let listed = control.list_movements(request).await.expect("all is well").into_inner();
        assert_eq!(
            listed.total_count,
            listed.movements.len() as i64,
            "more than are listed"
        );
        movements.extend(listed.movements);
    }
    let all = control.list_movements(mock::ListMovementsRequest::default()).await;
    let in_all = all.expect("all is well").into_inner().total_count;
    assert_eq!(
        in_all,
        movements.len() as i64,
        "{network}: money moved on no known account"
    );
    Books {
        network,
        openings,
        accounts,
        movements,
        holds: holds.expect("all is well").into_inner().holds,
    }
}

fn opening(text: &str) -> Opening {
    let mut parts = text.split(':').map(str::to_owned);
    let mut next = || parts.next().expect("an account's text has three parts");
    Opening {
        account: next(),
        currency: next(),
        balance: next(),
    }
}
