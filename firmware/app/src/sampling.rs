//! The sampling loop: reads the sensor when it is due, and feeds the watchdog.

use embedded_hal::i2c::I2c;
use embedded_storage::nor_flash::NorFlash;
use lm75::{Address, Lm75};

use crate::app::{Shared, Watchdog, now_ms, pause_until};
use crate::log::log;
use crate::settings;

/// Goes round for ever. `stack` tells how much of the stack was used, for the log.
pub(crate) async fn run<B: I2c, F: NorFlash>(
    shared: &Shared<'_, '_, F>,
    bus: B,
    mut watchdog: impl Watchdog,
    stack: fn() -> (usize, usize),
) -> ! {
    let mut sensor = Lm75::new(bus, Address::default());
    let mut well = true;
    let mut not_before = 0;
    let mut deepest = 0;
    loop {
        if shared.is_well() {
            watchdog.feed();
        }
        let now = now_ms();
        if shared.due_at().max(not_before) <= now {
            let read = sensor.read_temperature();
            // Told when it begins and when it ends, not with every reading.
            if well != read.is_ok() {
                well = read.is_ok();
                log!(WARN, "sensor ", if well { "answers again" } else { "does not answer" });
            }
            match read {
                Ok(celsius) => shared.core().sampled(now, celsius.into()),
                Err(_) => not_before = now + settings::SENSOR_RETRY_MS,
            }
            shared.tell_news();
        }
        let (used, all) = stack();
        if used > deepest {
            deepest = used;
            log!(INFO, "stack: ", used, " of ", all, " bytes used");
        }
        let due_at = shared.due_at().max(not_before);
        pause_until(Some(due_at)).await;
    }
}
