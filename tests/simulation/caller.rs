//! Callers: partners' servers that ask for payments, and do with a gateway what real ones do: retry, alter, send twice, give
//! up, cancel, come back a day later. Each writes down what it asked and what it was told.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use causeway::{
    api::Api,
    payment::{PartnerName, PaymentId, RequestId},
    pb::{
        gateway::v1::{
            self as pb, payment::State, payment_service_server::PaymentService, quote_service_server::QuoteService,
        },
        money::v1::Money,
    },
};
use futures_util::future::join;
use tonic::Status;
use tonic_types::StatusExt;

use crate::{
    cast::{self, CORRIDORS, NETWORKS},
    faults::Fault,
    history::{Event, How, Network, Order, Request},
    random::Random,
    world::{NOWHERE, Shared, request},
};

/// Tries of one call before a caller lets it be for now.
const ATTEMPTS_MAX: u64 = 5;
/// Tries when all is well again. Each has its own time.
const ATTEMPTS_HEALED_MAX: u64 = 30;

/// All callers of a world.
pub struct Callers {
    world: Shared,
    diaries: Arc<Mutex<Vec<Diary>>>,
    under_way: Arc<Mutex<u64>>,
}

/// When somebody comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    Healed,
    NextDay,
}

/// What one caller knows of one of its requests.
#[derive(Clone)]
struct Diary {
    caller: Network,
    number: u32,
    order: Order,
    name: String,
}

/// Starts callers, spread over the window.
pub fn start_all(world: &Shared) -> Callers {
    let callers = Callers {
        world: Arc::clone(world),
        diaries: Arc::default(),
        under_way: Arc::new(Mutex::new(world.plan.payments)),
    };
    let mut random = Random::new(world.plan.seed ^ 0xca11);
    // Each partner counts its own: two of them send the same request_id every day.
    let mut asked = [0; NETWORKS.len()];
    for _ in 0..world.plan.payments {
        let at_us = random.below(world.plan.window_ms * 1_000);
        let mut caller = Caller::new(world, random.fork());
        caller.number = asked[caller.network.0];
        asked[caller.network.0] += 1;
        let (world, diaries) = (Arc::clone(world), Arc::clone(&callers.diaries));
        let under_way = Arc::clone(&callers.under_way);
        let office = world.offices[caller.network.0];
        world.clone().spawn(office, async move {
            world.executor.sleep_us(at_us).await;
            let diary = caller.live().await;
            diaries.lock().unwrap().push(diary);
            *under_way.lock().unwrap() -= 1;
        });
    }
    callers
}

impl Callers {
    /// Waits until every caller has done what it does while things go wrong.
    pub async fn asked(&self) {
        while *self.under_way.lock().unwrap() > 0 {
            self.world.sleep_ms(200).await;
        }
    }

    /// Everybody retries with the body that it sent first.
    pub async fn come_back(&self, when: Return) {
        let diaries = self.diaries.lock().unwrap().clone();
        let how = match when {
            Return::Healed => How::Create,
            Return::NextDay => How::NextDay,
        };
        if when == Return::NextDay {
            self.world
                .happened(Fault::CallerNextDay, format!("{} callers", diaries.len()));
        }
        self.all(diaries, move |world, diary| {
            Box::pin(async move {
                let caller = Caller::again(&world, &diary);
                let mut last = None;
                for attempt in 0..ATTEMPTS_HEALED_MAX {
                    let answered = caller.create(0, &diary.order, None, 60_000_000, how).await;
                    if answered.as_ref().is_some_and(Answered::is_definite) {
                        return;
                    }
                    last = answered;
                    world.sleep_ms(500 << attempt.min(6)).await;
                }
                world.log(Event::NoAnswer {
                    caller: caller.network,
                    request: caller.request(0),
                    last: format!("{last:?}"),
                });
            })
        })
        .await;
    }

    /// The last word on every payment, asked for one by one and as lists.
    pub async fn look_at_everything(&self) {
        let diaries = self.diaries.lock().unwrap().clone();
        self.all(diaries, |world, diary| {
            Box::pin(async move {
                let caller = Caller::again(&world, &diary);
                caller.get(&diary.name, How::Final).await;
            })
        })
        .await;
        for network in 0..NETWORKS.len() {
            list_all(&self.world, Network(network)).await;
        }
    }

    /// Does something for each diary, a few at a time, in virtual time that takes as long as it takes.
    async fn all(&self, diaries: Vec<Diary>, each: impl Fn(Shared, Diary) -> Pin<Box<dyn Future<Output = ()> + Send>>) {
        let left = Arc::new(Mutex::new(diaries.len()));
        for diary in diaries {
            let (world, left) = (Arc::clone(&self.world), Arc::clone(&left));
            let wait_us = world.executor.draw(2_000_000);
            let doing = each(Arc::clone(&world), diary);
            self.world.spawn(NOWHERE, async move {
                world.executor.sleep_us(wait_us).await;
                doing.await;
                *left.lock().unwrap() -= 1;
            });
        }
        while *left.lock().unwrap() > 0 {
            self.world.sleep_ms(100).await;
        }
    }
}

/// What came back.
#[derive(Debug)]
enum Answered {
    Payment(State),
    Refused(String),
}

impl Answered {
    /// Whether there is no use in asking again.
    fn is_definite(&self) -> bool {
        match self {
            Self::Payment(state) => matches!(state, State::Completed | State::Aborted | State::Disputed),
            Self::Refused(reason) => !RETRYABLE.contains(&reason.as_str()),
        }
    }
}

/// Reasons for which a later try may fare better. The empty one is an error without a reason: nobody knows.
const RETRYABLE: [&str; 5] = [
    "",
    "STORE_UNAVAILABLE",
    "STORE_FAILED",
    "RATE_SOURCE_UNAVAILABLE",
    "GATEWAY_DRAINING",
];

struct Caller {
    world: Shared,
    network: Network,
    number: u32,
    random: Mutex<Random>,
    corridor: (&'static str, &'static str),
}

impl Caller {
    fn new(world: &Shared, mut random: Random) -> Self {
        let (from, to, initiator) = *random.pick(&CORRIDORS);
        let network = NETWORKS
            .iter()
            .position(|(name, _)| *name == initiator)
            .expect("it is one of them");
        Self {
            world: Arc::clone(world),
            network: Network(network),
            number: 0,
            random: Mutex::new(random),
            corridor: (from, to),
        }
    }

    fn again(world: &Shared, diary: &Diary) -> Self {
        Self {
            world: Arc::clone(world),
            network: diary.caller,
            number: diary.number,
            random: Mutex::new(Random::new(u64::from(diary.number))),
            corridor: ("", ""),
        }
    }

    fn draw(&self, limit: u64) -> u64 {
        self.random.lock().unwrap().below(limit)
    }

    /// The caller's doings while things go wrong.
    async fn live(self) -> Diary {
        let order = self.order().await;
        let initiator = PartnerName::parse(NETWORKS[self.network.0].0).expect("the names are right");
        let request_id = RequestId::parse(&self.request(0).id()).expect("the ids are right");
        let diary = Diary {
            caller: self.network,
            number: self.number,
            name: PaymentId::derive(&initiator, &request_id).to_string(),
            order: order.clone(),
        };
        let aside = self.world.fires(Fault::CallerCancelled, || diary.name.clone());
        if aside {
            self.cancel_later(&diary.name);
        }
        let doubled = self.world.fires(Fault::CallerDoubled, || diary.name.clone());
        match doubled {
            true => drop(join(self.ask(&order, true), self.ask(&order, false)).await),
            false => self.ask(&order, true).await,
        }
        if self.world.fires(Fault::CallerForeign, || diary.name.clone()) {
            self.spy(&diary).await;
        }
        diary
    }

    /// Asks for the payment until there is a definite answer, or patience ends.
    async fn ask(&self, order: &Order, may_alter: bool) {
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                self.world.happened(Fault::CallerRetried, String::new());
            }
            if may_alter && self.world.fires(Fault::CallerAltered, || self.request(1).id()) {
                let altered = self.alter(order);
                // Each a body of its own: two that were altered differ from each other too.
                self.create(1 + attempt as u8, &altered, None, 20_000_000, How::Create)
                    .await;
            }
            let gives_up = self.world.fires(Fault::CallerGaveUp, || self.request(0).id());
            let patience_us = match gives_up {
                true => self.draw(400_000),
                false => 1_000_000 + self.draw(30_000_000),
            };
            let deadline = (self.draw(5) == 0).then(|| Duration::from_millis(500 + self.draw(6_000)));
            let answered = self.create(0, order, deadline, patience_us, How::Create).await;
            if answered.is_some_and(|answer| answer.is_definite()) {
                return;
            }
            self.world.sleep_ms(50 + self.draw(3_000)).await;
        }
    }

    fn request(&self, body: u8) -> Request {
        Request {
            number: self.number,
            body,
        }
    }

    /// What to ask for: from a quote, if one is to be had, or at the market.
    async fn order(&self) -> Order {
        let party = |place: &'static str, account: String| {
            let (name, _) = place.split_once('/').expect("a corridor's end");
            let network = NETWORKS
                .iter()
                .position(|(own, _)| *own == name)
                .expect("it is one of them");
            (Network(network), account)
        };
        let currency = |place: &'static str| place.split_once('/').expect("a corridor's end").1;
        let (from, to) = self.corridor;
        let mut order = {
            let mut random = self.random.lock().unwrap();
            let fixed_send = random.below(2) == 0;
            let fixed = if fixed_send { currency(from) } else { currency(to) };
            let large = random.below(4) == 0 && !from.ends_with("USD");
            let minor = match large {
                true => random.between(20_000_000, 3_000_000_000),
                false => random.spread(50, 400_000),
            };
            Order {
                payer: party(from, cast::account(&mut random)),
                payee: party(to, cast::account(&mut random)),
                source: currency(from),
                target: currency(to),
                fixed_send,
                amount: decimal(fixed, minor),
                quote: None,
                worst_rate: Some(if random.below(20) == 0 { "500000" } else { "0.000001" }.into()),
            }
        };
        if self.draw(5) < 3 {
            for _ in 0..3 {
                if let Some(quote) = self.quote(&order).await {
                    order.quote = Some(quote);
                    order.worst_rate = None;
                    break;
                }
            }
        }
        if order.quote.is_some() {
            let late = self.world.fires(Fault::CallerLateQuote, String::new);
            let think_ms = match late {
                true => self.world.plan.timings.quote_ttl_ms + self.draw(500),
                false => self.draw(1_500),
            };
            self.world.sleep_ms(think_ms).await;
        }
        order
    }

    async fn quote(&self, order: &Order) -> Option<String> {
        let message = pb::CreateQuoteRequest {
            quote: Some(pb::Quote {
                corridor: Some(pb::Corridor {
                    source_partner: partner(order.payer.0),
                    source_currency: order.source.into(),
                    target_partner: partner(order.payee.0),
                    target_currency: order.target.into(),
                }),
                fixed_side: side(order).into(),
                amount: Some(money(order)),
                payer_account: if self.draw(2) == 0 {
                    order.payer.1.clone()
                } else {
                    String::new()
                },
                ..pb::Quote::default()
            }),
        };
        let principal = cast::principal(self.network.0);
        let quote = self
            .call(10_000_000, move |api| {
                Box::pin(async move { api.create_quote(request(&principal, message, None)).await })
            })
            .await?
            .ok()?
            .into_inner();
        let name = quote.name.clone();
        self.world.log(Event::Quoted {
            caller: self.network,
            quote: Box::new(quote),
        });
        Some(name)
    }

    /// One CreatePayment; `None` if nothing came back in time.
    async fn create(
        &self,
        body: u8,
        order: &Order,
        deadline: Option<Duration>,
        patience_us: u64,
        how: How,
    ) -> Option<Answered> {
        let which = self.request(body);
        let ask = self.world.log(Event::Asked {
            caller: self.network,
            request: which,
            order: Box::new(order.clone()),
        });
        let message = pb::CreatePaymentRequest {
            payment: Some(Box::new(payment(order))),
            request_id: which.id(),
            validate_only: false,
            answer_at: if self.draw(4) == 0 {
                pb::AnswerAt::Decision
            } else {
                pb::AnswerAt::End
            }
            .into(),
        };
        let principal = cast::principal(self.network.0);
        let gateway = self.gateway();
        let world = Arc::clone(&self.world);
        let make = move |api: Api| -> Pin<Box<dyn Future<Output = Result<_, Status>> + Send>> {
            Box::pin(async move {
                let response = api.create_payment(request(&principal, message, deadline)).await?;
                answered(&world, gateway, response.get_ref());
                Ok(response)
            })
        };
        let call = self.world.call(self.world.offices[self.network.0], gateway, make);
        let result = tokio::select! {
            biased;
            result = call => result,
            () = self.world.executor.sleep_us(patience_us) => return None,
        };
        Some(match result {
            Ok(response) => self.told(Some(which), response.into_inner(), how),
            Err(status) => {
                let info = status.get_details_error_info();
                let reason = info.as_ref().map(|info| info.reason.clone()).unwrap_or_default();
                let fields = info
                    .and_then(|info| info.metadata.get("fields").cloned())
                    .unwrap_or_default();
                self.world.log(Event::Refused {
                    ask,
                    caller: self.network,
                    request: which,
                    reason: reason.clone(),
                    fields,
                });
                Answered::Refused(reason)
            }
        })
    }

    fn told(&self, which: Option<Request>, message: pb::Payment, how: How) -> Answered {
        let (payment, state) = (self.world.payment(&message.name), message.state());
        self.world.log(Event::Told {
            caller: self.network,
            request: which,
            payment,
            message: Box::new(message),
            how,
        });
        Answered::Payment(state)
    }

    async fn get(&self, name: &str, how: How) {
        let principal = cast::principal(self.network.0);
        for _ in 0..ATTEMPTS_HEALED_MAX {
            let (principal, message) = (principal.clone(), pb::GetPaymentRequest { name: name.to_owned() });
            let got = self
                .call(30_000_000, move |api| {
                    Box::pin(async move { api.get_payment(request(&principal, message, None)).await })
                })
                .await;
            match got {
                Some(Ok(response)) => {
                    self.told(None, response.into_inner(), how);
                    return;
                }
                Some(Err(status)) if status.code() == tonic::Code::NotFound => {
                    let payment = self.world.payment(name);
                    self.world.log(Event::Missing {
                        caller: self.network,
                        payment,
                    });
                    return;
                }
                Some(Err(_)) | None => self.world.sleep_ms(500).await,
            }
        }
    }

    fn cancel_later(&self, name: &str) {
        let wait_us = self.draw(3_000_000);
        let principal = cast::principal(self.network.0);
        let (world, network, gateway) = (Arc::clone(&self.world), self.network, self.gateway());
        let message = pb::CancelPaymentRequest { name: name.to_owned() };
        self.world.spawn(self.world.offices[network.0], async move {
            world.executor.sleep_us(wait_us).await;
            let payment = world.payment(&message.name);
            world.log(Event::CancelAsked { payment });
            let inner = Arc::clone(&world);
            let call = world.call(world.offices[network.0], gateway, move |api| {
                Box::pin(async move {
                    let response = api.cancel_payment(request(&principal, message, None)).await?;
                    answered(&inner, gateway, response.get_ref());
                    Ok(response)
                })
            });
            let result = tokio::select! {
                biased;
                result = call => result,
                () = world.executor.sleep_us(20_000_000) => return,
            };
            if let Ok(response) = result {
                let message = response.into_inner();
                let payment = world.payment(&message.name);
                world.log(Event::Told {
                    caller: network,
                    request: None,
                    payment,
                    message: Box::new(message),
                    how: How::Cancel,
                });
            }
        });
    }

    /// Somebody who has no part in the payment asks for it.
    async fn spy(&self, diary: &Diary) {
        let parts = [diary.order.payer.0, diary.order.payee.0, diary.caller];
        let Some(stranger) = (0..NETWORKS.len())
            .map(Network)
            .find(|network| !parts.contains(network))
        else {
            return;
        };
        let principal = cast::principal(stranger.0);
        let message = pb::GetPaymentRequest {
            name: diary.name.clone(),
        };
        let got = self
            .call(10_000_000, move |api| {
                Box::pin(async move { api.get_payment(request(&principal, message, None)).await })
            })
            .await;
        if let Some(result) = got {
            let payment = self.world.payment(&diary.name);
            self.world.log(Event::Foreign {
                caller: stranger,
                payment,
                shown: result.is_ok(),
            });
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        patience_us: u64,
        make: impl FnOnce(Api) -> Pin<Box<dyn Future<Output = Result<T, Status>> + Send>> + Send + 'static,
    ) -> Option<Result<T, Status>> {
        let call = self
            .world
            .call(self.world.offices[self.network.0], self.gateway(), make);
        tokio::select! {
            biased;
            result = call => Some(result),
            () = self.world.executor.sleep_us(patience_us) => None,
        }
    }

    fn gateway(&self) -> usize {
        self.world.executor.draw(self.world.gateways.len() as u64) as usize
    }

    /// Another body under the same request_id.
    fn alter(&self, order: &Order) -> Order {
        let mut altered = order.clone();
        let which = 1 + self.draw(7);
        if which & 1 > 0 {
            altered.payer.1 = "somebody-else".into();
        }
        if which & 2 > 0 {
            altered.payee.1 = "somebody-else".into();
        }
        if which & 4 > 0 {
            match &mut altered.quote {
                Some(quote) => *quote = "quotes/00000000-0000-4000-8000-000000000000".into(),
                None => {
                    let fixed = if order.fixed_send { order.source } else { order.target };
                    altered.amount = decimal(fixed, crate::wallet::minor(fixed, &order.amount) + 1);
                }
            }
        }
        altered
    }
}

fn answered(world: &Shared, gateway: usize, message: &pb::Payment) {
    let payment = world.payment(&message.name);
    world.log(Event::Answered {
        gateway,
        payment,
        state: message.state,
    });
}

async fn list_all(world: &Shared, network: Network) {
    let principal = cast::principal(network.0);
    let mut page_token = String::new();
    loop {
        let gateway = world.executor.draw(world.gateways.len() as u64) as usize;
        let (principal, token) = (principal.clone(), page_token.clone());
        let call = world.call(world.offices[network.0], gateway, move |api| {
            Box::pin(async move {
                let message = pb::ListPaymentsRequest {
                    page_size: 100,
                    page_token: token,
                    filter: String::new(),
                };
                api.list_payments(request(&principal, message, None)).await
            })
        });
        let listed = tokio::select! {
            biased;
            listed = call => listed,
            () = world.executor.sleep_us(10_000_000) => continue,
        };
        let Ok(listed) = listed else {
            world.sleep_ms(500).await;
            continue;
        };
        let listed = listed.into_inner();
        for message in listed.payments {
            let payment = world.payment(&message.name);
            world.log(Event::Told {
                caller: network,
                request: None,
                payment,
                message: Box::new(message),
                how: How::List,
            });
        }
        page_token = listed.next_page_token;
        if page_token.is_empty() {
            return;
        }
    }
}

pub fn partner(network: Network) -> String {
    format!("partners/{}", NETWORKS[network.0].0)
}

fn side(order: &Order) -> pb::FixedSide {
    if order.fixed_send {
        pb::FixedSide::Send
    } else {
        pb::FixedSide::Receive
    }
}

fn money(order: &Order) -> Money {
    Money {
        currency: if order.fixed_send { order.source } else { order.target }.into(),
        amount: order.amount.clone(),
    }
}

fn payment(order: &Order) -> pb::Payment {
    let party = |(network, account): &(Network, String)| {
        Some(pb::Party {
            partner: partner(*network),
            account: account.clone(),
        })
    };
    let pricing = match (&order.quote, &order.worst_rate) {
        (Some(quote), _) => pb::payment::Pricing::Quote(quote.clone()),
        (None, worst_rate) => pb::payment::Pricing::Market(pb::payment::MarketOrder {
            fixed_side: side(order).into(),
            amount: Some(money(order)),
            worst_rate: worst_rate.clone().unwrap_or_default(),
            source_currency: order.source.into(),
            target_currency: order.target.into(),
        }),
    };
    pb::Payment {
        payer: party(&order.payer),
        payee: party(&order.payee),
        pricing: Some(pricing),
        ..pb::Payment::default()
    }
}

/// Minor units as a decimal string.
pub fn decimal(currency: &str, minor: u64) -> String {
    let decimals = cast::decimals(currency);
    match 10u64.pow(decimals) {
        1 => minor.to_string(),
        unit => format!("{}.{:0width$}", minor / unit, minor % unit, width = decimals as usize),
    }
}
