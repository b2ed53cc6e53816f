//! A byte-writable EEPROM as a NOR flash with small pages.

use core::fmt;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use embedded_storage::{ReadStorage, Storage};

/// Bytes erased by one write: the page of a 24C256. Smaller pages do no harm, larger ones cost nothing.
const PAGE_LEN: usize = 64;

/// An EEPROM behind [`embedded_storage::Storage`] (say [`eeprom24x::Storage`]) for [`crate::journal::Journal`].
///
/// Erasing writes 0xFF, and only to pages that are not erased already: each write wears the page, and takes 5 ms.
///
/// [`eeprom24x::Storage`]: https://docs.rs/eeprom24x/0.7/eeprom24x/struct.Storage.html
#[derive(Debug, Clone)]
pub struct Eeprom<S>(pub S);

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EepromError<E> {
    /// The driver says so.
    Driver(E),
    /// The caller does not keep to the pages.
    Misuse(NorFlashErrorKind),
}

impl<E: fmt::Debug> NorFlashError for EepromError<E> {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Driver(_) => NorFlashErrorKind::Other,
            Self::Misuse(kind) => *kind,
        }
    }
}

impl<S: ReadStorage> ErrorType for Eeprom<S>
where
    S::Error: fmt::Debug,
{
    type Error = EepromError<S::Error>;
}

impl<S: ReadStorage> ReadNorFlash for Eeprom<S>
where
    S::Error: fmt::Debug,
{
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len()).map_err(EepromError::Misuse)?;
        self.0.read(offset, bytes).map_err(EepromError::Driver)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<S: Storage> NorFlash for Eeprom<S>
where
    S::Error: fmt::Debug,
{
    const WRITE_SIZE: usize = 1;
    const ERASE_SIZE: usize = PAGE_LEN;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to).map_err(EepromError::Misuse)?;
        let mut page = [0; PAGE_LEN];
        for at in (from..to).step_by(PAGE_LEN) {
            self.0.read(at, &mut page).map_err(EepromError::Driver)?;
            if page.iter().any(|&byte| byte != 0xff) {
                self.0.write(at, &[0xff; PAGE_LEN]).map_err(EepromError::Driver)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len()).map_err(EepromError::Misuse)?;
        self.0.write(offset, bytes).map_err(EepromError::Driver)
    }
}
