//! What the journal costs: bytes, writes, wear, RAM, time.

use weir_contract::body::{Body, Scalar};
use weir_contract::{Id, Text};
use weir_device::journal::Journal;
use weir_device::{Action, Config, Device, Emitted};

use crate::chip::{Chip, Eeprom, Nor};

fn config() -> Config {
    Config::new("dev-1".parse().expect("a name"))
}

fn reading(device: &mut Device<impl weir_device::Memory, 4>, now: u64) -> Emitted {
    let sensor: Id = "temperature".parse().expect("a name");
    // Every third of a degree takes all of a double.
    let value = Scalar::Float(20.0 + (now % 900) as f64 / 3.0);
    device.emit(now, &Body::ReadingTaken { sensor, value, unit: Some(Text::from("Cel")) })
}

/// The gateway takes everything at once.
fn deliver(device: &mut Device<impl weir_device::Memory, 4>, now: u64) {
    let mut buffer = [0; 1024];
    loop {
        match device.poll(now, &mut buffer) {
            Action::Wait(_) => return,
            Action::Connect => device.connected(),
            Action::Subscribe => {}
            Action::Publish(publish) => {
                let token = publish.token;
                device.acknowledged(token).expect("news");
            }
        }
    }
}

/// So many events, each delivered `batch` at a time, and boots in between; then how much the pages have been erased.
fn wear<const WRITE: usize, const ERASE: usize>(chip: &Chip<WRITE, ERASE>, events: u64, batch: u64) {
    let area = 4096..u32::try_from(embedded_storage::nor_flash::ReadNorFlash::capacity(chip)).expect("small");
    for boot in 0..events / 1000 {
        let journal = Journal::mount(chip.clone(), area.clone(), [0; 512], 1).expect("mounts");
        let mut device = Device::new(config(), journal.boot(), journal, 1);
        device.time_is(0, 1_800_000_000_000 + boot);
        for now in 0..1000 {
            assert!(matches!(reading(&mut device, now), Emitted::Kept(_)));
            if now % batch == 0 {
                deliver(&mut device, now);
            }
        }
        deliver(&mut device, 1000);
    }
}

fn ratio(erased: &[u32]) -> f64 {
    let mean = f64::from(erased.iter().sum::<u32>()) / erased.len() as f64;
    f64::from(*erased.iter().max().expect("some")) / mean
}

#[test]
fn no_place_wears_much_sooner_than_the_others() {
    for batch in [1, 16, 200] {
        let (eeprom, nor) = (Eeprom::new(32_768), Nor::new(69_632));
        wear(&eeprom, 100_000, batch);
        wear(&nor, 100_000, batch);
        let eeprom = &eeprom.erased()[4096 / 64..];
        // Some bytes at the end are no whole page.
        let used = eeprom.iter().rposition(|&erased| erased > 0).expect("some") + 1;
        let nor = &nor.erased()[1..];
        let (eeprom, nor) = (ratio(&eeprom[..used]), ratio(nor));
        println!("most erased to mean, {batch} events at once: EEPROM {eeprom:.2}, NOR flash {nor:.2}");
        assert!(eeprom < 1.5 && nor < 1.5);
    }
}

#[test]
fn an_event_costs_one_write_and_little_more_than_itself() {
    let chip = Eeprom::new(32_768);
    let journal = Journal::mount(chip.clone(), 256..32_768, [0; 512], 1).expect("mounts");
    let mut device = Device::new(config(), journal.boot(), journal, 1);
    let _ = reading(&mut device, 0);
    let before = chip.counts();
    let _ = reading(&mut device, 1);
    let after = chip.counts();
    assert_eq!(after.writes - before.writes, 1);
    let frame = after.bytes_written - before.bytes_written;

    let mut kept = 2;
    while matches!(reading(&mut device, kept), Emitted::Kept(_)) {
        kept += 1;
    }
    let full = chip.counts();
    let writes = (full.writes - before.writes) as f64 / (kept - 1) as f64;
    let erases = (full.erases - before.erases) as f64 / (kept - 1) as f64;
    let before = chip.counts();
    let journal = Journal::mount(chip.clone(), 256..32_768, [0; 512], 1).expect("mounts");
    let mounted = chip.counts();
    let (reads, bytes) = (mounted.reads - before.reads, mounted.bytes_read - before.bytes_read);
    // Each read of an I2C EEPROM has 4 bytes before its data, of 9 bits each, at 400 kHz.
    let ms = (bytes + 4 * reads) as f64 * 9.0 / 400.0;
    let ram = size_of_val(&journal);
    println!("a reading takes {frame} bytes; 32 KiB hold {kept} of them");
    println!("{writes:.2} writes and {erases:.2} erased pages of 64 bytes for an event");
    println!("mounting a full 32 KiB reads {bytes} bytes in {reads} reads: {ms:.0} ms at 400 kHz");
    println!("a journal takes {ram} bytes of RAM with a buffer of 512 (on this machine)");
    assert!(frame <= 80 && kept > 330 && writes < 1.2 && erases < 1.4 && ms < 300.0 && ram < 1400);
}
