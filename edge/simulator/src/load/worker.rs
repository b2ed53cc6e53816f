//! A thread that carries the bytes of many publishers: one read and one write per wake.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use weir_device::Backoff;

use super::Shared;
use super::client::{Client, Now, Pace};
use super::template::AGE_MS_MIN;
use super::wire::{self, NoMqtt, Packet};
use crate::output::Latency;

const READ_LEN: usize = 64 * 1024;
/// Connections being made at the same time, by one worker.
const CONNECTING_MAX: usize = 128;
const CONNECT_TIMEOUT_US: u64 = 10_000_000;
pub(super) const KEEP_ALIVE_S: u16 = 60;
const PING_AFTER_US: u64 = 25_000_000;
/// How often what is not driven by the sockets is looked after.
const HOUSEKEEPING_US: u64 = 20_000;

/// A client and its connection.
pub(super) struct Connection {
    client: Client,
    /// The CONNECT packet.
    connect: Vec<u8>,
    link: Link,
    backoff: Backoff,
    /// The beginning of a packet whose rest has not come.
    incoming: Vec<u8>,
    /// What the socket had no room for.
    outgoing: Vec<u8>,
    written_us: u64,
}

enum Link {
    Down { retry_us: u64 },
    Connecting { stream: TcpStream, since_us: u64, asked: bool },
    Up { stream: TcpStream },
}

/// See the module's documentation.
pub(super) struct Worker {
    shared: Arc<Shared>,
    gateway: SocketAddr,
    poll: Poll,
    connections: Vec<Connection>,
    /// Paced load: one of the connections, in turn, is due to publish every so many microseconds.
    turn_us: Option<f64>,
    turns: u64,
    started: Instant,
    now_us: u64,
    housekept_us: u64,
    running: bool,
    done: bool,
    read: Vec<u8>,
    out: Vec<u8>,
    latencies: Histogram<u64>,
    /// Connections being made.
    connecting: usize,
}

/// What a worker has done.
pub(super) struct Report {
    pub(super) clients: Vec<Client>,
    pub(super) latencies: Histogram<u64>,
    /// CPU time of the thread, where the system tells.
    pub(super) cpu: Option<Duration>,
}

impl Connection {
    pub(super) fn new(client: Client, connect: Vec<u8>, seed: u64) -> Self {
        Self {
            client,
            connect,
            link: Link::Down { retry_us: 0 },
            backoff: Backoff::new(100, 2000, seed),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written_us: 0,
        }
    }
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        gateway: SocketAddr,
        mut connections: Vec<Connection>,
        turn_us: Option<f64>,
        started: Instant,
    ) -> std::io::Result<Self> {
        if let Some(turn_us) = turn_us {
            let interval_us = turn_us * connections.len() as f64;
            for (place, connection) in connections.iter_mut().enumerate() {
                connection.client.set_pace(Pace::Even { first_us: turn_us * place as f64, interval_us });
            }
        }
        Ok(Self {
            shared,
            gateway,
            poll: Poll::new()?,
            connections,
            turn_us,
            turns: 0,
            started,
            now_us: 0,
            housekept_us: 0,
            running: false,
            done: false,
            read: vec![0; READ_LEN],
            out: Vec::with_capacity(READ_LEN),
            latencies: Latency::histogram(),
            connecting: 0,
        })
    }

    /// Works until all is done, or the load is told to end.
    pub(super) fn run(mut self) -> std::io::Result<Report> {
        let mut events = Events::with_capacity(1024);
        self.keep_house();
        while !self.shared.quit.load(Relaxed) && !self.done {
            match self.poll.poll(&mut events, Some(self.patience())) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.now_us = micros(self.started.elapsed());
            for event in &events {
                self.attend(event);
            }
            self.take_turns();
            if self.now_us >= self.housekept_us + HOUSEKEEPING_US {
                self.keep_house();
            }
        }
        self.say_goodbye();
        let clients = self.connections.into_iter().map(|connection| connection.client).collect();
        Ok(Report { clients, latencies: self.latencies, cpu: thread_cpu() })
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(if self.running && self.turn_us.is_some() { 1 } else { 10 })
    }

    /// Lets those publish whose turn has come. One whose window is full does it when an acknowledgement comes.
    fn take_turns(&mut self) {
        let Some(turn_us) = self.turn_us.filter(|_| self.running) else { return };
        let now_us = self.now().us;
        while self.turns as f64 * turn_us <= now_us as f64 {
            let whose = self.turns % self.connections.len() as u64;
            self.turns += 1;
            self.publish(usize::try_from(whose).expect("an index"));
        }
    }

    fn now(&self) -> Now {
        // Five weeks after the beginning it ends at the greatest number there is.
        let boot_ms = u32::try_from(AGE_MS_MIN + self.now_us / 1000).unwrap_or(u32::MAX);
        Now { us: self.now_us.saturating_sub(self.shared.went_us.load(Relaxed)), boot_ms }
    }

    /// What no socket tells: the beginning, the end, connections to be made, pings.
    fn keep_house(&mut self) {
        self.now_us = micros(self.started.elapsed());
        self.housekept_us = self.now_us;
        if self.shared.stop.load(Relaxed) {
            self.running = false;
            self.connections.iter_mut().for_each(|connection| connection.client.stop());
        } else if !self.running && self.shared.go.load(Relaxed) {
            self.running = true;
        }
        for index in 0..self.connections.len() {
            self.keep_connection(index);
            self.publish(index);
        }
        let ending = self.shared.ends_by_itself || self.shared.stop.load(Relaxed);
        self.done = ending && self.connections.iter().all(|connection| connection.client.is_done());
    }

    fn keep_connection(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        match connection.link {
            Link::Down { retry_us } if retry_us <= self.now_us && self.connecting < CONNECTING_MAX => {
                self.connect(index);
            }
            Link::Connecting { since_us, .. } if self.now_us > since_us + CONNECT_TIMEOUT_US => {
                self.disconnected(index, "no answer to CONNECT");
            }
            Link::Up { .. } if self.now_us > connection.written_us + PING_AFTER_US => {
                self.out.clear();
                self.out.extend(wire::PINGREQ);
                self.write(index);
            }
            _ => {}
        }
    }

    fn connect(&mut self, index: usize) {
        let opened = TcpStream::connect(self.gateway).and_then(|mut stream| {
            let interests = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interests)?;
            Ok(stream)
        });
        self.connecting += 1;
        let since_us = self.now_us;
        match opened {
            Ok(stream) => self.connections[index].link = Link::Connecting { stream, since_us, asked: false },
            Err(error) => self.disconnected(index, &error.to_string()),
        }
    }

    fn attend(&mut self, event: &Event) {
        let index = event.token().0;
        if let Link::Connecting { stream, asked, .. } = &mut self.connections[index].link
            && !*asked
            && event.is_writable()
        {
            if let Ok(Some(error)) = stream.take_error() {
                return self.disconnected(index, &error.to_string());
            }
            if stream.peer_addr().is_err() {
                return;
            }
            *asked = true;
            let _ = stream.set_nodelay(true);
            self.out.clear();
            self.out.extend_from_slice(&self.connections[index].connect);
            self.write(index);
        } else if event.is_writable() && !self.connections[index].outgoing.is_empty() {
            self.out.clear();
            self.write(index);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(index);
        }
        self.publish(index);
    }

    fn receive(&mut self, index: usize) {
        loop {
            let (Link::Connecting { stream, .. } | Link::Up { stream }) = &mut self.connections[index].link
            else {
                return;
            };
            match stream.read(&mut self.read) {
                Ok(0) => return self.disconnected(index, "closed by the gateway"),
                Ok(len) => {
                    if let Err(NoMqtt) = self.take(index, len) {
                        return self.disconnected(index, "the gateway does not speak MQTT");
                    }
                    // A short read has emptied the socket: what comes later is a new event (epoll(7), question 9).
                    if len < READ_LEN {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.disconnected(index, &error.to_string()),
            }
        }
    }

    /// Takes the packets in the first `len` bytes that were read.
    fn take(&mut self, index: usize, len: usize) -> Result<(), NoMqtt> {
        let now = self.now();
        let Connection { client, incoming, .. } = &mut self.connections[index];
        let latencies = &mut self.latencies;
        let (mut acknowledged, mut answer) = (0, None);
        let mut read = |packet| match packet {
            Packet::PubAck { id } => acknowledged += u64::from(client.acknowledged(id, now, latencies)),
            Packet::ConnAck { code } => answer = Some(code),
            Packet::Other => {}
        };
        if incoming.is_empty() {
            let whole = wire::read_packets(&self.read[..len], &mut read)?;
            incoming.extend_from_slice(&self.read[whole..len]);
        } else {
            incoming.extend_from_slice(&self.read[..len]);
            let whole = wire::read_packets(incoming, &mut read)?;
            incoming.drain(..whole);
        }
        if acknowledged > 0 {
            self.shared.acknowledged.fetch_add(acknowledged, Relaxed);
            self.connections[index].backoff.reset();
        }
        if let Some(code) = answer {
            self.connected(index, code);
        }
        Ok(())
    }

    fn connected(&mut self, index: usize, code: u8) {
        if code != 0 {
            return self.disconnected(index, &format!("CONNECT refused with return code {code}"));
        }
        let now = self.now();
        let connection = &mut self.connections[index];
        let link = std::mem::replace(&mut connection.link, Link::Down { retry_us: 0 });
        if let Link::Connecting { stream, .. } = link {
            self.connecting -= 1;
            connection.link = Link::Up { stream };
            self.shared.connected.fetch_add(1, Relaxed);
            self.out.clear();
            let again = connection.client.publish_again(&mut self.out, now);
            self.shared.again.fetch_add(again, Relaxed);
            self.write(index);
        } else {
            connection.link = link;
        }
    }

    fn publish(&mut self, index: usize) {
        let now = self.now();
        let connection = &mut self.connections[index];
        if !self.running || !matches!(connection.link, Link::Up { .. }) || !connection.outgoing.is_empty() {
            return;
        }
        self.out.clear();
        let made = connection.client.publish(&mut self.out, now);
        if made > 0 {
            self.shared.sent.fetch_add(made, Relaxed);
            self.write(index);
        }
    }

    /// Writes what waits, then `self.out`.
    fn write(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (Link::Connecting { stream, .. } | Link::Up { stream }) = &mut connection.link else { return };
        if !connection.outgoing.is_empty() {
            connection.outgoing.extend_from_slice(&self.out);
            std::mem::swap(&mut connection.outgoing, &mut self.out);
            connection.outgoing.clear();
        }
        let mut written = 0;
        let failure = loop {
            if written == self.out.len() {
                break None;
            }
            match stream.write(&self.out[written..]) {
                Ok(0) => break Some("closed by the gateway".to_string()),
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        connection.outgoing.extend_from_slice(&self.out[written..]);
        connection.written_us = self.now_us;
        if let Some(why) = failure {
            self.disconnected(index, &why);
        }
    }

    fn disconnected(&mut self, index: usize, why: &str) {
        let connection = &mut self.connections[index];
        match connection.link {
            Link::Up { .. } => {
                self.shared.connected.fetch_sub(1, Relaxed);
            }
            _ => self.connecting = self.connecting.saturating_sub(1),
        }
        self.shared.trouble(why);
        // Dropping the stream closes it, and with that its registration ends.
        connection.link = Link::Down { retry_us: self.now_us + connection.backoff.wait_ms() * 1000 };
        connection.incoming = Vec::new();
        connection.outgoing = Vec::new();
    }

    fn say_goodbye(&mut self) {
        for connection in &mut self.connections {
            if let Link::Up { stream } = &mut connection.link {
                let _ = stream.write(&wire::DISCONNECT);
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// CPU time of this thread: the first number of Linux's `schedstat`, in nanoseconds.
fn thread_cpu() -> Option<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
