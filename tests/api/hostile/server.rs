//! The hostile partner's server, and what there is to expect of each way in which it answers.
//!
//! Written on `h2` alone, so that it can send what no gRPC library would.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use causeway::{
    pb::participant::v1::{Branch, PrepareRequest, Refusal, branch},
    tls::{self, ListenLimits, TlsFiles},
};
use futures_util::StreamExt;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use prost::{Message, bytes::Bytes};
use tokio::{net::TcpListener, task::JoinSet};

/// This many commands of a payment meet the hostility after abort was decided; the next is answered as it should be.
pub const HOSTILE_AFTER: usize = 2;

/// How a payment's branch is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hostility {
    /// Bytes that are no message.
    Garbage,
    /// Its length says more than comes.
    HalfAMessage,
    /// Yes, for another payment.
    VotesForAnother,
    /// Yes, for the other branch.
    VotesForTheOtherBranch,
    /// The branch, without a state.
    NoState,
    /// Yes, and then the same for ever.
    EndlessAfterTheAnswer,
    /// Empty messages for ever.
    EndlessInstead,
    /// A message that never ends, a byte at a time.
    Trickle,
    /// A message that says it has a gigabyte, and comes.
    AGigabyte,
    /// A message one byte above the limit.
    ABitTooLarge,
    /// Nothing.
    Silence,
    /// Headers, and nothing.
    SilenceAfterHeaders,
    /// RST_STREAM in place of an answer.
    Reset,
    /// RST_STREAM in the middle of it.
    ResetHalfWay,
    /// An answer without a status.
    NoStatus,
    /// A web page.
    WebPage,
    /// NOT_FOUND that says nothing of the branch.
    NotFound,
    /// RST_STREAM that asks to come again later.
    NotNow,
    /// HTTP 404.
    NoSuchPage,
    /// A refusal with a code that is none.
    OddRefusal,
}

/// What must be told of it, and how the payment ends.
pub struct Expected {
    pub account: &'static str,
    pub hostility: Hostility,
    /// The kind in log and metrics; `unreachable` has a metric of its own.
    pub kind: &'static str,
    pub reason: &'static str,
}

pub const LATE: &str = "VOTING_TIMED_OUT";

#[rustfmt::skip]
pub const HOSTILITIES: [Expected; 20] = [
    expect("garbage", Hostility::Garbage, "undecodable", LATE),
    expect("half", Hostility::HalfAMessage, "undecodable", LATE),
    expect("another", Hostility::VotesForAnother, "other_payment", LATE),
    expect("other-branch", Hostility::VotesForTheOtherBranch, "other_branch", LATE),
    expect("no-state", Hostility::NoState, "no_state", LATE),
    expect("endless-after", Hostility::EndlessAfterTheAnswer, "second_answer", LATE),
    expect("endless", Hostility::EndlessInstead, "second_answer", LATE),
    expect("trickle", Hostility::Trickle, "no_answer", LATE),
    expect("gigabyte", Hostility::AGigabyte, "too_large", LATE),
    expect("bit-too-large", Hostility::ABitTooLarge, "too_large", LATE),
    expect("silence", Hostility::Silence, "no_answer", LATE),
    expect("silence-after", Hostility::SilenceAfterHeaders, "no_answer", LATE),
    expect("reset", Hostility::Reset, "cut_short", LATE),
    expect("reset-half-way", Hostility::ResetHalfWay, "cut_short", LATE),
    expect("no-status", Hostility::NoStatus, "cut_short", LATE),
    expect("web-page", Hostility::WebPage, "not_grpc", LATE),
    expect("not-found", Hostility::NotFound, "bad_status", LATE),
    expect("not-now", Hostility::NotNow, "unreachable", LATE),
    expect("no-such-page", Hostility::NoSuchPage, "not_grpc", "PARTNER_ERROR"),
    expect("odd-refusal", Hostility::OddRefusal, "bad_refusal_code", "REFUSED_BY_PARTNER"),
];

const fn expect(account: &'static str, hostility: Hostility, kind: &'static str, reason: &'static str) -> Expected {
    Expected {
        account,
        hostility,
        kind,
        reason,
    }
}

/// What the hostile partner has done.
#[derive(Debug, Default)]
pub struct Deeds {
    /// By payment, from its Prepare on.
    branches: Mutex<BTreeMap<String, Hostility>>,
    /// By payment, from its first Abort on: how many commands.
    after: Mutex<BTreeMap<String, usize>>,
    pub calls: AtomicUsize,
    /// Streams without end: how they went.
    pub endless: Mutex<Vec<Endless>>,
}

/// A stream that was sent for as long as it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Endless {
    pub hostility: Hostility,
    pub bytes: usize,
}

impl Deeds {
    /// How to answer this call; `None` if as it should be.
    fn hostility(&self, path: &str, request: &PrepareRequest) -> Option<Hostility> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut branches = self.branches.lock().unwrap();
        if path.ends_with("/Prepare") {
            let row = HOSTILITIES.iter().find(|row| row.account == request.account);
            let row = row.unwrap_or_else(|| panic!("no such account: {request:?}"));
            branches.insert(request.payment.clone(), row.hostility);
        }
        let mut after = self.after.lock().unwrap();
        if path.ends_with("/Abort") {
            after.entry(request.payment.clone()).or_default();
        }
        if let Some(count) = after.get_mut(&request.payment) {
            *count += 1;
            if *count > HOSTILE_AFTER {
                return None;
            }
        }
        // A payment whose Prepare never came this far is aborted as it should be.
        branches.get(&request.payment).copied()
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, files: TlsFiles, deeds: Arc<Deeds>) {
    let config = tls::server_config(&files).expect("the files are good");
    let connections = tls::incoming(listener, config, ListenLimits::default());
    let mut connections = std::pin::pin!(connections);
    let mut tasks = JoinSet::new();
    while let Some(connection) = connections.next().await {
        let (connection, deeds) = (connection.unwrap(), Arc::clone(&deeds));
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            let Ok(mut connection) = h2::server::handshake(connection).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let deeds = Arc::clone(&deeds);
                streams.spawn(async move { answer(request, respond, &deeds).await });
            }
        });
    }
}

async fn answer(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, deeds: &Deeds) {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend(data);
    }
    // Given up before it was read.
    let Some(message) = bytes.get(5..) else {
        return;
    };
    // All requests begin with the payment and the branch, and none but Prepare has an account.
    let request = PrepareRequest::decode(message).expect("the gateway sends what it should");
    let good = Branch {
        payment: request.payment.clone(),
        branch: request.branch.clone(),
        state: branch::State::Prepared.into(),
        ..Branch::default()
    };
    let Some(hostility) = deeds.hostility(&path, &request) else {
        let aborted = branch::State::Aborted.into();
        return send(&mut respond, framed(&Branch { state: aborted, ..good }), Some("0"));
    };
    let branch = match hostility {
        Hostility::VotesForAnother => Branch {
            payment: "payments/00000000-0000-8000-8000-000000000000".into(),
            ..good
        },
        Hostility::VotesForTheOtherBranch => Branch {
            branch: "debit".into(),
            ..good
        },
        Hostility::NoState => Branch { state: 0, ..good },
        Hostility::OddRefusal => Branch {
            state: branch::State::Refused.into(),
            refusal: Some(Refusal {
                code: "no!".into(),
                detail: "\u{1b}[2J".into(),
            }),
            ..good
        },
        _ => good,
    };
    let whole = framed(&branch);
    match hostility {
        Hostility::VotesForAnother | Hostility::VotesForTheOtherBranch | Hostility::NoState | Hostility::OddRefusal => {
            send(&mut respond, whole, Some("0"))
        }
        Hostility::Garbage => send(&mut respond, [&[0, 0, 0, 0, 50][..], &[0xff; 50]].concat(), Some("0")),
        Hostility::HalfAMessage => send(&mut respond, whole[..whole.len() - 3].to_vec(), Some("0")),
        Hostility::NoStatus => send(&mut respond, whole, None),
        Hostility::NotFound => send(&mut respond, vec![], Some("5")),
        Hostility::EndlessAfterTheAnswer => {
            let more = whole.repeat(100);
            flood(&mut respond, hostility, whole, more, deeds).await;
        }
        Hostility::EndlessInstead => flood(&mut respond, hostility, vec![0; 5], vec![0; 4_095], deeds).await,
        Hostility::AGigabyte => {
            let length = [&[0][..], &(1_u32 << 30).to_be_bytes()].concat();
            flood(&mut respond, hostility, length, vec![7; 4_096], deeds).await;
        }
        Hostility::ABitTooLarge => {
            let length = (64_u32 << 10) + 1;
            let bytes = [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat();
            send(&mut respond, bytes, Some("0"));
        }
        Hostility::Trickle => trickle(&mut respond).await,
        Hostility::Silence => until_reset(|context| respond.poll_reset(context)).await,
        Hostility::SilenceAfterHeaders => {
            if let Some(mut stream) = begin(&mut respond) {
                until_reset(|context| stream.poll_reset(context)).await;
            }
        }
        Hostility::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Hostility::NotNow => respond.send_reset(Reason::REFUSED_STREAM),
        Hostility::ResetHalfWay => {
            if let Some(mut stream) = begin(&mut respond) {
                let _ = stream.send_data(whole[..6].to_vec().into(), false);
                stream.send_reset(Reason::ENHANCE_YOUR_CALM);
            }
        }
        Hostility::WebPage => {
            let page = Response::builder()
                .header("content-type", "text/html")
                .body(())
                .unwrap();
            if let Ok(mut stream) = respond.send_response(page, false) {
                let _ = stream.send_data("<h1>It works!</h1>".into(), true);
            }
        }
        Hostility::NoSuchPage => {
            let _ = respond.send_response(Response::builder().status(404).body(()).unwrap(), true);
        }
    }
}

fn framed(branch: &Branch) -> Vec<u8> {
    let message = branch.encode_to_vec();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
}

/// The beginning of any gRPC answer. `None` if the call was given up.
fn begin(respond: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    respond.send_response(head, false).ok()
}

fn send(respond: &mut SendResponse<Bytes>, bytes: Vec<u8>, status: Option<&'static str>) {
    let Some(mut stream) = begin(respond) else {
        return;
    };
    // The call may be given up at any time.
    let _ = stream.send_data(bytes.into(), status.is_none());
    if let Some(status) = status {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        let _ = stream.send_trailers(trailers);
    }
}

/// Sends as much as is taken, until the stream is reset, and notes how much that was.
async fn flood(respond: &mut SendResponse<Bytes>, hostility: Hostility, first: Vec<u8>, then: Vec<u8>, deeds: &Deeds) {
    let Some(mut stream) = begin(respond) else {
        return;
    };
    let (mut bytes, mut next) = (0, Bytes::from(first));
    let then = Bytes::from(then);
    loop {
        stream.reserve_capacity(next.len());
        let granted = poll_fn(|context| match stream.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => stream.poll_capacity(context),
        })
        .await;
        let Some(Ok(granted)) = granted else {
            break;
        };
        let piece = next.split_to(granted.min(next.len()));
        bytes += piece.len();
        if stream.send_data(piece, false).is_err() {
            break;
        }
        if next.is_empty() {
            next = then.clone();
        }
        // There are others on this connection.
        tokio::task::yield_now().await;
    }
    deeds.endless.lock().unwrap().push(Endless { hostility, bytes });
}

/// A message that is promised and comes a byte at a time, until the stream is reset.
async fn trickle(respond: &mut SendResponse<Bytes>) {
    let Some(mut stream) = begin(respond) else {
        return;
    };
    let _ = stream.send_data(vec![0, 0, 0, 0xff, 0].into(), false);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        let is_reset = poll_fn(|context| match stream.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending => ticks.poll_tick(context).map(|_| false),
        });
        if is_reset.await || stream.send_data(vec![7].into(), false).is_err() {
            return;
        }
    }
}

/// Holds the stream until the gateway lets go of it.
async fn until_reset(mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<Reason, h2::Error>>) {
    let _ = poll_fn(|context| poll(context)).await;
}
