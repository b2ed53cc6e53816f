//! The device, its agent and its memory, tied together: everything that decides, and nothing that waits.

use embedded_storage::nor_flash::NorFlash;
use weir_contract::Id;
use weir_contract::body::Body;
use weir_device::journal::Journal;
use weir_device::{Agent, Device, Duty, record_len_max};

use crate::settings;

/// How many sensors there are.
const SENSORS: usize = 1;

pub(crate) struct Core<'m, F> {
    pub(crate) device: Device<&'m mut [u8], { settings::WINDOW }>,
    pub(crate) agent: Agent<SENSORS>,
    journal: Journal<F, &'m mut [u8; settings::JOURNAL_BUFFER_LEN]>,
}

impl<'m, F: NorFlash> Core<'m, F> {
    /// As an earlier boot has left it, if it left anything.
    pub(crate) fn new(
        mut device: Device<&'m mut [u8], { settings::WINDOW }>,
        mut journal: Journal<F, &'m mut [u8; settings::JOURNAL_BUFFER_LEN]>,
    ) -> Self {
        let mut agent = Agent::new(&[settings::sensor()]);
        match journal.config() {
            Ok(None) => {}
            Ok(Some(record)) => {
                if agent.restore(&mut device, record).is_err() {
                    log::warn!("the configuration that was kept cannot be read; the one built in is used");
                }
            }
            Err(_) => log::warn!("the configuration cannot be read now; the one built in is used"),
        }
        Self { device, agent, journal }
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
                log::warn!("cannot read a message of the gateway: {malformed}");
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
        let kept = len.is_ok_and(|len| self.journal.set_config(&record[..len]).is_ok());
        if kept {
            return self.agent.kept(now, &mut self.device);
        }
        log::warn!("a configuration could not be kept");
        self.agent.not_kept(now, &mut self.device);
        Duty::Nothing
    }
}

/// A name that is known when the firmware is built.
pub(crate) fn name(name: &'static str) -> Id {
    name.parse().expect("settings hold names")
}
