//! What the writer remembers between transactions: ids, and what is known of the boots that are active. Everything in it can
//! be read again from the store, so it is bounded by forgetting.

use std::collections::HashMap;

use weir_contract::subject::Source;
use weir_contract::{Id, Kind};

use crate::projection::boot::Boot;
use crate::projection::runs::Runs;

/// Most devices whose ids are remembered.
const DEVICES_MAX: usize = 200_000;
/// Most kinds whose ids are remembered.
const KINDS_MAX: usize = 4096;
/// Most spools that are remembered.
const SPOOLS_MAX: usize = 4096;
/// Most bytes, roughly, that remembered boots may take: some 60,000 of ordinary devices.
const BOOTS_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Bytes of a boot in memory, beside what grows with it.
const BOOT_BYTES: usize = 640;
/// Bytes in memory per byte of a boot's encoded state, at most.
const BYTES_PER_ENCODED: usize = 4;

/// Name of a boot in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootKey {
    pub device: i64,
    pub boot: u64,
}

/// A boot in memory.
#[derive(Debug)]
pub struct Slot {
    pub ordinal: i64,
    pub boot: Boot,
    /// Differs from the store.
    pub dirty: bool,
    used: u64,
    bytes: usize,
}

/// A spool in memory.
#[derive(Debug)]
pub struct Spool {
    pub id: i64,
    pub numbers: Runs<u64>,
    pub logged_ns: i64,
    /// Differs from the store.
    pub dirty: bool,
}

#[derive(Debug, Default)]
pub struct Cache {
    pub devices: HashMap<Id, i64>,
    pub kinds: HashMap<(Kind, u16), i64>,
    pub spools: HashMap<(Source, u64), Spool>,
    boots: HashMap<BootKey, Slot>,
    boots_bytes: usize,
    now: u64,
}

impl Cache {
    /// A remembered boot, marked as used.
    pub fn boot(&mut self, key: BootKey) -> Option<&mut Slot> {
        let slot = self.boots.get_mut(&key)?;
        slot.used = self.now;
        Some(slot)
    }

    /// Remembers a boot.
    pub fn remember(&mut self, key: BootKey, ordinal: i64, boot: Boot) -> &mut Slot {
        self.boots_bytes += BOOT_BYTES;
        let slot = Slot { ordinal, boot, dirty: false, used: self.now, bytes: BOOT_BYTES };
        self.boots.entry(key).insert_entry(slot).into_mut()
    }

    /// Boots that differ from the store, in the store's order. `written` is given each, and says how many bytes it takes encoded.
    pub fn flush<E>(&mut self, mut write: impl FnMut(BootKey, &Slot) -> Result<usize, E>) -> Result<(), E> {
        let mut dirty: Vec<BootKey> =
            self.boots.iter().filter(|(_, slot)| slot.dirty).map(|(key, _)| *key).collect();
        dirty.sort_unstable();
        for key in dirty {
            let Some(slot) = self.boots.get_mut(&key) else { continue };
            let bytes = BOOT_BYTES + BYTES_PER_ENCODED * write(key, slot)?;
            slot.dirty = false;
            self.boots_bytes = self.boots_bytes - slot.bytes + bytes;
            slot.bytes = bytes;
        }
        Ok(())
    }

    /// Forgets what was used longest ago where it is too much. Only between transactions, when nothing differs from the store.
    pub fn trim(&mut self) {
        self.now += 1;
        if self.devices.len() > DEVICES_MAX {
            self.devices.clear();
        }
        if self.kinds.len() > KINDS_MAX {
            self.kinds.clear();
        }
        if self.spools.len() > SPOOLS_MAX {
            self.spools.clear();
        }
        if self.boots_bytes <= BOOTS_BYTES_MAX {
            return;
        }
        let mut by_use: Vec<(u64, BootKey)> =
            self.boots.iter().map(|(key, slot)| (slot.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            // A quarter is freed at once, so that this sorting is rare.
            if self.boots_bytes <= BOOTS_BYTES_MAX / 4 * 3 {
                break;
            }
            if let Some(slot) = self.boots.remove(&key) {
                self.boots_bytes -= slot.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BOOT_BYTES, BOOTS_BYTES_MAX, BootKey, Cache};
    use crate::projection::boot::Boot;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut cache = Cache::default();
        let busy = BootKey { device: 0, boot: 0 };
        cache.remember(busy, 1, Boot::default());
        for device in 1..200_000 {
            cache.remember(BootKey { device, boot: 1 }, 1, Boot::default());
            if device % 100 == 0 {
                assert!(cache.boot(busy).is_some(), "forgotten at {device}");
                cache.trim();
                assert!(cache.boots_bytes <= BOOTS_BYTES_MAX);
                assert_eq!(cache.boots_bytes, cache.boots.len() * BOOT_BYTES);
            }
        }
        assert!(cache.boot(BootKey { device: 1, boot: 1 }).is_none());
    }
}
