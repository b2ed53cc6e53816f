//! The app: what it needs of a board, and its three loops.

use core::cell::{Cell, RefCell, RefMut};

use embassy_futures::join::join;
use embassy_futures::select::select;
use embassy_net::driver::Driver;
use embassy_net::{DhcpConfig, StackResources};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Instant, Timer};
use embedded_hal::i2c::I2c;
use weir_contract::body::Body;
use weir_device::{Config, Device, Limit, Sampler};

use crate::identity::Identity;
use crate::{link, network, sampling, settings};

/// What this firmware is called in `device-started`.
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");
/// DHCP, DNS and the gateway.
const SOCKETS: usize = 3;

/// What a board gives the app.
pub struct Board<B, D, W> {
    /// What the board is called in `device-started`.
    pub hardware: &'static str,
    /// Why it started, likewise.
    pub reason: heapless::String<64>,
    /// Who it is.
    pub identity: Identity,
    /// Unique for this power-up of this device.
    pub boot: u64,
    /// The bus with the temperature sensor: an LM75, TMP105 or alike at 0x48.
    pub sensor: B,
    /// Ethernet.
    pub network: D,
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
}

impl End {
    /// As the next `device-started` tells it.
    pub fn reason(self) -> &'static str {
        match self {
            End::Restart => "restart-command",
        }
    }
}

/// Memory that the app borrows for as long as it runs.
pub struct Memory {
    outbox: [u8; settings::OUTBOX_LEN],
    link: link::Memory,
    network: network::Memory,
    sockets: StackResources<SOCKETS>,
}

impl Memory {
    /// As it is lent.
    pub const fn new() -> Self {
        Self {
            outbox: [0; settings::OUTBOX_LEN],
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
pub async fn run<B: I2c, D: Driver, W: Watchdog>(board: Board<B, D, W>, memory: &mut Memory) -> End {
    let Board { hardware, reason, identity, boot, sensor, network, watchdog, stack } = board;
    let seed = seed(&identity, boot);
    log::info!(
        "{} {} boot {} ({}) gateway {}:{}",
        identity.device,
        hardware,
        boot,
        reason,
        identity.gateway_host,
        identity.gateway_port
    );
    let mut device = Device::new(config(&identity), boot, &mut memory.outbox[..], seed);
    let started =
        Body::DeviceStarted { fw: FIRMWARE.into(), hw: hardware.into(), reason: reason.as_str().into() };
    let _ = device.emit(now_ms(), &started);
    let shared = Shared::new(device);

    let dhcp = embassy_net::Config::dhcpv4(DhcpConfig::default());
    let (stack_of_protocols, mut runner) = embassy_net::new(network, dhcp, &mut memory.sockets, seed);
    let sampling = sampling::run(&shared, sensor, watchdog, stack);
    let network = network::Network::new(stack_of_protocols, &mut memory.network);
    let link = link::run(&shared, &identity, network, &mut memory.link);
    select(shared.end.wait(), join(join(sampling, link), runner.run())).await;
    End::Restart
}

/// The device as firmware has it.
pub(crate) type FirmwareDevice<'m> = Device<&'m mut [u8], { settings::WINDOW }>;

/// What the loops share. They run on one thread and borrow only between awaits.
pub(crate) struct Shared<'m> {
    core: RefCell<Core<'m>>,
    /// There may be something to publish.
    news: Signal<NoopRawMutex, ()>,
    end: Signal<NoopRawMutex, End>,
    link_went_round: Cell<bool>,
}

pub(crate) struct Core<'m> {
    pub(crate) device: FirmwareDevice<'m>,
    pub(crate) sampler: Sampler,
    pub(crate) limit: Limit,
}

impl<'m> Shared<'m> {
    fn new(device: FirmwareDevice<'m>) -> Self {
        let core = Core {
            device,
            sampler: Sampler::new(settings::PERIOD_MS, settings::CHANGE_MIN, settings::SILENCE_MS_MAX),
            limit: Limit::new(settings::LIMIT, settings::LIMIT_HYSTERESIS),
        };
        Self {
            core: RefCell::new(core),
            news: Signal::new(),
            end: Signal::new(),
            link_went_round: Cell::new(false),
        }
    }

    /// To be given back before the next await.
    pub(crate) fn core(&self) -> RefMut<'_, Core<'m>> {
        self.core.borrow_mut()
    }

    /// A message of the gateway has come.
    pub(crate) fn received(&self, topic: &str, payload: &[u8]) {
        let mut core = self.core();
        match core.device.received(now_ms(), topic, payload) {
            Ok(_) => {}
            Err(malformed) => log::warn!("cannot read a message of the gateway: {malformed}"),
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
        self.link_went_round.set(true);
    }

    /// The sampling loop goes round: whether both have since this last said so.
    pub(crate) fn both_go_round(&self) -> bool {
        let both = self.link_went_round.get();
        if both {
            self.link_went_round.set(false);
        }
        both
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

fn config(identity: &Identity) -> Config {
    Config {
        #[expect(clippy::cast_possible_truncation, reason = "a handful")]
        window: settings::WINDOW as u16,
        uplink_events_max: settings::UPLINK_EVENTS_MAX,
        uplink_len_max: settings::UPLINK_LEN_MAX,
        backoff_ms_min: settings::BACKOFF_MS_MIN,
        backoff_ms_max: settings::BACKOFF_MS_MAX,
        ..Config::new(identity.device)
    }
}

/// For what should differ between devices and boots and need not be secret: ports, pauses. FNV-1a of both.
fn seed(identity: &Identity, boot: u64) -> u64 {
    let boot = boot.to_le_bytes();
    let bytes = identity.device.bytes().chain(boot);
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
