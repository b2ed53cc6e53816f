//! Reading the stream in order.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::StreamExt;
use weir_contract::subject::{HEADER_ENCODING, STREAM};

use super::resume::{Found, Resume, StreamFacts, resume};
use super::{Config, Error, Message};
use crate::log::provision::{Difference, provision};
use crate::nats::Connection;
use crate::store::types::Position;

/// Messages asked for at a time: at 256 KiB each, the most that waits for us in memory is 16 MiB.
const BATCH: usize = 64;
/// How long one request for messages stands.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that it is still there while it has nothing; a reading ends when it misses two.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After how long without requests the server forgets a reading.
const INACTIVE: Duration = Duration::from_secs(60);

/// Messages of the log, one after the other.
pub struct Reading {
    /// When the stream was created, Unix nanoseconds.
    pub stream_created_ns: i64,
    /// Sequence of the stream's last message when the reading began.
    pub stream_last: u64,
    /// Messages that the stream held for us when the reading began.
    pub pending: u64,
    /// Where the reading began, and why.
    pub resume: Resume,
    /// In what the streams differ from the configuration.
    pub differences: Vec<Difference>,
    nats: Connection,
    /// How often that had been made when the reading began.
    connected: u64,
    messages: pull::Stream,
    /// Messages of a reading are counted by the server: the next one's count.
    next: u64,
}

impl Reading {
    /// Makes the streams if they are absent, compares the log with `position`, and begins to read behind it.
    ///
    /// # Errors
    /// [`Error`]; try again later.
    pub async fn begin(
        nats: &Connection,
        config: &Config,
        position: Option<&Position>,
    ) -> Result<Reading, Error> {
        let (mut stream, differences) = provision(&jetstream::new(nats.client.clone()), config).await?;
        let info =
            stream.info().await.map_err(|source| Error::Stream { stream: STREAM, source: source.into() })?;
        let facts = StreamFacts {
            created_ns: unix_ns(info.created),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
        };
        let logged_at_ns = match position {
            Some(position) => logged_at_ns(&stream, position.stream_sequence).await?,
            None => None,
        };
        let resume = resume(position, facts, logged_at_ns);
        // That the first connection has been made is told a little later than it can be used.
        let (nats, connected) = (nats.clone(), nats.made());
        let (messages, pending) =
            messages(&stream, resume.next).await.map_err(|source| Error::Read { source })?;
        let (stream_created_ns, stream_last) = (facts.created_ns, facts.last);
        Ok(Reading {
            stream_created_ns,
            stream_last,
            pending,
            resume,
            differences,
            nats,
            connected,
            messages,
            next: 1,
        })
    }

    /// Whether something was found that an operator must know of.
    pub fn is_alarming(&self) -> bool {
        !matches!(self.resume.found, Found::Fresh | Found::GoesOn)
    }

    /// The next message; waits for it as long as it takes. May be dropped while waiting.
    ///
    /// # Errors
    /// [`Error`]; the reading is over.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let message = tokio::select! {
            biased;
            // A server that was started again knows nothing of this reading, and would only be found out by its silence.
            () = self.nats.made_after(self.connected) => return Err(Error::Reconnected),
            message = self.messages.next() => message,
        };
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(source)) => return Err(Error::Read { source: source.into() }),
            None => return Err(Error::Ended),
        };
        let info = message.info().map_err(|source| Error::Nameless { source })?;
        if info.consumer_sequence != self.next {
            return Err(Error::LeftOut { expected: self.next, got: info.consumer_sequence });
        }
        self.next += 1;
        let (sequence, logged_ns, pending) = (info.stream_sequence, unix_ns(info.published), info.pending);
        let encoding = message.headers.as_ref().and_then(|headers| headers.get(HEADER_ENCODING));
        let encoding = encoding.map(|value| value.as_str().to_owned());
        let async_nats::Message { subject, payload, .. } = message.message;
        Ok(Message { sequence, logged_ns, subject: subject.to_string(), encoding, payload, pending })
    }
}

/// When the stream took the message that stands at `sequence`; `None` if none does.
async fn logged_at_ns(stream: &Stream, sequence: u64) -> Result<Option<i64>, Error> {
    match stream.get_raw_message(sequence).await {
        Ok(message) => Ok(Some(unix_ns(message.time))),
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(source) => Err(Error::Position { sequence, source: source.into() }),
    }
}

/// Messages from `next` on, and how many wait. Of a consumer that lives in the server's memory for as long as we ask, and acknowledges nothing.
async fn messages(stream: &Stream, next: u64) -> Result<(pull::Stream, u64), async_nats::Error> {
    let consumer = stream
        .create_consumer(pull::Config {
            description: Some("weir-cloud projection".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        })
        .await?;
    let messages =
        consumer.stream().max_messages_per_batch(BATCH).expires(EXPIRES).heartbeat(HEARTBEAT).messages();
    Ok((messages.await?, consumer.cached_info().num_pending))
}

fn unix_ns(time: async_nats::datetime::DateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}
