//! One connection, from its first byte to its will.

mod carrier;
mod presence;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use weir_contract::topic::Topic;

use self::carrier::Carrier;
use self::presence::Presence;
use super::answer::{self, Terms};
use super::codec::Will;
use super::greeting::{self, Guest, Refusal, Unwelcome};
use super::local::Message;
use super::reason::Reason;
use super::session::{Abilities, End, Session};
use super::shared::Shared;
use super::topics::Client;
use crate::custody::Waiter;
use crate::{facts, intake};

/// What a connection takes beside its session: its task, its place in the tables, and one read more than it may hold.
pub(super) const CONNECTION_BYTES: u64 = 8 * 1024 + carrier::READ_BYTES as u64;
/// For the last bytes to be written.
const GOODBYE: Duration = Duration::from_secs(2);
/// For the connection whose place is taken to leave.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Serves a client until it leaves. `proven` is there if it showed a certificate: the common name in it, if any.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    proven: Option<Option<String>>,
    shared: Arc<Shared>,
) {
    let greeted = tokio::select! {
        greeted = Box::pin(greeting::greet(&mut stream, peer, proven, &shared)) => greeted,
        () = shared.closed() => return,
    };
    match greeted {
        Ok(guest) => stay(stream, peer, guest, &shared).await,
        Err(Unwelcome::Silent) => facts::connection_refused("no-connect"),
        Err(Unwelcome::NoMqtt) => facts::connection_refused("no-mqtt"),
        Err(Unwelcome::Refused(refusal)) => {
            let goodbye = refuse(refusal, peer, &shared);
            let said = async {
                stream.write_all(&goodbye).await?;
                stream.shutdown().await
            };
            drop(timeout(GOODBYE, said).await);
        }
    }
}

/// Tells of a client that may not stay; returns what it is told, if it has words for that.
fn refuse(refusal: Refusal, peer: SocketAddr, shared: &Shared) -> Vec<u8> {
    let Refusal { version, reason, said, name } = refusal;
    facts::connection_refused(reason.as_str());
    tracing::info!(%peer, client = name, %reason, "a connection was refused: {said}");
    let client = if name.is_empty() { peer.to_string() } else { name };
    shared.refusals.keep(shared.clock.unix_ms(), &client, "", reason, said, &[]);
    let mut out = Vec::new();
    if let Some(version) = version {
        answer::connack_refusing(&mut out, version, reason, said);
    }
    out
}

/// Serves a client that may stay.
async fn stay(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    guest: Box<Guest>,
    shared: &Arc<Shared>,
) {
    let (place, before) = shared.registry.enter(&guest.client.name, &guest.client_id);
    if shared.closing.is_closed() {
        // Those who were there have been told already.
        place.end(Reason::ServerShuttingDown);
    }
    if let Some(before) = before {
        // One after the other, so that they are told apart by those who hear of them.
        drop(timeout(TAKEOVER, before.gone()).await);
    }
    let presence = Presence::begin(&guest.client, peer, shared);
    let (mut carrier, will) = welcome(*guest, shared);
    let end = carrier.run(&mut stream, &place).await;
    presence.end(end);
    if let (Some(will), true) = (will, wants_will(end)) {
        publish_will(&will, &carrier.session().client, shared);
    }
    drop((carrier, place));
    drop(timeout(GOODBYE, stream.shutdown()).await);
}

/// Agrees on the terms and writes the CONNACK. Not part of `stay`, because what an async function once had it keeps room for.
fn welcome(guest: Guest, shared: &Arc<Shared>) -> (Box<Carrier>, Option<Box<Will>>) {
    let Guest { client, client_id, connect, assigned, rest } = guest;
    let keep_alive_max_s = u16::try_from(shared.times.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
    let keep_alive_s = match connect.keep_alive_s {
        0 => keep_alive_max_s,
        asked => asked.min(keep_alive_max_s),
    };
    let abilities = Abilities {
        version: connect.version,
        receive_max: connect.receive_max,
        packet_bytes_max: connect.packet_bytes_max,
        wants_reasons: connect.wants_reasons,
    };
    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
    let mut session = Session::new(client, abilities, shared.limits, number);
    let terms = Terms {
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        receive_max: shared.limits.inflight,
        packet_bytes_max: u32::try_from(shared.limits.body_bytes()).unwrap_or(u32::MAX),
        assigned_client_id: assigned.then_some(client_id.as_str()),
        wanted_session: !connect.clean,
    };
    answer::connack(&mut session.out, connect.version, &terms);
    let keep_alive = Duration::from_millis(u64::from(keep_alive_s) * 1500);
    let carrier = Carrier::new(session, rest, keep_alive, Arc::clone(shared));
    (Box::new(carrier), connect.will.map(Box::new))
}

/// MQTT 5, 3.1.2.5: the will is for clients that did not say DISCONNECT. When the gateway goes down nobody is left to
/// hear it.
fn wants_will(end: End) -> bool {
    match end {
        End::Left { wants_will } => wants_will,
        End::Lost => true,
        End::Closed(reason) => reason != Reason::ServerShuttingDown,
    }
}

/// Does what the client would have done with a last PUBLISH.
fn publish_will(will: &Will, client: &Client, shared: &Shared) {
    let refused = |reason: Reason| {
        let said = "the will could not be published";
        shared.refusals.keep(shared.clock.unix_ms(), &client.name, &will.topic, reason, said, &will.payload);
    };
    if let Some(Topic::Events(device)) = Topic::parse(&will.topic) {
        let Ok(run) = intake::read(&will.payload) else { return refused(Reason::PayloadFormatInvalid) };
        let received_ms = shared.clock.unix_ms();
        // Nobody is left to be told when it is stored.
        let waiter = Waiter::new();
        let offered = shared.custody.gather().offer(&device, received_ms, None, &will.payload, run, &waiter);
        if offered.is_err() {
            refused(Reason::QuotaExceeded);
        }
        return;
    }
    let message = Message {
        origin: u32::MAX,
        topic: &will.topic,
        payload: &will.payload,
        qos: will.qos,
        retain: will.retain,
        properties: will.properties.get(),
    };
    if let Err(reason) = shared.local.publish(&message) {
        refused(reason);
    }
}
