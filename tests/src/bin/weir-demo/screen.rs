//! What a person sees: bars that move on a terminal, plain lines anywhere else.

use std::time::{Duration, Instant};

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::numbers::Numbers;

const PICTURE: &str = concat!(
    "  devices ──MQTT──▶ gateway ──NATS──▶ JetStream ──▶ cloud ──▶ you\n",
    "          ◀─PUBACK─  spool     ✂      the log       state, history\n",
    "           \"on disk\"         cut for\n",
    "                             a while",
);

/// How often a line is written where bars cannot be drawn.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Standard output.
pub struct Screen {
    bars: Option<Bars>,
    last_line: Option<Instant>,
    is_terminal: bool,
}

struct Bars {
    all: MultiProgress,
    emitted: ProgressBar,
    acknowledged: ProgressBar,
    waiting: ProgressBar,
    stored: ProgressBar,
}

impl Screen {
    /// Bars if somebody is looking.
    pub fn new() -> Screen {
        Screen { bars: None, last_line: None, is_terminal: console::user_attended() }
    }

    /// What this is about.
    pub fn title(&self) {
        println!(
            "{}\n\n{PICTURE}",
            style("Weir: events from devices to queries, none lost and none doubled").bold()
        );
        self.section("Starting, each a process of its own");
    }

    /// Who listens where, and what for.
    pub fn addresses(&self, parts: &[(&str, &str, &str)]) {
        for (name, address, purpose) in parts {
            println!("  {name:<13} {address:<26} {purpose}");
        }
    }

    /// A new part of the story.
    pub fn section(&self, heading: &str) {
        println!("\n{}", style(heading).bold());
    }

    /// Something happened while the numbers are shown.
    pub fn say(&self, sentence: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.all.println(format!("  ── {sentence}"));
            }
            None => println!("  ── {sentence}"),
        }
    }

    /// Begins to show numbers; `expected` is how many events there will be.
    pub fn begin(&mut self, expected: u64) {
        if self.is_terminal {
            self.bars = Some(Bars::new(expected));
        } else {
            println!(
                "  {:>6}  {:<6}  {:>9}  {:>12}  {:>9}  {:>9}  lag",
                "time", "uplink", "emitted", "acknowledged", "spooled", "stored"
            );
        }
    }

    /// Shows them.
    pub fn show(&mut self, numbers: &Numbers) {
        if let Some(bars) = &self.bars {
            bars.show(numbers);
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            println!(
                "  {:>4.0} s  {:<6}  {:>9}  {:>12}  {:>9}  {:>9}  {}",
                numbers.elapsed.as_secs_f64(),
                if numbers.is_up { "up" } else { "CUT" },
                numbers.emitted,
                numbers.acknowledged,
                numbers.waiting,
                numbers.stored,
                lag(numbers),
            );
        }
    }

    /// Shows the last numbers and leaves them standing.
    pub fn finish(&mut self, last: &Numbers) {
        self.last_line = None;
        self.show(last);
        if let Some(bars) = self.bars.take() {
            for bar in [bars.emitted, bars.acknowledged, bars.waiting, bars.stored] {
                bar.abandon();
            }
        }
    }

    /// A command and what it printed.
    pub fn command(&self, command: &str, explanation: &str, output: &str) {
        println!("\n  {}", style(format!("# {explanation}")).dim());
        println!("  $ {}", style(command).bold());
        for line in output.trim_end().lines() {
            println!("  {line}");
        }
    }
}

impl Bars {
    fn new(expected: u64) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let bar = |name: &'static str, style: &str| {
            let template = format!("  {name:<13} {{bar:40.{style}}} {{pos:>9}}  {{msg}}");
            let style = ProgressStyle::with_template(&template).expect("a template that indicatif reads");
            all.add(ProgressBar::new(expected).with_style(style))
        };
        let emitted = bar("emitted", "white");
        let acknowledged = bar("acknowledged", "green");
        let waiting = bar("in the spool", "yellow");
        let stored = bar("stored", "cyan");
        Bars { all, emitted, acknowledged, waiting, stored }
    }

    fn show(&self, numbers: &Numbers) {
        self.emitted.set_position(numbers.emitted);
        self.acknowledged.set_position(numbers.acknowledged);
        self.waiting.set_position(numbers.waiting);
        self.waiting.set_message(if numbers.is_up { "" } else { "uplink cut" });
        self.stored.set_position(numbers.stored);
        self.stored.set_message(lag(numbers));
    }
}

fn lag(numbers: &Numbers) -> String {
    match numbers.lag_messages {
        0 => String::new(),
        1 => "1 segment behind the log".to_owned(),
        messages => format!("{messages} segments behind the log"),
    }
}
