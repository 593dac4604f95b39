//! The network between the processes: a TCP proxy for every pair that speaks, and what befalls what it carries.
//!
//! TLS goes through untouched: the proxy sees bytes, and holds them, delays them, lets them drip, or cuts the connection. It
//! reads what a sender has sent even while nothing is delivered, as a network does: bytes outlive the process that sent
//! them. Which fault comes when is [`super::chaos`]'s. Invariant: a fault counts only once it has met bytes or a connection.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

/// Chunks that the network holds of one connection, each way; a sender of more waits.
const CHUNKS_HELD_MAX: usize = 1_024;
const CHUNK_BYTES: usize = 16 * 1024;
/// How long the end of a connection lags behind bytes that came late, so that who gets them can act on them.
const LATE_END: Duration = Duration::from_millis(250);

/// What the network can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Connections end in mid-flight, both ends told so.
    Cut,
    /// Everything is accepted and nothing delivered, for a while.
    Blackhole,
    /// Only one direction is delivered.
    OneWay,
    /// Every piece takes its time.
    Delay,
    /// A few bytes at a time.
    Drip,
    /// The client's end breaks; some of what it had sent arrives later all the same, piece by piece, after what it sends
    /// anew. The rest is lost.
    Late,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Cut,
        Self::Blackhole,
        Self::OneWay,
        Self::Delay,
        Self::Drip,
        Self::Late,
    ];
}

/// Where a server is at the moment; nowhere while it is dead.
#[derive(Clone, Debug, Default)]
pub struct Upstream(Arc<Mutex<Option<SocketAddr>>>);

impl Upstream {
    pub fn set(&self, address: Option<SocketAddr>) {
        *self.0.lock().unwrap() = address;
    }

    pub fn get(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap()
    }
}

/// From the client to the server, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// What happens to a piece of data.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Hold,
    Delay(Duration),
    Drip {
        bytes: usize,
        pause: Duration,
    },
    /// What was held is delivered piece by piece, so much of it; then it is over.
    Trickle {
        percent: usize,
        pause: Duration,
    },
}

/// What is wrong with a link at the moment.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: Kind,
    effect: Effect,
    /// Both ways if absent.
    way: Option<Way>,
    /// Connections of this number or higher are spared.
    connections_below: u64,
}

/// One link: who connects here reaches the upstream. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    pub name: &'static str,
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    fault: watch::Sender<Option<Fault>>,
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    fired: BTreeMap<Kind, AtomicU64>,
}

/// A connection that is being carried.
struct Connection {
    number: u64,
    client_cut: CancellationToken,
    server_cut: CancellationToken,
}

impl Link {
    /// A link to a server, open from now on for as long as the runtime lives.
    pub async fn open(name: &'static str, upstream: Upstream) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let link = Self {
            name,
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                upstream,
                fault: watch::Sender::new(None),
                connections: Mutex::default(),
                next: AtomicU64::new(0),
                fired: Kind::ALL.map(|kind| (kind, AtomicU64::new(0))).into(),
            }),
        };
        let shared = Arc::clone(&link.shared);
        tokio::spawn(async move {
            loop {
                // An error is the client's, which is gone again.
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(Arc::clone(&shared), client));
                }
            }
        });
        Ok(link)
    }

    /// Whether the gateway is the client.
    pub fn carries_commands(&self) -> bool {
        self.name.starts_with("gateway >")
    }

    /// How often each kind has met bytes, or connections.
    pub fn fired(&self, kind: Kind) -> u64 {
        self.shared.fired[&kind].load(Ordering::Relaxed)
    }

    /// Ends every connection, mid-flight.
    pub fn cut(&self) {
        for connection in self.connections() {
            connection.client_cut.cancel();
            connection.server_cut.cancel();
            self.shared.count(Kind::Cut);
        }
    }

    /// Breaks the clients' ends only; what they had sent is still on its way.
    pub fn cut_clients(&self) {
        for connection in self.connections() {
            connection.client_cut.cancel();
        }
    }

    /// Delivers nothing; with `way`, nothing that goes that way.
    pub fn hold(&self, way: Option<Way>) {
        let kind = if way.is_some() { Kind::OneWay } else { Kind::Blackhole };
        self.set(kind, Effect::Hold, way, u64::MAX);
    }

    /// Delivers nothing of what clients send on the connections that there are; new ones are well.
    pub fn hold_old(&self) {
        let next = self.shared.next.load(Ordering::Relaxed);
        self.set(Kind::Late, Effect::Hold, Some(Way::Up), next);
    }

    /// Delivers so much of what [`Link::hold_old`] holds, piece by piece. Connections made since are well.
    pub fn trickle_old(&self, percent: usize, pause: Duration) {
        let next = self.shared.fault.borrow().map_or(0, |fault| fault.connections_below);
        self.set(Kind::Late, Effect::Trickle { percent, pause }, Some(Way::Up), next);
    }

    pub fn delay(&self, delay: Duration) {
        self.set(Kind::Delay, Effect::Delay(delay), None, u64::MAX);
    }

    pub fn drip(&self, bytes: usize, pause: Duration) {
        self.set(Kind::Drip, Effect::Drip { bytes, pause }, None, u64::MAX);
    }

    /// All is well again; what was held goes on.
    pub fn clear(&self) {
        self.shared.fault.send_replace(None);
    }

    fn set(&self, kind: Kind, effect: Effect, way: Option<Way>, connections_below: u64) {
        self.shared.fault.send_replace(Some(Fault {
            kind,
            effect,
            way,
            connections_below,
        }));
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        self.shared.connections.lock().unwrap().values().cloned().collect()
    }
}

impl Shared {
    fn count(&self, kind: Kind) {
        self.fired[&kind].fetch_add(1, Ordering::Relaxed);
    }
}

/// Carries a connection to its end.
async fn carry(shared: Arc<Shared>, client: TcpStream) {
    let Some(address) = shared.upstream.get() else { return };
    let Ok(server) = TcpStream::connect(address).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let connection = Arc::new(Connection {
        number: shared.next.fetch_add(1, Ordering::Relaxed),
        client_cut: CancellationToken::new(),
        server_cut: CancellationToken::new(),
    });
    let number = connection.number;
    shared
        .connections
        .lock()
        .unwrap()
        .insert(number, Arc::clone(&connection));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pump(&shared, &connection, Way::Up, from_client, to_server),
        pump(&shared, &connection, Way::Down, from_server, to_client),
    );
    shared.connections.lock().unwrap().remove(&number);
}

/// Carries one way: reads as fast as the sender sends, delivers as the link's fault lets it.
async fn pump(shared: &Shared, connection: &Connection, way: Way, from: OwnedReadHalf, to: OwnedWriteHalf) {
    let (source_cut, target_cut) = match way {
        Way::Up => (&connection.client_cut, &connection.server_cut),
        Way::Down => (&connection.server_cut, &connection.client_cut),
    };
    let (queue, queued) = mpsc::channel(CHUNKS_HELD_MAX);
    let delivery = Delivery {
        shared,
        number: connection.number,
        way,
        cut: target_cut,
        fault: shared.fault.subscribe(),
        held: false,
    };
    tokio::join!(read(from, source_cut, queue), delivery.run(queued, to));
}

/// Until the sender ends or its end is cut.
async fn read(mut from: OwnedReadHalf, cut: &CancellationToken, queue: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            () = cut.cancelled() => {
                // Not a polite end: the peer shall see it break. If it is broken already, so much the better.
                let _ = from.as_ref().set_zero_linger();
                return;
            }
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if queue.send(buffer[..length].to_vec()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The delivering side of one way of one connection.
struct Delivery<'a> {
    shared: &'a Shared,
    number: u64,
    way: Way,
    cut: &'a CancellationToken,
    fault: watch::Receiver<Option<Fault>>,
    held: bool,
}

impl Delivery<'_> {
    /// Until all is delivered, or the receiver's end is gone; then what still comes is thrown away.
    async fn run(mut self, mut queued: mpsc::Receiver<Vec<u8>>, mut to: OwnedWriteHalf) {
        let cut = self.cut;
        let is_open = tokio::select! {
            biased;
            () = cut.cancelled() => {
                let _ = to.as_ref().set_zero_linger();
                false
            }
            delivered = self.deliver_all(&mut queued, &mut to) => delivered.is_ok(),
        };
        if is_open {
            if self.held {
                tokio::time::sleep(LATE_END).await;
            }
            // Who is gone already needs no goodbye.
            let _ = to.shutdown().await;
        }
        drop(to);
        while queued.recv().await.is_some() {}
    }

    async fn deliver_all(&mut self, queued: &mut mpsc::Receiver<Vec<u8>>, to: &mut OwnedWriteHalf) -> io::Result<()> {
        while let Some(chunk) = queued.recv().await {
            if let Some((percent, pause)) = self.deliver(&chunk, to).await? {
                return trickle(chunk, queued, to, percent, pause).await;
            }
        }
        Ok(())
    }

    /// Delivers a piece as the fault of the moment lets it; or answers that it, and all behind it, is to trickle.
    async fn deliver(&mut self, chunk: &[u8], to: &mut OwnedWriteHalf) -> io::Result<Option<(usize, Duration)>> {
        let mut counted = None;
        let mut rest = chunk;
        while !rest.is_empty() {
            let Some(fault) = self.current() else {
                to.write_all(rest).await?;
                break;
            };
            if counted != Some(fault.kind) {
                self.shared.count(fault.kind);
                counted = Some(fault.kind);
            }
            match fault.effect {
                Effect::Hold => {
                    self.held = true;
                    // Gone with the link, at the end of all.
                    if self.fault.changed().await.is_err() {
                        break;
                    }
                }
                // Only what was held before.
                Effect::Trickle { percent, pause } if self.held => return Ok(Some((percent, pause))),
                Effect::Trickle { .. } => {
                    to.write_all(rest).await?;
                    break;
                }
                Effect::Delay(delay) => {
                    tokio::time::sleep(delay).await;
                    to.write_all(rest).await?;
                    break;
                }
                Effect::Drip { bytes, pause } => {
                    let (now, later) = rest.split_at(bytes.min(rest.len()));
                    to.write_all(now).await?;
                    rest = later;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Ok(None)
    }

    fn current(&mut self) -> Option<Fault> {
        let fault = *self.fault.borrow_and_update();
        fault.filter(|fault| fault.way.is_none_or(|way| way == self.way) && self.number < fault.connections_below)
    }
}

/// Delivers so much of what is held, and forgets the rest.
async fn trickle(
    first: Vec<u8>,
    queued: &mut mpsc::Receiver<Vec<u8>>,
    to: &mut OwnedWriteHalf,
    percent: usize,
    pause: Duration,
) -> io::Result<()> {
    let pieces = ((queued.len() + 1) * percent).div_ceil(100);
    let mut next = Some(first);
    for _ in 0..pieces {
        let Some(chunk) = next else { break };
        to.write_all(&chunk).await?;
        tokio::time::sleep(pause).await;
        next = queued.try_recv().ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    async fn link() -> (TcpListener, Link) {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let upstream = Upstream::default();
        upstream.set(Some(server.local_addr().unwrap()));
        (server, Link::open("test", upstream).await.unwrap())
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(BOUND, future).await.expect("in time")
    }

    async fn says(stream: &mut TcpStream) -> Vec<u8> {
        let mut said = vec![0; 5];
        within(stream.read_exact(&mut said)).await.unwrap();
        said
    }

    #[tokio::test]
    async fn bytes_that_are_held_outlive_their_connection_and_come_after_newer_ones() {
        let (server, link) = link().await;
        let mut old = TcpStream::connect(link.address).await.unwrap();
        old.write_all(b"first").await.unwrap();
        let (mut old_server, _) = within(server.accept()).await.unwrap();
        assert_eq!(says(&mut old_server).await, b"first");
        link.hold_old();
        old.write_all(b"later").await.unwrap();
        within(async {
            while link.fired(Kind::Late) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        link.cut_clients();
        assert!(matches!(within(old.read(&mut [0; 1])).await, Err(_) | Ok(0)));

        let mut new = TcpStream::connect(link.address).await.unwrap();
        new.write_all(b"newer").await.unwrap();
        let (mut new_server, _) = within(server.accept()).await.unwrap();
        assert_eq!(says(&mut new_server).await, b"newer");
        link.trickle_old(100, Duration::from_millis(1));
        assert_eq!(says(&mut old_server).await, b"later");
    }

    #[tokio::test]
    async fn one_way_is_one_way_and_what_was_held_arrives() {
        let (server, link) = link().await;
        let mut client = TcpStream::connect(link.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut served, _) = within(server.accept()).await.unwrap();
        assert_eq!(says(&mut served).await, b"hello");
        link.hold(Some(Way::Down));
        served.write_all(b"reply").await.unwrap();
        client.write_all(b"again").await.unwrap();
        assert_eq!(says(&mut served).await, b"again");
        within(async {
            while link.fired(Kind::OneWay) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(client.try_read(&mut [0; 5]).is_err(), "nothing has come back");
        link.clear();
        assert_eq!(says(&mut client).await, b"reply");
        link.drip(1, Duration::from_millis(1));
        client.write_all(b"drops").await.unwrap();
        assert_eq!(says(&mut served).await, b"drops");
        link.cut();
        assert!(matches!(within(served.read(&mut [0; 1])).await, Err(_) | Ok(0)));
        assert_eq!((link.fired(Kind::Drip), link.fired(Kind::Cut)), (1, 1));
    }
}
