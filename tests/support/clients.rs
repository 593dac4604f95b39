//! Clients of the gateway and of the mock partners.

use std::collections::BTreeMap;

use causeway::pb::{
    gateway::v1::{
        CancelPaymentRequest, CreatePaymentRequest, GetDecisionRequest, GetDecisionResponse, GetPaymentRequest,
        GetQuoteRequest, ListPaymentsRequest, ListPaymentsResponse, Payment, PaymentBranch, Quote,
        WatchPaymentsRequest, WatchPaymentsResponse, decision_service_client::DecisionServiceClient, payment::State,
        payment_branch, payment_service_client::PaymentServiceClient, quote_service_client::QuoteServiceClient,
        rate_service_client::RateServiceClient,
    },
    mock::v1::{
        self as mock, Fault,
        fault::{Command, Kind},
        mock_service_client::MockServiceClient,
    },
};
use tonic::{Status, Streaming, transport::Channel};

use super::{BOUND, Route, wait_for, within};

/// The gateway as one party calls it. Every call is bounded.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub payments: PaymentServiceClient<Channel>,
    pub quotes: QuoteServiceClient<Channel>,
    pub rates: RateServiceClient<Channel>,
    pub decisions: DecisionServiceClient<Channel>,
}

impl Client {
    pub fn new(channel: Channel) -> Self {
        Self {
            payments: PaymentServiceClient::new(channel.clone()),
            quotes: QuoteServiceClient::new(channel.clone()),
            rates: RateServiceClient::new(channel.clone()),
            decisions: DecisionServiceClient::new(channel.clone()),
            channel,
        }
    }

    pub async fn create(&self, request: CreatePaymentRequest) -> Result<Payment, Status> {
        let mut payments = self.payments.clone();
        within("CreatePayment", payments.create_payment(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// Pays and expects to be told COMPLETED.
    pub async fn pay(&self, request: CreatePaymentRequest) -> Payment {
        let payment = self.create(request).await.expect("the payment is taken");
        assert_eq!(payment.state(), State::Completed, "{payment:?}");
        payment
    }

    pub async fn get(&self, name: &str) -> Result<Payment, Status> {
        let mut payments = self.payments.clone();
        let request = GetPaymentRequest { name: name.into() };
        within("GetPayment", payments.get_payment(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// The payment once it is in one of these states.
    pub async fn reaches(&self, name: &str, states: &[State]) -> Payment {
        let what = format!("{name} is one of {states:?}");
        wait_for(&what, BOUND, || async {
            let payment = self.get(name).await.map_err(|status| format!("{status:?}"))?;
            let there = states.contains(&payment.state());
            if there {
                Ok(payment)
            } else {
                Err(format!("{payment:?}"))
            }
        })
        .await
    }

    pub async fn cancel(&self, name: &str) -> Result<Payment, Status> {
        let mut payments = self.payments.clone();
        let request = CancelPaymentRequest { name: name.into() };
        within("CancelPayment", payments.cancel_payment(request))
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn list(&self, request: ListPaymentsRequest) -> Result<ListPaymentsResponse, Status> {
        let mut payments = self.payments.clone();
        within("ListPayments", payments.list_payments(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// Every payment, over all pages.
    pub async fn list_all(&self, filter: &str) -> Vec<Payment> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListPaymentsRequest {
                page_size: 1_000,
                page_token,
                filter: filter.into(),
            };
            let page = self.list(request).await.expect("lists");
            all.extend(page.payments);
            if page.next_page_token.is_empty() {
                return all;
            }
            page_token = page.next_page_token;
        }
    }

    pub async fn watch(&self, resume_token: &str, payment: &str) -> Result<Streaming<WatchPaymentsResponse>, Status> {
        let mut payments = self.payments.clone();
        let request = WatchPaymentsRequest {
            resume_token: resume_token.into(),
            payment: payment.into(),
        };
        within("WatchPayments", payments.watch_payments(request))
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn quote(&self, request: causeway::pb::gateway::v1::CreateQuoteRequest) -> Result<Quote, Status> {
        let mut quotes = self.quotes.clone();
        within("CreateQuote", quotes.create_quote(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// A quote to send this amount.
    pub async fn quoted(&self, route: Route, amount: &str) -> Quote {
        let request = route.quote(causeway::pb::gateway::v1::FixedSide::Send, amount);
        self.quote(request).await.expect("the quote is made")
    }

    pub async fn get_quote(&self, name: &str) -> Result<Quote, Status> {
        let mut quotes = self.quotes.clone();
        let request = GetQuoteRequest { name: name.into() };
        within("GetQuote", quotes.get_quote(request))
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn decision(&self, payment: &str) -> Result<GetDecisionResponse, Status> {
        let mut decisions = self.decisions.clone();
        let request = GetDecisionRequest {
            payment: payment.into(),
        };
        within("GetDecision", decisions.get_decision(request))
            .await
            .map(tonic::Response::into_inner)
    }
}

/// The branch of this name.
pub fn branch<'a>(payment: &'a Payment, name: &str) -> &'a PaymentBranch {
    let found = payment.branches.iter().find(|branch| branch.branch == name);
    found.unwrap_or_else(|| panic!("no branch {name}: {payment:?}"))
}

/// The states of all branches, debit first.
pub fn branch_states(payment: &Payment) -> Vec<payment_branch::State> {
    payment.branches.iter().map(PaymentBranch::state).collect()
}

/// A mock partner as its tester calls it.
#[derive(Clone)]
pub struct Mock {
    pub name: &'static str,
    pub client: MockServiceClient<Channel>,
}

impl Mock {
    pub async fn set_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().collect();
        let mut client = self.client.clone();
        within("SetFaults", client.set_faults(mock::SetFaultsRequest { faults }))
            .await
            .expect("the faults are taken");
    }

    /// How often each fault has fired, in the order in which they were set.
    pub async fn fired(&self) -> Vec<i64> {
        let mut client = self.client.clone();
        let faults = within("ListFaults", client.list_faults(mock::ListFaultsRequest {})).await;
        let faults = faults.expect("lists faults").into_inner().faults;
        faults.into_iter().map(|fault| fault.fired_count).collect()
    }

    /// Waits until every fault has fired this often at least.
    pub async fn fires(&self, times: i64) {
        wait_for("every fault has fired", BOUND, || async {
            let fired = self.fired().await;
            let all = !fired.is_empty() && fired.iter().all(|count| *count >= times);
            if all { Ok(()) } else { Err(fired) }
        })
        .await;
    }

    pub async fn accounts(&self) -> Vec<mock::Account> {
        let mut client = self.client.clone();
        let accounts = within("ListAccounts", client.list_accounts(mock::ListAccountsRequest {})).await;
        accounts.expect("lists accounts").into_inner().accounts
    }

    /// What every customer's and own account holds, by "account currency".
    pub async fn balances(&self) -> BTreeMap<String, String> {
        let entry = |account: mock::Account| {
            let balance = account.balance.expect("an account has a balance");
            (format!("{} {}", account.account, balance.currency), balance.amount)
        };
        self.accounts().await.into_iter().map(entry).collect()
    }

    /// All movements of money, of one payment or of all ("").
    pub async fn movements(&self, payment: &str) -> Vec<mock::Movement> {
        let mut client = self.client.clone();
        let request = mock::ListMovementsRequest {
            payment: payment.into(),
            account: String::new(),
        };
        let listed = within("ListMovements", client.list_movements(request)).await;
        let listed = listed.expect("lists movements").into_inner();
        assert_eq!(
            listed.total_count,
            listed.movements.len() as i64,
            "more than are listed"
        );
        listed.movements
    }

    /// All branches in this state, or in any ("").
    pub async fn holds(&self, state: &str) -> Vec<mock::Hold> {
        let mut client = self.client.clone();
        let request = mock::ListHoldsRequest {
            state: state.into(),
            payment: String::new(),
        };
        let listed = within("ListHolds", client.list_holds(request)).await;
        let listed = listed.expect("lists holds").into_inner();
        assert_eq!(listed.total_count, listed.holds.len() as i64, "more than are listed");
        listed.holds
    }
}

/// A fault that meets a command for ever.
pub fn fault(kind: Kind, command: Command) -> Fault {
    Fault {
        kind: kind.into(),
        command: command.into(),
        ..Fault::default()
    }
}

/// A fault that meets a command once.
pub fn once(kind: Kind, command: Command) -> Fault {
    Fault {
        count: 1,
        ..fault(kind, command)
    }
}

/// A fault that makes a command wait, for ever again.
pub fn latency(command: Command, latency_ms: i32) -> Fault {
    Fault {
        latency_ms,
        ..fault(Kind::Latency, command)
    }
}

/// A fault that refuses every Prepare with this code.
pub fn refusal(code: &str) -> Fault {
    Fault {
        refusal_code: code.into(),
        ..fault(Kind::Refuse, Command::Prepare)
    }
}
