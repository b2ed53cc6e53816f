//! The I²C controller as a master, 100 kHz, by polling: a reading takes less than a millisecond, a few times a minute.

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c as Bus, NoAcknowledgeSource, Operation};

use crate::registers::Register;

const I2C0: usize = 0x4002_0000;
const MSA: Register = Register::at(I2C0, 0x000);
/// Control when written, status when read.
const MCS: Register = Register::at(I2C0, 0x004);
const MDR: Register = Register::at(I2C0, 0x008);
const MTPR: Register = Register::at(I2C0, 0x00C);
const MCR: Register = Register::at(I2C0, 0x020);
const RCGC1: Register = Register::at(0x400F_E000, 0x104);
const RCGC2: Register = Register::at(0x400F_E000, 0x108);
/// GPIO B: its pins 2 and 3 are I²C 0.
const GPIOB: usize = 0x4000_5000;
const GPIOB_AFSEL: Register = Register::at(GPIOB, 0x420);
const GPIOB_ODR: Register = Register::at(GPIOB, 0x50C);
const GPIOB_DEN: Register = Register::at(GPIOB, 0x51C);

const RUN: u32 = 1 << 0;
const START: u32 = 1 << 1;
const STOP: u32 = 1 << 2;
const ACK: u32 = 1 << 3;

const BUSY: u32 = 1 << 0;
const ERROR: u32 = 1 << 1;
const ADDRESS_NOT_ACKNOWLEDGED: u32 = 1 << 2;
const DATA_NOT_ACKNOWLEDGED: u32 = 1 << 3;
const ARBITRATION_LOST: u32 = 1 << 4;

/// The bus.
pub(crate) struct I2c(());

impl I2c {
    /// Starts the controller.
    pub(crate) fn start() -> Self {
        RCGC1.set(1 << 12);
        RCGC2.set(1 << 1);
        let _ = RCGC2.read();
        GPIOB_AFSEL.set(0b1100);
        GPIOB_ODR.set(0b1000);
        GPIOB_DEN.set(0b1100);
        MCR.write(1 << 4);
        // 12.5 MHz / (2 · (6 + 4) · (1 + 6)) = 89 kHz, the fastest below 100 kHz.
        MTPR.write(6);
        Self(())
    }

    fn command(&mut self, command: u32) -> Result<(), ErrorKind> {
        MCS.write(command);
        while MCS.read() & BUSY != 0 {}
        let status = MCS.read();
        if status & ERROR == 0 {
            return Ok(());
        }
        if status & ARBITRATION_LOST != 0 {
            return Err(ErrorKind::ArbitrationLoss);
        }
        MCS.write(STOP);
        while MCS.read() & BUSY != 0 {}
        Err(match status {
            _ if status & ADDRESS_NOT_ACKNOWLEDGED != 0 => {
                ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address)
            }
            _ if status & DATA_NOT_ACKNOWLEDGED != 0 => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data),
            _ => ErrorKind::Other,
        })
    }

    fn write_bytes(&mut self, address: u8, bytes: &[u8], start: bool, stop: bool) -> Result<(), ErrorKind> {
        MSA.write(u32::from(address) << 1);
        let last = bytes.len().saturating_sub(1);
        for (at, byte) in bytes.iter().enumerate() {
            MDR.write(u32::from(*byte));
            let start = if start && at == 0 { START } else { 0 };
            let stop = if stop && at == last { STOP } else { 0 };
            self.command(RUN | start | stop)?;
        }
        Ok(())
    }

    fn read_bytes(
        &mut self,
        address: u8,
        bytes: &mut [u8],
        start: bool,
        stop: bool,
    ) -> Result<(), ErrorKind> {
        MSA.write(u32::from(address) << 1 | 1);
        let last = bytes.len().saturating_sub(1);
        for (at, byte) in bytes.iter_mut().enumerate() {
            let start = if start && at == 0 { START } else { 0 };
            // The last byte of a transfer is not acknowledged.
            let end = if stop && at == last { STOP } else { ACK };
            self.command(RUN | start | end)?;
            let [low, ..] = MDR.read().to_le_bytes();
            *byte = low;
        }
        Ok(())
    }
}

impl ErrorType for I2c {
    type Error = ErrorKind;
}

impl Bus for I2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let mut rest = operations;
        let mut start = true;
        while let Some((operation, after)) = rest.split_first_mut() {
            // QEMU does not know a repeated START: the direction is changed by STOP and START. The sensor and the memory
            // of this board keep their register or address over a STOP, so they do not mind.
            let stop = after.first().is_none_or(|next| is_read(next) != is_read(operation));
            match operation {
                Operation::Read(bytes) => self.read_bytes(address, bytes, start, stop)?,
                Operation::Write(bytes) => self.write_bytes(address, bytes, start, stop)?,
            }
            start = stop;
            rest = after;
        }
        Ok(())
    }
}

fn is_read(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Read(_))
}
