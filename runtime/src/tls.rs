//! Where bytes are decrypted: between the ring and the decoder, in the buffer they arrived in.

/// What happens to received bytes before they are decoded.
pub(crate) enum Stage {
    /// Nothing: the bytes are the frames.
    Plain,
}

impl Stage {
    /// The part of a received buffer that holds frames.
    #[inline]
    pub(crate) fn plain_len(&self, received: usize) -> usize {
        match self {
            Self::Plain => received,
        }
    }
}
