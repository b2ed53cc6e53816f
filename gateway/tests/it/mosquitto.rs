//! A real Mosquitto in a folder of its own, and somebody who publishes there. Started again it has the same port and, if it keeps
//! anything, what it kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::wait::{SOON, until};

/// A broker; killed when dropped.
pub struct Mosquitto {
    folder: TempDir,
    port: u16,
    more: String,
    process: Option<Child>,
}

impl Mosquitto {
    /// One that keeps what it was given over a restart.
    pub async fn start() -> Mosquitto {
        let mut broker = Mosquitto::stopped("persistence true\nallow_anonymous true");
        broker.start_again().await;
        broker
    }

    /// Not running yet, with these lines in its configuration.
    pub fn stopped(more: &str) -> Mosquitto {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|taken| taken.local_addr())
            .expect("a free port")
            .port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Mosquitto { folder, port, more: more.to_owned(), process: None }
    }

    /// Other lines for its configuration, from the next start on.
    pub fn set_more(&mut self, more: &str) {
        more.clone_into(&mut self.more);
    }

    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is running");
        let folder = self.folder.path();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("a log file");
        // Who is root would become somebody who may not write here.
        let text = format!(
            "user root\nlistener {} 127.0.0.1\npersistence_location {}/\nmax_queued_messages 0\n{}\n",
            self.port,
            folder.display(),
            self.more
        );
        std::fs::write(folder.join("conf"), text).expect("writing the configuration");
        let mut command = Command::new(program());
        command.arg("-c").arg(folder.join("conf")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the log file")).stderr(log);
        let child = command
            .spawn()
            .expect("starting mosquitto: `make setup` installs it, or apt-get install mosquitto");
        self.process = Some(child);
        let address = self.address();
        until("mosquitto listens", async || TcpStream::connect(address).is_ok()).await;
    }

    /// SIGTERM: it writes down what it keeps.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        assert!(Command::new("kill").arg(process.id().to_string()).status().expect("kill").success());
        process.wait().expect("its end");
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// For `broker = …`.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn program() -> PathBuf {
    let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];
    places.into_iter().map(PathBuf::from).find(|place| place.exists()).unwrap_or_else(|| "mosquitto".into())
}

/// Publishes with QoS 1, one after the other.
pub struct Publisher {
    stream: TcpStream,
}

impl Publisher {
    pub fn connect(address: SocketAddr) -> Publisher {
        Publisher::try_connect(address).expect("connecting to the broker")
    }

    /// `None` where there is no broker now.
    pub fn try_connect(address: SocketAddr) -> Option<Publisher> {
        let mut stream = TcpStream::connect_timeout(&address, SOON).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01p").ok()?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).ok()?;
        (answer == [0x20, 2, 0, 0]).then_some(Publisher { stream })
    }

    /// Whether the broker has acknowledged it.
    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> bool {
        let topic_len = u16::try_from(topic.len()).expect("short");
        let body = [&topic_len.to_be_bytes(), topic.as_bytes(), &[0, 1], payload].concat();
        let mut packet = vec![0x32 | u8::from(retain)];
        let mut len = body.len();
        while len > 127 {
            packet.push(u8::try_from(len % 128).expect("below 128") | 128);
            len /= 128;
        }
        packet.push(u8::try_from(len).expect("below 128"));
        packet.extend(body);
        let mut answer = [0; 4];
        self.stream.write_all(&packet).is_ok()
            && self.stream.read_exact(&mut answer).is_ok()
            && answer[0] == 0x40
    }
}
