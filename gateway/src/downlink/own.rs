//! Commands to the gateway itself. It is a device of its own downlink: a command to it waits on disk, is done, and is
//! answered by events of the gateway, so that history shows who was asked for what, and what became of it.
//!
//! The only one is `resend {from}` or `resend {since_ms}`: what the stream has acknowledged from that number, or that time on,
//! is sent to it again, as far as it is kept. It is completed when all of it is in the stream. A gateway that is started
//! again in the middle begins again: what reads the stream absorbs repetitions.

use std::sync::Arc;

use minicbor::encode::write::Cursor;
use minicbor::{Decoder, Encoder};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use weir_contract::Id;
use weir_contract::body::Outcome;
use weir_contract::command::Command;

use super::Hub;
use crate::spool::Spool;
use crate::uplink::{Plan, Resend};
use crate::{journal, spool};

/// What commands to the gateway itself need.
pub struct Own {
    /// What is asked for again is read from here.
    pub spool: Arc<Spool>,
    /// Who sends it.
    pub resend: Resend,
    /// To have an answer on disk before the command is put away.
    pub flushes: mpsc::Sender<journal::Flush>,
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("a gateway does not know {0:?}; known is resend")]
    Unknown(String),
    #[error("resend takes from (a number from 1 on) or since_ms (Unix milliseconds)")]
    Arguments,
    #[error("{0}")]
    Refused(#[from] crate::uplink::Refused),
    #[error("the spool cannot be read: {0}")]
    Spool(String),
}

/// From where on to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Number(u64),
    Time(u64),
}

/// Does what the gateway is told, one after the other.
pub(super) async fn run(hub: Arc<Hub>, gateway: Id, mut own: Own) {
    let mailbox = hub.listen(gateway);
    loop {
        mailbox.slot().filled().await;
        let Some(payload) = mailbox.slot().take() else { continue };
        // Read once already, when it was taken.
        let Ok(command) = Command::read(&payload) else { continue };
        let id: Box<str> = command.id.to_cow().into();
        // It may have come again while the one before was being done.
        if !hub.waits(&gateway, &id) {
            continue;
        }
        let answers = Answers { hub: &hub, gateway, id, flushes: own.flushes.clone() };
        if !answers.tell(Outcome::Accepted, None, None).await {
            continue;
        }
        let (outcome, reason, result) = match own.obey(&command).await {
            Ok(plan) => (Outcome::Completed, in_words(&plan), Some(in_numbers(&plan))),
            Err(failure) => (Outcome::Failed, failure.to_string(), None),
        };
        answers.tell(outcome, Some(reason), result).await;
    }
}

impl Own {
    async fn obey(&mut self, command: &Command<'_>) -> Result<Plan, Failure> {
        let name = command.name.to_cow();
        if name != "resend" {
            return Err(Failure::Unknown(name.chars().take(32).collect()));
        }
        let from = match read_from(command.args).ok_or(Failure::Arguments)? {
            From::Number(number) => number,
            From::Time(unix_ms) => self.number_taken_at(unix_ms).await?,
        };
        let plan = self.resend.ask(from).await?;
        self.resend.done(&plan).await?;
        Ok(plan)
    }

    async fn number_taken_at(&self, unix_ms: u64) -> Result<u64, Failure> {
        let spool = Arc::clone(&self.spool);
        let found = spawn_blocking(move || {
            let number = spool.number_taken_at(unix_ms)?;
            // Nothing was taken since: then there is nothing to send, which is no mistake.
            Ok(number.min(spool.next_number().saturating_sub(1)))
        });
        let found: Result<u64, spool::Error> =
            found.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        found.map_err(|error| Failure::Spool(error.with_causes()))
    }
}

/// Tells what becomes of one command.
struct Answers<'h> {
    hub: &'h Hub,
    gateway: Id,
    id: Box<str>,
    flushes: mpsc::Sender<journal::Flush>,
}

impl Answers<'_> {
    /// Tells it, and returns when that is on disk, however long that takes; says whether it is.
    async fn tell(&self, outcome: Outcome, reason: Option<String>, result: Option<Vec<u8>>) -> bool {
        let id = self.id.clone();
        tracing::info!(id, ?outcome, reason, "a command to this gateway");
        let answer = journal::Entry::CommandAnswered { id, outcome, reason, result };
        // Only a gateway that goes down has no journal any more; then the command waits for the next start.
        let told = self.hub.journal.tell(answer).await && journal::flush(&self.flushes).await;
        if told {
            self.hub.answered(&self.gateway, &self.id, outcome);
        }
        told
    }
}

fn read_from(args: &[u8]) -> Option<From> {
    let mut d = Decoder::new(args);
    let mut found = None;
    for _ in 0..d.map().ok()?? {
        let from = match d.str().ok()? {
            "from" => From::Number(d.u64().ok()?),
            "since_ms" => From::Time(d.u64().ok()?),
            _ => return None,
        };
        if found.replace(from).is_some() {
            return None;
        }
    }
    found.filter(|from| *from != From::Number(0))
}

fn in_words(plan: &Plan) -> String {
    let Plan { again, not_kept } = plan;
    let sent = match again.end.saturating_sub(again.start) {
        0 => "nothing was sent again".to_owned(),
        count => format!("{count} uplinks were sent again, numbers {} to {}", again.start, again.end - 1),
    };
    if not_kept.is_empty() {
        return sent;
    }
    format!("{sent}; {} to {} are not kept any more", not_kept.start, not_kept.end - 1)
}

/// `{sent, not_kept, ? from, ? to}`: how many uplinks; the first and the last number sent.
fn in_numbers(plan: &Plan) -> Vec<u8> {
    let Plan { again, not_kept } = plan;
    let mut buffer = [0; 80];
    let mut e = Encoder::new(Cursor::new(&mut buffer[..]));
    let written = (|| {
        e.map(if again.is_empty() { 2 } else { 4 })?;
        e.str("sent")?.u64(again.end.saturating_sub(again.start))?;
        e.str("not_kept")?.u64(not_kept.end.saturating_sub(not_kept.start))?;
        if !again.is_empty() {
            e.str("from")?.u64(again.start)?.str("to")?.u64(again.end - 1)?;
        }
        Ok::<_, minicbor::encode::Error<_>>(())
    })();
    written.expect("four short words and four numbers fit");
    let len = e.writer().position();
    buffer[..len].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_number_or_a_time_and_nothing_else() {
        assert_eq!(read_from(b"\xA1\x64from\x18\x2A"), Some(From::Number(42)));
        assert_eq!(read_from(b"\xA1\x68since_ms\x01"), Some(From::Time(1)));
        let wrong: [&[u8]; 7] = [
            b"\xA0",
            b"\xA1\x64from\x00",
            b"\xA1\x64from\x20",
            b"\xA1\x62to\x05",
            b"\xA2\x64from\x05\x62to\x05",
            b"\xA2\x64from\x05\x68since_ms\x05",
            b"\x05",
        ];
        for args in wrong {
            assert_eq!(read_from(args), None, "{args:02x?}");
        }
    }

    #[tokio::test]
    async fn an_answer_waits_for_its_place_in_a_full_journal() {
        let folder = tempfile::tempdir().unwrap();
        let config = spool::Config::new(folder.path().join("spool"));
        let clock = crate::clock::Clock::manual(1_000);
        let (custody, committer) = crate::custody::Custody::start(&config, 1_000).unwrap();
        let (journal, entries) = journal::channel();
        for _ in 0..journal::WAITING_MAX {
            journal.send(journal::Entry::ClockStepped { by_ms: 1 });
        }
        let hub = Hub::without_commands(journal, clock.clone());
        let (flushes, asked) = mpsc::channel(1);
        let gateway: Id = "gw".parse().unwrap();
        let answers = Answers { hub: &hub, gateway, id: "c-1".into(), flushes };
        let journal = journal::run(entries, gateway, custody.clone(), clock, asked);
        let (told, ()) = tokio::join!(
            async {
                let told = answers.tell(Outcome::Completed, None, None).await;
                drop(answers);
                told
            },
            journal
        );
        assert!(told);
        let mut kinds = Vec::new();
        let mut number = 1;
        while let Some(record) = custody.spool().read_from(number, 1).unwrap().into_iter().next() {
            let mut rest = &record.part_from(number).unwrap().entries[..];
            while !rest.is_empty() {
                let (entry, len) = weir_contract::segment::first_entry(rest).unwrap();
                let uplink = weir_contract::uplink::Uplink::read(&entry.payload).unwrap();
                kinds.extend(uplink.events().map(|event| event.kind.to_string()));
                rest = &rest[len..];
            }
            number = record.end();
        }
        assert_eq!(kinds.iter().filter(|kind| *kind == "command-completed").count(), 1);
        assert!(!kinds.iter().any(|kind| kind == "events-lost"), "nothing found no room");
        spawn_blocking(|| committer.stop()).await.unwrap().unwrap();
    }

    #[test]
    fn what_is_not_kept_any_more_is_told() {
        let plan = Plan { again: 300..500, not_kept: 1..300 };
        assert_eq!(
            in_words(&plan),
            "200 uplinks were sent again, numbers 300 to 499; 1 to 299 are not kept any more"
        );
        assert_eq!(in_words(&Plan { again: 5..5, not_kept: 5..5 }), "nothing was sent again");
        let numbers = in_numbers(&Plan { again: 1..u64::MAX, not_kept: 0..u64::MAX });
        assert_eq!(Decoder::new(&numbers).map().unwrap(), Some(4));
    }
}
