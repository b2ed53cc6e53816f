//! From a socket to a session: reads CONNECT, finds out who it is and whether it may stay.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use weir_contract::topic::Topic;

use super::codec::{self, Connect, Will};
use super::frame::{self, Version, kind};
use super::passwords::Verdict;
use super::reason::Reason;
use super::shared::Shared;
use super::topics::{self, Client};
use crate::intake;

/// The longest CONNECT. Whoever sends it is nobody yet, so it is short.
const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// The longest name and client identifier.
const NAME_BYTES_MAX: usize = 256;

/// A client that may stay.
pub(super) struct Guest {
    pub client: Client,
    pub client_id: String,
    pub connect: Connect,
    /// The gateway made up the identifier.
    pub assigned: bool,
    /// What came after the CONNECT.
    pub rest: Vec<u8>,
}

/// Why a client may not stay.
pub(super) struct Refusal {
    /// `None` if it spoke no MQTT.
    pub version: Option<Version>,
    pub reason: Reason,
    pub said: &'static str,
    /// The name it claimed.
    pub name: String,
}

/// Why there is no guest.
pub(super) enum Unwelcome {
    /// No CONNECT came in time.
    Silent,
    /// It left, or sent something that deserves no answer.
    NoMqtt,
    /// It may not stay.
    Refused(Refusal),
}

impl From<Refusal> for Unwelcome {
    fn from(refusal: Refusal) -> Self {
        Unwelcome::Refused(refusal)
    }
}

/// Reads the first packet, for which the client has some time, and decides, for which we have our own.
pub(super) async fn greet(
    stream: &mut (impl AsyncRead + Unpin),
    peer: SocketAddr,
    proven: Option<Option<String>>,
    shared: &Shared,
) -> Result<Box<Guest>, Unwelcome> {
    let reading = timeout(shared.times.connect, read_first(stream));
    let (connect, rest) = reading.await.map_err(|_| Unwelcome::Silent)??;
    Ok(admit(connect, rest, peer, proven, shared).await?)
}

/// The CONNECT, and what came after it.
async fn read_first(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Connect, Vec<u8>), Unwelcome> {
    let mut bytes = Vec::with_capacity(256);
    let (connect, len) = loop {
        match frame::next(&bytes, CONNECT_BYTES_MAX) {
            Ok(Some(frame)) if frame.kind() == kind::CONNECT => break (read(&frame)?, frame.whole.len()),
            Ok(None) => {}
            // Its first packet is something else: not even an error is due (MQTT 5, 4.13).
            Ok(Some(_)) | Err(_) => return Err(Unwelcome::NoMqtt),
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return Err(Unwelcome::NoMqtt);
        }
    };
    bytes.drain(..len);
    bytes.shrink_to_fit();
    Ok((connect, bytes))
}

/// Who it is, and whether it may stay.
async fn admit(
    mut connect: Connect,
    rest: Vec<u8>,
    peer: SocketAddr,
    proven: Option<Option<String>>,
    shared: &Shared,
) -> Result<Box<Guest>, Refusal> {
    let refuse = |reason, said, name: &str| Refusal {
        version: Some(connect.version),
        reason,
        said,
        name: name.to_owned(),
    };
    if connect.authentication_method {
        return Err(refuse(
            Reason::BadAuthenticationMethod,
            "only name and password are known here",
            &connect.client_id,
        ));
    }
    let mut client_id = std::mem::take(&mut connect.client_id);
    let assigned = client_id.is_empty();
    if assigned && connect.version == Version::V4 && !connect.clean {
        return Err(refuse(Reason::ClientIdentifierNotValid, "a session needs a client identifier", ""));
    }
    if client_id.len() > NAME_BYTES_MAX || client_id.contains('\0') {
        return Err(refuse(Reason::ClientIdentifierNotValid, "the client identifier is too long", ""));
    }
    if assigned {
        client_id = format!("auto-{:016x}", fastrand::u64(..));
    }
    let login = connect.login.take();
    let name = match (proven, &shared.passwords) {
        (Some(Some(common_name)), _) => common_name,
        (Some(None), _) => {
            return Err(refuse(
                Reason::NotAuthorized,
                "the certificate has no common name, or several",
                &client_id,
            ));
        }
        (None, None) => client_id.clone(),
        (None, Some(passwords)) => {
            let Some((name, password)) = login else {
                return Err(refuse(
                    Reason::BadUserNameOrPassword,
                    "user name and password are needed",
                    &client_id,
                ));
            };
            match passwords.verify(peer.ip().into(), &name, password).await {
                Verdict::Right => name,
                Verdict::Wrong => {
                    return Err(refuse(Reason::BadUserNameOrPassword, "wrong user name or password", &name));
                }
                Verdict::TooMany => {
                    let said = "too many wrong logins from this address; try again later";
                    return Err(refuse(Reason::ServerBusy, said, &name));
                }
                Verdict::Busy => return Err(refuse(Reason::ServerBusy, "too many are logging in", &name)),
            }
        }
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(refuse(Reason::NotAuthorized, "the name is empty or too long", &client_id));
    }
    let client = Client {
        device: name.parse().ok().filter(|device| Some(device) != shared.gateway.as_ref()),
        gateway: shared.gateway,
        rights: shared.rights.get(&name).cloned(),
        name: name.into_boxed_str(),
    };
    if let Some((reason, said)) = connect.will.as_ref().and_then(|will| check_will(will, &client, shared)) {
        return Err(refuse(reason, said, &client.name));
    }
    Ok(Box::new(Guest { client, client_id, connect, assigned, rest }))
}

fn read(frame: &frame::Frame<'_>) -> Result<Connect, Refusal> {
    let refuse = |version, reason, said| Refusal { version, reason, said, name: String::new() };
    let version = frame::connect_version(frame).map_err(|level| {
        // MQTT 3.1 and older have the CONNACK of 3.1.1; who comes after 5 will know that of 5.
        let version = level.map(|level| if level < 4 { Version::V4 } else { Version::V5 });
        refuse(version, Reason::UnsupportedProtocolVersion, "MQTT 3.1.1 and 5 are spoken here")
    })?;
    codec::connect(version, frame)
        .map_err(|reason| refuse(Some(version), reason, "the CONNECT cannot be read"))
}

/// Whether the will could be published at all; what is wrong is better said now than never.
fn check_will(will: &Will, client: &Client, shared: &Shared) -> Option<(Reason, &'static str)> {
    if will.qos > 1 {
        return Some((Reason::QosNotSupported, "QoS 2 is not served"));
    }
    if !topics::is_name(&will.topic) || will.topic.len() > shared.limits.topic_bytes {
        return Some((Reason::TopicNameInvalid, "the will's topic is not one"));
    }
    if let Some(Topic::Events(device)) = Topic::parse(&will.topic) {
        if !client.may_publish_events_of(&device) {
            return Some((Reason::NotAuthorized, "the will is of another device"));
        }
        let readable = intake::read(&will.payload).is_ok();
        return (!readable).then_some((Reason::PayloadFormatInvalid, "the will is not an uplink"));
    }
    if !client.may_publish(&will.topic) {
        return Some((Reason::NotAuthorized, "this client may not publish its will"));
    }
    let served = topics::is_served(&will.topic) && will.payload.len() <= shared.limits.payload_bytes;
    (!served).then_some((Reason::TopicNameInvalid, "the will's topic or length is not served"))
}
