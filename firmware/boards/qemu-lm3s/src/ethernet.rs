//! The Ethernet controller, as a driver for embassy-net: whole frames through a FIFO, one word at a time.
//!
//! Received frames wait in the controller (31 of them in QEMU, 2 KB on the chip) until they are asked for. An interrupt
//! says that there is one; it is masked until nobody has to be woken any more.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;
use static_cell::ConstStaticCell;

use crate::clock;
use crate::registers::{Interrupt, Register, enable};

const MAC0: usize = 0x4004_8000;
const RIS_IACK: Register = Register::at(MAC0, 0x000);
const IM: Register = Register::at(MAC0, 0x004);
const RCTL: Register = Register::at(MAC0, 0x008);
const TCTL: Register = Register::at(MAC0, 0x00C);
const DATA: Register = Register::at(MAC0, 0x010);
const IA0: Register = Register::at(MAC0, 0x014);
const IA1: Register = Register::at(MAC0, 0x018);
const NP: Register = Register::at(MAC0, 0x034);
const TR: Register = Register::at(MAC0, 0x038);
const RCGC2: Register = Register::at(0x400F_E000, 0x108);
/// The MAC address, three bytes each: programmed once at the factory, by QEMU from `-nic mac=`.
const USER0: Register = Register::at(0x400F_D000, 0x1E0);
const USER1: Register = Register::at(0x400F_D000, 0x1E4);

const RECEIVED: u32 = 1;
const RCTL_ENABLE: u32 = 1 << 0;
const RCTL_RESET_FIFO: u32 = 1 << 4;
const TCTL_ENABLE_PAD_CRC: u32 = 1 << 0 | 1 << 1 | 1 << 2;
const TR_TRANSMIT: u32 = 1;
const RCGC2_EMAC_EPHY: u32 = 1 << 28 | 1 << 30;

const HEADER_LEN: usize = 14;
/// The greatest frame without its check sum: datagrams of 576 bytes, which everybody can take (RFC 791). TCP keeps to it;
/// what comes larger is not for us.
const FRAME_LEN_MAX: usize = HEADER_LEN + 576;
/// A received frame begins with its length in two bytes, which count themselves and the check sum at its end.
const LENGTH_LEN: usize = 2;
const CRC_LEN: usize = 4;

static WAKER: AtomicWaker = AtomicWaker::new();

/// Where frames are put together and taken apart.
struct Frames {
    received: [u8; FRAME_LEN_MAX],
    sent: [u8; FRAME_LEN_MAX],
}

/// The controller.
pub(crate) struct Ethernet {
    address: [u8; 6],
    frames: &'static mut Frames,
}

impl Ethernet {
    /// Starts the controller. To be called once.
    pub(crate) fn start() -> Self {
        static FRAMES: ConstStaticCell<Frames> =
            ConstStaticCell::new(Frames { received: [0; FRAME_LEN_MAX], sent: [0; FRAME_LEN_MAX] });
        RCGC2.set(RCGC2_EMAC_EPHY);
        let _ = RCGC2.read();
        let ([a, b, c, _], [d, e, f, _]) = (USER0.read().to_le_bytes(), USER1.read().to_le_bytes());
        IA0.write(u32::from_le_bytes([a, b, c, d]));
        IA1.write(u32::from_le_bytes([e, f, 0, 0]));
        IM.write(0);
        RCTL.write(RCTL_RESET_FIFO);
        RCTL.write(RCTL_ENABLE);
        TCTL.write(TCTL_ENABLE_PAD_CRC);
        enable(Interrupt::Ethernet);
        Self { address: [a, b, c, d, e, f], frames: FRAMES.take() }
    }
}

impl Driver for Ethernet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Received<'_>, Sending<'_>)> {
        RIS_IACK.write(RECEIVED);
        while NP.read() != 0 {
            if let Some(len) = take_frame(&mut self.frames.received) {
                let received = Received(&mut self.frames.received[..len]);
                return Some((received, Sending(&mut self.frames.sent)));
            }
        }
        // A frame that comes between looking and this is seen by the interrupt, which it has raised already.
        WAKER.register(context.waker());
        IM.write(RECEIVED);
        None
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Sending<'_>> {
        Some(Sending(&mut self.frames.sent))
    }

    /// QEMU has no registers of a PHY: a cable that is pulled is noticed by what does not come.
    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_LEN_MAX;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}

/// Reads the oldest frame from the FIFO. `None` if it is no frame that fits; it is gone all the same.
fn take_frame(frame: &mut [u8; FRAME_LEN_MAX]) -> Option<usize> {
    let [length_low, length_high, first, second] = DATA.read().to_le_bytes();
    let total = usize::from(u16::from_le_bytes([length_low, length_high]));
    let len = total.saturating_sub(LENGTH_LEN + CRC_LEN);
    frame[..2].copy_from_slice(&[first, second]);
    let mut at = 2;
    // Two bytes of the frame came with the length, and the check sum has to be taken from the FIFO, too.
    while at + LENGTH_LEN < total {
        let word = DATA.read().to_le_bytes();
        let end = frame.len().min(at + word.len());
        if let Some(place) = frame.get_mut(at..end) {
            place.copy_from_slice(&word[..place.len()]);
        }
        at += word.len();
    }
    (HEADER_LEN..=FRAME_LEN_MAX).contains(&len).then_some(len)
}

/// A frame that has come.
pub(crate) struct Received<'f>(&'f mut [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame to send.
pub(crate) struct Sending<'f>(&'f mut [u8; FRAME_LEN_MAX]);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let frame = &mut self.0[..len];
        let result = write(frame);
        while TR.read() & TR_TRANSMIT != 0 {}
        // Its length goes before it, in the first word's lower half, without the Ethernet header.
        let [low, high, ..] = len.saturating_sub(HEADER_LEN).to_le_bytes();
        let (first, rest) = frame.split_at(2);
        DATA.write(u32::from_le_bytes([low, high, first[0], first[1]]));
        for bytes in rest.chunks(4) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            DATA.write(u32::from_le_bytes(word));
        }
        TR.write(TR_TRANSMIT);
        clock::stir();
        result
    }
}

#[expect(unsafe_code, reason = "the vector table finds it by its name")]
#[unsafe(no_mangle)]
extern "C" fn ETHERNET() {
    IM.write(0);
    WAKER.wake();
}
