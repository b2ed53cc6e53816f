//! Guessing passwords, and taking all connections: nobody else is kept out by it.

use super::*;
use crate::mqtt::harness::string;
use weir_gateway::mqtt::passwords;

/// Of each guesser.
const GUESSES: u32 = 50;
/// For a login. To check a password takes this debug build up to half a second on a busy machine, and a few guesses are before it.
const LOGIN_MAX: Duration = Duration::from_secs(15);

fn login(name: &str, password: &str) -> Vec<u8> {
    connect_v4(name, 60, 0xc0, &[string(name), string(password)])
}

/// A socket from another address of this machine.
fn open_from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("an address of this machine");
    let stream = tokio::runtime::Handle::current();
    let stream = tokio::task::block_in_place(|| stream.block_on(socket.connect(address)));
    let stream = stream.expect("a listener").into_std().expect("a socket");
    stream.set_nonblocking(false).expect("an option of every socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of every socket");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_passwords_costs_little_and_keeps_nobody_out() {
    let file = format!("neighbour:{}\n", passwords::hash("secret"));
    let toml = "mqtt.password_file = \"FOLDER/passwords\"";
    let write = |folder: &std::path::Path| std::fs::write(folder.join("passwords"), file).expect("a file");
    let daemon = Daemon::start(toml, write, None).await;
    let address = daemon.addresses[0];
    let before = daemon.cpu_ticks();
    let guessers: Vec<_> = (0..8)
        .map(|guesser| {
            std::thread::spawn(move || {
                let mut refused = [0_u32; 256];
                (0..GUESSES).for_each(|round| {
                    let mut stream = open(address);
                    stream.write_all(&login(&format!("n{guesser}-{round}"), "guess")).expect("a connection");
                    let mut answer = [0; 4];
                    stream.read_exact(&mut answer).expect("an answer");
                    refused[usize::from(answer[3])] += 1;
                });
                refused
            })
        })
        .collect();
    // Meanwhile somebody else logs in, from elsewhere.
    let mut longest = Duration::ZERO;
    while !guessers.iter().all(JoinHandle::is_finished) {
        let begun = Instant::now();
        let mut stream = open_from(2, address);
        stream.write_all(&login("neighbour", "secret")).expect("a connection");
        expect(&mut stream, &CONNACK_V4);
        longest = longest.max(begun.elapsed());
    }
    let mut answers = [0; 256];
    for guesser in guessers {
        let refused = guesser.join().expect("every guess is answered");
        answers.iter_mut().zip(refused).for_each(|(sum, count)| *sum += count);
    }
    let (checked, unchecked) = (answers[4], answers[3]);
    let ticks = daemon.cpu_ticks() - before;
    println!("{checked} guesses checked, {unchecked} not; the longest login {longest:.1?}; {ticks} ticks");
    assert!(
        checked < 40 && checked + unchecked == 8 * GUESSES,
        "{checked} were checked, {unchecked} were not"
    );
    assert!(longest < LOGIN_MAX, "a login took {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_all_the_connections_there_are() {
    let toml = "mqtt.connections_max = 100\nmqtt.connections_per_address_max = 60";
    let daemon = Daemon::start(toml, |_| {}, None).await;
    let address = daemon.addresses[0];
    let taken: Vec<TcpStream> = (0..200).map(|_| open(address)).collect();
    let closed = |mut stream: &TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("an option of every socket");
        matches!(stream.read(&mut [0]), Ok(0))
    };
    assert!(closed(&taken[199]) && closed(&taken[60]) && !closed(&taken[59]));
    let mut other = open_from(2, address);
    other.write_all(&connect_v4("dev-1", 60, 0, &[])).expect("a connection");
    expect(&mut other, &CONNACK_V4);
    // They come back when they are given up.
    drop(taken);
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let mut stream = open(address);
        let _ = stream.write_all(&connect_v4("dev-2", 60, 0, &[]));
        if stream.read_exact(&mut [0; 4]).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "a place that was given up is still taken");
    }
}
