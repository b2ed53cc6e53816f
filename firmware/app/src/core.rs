//! The device, its agent and its memory, tied together: everything that decides, and nothing that waits.

use core::cell::RefCell;
use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use weir_contract::Id;
use weir_contract::body::Body;
use weir_device::journal::Journal;
use weir_device::{Agent, Config, Device, Duty, record_len_max};

use crate::identity::Identity;
use crate::log::log;
use crate::settings;

/// How many sensors there are.
const SENSORS: usize = 1;

pub(crate) struct Core<'m, F: NorFlash> {
    pub(crate) device: Device<Journal<F, &'m mut [u8; settings::JOURNAL_BUFFER_LEN]>, { settings::WINDOW }>,
    pub(crate) agent: Agent<SENSORS>,
    /// For what should differ between devices and boots and need not be secret: ports, pauses.
    pub(crate) seed: u64,
}

impl<'m, F: NorFlash> Core<'m, F> {
    /// As an earlier boot has left it, if it left anything, in its `place`. `None` if `storage` does not work.
    // Apart, because what is made and moved here is as deep as the stack gets, and should be gone when the app runs.
    #[inline(never)]
    pub(crate) fn open<'c>(
        place: &'c mut Option<RefCell<Self>>,
        identity: &Identity,
        storage: F,
        area: Range<u32>,
        buffer: &'m mut [u8; settings::JOURNAL_BUFFER_LEN],
    ) -> Option<&'c RefCell<Self>> {
        let journal = Journal::mount(storage, area, buffer, identity.seed).ok()?;
        let boot = journal.boot();
        let seed = seed(identity, boot);
        let device = Device::new(config(identity), boot, journal, seed);
        let mut core = Self { device, agent: Agent::new(&[settings::sensor()]), seed };
        core.restore();
        Some(place.insert(RefCell::new(core)))
    }

    #[inline(never)]
    fn restore(&mut self) {
        let mut buffer = [0; record_len_max(SENSORS)];
        let record = match self.device.memory_mut().config() {
            Ok(None) => return,
            Ok(Some(record)) => buffer.get_mut(..record.len()).map(|buffer| {
                buffer.copy_from_slice(record);
                &*buffer
            }),
            Err(_) => None,
        };
        let restored = record.is_some_and(|record| self.agent.restore(&mut self.device, record).is_ok());
        if !restored {
            log!(WARN, "the configuration that was kept cannot be read; the one built in is used");
        }
    }

    /// Emits the first events of this boot.
    pub(crate) fn start(&mut self, now: u64, started: &Body<'_>) -> Duty {
        // What finds no room is counted, and told as lost, by the device; so everywhere.
        let _ = self.device.emit(now, started);
        let duty = self.agent.started(now, &mut self.device);
        self.keep(now, duty)
    }

    /// A message of the gateway has come.
    pub(crate) fn received(&mut self, now: u64, topic: &str, payload: &[u8]) -> Duty {
        match self.agent.received(now, &mut self.device, topic, payload) {
            Ok(duty) => self.keep(now, duty),
            Err(malformed) => {
                let (first, second) = malformed.what.words();
                log!(
                    WARN,
                    "cannot read a message of the gateway: ",
                    first,
                    second,
                    ", at byte ",
                    malformed.at
                );
                Duty::Nothing
            }
        }
    }

    /// The only sensor reads `value` at `now`: emits what of that is worth an event.
    pub(crate) fn sampled(&mut self, now: u64, value: f64) {
        self.agent.sample(now, &mut self.device, 0, value);
    }

    /// Keeps the agent's record if that is the duty, and returns what is to be done then.
    fn keep(&mut self, now: u64, duty: Duty) -> Duty {
        if duty != Duty::Keep {
            return duty;
        }
        let mut record = [0; record_len_max(SENSORS)];
        let len = self.agent.record(&self.device, &mut record);
        let kept = len.is_ok_and(|len| self.device.memory_mut().set_config(&record[..len]).is_ok());
        if kept {
            return self.agent.kept(now, &mut self.device);
        }
        log!(WARN, "a configuration could not be kept");
        self.agent.not_kept(now, &mut self.device);
        Duty::Nothing
    }
}

/// A name that is known when the firmware is built.
pub(crate) fn name(name: &'static str) -> Id {
    name.parse().expect("settings hold names")
}

fn config(identity: &Identity) -> Config {
    Config {
        #[expect(clippy::cast_possible_truncation, reason = "a handful")]
        window: settings::WINDOW as u16,
        uplink_events_max: settings::UPLINK_EVENTS_MAX,
        uplink_len_max: settings::UPLINK_LEN_MAX,
        backoff_ms_min: settings::BACKOFF_MS_MIN,
        backoff_ms_max: settings::BACKOFF_MS_MAX,
        ..Config::new(identity.device)
    }
}

/// FNV-1a of both.
fn seed(identity: &Identity, boot: u64) -> u64 {
    let boot = boot.to_le_bytes();
    let bytes = identity.device.bytes().chain(boot);
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
