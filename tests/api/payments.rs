//! Payments that go well.
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let network = Network::start().await;
    let apple = network.partner(APPLE);
    let payment = apple.pay(Route::USD_CNY.send("r-1", "100.00")).await;
    println!("{payment:#?}");
    println!("{:?}", network.audit().await);
}
