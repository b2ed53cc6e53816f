//! Bad neighbours: while one client does its worst, another device's publishes are acknowledged in time, and the gateway's
//! memory stays within limits.
#![cfg(target_os = "linux")]

mod floods;
mod hoards;
mod logins;
mod storms;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::harness::{CONNACK_V4, connect_v4, puback, publish, uplink_payload};

/// No publish of a well-behaved device waits longer for its acknowledgement, whatever others do: a debug build on two cores
/// that it shares with its attackers.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How much more memory an attack may take than there was before: far below what the limits of these tests allow.
const GROWTH_BYTES_MAX: usize = 96 << 20;

const RIGHTS: &str = "mqtt.client = [{ name = \"app\", publish = [\"#\"], subscribe = [\"#\"] }, \
                      { name = \"other\", publish = [\"#\"], subscribe = [\"#\"] }]";

/// How long each attack lasts.
const ATTACK: Duration = Duration::from_millis(1500);

/// A connection that gives up after a while.
fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of every socket");
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("an option of every socket");
    stream.set_nodelay(true).expect("an option of every socket");
    stream
}

/// A client of MQTT 3.1.1, accepted.
fn connect(address: SocketAddr, client_id: &str) -> TcpStream {
    let mut stream = open(address);
    stream.write_all(&connect_v4(client_id, 600, 0, &[])).expect("a connection");
    expect(&mut stream, &CONNACK_V4);
    stream
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).expect("an answer");
    assert_eq!(read, bytes);
}

/// A device that publishes, waits for its acknowledgement, and publishes again.
struct Neighbour {
    /// Dropped to stop it.
    stop: mpsc::Sender<()>,
    publishing: JoinHandle<(u32, Duration)>,
}

impl Neighbour {
    fn begin(address: SocketAddr) -> Neighbour {
        let (stop, stopped) = mpsc::channel();
        let mut stream = connect(address, "neighbour");
        let publishing = std::thread::spawn(move || {
            let (mut seq, mut longest) = (0, Duration::ZERO);
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                seq += 1;
                let uplink = publish("weir/1/neighbour/events", 1, 1, &uplink_payload(seq));
                let begun = Instant::now();
                stream.write_all(&uplink).expect("its connection is its own");
                expect(&mut stream, &puback(1));
                longest = longest.max(begun.elapsed());
            }
            (seq, longest)
        });
        Neighbour { stop, publishing }
    }

    /// How many publishes were acknowledged, and the longest wait of one.
    fn end(self) -> (u32, Duration) {
        drop(self.stop);
        self.publishing.join().expect("every publish is acknowledged")
    }
}

/// Does `attack` to the gateway while a neighbour publishes, and holds both to the limits. Returns what it took.
fn suffer(what: &str, daemon: &Daemon, attack: impl FnOnce(SocketAddr)) {
    let address = daemon.addresses[0];
    drop(connect(address, "warm-up"));
    let before = daemon.resident_bytes();
    let neighbour = Neighbour::begin(address);
    attack(address);
    let (publishes, longest) = neighbour.end();
    let growth = daemon.resident_bytes_peak().saturating_sub(before);
    println!(
        "{what}: {publishes} publishes of a neighbour, the longest wait {longest:.1?}; {} KiB more resident",
        growth >> 10
    );
    assert!(publishes > 3 && longest < WAIT_MAX, "{what}: {publishes} publishes, {longest:?}");
    assert!(growth < GROWTH_BYTES_MAX, "{what}: {growth} bytes more resident");
    // Who comes after it finds everything as it was.
    drop(connect(address, "late"));
}

/// Repeats `act` for the time of an attack.
fn again_and_again(mut act: impl FnMut(u32)) {
    let begun = Instant::now();
    for round in 0.. {
        if begun.elapsed() > ATTACK {
            return;
        }
        act(round);
    }
}
