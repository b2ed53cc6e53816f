//! Commands out of JetStream: the gateway's durable consumer. Beside the uplink, the only file that knows async-nats.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use weir_contract::Id;
use weir_contract::subject::{self, COMMANDS_STREAM};

use crate::uplink::pacing::{Kind, Trouble};
use crate::uplink::{self, Connection};

/// Commands asked for at a time.
const BATCH: usize = 16;
/// How long one request for commands stands.
const EXPIRES: Duration = Duration::from_secs(60);
/// How often the server says that it is still there while it has nothing.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// A command that was not acknowledged is delivered again after this.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// A command that was given back is delivered again after this.
const GIVEN_BACK: Duration = Duration::from_secs(3);

/// Commands to the devices of one gateway, until the connection's first failure.
pub(super) struct Source {
    connection: Connection,
    messages: pull::Stream,
}

/// A command as it came.
pub(super) struct Incoming(Message);

impl Source {
    /// Connects, and finds or makes the gateway's consumer.
    pub async fn open(config: &uplink::Config, site: &Id, gateway: &Id) -> Result<Self, Trouble> {
        let connection = Connection::open(config, &format!("{site} {gateway} commands")).await?;
        let filter_subject = subject::commands_of_gateway(site, gateway).to_string();
        let consumer = pull::Config {
            durable_name: Some(consumer_name(site, gateway)),
            description: Some("Commands to the devices of a Weir gateway".to_owned()),
            filter_subject,
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            ..pull::Config::default()
        };
        let made = connection.jetstream().create_consumer_on_stream(consumer, COMMANDS_STREAM).await;
        let consumer = made.map_err(|error| {
            Trouble::new(Kind::NoStream, format!("no commands come from stream {COMMANDS_STREAM}: {error}"))
        })?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| ended(&error))?;
        Ok(Source { connection, messages })
    }

    /// The next command; waits for it as long as it takes.
    pub async fn next(&mut self) -> Result<Incoming, Trouble> {
        tokio::select! {
            biased;
            trouble = self.connection.failed() => Err(trouble),
            message = self.messages.next() => match message {
                Some(Ok(message)) => Ok(Incoming(message)),
                Some(Err(error)) => Err(ended(&error)),
                None => Err(Trouble::new(Kind::Disconnected, "the consumer of commands has ended")),
            },
        }
    }
}

impl Incoming {
    /// Where it was published.
    pub fn subject(&self) -> &str {
        self.0.subject.as_str()
    }

    /// What was.
    pub fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Has the server deliver it again, after a while.
    pub async fn give_back(&self) -> Result<(), Trouble> {
        self.0.ack_with(AckKind::Nak(Some(GIVEN_BACK))).await.map_err(|error| {
            Trouble::new(Kind::Disconnected, format!("a command could not be given back: {error}"))
        })
    }

    /// Tells the server that it need not come again. If that does not get through, it does.
    pub async fn acknowledge(&self) -> Result<(), Trouble> {
        self.0.ack_with(AckKind::Ack).await.map_err(|error| {
            Trouble::new(Kind::Disconnected, format!("a command could not be acknowledged: {error}"))
        })
    }
}

/// `=` stands in no identifier, so no two gateways share a consumer.
fn consumer_name(site: &Id, gateway: &Id) -> String {
    format!("{site}={gateway}")
}

fn ended(error: &dyn std::error::Error) -> Trouble {
    Trouble::new(Kind::Disconnected, format!("no commands come: {error}"))
}
