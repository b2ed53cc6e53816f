//! `weir`: asks the cloud's API, prints tables for people and the API's own JSON for programs.
//!
//! - [`arguments`] says what can be asked, [`client`] asks, [`print`] is pure and makes the text, [`history`] streams;
//! - [`doctor`] gathers what the links of the chain say of themselves and judges it.
//!
//! Exit codes: 0 done; 1 not found, a check failed, or a command was not completed; 2 the question could not be asked or understood.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use weir_contract::Id;

use crate::api::types;
use crate::{clock, times};

pub mod arguments;
pub mod client;
mod commands;
pub mod doctor;
mod lists;
pub mod print;

use arguments::{Arguments, Command};
use client::{Client, Failure};
use print::Style;

/// Where the API is if nothing says so.
const API_DEFAULT: &str = "http://127.0.0.1:9890";

/// What a command needs: whom to ask, where and how to print.
pub struct Session {
    client: Client,
    out: Box<dyn io::Write>,
    style: Style,
    json: bool,
    now_ms: u64,
}

/// How a command that could be carried out has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wished.
    Done,
    /// A check failed.
    Bad,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = Session::new(&arguments).and_then(|mut session| {
        let outcome = session.run(arguments.command)?;
        session.out.flush()?;
        Ok(outcome)
    });
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        // Whoever reads our output has had enough of it, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let next =
                if matches!(failure, Failure::Unreachable(_)) { "; `weir doctor` looks further" } else { "" };
            eprintln!("weir: {failure}{next}");
            ExitCode::from(if matches!(failure, Failure::NotFound(_)) { 1 } else { 2 })
        }
    }
}

impl Session {
    fn new(arguments: &Arguments) -> Result<Session, Failure> {
        let common = &arguments.common;
        let named =
            common.api.clone().or_else(|| std::env::var("WEIR_API").ok().filter(|api| !api.is_empty()));
        let api = named.unwrap_or_else(|| API_DEFAULT.to_owned());
        Ok(Session {
            client: Client::new(&api, Duration::from_secs(common.timeout))?,
            out: Box::new(BufWriter::new(io::stdout().lock())),
            style: Style { colours: wants_colours() },
            json: common.json,
            now_ms: clock::unix_ms(),
        })
    }

    fn run(&mut self, command: Command) -> Result<Outcome, Failure> {
        match command {
            Command::Devices => self.devices()?,
            Command::State { device, at } => self.state(&device, at.as_deref())?,
            Command::History(query) => self.history(&query)?,
            Command::Boots { device } => self.boots(&device)?,
            Command::DeadLetters { limit } => self.dead_letters(limit)?,
            Command::Command(todo) => return self.command(&todo),
            Command::Resend(resend) => return self.resend(&resend),
            Command::Status => self.status()?,
            Command::Doctor { gateway } => return self.doctor(&gateway),
        }
        Ok(Outcome::Done)
    }

    fn state(&mut self, device: &str, at: Option<&str>) -> Result<(), Failure> {
        let mut query = Vec::new();
        if let Some(at) = at {
            query.push(("at", self.moment("--at", at)?.to_string()));
        }
        let answer = self.client.get(&format!("/v1/devices/{}/state", device_name(device)?), &query)?;
        self.print(&answer, |state: &types::State, style, now_ms| print::state(state, style, now_ms))
    }

    fn boots(&mut self, device: &str) -> Result<(), Failure> {
        let answer = self.client.get(&format!("/v1/devices/{}/boots", device_name(device)?), &[])?;
        self.print(&answer, |boots: &types::Boots, style, _| print::boots(boots, style))
    }

    fn status(&mut self) -> Result<(), Failure> {
        let answer = self.client.get("/v1/status", &[])?;
        self.print(&answer, |status: &types::Status, style, now_ms| print::status(status, style, now_ms))
    }

    /// Prints an answer as it came, or as text for people.
    fn print<T: serde::de::DeserializeOwned>(
        &mut self,
        answer: &str,
        text: impl FnOnce(&T, Style, u64) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            writeln!(self.out, "{}", answer.trim_end())?;
        } else {
            self.out.write_all(text(&client::parse(answer)?, self.style, self.now_ms).as_bytes())?;
        }
        Ok(())
    }

    fn moment(&self, option: &str, text: &str) -> Result<u64, Failure> {
        times::parse(text, self.now_ms).map_err(|bad| Failure::Usage(format!("{option}: {bad}")))
    }
}

/// Checks a device's name before it is put into a path.
fn device_name(name: &str) -> Result<Id, Failure> {
    name.parse().map_err(|bad| Failure::Usage(format!("{name:?} names no device; allowed: {bad}")))
}

/// Colours are for terminals, and for those who want them: <https://no-color.org>.
fn wants_colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !refused && !dumb
}
