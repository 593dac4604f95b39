//! What goes wrong in earnest: processes that die, at the worst moment, with money under way.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    DemoError,
    books::Ending,
    cast::{ALICE, EMMA, LI_WEI, Network},
    clients::{ended, ending, fault, state_name, until},
    cluster::{Member, VOTING_MS},
    deal::Fixed,
    story::{Stage, Wallets},
    sums::{print, units},
    table::{Align, Table},
};
use crate::{
    coordinator::HaltPoint,
    pb::{
        gateway::v1::{AnswerAt, payment::State},
        mock::v1::fault::{Command, Kind},
    },
};

/// How much longer than the voting time the answer may take.
const ANSWER_SLACK: Duration = Duration::from_secs(2);

impl Stage<'_> {
    /// A partner crashes after it has promised, and comes back.
    pub async fn partner_crashes(&mut self) -> Result<(), DemoError> {
        self.tell
            .step("Alipay crashes in the middle of a payment, and comes back")?;
        self.tell.say(
            "Alice pays 40.00 USD. Alipay promises to take the money in, writes the promise down, and crashes before it \
             can say so. Alice's money is reserved meanwhile. Alipay is started again, on the books that it had.",
        )?;
        let deal = self.deal(ALICE, LI_WEI, Fixed::Send(units(40)))?;
        self.show_deal(&deal)?;
        let before = self.look(&[ALICE, LI_WEI]).await?;
        let crash = fault(Kind::CrashAfter, Command::Prepare);
        self.clients.set_faults(Network::Alipay, &[crash]).await?;
        let alipay = Member::Partner(Network::Alipay);
        self.cluster.is_to_die(alipay);

        let request = deal.request_at_market("demo-5");
        let comeback = async {
            self.cluster.dies(alipay).await?;
            self.cluster.start(alipay).await
        };
        let paying = self.clients.pay(Network::ApplePay, &request);
        let (payment, ()) = tokio::try_join!(paying, comeback)?;

        // Back in time, the payment completes; too late, it is called off. What must not be is one of each.
        let how = ending(&payment);
        self.tell.say(match how {
            Ending::Completed => {
                "Alipay died and came back. The gateway asked it again, under the same name; it found its promise in its \
                 books and kept it."
            }
            Ending::Aborted | Ending::InDoubt => {
                "Alipay died and came back too late for this payment: it was called off on both sides."
            }
        })?;
        let expected = if how == Ending::Completed {
            Ending::Completed
        } else {
            Ending::Aborted
        };
        if expected == Ending::Completed {
            self.show_movements(&deal, &payment).await?;
        }
        self.conclude(&deal, &payment, expected, before).await
    }

    /// SIGKILL for the gateway, when it has decided and told nobody.
    pub async fn gateway_is_killed(&mut self) -> Result<(), DemoError> {
        self.tell
            .step("The gateway is killed between its decision and telling anyone")?;
        self.tell.say(
            "Li Wei pays 200.00 CNY. Both networks have promised. The gateway decides that the payment shall be, writes \
             that to disk, and is killed (SIGKILL) before anyone hears of it: the worst moment that there is. (To hit it \
             every time, the gateway was started with a switch for tests, --halt-at after-commit-decided.)",
        )?;
        let deal = self.deal(LI_WEI, ALICE, Fixed::Send(units(200)))?;
        self.show_deal(&deal)?;
        self.cluster.kill(Member::Gateway).await?;
        self.cluster
            .start_gateway_halting(HaltPoint::AfterCommitDecided)
            .await?;
        let before = self.look(&[LI_WEI, ALICE]).await?;

        let request = deal.request_at_market("demo-6");
        let (name, heard) = {
            let paying = self.clients.pay_once(Network::Alipay, request.clone());
            tokio::pin!(paying);
            let name = tokio::select! {
                biased;
                halted = self.halted() => halted?,
                answer = &mut paying => {
                    let answer = answer?;
                    return Err(DemoError::TooEarly { name: answer.name.clone(), state: state_name(&answer) });
                }
            };
            self.cluster.kill(Member::Gateway).await?;
            (name, paying.await)
        };
        let frozen = self.look(&[LI_WEI, ALICE]).await?;
        let mut holds = 0;
        for network in [Network::Alipay, Network::ApplePay] {
            holds += self.clients.holds(network, "prepared", &name).await?.len();
        }
        self.show_frozen(&frozen)?;
        self.expect(holds == 2, || {
            format!("{name}: {holds} networks have promised, expected both")
        })?;
        self.expect(frozen[0].1.held == deal.send, || {
            format!("{name}: Li Wei's money is not reserved")
        })?;
        self.expect(heard.is_err(), || {
            format!("{name}: a gateway that was killed has answered")
        })?;
        self.tell.say(&format!(
            "That is how things stand with the gateway dead: {name} is decided, Li Wei's money is reserved, nothing has \
             moved, and the caller heard nothing but a broken line. The gateway is started again on the same store.",
        ))?;

        self.cluster.start(Member::Gateway).await?;
        let payment = ended(&self.clients, Network::Alipay, &name).await?;
        let again = self.clients.pay(Network::Alipay, &request).await?;
        self.expect(again.name == name, || {
            format!("the same request is now {}, before the crash it was {name}", again.name)
        })?;
        self.tell.say(
            "It found its decision in the store and carried it out, without being asked. The caller sends its request \
             again and gets the same payment.",
        )?;
        self.show_movements(&deal, &payment).await?;
        self.conclude(&deal, &payment, Ending::Completed, before).await
    }

    /// A partner that does not come back in time.
    pub async fn partner_stays_down(&mut self) -> Result<(), DemoError> {
        self.tell.step("PayPal is down and stays down")?;
        self.tell.say(&format!(
            "PayPal's process is killed. Alice pays Emma, who is at PayPal, 60.00 USD. Apple Pay reserves the money, \
             PayPal does not answer. A shop cannot wait for ever: after {} s the gateway calls the payment off, and \
             Alice has all of her money at her disposal again.",
            VOTING_MS / 1_000,
        ))?;
        let deal = self.deal(ALICE, EMMA, Fixed::Send(units(60)))?;
        self.show_deal(&deal)?;
        let before = self.look(&[ALICE, EMMA]).await?;
        self.cluster.kill(Member::Partner(Network::PayPal)).await?;

        let mut request = deal.request_at_market("demo-7");
        // Not when PayPal has heard of it: that may be never.
        request.answer_at = AnswerAt::Decision.into();
        let begun = Instant::now();
        let payment = self.clients.pay_once(Network::ApplePay, request).await?;
        let took = begun.elapsed();
        let voting = Duration::from_millis(VOTING_MS.unsigned_abs());
        self.expect(took <= voting + ANSWER_SLACK, || {
            format!("{}: the answer took {} ms", payment.name, took.as_millis())
        })?;
        self.expect(matches!(payment.state(), State::Aborting | State::Aborted), || {
            format!(
                "{}: the gateway says {}, expected an abort",
                payment.name,
                state_name(&payment)
            )
        })?;
        self.expect_reason(&payment, "VOTING_TIMED_OUT")?;
        until("Alice's money to be released", async || {
            let alice = self.clients.balance(ALICE).await?;
            Ok((alice.held == 0).then_some(()))
        })
        .await?;
        self.tell
            .say(&format!("The answer came after {} ms.", took.as_millis()))?;
        self.conclude_without(Some(Network::PayPal), &deal, &payment, Ending::Aborted, before)
            .await?;
        self.tell.say(
            "ABORTING, and not yet ABORTED, means: the decision stands and no money will move, but PayPal has still to be \
             told, for a late request could yet reach it.",
        )?;
        Ok(())
    }

    /// The payment at which the gateway has stopped half-way; waits for it.
    async fn halted(&self) -> Result<String, DemoError> {
        let halted = format!("halted at {}: ", HaltPoint::AfterCommitDecided);
        let line = self.cluster.says(Member::Gateway, &halted).await?;
        Ok(line.split_once(&halted).map_or("", |(_, name)| name).to_owned())
    }

    fn show_frozen(&mut self, frozen: &Wallets) -> Result<(), DemoError> {
        let mut table = Table::new([
            ("wallet", Align::Left),
            ("holds", Align::Right),
            ("of which reserved", Align::Right),
        ]);
        for (wallet, balance) in frozen {
            let currency = wallet.network.currency();
            let amount = |amount| format!("{} {currency}", print(amount));
            table.row([wallet.to_string(), amount(balance.total), amount(balance.held)]);
        }
        Ok(self.tell.show(&table)?)
    }
}
