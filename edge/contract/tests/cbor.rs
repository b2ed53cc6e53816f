//! Our reader and writer of CBOR against an independent one: they take the same bytes, for the same values.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;
use weir_contract::NESTING_MAX;
use weir_contract::cbor::{Reader, Writer};

use crate::hostile::{frozen_bytes, hex, hostile};
use crate::support::{cbor, seed};

const INPUTS: usize = 500_000;
const NUMBERS: usize = 200_000;

#[test]
fn what_is_skipped_is_what_an_independent_reader_finds_well_formed() {
    let corpus = frozen_bytes();
    let mut random = fastrand::Rng::with_seed(seed());
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..INPUTS {
        let input = hostile(&corpus, &mut random);
        let mut theirs = Decoder::new(&input);
        let found = skip(&mut theirs, NESTING_MAX).map(|()| theirs.position());
        let mut ours = Reader::new(&input);
        match (ours.skip(), found) {
            (Ok(()), Ok(len)) => {
                // Nothing tells where our reader is, but what it reads next.
                let rest = Reader::new(&input[len..]).skip().is_ok();
                assert_eq!(ours.skip().is_ok(), rest, "not {len} bytes skipped of {}", hex(&input));
                taken += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (ours, theirs) => panic!("{ours:?}, but {theirs:?} at {}", hex(&input)),
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > INPUTS / 100 && refused > INPUTS / 100, "too few of one kind");
}

#[test]
fn every_beginning_of_an_item_is_taken_or_refused_as_by_an_independent_reader() {
    for [first, second] in (0..=u16::MAX).map(u16::to_be_bytes) {
        // As much as the longest of these heads may ask for; a break ends what has no length.
        for after in [0x00, 0x61, 0xFF] {
            let mut input = [after; 300];
            input[..2].copy_from_slice(&[first, second]);
            input[299] = 0xFF;
            let (ours, theirs) = (Reader::new(&input).skip(), skip(&mut Decoder::new(&input), NESTING_MAX));
            assert_eq!(
                ours.is_ok(),
                theirs.is_ok(),
                "{first:02x} {second:02x} {after:02x}: {ours:?}, {theirs:?}"
            );
        }
    }
}

#[test]
fn every_half_float_is_read_as_the_value_it_is() {
    for bits in 0..=u16::MAX {
        let [high, low] = bits.to_be_bytes();
        let item = [0xF9, high, low];
        let theirs = f64::from(Decoder::new(&item).f16().expect("a half float"));
        same(Reader::new(&item).f64("a number").expect("a half float"), theirs);
    }
}

#[test]
fn floats_and_integers_are_read_and_written_as_others_do() {
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..NUMBERS {
        // Singles and doubles of any bits; and such as end in so many zeros that a shorter form may do.
        let single = f32::from_bits(random.u32(..) & u32::MAX << random.u32(0..32));
        let double = f64::from_bits(random.u64(..) & u64::MAX << random.u32(0..64));
        for value in
            [f64::from(single), double, f64::from(random.i16(..)) / 8.0, 2.0_f64.powi(random.i32(-160..160))]
        {
            let mut buffer = [0; 9];
            let len = Writer::new(&mut buffer).float(value).end().expect("room");
            let item = &buffer[..len];
            same(Decoder::new(item).f64().expect("a float"), value);
            same(Reader::new(item).f64("a number").expect("a float"), value);
            if !value.is_nan() {
                assert_eq!(item, cbor(&ciborium::Value::Float(value)), "{value:e}");
            }
        }
        let int = random.u64(..) >> random.u32(0..64);
        for int in [i128::from(int), -1 - i128::from(int)] {
            let item = cbor(&ciborium::Value::Integer(int.try_into().expect("64 bits and a sign")));
            #[expect(clippy::cast_precision_loss, reason = "rounded, as ours is")]
            same(Reader::new(&item).f64("a number").expect("an integer"), int as f64);
            if let Ok(int) = i64::try_from(int) {
                let mut buffer = [0; 9];
                let len = Writer::new(&mut buffer).i64(int).end().expect("room");
                assert_eq!(buffer[..len], item, "{int}");
            }
        }
    }
}

fn same(ours: f64, theirs: f64) {
    assert!(
        ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
        "{ours:e}, not {theirs:e}"
    );
}

/// Skips an item with minicbor, and with the limits that the contract has.
fn skip(d: &mut Decoder<'_>, levels_left: usize) -> Result<(), Error> {
    let refused = || Error::message("refused");
    let first = d.input().get(d.position()).copied();
    match d.datatype()? {
        Type::Unknown(_) | Type::Break => return Err(refused()),
        Type::Bytes | Type::BytesIndef => d.bytes_iter()?.try_for_each(|chunk| chunk.map(drop))?,
        Type::String | Type::StringIndef => d.str_iter()?.try_for_each(|chunk| chunk.map(drop))?,
        Type::Bool => d.bool().map(drop)?,
        Type::Null => d.null()?,
        Type::Undefined => d.undefined()?,
        Type::F16 | Type::F32 | Type::F64 => d.f64().map(drop)?,
        Type::Simple => {
            if d.simple()? < 32 && first == Some(0xF8) {
                return Err(refused());
            }
        }
        container @ (Type::Array | Type::ArrayIndef | Type::Map | Type::MapIndef | Type::Tag) => {
            let levels_left = levels_left.checked_sub(1).ok_or_else(refused)?;
            let (len, each) = match container {
                Type::Tag => (d.tag().map(|_| Some(1))?, 1),
                Type::Array | Type::ArrayIndef => (d.array()?, 1),
                _ => (d.map()?, 2),
            };
            let mut left = len;
            loop {
                match &mut left {
                    Some(0) => break,
                    Some(left) => *left -= 1,
                    None if d.datatype()? == Type::Break => {
                        d.set_position(d.position() + 1);
                        break;
                    }
                    None => {}
                }
                for _ in 0..each {
                    skip(d, levels_left)?;
                }
            }
        }
        _ => d.int().map(drop)?,
    }
    Ok(())
}
