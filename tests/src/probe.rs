//! A debug probe at an emulated board: the few words of GDB's remote protocol that halt a processor, write its memory and
//! registers, and let it run on. (*Debugging with GDB*, appendix E.)

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A register of a Cortex-M, by the number that the protocol has for it.
#[derive(Clone, Copy, Debug)]
pub enum Register {
    /// The stack pointer.
    Stack = 13,
    /// The program counter.
    Program = 15,
}

/// A halted processor.
pub struct Probe(BufReader<UnixStream>);

impl Probe {
    /// Halts the processor whose debugging stub listens at `socket`.
    pub(crate) fn attach(socket: &Path) -> Result<Probe> {
        let stream = UnixStream::connect(socket).context("the board's debug port")?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut probe = Probe(BufReader::new(stream));
        let halted = probe.answer()?;
        ensure!(halted.starts_with('T'), "it did not halt: {halted}");
        // Single registers are only for those who have asked what there is.
        probe.ask("qXfer:features:read:target.xml:0,ffb")?;
        Ok(probe)
    }

    /// Writes a register.
    pub fn set(&mut self, register: Register, value: u32) -> Result<()> {
        self.order(&format!("P{:x}={}", register as u8, hex(&value.to_le_bytes())))
    }

    /// Writes memory.
    pub fn write(&mut self, address: u32, bytes: &[u8]) -> Result<()> {
        self.order(&format!("M{address:x},{:x}:{}", bytes.len(), hex(bytes)))
    }

    /// Lets it run on, and goes.
    pub fn resume(mut self) -> Result<()> {
        self.order("D")
    }

    fn order(&mut self, packet: &str) -> Result<()> {
        let answer = self.ask(packet)?;
        ensure!(answer == "OK", "{packet}: {answer:?}");
        Ok(())
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0.get_mut(), "${packet}#{sum:02x}")?;
        self.answer().with_context(|| format!("asked {packet}"))
    }

    /// The next packet: `$`, its text, `#`, a sum. What is before it acknowledges ours.
    fn answer(&mut self) -> Result<String> {
        let mut packet = Vec::new();
        self.0.read_until(b'$', &mut packet)?;
        ensure!(packet.ends_with(b"$"), "the debug port was closed");
        packet.clear();
        self.0.read_until(b'#', &mut packet)?;
        ensure!(packet.pop() == Some(b'#'), "the debug port was closed");
        self.0.read_exact(&mut [0; 2])?;
        self.0.get_mut().write_all(b"+")?;
        Ok(String::from_utf8(packet)?)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
