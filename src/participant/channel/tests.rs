//! Answers made by hand, frame by frame.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt, stream};
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::prelude::*;

use super::*;
use crate::participant::conduct::{Fault, Finding};

type Frames = Vec<Frame<Bytes>>;

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value)));
    Frame::trailers(pairs.collect())
}

fn ok() -> Frame<Bytes> {
    trailers(&[("grpc-status", "0")])
}

fn head(status: u16, headers: &[(&'static str, &'static str)]) -> Parts {
    let response = headers
        .iter()
        .fold(Response::builder().status(status), |response, (name, value)| {
            response.header(*name, *value)
        });
    response.body(()).unwrap().into_parts().0
}

fn grpc() -> Parts {
    head(200, &[("content-type", "application/grpc+proto")])
}

async fn answer(head: &Parts, frames: Frames) -> Result<Bytes, Status> {
    let frames = frames.into_iter().map(Ok::<_, Infallible>);
    read(head, StreamBody::new(stream::iter(frames))).await
}

#[tokio::test]
async fn one_message_and_ok_is_an_answer_however_it_is_cut() {
    let message = vec![7; 300];
    let bytes = framed(&message);
    for piece in [1, 2, 4, 5, 6, 299, 305] {
        let mut frames: Frames = bytes.chunks(piece).map(|piece| data(piece.to_vec())).collect();
        frames.push(ok());
        assert_eq!(answer(&grpc(), frames).await.unwrap(), message, "in pieces of {piece}");
    }
    let empty = vec![data(framed(&[])), data(Bytes::new()), ok()];
    assert_eq!(answer(&grpc(), empty).await.unwrap(), Bytes::new());
    let largest = vec![1; MESSAGE_BYTES_MAX];
    let frames = vec![data(framed(&largest)), ok()];
    assert_eq!(answer(&grpc(), frames).await.unwrap(), largest);
}

#[tokio::test]
async fn what_is_no_answer_is_named() {
    use Misbehaviour::*;
    let compressed = [&[1][..], &framed(b"abc")[1..]].concat();
    let two = [framed(b"abc"), framed(b"abc")].concat();
    let huge = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let larger = [&[0][..], &(MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes()].concat();
    let rows: Vec<(&str, Parts, Frames, Misbehaviour)> = vec![
        ("nothing at all", grpc(), vec![], CutShort),
        ("no status", grpc(), vec![data(framed(b"abc"))], CutShort),
        (
            "trailers without one",
            grpc(),
            vec![data(framed(b"abc")), trailers(&[("x", "y")])],
            CutShort,
        ),
        ("OK alone", grpc(), vec![ok()], Undecodable),
        (
            "OK among the headers",
            head(200, &[("grpc-status", "0")]),
            vec![],
            Undecodable,
        ),
        ("half a prefix", grpc(), vec![data(vec![0, 0]), ok()], Undecodable),
        (
            "half a message",
            grpc(),
            vec![data(framed(b"abc")[..6].to_vec()), ok()],
            Undecodable,
        ),
        ("compressed", grpc(), vec![data(compressed), ok()], Undecodable),
        ("two messages", grpc(), vec![data(two), ok()], SecondAnswer),
        (
            "one byte more",
            grpc(),
            vec![data(framed(b"abc")), data(vec![0]), ok()],
            SecondAnswer,
        ),
        ("four gigabytes, it says", grpc(), vec![data(huge), ok()], TooLarge),
        ("a byte too large, it says", grpc(), vec![data(larger), ok()], TooLarge),
        (
            "a web page",
            head(200, &[("content-type", "text/html")]),
            vec![data("<html>")],
            NotGrpc,
        ),
        ("no type", head(200, &[]), vec![data(framed(b"abc")), ok()], NotGrpc),
        ("HTTP 404", head(404, &[]), vec![], NotGrpc),
        ("HTTP 500", head(500, &[]), vec![], NotGrpc),
        ("HTTP 301", head(301, &[("grpc-status", "0")]), vec![], NotGrpc),
    ];
    for (what, head, frames, kind) in rows {
        let status = answer(&head, frames).await.expect_err(what);
        let finding = Finding::of_transport(&status).unwrap_or_else(|| panic!("{what}: {status:?}"));
        assert_eq!(finding.fault, Fault::Misbehaviour(kind), "{what}: {status:?}");
        assert!(
            finding.excerpt.contains(status.message()) && finding.excerpt.contains(kind.name()),
            "{what}: {finding:?}"
        );
    }
}

#[tokio::test]
async fn a_status_of_the_participants_own_blames_nobody() {
    let unavailable = [("grpc-status", "14"), ("grpc-message", "not%20now")];
    let rows: Vec<(Parts, Frames, Code)> = vec![
        (head(200, &unavailable), vec![], Code::Unavailable),
        (grpc(), vec![trailers(&unavailable)], Code::Unavailable),
        (
            grpc(),
            vec![data(framed(b"abc")), trailers(&unavailable)],
            Code::Unavailable,
        ),
        (grpc(), vec![trailers(&[("grpc-status", "11")])], Code::OutOfRange),
        // A number that there is not (grpc-status is decimal, 0 to 16).
        (grpc(), vec![trailers(&[("grpc-status", "99")])], Code::Unknown),
        (head(503, &[]), vec![], Code::Unavailable),
    ];
    for (head, frames, code) in rows {
        let status = answer(&head, frames).await.expect_err("a status");
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(Finding::of_transport(&status), None, "{status:?}");
    }
}

#[tokio::test]
async fn a_stream_without_end_is_left_at_its_first_wrong_byte() {
    const PIECE: usize = 16 << 10;
    let pieces: [(&str, Vec<u8>, usize); 4] = [
        ("answers after the answer", framed(&[1; 100]), 2),
        ("one answer that never ends", vec![0; PIECE], 2),
        ("a message that says it is large", vec![0xff; PIECE], 1),
        // It says one byte less than the most, and goes on.
        (
            "as much as there may be, and on",
            [&[0, 0, 0, 0xff, 0xff][..], &[5; PIECE]].concat(),
            5,
        ),
    ];
    for (what, piece, most) in pieces {
        let taken = Arc::new(AtomicUsize::new(0));
        let endless = stream::repeat_with({
            let taken = Arc::clone(&taken);
            move || {
                taken.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(data(piece.clone()))
            }
        })
        // As good as endless, and no danger to the machine if it is read.
        .take(1_000);
        read(&grpc(), StreamBody::new(endless)).await.expect_err(what);
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= most, "{what}: {taken} pieces were read");
    }
}

#[test]
fn a_timeout_is_written_with_at_most_eight_digits() {
    let rows = [
        (Duration::from_millis(1), "1m"),
        (Duration::from_secs(8), "8000m"),
        (Duration::from_millis(99_999_999), "99999999m"),
        (Duration::from_millis(100_000_000), "100000S"),
        (Duration::from_secs(31_536_000), "31536000S"),
    ];
    for (timeout, expected) in rows {
        assert_eq!(timeout_value(timeout), expected);
    }
}

proptest! {
    /// Whatever comes, in whatever pieces: it is read to an end, never beyond the bound, and only what was framed is taken.
    #[test]
    fn any_bytes_in_any_pieces_are_read_alike(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            proptest::collection::vec(any::<u8>(), 0..64).prop_map(|message| framed(&message)),
        ],
        cuts in proptest::collection::vec(1usize..9, 1..32),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut frames = Frames::new();
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            frames.push(data(piece.to_vec()));
            rest = after;
        }
        frames.push(ok());
        let found = runtime.block_on(answer(&grpc(), frames)).ok();
        let whole = bytes.len() >= 5
            && bytes[0] == 0
            && u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize == bytes.len() - 5;
        prop_assert_eq!(found.map(|found| found.to_vec()), whole.then(|| bytes[5..].to_vec()));
    }
}
