use super::*;
use weir_contract::segment::{first_entry, write_entry};

const NOW_MS: u64 = 1_800_000_000_000;

fn entry(text: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    write_entry(&mut entry, &"d1".parse().expect("a name"), NOW_MS, None, text.as_bytes());
    entry
}

fn append(writer: &mut Writer, texts: &[&str]) -> u64 {
    let entries: Vec<u8> = texts.iter().flat_map(|text| entry(text)).collect();
    let count = u32::try_from(texts.len()).expect("few");
    writer.append([NewRecord { count, received_ms: NOW_MS, entries: &entries }]).expect("stored")
}

/// All payloads from a number on.
fn read_all(spool: &Spool, mut number: u64) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    loop {
        let records = spool.read_from(number, 100_000).expect("readable");
        if records.is_empty() {
            return all;
        }
        for record in records {
            let mut rest = record.part_from(number).expect("it holds the number").entries;
            while !rest.is_empty() {
                let (entry, len) = first_entry(&rest).expect("an entry");
                all.push((number, String::from_utf8(entry.payload.into_owned()).expect("text")));
                number += 1;
                rest = rest.slice(len..);
            }
        }
    }
}

#[test]
fn a_restart_continues_the_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::new(folder.path().join("spool"));
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let incarnation = spool.incarnation();
    assert_eq!(append(&mut writer, &["a", "b"]), 3);
    assert_eq!(append(&mut writer, &["c"]), 4);
    writer.close();
    drop(spool);
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens again");
    assert_eq!(spool.incarnation(), incarnation);
    assert_eq!(spool.next_number(), 4);
    assert_eq!(append(&mut writer, &["d"]), 5);
    let texts: Vec<_> = read_all(&spool, 1);
    let expected: Vec<_> = (1..).zip(["a", "b", "c", "d"].map(str::to_owned)).collect();
    assert_eq!(texts, expected);
}
