//! The provisioning record: what makes one image of the firmware a certain device.
//!
//! Written once by `weir-provision` on somebody's PC, at a fixed place of the board's EEPROM or flash; read at every
//! power-up. It stands apart from what the device itself writes, so that neither can spoil the other.
//!
//! # Format, version 1
//!
//! [`RECORD_LEN`] bytes. Little-endian; what is not used is 0xFF, as erased memory is:
//!
//! ```text
//!  0  magic     "WEIR"
//!  4  version   u8 = 1
//!  5  reserved  u8 = 0xFF
//!  6  len       u16, bytes of the fields
//!  8  crc       u32, CRC-32 (ISO-HDLC) of bytes 0..8 and the fields
//! 12  fields    len bytes: tag u8 | len u8 | value
//! ```
//!
//! | tag | field | value |
//! |---|---|---|
//! | 1 | device | its name, 1 to 32 of `A-Z a-z 0-9 _ -`; also its MQTT client id |
//! | 2 | host | of the gateway: an IPv4 address in dotted form, or a host name of up to [`HOST_LEN_MAX`] bytes |
//! | 3 | port | u16, not 0 |
//! | 4 | password | up to [`PASSWORD_LEN_MAX`] bytes; the MQTT user name is the device's name |
//! | 5 | seed | u64: told apart are two boards that bear one name, one after the other (see [`crate::journal`]) |
//!
//! A tag stands at most once; 1, 2 and 3 must be there. Tags from 0x80 on may be skipped by who does not know them; any
//! other unknown tag makes the record unreadable, as an unknown version does: a device rather does nothing than half
//! of what it was told.

use core::fmt;
use core::net::Ipv4Addr;

use weir_contract::Id;

use crate::crc::Crc;

/// Bytes of a record, and of the place kept for it.
pub const RECORD_LEN: usize = 256;
/// The most bytes a gateway's host name can have.
pub const HOST_LEN_MAX: usize = 80;
/// The most bytes a password can have.
pub const PASSWORD_LEN_MAX: usize = 64;

const MAGIC: &[u8; 4] = b"WEIR";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 12;

const DEVICE: u8 = 1;
const HOST: u8 = 2;
const PORT: u8 = 3;
const PASSWORD: u8 = 4;
const SEED: u8 = 5;
/// From here on, a field may be skipped by who does not know it.
const OPTIONAL: u8 = 0x80;

/// Everything fits: no record that keeps the limits above is too long.
const _: () = assert!(HEAD_LEN + 5 * 2 + Id::LEN_MAX + HOST_LEN_MAX + 2 + PASSWORD_LEN_MAX + 8 <= RECORD_LEN);

/// What a device is told of itself and of its gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who it is.
    pub device: Id,
    /// Where its gateway is.
    pub host: Host<'a>,
    /// The port of the gateway's MQTT listener.
    pub port: u16,
    /// What it proves its name with, if the gateway asks for that.
    pub password: Option<&'a [u8]>,
    /// What its boot numbers are mixed with.
    pub seed: Option<u64>,
}

/// Where a gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// At this address.
    Address(Ipv4Addr),
    /// Wherever DNS says.
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// An address, if it is one, else a host name.
    ///
    /// # Errors
    /// [`RecordError::Host`] if it is neither.
    pub fn parse(text: &'a str) -> Result<Self, RecordError> {
        if let Some(address) = address(text) {
            return Ok(Self::Address(address));
        }
        // RFC 1123 §2.1: letters, digits and inner hyphens; the last label is no number, else it is a bad address.
        let label = |label: &[u8]| {
            (1..=63).contains(&label.len())
                && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && label.first() != Some(&b'-')
                && label.last() != Some(&b'-')
        };
        let mut last_is_number = false;
        let labels = text.as_bytes().split(|byte| *byte == b'.').all(|bytes| {
            last_is_number = bytes.iter().all(u8::is_ascii_digit);
            label(bytes)
        });
        if text.len() > HOST_LEN_MAX || !labels || last_is_number {
            return Err(RecordError::Host);
        }
        Ok(Self::Name(text))
    }
}

/// Four numbers with dots between them, in decimal, without leading zeros: what the standard library takes for an address
/// with the parser of all kinds of addresses, which is larger.
fn address(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut places = octets.iter_mut();
    for digits in text.as_bytes().split(|byte| *byte == b'.') {
        let octet = places.next()?;
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with(b"0")) {
            return None;
        }
        for digit in digits {
            let value = digit.checked_sub(b'0').filter(|value| *value <= 9)?;
            *octet = u8::checked_mul(*octet, 10)?.checked_add(value)?;
        }
    }
    places.next().is_none().then(|| octets.into())
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Without the password: records get logged.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("device", &self.device)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("password", &self.password.map(|_| "***"))
            .field("seed", &self.seed)
            .finish()
    }
}

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// The memory is erased: nobody has written one.
    Blank,
    /// There is something else.
    NoRecord,
    /// It is of a version that this firmware does not know.
    Version(u8),
    /// It was one: its bytes have changed, or end early.
    Corrupt,
    /// It says something that this firmware does not know and must not skip.
    UnknownField(u8),
    /// The device's name is missing, or none.
    Device,
    /// The gateway's host is missing, or none.
    Host,
    /// The gateway's port is missing, or 0.
    Port,
    /// The password is longer than [`PASSWORD_LEN_MAX`].
    Password,
    /// The seed is no 64-bit number.
    Seed,
}

impl RecordError {
    /// What is wrong, in words that a number may end. For who has no room for `core::fmt`.
    pub const fn words(self) -> (&'static str, Option<u8>) {
        let words = match self {
            Self::Blank => "the memory is blank: no provisioning record was written",
            Self::NoRecord => "there is no provisioning record (it would begin with WEIR)",
            Self::Version(version) => {
                const { assert!(VERSION == 1) };
                return ("the provisioning record is not of version 1, but of ", Some(version));
            }
            Self::Corrupt => "the provisioning record is damaged (its checksum is wrong)",
            Self::UnknownField(tag) => return ("the provisioning record has an unknown field ", Some(tag)),
            Self::Device => "device: a name is 1 to 32 of A-Z a-z 0-9 _ -",
            Self::Host => {
                const { assert!(HOST_LEN_MAX == 80) };
                "host: an IPv4 address or a host name of up to 80 bytes is needed"
            }
            Self::Port => "port: 1 to 65535 is needed",
            Self::Password => {
                const { assert!(PASSWORD_LEN_MAX == 64) };
                "password: at most 64 bytes are allowed"
            }
            Self::Seed => "seed: 8 bytes are needed",
        };
        (words, None)
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, number) = self.words();
        f.write_str(words)?;
        number.map_or(Ok(()), |number| number.fmt(f))
    }
}

impl core::error::Error for RecordError {}

impl<'a> Record<'a> {
    /// Reads the record at the beginning of `bytes`.
    ///
    /// # Errors
    /// There is none, or none that can be trusted whole.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let bytes = bytes.get(..RECORD_LEN).unwrap_or(bytes);
        if bytes.iter().all(|&byte| byte == 0xff) {
            return Err(RecordError::Blank);
        }
        let fields = fields(bytes)?;
        let (mut device, mut host, mut port, mut password, mut seed) = (None, None, None, None, None);
        let mut rest = fields;
        while let &[tag, len, ref after @ ..] = rest {
            let (value, after) = after.split_at_checked(usize::from(len)).ok_or(RecordError::Corrupt)?;
            let once = match tag {
                DEVICE => device.replace(value).is_none(),
                HOST => host.replace(value).is_none(),
                PORT => port.replace(value).is_none(),
                PASSWORD => password.replace(value).is_none(),
                SEED => seed.replace(value).is_none(),
                OPTIONAL.. => true,
                _ => return Err(RecordError::UnknownField(tag)),
            };
            if !once {
                return Err(RecordError::Corrupt);
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(RecordError::Corrupt);
        }
        let device = device.and_then(text).and_then(|name| name.parse().ok()).ok_or(RecordError::Device)?;
        let host = Host::parse(host.and_then(text).ok_or(RecordError::Host)?)?;
        let port = port.and_then(|value| Some(u16::from_le_bytes(value.try_into().ok()?)));
        let port = port.filter(|&port| port != 0).ok_or(RecordError::Port)?;
        if password.is_some_and(|password| password.len() > PASSWORD_LEN_MAX) {
            return Err(RecordError::Password);
        }
        let seed = seed.map(|value| value.try_into().map(u64::from_le_bytes).map_err(|_| RecordError::Seed));
        Ok(Self { device, host, port, password, seed: seed.transpose()? })
    }

    /// The record as bytes.
    ///
    /// # Errors
    /// What it says is not allowed: [`RecordError::Host`], [`RecordError::Port`] or [`RecordError::Password`].
    pub fn write(&self) -> Result<[u8; RECORD_LEN], RecordError> {
        let mut bytes = [0xff; RECORD_LEN];
        let mut end = HEAD_LEN;
        let mut put = |tag: u8, value: &[u8], error: RecordError| {
            let len = u8::try_from(value.len()).map_err(|_| error)?;
            let place = bytes.get_mut(end..end + 2 + value.len()).ok_or(error)?;
            place[..2].copy_from_slice(&[tag, len]);
            place[2..].copy_from_slice(value);
            end += 2 + value.len();
            Ok(())
        };
        put(DEVICE, self.device.as_bytes(), RecordError::Device)?;
        match self.host {
            Host::Address(address) => put(HOST, Dotted::new(address).as_bytes(), RecordError::Host)?,
            Host::Name(name) => {
                let Host::Name(name) = Host::parse(name)? else { return Err(RecordError::Host) };
                put(HOST, name.as_bytes(), RecordError::Host)?;
            }
        }
        if self.port == 0 {
            return Err(RecordError::Port);
        }
        put(PORT, &self.port.to_le_bytes(), RecordError::Port)?;
        if let Some(password) = self.password {
            if password.len() > PASSWORD_LEN_MAX {
                return Err(RecordError::Password);
            }
            put(PASSWORD, password, RecordError::Password)?;
        }
        if let Some(seed) = self.seed {
            put(SEED, &seed.to_le_bytes(), RecordError::Seed)?;
        }
        let len = u16::try_from(end - HEAD_LEN).map_err(|_| RecordError::Corrupt)?;
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = VERSION;
        bytes[6..8].copy_from_slice(&len.to_le_bytes());
        let crc = Crc::new().add(&bytes[..8]).add(&bytes[HEAD_LEN..end]).value();
        bytes[8..HEAD_LEN].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }
}

/// The fields of a record whose head and checksum are right.
fn fields(bytes: &[u8]) -> Result<&[u8], RecordError> {
    if !bytes.starts_with(MAGIC) {
        return Err(RecordError::NoRecord);
    }
    let (head, rest) = bytes.split_at_checked(HEAD_LEN).ok_or(RecordError::Corrupt)?;
    let len = usize::from(u16::from_le_bytes([head[6], head[7]]));
    let crc = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let fields = rest.get(..len);
    if let Some(fields) = fields
        && Crc::new().add(&head[..8]).add(fields).value() == crc
    {
        return if head[4] == VERSION { Ok(fields) } else { Err(RecordError::Version(head[4])) };
    }
    // A later version may be longer; one with a flipped bit would be taken for that, which is no harm: it is not read.
    Err(if head[4] == VERSION { RecordError::Corrupt } else { RecordError::Version(head[4]) })
}

fn text(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok()
}

/// An IPv4 address in dotted form, without an allocator.
struct Dotted(heapless::String<15>);

impl Dotted {
    fn new(address: Ipv4Addr) -> Self {
        let mut text = heapless::String::new();
        fmt::write(&mut text, format_args!("{address}")).expect("at most 15 characters");
        Self(text)
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec;

    fn record() -> Record<'static> {
        Record {
            device: "dev-1".parse().expect("a name"),
            host: Host::Address(Ipv4Addr::new(192, 168, 1, 20)),
            port: 1883,
            password: Some(b"open sesame"),
            seed: Some(0x0123_4567_89ab_cdef),
        }
    }

    /// What version 1 looks like, for ever: boards in the field have it.
    const FROZEN: &[u8] = b"WEIR\x01\xff\x30\x00\x51\xc7\x16\xb0\
        \x01\x05dev-1\x02\x0c192.168.1.20\x03\x02\x5b\x07\x04\x0bopen sesame\x05\x08\xef\xcd\xab\x89\x67\x45\x23\x01";

    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let bytes = record().write().expect("allowed");
        assert_eq!(&bytes[..FROZEN.len()], FROZEN);
        assert!(bytes[FROZEN.len()..].iter().all(|&byte| byte == 0xff));
        assert_eq!(Record::read(FROZEN), Ok(record()));
    }

    #[test]
    fn what_is_written_is_read_also_at_the_limits() {
        let host = vec!["a.b-c"; 13].join(".");
        let largest = Record {
            device: "d".repeat(32).parse().expect("a name"),
            host: Host::parse(&host).expect("a host name"),
            port: u16::MAX,
            password: Some(&[0xff; PASSWORD_LEN_MAX]),
            seed: Some(u64::MAX),
        };
        let smallest = Record { password: None, seed: None, port: 1, ..record() };
        for record in [largest, smallest, record()] {
            let bytes = record.write().expect("allowed");
            assert_eq!(Record::read(&bytes), Ok(record));
            let mut memory = bytes.to_vec();
            memory.extend([0x5a; 1000]);
            assert_eq!(Record::read(&memory), Ok(record), "whatever stands after it");
        }
    }

    #[test]
    fn no_damage_of_one_byte_is_read() {
        let bytes = record().write().expect("allowed");
        for place in 0..FROZEN.len() {
            for flip in 1..=u8::MAX {
                let mut bytes = bytes;
                bytes[place] ^= flip;
                assert!(Record::read(&bytes).is_err(), "byte {place} ^ {flip:#x}");
            }
            assert!(Record::read(&bytes[..place]).is_err(), "ends after {place} bytes");
        }
    }

    #[test]
    fn blank_foreign_and_later_memory_are_told_apart() {
        assert_eq!(Record::read(&[0xff; 512]), Err(RecordError::Blank));
        assert_eq!(Record::read(&[]), Err(RecordError::Blank));
        assert_eq!(Record::read(&[0; 512]), Err(RecordError::NoRecord));
        let later = signed(2, &[]);
        assert_eq!(Record::read(&later), Err(RecordError::Version(2)));
        assert!(RecordError::Version(2).to_string().ends_with("not of version 1, but of 2"));
    }

    #[test]
    fn later_fields_are_skipped_only_if_they_may_be() {
        let known = b"\x01\x01d\x02\x01g\x03\x02\x01\x00";
        let with = |more: &[u8]| [&known[..], more].concat();
        let read = |fields: &[u8]| Record::read(&signed(1, fields)).map(drop);
        assert!(read(&with(b"\x80\x03abc")).is_ok());
        assert_eq!(read(&with(b"\x06\x00")), Err(RecordError::UnknownField(6)));
        assert_eq!(read(&with(b"\x03\x02\x01\x00")), Err(RecordError::Corrupt), "twice");
        assert_eq!(read(&with(b"\x80")), Err(RecordError::Corrupt), "no length");
        assert_eq!(read(&with(b"\x80\x02a")), Err(RecordError::Corrupt), "too short");
        assert_eq!(read(&with(b"\x05\x01a")), Err(RecordError::Seed));
        assert_eq!(read(&known[3..]), Err(RecordError::Device));
        assert_eq!(read(b"\x01\x01d\x03\x02\x01\x00"), Err(RecordError::Host));
        assert_eq!(read(b"\x01\x01d\x02\x01g\x03\x02\x00\x00"), Err(RecordError::Port));
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        assert_eq!(Host::parse("10.0.2.2"), Ok(Host::Address(Ipv4Addr::new(10, 0, 2, 2))));
        for name in ["gateway", "gw-1.local", "a.example.org", "3com.example"] {
            assert_eq!(Host::parse(name), Ok(Host::Name(name)));
        }
        let long = "a".repeat(HOST_LEN_MAX + 1);
        for bad in
            ["", ".", "a..b", "-a", "a-", "10.0.0", "10.0.0.256", "1", "gw:1883", "gw/x", "gw ", "é", &long]
        {
            assert_eq!(Host::parse(bad), Err(RecordError::Host), "{bad:?}");
            assert_eq!(
                Record { host: Host::Name(bad), ..record() }.write(),
                Err(RecordError::Host),
                "{bad:?}"
            );
        }
        assert_eq!(Record { port: 0, ..record() }.write(), Err(RecordError::Port));
        assert_eq!(Record { password: Some(&[1; 65]), ..record() }.write(), Err(RecordError::Password));
    }

    #[test]
    fn a_record_in_a_log_does_not_tell_its_password() {
        assert!(!std::format!("{:?}", record()).contains("sesame"));
    }

    /// A record of any version with any fields and the right checksum.
    fn signed(version: u8, fields: &[u8]) -> vec::Vec<u8> {
        let mut head = *b"WEIR\0\xff\0\0";
        head[4] = version;
        head[6..].copy_from_slice(&u16::try_from(fields.len()).expect("short").to_le_bytes());
        let crc = Crc::new().add(&head).add(fields).value();
        [&head[..], &crc.to_le_bytes(), fields].concat()
    }
}
