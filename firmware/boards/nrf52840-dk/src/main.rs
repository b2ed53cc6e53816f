//! The firmware on Nordic's nRF52840-DK (PCA10056) with a W5500 Ethernet module on its Arduino headers.
//!
//! | what | where |
//! |---|---|
//! | temperature: LM75, TMP105 or alike at 0x48 | SDA P0.26, SCL P0.27, VDD, GND |
//! | memory for identity, configuration and events | the last 64 KB of the 1 MB flash |
//! | network | W5500: SCK P1.15 (D13), MISO P1.14 (D12), MOSI P1.13 (D11), CS P1.12 (D10), RST P1.11 (D9), INT P1.03 (D2) |
//! | log | P0.06, 115,200 baud: the J-Link's serial port |
//! | light | LED1, P0.13, on the board |

#![no_std]
#![no_main]

use core::convert::Infallible;

use embassy_executor::Spawner;
use embassy_net::Runner;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, Runner as ChipRunner, State};
use embassy_nrf::config::{Config, LfclkSource};
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::nvmc::Nvmc;
use embassy_nrf::peripherals::{SPI2, TWISPI0, UARTE0};
use embassy_nrf::spim::{self, Spim};
use embassy_nrf::twim::{self, Twim};
use embassy_nrf::uarte::{self, UarteTx};
use embassy_nrf::wdt::{self, Watchdog, WatchdogHandle};
use embassy_nrf::{bind_interrupts, pac};
use embassy_time::Delay;
use embedded_hal::digital::{ErrorType, OutputPin};
use embedded_hal_bus::spi::ExclusiveDevice;
use log_lines::Lines;
use static_cell::{ConstStaticCell, StaticCell};
use weir_firmware::{Board, Memory};

/// What this board is called in `device-started`.
const HARDWARE: &str = "nrf52840-dk";
const FLASH_LEN: u32 = 1024 * 1024;
/// The record has an erase unit of its own (4 KB), the journal the fifteen after it.
const RECORD: u32 = FLASH_LEN - 64 * 1024;
const JOURNAL: core::ops::Range<u32> = RECORD + 4096..FLASH_LEN;
const WATCHDOG_S: u32 = 20;
const WATCHDOG_HZ: u32 = 32_768;

static LOG: Lines<UarteTx<'static>> = Lines::new(|uart, text| {
    let _ = uart.blocking_write(text);
});

bind_interrupts!(struct Interrupts {
    SPI2 => spim::InterruptHandler<SPI2>;
    TWISPI0 => twim::InterruptHandler<TWISPI0>;
    UARTE0 => uarte::InterruptHandler<UARTE0>;
});

type Chip = ChipRunner<
    'static,
    W5500,
    ExclusiveDevice<Spim<'static>, Output<'static>, Delay>,
    Input<'static>,
    Output<'static>,
>;
type Parts = Board<Twim<'static>, Nvmc<'static>, Device<'static>, Light, Fed>;

/// The chip's watchdog, running.
struct Fed(WatchdogHandle);

impl weir_firmware::Watchdog for Fed {
    fn feed(&mut self) {
        self.0.pet();
    }
}

/// LED1, which is lit when its pin is low.
struct Light(Output<'static>);

impl ErrorType for Light {
    type Error = Infallible;
}

impl OutputPin for Light {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.set_high();
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.set_low();
        Ok(())
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    static FRAMES: ConstStaticCell<State<2, 2>> = ConstStaticCell::new(State::new());
    /// What is written to the sensor goes over it: the controller reads RAM alone.
    static TO_SENSOR: ConstStaticCell<[u8; 8]> = ConstStaticCell::new([0; 8]);

    let mut config = Config::default();
    // The crystal of the board: time goes by it.
    config.lfclk_source = LfclkSource::ExternalXtal;
    let pins = embassy_nrf::init(config);
    let mut config = uarte::Config::default();
    config.baudrate = uarte::Baudrate::Baud115200;
    LOG.start(UarteTx::new(pins.UARTE0, Interrupts, pins.P0_06, config), |piece| LOG.write(piece));
    let reason = last_words::take(silent());
    let mut config = wdt::Config::default();
    config.timeout_ticks = WATCHDOG_S * WATCHDOG_HZ;
    config.action_during_debug_halt = wdt::HaltConfig::Pause;
    // It runs on over a restart. One that another program has set cannot be fed: it ends that itself, by a reset.
    let Ok((_, [watchdog])) = Watchdog::try_new(pins.WDT, config) else {
        last_words::restart("watchdog set by another program")
    };

    let mut config = spim::Config::default();
    config.frequency = spim::Frequency::M8;
    let spi = Spim::new(pins.SPI2, Interrupts, pins.P1_15, pins.P1_14, pins.P1_13, config);
    let select = Output::new(pins.P1_12, Level::High, OutputDrive::Standard);
    let Ok(spi) = ExclusiveDevice::new(spi, select, Delay);
    let interrupt = Input::new(pins.P1_03, Pull::Up);
    let reset = Output::new(pins.P1_11, Level::High, OutputDrive::Standard);
    let chip = embassy_net_wiznet::new(address(), FRAMES.take(), spi, interrupt, reset).await;
    let Ok((device, chip)) = chip else { last_words::restart("no answer of the W5500") };
    spawner.spawn(run_chip(chip).expect("spawned once"));

    let sensor = Twim::new(
        pins.TWISPI0,
        Interrupts,
        pins.P0_26,
        pins.P0_27,
        twim::Config::default(),
        TO_SENSOR.take(),
    );
    let board = Board {
        hardware: HARDWARE,
        reason,
        sensor,
        storage: Nvmc::new(pins.NVMC),
        record: RECORD,
        journal: JOURNAL,
        network: device,
        light: Light(Output::new(pins.P0_13, Level::High, OutputDrive::Standard)),
        watchdog: Fed(watchdog),
        stack: last_words::stack_used,
    };
    spawner.spawn(app(spawner, board).expect("spawned once"));
}

/// What the chip knows of a reset before which nobody said a word. It collects causes until they are cleared.
fn silent() -> &'static str {
    let causes = pac::POWER.resetreas().read();
    // Ones clear.
    pac::POWER.resetreas().write_value(causes);
    match causes {
        causes if causes.dog() => "watchdog",
        causes if causes.lockup() => "lockup",
        _ => "reset-pin",
    }
}

/// A MAC address of our own making (locally administered), from the chip's unique number.
fn address() -> [u8; 6] {
    let [a, b, c, d] = pac::FICR.deviceid(0).read().to_le_bytes();
    let [e, ..] = pac::FICR.deviceid(1).read().to_le_bytes();
    [0x02, a, b, c, d, e]
}

#[embassy_executor::task]
async fn app(spawner: Spawner, board: Parts) {
    static MEMORY: StaticCell<Memory> = StaticCell::new();
    let network = |runner| spawner.spawn(network(runner).expect("spawned once"));
    let end = weir_firmware::run(board, MEMORY.init_with(Memory::new), network).await;
    last_words::restart(end.reason())
}

#[embassy_executor::task]
async fn run_chip(chip: Chip) {
    chip.run().await;
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Device<'static>>) {
    runner.run().await;
}
