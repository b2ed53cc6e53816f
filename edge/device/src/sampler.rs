//! What of a sensor is worth an event: readings by period and change, and limits crossed.

/// Takes a reading every period and reports it if it has changed enough, or if nothing was reported for long.
#[derive(Debug, Clone)]
pub struct Sampler {
    period_ms: u64,
    change_min: f64,
    silence_ms_max: u64,
    due_at: u64,
    reported: Option<(u64, f64)>,
}

impl Sampler {
    /// A reading every `period_ms` (at least 1), the first at once. It is reported if it differs from the last reported
    /// one by `change_min` or more (0: always), or if that was `silence_ms_max` or more ago.
    pub fn new(period_ms: u64, change_min: f64, silence_ms_max: u64) -> Self {
        Self { period_ms: period_ms.max(1), change_min, silence_ms_max, due_at: 0, reported: None }
    }

    /// From `now` on a reading every `period_ms`: the next one after that, or when it was due if that is sooner.
    pub fn set_period(&mut self, now: u64, period_ms: u64) {
        self.period_ms = period_ms.max(1);
        self.due_at = self.due_at.min(now.saturating_add(self.period_ms));
    }

    /// When the next reading should be taken.
    pub fn due_at(&self) -> u64 {
        self.due_at
    }

    /// A reading was taken at `now`: whether to report it. Readings that are not due yet are not.
    ///
    /// Periods that have passed unused are skipped, and readings stay on the beat of the first one.
    pub fn sample(&mut self, now: u64, value: f64) -> bool {
        if now < self.due_at {
            return false;
        }
        let periods = (now - self.due_at) / self.period_ms + 1;
        self.due_at = self.due_at.saturating_add(periods.saturating_mul(self.period_ms));
        let report = self.reported.is_none_or(|(at, reported)| {
            // Written so that a value that is no number, on either side, is a change.
            let same = (value - reported).abs() < self.change_min;
            !same || now.saturating_sub(at) >= self.silence_ms_max
        });
        if report {
            self.reported = Some((now, value));
        }
        report
    }
}

/// A limit has been crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// The value has come to the limit or above it.
    Rising,
    /// The value has fallen below the limit by the hysteresis.
    Falling,
}

/// Watches a limit, with hysteresis so that a value trembling at the limit is one crossing.
#[derive(Debug, Clone)]
pub struct Limit {
    limit: f64,
    hysteresis: f64,
    above: bool,
}

impl Limit {
    /// Crossed upwards at `limit`, downwards below `limit - hysteresis`. Begins below.
    pub fn new(limit: f64, hysteresis: f64) -> Self {
        Self { limit, hysteresis, above: false }
    }

    /// The limit.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Whether `value` crosses it.
    pub fn watch(&mut self, value: f64) -> Option<Crossing> {
        if !self.above && value >= self.limit {
            self.above = true;
            return Some(Crossing::Rising);
        }
        if self.above && value < self.limit - self.hysteresis {
            self.above = false;
            return Some(Crossing::Falling);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn readings_stay_on_the_beat_and_missed_ones_are_skipped() {
        let mut sampler = Sampler::new(100, 0.0, u64::MAX);
        let reported: Vec<u64> = [0, 50, 103, 199, 200, 555, 599, 600]
            .into_iter()
            .filter(|&now| sampler.sample(now, 1.0))
            .collect();
        assert_eq!(reported, [0, 103, 200, 555, 600]);
        assert_eq!(sampler.due_at(), 700);
    }

    #[test]
    fn small_changes_are_reported_only_after_silence() {
        let mut sampler = Sampler::new(10, 0.5, 100);
        let values = [(0, 20.0), (10, 20.4), (20, 20.5), (30, 20.9), (110, 20.6), (120, 20.5), (130, 20.6)];
        let reported: Vec<u64> = values
            .into_iter()
            .filter(|&(now, value)| sampler.sample(now, value))
            .map(|(now, _)| now)
            .collect();
        assert_eq!(reported, [0, 20, 120], "20.5 is 0.5 more; at 120 the last report is 100 ms old");
    }

    #[test]
    fn change_adds_up_against_the_last_reported_value() {
        let mut sampler = Sampler::new(1, 1.0, u64::MAX);
        let reported: Vec<u64> = (0..10).filter(|&now| sampler.sample(now, 0.25 * now as f64)).collect();
        assert_eq!(reported, [0, 4, 8]);
    }

    #[test]
    fn a_value_that_is_no_number_is_a_change() {
        let mut sampler = Sampler::new(1, 1.0, u64::MAX);
        assert!(sampler.sample(0, 1.0) && sampler.sample(1, f64::NAN) && sampler.sample(2, 1.0));
    }

    #[test]
    fn a_trembling_value_crosses_once() {
        let mut limit = Limit::new(30.0, 0.5);
        let crossings: Vec<_> = [29.9, 30.0, 29.8, 30.1, 29.5, 29.4, 29.9, 30.0]
            .into_iter()
            .filter_map(|value| limit.watch(value))
            .collect();
        assert_eq!(crossings, [Crossing::Rising, Crossing::Falling, Crossing::Rising]);
    }
}
