//! Files that carry bytes to a place in a board's memory: plain, Intel HEX, UF2.

use std::fmt::Write as _;

use clap::ValueEnum;

/// How a file says where its bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The bytes, nothing else.
    Bin,
    /// Intel HEX: for programmers (`probe-rs download --binary-format hex`, STM32CubeProgrammer …).
    Hex,
    /// UF2: for boards that show up as a USB drive (RP2040 and others).
    Uf2,
}

/// Why a file is none of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Intel HEX.
    #[error("line {line} is no Intel HEX (`:`, bytes as hexadecimal digits, a sum that fits)")]
    Hex {
        /// From 1.
        line: usize,
    },
    /// UF2.
    #[error("block {block} is no UF2 (512 bytes between its magic numbers)")]
    Uf2 {
        /// From 0.
        block: usize,
    },
}

const HEX_LINE_LEN: usize = 16;

const UF2_BLOCK_LEN: usize = 512;
const UF2_DATA_LEN: usize = 256;
const UF2_START: u32 = 0x0A32_4655;
const UF2_SECOND: u32 = 0x9E5D_5157;
const UF2_END: u32 = 0x0AB1_6F30;
/// The field after the count of blocks is a family.
const UF2_HAS_FAMILY: u32 = 0x2000;
/// Family of the RP2040 (uf2families.json of microsoft/uf2).
pub const UF2_RP2040: u32 = 0xE48B_FF56;

/// `bytes` at `address` as Intel HEX (Intel, *Hexadecimal Object File Format Specification*, 1988).
pub fn hex(address: u32, bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut line = |offset: u16, kind: u8, bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).expect("at most 16");
        let [high, low] = offset.to_be_bytes();
        let mut sum = 0_u8;
        text.push(':');
        for byte in [len, high, low, kind].iter().chain(bytes) {
            sum = sum.wrapping_add(*byte);
            write!(text, "{byte:02X}").expect("into a string");
        }
        writeln!(text, "{:02X}", sum.wrapping_neg()).expect("into a string");
    };
    let mut upper = None;
    let mut at = address;
    let mut rest = bytes;
    while !rest.is_empty() {
        let [a, b, c, d] = at.to_be_bytes();
        if upper != Some([a, b]) {
            upper = Some([a, b]);
            line(0, 4, &[a, b]);
        }
        // No line goes over a 64 KiB bound.
        let room = 0x1_0000 - usize::from(u16::from_be_bytes([c, d]));
        let (now, later) = rest.split_at(rest.len().min(HEX_LINE_LEN).min(room));
        line(u16::from_be_bytes([c, d]), 0, now);
        at = at.wrapping_add(u32::try_from(now.len()).expect("at most 16"));
        rest = later;
    }
    line(0, 1, &[]);
    text
}

/// `bytes` at `address` as UF2 (microsoft/uf2): blocks of 256 bytes, the last one filled with 0xFF.
pub fn uf2(address: u32, bytes: &[u8], family: u32) -> Vec<u8> {
    let chunks = bytes.chunks(UF2_DATA_LEN);
    let blocks = u32::try_from(chunks.len()).expect("a short file");
    let mut file = Vec::new();
    for (number, chunk) in (0..).zip(chunks) {
        let mut block = Vec::with_capacity(UF2_BLOCK_LEN);
        let at = address.wrapping_add(number * 256);
        for field in [UF2_START, UF2_SECOND, UF2_HAS_FAMILY, at, 256, number, blocks, family] {
            block.extend(field.to_le_bytes());
        }
        block.extend(chunk);
        block.resize(32 + UF2_DATA_LEN, 0xff);
        block.resize(UF2_BLOCK_LEN - 4, 0);
        block.extend(UF2_END.to_le_bytes());
        file.extend(block);
    }
    file
}

/// The bytes of a file and the address of the first of them, whatever format it is in. Places that a file leaves out
/// between its pieces end it.
///
/// # Errors
/// It begins like one of the formats, and is none.
pub fn parse(file: &[u8]) -> Result<(Format, u32, Vec<u8>), BadFile> {
    if file.starts_with(&UF2_START.to_le_bytes()) {
        let (address, bytes) = joined(parse_uf2(file)?);
        return Ok((Format::Uf2, address, bytes));
    }
    if file.first() == Some(&b':') {
        let (address, bytes) = joined(parse_hex(file)?);
        return Ok((Format::Hex, address, bytes));
    }
    Ok((Format::Bin, 0, file.to_vec()))
}

/// Pieces that follow one another, from the lowest address on.
fn joined(mut pieces: Vec<(u32, Vec<u8>)>) -> (u32, Vec<u8>) {
    pieces.sort_by_key(|piece| piece.0);
    let mut pieces = pieces.into_iter();
    let (address, mut bytes) = pieces.next().unwrap_or_default();
    for (at, piece) in pieces {
        if u64::from(at) != u64::from(address) + bytes.len() as u64 {
            break;
        }
        bytes.extend(piece);
    }
    (address, bytes)
}

fn parse_uf2(file: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, BadFile> {
    let piece = |(block, bytes): (usize, &[u8])| {
        let bad = BadFile::Uf2 { block };
        let field = |at: usize| {
            let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
            field.map(u32::from_le_bytes).ok_or(bad)
        };
        if (field(0)?, field(4)?, field(UF2_BLOCK_LEN - 4)?) != (UF2_START, UF2_SECOND, UF2_END) {
            return Err(bad);
        }
        let len = usize::try_from(field(16)?).unwrap_or(usize::MAX).min(476);
        Ok((field(12)?, bytes[32..32 + len].to_vec()))
    };
    file.chunks(UF2_BLOCK_LEN).enumerate().map(piece).collect()
}

fn parse_hex(file: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, BadFile> {
    let mut pieces = Vec::new();
    let mut base = 0;
    let lines = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    for (line, text) in (1..).zip(lines).filter(|(_, text)| !text.is_empty()) {
        let bad = BadFile::Hex { line };
        let bytes = hex_bytes(text).ok_or(bad)?;
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let [len, high, low, kind, data @ .., _] = &bytes[..] else { return Err(bad) };
        if sum != 0 || data.len() != usize::from(*len) {
            return Err(bad);
        }
        let offset = u32::from(u16::from_be_bytes([*high, *low]));
        match (kind, data) {
            (0, data) => pieces.push((base + offset, data.to_vec())),
            (1, []) => break,
            (2, [high, low]) => base = u32::from(u16::from_be_bytes([*high, *low])) << 4,
            (4, [high, low]) => base = u32::from(u16::from_be_bytes([*high, *low])) << 16,
            // Where a program starts.
            (3 | 5, _) => {}
            _ => return Err(bad),
        }
    }
    Ok(pieces)
}

fn hex_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(b":")?;
    let pair = |pair: &[u8]| match pair {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
        }
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_as_in_the_specification() {
        let bytes: Vec<u8> = (0..20).collect();
        let text = hex(0x0800_FFF8, &bytes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                ":020000040800F2",
                ":08FFF8000001020304050607E5",
                ":020000040801F1",
                ":0C00000008090A0B0C0D0E0F1011121352",
                ":00000001FF"
            ]
        );
        assert_eq!(parse(text.as_bytes()), Ok((Format::Hex, 0x0800_FFF8, bytes)));
    }

    #[test]
    fn uf2_is_as_in_the_specification() {
        let bytes: Vec<u8> = (0..=255).chain(0..44).collect();
        let file = uf2(0x101F_F000, &bytes, UF2_RP2040);
        assert_eq!(file.len(), 1024);
        assert_eq!(&file[..8], b"UF2\n\x57\x51\x5d\x9e");
        assert_eq!(file[12..16], 0x101F_F000_u32.to_le_bytes());
        assert_eq!(file[20..28], [0, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(file[28..32], 0xE48B_FF56_u32.to_le_bytes());
        assert_eq!(file[512 + 12..512 + 16], 0x101F_F100_u32.to_le_bytes());
        assert_eq!(file[1020..], 0x0AB1_6F30_u32.to_le_bytes());
        let (format, address, read) = parse(&file).expect("a good file");
        assert_eq!((format, address, &read[..300]), (Format::Uf2, 0x101F_F000, &bytes[..]));
        assert!(read[300..].iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn what_is_broken_is_told_by_its_place() {
        let text = hex(0, &[1, 2, 3]);
        let broken = text.replace("010203", "010303");
        assert_eq!(parse(broken.as_bytes()), Err(BadFile::Hex { line: 2 }));
        assert_eq!(parse(b":0"), Err(BadFile::Hex { line: 1 }));
        assert_eq!(parse(b":zz\n"), Err(BadFile::Hex { line: 1 }));
        let mut file = uf2(0, &[0; 300], UF2_RP2040);
        file[1023] = 0;
        assert_eq!(parse(&file), Err(BadFile::Uf2 { block: 1 }));
        assert_eq!(parse(&file[..600]), Err(BadFile::Uf2 { block: 1 }));
    }
}
