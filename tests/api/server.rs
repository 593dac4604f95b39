//! What every server serves beside its own API: health, and reflection in both versions.

use std::collections::BTreeSet;

use causeway::authn::Role;
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{ALIPAY, Network, within};

const GATEWAY: [&str; 4] = [
    "causeway.gateway.v1.QuoteService",
    "causeway.gateway.v1.PaymentService",
    "causeway.gateway.v1.RateService",
    "causeway.gateway.v1.DecisionService",
];
const PARTNER: [&str; 2] = [
    "causeway.participant.v1.ParticipantService",
    "causeway.mock.v1.MockService",
];

/// The gateway and a partner network, with what each serves.
fn servers(network: &Network) -> [(&'static str, Channel, &'static [&'static str]); 2] {
    let files = network.files(Role::Operator, "ops");
    [
        ("gateway", network.channel(&files), &GATEWAY),
        ("partner", network.partner_channel(ALIPAY, &files), &PARTNER),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_of_the_whole_and_of_every_service() {
    let network = Network::start().await;
    for (what, channel, services) in servers(&network) {
        let mut health = HealthClient::new(channel);
        for service in [""].iter().chain(services) {
            let request = HealthCheckRequest {
                service: (*service).into(),
            };
            let status = within("health", health.check(request))
                .await
                .unwrap()
                .into_inner()
                .status();
            assert_eq!(status, ServingStatus::Serving, "{what}: {service:?}");
        }
        let request = HealthCheckRequest {
            service: "causeway.gateway.v1.NoService".into(),
        };
        assert_eq!(
            health.check(request).await.unwrap_err().code(),
            Code::NotFound,
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_so_before_the_gateway_goes() {
    let mut network = Network::start().await;
    let files = network.files(Role::Operator, "ops");
    let mut health = HealthClient::new(network.channel(&files));
    let mut stream = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let first = within("a status", stream.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    network.begin_drain();
    let second = within("a change", stream.message()).await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    drop((stream, health));
    network.end_drain().await.unwrap();
}

/// One reflection client a version: their types are alike and not the same.
macro_rules! reflected {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new($channel);
        let requests = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol("causeway.money.v1.Money".into()),
            MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into()),
            MessageRequest::FileContainingSymbol("causeway.nothing.Here".into()),
        ]
        .map(|request| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        });
        let answers = within(
            "reflection",
            client.server_reflection_info(tokio_stream::iter(requests)),
        )
        .await;
        let mut answers = answers.unwrap().into_inner();
        let mut services = BTreeSet::new();
        let (mut files, mut unknown) = (Vec::new(), 0);
        while let Some(answer) = within("an answer", answers.next()).await {
            match answer {
                Ok(answer) => match answer.message_response.unwrap() {
                    MessageResponse::ListServicesResponse(list) => {
                        services.extend(list.service.into_iter().map(|service| service.name));
                    }
                    MessageResponse::FileDescriptorResponse(found) => files.extend(found.file_descriptor_proto),
                    MessageResponse::ErrorResponse(_) => unknown += 1,
                    other => panic!("not asked for: {other:?}"),
                },
                Err(status) => {
                    assert_eq!(status.code(), Code::NotFound, "{status:?}");
                    unknown += 1;
                }
            }
        }
        (services, files, unknown)
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_what_is_served_in_both_versions() {
    let network = Network::start().await;
    for (what, channel, services) in servers(&network) {
        for (version, (found, files, unknown)) in [
            ("v1", reflected!(v1, channel.clone())),
            ("v1alpha", reflected!(v1alpha, channel.clone())),
        ] {
            let what = format!("{what} {version}");
            for service in services {
                assert!(found.contains(*service), "{what}: {service}: {found:?}");
            }
            if what.starts_with("gateway") {
                let foreign: Vec<_> = found.iter().filter(|name| name.starts_with("causeway.")).collect();
                assert_eq!(
                    foreign.len(),
                    GATEWAY.len(),
                    "{what} shows what it does not serve: {found:?}"
                );
            }
            let files: Vec<prost_types::FileDescriptorProto> = files
                .iter()
                .map(|bytes| prost::Message::decode(bytes.as_slice()).unwrap())
                .collect();
            let names: Vec<_> = files.iter().map(|file| file.name()).collect();
            assert!(names.contains(&"causeway/money/v1/money.proto"), "{what}: {names:?}");
            assert_eq!(unknown + files.len(), 3, "{what}: {names:?}");
        }
    }
}
