//! What travels: a letter with the id of the call or item that it belongs to, and a checksum.

use crate::random::Random;

/// What a letter asks of its handler, or says of its call.
pub(crate) mod flags {
    /// The handler is to fail.
    pub(crate) const FAILS: u32 = 1;
    /// The connection may be cut.
    pub(crate) const IS_CUT: u32 = 2;
    /// The caller may give up, or has a deadline.
    pub(crate) const MAY_STOP: u32 = 4;
}

/// A request, a reply or an item.
#[ringcall::message]
pub(crate) struct Letter {
    /// The call's id; for an item, [`item_id`].
    pub(crate) id: u64,
    /// Checksum of the request that this is the reply to, else zero.
    pub(crate) answers: u64,
    /// See [`flags`].
    pub(crate) flags: u32,
    /// Time that the handler is to wait, in microseconds.
    pub(crate) wait_us: u32,
    /// How many items travel each way, or how many calls the handler is to make to its caller.
    pub(crate) count: u32,
    /// Length of the reply's body, or of each item's, in bytes.
    pub(crate) len: u32,
    /// Bytes that follow from the id and the length.
    pub(crate) body: Vec<u8>,
    /// Checksum of all of the above.
    pub(crate) sum: u64,
}

impl Letter {
    /// A letter with a body of so many bytes.
    pub(crate) fn new(id: u64, body_len: u32) -> Self {
        let body = bytes(id, body_len as usize);
        Self { id, answers: 0, flags: 0, wait_us: 0, count: 0, len: 0, body, sum: 0 }
    }

    /// The letter, with its checksum.
    pub(crate) fn sealed(mut self) -> Self {
        let numbers = [self.flags, self.wait_us, self.count, self.len];
        self.sum = sum(self.id, self.answers, numbers, &self.body);
        self
    }
}

impl ArchivedLetter {
    /// Whether it is as it was sealed.
    pub(crate) fn is_whole(&self) -> bool {
        let numbers = [self.flags, self.wait_us, self.count, self.len].map(|n| n.to_native());
        self.sum == sum(self.id.to_native(), self.answers.to_native(), numbers, &self.body)
    }

    /// Whether it has a flag.
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags.to_native() & flag != 0
    }
}

/// Most items of a stream.
const ITEMS_MAX: u64 = 1 << 16;

/// The id of an item of a call's stream, by its place there.
pub(crate) fn item_id(call: u64, index: u64) -> u64 {
    assert!(index < ITEMS_MAX);
    (call + 1) * ITEMS_MAX + index
}

/// The call and the place of an item.
pub(crate) fn item_of(id: u64) -> (u64, u64) {
    ((id / ITEMS_MAX).wrapping_sub(1), id % ITEMS_MAX)
}

/// Bytes that another id or length has none of.
fn bytes(id: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(id ^ (len as u64) << 40);
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
    bytes
}

fn sum(id: u64, answers: u64, numbers: [u32; 4], body: &[u8]) -> u64 {
    let mix =
        |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [flags, wait_us, count, len] = numbers.map(u64::from);
    let head = [id, answers, flags << 32 | wait_us, count << 32 | len, body.len() as u64];
    let sum = head.into_iter().fold(1, mix);
    let (words, rest) = body.as_chunks::<8>();
    let sum = words.iter().fold(sum, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

#[test]
fn a_checksum_notices_every_bit() {
    let sum_of = |letter: &Letter| {
        let numbers = [letter.flags, letter.wait_us, letter.count, letter.len];
        sum(letter.id, letter.answers, numbers, &letter.body)
    };
    let letter = Letter::new(7, 21).sealed();
    for bit in 0..21 * 8 {
        let mut other = Letter::new(7, 21);
        other.body[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(sum_of(&other), letter.sum, "bit {bit}");
    }
    assert_eq!(sum_of(&letter), letter.sum);
    assert_ne!(sum_of(&Letter::new(8, 21)), letter.sum);
    assert_eq!(item_of(item_id(123_456_789, 5)), (123_456_789, 5));
}
