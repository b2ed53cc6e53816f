//! The app: what it needs of a board, and its loops.

use core::cell::{Cell, RefCell, RefMut};
use core::ops::Range;
use core::pin::pin;

use embassy_futures::select::{Either, select};
use embassy_net::driver::Driver;
use embassy_net::{DhcpConfig, Runner, StackResources};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Instant, Timer};
use embedded_hal::digital::OutputPin;
use embedded_hal::i2c::I2c;
use embedded_storage::nor_flash::NorFlash;
use weir_contract::body::Body;
use weir_device::{Duty, RESTART_WAIT_MS_MAX};

use crate::core::Core;
use crate::identity;
use crate::log::log;
use crate::{link, network, sampling, settings};

/// What this firmware is called in `device-started`.
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");
/// DHCP, DNS and the gateway.
const SOCKETS: usize = 3;

/// What a board gives the app.
pub struct Board<B, F, D, L, W> {
    /// What the board is called in `device-started`.
    pub hardware: &'static str,
    /// Why it started, likewise.
    pub reason: heapless::String<64>,
    /// The bus with the temperature sensor: an LM75, TMP105 or alike at 0x48.
    pub sensor: B,
    /// Memory that outlives power cuts: flash, or an EEPROM as [`weir_device::Eeprom`].
    pub storage: F,
    /// Where in it the provisioning record begins.
    pub record: u32,
    /// Where in it the app may write as it likes.
    pub journal: Range<u32>,
    /// Ethernet.
    pub network: D,
    /// A light, to show which board this is. It is lit when the pin is high.
    pub light: L,
    /// Resets the board if it is not fed for more than [`settings::WATCHDOG_MS_MIN`].
    pub watchdog: W,
    /// The most of the stack that was ever used, and all of it, in bytes.
    pub stack: fn() -> (usize, usize),
}

/// Resets the board if the app hangs.
pub trait Watchdog {
    /// The app is well.
    fn feed(&mut self);
}

/// Why the app ended. The board restarts then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A command asked for it.
    Restart,
    /// The memory that outlives power cuts does not work.
    Storage,
}

impl End {
    /// As the next `device-started` tells it.
    pub fn reason(self) -> &'static str {
        match self {
            End::Restart => "restart-command",
            End::Storage => "storage-failed",
        }
    }
}

/// Memory that the app borrows for as long as it runs.
pub struct Memory {
    journal: [u8; settings::JOURNAL_BUFFER_LEN],
    link: link::Memory,
    network: network::Memory,
    sockets: StackResources<SOCKETS>,
}

impl Memory {
    /// As it is lent.
    pub const fn new() -> Self {
        Self {
            journal: [0; settings::JOURNAL_BUFFER_LEN],
            link: link::Memory::new(),
            network: network::Memory::new(),
            sockets: StackResources::new(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs the thermometer on a board, until the board is to restart.
///
/// `spawn` has a task of its own run the network stack (`runner.run()`). In one task with what uses it, each would wake
/// the other for ever: the stack is woken by every look at a socket.
pub async fn run<B, F, D, L, W>(
    board: Board<B, F, D, L, W>,
    memory: &'static mut Memory,
    spawn: impl FnOnce(Runner<'static, D>),
) -> End
where
    B: I2c,
    F: NorFlash,
    D: Driver + 'static,
    L: OutputPin,
    W: Watchdog,
{
    let Board { hardware, reason, mut storage, record, mut watchdog, .. } = board;
    let identity = identity::read(&mut storage, record, &mut watchdog).await;
    let mut place = None;
    let Memory { journal, link, network, sockets } = memory;
    let Some(core) = Core::open(&mut place, &identity, storage, board.journal, journal) else {
        log!(ERROR, "the memory for boots, configuration and events does not work");
        Timer::after(Duration::from_millis(settings::ROUND_MS_MAX)).await;
        return End::Storage;
    };
    let (boot, seed) = (core.borrow().device.outbox().boot(), core.borrow().seed);
    let shared = Shared::new(core);
    shared.start(&Body::DeviceStarted {
        fw: FIRMWARE.into(),
        hw: hardware.into(),
        reason: reason.as_str().into(),
    });
    // Now that it has an event of this boot to keep.
    log!(INFO, identity.device.as_str(), " on ", hardware, ", boot ", boot, " (", reason.as_str(), ")");

    let dhcp = embassy_net::Config::dhcpv4(DhcpConfig::default());
    let (stack, runner) = embassy_net::new(board.network, dhcp, sockets, seed);
    spawn(runner);
    let network = network::Network::new(stack, network);
    // Pinned here and not moved into what joins them: as large as they are, copies of them would be the deepest stack.
    let sampling = pin!(sampling::run(&shared, board.sensor, watchdog, board.stack));
    let link = pin!(link::run(&shared, &identity, network, link));
    let duties = pin!(duties(&shared, board.light));
    match select(select(sampling, link), duties).await {
        Either::Second(end) => end,
        Either::First(Either::First(never) | Either::Second(never)) => never,
    }
}

/// Shows which board this is when it is asked, and ends when the board is to restart.
async fn duties<F: NorFlash>(shared: &Shared<'_, '_, F>, mut light: impl OutputPin) -> End {
    loop {
        match select(shared.identify.wait(), shared.restart.wait()).await {
            Either::First(()) => {
                log!(INFO, "this is me");
                for _ in 0..settings::BLINKS {
                    let _ = light.set_high();
                    Timer::after(Duration::from_millis(settings::BLINK_MS)).await;
                    let _ = light.set_low();
                    Timer::after(Duration::from_millis(settings::BLINK_MS)).await;
                }
            }
            Either::Second(()) => {
                let latest = now_ms() + RESTART_WAIT_MS_MAX;
                while now_ms() < latest && !shared.core().device.is_drained() {
                    Timer::after(Duration::from_millis(settings::BLINK_MS)).await;
                }
                return End::Restart;
            }
        }
    }
}

/// What the loops share. They run on one thread and borrow only between awaits.
pub(crate) struct Shared<'c, 'm, F: NorFlash> {
    core: &'c RefCell<Core<'m, F>>,
    /// There may be something to publish.
    news: Signal<NoopRawMutex, ()>,
    identify: Signal<NoopRawMutex, ()>,
    restart: Signal<NoopRawMutex, ()>,
    link_went_round_at: Cell<u64>,
}

impl<'c, 'm, F: NorFlash> Shared<'c, 'm, F> {
    fn new(core: &'c RefCell<Core<'m, F>>) -> Self {
        Self {
            core,
            news: Signal::new(),
            identify: Signal::new(),
            restart: Signal::new(),
            link_went_round_at: Cell::new(now_ms()),
        }
    }

    /// To be given back before the next await.
    pub(crate) fn core(&self) -> RefMut<'_, Core<'m, F>> {
        self.core.borrow_mut()
    }

    /// The first event, and those of a configuration and a restart that were kept.
    fn start(&self, started: &Body<'_>) {
        let duty = self.core().start(now_ms(), started);
        self.see_to(duty);
    }

    /// A message of the gateway has come.
    pub(crate) fn received(&self, topic: &str, payload: &[u8]) {
        let duty = self.core().received(now_ms(), topic, payload);
        self.see_to(duty);
        self.tell_news();
    }

    /// When the sensor is to be read.
    pub(crate) fn due_at(&self) -> u64 {
        self.core().agent.due_at().unwrap_or(u64::MAX)
    }

    fn see_to(&self, duty: Duty) {
        match duty {
            Duty::Identify => self.identify.signal(()),
            Duty::Restart => self.restart.signal(()),
            // The core keeps what is to be kept.
            Duty::Nothing | Duty::Keep => {}
        }
    }

    /// There may be something to publish.
    pub(crate) fn tell_news(&self) {
        self.news.signal(());
    }

    /// Waits for news, or for this time, or for the end of a round.
    pub(crate) async fn news_or(&self, until_ms: Option<u64>) {
        select(self.news.wait(), pause_until(until_ms)).await;
    }

    /// The link's loop goes round.
    pub(crate) fn link_goes_round(&self) {
        self.link_went_round_at.set(now_ms());
    }

    /// Whether the link's loop goes round; the sampling loop asks, and so does too.
    pub(crate) fn is_well(&self) -> bool {
        now_ms() - self.link_went_round_at.get() <= settings::LINK_ROUND_MS_MAX
    }
}

/// Milliseconds since power-up.
pub(crate) fn now_ms() -> u64 {
    Instant::now().as_millis()
}

/// Waits until `until_ms`, or for the end of a round if that is sooner.
pub(crate) async fn pause_until(until_ms: Option<u64>) {
    let round_ends_ms = now_ms() + settings::ROUND_MS_MAX;
    Timer::at(Instant::from_millis(until_ms.map_or(round_ends_ms, |until| until.min(round_ends_ms)))).await;
}
