//! HELLO: what each side says of itself before anything else.
//!
//! The magic and the version range stand in the frame's header, so that a peer which is none is
//! known by its first 32 bytes; the rest stands in the body: features, limits, the shard that
//! answers, and for each method the fingerprints of its messages.

use alloc::vec::Vec;

use crate::{
    header::{CallId, Flags, Header, Kind, MAGIC, VERSION_MAX, VERSION_MIN},
    limits::{
        CALLS_IN_FLIGHT_MAX_DEFAULT, CONNECTION_WINDOW_DEFAULT, FRAME_LEN_MAX_DEFAULT,
        FRAME_LEN_MAX_FLOOR, HELLO_BODY_LEN_MAX, HELLO_METHODS_MAX, STREAM_WINDOW_DEFAULT,
        WINDOW_CEILING, WINDOW_FLOOR,
    },
    pack::features,
};

/// What one side of a connection says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version of the wire format that the side speaks.
    pub version_min: u16,
    /// Newest version of the wire format that the side speaks.
    pub version_max: u16,
    /// Optional parts of the protocol that the side speaks, one bit each; bits that the other
    /// side does not know are ignored. Those that there are
    /// are in [`features`](crate::features).
    pub features: u64,
    /// What the side accepts.
    pub limits: Limits,
    /// Where the side runs; of a client, the shard that it wants, where it has the feature.
    pub shard: ShardPlace,
    /// The methods that the side serves or calls, in ascending order of their ids.
    pub methods: Vec<MethodLayout>,
}

/// What a side accepts from its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame, in bytes, header and padding included.
    pub frame_len_max: u32,
    /// Most calls that the peer may have in flight on the connection.
    pub calls_in_flight_max: u32,
    /// Bytes of items that each stream of the peer may have on their way.
    pub stream_window: u32,
    /// Bytes of items that all of them together may have on their way.
    pub connection_window: u32,
}

/// Which of a server's shards a connection arrived at, or is to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardPlace {
    /// Number of the shard, from zero.
    pub index: u16,
    /// How many shards serve the address; zero for a client that wants none of them.
    pub count: u16,
}

/// A method and the fingerprints of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodLayout {
    /// The method's id.
    pub id: u32,
    /// Fingerprint of the request.
    pub request: u64,
    /// Fingerprint of the reply.
    pub reply: u64,
}

/// Why a HELLO is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The body's length does not fit its contents, or is over the limit.
    #[error("HELLO body of {body_len} bytes is malformed")]
    Malformed {
        /// Length of the body in bytes.
        body_len: usize,
    },
    /// A limit in it is out of range.
    #[error("HELLO limit `{0}` is out of range")]
    BadLimit(&'static str),
    /// A method's id is not greater than that of the method before it.
    #[error("HELLO lists method {id:#010x} twice or out of order")]
    MethodOrder {
        /// The method's id.
        id: u32,
    },
    /// The client wants a shard that the server does not have.
    #[error("there is no shard {index}: the server has {count}; route to these")]
    NoSuchShard {
        /// The shard that is wanted.
        index: u16,
        /// How many shards the server has.
        count: u16,
    },
    /// The two sides share no version of the wire format.
    #[error(
        "no common version: the peer speaks {peer_min} to {peer_max}, this side {} to {}; \
         upgrade the older one",
        VERSION_MIN,
        VERSION_MAX
    )]
    Version {
        /// Oldest version that the peer speaks.
        peer_min: u16,
        /// Newest version that the peer speaks.
        peer_max: u16,
    },
}

impl Hello {
    /// The HELLO of this crate's version, with no methods.
    pub fn new(limits: Limits, shard: ShardPlace) -> Self {
        Self::with_methods(0, limits, shard, Vec::new())
    }

    /// The HELLO of this crate's version. Of methods with one id, the first is kept.
    pub(crate) fn with_methods(
        features: u64,
        limits: Limits,
        shard: ShardPlace,
        mut methods: Vec<MethodLayout>,
    ) -> Self {
        methods.sort_by_key(|method| method.id);
        methods.dedup_by_key(|method| method.id);
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features,
            limits,
            shard,
            methods,
        }
    }

    /// The header that goes with this HELLO; its `body_len` is left zero.
    pub(crate) fn header(&self) -> Header {
        Header {
            body_len: 0,
            meta_len: 0,
            kind: Kind::Hello,
            flags: Flags::NONE,
            call: CallId(MAGIC),
            code: u32::from(self.version_min) | u32::from(self.version_max) << 16,
            time_us: 0,
            aux: 0,
        }
    }

    /// The body's bytes. It lists every method: the peer refuses a list that is too long, where one
    /// that was cut would let layouts differ unseen.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FIXED_LEN + METHOD_LEN * self.methods.len());
        body.extend_from_slice(&self.features.to_le_bytes());
        body.extend_from_slice(&self.limits.frame_len_max.to_le_bytes());
        body.extend_from_slice(&self.limits.calls_in_flight_max.to_le_bytes());
        body.extend_from_slice(&self.limits.stream_window.to_le_bytes());
        body.extend_from_slice(&self.limits.connection_window.to_le_bytes());
        body.extend_from_slice(&self.shard.index.to_le_bytes());
        body.extend_from_slice(&self.shard.count.to_le_bytes());
        body.extend_from_slice(&(self.methods.len() as u32).to_le_bytes());
        for method in &self.methods {
            body.extend_from_slice(&method.id.to_le_bytes());
            body.extend_from_slice(&[0; 4]);
            body.extend_from_slice(&method.request.to_le_bytes());
            body.extend_from_slice(&method.reply.to_le_bytes());
        }
        body
    }

    /// Checks what a HELLO's header says, before its body is there.
    ///
    /// # Errors
    ///
    /// Where there is no common version, or the body is longer than a HELLO may be.
    pub(crate) fn check_header(header: &Header) -> Result<(), HelloError> {
        let (peer_min, peer_max) = (header.code as u16, (header.code >> 16) as u16);
        if peer_min > VERSION_MAX || peer_max < VERSION_MIN || peer_min > peer_max {
            return Err(HelloError::Version { peer_min, peer_max });
        }
        let body_len = header.body_len as usize;
        if !(FIXED_LEN..=HELLO_BODY_LEN_MAX).contains(&body_len) {
            return Err(HelloError::Malformed { body_len });
        }
        Ok(())
    }

    /// Parses a HELLO.
    ///
    /// # Errors
    ///
    /// As [`check_header`](Self::check_header), and where the body does not fit its own lengths,
    /// a limit is out of range or the methods are not in order.
    pub(crate) fn parse(header: &Header, body: &[u8]) -> Result<Self, HelloError> {
        Self::check_header(header)?;
        let malformed = HelloError::Malformed { body_len: body.len() };
        let mut fields = Fields(body);
        let features = fields.u64().ok_or(malformed)?;
        let limits = Limits {
            frame_len_max: fields.u32().ok_or(malformed)?,
            calls_in_flight_max: fields.u32().ok_or(malformed)?,
            stream_window: fields.u32().ok_or(malformed)?,
            connection_window: fields.u32().ok_or(malformed)?,
        };
        let shard = ShardPlace {
            index: fields.u16().ok_or(malformed)?,
            count: fields.u16().ok_or(malformed)?,
        };
        let count = fields.u32().ok_or(malformed)? as usize;
        if count > HELLO_METHODS_MAX || fields.0.len() != count * METHOD_LEN {
            return Err(malformed);
        }
        if limits.frame_len_max < FRAME_LEN_MAX_FLOOR {
            return Err(HelloError::BadLimit("frame_len_max"));
        }
        if limits.calls_in_flight_max == 0 {
            return Err(HelloError::BadLimit("calls_in_flight_max"));
        }
        let windows = WINDOW_FLOOR..=WINDOW_CEILING;
        if !windows.contains(&limits.stream_window) {
            return Err(HelloError::BadLimit("stream_window"));
        }
        if !windows.contains(&limits.connection_window) {
            return Err(HelloError::BadLimit("connection_window"));
        }
        if shard.index >= shard.count && shard != ShardPlace::default() {
            return Err(HelloError::BadLimit("shard_index"));
        }
        // As many as the bytes that are there hold.
        let mut methods: Vec<MethodLayout> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = fields.u32().ok_or(malformed)?;
            if fields.u32() != Some(0) {
                return Err(malformed);
            }
            let request = fields.u64().ok_or(malformed)?;
            let reply = fields.u64().ok_or(malformed)?;
            if methods.last().is_some_and(|last| last.id >= id) {
                return Err(HelloError::MethodOrder { id });
            }
            methods.push(MethodLayout { id, request, reply });
        }
        let (version_min, version_max) = (header.code as u16, (header.code >> 16) as u16);
        Ok(Self { version_min, version_max, features, limits, shard, methods })
    }

    /// The shard that a client wants to be connected to, if it wants one.
    pub(crate) fn wanted_shard(&self) -> Option<u16> {
        let wants = self.features & features::SHARDS != 0 && self.shard.count != 0;
        wants.then_some(self.shard.index)
    }

    /// The first method that both sides have and lay out differently: ours, then theirs.
    pub(crate) fn disagreement(&self, peer: &Self) -> Option<(MethodLayout, MethodLayout)> {
        self.methods.iter().find_map(|ours| {
            let at = peer.methods.binary_search_by_key(&ours.id, |theirs| theirs.id).ok()?;
            let theirs = &peer.methods[at];
            (ours != theirs).then_some((*ours, *theirs))
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_len_max: FRAME_LEN_MAX_DEFAULT,
            calls_in_flight_max: CALLS_IN_FLIGHT_MAX_DEFAULT,
            stream_window: STREAM_WINDOW_DEFAULT,
            connection_window: CONNECTION_WINDOW_DEFAULT,
        }
    }
}

/// Little-endian fields, read from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// Length of the part of the body before the methods, in bytes.
const FIXED_LEN: usize = 32;
/// Length of one method's entry, in bytes.
const METHOD_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// The HELLO of a side with so many methods, as its peer reads it.
    fn parsed(methods: u32) -> Result<Hello, HelloError> {
        let layouts = (0..methods).map(|id| MethodLayout { id, request: 1, reply: 2 }).collect();
        let hello = Hello::with_methods(0, Limits::default(), ShardPlace::default(), layouts);
        let body = hello.body();
        Hello::parse(&Header { body_len: body.len() as u32, ..hello.header() }, &body)
    }

    #[test]
    fn a_list_that_is_too_long_is_sent_whole_and_refused() {
        let max = HELLO_METHODS_MAX as u32;
        let listed = parsed(max).map(|hello| hello.methods.len());
        assert_eq!(listed, Ok(HELLO_METHODS_MAX));
        let body_len = HELLO_BODY_LEN_MAX + METHOD_LEN;
        assert_eq!(parsed(max + 1), Err(HelloError::Malformed { body_len }));
    }
}
