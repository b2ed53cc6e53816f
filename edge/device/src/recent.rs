//! The commands seen last and what became of them, so that a repeated command is done once, and answered again where the
//! first answer may not have got through.

use heapless::Deque;
use weir_contract::Text;
use weir_contract::body::Outcome;

/// How many commands a device remembers.
pub const COMMANDS_REMEMBERED: usize = 16;

/// A command that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its id as a 64-bit FNV-1a hash: a strange command takes another's place with a chance of 16 in 2⁶⁴.
    pub id_hash: u64,
    /// What was answered last.
    pub outcome: Outcome,
    /// The answer is in the outbox of this boot, or was acknowledged. What an earlier boot answered may have been lost
    /// with its memory.
    pub told: bool,
}

/// The latest [`COMMANDS_REMEMBERED`] commands, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Recent(Deque<Seen, COMMANDS_REMEMBERED>);

impl Recent {
    /// What is known of `id`.
    pub fn find(&self, id: &Text<'_>) -> Option<Seen> {
        let id_hash = hash(id);
        self.0.iter().find(|seen| seen.id_hash == id_hash).copied()
    }

    /// Remembers what was answered to `id`, in the place of what was answered before.
    pub fn note(&mut self, id: &Text<'_>, outcome: Outcome, told: bool) {
        self.push(Seen { id_hash: hash(id), outcome, told });
    }

    /// The same, by hash.
    pub(crate) fn push(&mut self, new: Seen) {
        if let Some(seen) = self.0.iter_mut().find(|seen| seen.id_hash == new.id_hash) {
            *seen = new;
            return;
        }
        if self.0.is_full() {
            self.0.pop_front();
        }
        // There is room: it was made above.
        let _ = self.0.push_back(new);
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Seen> {
        self.0.iter()
    }
}

pub(crate) fn hash(id: &Text<'_>) -> u64 {
    let bytes = id.chunks().flat_map(str::bytes);
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_an_answer_replaces_the_one_before() {
        let mut recent = Recent::default();
        let ids: std::vec::Vec<_> = (0..=COMMANDS_REMEMBERED).map(|n| std::format!("c-{n}")).collect();
        for id in &ids {
            recent.note(&id.as_str().into(), Outcome::Accepted, true);
            recent.note(&id.as_str().into(), Outcome::Completed, false);
        }
        assert_eq!(recent.find(&"c-0".into()), None);
        let seen = recent.find(&"c-1".into()).expect("among the latest");
        assert_eq!((seen.outcome, seen.told), (Outcome::Completed, false));
        assert_eq!(recent.iter().count(), COMMANDS_REMEMBERED);
    }
}
