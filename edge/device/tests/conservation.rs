//! Whatever happens, every number of every boot is acknowledged, kept, or lost and covered by one `events-lost`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use weir_contract::body::Body;
use weir_contract::uplink::Uplink;
use weir_contract::{Id, Kind};
use weir_device::{Action, Config, Device, Emitted, Memory, Ram, Token};

const WINDOW: usize = 4;
type TestDevice = Device<Ram<Vec<u8>>, WINDOW>;

#[derive(Debug, Clone)]
enum Happening {
    Emit {
        body_len: usize,
    },
    Poll,
    /// The gateway stores one of the uplinks on the way, whichever.
    Store {
        which: usize,
    },
    /// An acknowledgement arrives, in any order.
    Acknowledge {
        which: usize,
    },
    Disconnect,
    PowerCut,
    Later {
        ms: u64,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0_usize..120).prop_map(|body_len| Happening::Emit { body_len }),
        1 => (400_usize..2000).prop_map(|body_len| Happening::Emit { body_len }),
        8 => Just(Happening::Poll),
        5 => (0_usize..8).prop_map(|which| Happening::Store { which }),
        5 => (0_usize..8).prop_map(|which| Happening::Acknowledge { which }),
        1 => Just(Happening::Disconnect),
        1 => Just(Happening::PowerCut),
        2 => (0_u64..2000).prop_map(|ms| Happening::Later { ms }),
    ]
}

/// A device, a network that loses what is on the way when a connection ends, and a gateway that remembers.
struct World {
    device: Option<TestDevice>,
    uplink_events_max: u16,
    linger_ms: u64,
    boot: u64,
    now: u64,
    /// Published, not stored.
    on_the_way: Vec<(Token, Vec<u8>)>,
    /// Stored, acknowledgement on the way.
    acknowledging: Vec<(Token, Vec<u8>)>,
    /// What the gateway has: the kind and body of each event, which never change.
    stored: BTreeMap<(u64, u32), (Kind, Vec<u8>)>,
    acknowledged: BTreeSet<(u64, u32)>,
    lost: BTreeSet<(u64, u32)>,
    /// The greatest number of each boot.
    last: BTreeMap<u64, u32>,
    /// The last number published on this connection, by boot.
    published: BTreeMap<u64, u32>,
}

impl World {
    fn new(memory_len: usize, uplink_events_max: u16, linger_ms: u64) -> Self {
        let mut world = Self {
            device: None,
            uplink_events_max,
            linger_ms,
            boot: 0,
            now: 0,
            on_the_way: vec![],
            acknowledging: vec![],
            stored: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            lost: BTreeSet::new(),
            last: BTreeMap::new(),
            published: BTreeMap::new(),
        };
        world.power_up(Ram::new(vec![0; memory_len]));
        world
    }

    fn power_up(&mut self, memory: Ram<Vec<u8>>) {
        self.boot += 1000;
        self.now = 0;
        let id: Id = "probe-1".parse().expect("a name");
        let config = Config {
            window: 3,
            uplink_events_max: self.uplink_events_max,
            uplink_len_max: 600,
            linger_ms: self.linger_ms,
            ..Config::new(id)
        };
        self.device = Some(Device::new(config, self.boot, memory, self.boot));
    }

    fn device(&mut self) -> &mut TestDevice {
        self.device.as_mut().expect("powered")
    }

    fn happen(&mut self, happening: &Happening) {
        let now = self.now;
        match *happening {
            Happening::Emit { body_len } => self.emit(body_len),
            Happening::Poll => {
                self.poll();
            }
            Happening::Store { which } if !self.on_the_way.is_empty() => {
                self.store(which % self.on_the_way.len());
            }
            Happening::Acknowledge { which } if !self.acknowledging.is_empty() => {
                self.acknowledge(which % self.acknowledging.len());
            }
            Happening::Disconnect if self.device().is_connected() => {
                self.device().disconnected(now);
                self.cut();
            }
            Happening::PowerCut => self.power_cut(),
            Happening::Later { ms } => self.now += ms,
            _ => {}
        }
        self.check();
    }

    fn emit(&mut self, body_len: usize) {
        let (now, boot) = (self.now, self.boot);
        let emitted = self.device().emit_raw(now, &"probed".parse().expect("a kind"), 1, &body(body_len));
        let (Emitted::Kept(seq) | Emitted::Lost(seq)) = emitted else {
            // Losses of so many boots wait to be told that there is no place for one more.
            let waiting = self.device().outbox().memory().losses();
            assert!(waiting.len() >= 5 && waiting.iter().all(|loss| loss.boot != boot));
            return;
        };
        assert_eq!(self.device().outbox().last(), seq);
        if emitted == Emitted::Lost(seq) {
            self.lost.insert((boot, seq));
        }
    }

    /// Returns whether there was anything to do.
    fn poll(&mut self) -> bool {
        let mut buffer = [0; 600];
        let now = self.now;
        let action = self.device.as_mut().expect("powered").poll(now, &mut buffer);
        // Polling may have told of a loss, under a new number.
        let outbox = self.device.as_ref().expect("powered").outbox();
        self.last.insert(outbox.boot(), outbox.last());
        match action {
            Action::Wait(_) => false,
            Action::Connect => {
                self.device().connected();
                true
            }
            Action::Subscribe => true,
            Action::Publish(publish) => {
                let payload = publish.payload.to_vec();
                let uplink = Uplink::read(&payload).expect("an uplink as the contract says");
                assert_eq!((uplink.first_seq(), uplink.last_seq()), (publish.first, publish.last));
                assert_eq!(uplink.header.boot, publish.boot);
                self.check_order(&uplink);
                self.on_the_way.push((publish.token, payload));
                true
            }
        }
    }

    fn check_order(&mut self, uplink: &Uplink<'_>) {
        let boot = uplink.header.boot;
        if self.published.is_empty() {
            let device = self.device.as_ref().expect("powered");
            let oldest = device
                .outbox()
                .memory()
                .kept()
                .find(|event| !self.acknowledged.contains(event) || event.0 != self.boot)
                .expect("something is kept");
            let goes_first = uplink.events().any(|event| (boot, event.seq) == oldest);
            assert!(goes_first, "{oldest:?} should go first, not {boot}/{}", uplink.first_seq());
        }
        let before = self.published.insert(boot, uplink.last_seq());
        assert!(before.is_none_or(|before| before < uplink.first_seq()), "in order within a connection");
        match uplink.header.now {
            Some(now) => assert!(boot == self.boot && now == self.now && uplink.header.via.is_none()),
            None => {
                let outbox = self.device.as_ref().expect("powered").outbox();
                let next = outbox.memory().kept().find(|event| *event > (boot, uplink.last_seq()));
                let after = next.map(|next| next.0).filter(|next| *next != boot).unwrap_or(self.boot);
                assert!(boot != self.boot && uplink.header.via == Some(after));
            }
        }
    }

    fn store(&mut self, which: usize) {
        let (token, payload) = self.on_the_way.remove(which);
        let uplink = Uplink::read(&payload).expect("read before");
        for event in uplink.events() {
            let fact = (event.kind, event.body.to_vec());
            let known = self.stored.entry((uplink.header.boot, event.seq)).or_insert_with(|| fact.clone());
            assert_eq!(*known, fact, "an event never changes");
        }
        self.acknowledging.push((token, payload));
    }

    fn acknowledge(&mut self, which: usize) {
        let (token, payload) = self.acknowledging.remove(which);
        let uplink = Uplink::read(&payload).expect("read before");
        let told = self.device().acknowledged(token).expect("news");
        assert_eq!((told.first, told.last), (uplink.first_seq(), uplink.last_seq()));
        assert!(self.device().acknowledged(token).is_none(), "no news the second time");
        self.acknowledged.extend(uplink.events().map(|event| (uplink.header.boot, event.seq)));
    }

    fn cut(&mut self) {
        self.on_the_way.clear();
        self.acknowledging.clear();
        self.published.clear();
    }

    fn power_cut(&mut self) {
        self.cut();
        let memory = self.device.take().expect("powered").power_off();
        self.power_up(memory);
    }

    fn check(&mut self) {
        let device = self.device.as_ref().expect("powered");
        let outbox = device.outbox();
        self.last.insert(outbox.boot(), outbox.last());
        let kept: Vec<(u64, u32)> = outbox.memory().kept().collect();
        // In this test, later boots have greater numbers.
        assert!(kept.is_sorted_by(|a, b| a < b), "kept in order");
        for (&boot, &last) in &self.last {
            for event in (1..=last).map(|seq| (boot, seq)) {
                let is_kept = kept.binary_search(&event).is_ok();
                let is_acknowledged = self.acknowledged.contains(&event);
                let is_lost = self.lost.contains(&event);
                assert!(is_kept || is_acknowledged || is_lost, "{event:?} is nowhere");
                assert!(!(is_lost && (is_kept || is_acknowledged)), "{event:?} is lost and is not");
            }
        }
        if let Some(oldest) = kept.first() {
            // After a power cut it is forgotten which of the kept ones were acknowledged.
            let freed_late = oldest.0 == self.boot && self.acknowledged.contains(oldest);
            assert!(!freed_late, "{oldest:?} should have been freed");
        }
        for loss in outbox.memory().losses() {
            assert!((loss.from..=loss.to).all(|seq| self.lost.contains(&(loss.boot, seq))));
        }
    }

    /// Everything works from now on. In the end the gateway has every event or the record of its loss, once.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            self.device().flush();
            while self.poll() {}
            while !self.on_the_way.is_empty() {
                self.store(0);
            }
            while !self.acknowledging.is_empty() {
                self.acknowledge(0);
            }
            self.check();
            if self.device().is_drained() {
                return self.check_account();
            }
            self.now += 1000;
        }
        panic!("does not drain");
    }

    fn check_account(&self) {
        let mut covered = BTreeSet::new();
        for ((boot, seq), (kind, body)) in &self.stored {
            let body = Body::read(kind, 1, body).expect("a good body");
            if let Some(Body::EventsLost { boot: of, from, to, .. }) = body {
                assert!(of < *boot || (of == *boot && to < *seq), "told after it happened");
                for lost in from..=to {
                    assert!(covered.insert((of, lost)), "{of}/{lost} is covered twice");
                }
            }
        }
        assert_eq!(covered, self.lost, "every loss is told, and nothing else");
        for (&boot, &last) in &self.last {
            for seq in 1..=last {
                let stored = self.stored.contains_key(&(boot, seq));
                assert!(stored != covered.contains(&(boot, seq)), "{boot}/{seq}: either stored or covered");
            }
        }
        assert!(self.stored.keys().all(|(boot, seq)| seq <= &self.last[boot]));
    }
}

/// A body of about `len` bytes: `{"p": h'…'}`.
fn body(len: usize) -> Vec<u8> {
    let padding = u16::try_from(len).expect("short");
    let mut body = vec![0xa1, 0x61, b'p', 0x59];
    body.extend(padding.to_be_bytes());
    body.resize(body.len() + len, 0x5a);
    body
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_number_is_kept_acknowledged_or_covered_by_one_events_lost(
        memory_len in prop_oneof![150_usize..400, 400_usize..3000],
        uplink_events_max in 1_u16..8,
        linger_ms in prop_oneof![Just(0_u64), 1_u64..1500],
        happenings in prop::collection::vec(happening(), 1..300),
    ) {
        let mut world = World::new(memory_len, uplink_events_max, linger_ms);
        for happening in &happenings {
            world.happen(happening);
        }
        world.drain();
    }
}
