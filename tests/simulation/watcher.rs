//! Watchers: one a network and one that begins at the start, each resuming with the last token that it has.

use std::sync::Arc;

use causeway::pb::gateway::v1::{self as pb, payment_service_server::PaymentService};
use tokio_stream::StreamExt;

use crate::{
    cast::{self, NETWORKS},
    history::{Event, Network},
    world::{Shared, request},
};

pub fn start_all(world: &Shared) {
    for network in 0..NETWORKS.len() {
        world.spawn(world.offices[network], watch(Arc::clone(world), Network(network)));
    }
}

async fn watch(world: Shared, network: Network) {
    let principal = cast::principal(network.0);
    let mut token = String::from("start");
    for stream_number in 0.. {
        let gateway = world.executor.draw(world.gateways.len() as u64) as usize;
        let (principal, resume_token) = (principal.clone(), token.clone());
        let call = world.call(world.offices[network.0], gateway, move |api| {
            Box::pin(async move {
                let message = pb::WatchPaymentsRequest {
                    resume_token,
                    payment: String::new(),
                };
                api.watch_payments(request(&principal, message, None)).await
            })
        });
        let opened = tokio::select! {
            biased;
            opened = call => opened,
            () = world.executor.sleep_us(5_000_000) => continue,
        };
        let Ok(opened) = opened else {
            world.sleep_ms(200).await;
            continue;
        };
        let mut stream = opened.into_inner();
        world.log(Event::WatchOpened {
            stream: stream_number,
            caller: network,
            token: token.clone(),
        });
        // Now and then a watcher goes of its own accord.
        let mut patience = match world.history().healed {
            true => u64::MAX,
            false => 1 + world.executor.draw(2_000),
        };
        while let Some(Ok(message)) = stream.next().await {
            token = message.resume_token.clone();
            let payment = message.payment.as_ref().map(|payment| world.payment(&payment.name));
            let state = message.payment.as_ref().map_or(0, |payment| payment.state);
            world.log(Event::Watched {
                caller: network,
                payment,
                state,
                token: message.resume_token,
            });
            patience -= 1;
            if patience == 0 {
                break;
            }
        }
        world.sleep_ms(50).await;
    }
}
