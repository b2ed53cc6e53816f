//! A message of the log, and the segment in it.

use bytes::Bytes;
use weir_contract::segment::SEGMENT_LEN_MAX;
use weir_contract::subject::ENCODING_ZSTD;

/// A message as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the stream.
    pub sequence: u64,
    /// When the stream took it, Unix nanoseconds.
    pub logged_ns: i64,
    /// Who it comes from.
    pub subject: String,
    /// How the payload is encoded: the header [`weir_contract::subject::HEADER_ENCODING`].
    pub encoding: Option<String>,
    /// The segment.
    pub payload: Bytes,
    /// How many messages the stream held behind it when it was sent to us.
    pub pending: u64,
}

/// A message without its wrapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its place in the stream.
    pub sequence: u64,
    /// When the stream took it, Unix nanoseconds.
    pub logged_ns: i64,
    /// Who it comes from.
    pub subject: String,
    /// What is in it.
    pub content: Content,
    /// How many messages the stream held behind it when it was sent to us.
    pub pending: u64,
}

/// What is in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A segment, not compressed, not read yet.
    Plain(Bytes),
    /// Something else.
    Unreadable {
        /// What is wrong with it.
        reason: String,
        /// The payload as it came.
        bytes: Bytes,
    },
}

impl Opened {
    /// Bytes it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        match &self.content {
            Content::Plain(bytes) | Content::Unreadable { bytes, .. } => bytes.len() + self.subject.len(),
        }
    }
}

/// Takes messages out of their wrapping.
pub struct Opener {
    zstd: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl Opener {
    /// One opener serves any number of messages.
    ///
    /// # Errors
    /// No memory for the decompressor.
    pub fn new() -> std::io::Result<Self> {
        Ok(Opener { zstd: zstd::bulk::Decompressor::new()?, plain: Vec::with_capacity(SEGMENT_LEN_MAX) })
    }

    /// Decompresses what is compressed, up to the size that a segment may have: a small message cannot make us take much memory.
    pub fn open(&mut self, message: Message) -> Opened {
        let Message { sequence, logged_ns, subject, encoding, payload, pending } = message;
        let content = match encoding.as_deref() {
            None => Content::Plain(payload),
            Some(ENCODING_ZSTD) => {
                self.plain.clear();
                match self.zstd.decompress_to_buffer(&payload, &mut self.plain) {
                    Ok(_) => Content::Plain(Bytes::copy_from_slice(&self.plain)),
                    Err(error) => Content::Unreadable {
                        reason: format!("no zstd frame of at most {SEGMENT_LEN_MAX} bytes: {error}"),
                        bytes: payload,
                    },
                }
            }
            Some(other) => Content::Unreadable {
                reason: format!("an encoding we do not know: {other:?}"),
                bytes: payload,
            },
        };
        Opened { sequence, logged_ns, subject, content, pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(encoding: Option<&str>, payload: Vec<u8>) -> Content {
        let message = Message {
            sequence: 1,
            logged_ns: 2,
            subject: "weir.1.segments.s.g.main".into(),
            encoding: encoding.map(Into::into),
            payload: payload.into(),
            pending: 0,
        };
        Opener::new().expect("memory").open(message).content
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 1).expect("compresses")
    }

    #[test]
    fn what_is_compressed_is_decompressed_up_to_the_size_of_a_segment() {
        let plain = vec![7; SEGMENT_LEN_MAX];
        assert_eq!(opened(Some("zstd"), zstd(&plain)), Content::Plain(plain.clone().into()));
        assert_eq!(opened(None, plain.clone()), Content::Plain(plain.into()));

        let bomb = zstd(&vec![0; 64 * SEGMENT_LEN_MAX]);
        let Content::Unreadable { reason, bytes } = opened(Some("zstd"), bomb.clone()) else {
            panic!("a bomb was opened");
        };
        assert!(reason.contains("262144"), "{reason}");
        assert_eq!(bytes, bomb);
    }

    #[test]
    fn what_cannot_be_opened_keeps_its_bytes_and_says_why() {
        for (encoding, payload) in [("zstd", b"no frame".to_vec()), ("br", zstd(b"x"))] {
            let Content::Unreadable { bytes, .. } = opened(Some(encoding), payload.clone()) else {
                panic!("{encoding} {payload:?} was opened");
            };
            assert_eq!(bytes, payload);
        }
    }
}
