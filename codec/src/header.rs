//! The 32 bytes that open every frame.
//!
//! First on the path of a frame: bytes become a [`Header`] here or are refused. It never looks
//! past its 32 bytes, and it allocates nothing.

use core::fmt;

use crate::limits::{
    FRAME_ALIGN, HEADER_LEN, METADATA_LEN_MAX, STATUS_BODY_LEN_MAX, STATUS_MESSAGE_LEN_MAX,
};

/// The first eight bytes a peer's HELLO carries in place of a call id: `ringcall` in ASCII.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ringcall");

/// Oldest version of the wire format that this crate speaks.
pub const VERSION_MIN: u16 = 1;

/// Newest version of the wire format that this crate speaks.
pub const VERSION_MAX: u16 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a connection, once in each direction, before anything else.
    Hello = 1,
    /// A call: the body is the method's request.
    Request = 2,
    /// The one outcome of a call: the body is the reply, or the text of a status.
    Response = 3,
    /// A call without an outcome: the body is the method's request.
    OneWay = 4,
    /// An item of a stream: the body is the item.
    Item = 5,
    /// Room for more items. No body.
    Credit = 6,
    /// The caller gives a call up. No body.
    Cancel = 7,
    /// Asks for a PONG. No body.
    Ping = 8,
    /// Answers a PING. No body.
    Pong = 9,
    /// No more calls, or no more frames: the body is the reason.
    GoAway = 10,
    /// A one-way call has failed: the body is the text of a status.
    Notice = 11,
    /// Some of a frame that travels in parts: the body is the next bytes of its payload.
    Part = 12,
}

/// Bits that qualify a frame; bits without a name are errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

/// A call on one connection: a slot of the caller's call table and the generation of its use.
///
/// Written `slot | generation << 32`. A generation is at least 1, and each use of a slot has a
/// later one (modulo 2³²), so a stale reply never reaches a later call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// A frame's header, parsed. Field by field it is the table of `docs/wire.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Exact length of the body in bytes, without padding.
    pub body_len: u32,
    /// Length of the metadata before the body, in units of 16 bytes. REQUEST, ONEWAY, RESPONSE.
    pub meta_len: u16,
    /// What the frame is.
    pub kind: Kind,
    /// Bits that qualify it.
    pub flags: Flags,
    /// The call it belongs to; the number of a one-way call; what a PING wants back; [`MAGIC`] in
    /// a HELLO; zero in a GOAWAY.
    pub call: CallId,
    /// REQUEST and ONEWAY: the method's id. RESPONSE, GOAWAY and NOTICE: a status code. HELLO: the
    /// version range.
    pub code: u32,
    /// REQUEST and ONEWAY: time left until the deadline in microseconds, zero for none. RESPONSE:
    /// how long the callee held the call, in microseconds rounded up, where the caller asked for
    /// that, or zero. Other kinds: zero.
    pub time_us: u32,
    /// REQUEST and ONEWAY: the [routing key](crate::RoutingKey), zero for none. RESPONSE: calls in
    /// flight on the answering connection. ITEM: how many items of this sender
    /// came before it. CREDIT: bytes. Other kinds: zero.
    pub aux: u32,
}

/// Why 32 bytes are not a header. Each is the end of the connection: the stream has no next
/// frame that could be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The kind is none that this version knows.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// A flag is set that this kind of frame does not have.
    #[error("flags {flags:#04x} hold bits that are reserved in a {kind} frame")]
    ReservedFlags {
        /// The flags as received.
        flags: u8,
        /// The frame's kind.
        kind: Kind,
    },
    /// A field that must be zero is not.
    #[error("reserved field `{0}` is not zero")]
    ReservedField(&'static str),
    /// The text of a status is longer than one may be.
    #[error("status of {body_len} bytes in a {kind} frame, the limit is {}", status_len_max(*kind))]
    StatusTooLong {
        /// Length of the body in bytes.
        body_len: u32,
        /// The frame's kind.
        kind: Kind,
    },
    /// A frame that has no body has one.
    #[error("body of {body_len} bytes in a {kind} frame, which has none")]
    BodyNotAllowed {
        /// Length of the body in bytes.
        body_len: u32,
        /// The frame's kind.
        kind: Kind,
    },
    /// A frame that is there for its body has none.
    #[error("{0} frame without a body")]
    Empty(Kind),
    /// The metadata is longer than it may be.
    #[error("metadata of {meta_len} bytes, the limit is {METADATA_LEN_MAX}; send less")]
    MetadataTooLong {
        /// Length of the metadata in bytes.
        meta_len: u32,
    },
    /// The connection did not begin with a HELLO.
    #[error("not a ringcall peer: wrong magic {0:#018x}")]
    WrongMagic(u64),
}

impl Header {
    /// A header that says nothing, to be overwritten.
    pub const EMPTY: Self = Self {
        body_len: 0,
        meta_len: 0,
        kind: Kind::Ping,
        flags: Flags::NONE,
        call: CallId(0),
        code: 0,
        time_us: 0,
        aux: 0,
    };

    /// Parses a header.
    ///
    /// # Errors
    ///
    /// Where the kind is unknown, reserved bits or fields are set, or a status is too long.
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let header = Self::read(bytes, Kind::of(bytes)?);
        header.check(bytes)?;
        Ok(header)
    }

    /// The fields of a header of this kind, which are to be [checked](Self::check).
    ///
    /// Apart from the check, so that the fields stay in registers.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8; HEADER_LEN], kind: Kind) -> Self {
        let lengths = u64_at(bytes, 0);
        let code_time = u64_at(bytes, 16);
        Self {
            body_len: lengths as u32,
            meta_len: (lengths >> 32) as u16,
            kind,
            flags: Flags((lengths >> 56) as u8),
            call: CallId(u64_at(bytes, 8)),
            code: code_time as u32,
            time_us: (code_time >> 32) as u32,
            aux: u64_at(bytes, 24) as u32,
        }
    }

    /// Checks what was read from these bytes.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    #[inline(always)]
    pub(crate) fn check(&self, bytes: &[u8; HEADER_LEN]) -> Result<(), HeaderError> {
        if self.kind == Kind::Hello && self.call.0 != MAGIC {
            return Err(HeaderError::WrongMagic(self.call.0));
        }
        let (flags, kind) = (self.flags.0, self.kind);
        if flags & !FLAGS_KNOWN[kind as usize] != 0 {
            return Err(HeaderError::ReservedFlags { flags, kind });
        }
        if u64_at(bytes, 24) >> 32 != 0 {
            return Err(HeaderError::ReservedField("check"));
        }
        if kind == Kind::Request || kind == Kind::OneWay {
            self.check_key()?;
        } else if kind == Kind::Response {
            if self.code == 0 { self.check_reply() } else { self.check_status() }?;
        } else if kind == Kind::Item {
            self.check_item()?;
        } else {
            self.check_rare()?;
        }
        if self.meta_len != 0 {
            self.check_metadata()?;
        }
        Ok(())
    }

    /// Whether the frame is no other than its header says: it has its payload behind it, and is
    /// neither a HELLO nor a PART.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        !matches!(self.kind, Kind::Hello | Kind::Part) && !self.flags.contains(Flags::IN_PARTS)
    }

    /// A reply is the work of a handler, so it cannot say that none ran.
    #[inline]
    fn check_reply(&self) -> Result<(), HeaderError> {
        if self.flags.0 & !Flags::OF_BODY.0 != 0 {
            return Err(HeaderError::ReservedFlags { flags: self.flags.0, kind: self.kind });
        }
        Ok(())
    }

    /// The body of a status is a text of bounded length.
    #[inline]
    fn check_status(&self) -> Result<(), HeaderError> {
        if self.flags.intersects(Flags::OF_BODY) {
            return Err(HeaderError::ReservedFlags { flags: self.flags.0, kind: self.kind });
        }
        let has_details = self.flags.contains(Flags::DETAILS);
        let len_max = if has_details { STATUS_BODY_LEN_MAX } else { STATUS_MESSAGE_LEN_MAX };
        if self.body_len as usize > len_max {
            return Err(HeaderError::StatusTooLong { body_len: self.body_len, kind: self.kind });
        }
        Ok(())
    }

    /// The field that is not theirs.
    #[inline]
    fn check_aux(&self) -> Result<(), HeaderError> {
        if self.aux != 0 {
            return Err(HeaderError::ReservedField("aux"));
        }
        Ok(())
    }

    /// A stream stays where it arrives.
    #[inline]
    fn check_key(&self) -> Result<(), HeaderError> {
        if self.aux != 0 && self.flags.contains(Flags::STREAM) {
            return Err(HeaderError::ReservedField("aux"));
        }
        Ok(())
    }

    /// An item belongs to a call and is nothing else.
    #[inline]
    fn check_item(&self) -> Result<(), HeaderError> {
        if self.code != 0 {
            return Err(HeaderError::ReservedField("code"));
        }
        if self.time_us != 0 {
            return Err(HeaderError::ReservedField("time_us"));
        }
        if self.flags.contains(Flags::END) && self.flags.intersects(Flags::OF_BODY) {
            return Err(HeaderError::ReservedFlags { flags: self.flags.0, kind: self.kind });
        }
        if self.flags.contains(Flags::END) && self.body_len != 0 {
            let (body_len, kind) = (self.body_len, self.kind);
            return Err(HeaderError::BodyNotAllowed { body_len, kind });
        }
        Ok(())
    }

    #[cold]
    fn check_metadata(&self) -> Result<(), HeaderError> {
        if !matches!(self.kind, Kind::Request | Kind::OneWay | Kind::Response) {
            return Err(HeaderError::ReservedField("meta_len"));
        }
        let meta_len = u32::from(self.meta_len) * FRAME_ALIGN as u32;
        if meta_len as usize > METADATA_LEN_MAX {
            return Err(HeaderError::MetadataTooLong { meta_len });
        }
        Ok(())
    }

    /// The kinds that carry no message.
    #[cold]
    fn check_rare(&self) -> Result<(), HeaderError> {
        if self.kind != Kind::Credit {
            self.check_aux()?;
        } else if self.call == CallId(0) && self.flags != Flags::NONE {
            return Err(HeaderError::ReservedFlags { flags: self.flags.0, kind: self.kind });
        } else if self.aux == 0 {
            return Err(HeaderError::ReservedField("aux"));
        }
        if self.time_us != 0 {
            return Err(HeaderError::ReservedField("time_us"));
        }
        match self.kind {
            Kind::GoAway => {
                if self.call != CallId(0) {
                    return Err(HeaderError::ReservedField("call_id"));
                }
                self.check_status()
            }
            Kind::Notice => self.check_status(),
            Kind::Part => {
                if self.code != 0 {
                    return Err(HeaderError::ReservedField("code"));
                }
                if self.body_len == 0 {
                    return Err(HeaderError::Empty(self.kind));
                }
                Ok(())
            }
            Kind::Credit | Kind::Cancel | Kind::Ping | Kind::Pong => {
                if self.code != 0 {
                    return Err(HeaderError::ReservedField("code"));
                }
                if self.body_len != 0 {
                    let (body_len, kind) = (self.body_len, self.kind);
                    return Err(HeaderError::BodyNotAllowed { body_len, kind });
                }
                Ok(())
            }
            Kind::Hello | Kind::Request | Kind::OneWay | Kind::Response | Kind::Item => Ok(()),
        }
    }

    /// The 32 bytes of this header.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        self.write(&mut bytes);
        bytes
    }

    /// Writes the 32 bytes of this header to their place.
    #[inline(always)]
    pub(crate) fn write(&self, place: &mut [u8; HEADER_LEN]) {
        let lengths = u64::from(self.body_len) | u64::from(self.meta_len) << 32;
        let low = lengths | (self.kind as u64) << 48 | u64::from(self.flags.0) << 56;
        let code_time = u64::from(self.code) | u64::from(self.time_us) << 32;
        place[0..8].copy_from_slice(&low.to_le_bytes());
        place[8..16].copy_from_slice(&self.call.0.to_le_bytes());
        place[16..24].copy_from_slice(&code_time.to_le_bytes());
        place[24..32].copy_from_slice(&u64::from(self.aux).to_le_bytes());
    }

    /// Length of the frame in the stream, in bytes: header, metadata, body and padding; of a frame
    /// that comes in parts, its header.
    #[inline]
    pub fn frame_len(&self) -> u64 {
        if self.flags.contains(Flags::IN_PARTS) { HEADER_LEN as u64 } else { self.whole_len() }
    }

    /// Length of the frame in bytes, were it not to come in parts: header, metadata, body and
    /// padding.
    #[inline]
    pub fn whole_len(&self) -> u64 {
        let len = HEADER_LEN as u64 + self.meta_bytes() as u64 + u64::from(self.body_len);
        len.next_multiple_of(FRAME_ALIGN as u64)
    }

    /// Length of the metadata in bytes.
    #[inline]
    pub fn meta_bytes(&self) -> usize {
        usize::from(self.meta_len) * FRAME_ALIGN
    }

    /// Length of metadata and body in bytes: what stands between header and padding.
    #[inline]
    pub fn payload_len(&self) -> u64 {
        self.meta_bytes() as u64 + u64::from(self.body_len)
    }
}

impl Kind {
    /// The kind that a header says.
    #[inline(always)]
    pub(crate) fn of(header: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        Self::from_u8(header[6])
    }

    #[inline(always)]
    fn from_u8(kind: u8) -> Result<Self, HeaderError> {
        match kind {
            1 => Ok(Self::Hello),
            2 => Ok(Self::Request),
            3 => Ok(Self::Response),
            4 => Ok(Self::OneWay),
            5 => Ok(Self::Item),
            6 => Ok(Self::Credit),
            7 => Ok(Self::Cancel),
            8 => Ok(Self::Ping),
            9 => Ok(Self::Pong),
            10 => Ok(Self::GoAway),
            11 => Ok(Self::Notice),
            12 => Ok(Self::Part),
            other => Err(HeaderError::UnknownKind(other)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "HELLO",
            Self::Request => "REQUEST",
            Self::Response => "RESPONSE",
            Self::OneWay => "ONEWAY",
            Self::Item => "ITEM",
            Self::Credit => "CREDIT",
            Self::Cancel => "CANCEL",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::GoAway => "GOAWAY",
            Self::Notice => "NOTICE",
            Self::Part => "PART",
        })
    }
}

impl Flags {
    /// No bit set.
    pub const NONE: Self = Self(0);

    /// GOAWAY: nothing follows. Without it, calls that run are still answered. ITEM: no item, and
    /// none follows.
    pub const END: Self = Self(0x01);

    /// RESPONSE: the handler did not run, so the call can be made again without harm.
    pub const NOT_EXECUTED: Self = Self(0x02);

    /// A body with a checksum behind it.
    pub const CHECKSUM: Self = Self(0x04);

    /// A compressed body.
    pub const COMPRESSED: Self = Self(0x08);

    /// A body that is to be unpacked before it is read.
    pub const PACKED: Self = Self(0x0c);

    /// RESPONSE that is a status: typed details stand before its text.
    pub const DETAILS: Self = Self(0x10);

    /// ITEM and CREDIT: from the side that serves the call.
    pub const CALLEE: Self = Self(0x20);

    /// REQUEST: items may travel while the call runs.
    pub const STREAM: Self = Self(0x40);

    /// The payload does not follow the header: it comes in PARTs.
    pub const IN_PARTS: Self = Self(0x80);

    /// What is said of a body: only a message has one.
    const OF_BODY: Self = Self(Self::PACKED.0 | Self::IN_PARTS.0);

    /// These bits and those.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits without those.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every bit of `other` is set.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl CallId {
    /// The id of a slot's use.
    #[inline]
    pub fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(slot) | u64::from(generation) << 32)
    }

    /// Index into the caller's call table.
    #[inline]
    pub fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Which use of the slot this is.
    #[inline]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

/// The flags that a kind of frame may have, by its number.
const FLAGS_KNOWN: [u8; Kind::Part as usize + 1] = {
    let mut known = [0; Kind::Part as usize + 1];
    known[Kind::Request as usize] = Flags::STREAM.0 | Flags::OF_BODY.0;
    known[Kind::Response as usize] = Flags::NOT_EXECUTED.0 | Flags::DETAILS.0 | Flags::OF_BODY.0;
    known[Kind::OneWay as usize] = Flags::OF_BODY.0;
    known[Kind::Item as usize] = Flags::END.0 | Flags::CALLEE.0 | Flags::OF_BODY.0;
    known[Kind::Credit as usize] = Flags::CALLEE.0;
    known[Kind::GoAway as usize] = Flags::END.0;
    known
};

/// Longest body of a status in this kind of frame, in bytes.
fn status_len_max(kind: Kind) -> usize {
    if kind == Kind::Response { STATUS_BODY_LEN_MAX } else { STATUS_MESSAGE_LEN_MAX }
}

#[inline]
fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
