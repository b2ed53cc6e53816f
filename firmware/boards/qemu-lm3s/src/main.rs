//! The firmware on QEMU's `lm3s6965evb` (TI Stellaris LM3S6965: Cortex-M3, 256 KB flash, 64 KB RAM).
//!
//! | what | where |
//! |---|---|
//! | temperature | TMP105 at 0x48 on I²C 0 |
//! | memory for identity, configuration and events | 24C256 EEPROM (32 KB) at 0x50 on I²C 0 |
//! | network | the chip's Ethernet controller; its MAC address is in the chip's user registers |
//! | log | UART 0 |
//!
//! The board exists to be emulated: it runs the same app as the boards one can buy, in every test. Registers are those
//! of the LM3S6965 data sheet; where QEMU differs, a comment says so.

#![no_std]
#![no_main]

mod clock;
mod copy;
mod ethernet;
mod i2c;
mod idle;
mod light;
mod registers;
mod uart;
mod watchdog;

use core::cell::RefCell;

use cortex_m_rt::entry;
use eeprom24x::addr_size::TwoBytes;
use eeprom24x::page_size::B64;
use eeprom24x::unique_serial::No as Unique;
use eeprom24x::{Eeprom24x, SlaveAddr};
use embassy_executor::Spawner;
use embassy_net::Runner;
use embassy_time::Delay;
use embedded_hal_bus::i2c::RefCellDevice;
use static_cell::{ConstStaticCell, StaticCell};
use weir_device::Eeprom;
use weir_firmware::{Board, Memory};

/// What this board is called in `device-started`.
const HARDWARE: &str = "lm3s6965evb";
/// The EEPROM begins with the provisioning record. Bytes.
const RECORD_LEN: u32 = 256;
const EEPROM_LEN: u32 = 32_768;

type Bus = RefCell<i2c::I2c>;
type Memory24c256 =
    Eeprom<eeprom24x::Storage<RefCellDevice<'static, i2c::I2c>, B64, TwoBytes, Unique, Delay>>;
type Parts = Board<
    RefCellDevice<'static, i2c::I2c>,
    Memory24c256,
    ethernet::Ethernet,
    light::Light,
    watchdog::Watchdog,
>;

#[entry]
fn main() -> ! {
    static BUS: StaticCell<Bus> = StaticCell::new();

    clock::start();
    uart::start();
    let bus: &'static Bus = BUS.init(RefCell::new(i2c::I2c::start()));
    let eeprom = Eeprom24x::new_24x256(RefCellDevice::new(bus), SlaveAddr::default());
    let board = Board {
        hardware: HARDWARE,
        // QEMU leaves the chip's own register of reset causes empty. The watchdog has a word if it can.
        reason: last_words::take("watchdog-or-pin"),
        sensor: RefCellDevice::new(bus),
        storage: Eeprom(eeprom24x::Storage::new(eeprom, Delay)),
        record: 0,
        journal: RECORD_LEN..EEPROM_LEN,
        network: ethernet::Ethernet::start(),
        light: light::Light::start(),
        watchdog: watchdog::Watchdog::start(),
        stack: last_words::stack_used,
    };
    idle::run(|spawner| spawner.spawn(app(spawner, board).expect("spawned once")))
}

#[embassy_executor::task]
async fn app(spawner: Spawner, board: Parts) {
    static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new());
    let network = |runner| spawner.spawn(network(runner).expect("spawned once"));
    let end = weir_firmware::run(board, MEMORY.take(), network).await;
    last_words::restart(end.reason())
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, ethernet::Ethernet>) {
    runner.run().await;
}
