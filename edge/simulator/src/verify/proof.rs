//! The proof itself: pure set arithmetic over the numbers of one boot.

use super::api::Boot;
use crate::manifest::BootEntry;

/// A set of numbers 1..=max.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    words: Vec<u64>,
    max: u32,
}

impl Numbers {
    pub(super) fn none_of(max: u32) -> Self {
        Self { words: vec![0; (max as usize + 1).div_ceil(64)], max }
    }

    /// Adds a number; returns whether it is new, or `None` if it is not 1..=max.
    pub(super) fn add(&mut self, number: u32) -> Option<bool> {
        if number == 0 || number > self.max {
            return None;
        }
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        Some(new)
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.words.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What the cloud accounts for of one boot, against what the device emitted.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) stored: Numbers,
    pub(super) lost: Numbers,
    /// Numbers neither stored nor in the ledger that had been acknowledged.
    pub(super) missing: Vec<u32>,
    /// Numbers neither stored nor in the ledger that nobody had acknowledged.
    pub(super) undelivered: u64,
    /// Numbers stored more than once, or told as lost more than once, or both stored and lost.
    pub(super) doubled: Vec<u32>,
    /// How many numbers there are that were never given.
    pub(super) invented: u64,
    /// How often the ledger's entries name a number that is stored as well, or that another entry names, too.
    pub(super) lost_and_accounted_for: u64,
    /// Rows in the table of events.
    pub(super) rows: u64,
}

impl Account {
    /// `found` is `None` if the cloud has not heard of the boot.
    pub(super) fn of(entry: &BootEntry, found: Option<&Boot>) -> Self {
        let nothing = Boot::default();
        let found = found.unwrap_or(&nothing);
        let mut account = Self {
            stored: Numbers::none_of(entry.emitted),
            lost: Numbers::none_of(entry.emitted),
            missing: Vec::new(),
            undelivered: 0,
            doubled: Vec::new(),
            invented: 0,
            lost_and_accounted_for: found.told_lost,
            rows: found.events,
        };
        account.take(&found.stored, |account| &mut account.stored);
        let lost: Vec<[u32; 2]> = found.lost.iter().map(|lost| [lost.from, lost.to]).collect();
        account.take(&lost, |account| &mut account.lost);
        let once: u64 = lost.iter().map(|&[from, to]| u64::from(to.saturating_sub(from)) + 1).sum();
        account.lost_and_accounted_for = found.told_lost.saturating_sub(once);
        for number in 1..=entry.emitted {
            match (account.stored.has(number), account.lost.has(number)) {
                (false, false) if entry.is_unacknowledged(number) => account.undelivered += 1,
                (false, false) => account.missing.push(number),
                (true, true) => account.doubled.push(number),
                _ => {}
            }
        }
        account
    }

    fn take(&mut self, runs: &[[u32; 2]], set: impl Fn(&mut Self) -> &mut Numbers) {
        for &[from, to] in runs {
            let max = set(self).max;
            self.invented +=
                u64::from(to.saturating_sub(from.max(max + 1).saturating_sub(1))) + u64::from(from == 0);
            for number in from.max(1)..=to.min(max) {
                if set(self).add(number) == Some(false) {
                    self.doubled.push(number);
                }
            }
        }
    }

    /// Whether all that was acknowledged has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// What reading every event of a boot has shown.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    seen: Numbers,
    last: u32,
    /// Another boot's events have come after its own.
    over: bool,
    /// Events that come behind a later one of their boot, or among another boot's.
    pub(super) disordered: Vec<u32>,
    /// Events seen more than once.
    pub(super) doubled: Vec<u32>,
    /// Events whose numbers were never given.
    pub(super) invented: u64,
}

impl Reading {
    pub(super) fn begin(entry: &BootEntry) -> Self {
        Self {
            seen: Numbers::none_of(entry.emitted),
            last: 0,
            over: false,
            disordered: Vec::new(),
            doubled: Vec::new(),
            invented: 0,
        }
    }

    /// The history goes on with another boot.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    pub(super) fn see(&mut self, seq: u32) {
        let in_order = seq >= self.last && !self.over;
        self.last = seq;
        match self.seen.add(seq) {
            Some(true) if !in_order => self.disordered.push(seq),
            Some(true) => {}
            Some(false) => self.doubled.push(seq),
            None => self.invented += 1,
        }
    }

    /// Numbers that the account calls stored and no one could read, or the other way round. What nobody had
    /// acknowledged may have arrived since the account was made.
    pub(super) fn differs_from(&self, account: &Account, entry: &BootEntry) -> Vec<u32> {
        let differs = |number| match (self.seen.has(number), account.stored.has(number)) {
            (true, false) => !entry.is_unacknowledged(number),
            (seen, stored) => seen != stored,
        };
        (1..=self.seen.max).filter(|&number| differs(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::Lost;
    use super::*;

    fn emitted(emitted: u32) -> BootEntry {
        BootEntry { boot: 1, emitted, unacknowledged: vec![] }
    }

    fn boot(stored: &[[u32; 2]], lost: &[[u32; 2]]) -> Boot {
        let events = stored.iter().map(|&[from, to]| u64::from(to - from) + 1).sum();
        let told_lost = lost.iter().map(|&[from, to]| u64::from(to - from) + 1).sum();
        let lost = lost.iter().map(|&[from, to]| Lost { from, to }).collect();
        Boot { boot: "1".into(), stored: stored.into(), lost, told_lost, events }
    }

    #[test]
    fn stored_and_lost_make_up_what_was_emitted() {
        let account = Account::of(&emitted(100), Some(&boot(&[[1, 60], [64, 100]], &[[61, 63]])));
        assert!(account.is_complete() && account.doubled.is_empty() && account.invented == 0);
        assert_eq!((account.stored.count(), account.lost.count()), (97, 3));
    }

    #[test]
    fn a_missing_number_is_found_wherever_it_is() {
        for missing in [1, 2, 63, 64, 65, 99, 100] {
            let runs: Vec<[u32; 2]> =
                [[1, missing - 1], [missing + 1, 100]].into_iter().filter(|[from, to]| from <= to).collect();
            let account = Account::of(&emitted(100), Some(&boot(&runs, &[])));
            assert_eq!(account.missing, [missing]);
        }
        assert_eq!(Account::of(&emitted(3), None).missing, [1, 2, 3]);
    }

    #[test]
    fn what_nobody_acknowledged_may_be_missing() {
        let entry = BootEntry { unacknowledged: vec![[4, 6]], ..emitted(10) };
        let account = Account::of(&entry, Some(&boot(&[[1, 3], [5, 5], [7, 9]], &[])));
        assert_eq!((account.missing, account.undelivered), (vec![10], 2));
    }

    #[test]
    fn doubles_and_inventions_are_found() {
        let account =
            Account::of(&emitted(10), Some(&boot(&[[1, 6], [6, 12]], &[[3, 3], [9, 9], [9, 10], [0, 0]])));
        let mut doubled = account.doubled;
        doubled.sort_unstable();
        assert_eq!((doubled, account.invented), (vec![3, 6, 9, 9, 10], 3));
    }

    #[test]
    fn a_loss_told_of_what_is_stored_or_told_twice_is_found() {
        let told = Boot { told_lost: 5, ..boot(&[[1, 60], [64, 100]], &[[61, 63]]) };
        let account = Account::of(&emitted(100), Some(&told));
        assert!(account.is_complete() && account.doubled.is_empty());
        assert_eq!(account.lost_and_accounted_for, 2);
    }

    #[test]
    fn reading_finds_what_is_out_of_order() {
        let mut reading = Reading::begin(&emitted(5));
        [1, 3, 2, 4].into_iter().for_each(|seq| reading.see(seq));
        reading.end();
        reading.see(5);
        assert_eq!(reading.disordered, [2, 5]);
    }

    #[test]
    fn what_arrives_while_it_is_read_is_no_contradiction() {
        let entry = BootEntry { unacknowledged: vec![[2, 2]], ..emitted(3) };
        let account = Account::of(&entry, Some(&boot(&[[1, 1]], &[])));
        let mut reading = Reading::begin(&entry);
        [1, 2, 3].into_iter().for_each(|seq| reading.see(seq));
        assert_eq!(reading.differs_from(&account, &entry), [3]);
    }

    #[test]
    fn reading_finds_doubles_and_what_differs() {
        let entry = emitted(5);
        let account = Account::of(&entry, Some(&boot(&[[1, 4]], &[[5, 5]])));
        let mut reading = Reading::begin(&entry);
        for seq in [1, 2, 2, 4, 5, 6, 0] {
            reading.see(seq);
        }
        assert_eq!((reading.doubled.as_slice(), reading.invented), (&[2][..], 2));
        assert_eq!(reading.differs_from(&account, &entry), [3, 5]);
    }
}
