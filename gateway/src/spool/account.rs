//! What is in uplinks that are given up, told exactly: which events of which device and boot. Pure.
//!
//! What such an uplink says of losses is told again: a device's own word that events are lost would else be lost with it, and
//! their numbers would be missing without a word.

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::decode::Error as Unreadable;
use minicbor::{Decoder, Encoder};
use weir_contract::Id;
use weir_contract::body::Body;
use weir_contract::segment::first_entry;
use weir_contract::uplink::Uplink;

use super::record::Record;

/// Why events are lost that were given up.
pub const REASON: &str = "spool-full";
/// The most bytes of a reason that is told again.
const REASON_BYTES_MAX: usize = 100;
const VERSION: u8 = 1;

/// Events `from ..= to` of a boot of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// Whose.
    pub device: Id,
    /// Of which boot.
    pub boot: u64,
    /// Why: [`REASON`], or what was said when they were lost.
    pub reason: Box<str>,
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
}

/// Epochs that were given up, and what was in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Which spool's numbers these are.
    pub incarnation: u64,
    /// How many times something had been written down before.
    pub turn: u64,
    /// The name of the oldest.
    pub first: u64,
    /// The number after their last.
    pub end: u64,
    /// Uplinks that had not been delivered.
    pub uplinks: u64,
    /// Events that are lost, in runs.
    pub losses: Vec<Loss>,
    /// Numbers `.0 .. .1` of uplinks whose events cannot be told, because they cannot be read.
    pub unreadable: Vec<(u64, u64)>,
}

impl GivenUp {
    /// Whether there is nothing in it to tell (any more).
    pub fn is_told(&self) -> bool {
        self.losses.is_empty() && self.unreadable.is_empty()
    }

    /// How many events are lost.
    pub fn events(&self) -> u64 {
        self.losses.iter().map(|loss| u64::from(loss.to - loss.from) + 1).sum()
    }

    /// As it is kept on disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        let written = (|| {
            e.array(8)?.u8(VERSION)?.u64(self.first)?.u64(self.end)?.u64(self.uplinks)?;
            e.array(self.losses.len() as u64)?;
            for loss in &self.losses {
                e.array(5)?
                    .str(&loss.device)?
                    .u64(loss.boot)?
                    .str(&loss.reason)?
                    .u32(loss.from)?
                    .u32(loss.to)?;
            }
            e.array(self.unreadable.len() as u64)?;
            for (from, end) in &self.unreadable {
                e.array(2)?.u64(*from)?.u64(*end)?;
            }
            e.u64(self.turn)?.u64(self.incarnation)?;
            Ok::<_, minicbor::encode::Error<_>>(())
        })();
        written.expect("a vector takes everything");
        e.into_writer()
    }

    /// What [`Self::encode`] has written. The first there was had neither turn nor incarnation: it is of this
    /// one.
    pub fn decode(bytes: &[u8], incarnation: u64) -> Result<Self, Unreadable> {
        let mut d = Decoder::new(bytes);
        let items = d.array()?.unwrap_or_default();
        if d.u8()? != VERSION {
            return Err(Unreadable::message("another version"));
        }
        let (first, end, uplinks) = (d.u64()?, d.u64()?, d.u64()?);
        let mut losses = Vec::new();
        for _ in 0..d.array()?.unwrap_or_default() {
            d.array()?;
            let device = d.str()?.parse().map_err(|_| Unreadable::type_mismatch(Type::String))?;
            let (boot, reason) = (d.u64()?, d.str()?.into());
            losses.push(Loss { device, boot, reason, from: d.u32()?, to: d.u32()? });
        }
        let mut unreadable = Vec::new();
        for _ in 0..d.array()?.unwrap_or_default() {
            d.array()?;
            unreadable.push((d.u64()?, d.u64()?));
        }
        let (turn, incarnation) = if items < 8 { (1, incarnation) } else { (d.u64()?, d.u64()?) };
        Ok(Self { incarnation, turn, first, end, uplinks, losses, unreadable })
    }
}

/// Device, boot, and why.
type Whose = (Id, u64, Box<str>);

/// Adds up what is given up. Memory: a run of numbers for each uplink at most, in practice one for each device and boot.
#[derive(Debug)]
pub(super) struct Account<'a> {
    /// Whose word on others' losses counts.
    gateway: &'a Id,
    runs: BTreeMap<Whose, Vec<(u32, u32)>>,
    unreadable: Vec<(u64, u64)>,
    uplinks: u64,
}

impl<'a> Account<'a> {
    pub fn new(gateway: &'a Id) -> Self {
        Self { gateway, runs: BTreeMap::new(), unreadable: Vec::new(), uplinks: 0 }
    }

    /// Goes on with what was given up before and is still to be told.
    pub fn after(gateway: &'a Id, before: &GivenUp) -> Self {
        let mut account = Self::new(gateway);
        account.uplinks = before.uplinks;
        account.unreadable.clone_from(&before.unreadable);
        for loss in &before.losses {
            account.lost(loss.device, loss.boot, &loss.reason, loss.from, loss.to);
        }
        account
    }

    /// Uplinks `from .. end` are not there, or cannot be read.
    pub fn unreadable(&mut self, from: u64, end: u64) {
        self.uplinks += end - from;
        match self.unreadable.last_mut() {
            Some(last) if last.1 == from => last.1 = end,
            _ => self.unreadable.push((from, end)),
        }
    }

    /// All uplinks of a record from `number` on.
    pub fn record(&mut self, record: &Record, number: u64) {
        let Some(part) = record.part_from(number) else { return };
        let mut rest = &part.entries[..];
        for number in part.first..part.end() {
            let Ok((entry, len)) = first_entry(rest) else { return self.unreadable(number, part.end()) };
            rest = &rest[len..];
            match Uplink::read(&entry.payload) {
                Ok(uplink) => self.uplink(&entry.device, &uplink),
                Err(_) => self.unreadable(number, number + 1),
            }
        }
    }

    fn uplink(&mut self, device: &Id, uplink: &Uplink<'_>) {
        self.uplinks += 1;
        self.lost(*device, uplink.header.boot, REASON, uplink.first_seq(), uplink.last_seq());
        for event in uplink.events().filter(|event| event.kind == "events-lost") {
            let Ok(Some(Body::EventsLost { device: of, boot, from, to, reason })) =
                Body::read(&event.kind, event.version, event.body)
            else {
                continue;
            };
            let of = of.unwrap_or(*device);
            // A device speaks for itself only; from us it would be believed of others, too.
            if (of == *device || device == self.gateway) && 0 < from && from <= to {
                self.lost(of, boot, cut(&reason.to_cow()), from, to);
            }
        }
    }

    fn lost(&mut self, device: Id, boot: u64, reason: &str, from: u32, to: u32) {
        let runs = self.runs.entry((device, boot, reason.into())).or_default();
        match runs.last_mut() {
            Some(last) if last.0 <= from && from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => runs.push((from, to)),
        }
    }

    /// All of it.
    pub fn close(self, first: u64, end: u64) -> GivenUp {
        let mut losses = Vec::new();
        for ((device, boot, reason), runs) in self.runs {
            let merged = merge(runs).into_iter();
            losses.extend(merged.map(|(from, to)| Loss { device, boot, reason: reason.clone(), from, to }));
        }
        let (uplinks, unreadable) = (self.uplinks, self.unreadable);
        GivenUp { first, end, uplinks, losses, unreadable, ..GivenUp::default() }
    }
}

/// Runs that touch or overlap become one.
fn merge(mut runs: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    runs.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (from, to) in runs {
        match merged.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
