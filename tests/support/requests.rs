//! Requests that are right as they are; a test changes what it is about.

use causeway::pb::{
    gateway::v1::{
        Corridor, CreatePaymentRequest, CreateQuoteRequest, FixedSide, Party, Payment, Quote,
        payment::{MarketOrder, Pricing},
    },
    money::v1::Money,
};

pub const APPLE: &str = "apple-pay";
pub const ALIPAY: &str = "alipay";
pub const PAYPAL: &str = "paypal";

/// One way that money goes: from an account in one network to an account in another.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub from: &'static str,
    pub source: &'static str,
    pub payer: &'static str,
    pub to: &'static str,
    pub target: &'static str,
    pub payee: &'static str,
}

impl Route {
    pub const USD_CNY: Self = Self::new((APPLE, "USD", "alice"), (ALIPAY, "CNY", "bao"));
    pub const CNY_USD: Self = Self::new((ALIPAY, "CNY", "bao"), (APPLE, "USD", "alice"));
    pub const EUR_USD: Self = Self::new((PAYPAL, "EUR", "carla"), (APPLE, "USD", "alice"));
    pub const USD_EUR: Self = Self::new((APPLE, "USD", "alice"), (PAYPAL, "EUR", "carla"));
    pub const CNY_EUR: Self = Self::new((ALIPAY, "CNY", "bao"), (PAYPAL, "EUR", "carla"));
    pub const EUR_CNY: Self = Self::new((PAYPAL, "EUR", "carla"), (ALIPAY, "CNY", "bao"));
    pub const JPY_KWD: Self = Self::new((APPLE, "JPY", "yuki"), (ALIPAY, "KWD", "omar"));
    pub const KWD_JPY: Self = Self::new((ALIPAY, "KWD", "omar"), (APPLE, "JPY", "yuki"));
    /// A corridor of which the source has no rate.
    pub const GBP_CNY: Self = Self::new((PAYPAL, "GBP", "carla"), (ALIPAY, "CNY", "bao"));

    const fn new(
        (from, source, payer): (&'static str, &'static str, &'static str),
        (to, target, payee): (&'static str, &'static str, &'static str),
    ) -> Self {
        Self {
            from,
            source,
            payer,
            to,
            target,
            payee,
        }
    }

    /// A request for a quote that any accounts may use.
    pub fn quote(self, side: FixedSide, amount: &str) -> CreateQuoteRequest {
        CreateQuoteRequest {
            quote: Some(Quote {
                corridor: Some(Corridor {
                    source_partner: partner(self.from),
                    source_currency: self.source.into(),
                    target_partner: partner(self.to),
                    target_currency: self.target.into(),
                }),
                fixed_side: side.into(),
                amount: Some(self.amount(side, amount)),
                ..Quote::default()
            }),
        }
    }

    /// A payment by a quote.
    pub fn by_quote(self, request_id: &str, quote: &str) -> CreatePaymentRequest {
        self.payment(request_id, Pricing::Quote(quote.into()))
    }

    /// A payment at the market, whatever the rate.
    pub fn market(self, request_id: &str, side: FixedSide, amount: &str) -> CreatePaymentRequest {
        self.payment(
            request_id,
            Pricing::Market(MarketOrder {
                fixed_side: side.into(),
                amount: Some(self.amount(side, amount)),
                worst_rate: "0.000001".into(),
                source_currency: self.source.into(),
                target_currency: self.target.into(),
            }),
        )
    }

    /// A payment of this amount at the market, fee included.
    pub fn send(self, request_id: &str, amount: &str) -> CreatePaymentRequest {
        self.market(request_id, FixedSide::Send, amount)
    }

    fn payment(self, request_id: &str, pricing: Pricing) -> CreatePaymentRequest {
        CreatePaymentRequest {
            payment: Some(Box::new(Payment {
                payer: Some(party(self.from, self.payer)),
                payee: Some(party(self.to, self.payee)),
                pricing: Some(pricing),
                ..Payment::default()
            })),
            request_id: request_id.into(),
            ..CreatePaymentRequest::default()
        }
    }

    fn amount(self, side: FixedSide, amount: &str) -> Money {
        match side {
            FixedSide::Receive => money(self.target, amount),
            FixedSide::Send | FixedSide::Unspecified => money(self.source, amount),
        }
    }
}

pub fn partner(name: &str) -> String {
    format!("partners/{name}")
}

pub fn party(partner_name: &str, account: &str) -> Party {
    Party {
        partner: partner(partner_name),
        account: account.into(),
    }
}

pub fn money(currency: &str, amount: &str) -> Money {
    Money {
        currency: currency.into(),
        amount: amount.into(),
    }
}
