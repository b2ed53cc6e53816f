//! The way to the gateway: an address by DHCP, the gateway's by the device's identity, a TCP connection.

use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::{Error, TcpSocket};
use embassy_net::{IpAddress, Stack};
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{ErrorType, Read, Write};

use crate::identity::{Gateway, Identity};
use crate::settings;

/// The largest uplink's packet, and what may come while it is sent.
const SEND_LEN: usize = settings::UPLINK_LEN_MAX + 256;
/// A command, or several acknowledgements.
const RECEIVE_LEN: usize = 512;

/// Buffers of the connection.
pub(crate) struct Memory {
    send: [u8; SEND_LEN],
    receive: [u8; RECEIVE_LEN],
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self { send: [0; SEND_LEN], receive: [0; RECEIVE_LEN] }
    }
}

/// What can open connections, one at a time.
pub(crate) struct Network<'m> {
    stack: Stack<'m>,
    memory: &'m mut Memory,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    NoAddress,
    UnknownName,
    NoAnswer,
    Refused,
}

impl Unreachable {
    /// For the log.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoAddress => "no address from DHCP",
            Self::UnknownName => "nobody knows the gateway's name",
            Self::NoAnswer => "the gateway does not answer",
            Self::Refused => "the gateway refuses connections",
        }
    }
}

impl<'m> Network<'m> {
    pub(crate) fn new(stack: Stack<'m>, memory: &'m mut Memory) -> Self {
        Self { stack, memory }
    }

    /// Connects to the gateway, within [`settings::CONNECT_MS_MAX`] for each step.
    pub(crate) async fn open(&mut self, identity: &Identity) -> Result<Connection<'_>, Unreachable> {
        let step_max = Duration::from_millis(settings::CONNECT_MS_MAX);
        with_timeout(step_max, self.stack.wait_config_up()).await.map_err(|_| Unreachable::NoAddress)?;
        let host = with_timeout(step_max, self.look_up(&identity.gateway)).await;
        let host = host.ok().flatten().ok_or(Unreachable::UnknownName)?;

        let mut socket = TcpSocket::new(self.stack, &mut self.memory.receive, &mut self.memory.send);
        socket.set_timeout(Some(Duration::from_millis(settings::SILENT_PEER_MS_MAX)));
        socket.set_nagle_enabled(false);
        match with_timeout(step_max, socket.connect((host, identity.port))).await {
            Err(_) => Err(Unreachable::NoAnswer),
            Ok(Err(_)) => Err(Unreachable::Refused),
            Ok(Ok(())) => Ok(Connection(socket)),
        }
    }

    async fn look_up(&self, gateway: &Gateway) -> Option<IpAddress> {
        match gateway {
            Gateway::Address(address) => Some((*address).into()),
            Gateway::Name(name) => self.stack.dns_query(name, DnsQueryType::A).await.ok()?.first().copied(),
        }
    }
}

/// A connection to the gateway.
pub(crate) struct Connection<'m>(TcpSocket<'m>);

impl ErrorType for Connection<'_> {
    type Error = Error;
}

impl Read for Connection<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.0.read(buffer).await
    }
}

impl Write for Connection<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.0.write(bytes).await
    }

    /// TCP sends by itself. A socket's own `flush` waits for the other side's TCP to acknowledge, so that uplinks would
    /// go one by one.
    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
