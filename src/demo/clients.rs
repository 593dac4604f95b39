//! The callers: each network's server with its own certificate, and an operator who looks into the books.
//!
//! Owns channels, deadlines and patience; what is asked is the story's. Nothing waits for a fixed time: a wait is for a
//! condition, with a bound.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Response, Status, transport::Channel};

use super::{
    DemoError,
    books::Ending,
    cast::{Network, OPERATOR, Wallet},
    cluster::{Cluster, Member},
    sums::hundredths,
};
use crate::{
    authn::Role,
    pb::{
        gateway::v1::{
            self as gateway, payment_service_client::PaymentServiceClient, quote_service_client::QuoteServiceClient,
            rate_service_client::RateServiceClient,
        },
        mock::v1::{self as mock, mock_service_client::MockServiceClient},
        money::v1::Money,
    },
    tls::{self, ChannelOptions},
};

/// How long an answer, or what is waited for, may take.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// All callers.
pub struct Clients {
    gateway: BTreeMap<Network, Channel>,
    operator: Channel,
    mocks: BTreeMap<Network, Channel>,
}

/// What is in a wallet, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// What the account holds, reserved funds included.
    pub total: i128,
    /// What is reserved of it.
    pub held: i128,
}

impl Clients {
    /// For a cluster whose ports are known.
    pub fn new(cluster: &Cluster) -> Result<Clients, DemoError> {
        let channel = |role: Role, name: &str, member: Member| -> Result<Channel, DemoError> {
            let endpoint = format!("https://{}", cluster.address(member));
            let files = cluster.files(role, name)?;
            let options = ChannelOptions::default();
            Ok(tls::channel(&endpoint, &files, &member.principal()?, options)?)
        };
        type Channels = BTreeMap<Network, Channel>;
        let per_network = |make: &dyn Fn(Network) -> Result<Channel, DemoError>| -> Result<Channels, DemoError> {
            Network::ALL
                .into_iter()
                .map(|network| Ok((network, make(network)?)))
                .collect()
        };
        Ok(Clients {
            gateway: per_network(&|network| channel(Role::Partner, network.name(), Member::Gateway))?,
            operator: channel(Role::Operator, OPERATOR, Member::Gateway)?,
            mocks: per_network(&|network: Network| channel(Role::Operator, OPERATOR, Member::Partner(network)))?,
        })
    }

    /// The mid rate, as the network asks for it.
    pub async fn rate(&self, network: Network, target: Network) -> Result<gateway::Rate, DemoError> {
        let name = format!("rates/{}-{}", network.currency(), target.currency());
        ask("GetRate", || {
            let mut client = RateServiceClient::new(self.gateway[&network].clone());
            let request = gateway::GetRateRequest { name: name.clone() };
            async move { client.get_rate(request).await }
        })
        .await
    }

    /// A quote for the network.
    pub async fn quote(&self, network: Network, quote: gateway::Quote) -> Result<gateway::Quote, DemoError> {
        // Not repeated: a second quote is another one.
        let mut client = QuoteServiceClient::new(self.gateway[&network].clone());
        let request = gateway::CreateQuoteRequest { quote: Some(quote) };
        once("CreateQuote", client.create_quote(request)).await
    }

    /// Sends a payment's request once.
    pub async fn pay_once(
        &self,
        network: Network,
        request: gateway::CreatePaymentRequest,
    ) -> Result<gateway::Payment, DemoError> {
        let mut client = PaymentServiceClient::new(self.gateway[&network].clone());
        once("CreatePayment", client.create_payment(request)).await
    }

    /// Sends a payment's request until there is an answer.
    pub async fn pay(
        &self,
        network: Network,
        request: &gateway::CreatePaymentRequest,
    ) -> Result<gateway::Payment, DemoError> {
        ask("CreatePayment", || {
            let mut client = PaymentServiceClient::new(self.gateway[&network].clone());
            let request = request.clone();
            async move { client.create_payment(request).await }
        })
        .await
    }

    /// The payment as the network sees it.
    pub async fn payment(&self, network: Network, name: &str) -> Result<gateway::Payment, DemoError> {
        ask("GetPayment", || {
            let mut client = PaymentServiceClient::new(self.gateway[&network].clone());
            let request = gateway::GetPaymentRequest { name: name.to_owned() };
            async move { client.get_payment(request).await }
        })
        .await
    }

    /// The network's payment of that request, if the gateway has it.
    pub async fn payment_of(&self, network: Network, request_id: &str) -> Result<Option<gateway::Payment>, DemoError> {
        let answer = ask("ListPayments", || {
            let mut client = PaymentServiceClient::new(self.gateway[&network].clone());
            let request = gateway::ListPaymentsRequest {
                filter: format!("request_id = \"{request_id}\""),
                ..Default::default()
            };
            async move { client.list_payments(request).await }
        });
        Ok(answer.await?.payments.into_iter().next())
    }

    /// Every payment, as the operator sees them.
    pub async fn all_payments(&self) -> Result<Vec<gateway::Payment>, DemoError> {
        let (mut payments, mut page_token) = (Vec::new(), String::new());
        loop {
            let answer = ask("ListPayments", || {
                let mut client = PaymentServiceClient::new(self.operator.clone());
                let request = gateway::ListPaymentsRequest {
                    // Smaller than the story, so that the pages are read too.
                    page_size: 3,
                    page_token: page_token.clone(),
                    ..Default::default()
                };
                async move { client.list_payments(request).await }
            })
            .await?;
            payments.extend(answer.payments);
            if answer.next_page_token.is_empty() {
                return Ok(payments);
            }
            page_token = answer.next_page_token;
        }
    }

    /// The network's own accounts and its customers'.
    pub async fn accounts(&self, network: Network) -> Result<Vec<mock::Account>, DemoError> {
        let answer = ask("ListAccounts", || {
            let mut client = self.mock(network);
            async move { client.list_accounts(mock::ListAccountsRequest {}).await }
        });
        Ok(answer.await?.accounts)
    }

    /// What moved in the network: of one payment, or with an empty name of all.
    pub async fn movements(&self, network: Network, payment: &str) -> Result<Vec<mock::Movement>, DemoError> {
        let answer = ask("ListMovements", || {
            let mut client = self.mock(network);
            let request = mock::ListMovementsRequest {
                payment: payment.to_owned(),
                ..Default::default()
            };
            async move { client.list_movements(request).await }
        });
        Ok(answer.await?.movements)
    }

    /// The network's holds in one state: of one payment, or with an empty name of all.
    pub async fn holds(&self, network: Network, state: &str, payment: &str) -> Result<Vec<mock::Hold>, DemoError> {
        let answer = ask("ListHolds", || {
            let mut client = self.mock(network);
            let request = mock::ListHoldsRequest {
                state: state.to_owned(),
                payment: payment.to_owned(),
            };
            async move { client.list_holds(request).await }
        });
        Ok(answer.await?.holds)
    }

    /// Makes the network misbehave, in these ways only.
    pub async fn set_faults(&self, network: Network, faults: &[mock::Fault]) -> Result<(), DemoError> {
        ask("SetFaults", || {
            let mut client = self.mock(network);
            let faults = faults.to_vec();
            async move { client.set_faults(mock::SetFaultsRequest { faults }).await }
        })
        .await
        .map(drop)
    }

    /// What is in a wallet.
    pub async fn balance(&self, wallet: Wallet) -> Result<Balance, DemoError> {
        let accounts = self.accounts(wallet.network).await?;
        let account = accounts.iter().find(|account| account.account == wallet.account);
        let account = account.ok_or(DemoError::NoAccount { wallet })?;
        let read = |money: &Option<Money>| hundredths(money.as_ref().map_or("", |money| &money.amount));
        Ok(Balance {
            total: read(&account.balance)?,
            held: read(&account.held)?,
        })
    }

    fn mock(&self, network: Network) -> MockServiceClient<Channel> {
        MockServiceClient::new(self.mocks[&network].clone())
    }
}

/// A fault that meets one command.
pub fn fault(kind: mock::fault::Kind, command: mock::fault::Command) -> mock::Fault {
    mock::Fault {
        kind: kind.into(),
        command: command.into(),
        count: 1,
        ..Default::default()
    }
}

/// How it ended, if it did.
pub fn ending(payment: &gateway::Payment) -> Ending {
    use gateway::payment::State;
    match payment.state() {
        State::Completed => Ending::Completed,
        State::Aborted => Ending::Aborted,
        State::Unspecified | State::Preparing | State::Committing | State::Aborting | State::Disputed => {
            Ending::InDoubt
        }
    }
}

/// "COMPLETED".
pub fn state_name(payment: &gateway::Payment) -> &'static str {
    let name = payment.state().as_str_name();
    name.strip_prefix("STATE_").unwrap_or(name)
}

/// The payment, once it has ended; waits for it.
pub async fn ended(clients: &Clients, network: Network, name: &str) -> Result<gateway::Payment, DemoError> {
    until("the payment to end", async || {
        let payment = clients.payment(network, name).await?;
        Ok((ending(&payment) != Ending::InDoubt).then_some(payment))
    })
    .await
}

/// Looks until the condition is there.
pub async fn until<T>(
    what: &'static str,
    mut look: impl AsyncFnMut() -> Result<Option<T>, DemoError>,
) -> Result<T, DemoError> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(DemoError::Waited { what });
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// One call. The caller's patience is not told to the server: a deadline would shorten the voting.
async fn once<T>(what: &'static str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, DemoError> {
    match timeout(PATIENCE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(DemoError::Call {
            what,
            status: Box::new(status),
        }),
        Err(_) => Err(DemoError::Waited { what }),
    }
}

/// Calls again while nobody answers: whoever was killed a moment ago may not be back yet. For calls that change nothing
/// when they are repeated.
async fn ask<T, F>(what: &'static str, mut call: impl FnMut() -> F) -> Result<T, DemoError>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    until(what, async || match once(what, call()).await {
        Ok(answer) => Ok(Some(answer)),
        // A connection that broke shows as any of these.
        Err(DemoError::Call { status, .. })
            if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    })
    .await
}
