//! `weir command` and `weir resend`: have a device or a gateway do something, and wait to hear how that went.

use std::time::Duration;

use serde_json::{Map, Value};

use super::arguments::{Resend, ToDo};
use super::client::{self, Failure};
use super::{Outcome, Session, device_name};
use crate::api::types::{self, CommandRequest, CommandTaken};
use crate::{clock, times};

/// How often it is asked how a command goes.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After the deadline: for the gateway's word that it expired to arrive.
const WORD_MS_MAX: u64 = 30_000;

impl Session {
    pub(super) fn command(&mut self, todo: &ToDo) -> Result<Outcome, Failure> {
        let device = device_name(&todo.device)?;
        let ttl_ms = times::length(&todo.ttl).ok_or_else(|| {
            Failure::Usage(format!("--ttl: {:?} is no length of time; allowed: 30s, 10m, 2h, 7d", todo.ttl))
        })?;
        let request = CommandRequest {
            name: todo.name.clone(),
            args: Some(arguments(&todo.args)?),
            ttl_ms: Some(ttl_ms),
            deadline: None,
            gateway: todo.gateway.clone(),
            site: todo.site.clone(),
            id: todo.id.clone(),
        };
        let answer = self.client.post(&format!("/v1/devices/{device}/commands"), &request)?;
        let taken: CommandTaken = client::parse(&answer)?;
        if !todo.wait {
            self.print(&answer, |taken: &CommandTaken, _, _| sent(todo, taken))?;
            return Ok(Outcome::Done);
        }
        if !self.json {
            write!(self.out, "{}", sent(todo, &taken))?;
            self.out.flush()?;
        }
        let deadline_ms = clock::unix_ms().saturating_add(ttl_ms).saturating_add(WORD_MS_MAX);
        self.follow(&taken, deadline_ms)
    }

    /// A command to the gateway itself.
    pub(super) fn resend(&mut self, resend: &Resend) -> Result<Outcome, Failure> {
        let gateway = device_name(&resend.gateway)?.to_string();
        let from = match resend.from.parse::<u64>() {
            Ok(0) => return Err(Failure::Usage("--from: numbers begin with 1".to_owned())),
            Ok(number) => format!("from={number}"),
            Err(_) => format!("since_ms={}", self.moment("--from", &resend.from)?),
        };
        self.command(&ToDo {
            device: gateway.clone(),
            name: "resend".to_owned(),
            args: vec![from],
            ttl: resend.ttl.clone(),
            gateway: Some(gateway),
            site: resend.site.clone(),
            id: None,
            wait: resend.wait,
        })
    }

    /// Tells what becomes of a command until it is over.
    fn follow(&mut self, taken: &CommandTaken, until_ms: u64) -> Result<Outcome, Failure> {
        let mut told = String::new();
        while clock::unix_ms() < until_ms {
            let command = self.state_of(taken)?;
            if let Some(command) = command.filter(|command| command.outcome != told) {
                told.clone_from(&command.outcome);
                let is_over = told != "accepted";
                if !self.json {
                    write!(self.out, "{}", progress(&command))?;
                } else if is_over {
                    let text = serde_json::to_string(&command).expect("the API's types are JSON");
                    writeln!(self.out, "{text}")?;
                }
                self.out.flush()?;
                if is_over {
                    return Ok(if told == "completed" { Outcome::Done } else { Outcome::Bad });
                }
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Err(Failure::NotFound(format!(
            "nothing was heard of command {} though its deadline has passed; is gateway {} connected to the cloud?",
            taken.id, taken.gateway
        )))
    }

    fn state_of(&self, taken: &CommandTaken) -> Result<Option<types::Command>, Failure> {
        match self.client.get(&format!("/v1/devices/{}/state", taken.device), &[]) {
            Ok(answer) => {
                let state: types::State = client::parse(&answer)?;
                Ok(state.commands.into_iter().find(|command| command.id == taken.id))
            }
            // A device that has never been heard can have a command all the same.
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn sent(todo: &ToDo, taken: &CommandTaken) -> String {
    let CommandTaken { id, device, site, gateway, deadline, .. } = taken;
    format!("sent       {} to {device} by {gateway} at {site}, until {deadline}; id {id}\n", todo.name)
}

fn progress(command: &types::Command) -> String {
    let reason = command.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{:10} {}{reason}\n", command.outcome, times::rfc3339(command.origin.at.0))
}

/// `KEY=VALUE` each; a value is JSON if it can be read as such, and text otherwise.
fn arguments(given: &[String]) -> Result<Value, Failure> {
    let mut arguments = Map::new();
    for text in given {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::Usage(format!("--arg: {text:?} is not KEY=VALUE, as period_ms=500")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if arguments.insert(key.to_owned(), value).is_some() {
            return Err(Failure::Usage(format!("--arg: {key} is there twice")));
        }
    }
    Ok(Value::Object(arguments))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_json_or_text_as_it_stands() {
        let read = |given: &[&str]| arguments(&given.iter().map(ToString::to_string).collect::<Vec<_>>());
        let read_well = read(&["period_ms=500", "sensor=oven", "limit=null", "text=\"5\"", "x=a=b"]);
        let expected = json!({"period_ms": 500, "sensor": "oven", "limit": null, "text": "5", "x": "a=b"});
        assert_eq!(read_well.ok(), Some(expected));
        for wrong in [&["period_ms"][..], &["=5"], &["a=1", "a=2"]] {
            assert!(matches!(read(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
