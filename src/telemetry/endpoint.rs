//! One page over HTTP/1.1: GET /metrics.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::Telemetry;

/// Connections at once; further ones wait in the system's backlog. A scraper has one.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take from its first byte to its last: it carries one request.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and of an answer that waits to be sent.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// How long accepting rests after the system refused it (most likely for want of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// As the OpenMetrics specification has it, version 1.0.0.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the metrics for as long as it is polled; dropping it closes the listener and ends every connection. There is no
/// TLS and nobody is asked who they are: the listener belongs on a loopback or private address.
pub async fn serve(listener: TcpListener, telemetry: Telemetry) -> Infallible {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&room)
            .acquire_owned()
            .await
            .expect("the room is never closed");
        // What has ended is forgotten, or it would be kept until the end.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let telemetry = telemetry.clone();
                connections.spawn(async move {
                    let _place = place;
                    connection(stream, telemetry).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, telemetry: Telemetry) {
    let service = service_fn(move |request| {
        let response = respond(&request, &telemetry);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics failed"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

fn respond(request: &Request<Incoming>, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, CONTENT_TYPE, telemetry.render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is only /metrics\n".to_owned(),
        ),
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(Full::new(text.into()))
        .expect("a status and a type make a response")
}

#[cfg(test)]
mod tests;
