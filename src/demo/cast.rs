//! Who takes part: the networks, the people, and what a payment between them costs.

use std::fmt;

/// The realm of all certificates of the demonstration.
pub const TRUST_DOMAIN: &str = "causeway.dev";
/// The gateway's name in its certificate.
pub const GATEWAY: &str = "gateway";
/// The operator, who may look into every network's books.
pub const OPERATOR: &str = "ops";

/// A wallet network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// US dollars.
    ApplePay,
    /// Yuan.
    Alipay,
    /// Euros.
    PayPal,
}

impl Network {
    /// All of them.
    pub const ALL: [Network; 3] = [Network::ApplePay, Network::Alipay, Network::PayPal];

    /// The name in certificates and resource names.
    pub fn name(self) -> &'static str {
        match self {
            Network::ApplePay => "apple-pay",
            Network::Alipay => "alipay",
            Network::PayPal => "paypal",
        }
    }

    /// "partners/apple-pay".
    pub fn resource(self) -> String {
        format!("partners/{}", self.name())
    }

    /// ISO 4217.
    pub fn currency(self) -> &'static str {
        match self {
            Network::ApplePay => "USD",
            Network::Alipay => "CNY",
            Network::PayPal => "EUR",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::ApplePay => "Apple Pay",
            Network::Alipay => "Alipay",
            Network::PayPal => "PayPal",
        })
    }
}

/// Somebody's account in a network, in the network's currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wallet {
    /// Where.
    pub network: Network,
    /// The account as the network knows it.
    pub account: &'static str,
    /// Whose it is.
    pub person: &'static str,
    /// What is in it when the story begins.
    pub opening: &'static str,
}

/// Pays and is paid in dollars.
pub const ALICE: Wallet = Wallet {
    network: Network::ApplePay,
    account: "alice",
    person: "Alice",
    opening: "1000.00",
};
/// Pays and is paid in yuan.
pub const LI_WEI: Wallet = Wallet {
    network: Network::Alipay,
    account: "li-wei",
    person: "Li Wei",
    opening: "5000.00",
};
/// Would be paid in euros.
pub const EMMA: Wallet = Wallet {
    network: Network::PayPal,
    account: "emma",
    person: "Emma",
    opening: "800.00",
};
/// All of them.
pub const WALLETS: [Wallet; 3] = [ALICE, LI_WEI, EMMA];

impl fmt::Display for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.person, self.network)
    }
}

/// What the gateway charges from one network to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corridor {
    /// The paying network.
    pub from: Network,
    /// The receiving network.
    pub to: Network,
    /// A fraction of the mid rate.
    pub margin: &'static str,
    /// In the paying network's currency.
    pub fee: &'static str,
}

/// Every corridor that is open.
pub const CORRIDORS: [Corridor; 3] = [
    Corridor {
        from: Network::ApplePay,
        to: Network::Alipay,
        margin: "0.0025",
        fee: "0.30",
    },
    Corridor {
        from: Network::Alipay,
        to: Network::ApplePay,
        margin: "0.0030",
        fee: "2.00",
    },
    Corridor {
        from: Network::ApplePay,
        to: Network::PayPal,
        margin: "0.0020",
        fee: "0.30",
    },
];
