//! Everything that can go wrong. One more kind is one more entry in a list of [`Kind`]s, in a file of its own or beside
//! its like; what it does is two functions: make it begin, make it end.

mod cloud;
mod doors;
pub mod log;
mod machines;
mod processes;
mod strangers;
mod uplink;

use std::time::Instant;

use anyhow::Result;
use fastrand::Rng;

use crate::field::Field;
use crate::schedule::Part;

/// A kind of fault.
pub struct Kind {
    /// What has happened, in a few words.
    pub name: &'static str,
    /// What it concerns: nothing else that concerns one of these happens in the same round.
    pub parts: &'static [Part],
    /// One of this kind; whatever there is to choose is chosen here.
    pub make: fn(&mut Rng) -> Box<dyn Fault>,
}

/// Something that goes wrong for a while.
pub trait Fault {
    /// Makes it happen. It must not wait for anything to recover.
    fn begin(&mut self, field: &mut Field) -> Result<()>;

    /// Takes the cause away, and starts again what it has ended. When the cause was gone: what the parts take from
    /// then on, their start included, is their recovery.
    fn end(&mut self, field: &mut Field) -> Result<Instant>;
}

/// Every kind there is. A seed means the same faults as long as this list is the same.
pub fn kinds() -> Vec<&'static Kind> {
    let kinds = [
        processes::KINDS,
        uplink::KINDS,
        doors::KINDS,
        log::KINDS,
        cloud::KINDS,
        strangers::KINDS,
        machines::KINDS,
    ];
    kinds.into_iter().flatten().collect()
}

impl Kind {
    /// Its name as one word.
    pub fn word(&self) -> String {
        self.name.replace(' ', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_concerns_something() {
        let mut words: Vec<String> = kinds().iter().map(|kind| kind.word()).collect();
        assert!(
            words.iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-')),
            "{words:?}"
        );
        let count = words.len();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), count);
        assert!(kinds().iter().all(|kind| !kind.parts.is_empty()));
    }
}
