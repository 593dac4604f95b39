//! What every store promises.

use std::{collections::BTreeMap, sync::Arc};

use causeway::{
    coordinator::protocol::{Phase, Record, State},
    feed::Recent,
    payment::{OrderPricing, PaymentId, Terms},
    store::{Append, AppendOutcome, BeginOutcome, Change, ListQuery, Store},
};

use crate::{KINDS, Kind, made};

/// Runs a check against a new store of every kind.
async fn check<F: Future<Output = ()>>(check: impl Fn(Arc<dyn Store>, &'static Kind, std::path::PathBuf) -> F) {
    for kind in &KINDS {
        let folder = tempfile::tempdir().unwrap();
        let store = (kind.open)(folder.path()).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        check(store, kind, folder.path().to_owned()).await;
    }
}

async fn begin_quoted(store: &Arc<dyn Store>, initiator: &str, n: u64) -> Arc<Terms> {
    let terms = made::terms(initiator, n);
    store.put_quote(made::quote(n)).await.unwrap();
    assert_eq!(store.begin(made::begin(&terms)).await.unwrap(), BeginOutcome::Begun);
    terms
}

async fn complete(store: &Arc<dyn Store>, terms: &Arc<Terms>) -> Vec<Record> {
    let at_ms = terms.begin_ms;
    let records = [made::begun(terms), made::committed(at_ms + 1), made::ended(at_ms + 2)];
    for count in [2, 3] {
        let append = made::append(terms.id, &records[..count], 1);
        assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
    }
    records.to_vec()
}

async fn all_changes(store: &Arc<dyn Store>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    loop {
        let after = changes.last().map_or(0, |change| change.sequence);
        let page = store.changes(after, 7).await.unwrap();
        if page.is_empty() {
            return changes;
        }
        changes.extend(page);
    }
}

#[tokio::test]
async fn what_is_written_is_read_and_survives_a_reopening() {
    check(async |store, kind, folder| {
        let terms = begin_quoted(&store, "apple-pay", 1).await;
        let records = complete(&store, &terms).await;
        let disputed = begin_quoted(&store, "alipay", 2).await;
        let dispute = [
            made::begun(&disputed),
            made::committed(disputed.begin_ms),
            made::disputed(disputed.begin_ms),
        ];
        let append = made::append(disputed.id, &dispute, 2);
        assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
        let read = async |store: &Arc<dyn Store>| {
            let history = store.payment(terms.id).await.unwrap().unwrap();
            assert_eq!((history.id, &history.records), (terms.id, &records));
            assert_eq!(store.payment(disputed.id).await.unwrap().unwrap().records, dispute);
            let quote = store.quote(made::quote_id(1)).await.unwrap().unwrap();
            assert_eq!((quote.quote, quote.taken_by), (made::quote(1), Some(terms.id)));
            assert!(store.payment(made::terms("paypal", 9).id).await.unwrap().is_none());
            assert!(store.quote(made::quote_id(9)).await.unwrap().is_none());
        };
        read(&store).await;
        drop(store);
        read(&(kind.open)(&folder).unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_begins_once() {
    check(async |store, _, _| {
        let terms = begin_quoted(&store, "apple-pay", 1).await;
        // Another body under the same id changes nothing either.
        let mut other = (*terms).clone();
        other.decide_by_ms += 1;
        for begin in [made::begin(&terms), made::begin(&Arc::new(other))] {
            assert_eq!(store.begin(begin).await.unwrap(), BeginOutcome::Exists);
        }
        assert_eq!(
            store.payment(terms.id).await.unwrap().unwrap().records,
            [made::begun(&terms)]
        );
        assert_eq!(all_changes(&store).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_quote_serves_one_payment() {
    check(async |store, _, _| {
        let first = begin_quoted(&store, "apple-pay", 1).await;
        let mut second = (*made::terms("apple-pay", 2)).clone();
        second.order.pricing = OrderPricing::Quote(made::quote_id(1));
        let second = Arc::new(second);
        let taken = BeginOutcome::QuoteTaken { by: Some(first.id) };
        assert_eq!(store.begin(made::begin(&second)).await.unwrap(), taken);
        // Not there at all.
        let third = made::terms("apple-pay", 3);
        assert_eq!(
            store.begin(made::begin(&third)).await.unwrap(),
            BeginOutcome::QuoteTaken { by: None }
        );
        for refused in [second.id, third.id] {
            assert!(
                store.payment(refused).await.unwrap().is_none(),
                "a refused beginning leaves nothing"
            );
        }
        assert_eq!(all_changes(&store).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn of_many_payments_that_race_for_a_quote_one_begins() {
    check(async |store, _, _| {
        store.put_quote(made::quote(1)).await.unwrap();
        let begins = (0..50).map(|n| {
            let mut terms = (*made::terms("apple-pay", 100 + n)).clone();
            terms.order.pricing = OrderPricing::Quote(made::quote_id(1));
            store.begin(made::begin(&Arc::new(terms)))
        });
        let outcomes = futures_util::future::try_join_all(begins).await.unwrap();
        let begun = outcomes
            .iter()
            .filter(|outcome| **outcome == BeginOutcome::Begun)
            .count();
        assert_eq!((begun, outcomes.len()), (1, 50));
    })
    .await;
}

#[tokio::test]
async fn an_append_to_another_version_changes_nothing() {
    check(async |store, _, _| {
        let terms = begin_quoted(&store, "apple-pay", 1).await;
        let at_ms = terms.begin_ms;
        let commit = [made::begun(&terms), made::committed(at_ms)];
        let abort = [made::begun(&terms), made::aborted(at_ms)];
        // Two coordinators decide at once: one of them is first, whoever it is.
        let (one, other) = (
            store.append(made::append(terms.id, &commit, 1)),
            store.append(made::append(terms.id, &abort, 1)),
        );
        assert_eq!(one.await.unwrap(), AppendOutcome::Appended);
        assert_eq!(other.await.unwrap(), AppendOutcome::Conflict { stored_version: 2 });
        assert_eq!(store.payment(terms.id).await.unwrap().unwrap().records, commit);
        // Ahead of what is stored, and of what was never begun.
        let ahead = [made::begun(&terms), made::committed(at_ms), made::ended(at_ms)];
        let append = Append {
            expected_version: 3,
            states: vec![after(&ahead, 4)],
            ..made::append(terms.id, &ahead, 1)
        };
        assert_eq!(
            store.append(append).await.unwrap(),
            AppendOutcome::Conflict { stored_version: 2 }
        );
        let nobody = made::terms("paypal", 7);
        let append = made::append(nobody.id, &[made::begun(&nobody), made::committed(at_ms)], 1);
        assert_eq!(
            store.append(append).await.unwrap(),
            AppendOutcome::Conflict { stored_version: 0 }
        );
        assert_eq!(all_changes(&store).await.len(), 2);
    })
    .await;
}

/// The state after the records, as of another version.
fn after(records: &[Record], version: u32) -> State {
    let State::Present(mut transaction) = made::state(records) else {
        panic!("absent")
    };
    transaction.version = version;
    State::Present(transaction)
}

#[tokio::test]
async fn parts_of_a_batch_stand_or_fall_alone() {
    check(async |store, _, _| {
        for n in 0..200 {
            store.put_quote(made::quote(n)).await.unwrap();
        }
        // Sent together, so that they share transactions: each good one has a bad neighbour.
        let begins: Vec<_> = (0..200)
            .map(|n| store.begin(made::begin(&made::terms("apple-pay", n / 2))))
            .collect();
        let mut begun = 0;
        for pending in begins {
            begun += usize::from(pending.await.unwrap() == BeginOutcome::Begun);
        }
        assert_eq!(begun, 100);
        assert_eq!(all_changes(&store).await.len(), 100);
    })
    .await;
}

#[tokio::test]
async fn changes_are_numbered_without_gaps_and_show_the_payment_as_it_was() {
    check(async |store, kind, folder| {
        let mut feed = store.feed();
        let mut expected = BTreeMap::new();
        for n in 0..20 {
            let terms = begin_quoted(&store, if n % 2 == 0 { "apple-pay" } else { "alipay" }, n).await;
            if n % 3 != 0 {
                complete(&store, &terms).await;
            }
            expected.insert(terms.id, if n % 3 != 0 { 3 } else { 1 });
        }
        // Two records in one step: each is a change of its own, and shows what it was.
        let disputed = begin_quoted(&store, "apple-pay", 100).await;
        let dispute = [
            made::begun(&disputed),
            made::committed(disputed.begin_ms),
            made::disputed(disputed.begin_ms),
        ];
        store.append(made::append(disputed.id, &dispute, 2)).await.unwrap();
        expected.insert(disputed.id, 3);
        let total: usize = expected.values().sum();
        assert!(feed.wait_beyond(total as u64 - 1).await);
        let Recent::Changes(live) = feed.recent(0, 1_000) else {
            panic!("memory has all of it")
        };
        let stored = all_changes(&store).await;
        drop(store);
        let reopened = (kind.open)(&folder).unwrap();
        assert_eq!(reopened.feed().head(), total as u64);
        assert!(matches!(reopened.feed().recent(0, 10), Recent::Behind));
        let again = all_changes(&reopened).await;
        for changes in [&stored, &again] {
            assert_eq!(changes.len(), total);
            let mut versions: BTreeMap<PaymentId, u32> = BTreeMap::new();
            for (index, (change, live)) in changes.iter().zip(&live).enumerate() {
                assert_eq!(change.sequence, index as u64 + 1);
                assert_eq!((change.sequence, &change.state), (live.sequence, &live.state));
                let State::Present(transaction) = &change.state else {
                    panic!("absent")
                };
                let version = versions.entry(transaction.terms.id).or_default();
                *version += 1;
                assert_eq!(transaction.version, *version, "each change once, in order");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn recovery_finds_what_has_not_ended_and_nothing_else() {
    check(async |store, _, _| {
        let mut open = Vec::new();
        for n in 0..30 {
            let terms = begin_quoted(&store, "apple-pay", n).await;
            if n % 3 == 0 {
                complete(&store, &terms).await;
            } else {
                open.push(terms.id);
            }
        }
        // A dispute with nothing left to deliver waits for an operator, not for recovery. It is listed as any other.
        let disputed = begin_quoted(&store, "apple-pay", 100).await;
        let dispute = [
            made::begun(&disputed),
            made::committed(disputed.begin_ms),
            made::disputed(disputed.begin_ms),
        ];
        store.append(made::append(disputed.id, &dispute, 2)).await.unwrap();
        let query = ListQuery {
            states: vec!["DISPUTED"],
            limit: 10,
            ..Default::default()
        };
        for concerns in [None, Some(made::partner("apple-pay"))] {
            let listed = store
                .list(ListQuery {
                    concerns,
                    ..query.clone()
                })
                .await
                .unwrap();
            assert_eq!(
                listed.iter().map(|listed| listed.position.id).collect::<Vec<_>>(),
                [disputed.id]
            );
        }
        let mut found = Vec::new();
        loop {
            let page = store.unfinished(found.last().copied(), 7).await.unwrap();
            assert!(page.len() <= 7);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        open.sort_by_key(|id| (id.bucket(), *id));
        assert_eq!(found, open);
    })
    .await;
}

#[tokio::test]
async fn lists_are_newest_first_complete_and_of_one_partner() {
    check(async |store, _, _| {
        let mut payments = Vec::new();
        for n in 0..25 {
            let initiator = ["apple-pay", "alipay", "paypal"][n as usize % 3];
            let terms = begin_quoted(&store, initiator, n).await;
            if n % 2 == 0 {
                complete(&store, &terms).await;
            }
            payments.push(terms);
        }
        let listed = async |query: ListQuery| {
            let mut ids = Vec::new();
            let mut after = None;
            loop {
                let page = store
                    .list(ListQuery {
                        after,
                        limit: 4,
                        ..query.clone()
                    })
                    .await
                    .unwrap();
                let Some(last) = page.last() else { return ids };
                after = Some(last.position);
                for listed in &page {
                    let history = listed.history.as_ref().unwrap();
                    assert_eq!(history.id, listed.position.id);
                    ids.push(history.id);
                }
            }
        };
        let wanted = |test: &dyn Fn(u64, &Terms) -> bool| -> Vec<PaymentId> {
            let mut wanted: Vec<_> = payments
                .iter()
                .enumerate()
                .filter(|(n, terms)| test(*n as u64, terms))
                .map(|(_, t)| t)
                .collect();
            wanted.sort_by_key(|terms| std::cmp::Reverse((terms.begin_ms, terms.id)));
            wanted.iter().map(|terms| terms.id).collect()
        };
        for name in ["apple-pay", "alipay", "paypal"] {
            let partner = made::partner(name);
            let concerns = Some(partner.clone());
            let all = listed(ListQuery {
                concerns: concerns.clone(),
                ..Default::default()
            })
            .await;
            assert_eq!(all, wanted(&|_, terms| terms.concerns(&partner)));
            assert!(!all.is_empty());
            let done = ListQuery {
                concerns: concerns.clone(),
                states: vec!["COMPLETED"],
                ..Default::default()
            };
            assert_eq!(
                listed(done).await,
                wanted(&|n, terms| terms.concerns(&partner) && n % 2 == 0)
            );
            let (from, before) = (made::BEGIN_MS + 5, made::BEGIN_MS + 15);
            let between = ListQuery {
                concerns,
                begin_from_ms: Some(from),
                begin_before_ms: Some(before),
                ..Default::default()
            };
            assert_eq!(
                listed(between).await,
                wanted(&|_, terms| terms.concerns(&partner) && (from..before).contains(&terms.begin_ms))
            );
        }
        assert_eq!(
            listed(ListQuery::default()).await,
            wanted(&|_, _| true),
            "without a partner, all"
        );
        let one = ListQuery {
            concerns: Some(made::partner("apple-pay")),
            request_id: Some(payments[3].order.request_id.clone()),
            ..Default::default()
        };
        assert_eq!(listed(one).await, [payments[3].id]);
    })
    .await;
}

#[tokio::test]
async fn free_quotes_are_forgotten_and_taken_ones_are_not() {
    check(async |store, _, _| {
        let terms = begin_quoted(&store, "apple-pay", 1).await;
        store.put_quote(made::quote(2)).await.unwrap();
        let expire_ms = made::quote(2).expire_ms;
        assert_eq!(
            store.forget_quotes(expire_ms).await.unwrap(),
            0,
            "not lapsed before its expiry"
        );
        assert_eq!(store.forget_quotes(expire_ms + 1).await.unwrap(), 1);
        assert!(store.quote(made::quote_id(2)).await.unwrap().is_none());
        assert_eq!(
            store.quote(made::quote_id(1)).await.unwrap().unwrap().taken_by,
            Some(terms.id)
        );
    })
    .await;
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing() {
    check(async |store, _, _| {
        let payments = 300;
        let tasks: Vec<_> = (0..payments)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let terms = begin_quoted(&store, "apple-pay", n).await;
                    complete(&store, &terms).await;
                    terms.id
                })
            })
            .collect();
        for task in tasks {
            let id = task.await.unwrap();
            let State::Present(transaction) = made::state(&store.payment(id).await.unwrap().unwrap().records) else {
                panic!("absent")
            };
            assert!(matches!(transaction.phase, Phase::Completed { .. }));
        }
        assert_eq!(all_changes(&store).await.len() as u64, 3 * payments);
        assert!(store.unfinished(None, 10).await.unwrap().is_empty());
    })
    .await;
}
