//! Commands, into JetStream: published to the gateway that is to deliver them, and acknowledged.

use std::time::{Duration, Instant};

use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use tokio::time::sleep;
use weir_contract::command::Command;
use weir_contract::subject::{self, COMMANDS_STREAM, Target};

use crate::nats::{self, Client};

/// How soon it is tried again where there is no stream yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a command is not in the stream, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to NATS: it is not.
    #[error("no connection to NATS")]
    Disconnected,
    /// JetStream did not take it, or did not say so in time.
    #[error("stream {COMMANDS_STREAM} has not acknowledged it")]
    NotAcknowledged(#[source] async_nats::Error),
}

/// Publishes a command, and returns its stream sequence when the stream has it. The same id again, soon after, is the
/// same message.
///
/// # Errors
/// [`Error`]
pub async fn publish(
    nats: &Client,
    target: &Target,
    command: &Command<'_>,
    payload: Vec<u8>,
    wait_max: Duration,
) -> Result<u64, Error> {
    // The client would keep it until there is a connection, and send it when nobody waits for it any more.
    if !nats::is_connected(nats) {
        return Err(Error::Disconnected);
    }
    let jetstream = ContextBuilder::new().timeout(wait_max).ack_timeout(wait_max).build(nats.clone());
    let subject = subject::commands(&target.site, &target.gateway, &target.device);
    let message = PublishMessage::build()
        .payload(payload.into())
        .expected_stream(COMMANDS_STREAM)
        .message_id(format!("{}/{}", target.device, command.id));
    let publish = async || jetstream.send_publish(subject.to_string(), message.clone()).await?.await;
    let begun = Instant::now();
    loop {
        match publish().await {
            Ok(acknowledged) => return Ok(acknowledged.sequence),
            // Just started, we are making it.
            Err(error)
                if error.kind() == PublishErrorKind::StreamNotFound && begun.elapsed() < wait_max / 2 =>
            {
                sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(Error::NotAcknowledged(error.into())),
        }
    }
}
