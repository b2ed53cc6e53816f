//! The streams: made if absent. An existing one is never changed: retention and limits decide over data, and are an
//! operator's to decide. What differs from the configuration is told.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType, Stream,
};
use weir_contract::subject::{COMMANDS_STREAM, COMMANDS_STREAM_SUBJECTS, STREAM, STREAM_SUBJECTS};

use super::{Config, Error};

/// Most bytes of one message: a segment, which is smaller, with its headers.
const MESSAGE_BYTES_MAX: i32 = 512 * 1024;
/// Age at which a command that nobody fetched is dropped.
const COMMANDS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most bytes of waiting commands.
const COMMANDS_BYTES_MAX: i64 = 256 * 1024 * 1024;

/// Something in which an existing stream differs from what this process would have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The stream.
    pub stream: &'static str,
    /// What of it.
    pub what: &'static str,
    /// What it is.
    pub is: String,
    /// What the configuration says.
    pub configured: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { stream, what, is, configured } = self;
        write!(
            f,
            "stream {stream} has {what} {is}, configured is {configured}; `nats stream edit {stream}` changes it"
        )
    }
}

/// Makes the streams that are absent. The log, and in what the streams differ from the configuration.
///
/// # Errors
/// [`Error::Stream`] if the server does not answer, or refuses.
pub async fn provision(context: &Context, config: &Config) -> Result<(Stream, Vec<Difference>), Error> {
    let mut differences = Vec::new();
    let log = ensure(context, STREAM, log_config(config), &mut differences).await?;
    ensure(context, COMMANDS_STREAM, commands_config(config), &mut differences).await?;
    Ok((log, differences))
}

async fn ensure(
    context: &Context,
    stream: &'static str,
    wanted: StreamConfig,
    differences: &mut Vec<Difference>,
) -> Result<Stream, Error> {
    let found = match context.get_or_create_stream(wanted.clone()).await {
        Ok(found) => found,
        // A gateway may have made it in this very moment.
        Err(refused) => match context.get_stream(stream).await {
            Ok(found) => found,
            Err(_) => return Err(Error::Stream { stream, source: refused.into() }),
        },
    };
    differences.extend(compare(stream, &wanted, &found.cached_info().config));
    Ok(found)
}

/// Full, the log refuses what is new instead of dropping what is old: a gateway keeps what is refused, and nobody has yet
/// read what would be dropped.
fn log_config(config: &Config) -> StreamConfig {
    StreamConfig {
        name: STREAM.to_owned(),
        subjects: vec![STREAM_SUBJECTS.to_owned()],
        max_bytes: if config.max_bytes == 0 {
            -1
        } else {
            i64::try_from(config.max_bytes).unwrap_or(i64::MAX)
        },
        max_age: Duration::from_secs(config.max_age_hours * 3600),
        description: Some("Weir: segments of events from gateways; the source of truth".to_owned()),
        ..common(config)
    }
}

fn commands_config(config: &Config) -> StreamConfig {
    StreamConfig {
        name: COMMANDS_STREAM.to_owned(),
        subjects: vec![COMMANDS_STREAM_SUBJECTS.to_owned()],
        max_bytes: COMMANDS_BYTES_MAX,
        max_age: COMMANDS_AGE_MAX,
        description: Some("Weir: commands to devices, until they are answered".to_owned()),
        ..common(config)
    }
}

fn common(config: &Config) -> StreamConfig {
    StreamConfig {
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_message_size: MESSAGE_BYTES_MAX,
        num_replicas: usize::try_from(config.replicas).unwrap_or(1),
        allow_direct: true,
        ..StreamConfig::default()
    }
}

/// In what `found` differs from `wanted`, as far as it matters to us. The server writes "no limit" as 0 or as −1.
fn compare(stream: &'static str, wanted: &StreamConfig, found: &StreamConfig) -> Vec<Difference> {
    let limit = |number: i64| if number > 0 { number.to_string() } else { "no limit".to_owned() };
    let age =
        |age: Duration| if age.is_zero() { "no limit".to_owned() } else { format!("{} s", age.as_secs()) };
    let sides: [(&'static str, String, String); 8] = [
        ("subjects", found.subjects.join(" "), wanted.subjects.join(" ")),
        ("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage)),
        ("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention)),
        ("discard", format!("{:?}", found.discard), format!("{:?}", wanted.discard)),
        ("max_bytes", limit(found.max_bytes), limit(wanted.max_bytes)),
        ("max_age", age(found.max_age), age(wanted.max_age)),
        ("max_messages", limit(found.max_messages), limit(wanted.max_messages)),
        ("replicas", found.num_replicas.to_string(), wanted.num_replicas.to_string()),
    ];
    sides
        .into_iter()
        .filter(|(_, is, configured)| is != configured)
        .map(|(what, is, configured)| Difference { stream, what, is, configured })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let wanted = log_config(&Config::default());
        assert_eq!(compare(STREAM, &wanted, &wanted), []);
        let found = StreamConfig { max_bytes: 0, ..wanted.clone() };
        assert_eq!(compare(STREAM, &wanted, &found), [], "0 and −1 both mean no limit");

        let found =
            StreamConfig { max_age: Duration::from_secs(60), discard: DiscardPolicy::Old, ..wanted.clone() };
        let told: Vec<String> = compare(STREAM, &wanted, &found).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("stream WEIR has max_age 60 s, configured is no limit"), "{told:?}");
    }
}
