//! The only file that knows async-nats: one connection, from its making to its first failure.
//!
//! The client's own reconnecting is not used: every new connection begins with a look at the stream, waits by our
//! backoff, reads the credentials again, and has a reason to show while there is none.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, LastRawMessageErrorKind, StorageType, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use tokio::sync::watch;
use weir_contract::subject::{ENCODING_ZSTD, HEADER_ENCODING, LANE_LIVE, STREAM, STREAM_SUBJECTS};

use super::config::Config;
use super::pacing::{self, Answer, Kind, Meaning, Trouble};
use super::segment::Segment;

/// The message's bytes beside its payload at most: headers, subject.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 1024;
/// Requests under way at a time: one. The client allocates this many places.
const CLIENT_CAPACITY: usize = 16;
const READ_BUFFER_BYTES: u16 = 4 * 1024;

/// A connection, until its first failure.
pub(crate) struct Connection {
    client: Client,
    jetstream: Context,
    over: watch::Receiver<Option<Trouble>>,
    /// Whether the server does not let copies go ahead.
    copies_denied: watch::Receiver<bool>,
}

/// The uplink's connection.
pub(super) struct Session {
    connection: Connection,
    subject: String,
    /// The longest message the stream took when it was looked at last.
    message_bytes_max: AtomicUsize,
}

/// What the stream holds, as it says it.
pub(super) struct Look {
    pub first_sequence: u64,
    pub last_sequence: u64,
    /// The last message on the own subject.
    pub last: Option<Message>,
    /// The message in the place that was asked for, whatever its subject.
    pub marked: Option<Message>,
}

/// A message of the stream.
pub(super) struct Message {
    pub sequence: u64,
    pub payload: bytes::Bytes,
    pub compressed: bool,
}

impl Connection {
    /// Connects to one of the servers, under a name that its operators see.
    pub async fn open(config: &Config, name: &str) -> Result<Self, Trouble> {
        let servers: Vec<ServerAddr> =
            config.servers.iter().filter_map(|server| server.parse().ok()).collect();
        let (tell, over) = watch::channel(None);
        let (deny_copies, copies_denied) = watch::channel(false);
        // Never the URLs: there may be a password in them.
        let shown: Vec<String> =
            servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        let options = options(config, name, &servers, tell, deny_copies).await?;
        let client = options.connect(servers).await.map_err(|error| {
            let kind = match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => Kind::Denied,
                _ => Kind::Unreachable,
            };
            Trouble::new(kind, format!("cannot connect to {}: {error}", shown.join(", ")))
        })?;
        let timeout = Duration::from_millis(config.ack_timeout_ms);
        let jetstream = ContextBuilder::new()
            .timeout(timeout)
            .ack_timeout(timeout)
            .max_ack_inflight(CLIENT_CAPACITY)
            .build(client.clone());
        Ok(Connection { client, jetstream, over, copies_denied })
    }

    /// JetStream over it.
    pub fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// Resolves when the connection has failed.
    pub async fn failed(&self) -> Trouble {
        let mut over = self.over.clone();
        let told = over.wait_for(Option::is_some).await.map(|trouble| trouble.clone());
        told.ok().flatten().unwrap_or_else(|| Trouble::new(Kind::Disconnected, "the connection has ended"))
    }
}

impl Session {
    /// Connects to one of the servers.
    pub async fn connect(config: &Config, name: &str, subject: String) -> Result<Self, Trouble> {
        let connection = Connection::open(config, name).await?;
        Ok(Session { connection, subject, message_bytes_max: AtomicUsize::new(usize::MAX) })
    }

    /// Which server this is.
    pub fn server(&self) -> String {
        let info = self.connection.client.server_info();
        let name =
            if info.server_name.is_empty() { info.server_id.clone() } else { info.server_name.clone() };
        format!("{name} {} ({}:{})", info.version, info.host, info.port)
    }

    /// The longest payload this server and this stream take.
    pub fn payload_bytes_max(&self) -> usize {
        let server = self.connection.client.server_info().max_payload;
        server.min(self.message_bytes_max.load(Ordering::Relaxed)).saturating_sub(MESSAGE_OVERHEAD_BYTES)
    }

    /// Resolves when the connection has failed.
    pub async fn failed(&self) -> Trouble {
        self.connection.failed().await
    }

    /// Asks the stream what it holds, making it if it is not there and that is allowed.
    ///
    /// All questions go to the stream's leader: a follower (direct get) may answer with what was before.
    pub async fn look(&self, marked_sequence: u64, create_stream: bool) -> Result<Look, Trouble> {
        tokio::select! {
            biased;
            trouble = self.failed() => Err(trouble),
            look = self.ask(marked_sequence, create_stream) => look,
        }
    }

    async fn ask(&self, marked_sequence: u64, create_stream: bool) -> Result<Look, Trouble> {
        let stream = match self.connection.jetstream.get_stream(STREAM).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND && create_stream =>
                {
                    self.create_stream().await?
                }
                GetStreamErrorKind::JetStream(error) => {
                    return Err(refused(&error));
                }
                _ => return Err(unanswered("the stream's state", &error)),
            },
        };
        let last = message(stream.get_last_raw_message_by_subject(&self.subject).await)?;
        let marked = match &last {
            _ if marked_sequence == 0 => None,
            Some(last) if last.sequence >= marked_sequence => None,
            _ => message(stream.get_raw_message(marked_sequence).await)?,
        };
        // Asked for last: a message that expires meanwhile is then below the first sequence.
        let info = stream.get_info().await.map_err(|error| unanswered("the stream's state", &error))?;
        // None is written as −1 or 0.
        let limit = usize::try_from(info.config.max_message_size).ok().filter(|limit| *limit > 0);
        self.message_bytes_max.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
        let state = info.state;
        Ok(Look { first_sequence: state.first_sequence, last_sequence: state.last_sequence, last, marked })
    }

    async fn create_stream(&self) -> Result<Stream, Trouble> {
        tracing::info!(stream = STREAM, "there is no stream; making it");
        let config = StreamConfig {
            name: STREAM.to_owned(),
            subjects: vec![STREAM_SUBJECTS.to_owned()],
            storage: StorageType::File,
            // A full stream refuses, and the spool keeps: nothing is pushed out of the log in silence.
            discard: DiscardPolicy::New,
            allow_direct: true,
            description: Some("Segments of all Weir gateways".to_owned()),
            ..StreamConfig::default()
        };
        self.connection.jetstream.create_stream(config).await.map_err(|error| {
            Trouble::new(
                Kind::NoStream,
                format!("there is no stream {STREAM}, and it cannot be made: {error}"),
            )
        })
    }

    /// Publishes a segment that must follow the message `follows` on its subject.
    pub async fn publish(&self, segment: &Segment, follows: u64) -> Meaning {
        if segment.payload.len() > self.payload_bytes_max() {
            let (len, server) = (segment.payload.len(), self.connection.client.server_info().max_payload);
            let text = match self.message_bytes_max.load(Ordering::Relaxed) {
                stream if stream < server => {
                    format!(
                        "a segment of {len} bytes is longer than the stream takes (max_msg_size {stream})"
                    )
                }
                _ => {
                    format!("a segment of {len} bytes is longer than the server takes (max_payload {server})")
                }
            };
            return Meaning::Unclear(Trouble::new(Kind::TooLong, text));
        }
        let message = message_of(segment).expected_last_subject_sequence(follows);
        let answer = tokio::select! {
            biased;
            answer = self.send(&self.subject, message) => answer,
            trouble = self.failed() => Answer::Failed(trouble),
        };
        pacing::meaning(answer, STREAM, follows)
    }

    /// Publishes copies on another subject, that of [`LANE_LIVE`]. Says whether they arrived, as far as is known; only an end
    /// of the connection is trouble.
    pub async fn publish_copies(&self, subject: &str, segment: &Segment) -> Result<bool, Trouble> {
        let mut denied = self.connection.copies_denied.clone();
        let message = message_of(segment);
        tokio::select! {
            biased;
            trouble = self.failed() => Err(trouble),
            _ = denied.wait_for(|denied| *denied) => Ok(false),
            answer = self.send(subject, message) => Ok(matches!(answer, Answer::Acknowledged { .. })),
        }
    }

    /// Whether the server lets copies go ahead, as far as is known.
    pub fn takes_copies(&self) -> bool {
        !*self.connection.copies_denied.borrow()
    }

    async fn send(&self, subject: &str, message: PublishMessage) -> Answer {
        let acknowledged = match self.connection.jetstream.send_publish(subject.to_owned(), message).await {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(ack) => {
                Answer::Acknowledged { stream: ack.stream, sequence: ack.sequence, duplicate: ack.duplicate }
            }
            Err(error) => answer_of(&error),
        }
    }
}

fn message_of(segment: &Segment) -> PublishMessage {
    let message = PublishMessage::build().payload(segment.payload.clone()).expected_stream(STREAM);
    if segment.compressed { message.header(HEADER_ENCODING, ENCODING_ZSTD) } else { message }
}

async fn options(
    config: &Config,
    name: &str,
    servers: &[ServerAddr],
    tell: watch::Sender<Option<Trouble>>,
    deny_copies: watch::Sender<bool>,
) -> Result<ConnectOptions, Trouble> {
    let connected = Arc::new(AtomicBool::new(false));
    let was_connected = Arc::clone(&connected);
    let live = format!(".{LANE_LIVE}\"");
    let mut options = ConnectOptions::new()
        .name(format!("weir-gateway {name}"))
        .connection_timeout(Duration::from_millis(config.connect_timeout_ms))
        .request_timeout(Some(Duration::from_millis(config.ack_timeout_ms)))
        .ping_interval(Duration::from_millis(config.ping_interval_ms))
        .client_capacity(CLIENT_CAPACITY)
        .subscription_capacity(CLIENT_CAPACITY)
        .read_buffer_capacity(READ_BUFFER_BYTES)
        // One round; a client that has lost its connection is thrown away before its next.
        .max_reconnects(servers.len())
        .reconnect_delay_callback(move |_| {
            let again = was_connected.load(Ordering::Relaxed);
            if again { Duration::from_secs(1) } else { Duration::ZERO }
        })
        .event_callback(move |event| {
            let trouble = trouble_of(&event);
            let trouble = trouble.filter(|trouble| {
                // Rights that were given before there were copies: everything else goes on.
                let copies = trouble.kind == Kind::Denied && trouble.text.contains(&live);
                deny_copies.send_if_modified(|denied| copies && !std::mem::replace(denied, true));
                !copies
            });
            connected.fetch_or(matches!(event, Event::Connected), Ordering::Relaxed);
            if let Some(trouble) = trouble {
                // The first reason is the one that counts.
                tell.send_if_modified(|told| told.is_none() && told.replace(trouble).is_none());
            }
            std::future::ready(())
        });
    // The client itself takes no notice of them.
    if let Some((user, password)) = servers.iter().find_map(|server| server.username().zip(server.password()))
    {
        options = options.user_and_password(user.to_owned(), password.to_owned());
    }
    if let Some(file) = &config.credentials_file {
        options = options.credentials_file(file).await.map_err(|error| {
            Trouble::new(
                Kind::Denied,
                format!("cannot read the credentials file {}: {error}", file.display()),
            )
        })?;
    }
    if let Some(tls) = &config.tls {
        options = options.require_tls(true);
        if let Some(ca) = &tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
    }
    Ok(options)
}

/// Whether this is the text of a credentials file.
pub(super) fn read_credentials(text: &str) -> std::io::Result<()> {
    ConnectOptions::with_credentials(text).map(drop)
}

/// Events that end a connection, as far as we are concerned.
fn trouble_of(event: &Event) -> Option<Trouble> {
    match event {
        Event::Disconnected | Event::Closed => {
            Some(Trouble::new(Kind::Disconnected, "the connection has ended"))
        }
        Event::ServerError(ServerError::AuthorizationViolation) => {
            Some(Trouble::new(Kind::Denied, "the server no longer lets us in: authorization violation"))
        }
        Event::ServerError(error) => {
            let text = error.to_string();
            let denied = ["permissions violation", "authentication", "authorization"];
            let denied = denied.iter().any(|word| text.to_ascii_lowercase().contains(word));
            let kind = if denied { Kind::Denied } else { Kind::Disconnected };
            Some(Trouble::new(kind, format!("the server says: {text}")))
        }
        _ => None,
    }
}

fn answer_of(error: &PublishError) -> Answer {
    let jetstream = error.source().and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    match (error.kind(), jetstream) {
        (_, Some(error)) => Answer::Refused { code: error.error_code().0, description: error.to_string() },
        (PublishErrorKind::StreamNotFound, _) => Answer::NobodyListens,
        (PublishErrorKind::TimedOut, _) => Answer::TimedOut,
        (PublishErrorKind::MaxPayloadExceeded, _) => {
            Answer::Failed(Trouble::new(Kind::TooLong, error.to_string()))
        }
        (PublishErrorKind::Other, _) => {
            let text = format!("what answered on our subject is no acknowledgement of JetStream: {error}");
            Answer::Failed(Trouble::new(Kind::WrongStream, text))
        }
        _ => Answer::Failed(Trouble::new(Kind::Disconnected, format!("the publish failed: {error}"))),
    }
}

fn message(
    answer: Result<StreamMessage, async_nats::jetstream::stream::LastRawMessageError>,
) -> Result<Option<Message>, Trouble> {
    match answer {
        Ok(message) => {
            let encoding = message.headers.get(HEADER_ENCODING).map(async_nats::HeaderValue::as_str);
            let compressed = encoding == Some(ENCODING_ZSTD);
            Ok(Some(Message { sequence: message.sequence, payload: message.payload, compressed }))
        }
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(error) => Err(refused(&error)),
            _ => Err(unanswered("the last message", &error)),
        },
    }
}

fn refused(error: &async_nats::jetstream::Error) -> Trouble {
    pacing::refused(error.error_code().0, &error.to_string())
}

fn unanswered(what: &str, error: &dyn std::error::Error) -> Trouble {
    let mut text = format!("JetStream does not answer when asked for {what}: {error}");
    let nobody = text.contains("resource does not exist") || text.contains("no responders");
    if nobody {
        text.push_str("; is JetStream enabled for this account?");
    }
    Trouble::new(if nobody { Kind::NoStream } else { Kind::TimedOut }, text)
}
