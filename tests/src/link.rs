//! A network that can fail: a TCP forwarder between two parts. Cut it, and connections break and no new one
//! comes about; let it swallow, and nothing breaks but nothing arrives, as with a modem that lost its tower; slow it
//! down; have it break every connection after some bytes, wherever in a message that is; or give it weather.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::wait::pause;

const CARRIES: u8 = 0;
const CUT: u8 = 1;
const SWALLOWS: u8 = 2;
const SWALLOWS_ANSWERS: u8 = 3;
const CLOSED: u8 = 4;
const SLOW: u8 = 5;
const FRAGILE: u8 = 6;
const WEATHER: u8 = 7;

/// How long a forwarder's thread blocks before it looks at the link's state again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 64 * 1024;
/// A slow link carries so many bytes at once, and no more before their time has passed.
const SLOW_PIECE_BYTES: usize = 1024;

/// A link that is far and loses: what TCP makes of that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// In each direction.
    pub delay_ms: u64,
    /// Of what is carried at once, so much is lost and sent again after …
    pub stall_percent: u8,
    /// … so long.
    pub stall_ms: u64,
    /// And so much ends its connection.
    pub break_percent: u8,
    /// What happens when.
    pub seed: u64,
}

/// A forwarder from an address of its own to another.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    state: AtomicU8,
    /// Bytes a second of a slow link in each direction of a connection; bytes that a fragile one carries at most.
    bytes: AtomicU64,
    sent_bytes: AtomicU64,
    weather: Mutex<Weather>,
    streams: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// Forwards connections made to [`address`](Self::address) to `to`.
    pub fn to(to: SocketAddr) -> Result<Link> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Shared {
            to,
            state: AtomicU8::new(CARRIES),
            bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            weather: Mutex::default(),
            streams: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.state.load(Ordering::SeqCst) == CLOSED {
                    return;
                }
                if let Ok(stream) = stream {
                    // One that cannot be carried is dropped, which the client sees as a broken connection.
                    let _ = accepting.carry(stream);
                }
            }
        });
        Ok(Link { address, shared })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and refuses new ones.
    pub fn cut(&self) {
        self.shared.state.store(CUT, Ordering::SeqCst);
        self.shared.break_all();
    }

    /// Keeps every connection, and new ones too, but carries nothing any more. What was swallowed is gone,
    /// so [`restore`](Self::restore) breaks these connections.
    pub fn swallow(&self) {
        self.shared.state.store(SWALLOWS, Ordering::SeqCst);
    }

    /// Carries what the connecting side sends, but no answer any more: acknowledgements are lost.
    pub fn swallow_answers(&self) {
        self.shared.state.store(SWALLOWS_ANSWERS, Ordering::SeqCst);
    }

    /// Carries no more than so many bytes a second, in each direction of each connection.
    pub fn slow(&self, bytes_per_s: u64) {
        self.shared.bytes.store(bytes_per_s.max(1), Ordering::SeqCst);
        self.shared.state.store(SLOW, Ordering::SeqCst);
    }

    /// Breaks every connection as soon as it has carried so many bytes in one direction, counted from now.
    pub fn break_after(&self, bytes: u64) {
        self.shared.bytes.store(bytes, Ordering::SeqCst);
        self.shared.state.store(FRAGILE, Ordering::SeqCst);
    }

    /// Carries as that weather lets it.
    pub fn be(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
        self.shared.state.store(WEATHER, Ordering::SeqCst);
    }

    /// Carries again.
    pub fn restore(&self) {
        if matches!(self.shared.state.swap(CARRIES, Ordering::SeqCst), SWALLOWS | SWALLOWS_ANSWERS) {
            self.shared.break_all();
        }
    }

    /// Bytes carried from the connecting side to the other, in all.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state.store(CLOSED, Ordering::SeqCst);
        self.shared.break_all();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Weather {
    /// Waits as long as it takes; whether it arrives.
    fn lets_through(self, random: &mut fastrand::Rng, is_cut: impl Fn() -> bool) -> bool {
        let stalls = random.u8(0..100) < self.stall_percent;
        let breaks = random.u8(0..100) < self.break_percent;
        pause(Duration::from_millis(self.delay_ms + if stalls { self.stall_ms } else { 0 }));
        !breaks && !is_cut()
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, near: TcpStream) -> Result<()> {
        if self.state.load(Ordering::SeqCst) == CUT {
            return Ok(());
        }
        let far = TcpStream::connect(self.to)?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK_EVERY))?;
        }
        {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.push(near.try_clone()?);
            streams.push(far.try_clone()?);
        }
        let (there, back) = (Arc::clone(self), Arc::clone(self));
        let (near_reader, far_writer) = (near.try_clone()?, far.try_clone()?);
        std::thread::spawn(move || there.copy(near_reader, far_writer, true));
        std::thread::spawn(move || back.copy(far, near, false));
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, there: bool) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut carried = 0;
        let mut random = fastrand::Rng::with_seed(self.weather().seed ^ u64::from(there));
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    continue;
                }
                Err(_) => break,
            };
            let state = self.state.load(Ordering::SeqCst);
            match state {
                CARRIES | SLOW | WEATHER => carried = 0,
                FRAGILE => {}
                SWALLOWS_ANSWERS if there => {}
                SWALLOWS | SWALLOWS_ANSWERS => continue,
                _ => break,
            }
            if state == WEATHER && !self.weather().lets_through(&mut random, || self.is_cut()) {
                break;
            }
            let bytes = self.bytes.load(Ordering::SeqCst);
            let room = usize::try_from(bytes.saturating_sub(carried)).unwrap_or(usize::MAX);
            let breaks = state == FRAGILE && length >= room;
            let written = match state {
                SLOW => self.write_slowly(&mut to, &buffer[..length]),
                _ => to.write_all(&buffer[..if breaks { room } else { length }]),
            };
            if written.is_err() || breaks {
                break;
            }
            carried += length as u64;
            if there {
                self.sent_bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self) -> bool {
        matches!(self.state.load(Ordering::SeqCst), CUT | CLOSED)
    }

    /// As slow as the link is, for as long as it is slow.
    fn write_slowly(&self, to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(SLOW_PIECE_BYTES) {
            to.write_all(piece)?;
            match self.state.load(Ordering::SeqCst) {
                SLOW => {
                    let bytes_per_s = self.bytes.load(Ordering::SeqCst).max(1);
                    pause(Duration::from_secs_f64(piece.len() as f64 / bytes_per_s as f64));
                }
                CARRIES => {}
                // Cut in the middle of a message.
                _ => return Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        }
        Ok(())
    }

    fn break_all(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut writer = stream.try_clone().expect("a socket can be cloned");
                    let _ = std::io::copy(&mut &stream, &mut writer);
                });
            }
        });
        Ok(address)
    }

    fn connect(link: &Link) -> Result<TcpStream> {
        let stream = TcpStream::connect(link.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    }

    fn ask(stream: &mut TcpStream) -> Result<usize> {
        stream.write_all(b"hello")?;
        Ok(stream.read(&mut [0; 16])?)
    }

    #[test]
    fn carries_until_it_is_cut_and_again_when_it_is_restored() -> Result<()> {
        let link = Link::to(echo()?)?;
        let mut stream = connect(&link)?;
        assert_eq!(ask(&mut stream)?, 5);
        assert_eq!(link.sent_bytes(), 5);
        link.cut();
        assert!(matches!(ask(&mut stream), Err(_) | Ok(0)), "carried although cut");
        assert!(matches!(connect(&link).and_then(|mut stream| ask(&mut stream)), Err(_) | Ok(0)));
        link.restore();
        assert_eq!(ask(&mut connect(&link)?)?, 5);
        Ok(())
    }

    #[test]
    fn swallows_without_breaking_the_connection() -> Result<()> {
        let link = Link::to(echo()?)?;
        let mut stream = connect(&link)?;
        assert_eq!(ask(&mut stream)?, 5);
        link.swallow_answers();
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        let error = ask(&mut stream).expect_err("no answer can come").downcast::<std::io::Error>()?;
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        assert_eq!(link.sent_bytes(), 10);
        link.restore();
        assert_eq!(ask(&mut connect(&link)?)?, 5);
        Ok(())
    }

    #[test]
    fn carries_slowly_and_whole() -> Result<()> {
        let link = Link::to(echo()?)?;
        let mut stream = connect(&link)?;
        link.slow(16 * 1024);
        let begun = std::time::Instant::now();
        stream.write_all(&[7; 4096])?;
        stream.read_exact(&mut [0; 4096])?;
        // Four pieces; the time of the last one passes after it.
        assert!(begun.elapsed() >= Duration::from_millis(180), "4 KiB at 16 KiB/s");
        link.restore();
        assert_eq!(ask(&mut stream)?, 5, "the connection stays");
        Ok(())
    }

    #[test]
    fn weather_delays_stalls_and_breaks() -> Result<()> {
        let link = Link::to(echo()?)?;
        link.be(Weather { delay_ms: 100, ..Weather::default() });
        let mut stream = connect(&link)?;
        let begun = std::time::Instant::now();
        assert_eq!(ask(&mut stream)?, 5);
        assert!(begun.elapsed() >= Duration::from_millis(200), "there and back");
        link.be(Weather { stall_percent: 100, stall_ms: 150, ..Weather::default() });
        let begun = std::time::Instant::now();
        assert_eq!(ask(&mut stream)?, 5);
        assert!(begun.elapsed() >= Duration::from_millis(300), "sent again, there and back");
        link.be(Weather { break_percent: 100, ..Weather::default() });
        assert!(matches!(ask(&mut stream), Err(_) | Ok(0)), "carried in a storm");
        Ok(())
    }

    #[test]
    fn breaks_a_connection_after_so_many_bytes() -> Result<()> {
        let link = Link::to(echo()?)?;
        link.break_after(8);
        let mut stream = connect(&link)?;
        assert_eq!(ask(&mut stream)?, 5);
        stream.write_all(b"hello")?;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() <= 3, "{} bytes of the second five", rest.len());
        link.restore();
        assert_eq!(ask(&mut connect(&link)?)?, 5);
        Ok(())
    }
}
