//! A command to a device: the payload of `weir/1/{device}/commands`, `[id, name, deadline, args]`.

use crate::Text;
use crate::cbor::{Malformed, NoRoom, Reader, Writer};

/// The most bytes a command may have: what a device must be able to receive. A gateway refuses longer ones.
pub const COMMAND_LEN_MAX: usize = 1024;
/// The most bytes of a command's id. A gateway refuses longer ones.
pub const COMMAND_ID_LEN_MAX: usize = 64;

/// Something a device is asked to do, once, before its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// Names it for ever: a device that sees the same id again does not do it again.
    pub id: Text<'a>,
    /// What to do.
    pub name: Text<'a>,
    /// Unix milliseconds after which it must not be done any more.
    pub deadline_ms: u64,
    /// One CBOR item, raw.
    pub args: &'a [u8],
}

impl<'a> Command<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`Malformed`] says what the contract does not allow and where.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut items = r.array("a command: an array")?;
        r.must_have(&mut items, "id")?;
        let id = r.text("id: text")?;
        r.must_have(&mut items, "name")?;
        let name = r.text("name: text")?;
        r.must_have(&mut items, "deadline")?;
        let deadline_ms = r.u64("deadline: an unsigned integer")?;
        r.must_have(&mut items, "args")?;
        let args = r.raw()?;
        r.skip_rest(&mut items)?;
        r.end()?;
        Ok(Self { id, name, deadline_ms, args })
    }

    /// Writes it and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if it does not fit in `buffer`.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, NoRoom> {
        Writer::new(buffer).array(4).text(self.id).text(self.name).u64(self.deadline_ms).raw(self.args).end()
    }
}
