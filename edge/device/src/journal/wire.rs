//! Little-endian fields of payloads.

/// Writes fields one after the other. What does not fit is a mistake of the program: buffers have a least length.
pub(super) struct Put<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> Put<'b> {
    pub(super) fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    pub(super) fn bytes(mut self, field: &[u8]) -> Self {
        self.put(field);
        self
    }

    // Once in the image, not once for each field.
    #[inline(never)]
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.len..self.len + field.len()].copy_from_slice(field);
        self.len += field.len();
    }

    pub(super) fn u8(self, field: u8) -> Self {
        self.bytes(&[field])
    }

    pub(super) fn u32(self, field: u32) -> Self {
        self.bytes(&field.to_le_bytes())
    }

    pub(super) fn u64(self, field: u64) -> Self {
        self.bytes(&field.to_le_bytes())
    }

    pub(super) fn optional_u64(self, field: Option<u64>) -> Self {
        self.u8(u8::from(field.is_some())).u64(field.unwrap_or_default())
    }

    pub(super) fn len(self) -> usize {
        self.len
    }
}

/// Reads them again. `None` where they end early.
pub(super) struct Take<'b>(pub(super) &'b [u8]);

impl<'b> Take<'b> {
    #[inline(never)]
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'b [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn optional_u64(&mut self) -> Option<Option<u64>> {
        let known = self.u8()? != 0;
        let field = self.u64()?;
        Some(known.then_some(field))
    }
}
