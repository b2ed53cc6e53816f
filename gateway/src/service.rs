//! What the service manager is told (systemd, sd_notify(3)): that the gateway is ready, alive, going down, and how it does.
//!
//! Without `$NOTIFY_SOCKET` nobody is told anything; everything else is the same. Alive means [`Running::pulse`]: the event
//! loop turns, the committing thread has gone round since it was asked, and nothing that should run for ever has ended.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as Plain};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};

use crate::running::{Dead, Running};

/// How often the parts are asked whether they are alive, unless the watchdog wants it more often.
const PULSE_EVERY: Duration = Duration::from_secs(10);
/// Four pulses in the time the watchdog allows: one that comes late does no harm.
const PULSES_PER_WATCHDOG: u32 = 4;
/// For the manager to take a message.
const TELL_MAX: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    pulse_every: Duration,
}

impl Manager {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. Has to be called on a runtime.
    ///
    /// # Errors
    /// There is a `NOTIFY_SOCKET` and nobody is behind it.
    pub fn from_environment() -> io::Result<Manager> {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| for_us).map(Duration::from_micros);
        Manager::new(socket.as_deref(), watchdog)
    }

    fn new(socket: Option<&OsStr>, watchdog: Option<Duration>) -> io::Result<Manager> {
        let socket = socket.map(connect).transpose()?;
        let pulse_every =
            watchdog.map_or(PULSE_EVERY, |watchdog| PULSE_EVERY.min(watchdog / PULSES_PER_WATCHDOG));
        Ok(Manager { socket, pulse_every })
    }

    /// The gateway takes devices in from now on.
    pub async fn ready(&self, running: &Running) {
        self.tell(&format!("READY=1\nSTATUS={}", running.in_a_line())).await;
    }

    /// The gateway stores and delivers what it has taken, and ends.
    pub async fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=storing and delivering what was taken").await;
    }

    /// Asks again and again whether the gateway is alive, and tells the manager each time it is: only then. Resolves when a
    /// part of it is dead; a part that does not answer is left to the manager's watchdog.
    pub async fn watch(&self, running: &Running) -> Dead {
        loop {
            sleep(self.pulse_every).await;
            let mut pulse = std::pin::pin!(running.pulse());
            let beat = match timeout(self.pulse_every, &mut pulse).await {
                Ok(beat) => beat,
                Err(_) => {
                    tracing::warn!("the disk has not answered for {:.1?}", self.pulse_every);
                    self.tell("STATUS=waiting for the disk; nothing is acknowledged meanwhile").await;
                    pulse.await
                }
            };
            match beat {
                Ok(()) => self.tell(&format!("WATCHDOG=1\nSTATUS={}", running.in_a_line())).await,
                Err(dead) => return dead,
            }
        }
    }

    async fn tell(&self, lines: &str) {
        let Some(socket) = &self.socket else { return };
        let error = match timeout(TELL_MAX, socket.send(lines.as_bytes())).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        tracing::warn!(%error, "the service manager cannot be told: {}", lines.lines().next().unwrap_or_default());
    }
}

/// A path, or a name in the abstract namespace where it begins with `@`.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = Plain::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse_every(watchdog: Option<Duration>) -> Duration {
        Manager::new(None, watchdog).unwrap().pulse_every
    }

    #[test]
    fn the_watchdog_hears_several_pulses_in_its_time() {
        assert_eq!(pulse_every(None), PULSE_EVERY);
        assert_eq!(pulse_every(Some(Duration::from_secs(2))), Duration::from_millis(500));
        assert_eq!(pulse_every(Some(Duration::from_secs(600))), PULSE_EVERY);
    }

    #[tokio::test]
    async fn a_name_that_begins_with_an_at_sign_is_in_the_abstract_namespace() {
        let name = format!("weir-test-{}-{}", std::process::id(), fastrand::u64(..));
        let manager = Plain::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let ours = Manager::new(Some(format!("@{name}").as_ref()), None).unwrap();
        ours.stopping().await;
        let mut buffer = [0; 200];
        let len = manager.recv(&mut buffer).unwrap();
        assert!(buffer[..len].starts_with(b"STOPPING=1\n"));
    }

    #[tokio::test]
    async fn nobody_behind_the_socket_is_an_error() {
        Manager::new(Some("/nowhere/at/all".as_ref()), None).unwrap_err();
    }
}
