//! What an operator sees of a gateway: its log and its metrics.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tracing::Dispatch;

use super::within;

/// The warnings and errors of one gateway, as lines.
#[derive(Clone, Debug, Default)]
pub struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// For the threads whose log it is.
    pub fn subscriber(&self) -> Dispatch {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || log.clone());
        Dispatch::new(subscriber.finish())
    }

    /// The lines with all of these in them.
    pub fn lines(&self, parts: &[&str]) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes.lock().expect("no panic")).into_owned();
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        text.lines().filter(has_all).map(str::to_owned).collect()
    }
}

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// As a scraper gets it: one GET over a connection of its own.
    pub async fn scrape(addr: SocketAddr) -> Self {
        let answer = within("metrics are served", async {
            let mut stream = TcpStream::connect(addr).await.expect("metrics are listened for");
            let request = format!("GET /metrics HTTP/1.1\r\nhost: {addr}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("a request is taken");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer in text");
            answer
        })
        .await;
        let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Self { text: text.to_owned() }
    }

    /// A series' value. It must be there.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let series = format!("{name}{{{}}} ", labels.join(","));
        let found = self.text.lines().find_map(|line| line.strip_prefix(&series));
        let found = found.unwrap_or_else(|| panic!("no series {series}\n{}", self.text));
        found.parse().expect("a counter is a whole number")
    }

    /// The sum of all series of this name that have this label.
    pub fn sum(&self, name: &str, label: (&str, &str)) -> u64 {
        let label = format!("{}=\"{}\"", label.0, label.1);
        let lines = self.text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines
            .filter(|line| line.contains(&label))
            .map(|line| line.rsplit(' ').next().expect("a line has a value"))
            .map(|value| value.parse::<u64>().expect("a counter is a whole number"))
            .sum()
    }
}
