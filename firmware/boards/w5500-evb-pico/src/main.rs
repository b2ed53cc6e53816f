//! The firmware on WIZnet's W5500-EVB-Pico (RP2040 with a W5500 Ethernet controller).
//!
//! | what | where |
//! |---|---|
//! | temperature: LM75, TMP105 or alike at 0x48 | I²C 0: SDA GP4 (pin 6), SCL GP5 (pin 7), 3V3 (pin 36), GND (pin 8) |
//! | memory for identity, configuration and events | the last 64 KB of the 2 MB flash |
//! | network | the W5500 on the board, SPI 0: GP16 to GP21 |
//! | log | UART 0, 115,200 baud: TX GP0 (pin 1) |
//! | light | GP25, on the board |

#![no_std]
#![no_main]

use embassy_executor::Spawner;
use embassy_net::Runner;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, Runner as ChipRunner, State};
use embassy_rp::bind_interrupts;
use embassy_rp::dma;
use embassy_rp::flash::{Blocking as BlockingFlash, Flash};
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::i2c::{Blocking as BlockingI2c, Config as I2cConfig, I2c};
use embassy_rp::peripherals::{DMA_CH0, DMA_CH1, FLASH, I2C0, SPI0};
use embassy_rp::spi::{Async, Config as SpiConfig, Spi};
use embassy_rp::uart::{Blocking as BlockingUart, Config as UartConfig, UartTx};
use embassy_rp::watchdog::{ResetReason, Watchdog};
use embassy_time::{Delay, Duration};
use embedded_hal_bus::spi::ExclusiveDevice;
use log_lines::Lines;
use static_cell::{ConstStaticCell, StaticCell};
use weir_firmware::{Board, Memory};

/// What this board is called in `device-started`.
const HARDWARE: &str = "w5500-evb-pico";
const FLASH_LEN: usize = 2 * 1024 * 1024;
/// The record has an erase unit of its own (4 KB), the journal the fifteen after it.
const RECORD: u32 = (FLASH_LEN - 64 * 1024) as u32;
const JOURNAL: core::ops::Range<u32> = RECORD + 4096..FLASH_LEN as u32;
/// The W5500 can 80 MHz, the board's wires less.
const SPI_HZ: u32 = 20_000_000;
/// The longest that the RP2040's watchdog can wait.
const WATCHDOG: Duration = Duration::from_millis(8_300);

static LOG: Lines<UartTx<'static, BlockingUart>> = Lines::new(|uart, text| {
    let _ = uart.blocking_write(text);
});

bind_interrupts!(struct Interrupts {
    DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>, dma::InterruptHandler<DMA_CH1>;
});

type Chip = ChipRunner<
    'static,
    W5500,
    ExclusiveDevice<Spi<'static, SPI0, Async>, Output<'static>, Delay>,
    Input<'static>,
    Output<'static>,
>;
type Storage = Flash<'static, FLASH, BlockingFlash, FLASH_LEN>;
type Parts = Board<I2c<'static, I2C0, BlockingI2c>, Storage, Device<'static>, Output<'static>, Fed>;

/// The chip's watchdog, running.
struct Fed(Watchdog);

impl weir_firmware::Watchdog for Fed {
    fn feed(&mut self) {
        self.0.feed(WATCHDOG);
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    static FRAMES: ConstStaticCell<State<2, 2>> = ConstStaticCell::new(State::new());

    let pins = embassy_rp::init(embassy_rp::config::Config::default());
    LOG.start(UartTx::new_blocking(pins.UART0, pins.PIN_0, UartConfig::default()), |piece| LOG.write(piece));
    let mut watchdog = Watchdog::new(pins.WATCHDOG);
    // What the chip knows of a reset before which nobody said a word.
    let silent = match watchdog.reset_reason() {
        Some(ResetReason::TimedOut) => "watchdog",
        _ => "reset-pin",
    };
    let reason = last_words::take(silent);
    watchdog.start(WATCHDOG);

    let mut storage = Storage::new_blocking(pins.FLASH);
    let address = address(&mut storage);
    let mut config = SpiConfig::default();
    config.frequency = SPI_HZ;
    let spi = Spi::new(
        pins.SPI0,
        pins.PIN_18,
        pins.PIN_19,
        pins.PIN_16,
        pins.DMA_CH0,
        pins.DMA_CH1,
        Interrupts,
        config,
    );
    let select = Output::new(pins.PIN_17, Level::High);
    let Ok(spi) = ExclusiveDevice::new(spi, select, Delay);
    let interrupt = Input::new(pins.PIN_21, Pull::Up);
    let reset = Output::new(pins.PIN_20, Level::High);
    let chip = embassy_net_wiznet::new(address, FRAMES.take(), spi, interrupt, reset).await;
    let Ok((device, chip)) = chip else { last_words::restart("no answer of the W5500") };
    spawner.spawn(run_chip(chip).expect("spawned once"));

    let board = Board {
        hardware: HARDWARE,
        reason,
        sensor: I2c::new_blocking(pins.I2C0, pins.PIN_5, pins.PIN_4, I2cConfig::default()),
        storage,
        record: RECORD,
        journal: JOURNAL,
        network: device,
        light: Output::new(pins.PIN_25, Level::Low),
        watchdog: Fed(watchdog),
        stack: last_words::stack_used,
    };
    spawner.spawn(app(spawner, board).expect("spawned once"));
}

/// A MAC address of our own making (locally administered), from the flash chip's unique number.
fn address(storage: &mut Storage) -> [u8; 6] {
    let mut unique = [0; 8];
    // One that cannot be read gives an address all the same, if not a unique one.
    let _ = storage.blocking_unique_id(&mut unique);
    let [.., a, b, c, d, e] = unique;
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
