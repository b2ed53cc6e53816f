//! The fold: what uplinks add to what is known of one boot of one device.
//!
//! Everything that is folded is a set or keeps the greatest or least of what was told, so the order of arrival does not
//! matter, and the same uplink again changes nothing but the count of duplicates.

use weir_contract::body::Body;
use weir_contract::time::{Clock, wall_ms};
use weir_contract::uplink::Uplink;
use weir_contract::{Id, Kind};

use super::beginning::Beginning;
use super::registers::{Registers, Stamp, text};
use super::runs::Runs;
use crate::store::types::{Account, Place, TIME_MS_MAX};

/// Most ranges that the stored, or the lost, numbers of a boot may form. A device that leaves more holes than this is not
/// folded further; its uplinks become dead letters. It bounds what one device can make us remember.
pub const RUNS_MAX: usize = 16_384;

/// What is known of one boot of one device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Boot {
    /// When it began.
    pub beginning: Beginning,
    /// Numbers of the events that are stored.
    pub stored: Runs<u32>,
    /// Numbers that the ledger says were lost. May overlap with `stored`: what was given up may turn up all the same.
    pub lost: Runs<u32>,
    /// In a state of the past: numbers of events that are stored, and were observed later. Else empty.
    pub later: Runs<u32>,
    /// Events that arrived again.
    pub duplicates: u64,
    /// Wall times of the earliest and of the latest stored event.
    pub span_ms: Option<(u64, u64)>,
    /// When an uplink was last taken by a gateway, and by which.
    pub heard: Option<(u64, Place)>,
    /// What its events tell of the device's state.
    pub registers: Registers,
}

/// How an uplink came.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The device that sent it.
    pub device: Id,
    /// Where it was taken.
    pub place: Place,
    /// When, Unix milliseconds by the gateway's clock.
    pub received_ms: u64,
}

/// What follows from an uplink, beside the new [`Boot`].
#[derive(Debug, Clone, PartialEq)]
pub enum Fact<'a> {
    /// A new event for history.
    Event(NewEvent<'a>),
    /// The ledger grows: numbers of a boot, perhaps of another device, are gone.
    Lost {
        /// Whose numbers.
        device: Id,
        /// Of which boot.
        boot: u64,
        /// The first.
        from: u32,
        /// The last.
        to: u32,
        /// Why.
        reason: Box<str>,
        /// The event that tells.
        stamp: Stamp,
    },
    /// A gateway says something of a device.
    Said {
        /// Of which device.
        device: Id,
        /// What.
        said: Said,
        /// The event that tells.
        stamp: Stamp,
    },
    /// An event that is kept in history, and whose body makes no sense.
    Unread {
        /// The event.
        seq: u32,
        /// What is wrong with it.
        reason: String,
        /// The body.
        body: &'a [u8],
    },
}

/// A row of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEvent<'a> {
    /// Number and time.
    pub stamp: Stamp,
    /// What kind of fact.
    pub kind: Kind,
    /// Version of the body's schema.
    pub version: u16,
    /// Raw CBOR.
    pub body: &'a [u8],
}

/// What a gateway can say of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It connected, from this address.
    Connected(Box<str>),
    /// It disconnected, for this reason.
    Disconnected(Box<str>),
    /// It did not answer this command in time.
    Expired(Box<str>),
    /// This command was not taken.
    Refused {
        /// The command.
        id: Box<str>,
        /// Why.
        reason: Box<str>,
    },
}

/// Why an uplink is not folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the numbers of this boot have more than {RUNS_MAX} holes")]
pub struct TooManyHoles;

impl Boot {
    /// Folds an uplink of this boot and tells what follows from it.
    ///
    /// # Errors
    /// [`TooManyHoles`]; then nothing of it is folded.
    pub fn take<'a>(
        &mut self,
        uplink: &Uplink<'a>,
        taken: &Taken,
        facts: &mut Vec<Fact<'a>>,
    ) -> Result<(), TooManyHoles> {
        let (first, last) = (uplink.first_seq(), uplink.last_seq());
        let again = self.stored.touches(first, last);
        room_for(&self.stored, first, last)?;
        let received_ms = taken.received_ms.min(TIME_MS_MAX);
        self.beginning.learn(&uplink.header, last, received_ms);
        self.heard = self.heard.max(Some((received_ms, taken.place)));
        for event in uplink.events() {
            if again && self.stored.contains(event.seq) {
                self.duplicates += 1;
                continue;
            }
            let (at_ms, clock) = wall_ms(&uplink.header, received_ms, event.at);
            let stamp = Stamp { seq: event.seq, at_ms: at_ms.min(TIME_MS_MAX), clock };
            let new = NewEvent { stamp, kind: event.kind, version: event.version, body: event.body };
            self.apply(uplink.header.boot, &new, taken, facts);
            facts.push(Fact::Event(new));
        }
        self.stored.insert(first, last);
        Ok(())
    }

    /// Folds one event that is not stored yet.
    fn apply<'a>(&mut self, boot: u64, event: &NewEvent<'a>, taken: &Taken, facts: &mut Vec<Fact<'a>>) {
        self.spans(event.stamp.at_ms);
        let read = Body::read(&event.kind, event.version, event.body)
            .map_err(|malformed| malformed.to_string())
            .and_then(|body| body.map_or(Ok(None), |body| self.tell(boot, event.stamp, &body, taken)));
        match read {
            Ok(fact) => facts.extend(fact),
            Err(reason) => facts.push(Fact::Unread { seq: event.stamp.seq, reason, body: event.body }),
        }
    }

    /// Folds an event of history again, for a state of the past.
    pub fn replay(&mut self, event: &NewEvent<'_>) {
        self.spans(event.stamp.at_ms);
        self.stored.insert(event.stamp.seq, event.stamp.seq);
        if let Ok(Some(body)) = Body::read(&event.kind, event.version, event.body) {
            // What did not fit in the state then does not now; a dead letter has told of it.
            let _ = self.registers.apply(event.stamp, &body);
        }
    }

    /// The ledger says that `from ..= to` of this boot are gone.
    ///
    /// # Errors
    /// [`TooManyHoles`]; then nothing has changed.
    pub fn lose(&mut self, from: u32, to: u32) -> Result<(), TooManyHoles> {
        room_for(&self.lost, from, to)?;
        self.lost.insert(from, to);
        Ok(())
    }

    /// What became of the numbers up to the highest one heard of.
    pub fn account(&self) -> Account {
        let events = self.stored.count();
        let lost = self.lost.minus(&self.stored).count();
        Account { events, lost, missing: self.missing().count() }
    }

    /// Numbers that are neither stored nor in the ledger.
    pub fn missing(&self) -> Runs<u32> {
        self.stored.union(&self.lost).union(&self.later).gaps_up_to(self.highest())
    }

    fn highest(&self) -> u32 {
        self.stored.last().max(self.lost.last()).unwrap_or(0)
    }

    fn spans(&mut self, at_ms: u64) {
        let (earliest, latest) = self.span_ms.unwrap_or((at_ms, at_ms));
        self.span_ms = Some((earliest.min(at_ms), latest.max(at_ms)));
    }

    /// Puts a body that could be read where it belongs: into our own registers, or out to where it is about.
    fn tell<'a>(
        &mut self,
        boot: u64,
        stamp: Stamp,
        body: &Body<'_>,
        taken: &Taken,
    ) -> Result<Option<Fact<'a>>, String> {
        let said = |device, said| Ok(Some(Fact::Said { device, said, stamp }));
        let words = |words| text("a text", words).map_err(|too_long| too_long.to_string());
        match *body {
            Body::EventsLost { device, boot: of_boot, from, to, reason } => {
                let device = device.unwrap_or(taken.device);
                taken.may_speak_of(device)?;
                // The number that tells of a loss was not lost itself.
                let tells_of_itself =
                    device == taken.device && boot == of_boot && (from..=to).contains(&stamp.seq);
                if from == 0 || from > to || tells_of_itself {
                    return Err(format!(
                        "the lost numbers {from} to {to} are no range that {} can tell of",
                        stamp.seq
                    ));
                }
                let reason = words(reason)?;
                Ok(Some(Fact::Lost { device, boot: of_boot, from, to, reason, stamp }))
            }
            Body::DeviceConnected { device, address } => {
                taken.must_be_a_gateway()?;
                said(device, Said::Connected(words(address)?))
            }
            Body::DeviceDisconnected { device, reason } => {
                taken.must_be_a_gateway()?;
                said(device, Said::Disconnected(words(reason)?))
            }
            Body::CommandExpired { device, id } => {
                taken.must_be_a_gateway()?;
                said(device, Said::Expired(words(id)?))
            }
            Body::CommandRefused { device, id: Some(id), reason } => {
                taken.must_be_a_gateway()?;
                said(device, Said::Refused { id: words(id)?, reason: words(reason)? })
            }
            // Nobody knows which; it stands in the history.
            Body::CommandRefused { id: None, .. } => {
                taken.must_be_a_gateway()?;
                Ok(None)
            }
            _ => self.registers.apply(stamp, body).map(|()| None).map_err(|too_long| too_long.to_string()),
        }
    }
}

impl Taken {
    /// A device speaks of itself, a gateway of any device.
    fn may_speak_of(&self, device: Id) -> Result<(), String> {
        if device == self.device { Ok(()) } else { self.must_be_a_gateway() }
    }

    fn must_be_a_gateway(&self) -> Result<(), String> {
        if self.device == self.place.gateway {
            return Ok(());
        }
        Err(format!("{} says what only the gateway that took it, {}, may", self.device, self.place.gateway))
    }
}

/// Whether `from ..= to` can be put in without forming more ranges than is allowed.
fn room_for(runs: &Runs<u32>, from: u32, to: u32) -> Result<(), TooManyHoles> {
    let widened = (from.saturating_sub(1), to.saturating_add(1));
    if runs.ranges().len() < RUNS_MAX || runs.touches(widened.0, widened.1) {
        Ok(())
    } else {
        Err(TooManyHoles)
    }
}

/// Whose clock, as a small number for the store.
pub(crate) fn clock_code(clock: Clock) -> u8 {
    match clock {
        Clock::Device => 0,
        Clock::Gateway => 1,
        Clock::Unknown => 2,
    }
}

/// The opposite of [`clock_code`].
pub(crate) fn clock_of(code: u8) -> Option<Clock> {
    [Clock::Device, Clock::Gateway, Clock::Unknown].into_iter().find(|clock| clock_code(*clock) == code)
}

#[cfg(test)]
mod tests;
