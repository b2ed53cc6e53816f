//! Who the device is and where its gateway is: the provisioning record, see [`weir_device::provision`].

use core::net::Ipv4Addr;

use embassy_time::{Duration, Timer};
use embedded_storage::nor_flash::NorFlash;
use heapless::{String, Vec};
use weir_contract::Id;
use weir_device::provision::{HOST_LEN_MAX, Host, PASSWORD_LEN_MAX, RECORD_LEN, Record};

use crate::app::Watchdog;
use crate::log::log;
use crate::settings;

/// What one device of many is told, and its image is not.
pub(crate) struct Identity {
    /// Its name: also its MQTT client id and user name.
    pub(crate) device: Id,
    pub(crate) gateway: Gateway,
    /// Of the gateway's MQTT listener.
    pub(crate) port: u16,
    pub(crate) password: Option<Vec<u8, PASSWORD_LEN_MAX>>,
    /// What boot numbers are mixed with.
    pub(crate) seed: u64,
}

/// Where the gateway is.
pub(crate) enum Gateway {
    Address(Ipv4Addr),
    Name(String<HOST_LEN_MAX>),
}

/// Reads the record at `place` of `storage`; waits for it, as long as there is none, and says so.
pub(crate) async fn read(storage: &mut impl NorFlash, place: u32, watchdog: &mut impl Watchdog) -> Identity {
    loop {
        watchdog.feed();
        let mut bytes = [0; RECORD_LEN];
        match storage.read(place, &mut bytes) {
            Err(_) => log!(ERROR, "the memory with the provisioning record does not answer"),
            Ok(()) => match Record::read(&bytes) {
                Ok(record) => return Identity::of(&record),
                Err(error) => {
                    let (words, number) = error.words();
                    match number {
                        Some(number) => log!(ERROR, words, number),
                        None => log!(ERROR, words),
                    }
                }
            },
        }
        Timer::after(Duration::from_millis(settings::ROUND_MS_MAX)).await;
    }
}

impl Identity {
    fn of(record: &Record<'_>) -> Self {
        let Record { device, port, .. } = *record;
        let gateway = match record.host {
            Host::Address(address) => Gateway::Address(address),
            // As long as the record allows.
            Host::Name(name) => Gateway::Name(String::try_from(name).unwrap_or_default()),
        };
        let password = record.password.and_then(|password| Vec::from_slice(password).ok());
        Self { device, gateway, port, password, seed: record.seed.unwrap_or(0) }
    }
}
