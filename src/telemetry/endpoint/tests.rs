//! Over real sockets, with requests written by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::telemetry::PARTICIPANT_UNREACHABLE;

/// Nothing here takes longer unless it hangs.
const BOUND: Duration = Duration::from_secs(20);

async fn served() -> (SocketAddr, JoinSet<()>) {
    let telemetry = Telemetry::default();
    telemetry.counter(&PARTICIPANT_UNREACHABLE, &["alipay"]).count();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        serve(listener, telemetry).await;
    });
    (addr, server)
}

/// All that is answered until the server closes.
async fn ask(addr: SocketAddr, request: &str) -> String {
    timeout(BOUND, async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A server that closes on what it has not read resets the connection.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    })
    .await
    .expect("an answer, or an end")
}

#[tokio::test]
async fn one_page_is_served_and_nothing_else() {
    let (addr, _server) = served().await;
    let rows = [
        ("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "200", true),
        ("GET /metrics?a=b HTTP/1.1\r\nhost: x\r\n\r\n", "200", true),
        ("HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "200", false),
        (
            "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
            "405",
            false,
        ),
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404", false),
        ("GET /metrics/ HTTP/1.1\r\nhost: x\r\n\r\n", "404", false),
        ("\u{1}\u{2}\r\n\r\n", "400", false),
    ];
    for (request, status, shows) in rows {
        let answer = ask(addr, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {answer}"
        );
        let line = "causeway_participant_unreachable_total{partner=\"alipay\"} 1";
        assert_eq!(answer.contains(line), shows, "{request:?}: {answer}");
        let openmetrics = answer.contains("content-type: application/openmetrics-text; version=1.0.0");
        assert_eq!(openmetrics, status == "200", "{request:?}: {answer}");
    }
    // A head that never ends is cut off, not kept.
    let endless = format!(
        "GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(4 * BUFFER_BYTES_MAX)
    );
    let answer = ask(addr, &endless).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn those_who_say_nothing_are_put_out_and_then_others_have_their_turn() {
    let (addr, _server) = served().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    // The page is asked for by one too many, and is served once the silent ones have been put out.
    let answer = ask(addr, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut ended = 0;
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = timeout(BOUND, stream.read_to_end(&mut rest))
            .await
            .expect("it is put out");
        ended += 1;
    }
    assert_eq!(ended, CONNECTIONS_MAX);
}
