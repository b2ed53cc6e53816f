//! What a soak has found, in figures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use weir_tests::sim::Proof;

use crate::faults::Kind;
use crate::round::{Outcome, Round};

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// The seed that gives the same faults again.
    pub seed: u64,
    /// The first round, if not 1.
    pub from: u64,
    /// Rounds that were run to their end.
    pub rounds: u64,
    pub seconds: u64,
    /// How often each kind was tried, and how long recovery took at most.
    faults: BTreeMap<&'static str, Tried>,
    /// Uplinks that devices got a PUBACK for.
    uplinks_acknowledged: u64,
    /// Uplinks that devices sent more than once.
    uplinks_repeated: u64,
    /// Numbers that devices gave to events.
    events_emitted: u64,
    /// Of these, stored in the cloud.
    events_stored: u64,
    /// Of these, told as lost by the device that had to give them up.
    events_in_ledger: u64,
    /// Of these, acknowledged, and neither stored nor in the ledger. It must be 0.
    pub events_lost: u64,
    /// Of these, in history more than once. It must be 0.
    events_doubled: u64,
    /// Stored and never emitted, or out of order, or told in two ways that do not agree. It must be 0.
    contradictions: u64,
    /// The longest time from the end of a round's last fault until all that was acknowledged was stored.
    recovery_ms_max: u64,
    /// What was not as it should be; the run ended there.
    pub failure: Option<Failure>,
    /// Somebody has ended it before its time.
    pub interrupted: bool,
}

/// What was not as it should be.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// In which round; 0 for the beginning.
    pub round: u64,
    /// The faults of that round.
    pub faults: String,
    /// What was found.
    pub what: String,
    /// Where logs, spools, stream, store and manifests were left.
    pub kept: Option<PathBuf>,
}

/// A kind of fault in figures.
#[derive(Debug, Default, Serialize)]
struct Tried {
    times: u64,
    /// Of rounds in which nothing else went wrong.
    alone_recovery_ms_max: Option<u64>,
    /// Of rounds in which other things went wrong, too.
    with_others_recovery_ms_max: Option<u64>,
}

impl Figures {
    pub fn new(seed: u64, from: u64, kinds: &[&Kind]) -> Figures {
        let faults = kinds.iter().map(|kind| (kind.name, Tried::default())).collect();
        Figures { seed, from, faults, ..Figures::default() }
    }

    /// A round has come to its end.
    pub fn add(&mut self, round: &Round, outcome: &Outcome, kinds: &[&Kind]) {
        self.rounds += 1;
        self.uplinks_acknowledged += outcome.acknowledged_uplinks;
        self.uplinks_repeated += outcome.repeated_uplinks;
        self.events_emitted += outcome.proof.emitted;
        self.events_stored += outcome.proof.stored;
        self.events_in_ledger += outcome.proof.lost;
        self.blame(&outcome.proof);
        let recovery_ms = u64::try_from(outcome.recovery.as_millis()).unwrap_or(u64::MAX);
        self.recovery_ms_max = self.recovery_ms_max.max(recovery_ms);
        let alone = round.blows.iter().all(|blow| blow.kind == round.blows[0].kind);
        for blow in &round.blows {
            let tried = self.faults.entry(kinds[blow.kind].name).or_default();
            tried.times += 1;
            let longest =
                if alone { &mut tried.alone_recovery_ms_max } else { &mut tried.with_others_recovery_ms_max };
            *longest = (*longest).max(Some(recovery_ms));
        }
    }

    /// Counts what a proof has found wrong.
    pub fn blame(&mut self, proof: &Proof) {
        self.events_lost += proof.missing + proof.undelivered;
        self.events_doubled += proof.doubled;
        self.contradictions += proof.contradictions + proof.invented + proof.other_boots;
    }

    /// What to type to have the same faults again.
    pub fn again(&self) -> String {
        match self.from {
            1 => format!("make soak ARGS=\"--seed {}\"", self.seed),
            from => format!("make soak ARGS=\"--seed {} --from {from}\"", self.seed),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut faults = Table::new();
        faults.load_style(UTF8_FULL_CONDENSED);
        faults.set_header(["fault", "tried", "longest recovery, alone", "with others"]);
        for (name, tried) in &self.faults {
            faults.add_row([
                (*name).to_owned(),
                tried.times.to_string(),
                seconds(tried.alone_recovery_ms_max),
                seconds(tried.with_others_recovery_ms_max),
            ]);
        }
        let tried: u64 = self.faults.values().map(|tried| tried.times).sum();
        let mut all = Table::new();
        all.load_style(UTF8_FULL_CONDENSED);
        let counted = [
            ("faults tried", tried),
            ("rounds", self.rounds),
            ("uplinks acknowledged", self.uplinks_acknowledged),
            ("  sent more than once", self.uplinks_repeated),
            ("events emitted", self.events_emitted),
            ("  stored", self.events_stored),
            ("  in the ledger of losses", self.events_in_ledger),
            ("  lost", self.events_lost),
            ("  doubled in history", self.events_doubled),
            ("contradictions", self.contradictions),
        ];
        for (name, count) in counted {
            all.add_row([name.to_owned(), count.to_string()]);
        }
        all.add_row(["longest recovery".to_owned(), seconds(Some(self.recovery_ms_max))]);
        all.add_row(["time".to_owned(), told(Duration::from_secs(self.seconds))]);
        all.add_row(["seed".to_owned(), self.seed.to_string()]);
        for (table, columns) in [(&mut faults, [1, 2, 3].as_slice()), (&mut all, &[1])] {
            for &column in columns {
                if let Some(column) = table.column_mut(column) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        format!("{faults}\n{all}")
    }
}

fn seconds(ms: Option<u64>) -> String {
    ms.map(|ms| format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)).unwrap_or_default()
}

/// `1:02:03`
pub fn told(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(told(Duration::from_secs(3_723)), "1:02:03");
        assert_eq!(seconds(Some(12_345)), "12.34 s");
        assert_eq!(seconds(None), "");
    }

    #[test]
    fn recovery_counts_for_each_kind_alone_or_with_others() {
        let kinds = crate::faults::kinds();
        let blow =
            |kind, again| schedule::Blow { kind, from: Duration::ZERO, to: Duration::ZERO, seed: 0, again };
        let outcome = |ms| Outcome {
            acknowledged_uplinks: 5,
            repeated_uplinks: 1,
            recovery: Duration::from_millis(ms),
            proof: Proof { emitted: 10, stored: 9, missing: 1, ..Proof::default() },
        };
        let mut figures = Figures::new(7, 1, &kinds);
        let round = |blows| Round { number: 1, seed: 7, blows };
        figures.add(&round(vec![blow(0, false), blow(0, true)]), &outcome(300), &kinds);
        figures.add(&round(vec![blow(0, false), blow(1, false)]), &outcome(200), &kinds);
        let first = &figures.faults[kinds[0].name];
        assert_eq!(
            (first.times, first.alone_recovery_ms_max, first.with_others_recovery_ms_max),
            (3, Some(300), Some(200))
        );
        assert_eq!(figures.faults[kinds[1].name].alone_recovery_ms_max, None);
        assert_eq!(
            (figures.uplinks_acknowledged, figures.events_lost, figures.recovery_ms_max),
            (10, 2, 300)
        );
    }

    use crate::schedule;
}
