//! What the cloud answers, as far as the proof needs it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Events asked for at once.
const PAGE: &str = "2000";
const TIMEOUT: Duration = Duration::from_secs(30);
/// No answer is read that is longer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// The cloud could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("no answer from {url}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// An answer that is no success.
    #[error("{url} answers {status}: {text}")]
    Refused {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the cloud says about it.
        text: String,
    },
    /// Pages without end.
    #[error("{url} gives the same page again and again")]
    Endless {
        /// What was asked.
        url: String,
    },
}

/// The numbers of one boot that the cloud knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Boot {
    pub(super) boot: String,
    /// Runs of stored numbers.
    pub(super) stored: Vec<[u32; 2]>,
    /// Runs that the ledger covers, less what is stored and what another entry covers.
    pub(super) lost: Vec<Lost>,
    /// Numbers that the ledger's entries name, each as often as one names it.
    pub(super) told_lost: u64,
    /// Rows in the table of events.
    pub(super) events: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Lost {
    pub(super) from: u32,
    pub(super) to: u32,
}

#[derive(Deserialize)]
struct Boots {
    boots: Vec<Boot>,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
    next: Option<String>,
}

/// An event of a device's history.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) boot: String,
    pub(super) seq: u32,
}

/// The cloud's HTTP API.
#[derive(Clone)]
pub(super) struct Cloud {
    base: String,
    agent: ureq::Agent,
}

impl Cloud {
    pub(super) fn at(url: &str) -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        Self { base: url.trim_end_matches('/').into(), agent: config.into() }
    }

    /// The boots of a device; none if the cloud has not heard of it.
    pub(super) fn boots(&self, device: &str) -> Result<Vec<Boot>, Error> {
        let boots: Option<Boots> = self.get(&format!("/v1/devices/{device}/boots"), &[])?;
        Ok(boots.map_or(Vec::new(), |boots| boots.boots))
    }

    /// Every event of a device's history, page by page.
    pub(super) fn history(&self, device: &str, mut each: impl FnMut(&Event)) -> Result<(), Error> {
        let path = format!("/v1/devices/{device}/events");
        let mut after: Option<String> = None;
        loop {
            let mut query = vec![("limit", PAGE), ("order", "asc")];
            query.extend(after.as_deref().map(|after| ("after", after)));
            let Some(Page { events, next }) = self.get(&path, &query)? else { return Ok(()) };
            events.iter().for_each(&mut each);
            match next {
                None => return Ok(()),
                next if next == after => {
                    return Err(Error::Endless { url: format!("{}{path}", self.base) });
                }
                next => after = next,
            }
        }
    }

    /// `None` if there is no such thing (404).
    fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<T>, Error> {
        let url = format!("{}{path}", self.base);
        let no_answer = |source| Error::NoAnswer { url: url.clone(), source: Box::new(source) };
        let mut answer = self.agent.get(&url).query_pairs(query.iter().copied()).call().map_err(no_answer)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        match status {
            200 => body.read_json().map(Some).map_err(no_answer),
            404 => Ok(None),
            _ => Err(Error::Refused {
                url: url.clone(),
                status,
                text: body.read_to_string().map_err(no_answer)?,
            }),
        }
    }
}
