//! The status light of the evaluation board: LED1, at pin 0 of GPIO F.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, OutputPin};

use crate::registers::Register;

const GPIOF: usize = 0x4002_5000;
/// The address is a mask: it reaches pin 0 alone.
const PIN_0: Register = Register::at(GPIOF, 1 << 2);
const DIR: Register = Register::at(GPIOF, 0x400);
const DEN: Register = Register::at(GPIOF, 0x51C);
const RCGC2: Register = Register::at(0x400F_E000, 0x108);

/// The light, off at first.
pub(crate) struct Light(());

impl Light {
    pub(crate) fn start() -> Self {
        RCGC2.set(1 << 5);
        let _ = RCGC2.read();
        DIR.set(1);
        DEN.set(1);
        Self(())
    }
}

impl ErrorType for Light {
    type Error = Infallible;
}

impl OutputPin for Light {
    fn set_low(&mut self) -> Result<(), Infallible> {
        PIN_0.write(0);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        PIN_0.write(1);
        Ok(())
    }
}
