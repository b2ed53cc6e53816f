//! A device with a journal, a network that loses what is on the way, a gateway that remembers, and power that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use weir_contract::body::Body;
use weir_contract::uplink::Uplink;
use weir_contract::{Id, Kind};
use weir_device::journal::{Journal, MountError, StorageError};
use weir_device::{Action, Config, Device, Emitted, Memory, Token};

use crate::chip::Chip;

const BUFFER_LEN: usize = 512;
const UPLINK_LEN_MAX: usize = 600;

type Memories<const WRITE: usize, const ERASE: usize> = Journal<Chip<WRITE, ERASE>, [u8; BUFFER_LEN]>;
type TestDevice<const WRITE: usize, const ERASE: usize> = Device<Memories<WRITE, ERASE>, 4>;
/// Boot and number.
type Name = (u64, u32);

/// What happens to a device.
#[derive(Debug, Clone, Copy)]
pub enum Happening {
    Emit { body_len: usize },
    Poll,
    Store { which: usize },
    Acknowledge { which: usize },
    Disconnect,
    Time { unix_ms: u64 },
    PowerCut,
}

/// Everything, and what is known of it from outside.
pub struct World<const WRITE: usize, const ERASE: usize> {
    pub chip: Chip<WRITE, ERASE>,
    area: Range<u32>,
    device: Option<TestDevice<WRITE, ERASE>>,
    boots: BTreeSet<u64>,
    now: u64,
    bodies: u32,
    on_the_way: Vec<(Token, Vec<u8>)>,
    acknowledging: Vec<(Token, Vec<u8>)>,
    /// The kinds and bodies that the gateway has.
    pub stored: BTreeMap<Name, (Kind, Vec<u8>)>,
    /// What boots have learned of their epochs.
    epochs_learned: BTreeMap<u64, u64>,
    pub kept: BTreeMap<Name, Vec<u8>>,
    pub lost: BTreeSet<Name>,
    /// Numbers that were being given when the power was cut.
    maybe: BTreeSet<Name>,
    /// Bits have changed by themselves.
    pub rotten: bool,
    /// What happened without room even for the record of a loss.
    pub exhausted: u32,
    pub cuts: u32,
}

impl<const WRITE: usize, const ERASE: usize> World<WRITE, ERASE> {
    /// The power is on.
    pub fn new(chip_len: usize, area: Range<u32>) -> Self {
        let mut world = Self::off(chip_len, area);
        world.power_up();
        world
    }

    /// The power is off.
    pub fn off(chip_len: usize, area: Range<u32>) -> Self {
        Self {
            chip: Chip::new(chip_len),
            area,
            device: None,
            boots: BTreeSet::new(),
            now: 0,
            bodies: 0,
            on_the_way: vec![],
            acknowledging: vec![],
            stored: BTreeMap::new(),
            epochs_learned: BTreeMap::new(),
            kept: BTreeMap::new(),
            lost: BTreeSet::new(),
            maybe: BTreeSet::new(),
            rotten: false,
            exhausted: 0,
            cuts: 0,
        }
    }

    /// Tries to start; the power may fail in the middle of that.
    pub fn power_up(&mut self) {
        let id: Id = "probe-1".parse().expect("a name");
        let config = Config { uplink_events_max: 5, uplink_len_max: UPLINK_LEN_MAX, ..Config::new(id) };
        let journal = match Journal::mount(self.chip.clone(), self.area.clone(), [0; BUFFER_LEN], 9) {
            Ok(journal) => journal,
            Err(MountError::Storage(StorageError::Driver(_))) if self.chip.is_dead() => return,
            Err(error) => panic!("{error}"),
        };
        let boot = journal.boot();
        assert!(self.boots.insert(boot), "the number of a boot is given once");
        self.now = 0;
        self.device = Some(Device::new(config, boot, journal, 3));
    }

    fn boot(&self) -> u64 {
        self.device.as_ref().map_or(0, |device| device.outbox().boot())
    }

    fn last(&self) -> u32 {
        self.device.as_ref().map_or(0, |device| device.outbox().last())
    }

    pub fn happen(&mut self, happening: Happening) {
        let (boot, last) = (self.boot(), self.last());
        match happening {
            Happening::Emit { body_len } => self.emit(body_len),
            Happening::Poll => {
                self.poll();
            }
            Happening::Store { which } if !self.on_the_way.is_empty() => {
                self.store(which % self.on_the_way.len());
            }
            Happening::Acknowledge { which } if !self.acknowledging.is_empty() => {
                let (token, _) = self.acknowledging.remove(which % self.acknowledging.len());
                // An uplink that could not be read again has been forgotten.
                let _ = self.device().acknowledged(token);
            }
            Happening::Disconnect if self.device().is_connected() => {
                let now = self.now;
                self.device().disconnected(now);
                self.lose_connection();
            }
            Happening::Time { unix_ms } => {
                let now = self.now;
                self.device().time_is(now, unix_ms);
                if !self.chip.is_dead()
                    && let Some(epoch) = self.device().outbox().epoch()
                {
                    self.epochs_learned.insert(boot, epoch);
                }
            }
            Happening::PowerCut => self.power_cut(),
            _ => {}
        }
        self.now += 7;
        if self.chip.is_dead() {
            self.maybe.extend((last + 1..last + 12).map(|seq| (boot, seq)));
            self.power_cut();
        }
    }

    fn device(&mut self) -> &mut TestDevice<WRITE, ERASE> {
        self.device.as_mut().expect("powered")
    }

    fn emit(&mut self, body_len: usize) {
        self.bodies += 1;
        let body = body(self.bodies, body_len);
        let now = self.now;
        let emitted = self.device().emit_raw(now, &"probed".parse().expect("a kind"), 1, &body);
        if self.chip.is_dead() {
            return;
        }
        let boot = self.boot();
        match emitted {
            Emitted::Kept(seq) => {
                assert!(self.kept.insert((boot, seq), body).is_none(), "one number, one event");
            }
            Emitted::Lost(seq) => assert!(self.lost.insert((boot, seq)), "one number, one loss"),
            Emitted::Exhausted => self.exhausted += 1,
        }
    }

    /// Returns whether there was anything to do.
    fn poll(&mut self) -> bool {
        let mut buffer = [0; UPLINK_LEN_MAX];
        let now = self.now;
        match self.device.as_mut().expect("powered").poll(now, &mut buffer) {
            Action::Wait(until) => until.is_some_and(|until| until <= now),
            Action::Connect => {
                self.device().connected();
                true
            }
            Action::Subscribe => true,
            Action::Publish(publish) => {
                let token = publish.token;
                let payload = publish.payload.to_vec();
                let uplink = Uplink::read(&payload).expect("an uplink as the contract says");
                let header = uplink.header;
                assert_eq!(header.now.is_none(), header.boot != self.boot());
                if let Some(learned) = self.epochs_learned.get(&header.boot) {
                    let heard = header.epoch;
                    assert!(self.rotten || heard == Some(*learned), "{heard:?} is not {learned}");
                }
                self.on_the_way.push((token, payload));
                true
            }
        }
    }

    fn store(&mut self, which: usize) {
        let (token, payload) = self.on_the_way.remove(which);
        let uplink = Uplink::read(&payload).expect("read before");
        for event in uplink.events() {
            let fact = (event.kind, event.body.to_vec());
            let known = self.stored.entry((uplink.header.boot, event.seq)).or_insert_with(|| fact.clone());
            assert_eq!(*known, fact, "a number never names two events");
        }
        self.acknowledging.push((token, payload));
    }

    fn lose_connection(&mut self) {
        self.on_the_way.clear();
        self.acknowledging.clear();
    }

    pub fn power_cut(&mut self) {
        self.cuts += 1;
        self.device = None;
        self.lose_connection();
        while self.device.is_none() {
            self.chip.power_up();
            self.power_up();
        }
    }

    /// Everything works from now on. In the end the gateway has every event, or the record of its loss.
    pub fn drain(&mut self) {
        self.chip.power_up();
        if self.device.is_none() {
            self.power_up();
        }
        for _ in 0..100_000 {
            while self.poll() {}
            while !self.on_the_way.is_empty() {
                self.store(0);
            }
            while let Some((token, _)) = self.acknowledging.pop() {
                let _ = self.device().acknowledged(token);
            }
            if self.device().is_drained() {
                return self.check();
            }
            self.now += 1000;
        }
        panic!("does not drain: {:?}", self.device().outbox().memory().losses());
    }

    fn check(&mut self) {
        assert_eq!(self.device().memory_mut().take_error(), None);
        assert_eq!(self.device().memory_mut().untold(), 0);
        let mut covered = BTreeSet::new();
        for ((boot, seq), (kind, body)) in &self.stored {
            let Some(Body::EventsLost { boot: of, from, to, .. }) =
                Body::read(kind, 1, body).expect("a good body")
            else {
                continue;
            };
            assert!(of != *boot || to < *seq, "told after it happened");
            for lost in from..=to {
                assert!(covered.insert((of, lost)), "{of}/{lost} is covered twice");
            }
        }
        for (name, body) in &self.kept {
            match self.stored.get(name) {
                Some((_, stored)) => assert_eq!(stored, body, "{name:?} has changed"),
                None => assert!(self.rotten && covered.contains(name), "{name:?} was kept, and is gone"),
            }
        }
        for name in &self.lost {
            assert!(covered.contains(name), "{name:?} was lost, and is not told");
            assert!(!self.stored.contains_key(name), "{name:?} was lost, and is there");
        }
        for name in &covered {
            let known = self.lost.contains(name) || self.maybe.contains(name) || self.rotten;
            assert!(known, "{name:?} is told as lost, and was not");
            assert!(self.rotten || !self.stored.contains_key(name), "{name:?} is lost and is not");
        }
        let mut last: BTreeMap<u64, u32> = BTreeMap::new();
        for &(boot, seq) in self.stored.keys().chain(&covered) {
            let last = last.entry(boot).or_default();
            *last = seq.max(*last);
        }
        for (boot, last) in last {
            assert!(self.boots.contains(&boot));
            for seq in 1..=last {
                let name = (boot, seq);
                assert!(self.stored.contains_key(&name) || covered.contains(&name), "{name:?} is nowhere");
            }
        }
    }
}

/// A body of about `len` bytes that no other event has: `{"n": …, "p": h'…'}`.
fn body(number: u32, len: usize) -> Vec<u8> {
    let padding = u16::try_from(len).expect("short");
    let mut body = vec![0xa2, 0x61, b'n', 0x1a];
    body.extend(number.to_be_bytes());
    body.extend([0x61, b'p', 0x59]);
    body.extend(padding.to_be_bytes());
    body.resize(body.len() + len, 0x5a);
    body
}

/// What may happen, more often than not in favour of the device. `online`: how much of it is about the network.
pub fn happening(random: &mut fastrand::Rng, online: u32) -> Happening {
    match random.u32(..100 + 2 * online) {
        0..80 => {
            let body_len_max = if random.u8(..20) == 0 { 420 } else { 60 };
            Happening::Emit { body_len: random.usize(..body_len_max) }
        }
        80..83 => Happening::PowerCut,
        83..86 => Happening::Disconnect,
        86..89 => Happening::Time { unix_ms: 1_800_000_000_000 + random.u64(..1_000_000) },
        89..100 => Happening::Poll,
        other => match other % 4 {
            0 | 1 => Happening::Poll,
            2 => Happening::Store { which: random.usize(..4) },
            _ => Happening::Acknowledge { which: random.usize(..4) },
        },
    }
}
