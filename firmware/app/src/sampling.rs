//! The sampling loop: reads the sensor when it is due, and feeds the watchdog.

use embedded_hal::i2c::I2c;
use lm75::{Address, Lm75};
use weir_contract::Id;
use weir_contract::body::{Body, Scalar};
use weir_device::Crossing;

use crate::app::{Core, Shared, Watchdog, now_ms, pause_until};
use crate::settings;

/// Goes round for ever. `stack` tells how much of the stack was used, for the log.
pub(crate) async fn run<B: I2c>(
    shared: &Shared<'_>,
    bus: B,
    mut watchdog: impl Watchdog,
    stack: fn() -> (usize, usize),
) -> ! {
    let mut sensor = Lm75::new(bus, Address::default());
    let name: Id = settings::SENSOR.parse().expect("a valid name");
    let mut well = true;
    let mut not_before = 0;
    let mut deepest = 0;
    loop {
        if shared.both_go_round() {
            watchdog.feed();
        }
        let now = now_ms();
        if shared.core().sampler.due_at().max(not_before) <= now {
            let read = sensor.read_temperature();
            // Told when it begins and when it ends, not with every reading.
            if well != read.is_ok() {
                well = read.is_ok();
                log::warn!("sensor {}", if well { "answers again" } else { "does not answer" });
            }
            match read {
                Ok(celsius) => shared.core().sampled(now, name, celsius.into()),
                Err(_) => not_before = now + settings::SENSOR_RETRY_MS,
            }
            shared.tell_news();
        }
        let (used, all) = stack();
        if used > deepest {
            deepest = used;
            log::info!("stack: {used} of {all} bytes used");
        }
        let due_at = shared.core().sampler.due_at().max(not_before);
        pause_until(Some(due_at)).await;
    }
}

impl Core<'_> {
    /// The sensor reads `celsius` at `now`: emits what of that is worth an event.
    fn sampled(&mut self, now: u64, sensor: Id, celsius: f64) {
        // What finds no room is counted, and told as lost, by the device.
        if self.sampler.sample(now, celsius) {
            let value = Scalar::Float(celsius);
            let _ = self
                .device
                .emit(now, &Body::ReadingTaken { sensor, value, unit: Some(settings::UNIT.into()) });
        }
        if let Some(crossing) = self.limit.watch(celsius) {
            let rising = crossing == Crossing::Rising;
            let limit = self.limit.limit();
            let _ = self.device.emit(now, &Body::LimitCrossed { sensor, value: celsius, limit, rising });
        }
    }
}
