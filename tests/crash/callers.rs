//! Callers: shops and wallets that order payments and will not be put off, each in a way of its own.
//!
//! A caller writes every order down before it asks and everything that it is told after. It judges nothing: an order is
//! settled for it by the gateway's definite word alone, and until then it asks again with the same body.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use causeway::pb::gateway::v1::{
    AnswerAt, CancelPaymentRequest, Conversion, Corridor as CorridorMessage, CreatePaymentRequest, CreateQuoteRequest,
    FixedSide, GetPaymentRequest, ListPaymentsRequest, Payment, Quote,
    payment::{MarketOrder, Pricing},
    payment_service_client::PaymentServiceClient,
    quote_service_client::QuoteServiceClient,
};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    cast::{CORRIDORS, Corridor},
    dice::Dice,
    evidence::{Answer, Key, Question, Told},
    history::{History, count, is_definite, now_ms},
    requests::{money, partner, party},
    wire::Refusal,
};

/// How long a caller waits for one answer before it takes it for lost.
const PATIENCE_MS: Range<u64> = 600..5_000;
/// The wait before it asks again.
const AGAIN_MS: Range<u64> = 20..250;
/// How long it goes on with one order; then it leaves it, and comes back in the end.
const INSISTS: Duration = Duration::from_secs(20);

/// How one deals with an order.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Asks until it knows.
    Plain,
    /// First with a short deadline and for the decision alone, then as plain.
    Hasty,
    /// Two at once with the same order.
    Twins,
    /// Asks once and goes away, and comes back in the end.
    Deserter,
    /// Cancels what it has just ordered.
    Canceller,
    /// Uses the request_id again for another body.
    Forger,
    /// Two orders on one quote.
    Grabber,
}

const MANNERS: [Manner; 12] = [
    Manner::Plain,
    Manner::Plain,
    Manner::Plain,
    Manner::Plain,
    Manner::Hasty,
    Manner::Hasty,
    Manner::Twins,
    Manner::Deserter,
    Manner::Canceller,
    Manner::Canceller,
    Manner::Forger,
    Manner::Grabber,
];

/// One caller of one network.
pub struct Caller {
    pub name: String,
    pub initiator: &'static str,
    pub desk: Desk,
    pub dice: Dice,
}

/// What a caller asks through. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub payments: PaymentServiceClient<Channel>,
    pub quotes: QuoteServiceClient<Channel>,
    pub history: Arc<History>,
}

/// An order as it is sent.
#[derive(Clone)]
pub struct Slip {
    pub key: Key,
    pub request: CreatePaymentRequest,
}

impl Caller {
    /// Orders until then.
    pub async fn run(mut self, until: Instant) {
        let mut number = 0;
        let mut earlier: Vec<Slip> = Vec::new();
        while Instant::now() < until {
            self.dice.pause(0..120).await;
            number += 1;
            earlier.extend(self.order(number).await);
            // Much later, and again, and again: it stays the same payment.
            if self.dice.one_in(5) && !earlier.is_empty() {
                let slip = &earlier[self.dice.below(earlier.len() as u64) as usize];
                let patience = self.patience();
                if self.dice.one_in(2) {
                    self.desk.create(slip, Question::Create, patience, None).await;
                } else {
                    self.desk.get(&slip.key, patience).await;
                }
            }
        }
    }

    /// One order in some manner, or two; none if there was no quote to be had.
    async fn order(&mut self, number: u64) -> Vec<Slip> {
        let manner = self.dice.pick(&MANNERS);
        let corridors: Vec<_> = CORRIDORS
            .into_iter()
            .filter(|corridor| corridor.from == self.initiator)
            .collect();
        let corridor = self.dice.pick(&corridors);
        let by_quote = matches!(manner, Manner::Grabber) || self.dice.one_in(2);
        let (pricing, quoted) = if by_quote {
            match self.quote(corridor).await {
                Some(quote) => (Pricing::Quote(quote.name), quote.conversion),
                None => return Vec::new(),
            }
        } else {
            (Pricing::Market(self.market(corridor)), None)
        };
        let slip = self.slip(number, "", corridor, pricing.clone(), quoted.clone());
        match manner {
            Manner::Plain => self.insist(&slip).await,
            Manner::Hasty => {
                let deadline = Duration::from_millis(self.dice.within(450..2_000));
                let mut hasty = slip.clone();
                hasty.request.answer_at = AnswerAt::Decision.into();
                let patience = deadline + Duration::from_millis(500);
                self.desk
                    .create(&hasty, Question::Create, patience, Some(deadline))
                    .await;
                self.insist(&slip).await;
            }
            Manner::Twins => {
                count(&self.desk.history.counts.twins);
                let (mut one, mut other) = (self.again(1), self.again(2));
                tokio::join!(one.insist(&slip), other.insist(&slip));
            }
            Manner::Deserter => {
                let patience = Duration::from_millis(self.dice.within(10..400));
                self.desk.create(&slip, Question::Create, patience, None).await;
            }
            Manner::Canceller => {
                let (mut one, mut other) = (self.again(1), self.again(2));
                tokio::join!(one.insist(&slip), other.cancel(&slip));
            }
            Manner::Forger => {
                self.insist(&slip).await;
                self.forge(&slip).await;
            }
            Manner::Grabber => {
                count(&self.desk.history.counts.quotes_shared);
                let rival = self.slip(number, "-rival", corridor, pricing, quoted);
                let (mut one, mut other) = (self.again(1), self.again(2));
                tokio::join!(one.insist(&slip), other.insist(&rival));
                return vec![slip, rival];
            }
        }
        vec![slip]
    }

    /// Another of the same, with dice of its own.
    fn again(&mut self, number: u64) -> Self {
        Self {
            name: self.name.clone(),
            initiator: self.initiator,
            desk: self.desk.clone(),
            dice: Dice::of(self.dice.below(u64::MAX), &format!("{} {number}", self.name)),
        }
    }

    fn patience(&mut self) -> Duration {
        Duration::from_millis(self.dice.within(PATIENCE_MS))
    }

    /// Asks until it is told, or for as long as it has patience with one order.
    async fn insist(&mut self, slip: &Slip) {
        let until = Instant::now() + INSISTS;
        let mut kills = None;
        while Instant::now() < until {
            if let Some(before) = kills {
                count(&self.desk.history.counts.retries);
                if self.desk.history.kills() > before {
                    count(&self.desk.history.counts.retries_after_kill);
                }
            }
            kills = Some(self.desk.history.kills());
            let patience = self.patience();
            // With a deadline the gateway decides in time for it; without one it takes its own.
            let deadline = self.dice.one_in(2).then_some(patience);
            let answer = self.desk.create(slip, Question::Create, patience, deadline).await;
            if is_definite(&answer) {
                return;
            }
            self.dice.pause(AGAIN_MS).await;
        }
    }

    /// Finds the payment by its request_id as soon as there is one, and cancels it.
    async fn cancel(&mut self, slip: &Slip) {
        for _ in 0..8 {
            self.dice.pause(0..60).await;
            let patience = self.patience();
            if let Some(payment) = self.desk.find(&slip.key, patience).await {
                self.desk.cancel(&slip.key, &payment.name, patience).await;
                return;
            }
        }
    }

    /// The same request_id, another body; only once the first is acknowledged, for a payment that never began has no claim
    /// to it.
    async fn forge(&mut self, slip: &Slip) {
        let told = self.desk.history.order_of(&slip.key).told;
        if !told.iter().any(|told| matches!(told.answer, Answer::Payment(_))) {
            return;
        }
        let mut forged = slip.clone();
        let payment = forged.request.payment.as_mut().expect("an order has a payment");
        match (&mut payment.pricing, self.dice.one_in(2)) {
            (Some(Pricing::Market(market)), true) => {
                let amount = market.amount.as_mut().expect("an order has an amount");
                amount.amount.insert(0, '1');
            }
            _ => payment.payee.as_mut().expect("an order has a payee").account = "mallory".into(),
        }
        let patience = self.patience();
        let answer = self.desk.create(&forged, Question::Altered, patience, None).await;
        if let Answer::Refused { reason, .. } = answer
            && reason == "REQUEST_ID_REUSED"
        {
            count(&self.desk.history.counts.alterations_refused);
        }
    }

    async fn quote(&mut self, corridor: Corridor) -> Option<Quote> {
        let (side, amount) = self.amount(corridor);
        let request = CreateQuoteRequest {
            quote: Some(Quote {
                corridor: Some(CorridorMessage {
                    source_partner: partner(corridor.from),
                    source_currency: corridor.source.into(),
                    target_partner: partner(corridor.to),
                    target_currency: corridor.target.into(),
                }),
                fixed_side: side.into(),
                amount: Some(amount),
                ..Quote::default()
            }),
        };
        for _ in 0..4 {
            let patience = self.patience();
            let mut quotes = self.desk.quotes.clone();
            if let Ok(Ok(quote)) = tokio::time::timeout(patience, quotes.create_quote(request.clone())).await {
                return Some(quote.into_inner());
            }
            self.dice.pause(AGAIN_MS).await;
        }
        None
    }

    fn market(&mut self, corridor: Corridor) -> MarketOrder {
        let (side, amount) = self.amount(corridor);
        MarketOrder {
            fixed_side: side.into(),
            amount: Some(amount),
            worst_rate: "0.000001".into(),
            source_currency: corridor.source.into(),
            target_currency: corridor.target.into(),
        }
    }

    fn amount(&mut self, corridor: Corridor) -> (FixedSide, causeway::pb::money::v1::Money) {
        let (side, currency) = if self.dice.one_in(3) {
            (FixedSide::Receive, corridor.target)
        } else {
            (FixedSide::Send, corridor.source)
        };
        let amount = match currency {
            "JPY" => self.dice.within(100..9_000).to_string(),
            "KWD" => format!("{}.{:03}", self.dice.within(1..20), self.dice.below(1_000)),
            _ => format!("{}.{:02}", self.dice.within(1..40), self.dice.below(100)),
        };
        (side, money(currency, &amount))
    }

    fn slip(
        &mut self,
        number: u64,
        suffix: &str,
        corridor: Corridor,
        pricing: Pricing,
        quoted: Option<Conversion>,
    ) -> Slip {
        let payer = self.account(corridor.source);
        let payee = self.account(corridor.target);
        let key = Key {
            initiator: self.initiator,
            request_id: format!("{}-{number}{suffix}", self.name),
        };
        let request = CreatePaymentRequest {
            payment: Some(Box::new(Payment {
                payer: Some(party(corridor.from, payer)),
                payee: Some(party(corridor.to, payee)),
                pricing: Some(pricing),
                ..Payment::default()
            })),
            request_id: key.request_id.clone(),
            answer_at: self
                .dice
                .pick(&[AnswerAt::End, AnswerAt::End, AnswerAt::Decision])
                .into(),
            ..CreatePaymentRequest::default()
        };
        self.desk.history.order(&key, &request, quoted);
        Slip { key, request }
    }

    /// Most have funds and are open.
    fn account(&mut self, currency: &str) -> &'static str {
        let [one, other] = match currency {
            "USD" => ["alice", "ann"],
            "CNY" => ["bao", "bo"],
            "EUR" => ["carla", "carl"],
            "JPY" => ["yuki", "yuki"],
            _ => ["omar", "omar"],
        };
        let rest: &[&str] = if currency == "USD" {
            &["poor", "capped", "gone", "nobody"]
        } else {
            &["poor", "gone", "nobody"]
        };
        match self.dice.below(8) {
            0 => self.dice.pick(rest),
            1..=4 => one,
            _ => other,
        }
    }
}

impl Desk {
    pub fn new(channel: Channel, history: Arc<History>) -> Self {
        Self {
            payments: PaymentServiceClient::new(channel.clone()),
            quotes: QuoteServiceClient::new(channel),
            history,
        }
    }

    /// Asks once; writes down and answers with what came back.
    pub async fn create(
        &self,
        slip: &Slip,
        question: Question,
        patience: Duration,
        deadline: Option<Duration>,
    ) -> Answer {
        let mut payments = self.payments.clone();
        let mut request = Request::new(slip.request.clone());
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        self.ask(&slip.key, question, patience, payments.create_payment(request))
            .await
    }

    /// Reads what an order has become, by the name that its caller was told.
    async fn get(&self, key: &Key, patience: Duration) {
        let told = self.history.order_of(key).told;
        let name = told.iter().rev().find_map(|told| match &told.answer {
            Answer::Payment(payment) => Some(payment.name.clone()),
            Answer::Refused { .. } | Answer::Nothing(_) => None,
        });
        if let Some(name) = name {
            let mut payments = self.payments.clone();
            self.ask(
                key,
                Question::Get,
                patience,
                payments.get_payment(GetPaymentRequest { name }),
            )
            .await;
        }
    }

    async fn cancel(&self, key: &Key, name: &str, patience: Duration) {
        let request = CancelPaymentRequest { name: name.into() };
        let mut payments = self.payments.clone();
        let answer = self
            .ask(key, Question::Cancel, patience, payments.cancel_payment(request))
            .await;
        if matches!(answer, Answer::Payment(_)) {
            count(&self.history.counts.cancels);
        }
    }

    async fn find(&self, key: &Key, patience: Duration) -> Option<Payment> {
        let request = ListPaymentsRequest {
            filter: format!("request_id = \"{}\"", key.request_id),
            ..ListPaymentsRequest::default()
        };
        let mut payments = self.payments.clone();
        let listed = tokio::time::timeout(patience, payments.list_payments(request)).await;
        listed.ok()?.ok()?.into_inner().payments.pop()
    }

    async fn ask(
        &self,
        key: &Key,
        question: Question,
        patience: Duration,
        call: impl Future<Output = Result<Response<Payment>, Status>>,
    ) -> Answer {
        let asked_ms = now_ms();
        let answer = match tokio::time::timeout(patience, call).await {
            Ok(Ok(payment)) => Answer::Payment(Box::new(payment.into_inner())),
            Ok(Err(status)) => read(&status),
            Err(_) => Answer::Nothing(format!("no answer within {patience:?}")),
        };
        let told = Told {
            asked_ms,
            told_ms: now_ms(),
            question,
            answer: answer.clone(),
        };
        self.history.told(key, told);
        answer
    }
}

/// A status with a reason of the gateway's is its word; any other is the network's, and says nothing.
fn read(status: &Status) -> Answer {
    let refusal = Refusal::from(status);
    if refusal.domain == "causeway" {
        return Answer::Refused {
            reason: refusal.reason,
            detail: refusal.message,
        };
    }
    Answer::Nothing(format!("{:?}: {}", status.code(), status.message()))
}
