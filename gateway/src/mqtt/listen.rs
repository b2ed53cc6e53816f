//! Accepting connections, plain and over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection;
use super::crowd::Seat;
use super::shared::Shared;
use super::tls;
use crate::facts;

/// After an `accept` that failed for want of something, such as files: trying again at once would only spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Files beside connections: the spool's, the uplink's, requests of admins.
const OTHER_FILES: u64 = 256;

/// Asks the system for as many files as connections need, and says so if it does not give them: a connection that finds no
/// file is not even refused, it hangs.
pub(super) fn make_room_for_files(connections_max: u64) {
    let needed = connections_max + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let wanted = Rlimit { current: Some(needed.min(hard)), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, wanted).is_err() || hard < needed {
        tracing::warn!(
            connections_max,
            files_needed = needed,
            files_allowed = getrlimit(Resource::Nofile).current,
            "not all connections will find a file; raise the limit (systemd: LimitNOFILE=) or lower connections_max"
        );
    }
}

/// Accepts until the gateway goes down. Whatever happens to one connection happens in its own task.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.closed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                // There is no answer before its CONNECT, and reading that would take what is not there.
                let Some(seat) = shared.crowd.enter(peer.ip().into()) else {
                    facts::connection_refused("too-many-from-one-address");
                    continue;
                };
                let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
                    facts::connection_refused("too-many-connections");
                    continue;
                };
                let permit = Box::new(Permit { _seat: seat, _permit: permit });
                // An acknowledgement is worth more than a full packet.
                drop(stream.set_nodelay(true));
                let shared = Arc::clone(&shared);
                match &tls {
                    None => tokio::spawn(plain(stream, peer, shared, permit)),
                    Some(tls) => tokio::spawn(secure(stream, peer, tls.clone(), shared, permit)),
                };
            }
            // It gave up while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "connections cannot be accepted; trying on");
                }
                failing = true;
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// What another connection may have when this one has ended.
struct Permit {
    _seat: Seat,
    _permit: OwnedSemaphorePermit,
}

/// A connection from its first byte to its end; only then another may have its permit.
async fn plain(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, permit: Box<Permit>) {
    connection::serve(stream, peer, None, shared).await;
    drop(permit);
}

/// A connection from its handshake to its end.
async fn secure(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
    permit: Box<Permit>,
) {
    if let Some(stream) = Box::pin(shake_hands(stream, peer, tls, &shared)).await {
        let certificates = stream.get_ref().1.peer_certificates();
        let proven = certificates.and_then(<[_]>::first).map(tls::common_name);
        connection::serve(stream, peer, proven, shared).await;
    }
    drop(permit);
}

async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    shared: &Shared,
) -> Option<Box<TlsStream<TcpStream>>> {
    let handshake = timeout(shared.times.handshake, tls.accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = shared.closed() => return None,
    };
    match shaken {
        Err(_) => facts::connection_refused("no-handshake"),
        Ok(Err(error)) => {
            facts::connection_refused("tls");
            tracing::info!(%peer, %error, "a TLS handshake failed");
        }
        Ok(Ok(stream)) => return Some(Box::new(stream)),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_task_is_small() {
        assert!(size(plain) < 2500, "{}", size(plain));
    }
}
