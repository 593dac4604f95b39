//! The auditor against histories that were tampered with: it has to see each, and name the promise.

use crate::{
    audit::audit,
    faults::Rates,
    history::{Act, Command, Event, History, How, Network},
    rates::RateBook,
    world::{Plan, World},
};
use causeway::pb::gateway::v1::payment::{Pricing, State};

/// A world without faults in which payments complete and abort.
fn calm() -> std::sync::Arc<World> {
    let mut plan = Plan::draw(4, 40);
    plan.rates = Rates::none();
    plan.rogue = None;
    plan.shared_store = true;
    let world = World::new(plan);
    world.run();
    world
}

/// The place of the first line that fits.
fn find(history: &History, fits: impl Fn(&Event) -> bool) -> usize {
    let place = history.lines.iter().position(|line| fits(&line.event));
    place.expect("the calm history has one")
}

fn moved(event: &Event) -> bool {
    matches!(event, Event::Wallet { act: Act::Moved(_), .. })
}

fn durable(event: &Event, name: &str) -> bool {
    matches!(event, Event::Durable { record, .. } if *record == name)
}

/// Takes the line out and puts it in again behind the last one.
fn to_the_end(history: &mut History, place: usize) {
    let line = history.lines.remove(place);
    history.lines.push(line);
}

fn repeat(history: &mut History, place: usize) {
    let (at_us, event) = (history.lines[place].at_us, history.lines[place].event.clone());
    history.insert(place + 1, at_us, event);
}

#[test]
fn a_calm_history_keeps_every_promise() {
    let world = calm();
    let tally = audit(&world.history(), 2, RateBook::new(world.publication.all())).expect("it is calm");
    assert!(tally.outcomes["completed"] > 10, "{tally:?}");
    assert!(
        tally.outcomes.keys().any(|outcome| outcome.starts_with("aborted")),
        "{tally:?}"
    );
    assert!(tally.changes_watched > 100 && tally.quotes > 10, "{tally:?}");
}

type Tamper = fn(&mut History);

/// What is done to the history, and the promise that is broken then.
const TAMPERED: &[(&str, u8, Tamper)] = &[
    ("a branch moves twice", 5, |history| {
        let place = find(history, moved);
        repeat(history, place);
    }),
    ("money moves before the decision is on disk", 1, |history| {
        let place = find(history, |event| durable(event, "commit decided"));
        let payment = history.lines[place].event.payment();
        let first_move = find(history, |event| moved(event) && event.payment() == payment);
        let line = history.lines.remove(first_move);
        history.lines.insert(place, line);
    }),
    ("a hold is let go though commit is decided", 1, |history| {
        let place = find(history, moved);
        if let Event::Wallet { act, .. } = &mut history.lines[place].event {
            *act = Act::Released;
        }
    }),
    ("commit without a yes", 2, |history| {
        let place = find(history, |event| {
            matches!(
                event,
                Event::Wallet {
                    act: Act::Prepared(_),
                    ..
                }
            )
        });
        history.lines.remove(place);
    }),
    ("a second decision", 2, |history| {
        let place = find(history, |event| durable(event, "commit decided"));
        repeat(history, place);
        if let Event::Durable { version, record, .. } = &mut history.lines[place + 1].event {
            *version += 1;
            *record = "abort decided";
        }
    }),
    ("a Commit leaves before the decision is on disk", 3, |history| {
        let place = find(history, |event| durable(event, "commit decided"));
        let payment = history.lines[place].event.payment();
        let left = find(history, |event| {
            matches!(
                event,
                Event::Left {
                    command: Command::Commit,
                    ..
                }
            ) && event.payment() == payment
        });
        let line = history.lines.remove(left);
        history.lines.insert(place, line);
    }),
    ("a Prepare leaves before the payment is on disk", 3, |history| {
        let place = find(history, |event| durable(event, "begun"));
        let left = find(history, |event| {
            matches!(
                event,
                Event::Left {
                    command: Command::Prepare,
                    ..
                }
            )
        });
        let line = history.lines.remove(left);
        history.lines.insert(place, line);
    }),
    ("a payment never ends", 4, |history| {
        // Without its end, its list and its watchers neither: those are other promises.
        let place = find(history, |event| durable(event, "ended"));
        let payment = history.lines[place].event.payment();
        history.lines.retain(|line| {
            let event = &line.event;
            let ended = durable(event, "ended") || matches!(event, Event::Watched { state: 3 | 5, .. });
            event.payment() != payment || !ended
        });
    }),
    ("two payments for one request", 5, |history| {
        let first = find(history, |event| durable(event, "begun"));
        let Event::Durable { facts, .. } = history.lines[first].event.clone() else {
            unreachable!()
        };
        let other = history
            .lines
            .iter()
            .enumerate()
            .skip(first + 1)
            .find_map(|(place, line)| match &line.event {
                Event::Durable {
                    record: "begun",
                    facts: other,
                    ..
                } if other.initiator == facts.initiator => Some(place),
                _ => None,
            });
        if let Event::Durable { facts: other, .. } = &mut history.lines[other.expect("there are many")].event {
            other.request_id = facts.request_id;
        }
    }),
    ("a retry is answered with another's payment", 5, |history| {
        let told = |event: &Event| matches!(event, Event::Told { request: Some(_), .. });
        let first = find(history, told);
        let payment = history.lines[first].event.payment();
        let Event::Told { caller: asker, .. } = history.lines[first].event else {
            unreachable!()
        };
        let place = find(history, |event| {
            told(event) && event.payment() != payment && matches!(event, Event::Told { caller, .. } if *caller == asker)
        });
        let wanted = payment.expect("it has one");
        if let Event::Told { payment, message, .. } = &mut history.lines[place].event {
            *payment = wanted;
            message.state = State::Preparing.into();
        }
    }),
    ("an abort for a reason that nobody gave", 7, |history| {
        let place = find(history, |event| durable(event, "abort decided"));
        if let Event::Durable { facts, .. } = &mut history.lines[place].event {
            facts.reason = if facts.reason == "ACCOUNT_CLOSED" {
                "INSUFFICIENT_FUNDS"
            } else {
                "ACCOUNT_CLOSED"
            }
            .into();
        }
    }),
    ("a dispute that nobody caused", 7, |history| {
        let place = find(history, |event| durable(event, "ended"));
        if let Event::Durable { record, facts, .. } = &mut history.lines[place].event {
            (*record, facts.phase) = ("disputed", "DISPUTED");
        }
    }),
    ("a cent more is told than moved", 8, |history| {
        let place = find(history, moved);
        if let Event::Wallet {
            act: Act::Moved(money), ..
        } = &mut history.lines[place].event
        {
            money.minor -= 1;
        }
    }),
    ("money out of nothing", 8, |history| {
        let place = find(history, |event| matches!(event, Event::Counted { .. }));
        if let Event::Counted { sum, .. } = &mut history.lines[place].event {
            *sum = 1;
        }
    }),
    ("another rate than was quoted", 9, |history| {
        // Exact in itself, but another payment's.
        let quoted = |event: &Event| match event {
            Event::Told {
                how: How::Create,
                message,
                ..
            } => match message.pricing {
                Some(Pricing::Quote(_)) => message.conversion.clone(),
                _ => None,
            },
            _ => None,
        };
        let place = find(history, |event| quoted(event).is_some());
        let own = quoted(&history.lines[place].event);
        let other = history
            .lines
            .iter()
            .find_map(|line| quoted(&line.event).filter(|other| Some(other) != own.as_ref()));
        if let Event::Told { message, .. } = &mut history.lines[place].event {
            message.conversion = Some(other.expect("there are many"));
        }
    }),
    ("a rate that was never published", 9, |history| {
        let place = find(history, |event| matches!(event, Event::Quoted { .. }));
        let Event::Quoted { quote, .. } = &mut history.lines[place].event else {
            unreachable!()
        };
        let corridor = quote.corridor.as_mut().expect("it has one");
        corridor.source_currency = "GBP".into();
    }),
    ("a Prepare after the time to decide", 9, |history| {
        let place = find(history, |event| {
            matches!(
                event,
                Event::Left {
                    command: Command::Prepare,
                    ..
                }
            )
        });
        if let Event::Left {
            clock_ms, decide_by_ms, ..
        } = &mut history.lines[place].event
        {
            *clock_ms = *decide_by_ms + 1;
        }
    }),
    ("a watcher misses a change", 11, |history| {
        let place = find(history, |event| {
            matches!(event, Event::Watched { payment: Some(_), .. })
        });
        history.lines.remove(place);
    }),
    ("a watcher sees a change twice", 11, |history| {
        let place = find(history, |event| {
            matches!(event, Event::Watched { payment: Some(_), .. })
        });
        repeat(history, place);
    }),
    ("a watcher sees changes out of order", 11, |history| {
        let place = find(history, |event| {
            matches!(
                event,
                Event::Watched {
                    payment: Some(_),
                    caller: Network(0),
                    ..
                }
            )
        });
        to_the_end(history, place);
    }),
    ("a stranger sees a payment", 12, |history| {
        let place = find(history, |event| durable(event, "begun"));
        let payment = history.lines[place].event.payment().expect("it has one");
        history.push(
            0,
            Event::Foreign {
                caller: Network(0),
                payment,
                shown: true,
            },
        );
    }),
    ("an answer leaves before its payment is on disk", 13, |history| {
        let begun = find(history, |event| durable(event, "begun"));
        let payment = history.lines[begun].event.payment();
        let answered = find(history, |event| {
            matches!(event, Event::Answered { .. }) && event.payment() == payment
        });
        let line = history.lines.remove(answered);
        history.lines.insert(begun, line);
    }),
    ("a quote is told that is not on disk", 13, |history| {
        let place = find(history, |event| matches!(event, Event::DurableQuote { .. }));
        history.lines.remove(place);
    }),
    ("a payment that is there is said not to be", 13, |history| {
        let place = find(history, |event| durable(event, "begun"));
        let payment = history.lines[place].event.payment().expect("it has one");
        history.push(
            0,
            Event::Missing {
                caller: Network(0),
                payment,
            },
        );
    }),
    ("a payment is left out of a list", 13, |history| {
        let place = find(history, |event| matches!(event, Event::Told { how: How::List, .. }));
        history.lines.remove(place);
    }),
    ("a retry is refused for its quote", 5, |history| {
        let told = |event: &Event| matches!(event, Event::Told { request: Some(_), .. });
        let place = find(history, told);
        let Event::Told {
            caller,
            request: Some(request),
            ..
        } = history.lines[place].event
        else {
            unreachable!()
        };
        let order = history.lines.iter().find_map(|line| match &line.event {
            Event::Asked {
                caller: by,
                request: which,
                order,
            } if (*by, *which) == (caller, request) => Some(order.clone()),
            _ => None,
        });
        let order = order.expect("it was asked for");
        let ask = history.push(0, Event::Asked { caller, request, order });
        let (reason, fields) = ("QUOTE_EXPIRED".into(), String::new());
        history.push(
            0,
            Event::Refused {
                ask,
                caller,
                request,
                reason,
                fields,
            },
        );
    }),
    ("a payment is cancelled that nobody wanted cancelled", 7, |history| {
        let place = find(history, |event| durable(event, "abort decided"));
        if let Event::Durable { facts, .. } = &mut history.lines[place].event {
            facts.reason = "CANCELLED".into();
        }
    }),
    ("a hold on other terms than before", 5, |history| {
        let place = find(history, |event| {
            matches!(
                event,
                Event::Wallet {
                    act: Act::Prepared(_),
                    ..
                }
            )
        });
        repeat(history, place);
        if let Event::Wallet { act, .. } = &mut history.lines[place + 1].event {
            *act = Act::OtherTerms;
        }
    }),
    ("a gateway drives a payment for ever", 4, |history| {
        history.push(0, Event::StillDriving { gateway: 0, count: 1 });
    }),
];

#[test]
fn each_broken_promise_is_seen_and_named() {
    for (what, promise, tamper) in TAMPERED {
        let world = calm();
        let mut history = world.history();
        tamper(&mut history);
        let verdict = audit(&history, 2, RateBook::new(world.publication.all()));
        match verdict {
            Err(broken) => assert_eq!(broken.promise, *promise, "{what}: {broken:?}"),
            Ok(_) => panic!("{what}: nobody noticed"),
        }
    }
}
