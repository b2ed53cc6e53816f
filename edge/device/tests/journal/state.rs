//! Boots, configuration and note over cuts of power at every place.

use std::collections::BTreeSet;
use std::ops::Range;

use embedded_storage::nor_flash::NorFlash;
use weir_device::journal::{CONFIG_LEN_MAX, Journal, MountError, NOTE_LEN_MAX, StorageError};

use crate::chip::{Chip, Dead, Eeprom, Nor};

const AREA: Range<u32> = 256..32768;

fn mount<F: NorFlash>(flash: F, area: Range<u32>) -> Result<Journal<F, [u8; 1024]>, MountError<F::Error>> {
    Journal::mount(flash, area, [0; 1024], 42)
}

/// A boot or two, with a configuration and a note each. Tells what was completed.
fn live<const WRITE: usize, const ERASE: usize>(
    chip: &Chip<WRITE, ERASE>,
    area: Range<u32>,
    told: &mut Told,
) -> Result<(), Dead> {
    let dead = |error| match error {
        MountError::Storage(StorageError::Driver(Dead)) => Dead,
        other => panic!("{other}"),
    };
    let dead_too = |error| match error {
        StorageError::Driver(Dead) => Dead,
        other => panic!("{other}"),
    };
    let mut journal = mount(chip.clone(), area).map_err(dead)?;
    assert!(told.boots.insert(journal.boot()), "the number of a boot is given once");
    let number = told.boots.len();
    let found = journal.config().map_err(dead_too)?.map(<[u8]>::to_vec);
    assert!(told.configs.contains(&found), "{found:?} is none of {:?}", told.configs);
    let note = journal.note().map_err(dead_too)?.map(str::to_owned);
    assert!(told.notes.contains(&note), "{note:?} is none of {:?}", told.notes);
    // From here on, it may be the one or the other.
    let config = vec![number.to_le_bytes()[0]; 40 + number % 100];
    told.configs = vec![found, Some(config.clone())];
    journal.set_config(&config).map_err(dead_too)?;
    told.configs = vec![Some(config)];
    let reason = format!("restart {number}");
    told.notes = vec![note, Some(reason.clone())];
    journal.set_note(&reason).map_err(dead_too)?;
    told.notes = vec![Some(reason)];
    Ok(())
}

/// What a user of the journal knows.
#[derive(Debug, Clone)]
struct Told {
    boots: BTreeSet<u64>,
    configs: Vec<Option<Vec<u8>>>,
    notes: Vec<Option<String>>,
}

impl Told {
    fn nothing() -> Self {
        Self { boots: BTreeSet::new(), configs: vec![None], notes: vec![None] }
    }
}

/// From each of many states of the chip, a boot that is cut at each of its steps, and the two boots after that.
fn every_cut<const WRITE: usize, const ERASE: usize>(
    chip: &Chip<WRITE, ERASE>,
    area: &Range<u32>,
    boots: u32,
) {
    let mut told = Told::nothing();
    for boot in 0..boots {
        let before = chip.counts().steps;
        let (chip_before, told_before) = (chip.copy(), told.clone());
        live(chip, area.clone(), &mut told).expect("power");
        for cut in 0..chip.counts().steps - before {
            let (chip, mut told) = (chip_before.copy(), told_before.clone());
            chip.cut_after(cut, u64::from(boot) << 32 | cut);
            live(&chip, area.clone(), &mut told).expect_err("cut");
            for _ in 0..2 {
                chip.power_up();
                live(&chip, area.clone(), &mut told).expect("power");
            }
        }
    }
}

#[test]
fn no_boot_number_is_given_twice_and_facts_are_replaced_whole_wherever_power_is_cut() {
    every_cut(&Eeprom::new(32768), &AREA, 40);
    every_cut(&Nor::new(65536), &(4096..65536), 60);
    every_cut(&Chip::<32, 4096>::new(65536), &(0..65536), 40);
    every_cut(&Chip::<256, 4096>::new(65536), &(0..65536), 12);
}

#[test]
fn boot_numbers_survive_cuts_of_cuts() {
    for seed in 0..200 {
        let (chip, mut told) = (Eeprom::new(32768), Told::nothing());
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..100 {
            chip.power_up();
            chip.cut_after(random.u64(..400), random.u64(..));
            let _ = live(&chip, AREA, &mut told);
        }
        chip.power_up();
        live(&chip, AREA, &mut told).unwrap_or_else(|_| panic!("power, seed {seed}"));
    }
}

#[test]
fn no_boot_number_is_given_twice_when_a_bit_changes() {
    let chip = Eeprom::new(32768);
    let mut told = Told::nothing();
    for _ in 0..3 {
        live(&chip, AREA, &mut told).expect("power");
    }
    let used = chip
        .bytes()
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0xff)
        .map(|(at, _)| at)
        .collect::<Vec<_>>();
    for at in used {
        for bit in 0..8 {
            let chip = chip.copy();
            chip.flip(at, 1 << bit);
            let journal = mount(chip, AREA).expect("mounts");
            assert!(!told.boots.contains(&journal.boot()), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn another_seed_means_other_boot_numbers() {
    let boots = |seed| {
        let chip = Eeprom::new(32768);
        (0..100).map(|_| Journal::mount(chip.clone(), AREA, [0; 512], seed).expect("mounts").boot()).collect()
    };
    let (one, other): (BTreeSet<u64>, BTreeSet<u64>) = (boots(1), boots(2));
    assert_eq!((one.len(), other.len()), (100, 100));
    assert!(one.is_disjoint(&other));
}

#[test]
fn what_does_not_fit_is_refused_with_its_limit() {
    let chip = || Eeprom::new(32768);
    let mount = |area, len: usize| Journal::mount(chip(), area, vec![0; len], 0).map(drop);
    assert_eq!(mount(AREA, 319), Err(MountError::Buffer));
    assert_eq!(mount(100..32768, 320), Err(MountError::Area), "not at an erase unit");
    assert_eq!(mount(0..32768 + 64, 320), Err(MountError::Area), "beyond the end");
    let Err(MountError::TooSmall { len_min }) = mount(0..1024, 320) else { panic!("too small") };
    assert_eq!(mount(0..len_min - 64, 320), Err(MountError::TooSmall { len_min }));
    assert_eq!(mount(0..len_min, 320), Ok(()));

    let mut journal = Journal::mount(chip(), AREA, [0; 1024], 0).expect("mounts");
    journal.set_config(&[7; CONFIG_LEN_MAX]).expect("fits");
    let refused = journal.set_config(&[8; CONFIG_LEN_MAX + 1]);
    assert_eq!(refused, Err(StorageError::TooLong { len_max: CONFIG_LEN_MAX }));
    assert_eq!(journal.config(), Ok(Some(&[7; CONFIG_LEN_MAX][..])), "the old one stays");
    let mut smaller = Journal::mount(chip(), AREA, [0; 320], 0).expect("mounts");
    assert_eq!(smaller.set_config(&[7; 313]), Err(StorageError::TooLong { len_max: 312 }), "by its buffer");
    smaller.set_config(&[7; 312]).expect("fits");
    journal.set_note(&"ä".repeat(NOTE_LEN_MAX)).expect("what fits of it");
    assert_eq!(journal.note(), Ok(Some(&*"ä".repeat(NOTE_LEN_MAX / 2))));
    journal.set_note("").expect("none");
    assert_eq!(journal.note(), Ok(None));
}
