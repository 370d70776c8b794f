//! What travels in the simulation: a message that says whose it is and what it answers, so that
//! one that was crossed, mixed up or changed is found.

use ringcall_codec::{Field, Message, MethodInfo, MethodKind, access, layout::layout_of_struct};
use rkyv::{Archive, Serialize, util::AlignedVec};

use crate::random::mix;

/// Bytes where an archive can be read.
pub(crate) type Body = AlignedVec<16>;

pub(crate) const UNARY: u32 = 0xca11;
pub(crate) const ONE_WAY: u32 = 0x0e1a;
pub(crate) const SERVER_STREAM: u32 = 0x5e57;
pub(crate) const CLIENT_STREAM: u32 = 0xc157;
pub(crate) const TWO_WAY: u32 = 0x2517;

/// Every method; both ends serve them and call them.
pub(crate) const METHODS: &[MethodInfo] = &[
    method(UNARY, "Sim.call", MethodKind::Unary),
    method(ONE_WAY, "Sim.tell", MethodKind::OneWay),
    method(SERVER_STREAM, "Sim.listen", MethodKind::ServerStream),
    method(CLIENT_STREAM, "Sim.pour", MethodKind::ClientStream),
    method(TWO_WAY, "Sim.talk", MethodKind::TwoWay),
];

const fn method(id: u32, name: &'static str, kind: MethodKind) -> MethodInfo {
    let (request, reply) = (Letter::LAYOUT, Letter::LAYOUT);
    MethodInfo {
        id,
        name,
        request,
        reply,
        kind,
        timeout_us: 0,
        idempotent: false,
        no_cancel: false,
        shard_by: false,
    }
}

/// A request, a reply or an item.
#[derive(Archive, Serialize, Debug)]
pub(crate) struct Letter {
    /// The call's number in the ledger, the same in request, reply and items, unique in a
    /// simulation.
    uid: u64,
    /// The sum of the request that this is the reply to; zero in a request. In an item, who sends
    /// it and how many came before it.
    answers: u64,
    /// Over all the rest.
    sum: u64,
    bytes: Vec<u8>,
}

impl Field for Letter {
    const LAYOUT: u64 = layout_of_struct(
        &[
            ("uid", u64::LAYOUT),
            ("answers", u64::LAYOUT),
            ("sum", u64::LAYOUT),
            ("bytes", <Vec<u8>>::LAYOUT),
        ],
        size_of::<ArchivedLetter>(),
        align_of::<ArchivedLetter>(),
    );
}

impl Message for Letter {}

/// What a letter says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) uid: u64,
    pub(crate) answers: u64,
    pub(crate) sum: u64,
}

impl Letter {
    pub(crate) fn new(uid: u64, answers: u64, len: usize) -> Self {
        let word_at = |at: usize| {
            let word = (uid ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ answers;
            word.to_le_bytes()
        };
        let mut bytes = vec![0; len];
        // Whole words are copied at once, and only the rest by a length that is not known before.
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for (at, word) in words.iter_mut().enumerate() {
            *word = word_at(at);
        }
        rest.copy_from_slice(&word_at(words.len())[..rest.len()]);
        let sum = sum_of(uid, answers, &bytes);
        Self { uid, answers, sum, bytes }
    }

    pub(crate) fn envelope(&self) -> Envelope {
        Envelope { uid: self.uid, answers: self.answers, sum: self.sum }
    }

    /// Reads a body; `None` where it is no letter or not as it was written.
    pub(crate) fn read(body: &[u8]) -> Option<Envelope> {
        access::<Self>(body).ok()?.envelope()
    }
}

impl ArchivedLetter {
    pub(crate) fn envelope(&self) -> Option<Envelope> {
        let (uid, answers) = (self.uid.to_native(), self.answers.to_native());
        let sum = self.sum.to_native();
        (sum == sum_of(uid, answers, &self.bytes)).then_some(Envelope { uid, answers, sum })
    }
}

/// A sum in which every bit counts.
pub(crate) fn sum_of(uid: u64, answers: u64, bytes: &[u8]) -> u64 {
    let sum = mix(uid) ^ mix(answers).rotate_left(1) ^ bytes.len() as u64;
    // Four sums side by side: one alone waits for each of its multiplications.
    let (words, rest) = bytes.as_chunks::<8>();
    let (blocks, words) = words.as_chunks::<4>();
    let [mut a, mut b, mut c, mut d] = [sum, sum ^ 1, sum ^ 2, sum ^ 3];
    for block in blocks {
        a = add_word(a, block[0]);
        b = add_word(b, block[1]);
        c = add_word(c, block[2]);
        d = add_word(d, block[3]);
    }
    let mut sum = if blocks.is_empty() { sum } else { [b, c, d].into_iter().fold(a, join) };
    for word in words {
        sum = add_word(sum, *word);
    }
    for byte in rest {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(FACTOR);
    }
    mix(sum)
}

/// The prime of FNV-1a (64 bits).
const FACTOR: u64 = 0x0000_0100_0000_01b3;

fn add_word(sum: u64, word: [u8; 8]) -> u64 {
    (sum ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR).rotate_left(23)
}

fn join(sum: u64, lane: u64) -> u64 {
    mix(sum ^ lane)
}

/// Bytes, copied to where an archive can be read.
pub(crate) fn aligned(bytes: &[u8]) -> Body {
    let mut body = Body::new();
    align(&mut body, bytes);
    body
}

/// The same, in place of what is there.
pub(crate) fn align(body: &mut Body, bytes: &[u8]) {
    body.clear();
    body.extend_from_slice(bytes);
}
