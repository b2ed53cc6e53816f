//! The firmware on ST's NUCLEO-F429ZI (STM32F429 with Ethernet).
//!
//! | what | where |
//! |---|---|
//! | temperature: LM75, TMP105 or alike at 0x48 | I²C 1: SCL PB8 (CN7 D15), SDA PB9 (CN7 D14), 3V3 (CN8 7), GND (CN8 11) |
//! | memory for identity, configuration and events | the 128 KB sectors of the flash's second bank |
//! | network | on the board, RMII |
//! | log | USART 3 (PD8), 115,200 baud: the ST-LINK's serial port |
//! | light | LD2, PB7, on the board |

#![no_std]
#![no_main]

use embassy_executor::Spawner;
use embassy_net::Runner;
use embassy_stm32::eth::{Ethernet, GenericPhy, InterruptHandler, PacketQueue, Sma};
use embassy_stm32::flash::{Bank2Region3, Blocking as BlockingFlash, Flash};
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::i2c::{Config as I2cConfig, I2c, Master};
use embassy_stm32::mode::Blocking;
use embassy_stm32::peripherals::{ETH, ETH_SMA, IWDG};
use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, Hse, HseMode, Pll, PllMul, PllPDiv, PllPreDiv, PllSource, Sysclk,
};
use embassy_stm32::time::Hertz;
use embassy_stm32::usart::{Config as UartConfig, UartTx};
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{Config, bind_interrupts, pac};
use log_lines::Lines;
use static_cell::{ConstStaticCell, StaticCell};
use weir_firmware::{Board, Memory};

/// What this board is called in `device-started`.
const HARDWARE: &str = "nucleo-f429zi";
/// Bytes of a sector of the region: the record has the first to itself, the journal the six after it.
const SECTOR_LEN: u32 = 128 * 1024;
const SECTORS: u32 = 7;
/// Erasing a sector takes up to two seconds, in which nothing else is done.
const WATCHDOG_US: u32 = 20_000_000;

static LOG: Lines<UartTx<'static, Blocking>> = Lines::new(|uart, text| {
    let _ = uart.blocking_write(text);
});

bind_interrupts!(struct Interrupts {
    ETH => InterruptHandler;
});

type Network = Ethernet<'static, ETH, GenericPhy<Sma<'static, ETH_SMA>>>;
type Storage = Bank2Region3<'static, BlockingFlash>;
type Parts = Board<I2c<'static, Blocking, Master>, Storage, Network, Output<'static>, Fed>;

/// The chip's watchdog, running.
struct Fed(IndependentWatchdog<'static, IWDG>);

impl weir_firmware::Watchdog for Fed {
    fn feed(&mut self) {
        self.0.pet();
    }
}

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    static FRAMES: StaticCell<PacketQueue<2, 2>> = StaticCell::new();

    let pins = embassy_stm32::init(clocks());
    if let Ok(uart) = UartTx::new_blocking(pins.USART3, pins.PD8, UartConfig::default()) {
        LOG.start(uart, |piece| LOG.write(piece));
    }
    // What the chip knows of a reset before which nobody said a word.
    let silent = if pac::RCC.csr().read().wdgrstf() { "watchdog" } else { "reset-pin" };
    pac::RCC.csr().modify(|flags| flags.set_rmvf(true));
    let reason = last_words::take(silent);
    let mut watchdog = IndependentWatchdog::new(pins.IWDG, WATCHDOG_US);
    watchdog.unleash();

    let network = Ethernet::new(
        FRAMES.init_with(PacketQueue::new),
        pins.ETH,
        Interrupts,
        pins.PA1,
        pins.PA7,
        pins.PC4,
        pins.PC5,
        pins.PG13,
        pins.PB13,
        pins.PG11,
        address(),
        pins.ETH_SMA,
        pins.PA2,
        pins.PC1,
    );
    let board = Board {
        hardware: HARDWARE,
        reason,
        sensor: I2c::new_blocking(pins.I2C1, pins.PB8, pins.PB9, I2cConfig::default()),
        storage: Flash::new_blocking(pins.FLASH).into_blocking_regions().bank2_region3,
        record: 0,
        journal: SECTOR_LEN..SECTORS * SECTOR_LEN,
        network,
        light: Output::new(pins.PB7, Level::Low, Speed::Low),
        watchdog: Fed(watchdog),
        stack: last_words::stack_used,
    };
    spawner.spawn(app(spawner, board).expect("spawned once"));
}

/// 168 MHz from the 8 MHz that the ST-LINK gives.
fn clocks() -> Config {
    let mut config = Config::default();
    config.rcc.hse = Some(Hse { freq: Hertz(8_000_000), mode: HseMode::Bypass });
    config.rcc.pll_src = PllSource::HSE;
    config.rcc.pll = Some(Pll {
        prediv: PllPreDiv::DIV4,
        mul: PllMul::MUL168,
        divp: Some(PllPDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.ahb_pre = AHBPrescaler::DIV1;
    config.rcc.apb1_pre = APBPrescaler::DIV4;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config.rcc.sys = Sysclk::PLL1_P;
    config
}

/// A MAC address of our own making (locally administered), from the chip's unique number.
fn address() -> [u8; 6] {
    let unique = embassy_stm32::uid::uid();
    // Place on the wafer, and the wafer: the lot is the same for many.
    let [a, b, c, d, e, ..] = unique;
    [0x02, a, b, c, d, e]
}

#[embassy_executor::task]
async fn app(spawner: Spawner, board: Parts) {
    static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new());
    let network = |runner| spawner.spawn(run_network(runner).expect("spawned once"));
    let end = weir_firmware::run(board, MEMORY.take(), network).await;
    last_words::restart(end.reason())
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, Network>) {
    runner.run().await;
}
