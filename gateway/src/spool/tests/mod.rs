mod holding;

use weir_contract::segment::{first_entry, write_entry};

use super::{NewRecord, Spool, Writer};

/// Some moment.
const NOW_MS: u64 = 1_800_000_000_000;

fn entry(text: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    write_entry(&mut entry, &"d1".parse().expect("a name"), NOW_MS, None, text.as_bytes());
    entry
}

/// Stores a record; gives the number after it.
pub(crate) fn append(writer: &mut Writer, texts: &[&str]) -> u64 {
    let entries: Vec<u8> = texts.iter().flat_map(|text| entry(text)).collect();
    let count = u32::try_from(texts.len()).expect("few");
    writer.append([NewRecord { count, received_ms: NOW_MS, entries: &entries }]).expect("stored")
}

/// All payloads from a number on, which must be there without a hole.
pub(crate) fn read_all(spool: &Spool, mut number: u64) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let records = spool.read_from(number, 100_000).expect("readable");
        if records.is_empty() {
            return all;
        }
        for record in records {
            let mut rest = record.part_from(number).expect("it holds the number").entries;
            number = record.end();
            while !rest.is_empty() {
                let (entry, len) = first_entry(&rest).expect("an entry");
                all.push(String::from_utf8(entry.payload.into_owned()).expect("text"));
                rest = rest.slice(len..);
            }
        }
    }
}
