//! Answers from the store. Every answer is one consistent moment of it.

use std::path::Path;

use weir_contract::Id;

use super::types::{
    BootAccount, DeadLettersPage, DeviceState, DevicesPage, EventQuery, EventsPage, Position, StoreStatus,
};
use super::{Config, Error};

/// Asks the store; cheap to clone. Its methods block (they read a file): call them where that is allowed, as many at a time
/// as is wished. They neither wait for the writer nor hold it up.
#[derive(Debug, Clone)]
pub struct Reader {}

impl Reader {
    /// Opens an existing store for reading only, for a process that does not project itself.
    ///
    /// # Errors
    /// There is no such file, or it is not a store of this version.
    pub fn open(_config: &Config) -> Result<Reader, Error> {
        Ok(Reader {})
    }

    pub(super) fn at(_file: &Path) -> Reader {
        Reader {}
    }

    /// Devices in the order of their names, behind `after`.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be read; so with all of these.
    pub fn devices(&self, _after: Option<&Id>, _limit: usize) -> Result<DevicesPage, Error> {
        Ok(DevicesPage::default())
    }

    /// State of a device now, or as its events up to and at `at_ms` tell. `None` if there is no such device.
    pub fn state(&self, _device: &Id, _at_ms: Option<u64>) -> Result<Option<DeviceState>, Error> {
        Ok(None)
    }

    /// History of a device. `None` if there is no such device.
    pub fn events(&self, _query: &EventQuery) -> Result<Option<EventsPage>, Error> {
        Ok(None)
    }

    /// Boots of a device, oldest first, and what became of their numbers. `None` if there is no such device.
    pub fn boots(&self, _device: &Id) -> Result<Option<Vec<BootAccount>>, Error> {
        Ok(None)
    }

    /// Dead letters, oldest first, behind `after`.
    pub fn dead_letters(&self, _after: Option<u64>, _limit: usize) -> Result<DeadLettersPage, Error> {
        Ok(DeadLettersPage::default())
    }

    /// Up to where the log has been folded; `None` if nothing has been yet.
    pub fn position(&self) -> Result<Option<Position>, Error> {
        Ok(None)
    }

    /// What the store holds, in numbers.
    pub fn status(&self) -> Result<StoreStatus, Error> {
        Ok(StoreStatus::default())
    }
}
