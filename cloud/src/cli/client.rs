//! Asks the API, and tells people what to do when it does not answer.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::types::ErrorAnswer;

/// Largest answer taken.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API answered that there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers there, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody answers, but not what was asked.
    #[error("{0}")]
    Unusable(String),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

/// Asks one API.
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// A client of the API at `base`, as `http://127.0.0.1:9890`, that waits at most `patience` for each answer.
    pub fn new(base: &str, patience: Duration) -> Result<Client, Failure> {
        let base = base.trim_end_matches('/');
        if !base.starts_with("http://") {
            let message =
                format!("{base:?} is no address of an API; allowed: http://host:port (--api or $WEIR_API)");
            return Err(Failure::Usage(message));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience))
            .proxy(None)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Client { agent, base: base.to_owned() })
    }

    /// Where it asks.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for `path`, and returns the answer as it came.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<String, Failure> {
        let (status, body) = self.ask(path, query)?;
        self.good(path, status, body)
    }

    /// Posts JSON to `path`, and returns the answer as it came.
    pub fn post(&self, path: &str, request: &impl Serialize) -> Result<String, Failure> {
        let answer = self.agent.post(format!("{}{path}", self.base)).send_json(request);
        let mut response = answer.map_err(|error| self.unreachable(&error))?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let body = body.map_err(|error| self.unreachable(&error))?;
        self.good(path, response.status().as_u16(), body)
    }

    fn good(&self, path: &str, status: u16, body: String) -> Result<String, Failure> {
        if status == 200 || status == 202 {
            return Ok(body);
        }
        let base = &self.base;
        let Ok(ErrorAnswer { error }) = serde_json::from_str(&body) else {
            let message = format!("{base} answers {status} without saying why; is it weir-cloud's address?");
            return Err(Failure::Unusable(message));
        };
        Err(match error.code.as_str() {
            "unknown-device" => Failure::NotFound(error.message.replace("/v1/devices", "`weir devices`")),
            "not-found" => Failure::Unusable(format!(
                "{base} has no {path}; it is a process that answers no queries (role `project`), or another version"
            )),
            _ => Failure::Unusable(format!("{base}: {}", error.message)),
        })
    }

    /// Asks for `path`, and returns whatever is answered.
    pub fn ask(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, String), Failure> {
        let mut url = format!("{}{path}", self.base);
        if !query.is_empty() {
            url.push('?');
            url.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish());
        }
        let mut response = self.agent.get(&url).call().map_err(|error| self.unreachable(&error))?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        Ok((response.status().as_u16(), body.map_err(|error| self.unreachable(&error))?))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let what = match error {
            ureq::Error::Timeout(_) => "does not answer in time; wait longer with --timeout".to_owned(),
            ureq::Error::HostNotFound => "is unknown: there is no such host".to_owned(),
            ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => {
                "refuses the connection: nothing listens there".to_owned()
            }
            other => format!("cannot be asked: {other}"),
        };
        Failure::Unreachable(format!("{} {what}", self.base))
    }
}

/// Reads an answer.
pub fn parse<T: DeserializeOwned>(answer: &str) -> Result<T, Failure> {
    serde_json::from_str(answer).map_err(|error| {
        Failure::Unusable(format!("the answer is not what this version of weir expects: {error}"))
    })
}
