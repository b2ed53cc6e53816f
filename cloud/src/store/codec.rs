//! What is known of a boot, and sets of numbers, as bytes for a column: CBOR arrays.
//!
//! The format may change with [`super::schema::VERSION`]: a store of another version is rebuilt from the log, not misread.

use minicbor::data::Type;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};
use weir_contract::Id;
use weir_contract::body::Outcome;

use super::types::{Place, Value};
use crate::projection::beginning::Beginning;
use crate::projection::boot::{Boot, clock_code, clock_of};
use crate::projection::registers::{
    Answered, Applied, COMMANDS_MAX, Crossed, Latest, Read, Registers, SENSORS_MAX, Stamp, Started, Told,
};
use crate::projection::runs::{Number, Runs};

/// A column does not hold what was once written to it.
#[derive(Debug, thiserror::Error)]
#[error("a column holds bytes that were not written by this version: {0}")]
pub struct Damaged(String);

impl Damaged {
    pub(super) fn new(what: String) -> Self {
        Damaged(what)
    }
}

impl From<minicbor::decode::Error> for Damaged {
    fn from(error: minicbor::decode::Error) -> Self {
        Damaged(error.to_string())
    }
}

fn damaged(what: &str) -> Damaged {
    Damaged(what.to_owned())
}

type Written<W> = Result<(), EncodeError<<W as Write>::Error>>;

/// Replaces `out` by the bytes of `boot`.
pub fn write_boot(out: &mut Vec<u8>, boot: &Boot) {
    out.clear();
    let mut e = Encoder::new(out);
    write_boot_into(&mut e, boot).expect("a vector takes everything");
}

fn write_boot_into<W: Write>(e: &mut Encoder<W>, boot: &Boot) -> Written<W> {
    e.array(7)?;
    let beginning = &boot.beginning;
    e.array(4)?;
    e.encode(beginning.device_ms)?.encode(beginning.gateway_ms)?.encode(beginning.received_ms)?;
    e.encode(&beginning.vias)?;
    write_runs_into(e, &boot.stored)?;
    write_runs_into(e, &boot.lost)?;
    e.u64(boot.duplicates)?;
    e.encode(boot.span_ms)?;
    match &boot.heard {
        Some((ms, place)) => e.array(3)?.u64(*ms)?.str(&place.site)?.str(&place.gateway)?.ok()?,
        None => e.null()?.ok()?,
    }
    write_registers(e, &boot.registers)
}

fn write_registers<W: Write>(e: &mut Encoder<W>, registers: &Registers) -> Written<W> {
    e.array(5)?;
    match &registers.started {
        Some(told) => {
            write_stamp(e.array(4)?, told.stamp)?;
            e.str(&told.what.fw)?.str(&told.what.hw)?.str(&told.what.reason)?;
        }
        None => e.null()?.ok()?,
    }
    e.array(registers.readings.iter().len() as u64)?;
    for (sensor, told) in registers.readings.iter() {
        write_stamp(e.array(4)?.str(sensor)?, told.stamp)?;
        match &told.what.value {
            Value::Int(int) => e.i64(*int)?,
            Value::Float(float) => e.f64(*float)?,
            Value::Bool(bool) => e.bool(*bool)?,
            Value::Text(text) => e.str(text)?,
        };
        e.encode(told.what.unit.as_deref())?;
    }
    e.array(registers.limits.iter().len() as u64)?;
    for (sensor, told) in registers.limits.iter() {
        write_stamp(e.array(5)?.str(sensor)?, told.stamp)?;
        e.f64(told.what.value)?.f64(told.what.limit)?.bool(told.what.rising)?;
    }
    match &registers.config {
        Some(told) => {
            write_stamp(e.array(3)?, told.stamp)?;
            e.u64(told.what.revision)?.bytes(&told.what.config)?;
        }
        None => e.null()?.ok()?,
    }
    e.array(registers.commands.iter().len() as u64)?;
    for (id, told) in registers.commands.iter() {
        write_stamp(e.array(5)?.str(id)?, told.stamp)?;
        e.u8(outcome_code(told.what.outcome))?.encode(told.what.reason.as_deref())?;
        match &told.what.result {
            Some(result) => e.bytes(result)?,
            None => e.null()?,
        };
    }
    Ok(())
}

fn write_stamp<W: Write>(e: &mut Encoder<W>, stamp: Stamp) -> Written<W> {
    e.array(3)?.u32(stamp.seq)?.u64(stamp.at_ms)?.u8(clock_code(stamp.clock))?.ok()
}

/// What [`write_boot`] wrote.
///
/// # Errors
/// [`Damaged`] if it is something else.
pub fn read_boot(bytes: &[u8]) -> Result<Boot, Damaged> {
    let d = &mut Decoder::new(bytes);
    d.array()?;
    let beginning = read_beginning(d)?;
    let (stored, lost, duplicates) = (read_runs_from(d)?, read_runs_from(d)?, d.u64()?);
    let span_ms = d.decode()?;
    let heard = optional(d, |d| {
        d.array()?;
        Ok((d.u64()?, Place { site: id(d)?, gateway: id(d)? }))
    })?;
    let registers = read_registers(d)?;
    Ok(Boot { beginning, stored, lost, later: Runs::new(), duplicates, span_ms, heard, registers })
}

/// When a boot began, and the wall times of its earliest and latest event: the part of [`read_boot`] that places it among
/// others.
///
/// # Errors
/// [`Damaged`] if it is something else than [`write_boot`] wrote.
pub fn read_span(bytes: &[u8]) -> Result<(Beginning, Option<(u64, u64)>), Damaged> {
    let d = &mut Decoder::new(bytes);
    d.array()?;
    let beginning = read_beginning(d)?;
    for _stored_lost_duplicates in 0..3 {
        d.skip()?;
    }
    Ok((beginning, d.decode()?))
}

fn read_beginning(d: &mut Decoder<'_>) -> Result<Beginning, Damaged> {
    d.array()?;
    Ok(Beginning {
        device_ms: d.decode()?,
        gateway_ms: d.decode()?,
        received_ms: d.decode()?,
        vias: d.decode()?,
    })
}

fn read_registers(d: &mut Decoder<'_>) -> Result<Registers, Damaged> {
    d.array()?;
    let started = optional(d, |d| {
        d.array()?;
        let stamp = read_stamp(d)?;
        Ok(Told {
            stamp,
            what: Started { fw: d.str()?.into(), hw: d.str()?.into(), reason: d.str()?.into() },
        })
    })?;
    let readings = latest(d, SENSORS_MAX, |d| {
        let (sensor, stamp) = (id(d)?, read_stamp(d)?);
        let value = match d.datatype()? {
            Type::F64 => Value::Float(d.f64()?),
            Type::Bool => Value::Bool(d.bool()?),
            Type::String => Value::Text(d.str()?.to_owned()),
            _ => Value::Int(d.i64()?),
        };
        let unit = d.decode::<Option<&str>>()?.map(Into::into);
        Ok((sensor, Told { stamp, what: Read { value, unit } }))
    })?;
    let limits = latest(d, SENSORS_MAX, |d| {
        let (sensor, stamp) = (id(d)?, read_stamp(d)?);
        Ok((sensor, Told { stamp, what: Crossed { value: d.f64()?, limit: d.f64()?, rising: d.bool()? } }))
    })?;
    let config = optional(d, |d| {
        d.array()?;
        let stamp = read_stamp(d)?;
        Ok(Told { stamp, what: Applied { revision: d.u64()?, config: d.bytes()?.into() } })
    })?;
    let commands = latest(d, COMMANDS_MAX, |d| {
        let (id, stamp) = (d.str()?.into(), read_stamp(d)?);
        let outcome = outcome_of(d.u8()?).ok_or_else(|| damaged("a command's outcome"))?;
        let reason = d.decode::<Option<&str>>()?.map(Into::into);
        let result = optional(d, |d| Ok(d.bytes()?.into()))?;
        Ok((id, Told { stamp, what: Answered { outcome, reason, result } }))
    })?;
    Ok(Registers { started, readings, limits, config, commands })
}

fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, Damaged>,
) -> Result<Option<T>, Damaged> {
    if d.datatype()? == Type::Null {
        d.skip()?;
        return Ok(None);
    }
    read(d).map(Some)
}

fn latest<'b, K: Ord, T>(
    d: &mut Decoder<'b>,
    keys_max: usize,
    read: impl Fn(&mut Decoder<'b>) -> Result<(K, Told<T>), Damaged>,
) -> Result<Latest<K, T>, Damaged> {
    let mut latest = Latest::default();
    for _ in 0..d.array()?.unwrap_or(0) {
        d.array()?;
        let (key, told) = read(d)?;
        latest.tell(keys_max, key, told);
    }
    Ok(latest)
}

fn id(d: &mut Decoder<'_>) -> Result<Id, Damaged> {
    d.str()?.parse().map_err(|bad| Damaged(format!("{bad}")))
}

fn read_stamp(d: &mut Decoder<'_>) -> Result<Stamp, Damaged> {
    d.array()?;
    let (seq, at_ms) = (d.u32()?, d.u64()?);
    Ok(Stamp { seq, at_ms, clock: clock_of(d.u8()?).ok_or_else(|| damaged("a clock"))? })
}

fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Accepted => 0,
        Outcome::Completed => 1,
        Outcome::Failed => 2,
    }
}

fn outcome_of(code: u8) -> Option<Outcome> {
    [Outcome::Accepted, Outcome::Completed, Outcome::Failed]
        .into_iter()
        .find(|outcome| outcome_code(*outcome) == code)
}

/// The bytes of a set of numbers.
pub fn write_runs<N: Number>(runs: &Runs<N>) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    write_runs_into(&mut e, runs).expect("a vector takes everything");
    e.into_writer()
}

/// Alternately how many numbers are left out and how many follow, less one: small numbers, whatever the numbers are.
fn write_runs_into<N: Number, W: Write>(e: &mut Encoder<W>, runs: &Runs<N>) -> Written<W> {
    e.array(2 * runs.ranges().len() as u64)?;
    let mut last = 0;
    for &(from, to) in runs.ranges() {
        let (from, to) = (from.into(), to.into());
        e.u64(from - last)?.u64(to - from)?;
        last = to;
    }
    Ok(())
}

/// What [`write_runs`] wrote.
///
/// # Errors
/// [`Damaged`] if it is something else.
pub fn read_runs<N: Number + TryFrom<u64>>(bytes: &[u8]) -> Result<Runs<N>, Damaged> {
    read_runs_from(&mut Decoder::new(bytes))
}

fn read_runs_from<N: Number + TryFrom<u64>>(d: &mut Decoder<'_>) -> Result<Runs<N>, Damaged> {
    let mut last = 0_u64;
    (0..d.array()?.unwrap_or(0) / 2)
        .map(|_| {
            let from = last.checked_add(d.u64()?);
            let to = from.and_then(|from| from.checked_add(d.u64().ok()?));
            last = to.unwrap_or(u64::MAX);
            let number = |number: Option<u64>| number.and_then(|number| N::try_from(number).ok());
            number(from).zip(number(to)).ok_or_else(|| damaged("a range of numbers"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_contract::time::Clock;

    #[test]
    fn what_is_read_is_what_was_written() {
        let stamp = |seq| Stamp { seq, at_ms: 1_700_000_000_000 + u64::from(seq), clock: Clock::Gateway };
        let id = |name: &str| name.parse::<Id>().expect("a name");
        let mut boot = Boot {
            beginning: Beginning {
                device_ms: Some((7, 2)),
                gateway_ms: Some(3),
                received_ms: Some(9),
                vias: vec![1, u64::MAX],
            },
            stored: [(1, 7), (9, 9), (u32::MAX - 1, u32::MAX)].into_iter().collect(),
            lost: [(8, 8)].into_iter().collect(),
            later: Runs::new(),
            duplicates: 4,
            span_ms: Some((5, 6)),
            heard: Some((77, Place { site: id("s"), gateway: id("gw-1") })),
            registers: Registers::default(),
        };
        let values = [
            Value::Int(-3),
            Value::Float(0.1),
            Value::Float(f64::INFINITY),
            Value::Bool(true),
            Value::Text("ü".into()),
        ];
        for (seq, value) in (1..).zip(values) {
            let what = Read { value, unit: (seq % 2 == 0).then(|| "Cel".into()) };
            boot.registers.readings.tell(
                SENSORS_MAX,
                id(&format!("s{seq}")),
                Told { stamp: stamp(seq), what },
            );
        }
        let what = Crossed { value: 1.5, limit: 1.0, rising: true };
        boot.registers.limits.tell(SENSORS_MAX, id("s1"), Told { stamp: stamp(6), what });
        let what = Started { fw: "1".into(), hw: "2".into(), reason: "3".into() };
        boot.registers.started = Some(Told { stamp: stamp(7), what });
        let what = Applied { revision: 2, config: [0xa0].into() };
        boot.registers.config = Some(Told { stamp: stamp(8), what });
        for (seq, result) in [(9, None), (10, Some([1_u8].into()))] {
            let what =
                Answered { outcome: Outcome::Failed, reason: result.is_none().then(|| "no".into()), result };
            boot.registers.commands.tell(
                COMMANDS_MAX,
                format!("c{seq}").into(),
                Told { stamp: stamp(seq), what },
            );
        }
        for boot in [boot, Boot::default()] {
            let mut bytes = Vec::new();
            write_boot(&mut bytes, &boot);
            assert_eq!(read_boot(&bytes).expect("own bytes"), boot);
            let (beginning, span_ms) = read_span(&bytes).expect("own bytes");
            assert_eq!((beginning, span_ms), (boot.beginning, boot.span_ms));
            for len in 0..bytes.len() {
                read_boot(&bytes[..len]).expect_err("a part is not the whole");
            }
        }
    }

    #[test]
    fn numbers_up_to_the_greatest_are_kept() {
        let runs: Runs<u64> = [(1, 5), (7, 7), (u64::MAX - 3, u64::MAX)].into_iter().collect();
        assert_eq!(read_runs::<u64>(&write_runs(&runs)).expect("own bytes"), runs);
        read_runs::<u32>(&write_runs(&runs)).expect_err("not 32 bits");
    }
}
