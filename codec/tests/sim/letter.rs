//! What travels in the simulation: a message that says whose it is and what it answers, so that
//! one that was crossed, mixed up or changed is found.

use ringcall_codec::{Field, Message, MethodInfo, MethodKind, access, layout::layout_of_struct};
use rkyv::{Archive, Serialize, util::AlignedVec};

use crate::random::mix;

/// Bytes where an archive can be read.
pub(crate) type Body = AlignedVec<16>;

pub(crate) const UNARY: u32 = 0xca11;
pub(crate) const ONE_WAY: u32 = 0x0e1a;

/// Every method; both ends serve them and call them.
pub(crate) const METHODS: &[MethodInfo] = &[
    method(UNARY, "Sim.call", MethodKind::Unary),
    method(ONE_WAY, "Sim.tell", MethodKind::OneWay),
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
    }
}

/// A request or a reply.
#[derive(Archive, Serialize, Debug)]
pub(crate) struct Letter {
    /// The call's number in the ledger, the same in request and reply, unique in a simulation.
    uid: u64,
    /// The sum of the request that this is the reply to; zero in a request.
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
        let mut bytes = vec![0; len];
        for (at, chunk) in bytes.chunks_mut(8).enumerate() {
            let word = (uid ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ answers;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
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
    let mut sum = mix(uid) ^ mix(answers).rotate_left(1) ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    for byte in rest {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(sum)
}

/// Bytes, copied to where an archive can be read.
pub(crate) fn aligned(bytes: &[u8]) -> Body {
    let mut body = Body::with_capacity(bytes.len().max(1));
    body.extend_from_slice(bytes);
    body
}
