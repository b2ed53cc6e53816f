//! What a person sees meanwhile: a line for each round, and what is going on now where somebody is looking.

use std::time::{Duration, Instant};

use console::style;
use indicatif::{ProgressBar, ProgressStyle};

use crate::figures::told;
use crate::round::Outcome;

/// Standard error, so that standard output is for the figures.
pub struct Screen {
    bar: ProgressBar,
    begun: Instant,
    acknowledged: u64,
}

impl Screen {
    pub fn begin(asked: Duration) -> Screen {
        let bar = ProgressBar::new(asked.as_secs());
        let style =
            ProgressStyle::with_template("  {bar:30} {msg}").expect("a template that indicatif reads");
        bar.set_style(style);
        Screen { bar, begun: Instant::now(), acknowledged: 0 }
    }

    /// A sentence that stays.
    pub fn say(&self, sentence: &str) {
        if self.bar.is_hidden() {
            eprintln!("{sentence}");
        } else {
            self.bar.println(sentence);
        }
    }

    /// What is being done.
    pub fn now(&self, number: u64, doing: &str) {
        self.bar.set_position(self.begun.elapsed().as_secs());
        let (time, acknowledged) = (told(self.begun.elapsed()), self.acknowledged);
        self.bar.set_message(format!("{time}  {acknowledged} uplinks acknowledged  round {number}: {doing}"));
    }

    /// A round has come to its end.
    pub fn done(&mut self, number: u64, faults: &str, outcome: &Outcome) {
        self.acknowledged += outcome.acknowledged_uplinks;
        let lost = match outcome.proof.proven {
            true => "each exactly once".to_owned(),
            false => style("NOT so").red().to_string(),
        };
        self.say(&format!(
            "  {}  round {number:<4} {:>6} uplinks, {lost}; recovered in {:>5.2} s: {faults}",
            told(self.begun.elapsed()),
            outcome.acknowledged_uplinks,
            outcome.recovery.as_secs_f64(),
        ));
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
