//! One publisher: its window, its numbers, its latencies. No IO, no clock.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use weir_contract::Id;

use super::template::Template;
use crate::manifest::BootEntry;

/// How late a publish may be and still be counted from when it was sent: the grain of the timers it is sent by.
const GRAIN_US: u64 = 2_000;

/// When publishes are due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As fast as acknowledgements come.
    Full,
    /// The first is due at `first_us`, the others every `interval_us`.
    Even { first_us: f64, interval_us: f64 },
}

/// A publisher of one boot of one device.
pub(super) struct Client {
    pub(super) device: Id,
    pub(super) boot: u64,
    template: Template,
    window: usize,
    batch: u32,
    pace: Pace,
    /// Uplinks it may yet make.
    left: u64,
    /// Uplinks made so far; they are numbered from 0.
    made: u64,
    /// The last of them, those from the oldest unacknowledged one on.
    flights: VecDeque<Flight>,
    unacknowledged: usize,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    /// When its events were observed, in ms since boot: they never change, also when they are published again.
    at: u32,
    /// From when its latency counts.
    since_us: u64,
    acknowledged: bool,
}

/// The time, for a client: µs since the load began, and ms since its boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) us: u64,
    pub(super) boot_ms: u32,
}

impl Client {
    /// Publishes at full speed, until it has made `uplinks`.
    pub(super) fn new(
        device: Id,
        boot: u64,
        template: Template,
        window: usize,
        batch: u32,
        uplinks: u64,
    ) -> Self {
        // The numbers of a boot end before 2³².
        let left = uplinks.min(u64::from((u32::MAX - 1) / batch));
        Self {
            device,
            boot,
            template,
            window,
            batch,
            pace: Pace::Full,
            left,
            made: 0,
            flights: VecDeque::with_capacity(window),
            unacknowledged: 0,
        }
    }

    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Appends what may be published now; returns how many uplinks that is.
    pub(super) fn publish(&mut self, out: &mut Vec<u8>, now: Now) -> u64 {
        let made = self.made;
        while self.flights.len() < self.window && self.left > 0 {
            let since_us = match self.due_us(self.made) {
                Some(due_us) if due_us > now.us => break,
                // It could not go when it was due: that wait is the gateway's, and counts.
                Some(due_us) if now.us - due_us > GRAIN_US => due_us,
                _ => now.us,
            };
            let flight = Flight { at: now.boot_ms, since_us, acknowledged: false };
            self.write(out, self.made, flight.at, now);
            self.flights.push_back(flight);
            self.unacknowledged += 1;
            self.made += 1;
            self.left -= 1;
        }
        self.made - made
    }

    /// Appends all that is not acknowledged, for a new connection; returns how many uplinks that is.
    pub(super) fn publish_again(&mut self, out: &mut Vec<u8>, now: Now) -> u64 {
        for index in 0..self.flights.len() {
            let flight = self.flights[index];
            if !flight.acknowledged {
                self.write(out, self.oldest() + index as u64, flight.at, now);
            }
        }
        self.unacknowledged as u64
    }

    /// Takes an acknowledgement; returns whether it was awaited.
    pub(super) fn acknowledged(&mut self, packet_id: u16, now: Now, latencies: &mut Histogram<u64>) -> bool {
        let ahead = (u64::from(packet_id) + PACKET_IDS - u64::from(packet_id_of(self.oldest()))) % PACKET_IDS;
        let Some(flight) = usize::try_from(ahead).ok().and_then(|ahead| self.flights.get_mut(ahead)) else {
            return false;
        };
        if packet_id == 0 || std::mem::replace(&mut flight.acknowledged, true) {
            return false;
        }
        latencies.saturating_record(now.us.saturating_sub(flight.since_us));
        self.unacknowledged -= 1;
        while self.flights.front().is_some_and(|flight| flight.acknowledged) {
            self.flights.pop_front();
        }
        true
    }

    /// Makes no more uplinks.
    pub(super) fn stop(&mut self) {
        self.left = 0;
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.flights.is_empty()
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    pub(super) fn payload_len(&self) -> usize {
        self.template.payload_len()
    }

    /// What it emitted.
    pub(super) fn entry(&self) -> BootEntry {
        let missing = self.flights.iter().zip(self.oldest()..).filter(|(flight, _)| !flight.acknowledged);
        let unacknowledged = missing.map(|(_, uplink)| {
            let first = self.first_seq(uplink);
            [first, first + (self.batch - 1)]
        });
        BootEntry {
            boot: self.boot,
            emitted: self.first_seq(self.made) - 1,
            unacknowledged: unacknowledged.collect(),
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, uplink: u64, at: u32, now: Now) {
        let first = self.first_seq(uplink);
        self.template.write(out, packet_id_of(uplink), first, at, now.boot_ms);
    }

    fn oldest(&self) -> u64 {
        self.made - self.flights.len() as u64
    }

    fn first_seq(&self, uplink: u64) -> u32 {
        u32::try_from(uplink * u64::from(self.batch) + 1).expect("limited when the client was made")
    }

    fn due_us(&self, uplink: u64) -> Option<u64> {
        match self.pace {
            Pace::Full => None,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, and `as` saturates"
            )]
            Pace::Even { first_us, interval_us } => Some((first_us + uplink as f64 * interval_us) as u64),
        }
    }
}

/// 1 to 65,535.
const PACKET_IDS: u64 = 65_535;

fn packet_id_of(uplink: u64) -> u16 {
    u16::try_from(uplink % PACKET_IDS + 1).expect("at most 65,535")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Latency;

    fn client(window: usize, pace: Pace, uplinks: u64) -> Client {
        let device: Id = "load-0001".parse().expect("a name");
        let template = Template::new(device, 5, 0, 2, 200, &mut fastrand::Rng::with_seed(1));
        let mut client = Client::new(device, 5, template, window, 2, uplinks);
        client.set_pace(pace);
        client
    }

    fn at(us: u64) -> Now {
        Now { us, boot_ms: 100_000 }
    }

    #[test]
    fn the_window_bounds_what_is_not_acknowledged_and_identifiers_go_round() {
        let mut client = client(20, Pace::Full, u64::MAX);
        let mut latencies = Latency::histogram();
        let mut out = vec![];
        assert_eq!(client.publish(&mut out, at(0)), 20);
        assert_eq!(client.publish(&mut out, at(0)), 0);
        for uplink in 0..140_000_u64 {
            assert!(client.acknowledged(packet_id_of(uplink), at(uplink), &mut latencies));
            assert_eq!(client.publish(&mut out, at(uplink)), 1);
            out.clear();
        }
        assert_eq!(client.unacknowledged(), 20);
        assert_eq!(client.entry().emitted, (140_000 + 20) * 2);
    }

    #[test]
    fn acknowledgements_out_of_order_are_taken_and_the_rest_goes_again() {
        let mut client = client(4, Pace::Full, 4);
        let mut latencies = Latency::histogram();
        let mut out = vec![];
        client.publish(&mut out, at(0));
        assert!(client.acknowledged(3, at(1), &mut latencies));
        assert!(client.acknowledged(1, at(1), &mut latencies));
        for unknown in [0, 1, 3, 5, 65_535] {
            assert!(!client.acknowledged(unknown, at(2), &mut latencies), "{unknown}");
        }
        assert_eq!(client.entry().unacknowledged, [[3, 4], [7, 8]]);
        assert_eq!(client.publish_again(&mut out, at(3)), 2);
        assert!(
            client.acknowledged(2, at(4), &mut latencies) && client.acknowledged(4, at(4), &mut latencies)
        );
        assert!(client.is_done());
        assert_eq!((client.entry().emitted, latencies.len()), (8, 4));
    }

    #[test]
    fn a_publish_held_up_counts_from_when_it_was_due() {
        let mut client = client(1, Pace::Even { first_us: 0.0, interval_us: 10_000.0 }, 3);
        let mut latencies = Latency::histogram();
        let mut out = vec![];
        assert_eq!(client.publish(&mut out, at(1_000)), 1);
        assert_eq!(client.publish(&mut out, at(10_000)), 0, "the window is full");
        client.acknowledged(1, at(50_000), &mut latencies);
        assert_eq!(client.publish(&mut out, at(50_000)), 1);
        client.acknowledged(2, at(51_000), &mut latencies);
        let told = [latencies.min(), latencies.max()].map(|us| (us + 500) / 1000);
        assert_eq!(told, [41, 49], "41 ms since it was due, 49 ms since it was sent a millisecond late");
    }
}
