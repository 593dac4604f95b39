//! MockService: what testers set up and look at.

use std::sync::Arc;

use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    amount,
    faults::{FAULTS_MAX, FaultError, FaultSpec, Faults},
    ledger::{Account, AccountSetup, Branch, BranchKey, HoldFilter, Leg, Movement, MovementFilter, State},
    service::is_visible,
    status,
    store::Store,
};
use crate::pb::{mock::v1 as pb, money::v1::Money};

const ACCOUNT_LEN_MAX: usize = 64;

/// The controls.
#[derive(Clone)]
pub(super) struct Control {
    pub store: Store,
    pub faults: Arc<Faults>,
}

#[tonic::async_trait]
impl pb::mock_service_server::MockService for Control {
    async fn put_account(&self, request: Request<pb::PutAccountRequest>) -> Result<Response<pb::Account>, Status> {
        let setup = setup(request.into_inner())?;
        // The ledger's rejections of a setup name no branch.
        let nobody = BranchKey {
            payment: String::new(),
            leg: Leg::Debit,
        };
        let outcome = self
            .store
            .run(move |ledger| ledger.put_account(&setup))
            .await
            .map_err(status::stopped)?;
        outcome
            .map(account)
            .map(Response::new)
            .map_err(|rejection| status::rejected(&nobody, rejection))
    }

    async fn list_accounts(
        &self,
        _: Request<pb::ListAccountsRequest>,
    ) -> Result<Response<pb::ListAccountsResponse>, Status> {
        let accounts = self
            .store
            .run(|ledger| ledger.accounts())
            .await
            .map_err(status::stopped)?;
        Ok(Response::new(pb::ListAccountsResponse {
            accounts: accounts.into_iter().map(account).collect(),
        }))
    }

    async fn list_holds(
        &self,
        request: Request<pb::ListHoldsRequest>,
    ) -> Result<Response<pb::ListHoldsResponse>, Status> {
        let pb::ListHoldsRequest { state, payment } = request.into_inner();
        let state = optional(state)
            .map(|word| {
                let known = "is none of prepared, refused, committed, aborted";
                State::parse(&word).ok_or_else(|| status::bad_request(vec![("state".to_owned(), known.to_owned())]))
            })
            .transpose()?;
        let filter = HoldFilter {
            state,
            payment: optional(payment),
        };
        let holds = self
            .store
            .run(move |ledger| ledger.holds(&filter))
            .await
            .map_err(status::stopped)?;
        let total_count = holds.total;
        Ok(Response::new(pb::ListHoldsResponse {
            holds: holds.rows.into_iter().map(hold).collect(),
            total_count,
        }))
    }

    async fn list_movements(
        &self,
        request: Request<pb::ListMovementsRequest>,
    ) -> Result<Response<pb::ListMovementsResponse>, Status> {
        let pb::ListMovementsRequest { account, payment } = request.into_inner();
        let filter = MovementFilter {
            account: optional(account),
            payment: optional(payment),
        };
        let movements = self
            .store
            .run(move |ledger| ledger.movements(&filter))
            .await
            .map_err(status::stopped)?;
        let total_count = movements.total;
        let movements = movements.rows.into_iter().map(movement).collect();
        Ok(Response::new(pb::ListMovementsResponse { movements, total_count }))
    }

    async fn set_faults(
        &self,
        request: Request<pb::SetFaultsRequest>,
    ) -> Result<Response<pb::SetFaultsResponse>, Status> {
        let faults = request.into_inner().faults;
        if faults.len() > FAULTS_MAX {
            let detail = format!("are {}, at most {FAULTS_MAX}", faults.len());
            return Err(status::bad_request(vec![("faults".to_owned(), detail)]));
        }
        let parse = |(index, fault)| {
            FaultSpec::try_from(fault)
                .map_err(|error: FaultError| (format!("faults[{index}].{}", error.field), error.detail))
        };
        let (specs, violations): (Vec<_>, Vec<_>) = faults.into_iter().enumerate().map(parse).partition(Result::is_ok);
        let violations: Vec<_> = violations.into_iter().filter_map(Result::err).collect();
        if !violations.is_empty() {
            return Err(status::bad_request(violations));
        }
        self.faults.replace(specs.into_iter().filter_map(Result::ok).collect());
        Ok(Response::new(pb::SetFaultsResponse {
            faults: self.faults.list(),
        }))
    }

    async fn list_faults(&self, _: Request<pb::ListFaultsRequest>) -> Result<Response<pb::ListFaultsResponse>, Status> {
        Ok(Response::new(pb::ListFaultsResponse {
            faults: self.faults.list(),
        }))
    }
}

/// proto3 cannot tell an empty string from none.
fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn setup(request: pb::PutAccountRequest) -> Result<AccountSetup, Status> {
    let violated = |field: &str, detail: &str| status::bad_request(vec![(field.to_owned(), detail.to_owned())]);
    let account = request.account.ok_or_else(|| violated("account", "is missing"))?;
    if !is_visible(&account.account, ACCOUNT_LEN_MAX) {
        return Err(violated("account.account", "is not 1 to 64 visible ASCII characters"));
    }
    let closed = match pb::account::Status::try_from(account.status) {
        Ok(pb::account::Status::Unspecified | pb::account::Status::Open) => false,
        Ok(pb::account::Status::Closed) => true,
        Err(_) => return Err(violated("account.status", "is none of the states")),
    };
    let parse = |field: &str, money: &Money| {
        amount::parse(&money.currency, &money.amount).map_err(|error| status::bad_amount(field, error))
    };
    let balance = account
        .balance
        .ok_or_else(|| violated("account.balance", "is missing"))?;
    let payment_limit = match account.payment_limit {
        None => None,
        Some(limit) if limit.currency != balance.currency => {
            return Err(violated("account.payment_limit.currency", "is not the balance's"));
        }
        Some(limit) => Some(parse("account.payment_limit", &limit)?),
    };
    Ok(AccountSetup {
        account: account.account,
        balance: parse("account.balance", &balance)?,
        currency: balance.currency,
        closed,
        payment_limit,
    })
}

fn money(currency: &str, minor: i64) -> Money {
    Money {
        currency: currency.to_owned(),
        amount: amount::print(currency, minor),
    }
}

fn account(account: Account) -> pb::Account {
    let currency = &account.key.currency;
    let status = if account.closed {
        pb::account::Status::Closed
    } else {
        pb::account::Status::Open
    };
    // Prepared credits reserve room on the network's own accounts too; that is no customer's money.
    let held = if account.own { 0 } else { account.held };
    pb::Account {
        balance: Some(money(currency, account.balance)),
        held: Some(money(currency, held)),
        status: status.into(),
        payment_limit: account.payment_limit.map(|limit| money(currency, limit)),
        account: account.key.account,
    }
}

fn hold(branch: Branch) -> pb::Hold {
    let amount = branch.terms.as_ref().map(|terms| money(&terms.currency, terms.amount));
    pb::Hold {
        payment: branch.key.payment,
        branch: branch.key.leg.as_str().to_owned(),
        account: branch.terms.map(|terms| terms.account).unwrap_or_default(),
        amount,
        state: branch.state.as_str().to_owned(),
        refusal_code: branch.refusal.map(|refusal| refusal.code).unwrap_or_default(),
    }
}

fn movement(movement: Movement) -> pb::Movement {
    let nanos = i32::try_from(movement.at_ms.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    pb::Movement {
        sequence: movement.seq,
        payment: movement.key.payment,
        branch: movement.key.leg.as_str().to_owned(),
        amount: Some(money(&movement.currency, movement.amount)),
        account: movement.account,
        move_time: Some(Timestamp {
            seconds: movement.at_ms.div_euclid(1_000),
            nanos,
        }),
    }
}
