//! An MQTT server that acknowledges everything, as fast as it can, and remembers what it was asked to.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// What the sink does beside acknowledging.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    /// Keep every payload.
    pub remember: bool,
    /// Close a connection after it has published this often, its last publish stored and not acknowledged.
    pub close_after: Option<u64>,
}

/// A running sink; it ends when it is dropped.
pub struct Sink {
    pub address: SocketAddr,
    uplinks: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    pub fn start(behaviour: Behaviour) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any_port).expect("a free port on loopback");
        let address = listener.local_addr().expect("bound");
        let uplinks = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let server = Server {
            listener,
            behaviour,
            poll: Poll::new().expect("a poller"),
            clients: HashMap::new(),
            next: LISTENER + 1,
            uplinks: Arc::clone(&uplinks),
            read: vec![0; 256 * 1024],
            out: Vec::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || server.serve(&stopped));
        Self { address, uplinks, stop, thread: Some(thread) }
    }

    /// The payloads so far, in order of arrival.
    #[allow(dead_code, reason = "not every user looks")]
    pub fn uplinks(&self) -> Vec<Vec<u8>> {
        self.uplinks.lock().expect("the sink does not panic").clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const LISTENER: usize = 0;

struct Server {
    listener: TcpListener,
    behaviour: Behaviour,
    poll: Poll,
    clients: HashMap<usize, Client>,
    next: usize,
    uplinks: Arc<Mutex<Vec<Vec<u8>>>>,
    read: Vec<u8>,
    out: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    incoming: Vec<u8>,
    published: u64,
}

impl Server {
    fn serve(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(1024);
        self.poll
            .registry()
            .register(&mut self.listener, Token(LISTENER), Interest::READABLE)
            .expect("registered");
        while !stop.load(Relaxed) {
            if self.poll.poll(&mut events, Some(Duration::from_millis(20))).is_err() {
                continue;
            }
            for event in &events {
                match event.token().0 {
                    LISTENER => self.accept(),
                    client => {
                        if self.receive(client).is_none() {
                            self.clients.remove(&client);
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let _ = stream.set_nodelay(true);
            self.poll
                .registry()
                .register(&mut stream, Token(self.next), Interest::READABLE)
                .expect("registered");
            self.clients.insert(self.next, Client { stream, incoming: Vec::new(), published: 0 });
            self.next += 1;
        }
    }

    /// `None` if the connection is over.
    fn receive(&mut self, client: usize) -> Option<()> {
        loop {
            let client = self.clients.get_mut(&client)?;
            match client.stream.read(&mut self.read) {
                Ok(0) => return None,
                Ok(len) => client.incoming.extend_from_slice(&self.read[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
                Err(_) => return None,
            }
            self.out.clear();
            let mut start = 0;
            while let Some(len) = packet_len(&client.incoming[start..]) {
                let packet = &client.incoming[start..start + len];
                if !answer(packet, &mut self.out, client.published, self.behaviour, &self.uplinks) {
                    return None;
                }
                client.published += u64::from(packet[0] >> 4 == 3);
                start += len;
            }
            client.incoming.drain(..start);
            // Acknowledgements are short, and the other side reads them: the socket has room.
            client.stream.write_all(&self.out).ok()?;
        }
    }
}

/// Length of the whole packet that `bytes` begin with, if it is all there.
fn packet_len(bytes: &[u8]) -> Option<usize> {
    let mut rest = 0;
    for place in 0..4 {
        let byte = *bytes.get(1 + place)?;
        rest |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let len = 2 + place + rest;
            return (bytes.len() >= len).then_some(len);
        }
    }
    panic!("the client sends no MQTT");
}

/// Whether the connection goes on.
fn answer(
    packet: &[u8],
    out: &mut Vec<u8>,
    published: u64,
    behaviour: Behaviour,
    uplinks: &Mutex<Vec<Vec<u8>>>,
) -> bool {
    let rest = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length") + 1;
    match packet[0] >> 4 {
        1 => out.extend([0x20, 2, 0, 0]),
        3 => {
            let topic_len = usize::from(u16::from_be_bytes([packet[rest], packet[rest + 1]]));
            let id = rest + 2 + topic_len;
            if behaviour.remember {
                uplinks.lock().expect("nobody panics").push(packet[id + 2..].to_vec());
            }
            if behaviour.close_after.is_some_and(|count| published + 1 >= count) {
                return false;
            }
            out.extend([0x40, 2, packet[id], packet[id + 1]]);
        }
        8 => out.extend([0x90, 4, packet[rest], packet[rest + 1], 1, 1]),
        12 => out.extend([0xd0, 0]),
        14 => return false,
        _ => {}
    }
    true
}
