//! Trace context: which trace a call belongs to, as W3C Trace Context (level 1) writes it.
//!
//! In the metadata of a request, under keys of their own. Read strictly: what is not as the
//! recommendation has it is not there, so that a trace begins anew and none is torn.

use alloc::boxed::Box;
use core::fmt;

use crate::{
    limits::{TRACESTATE_LEN_MAX, TRACESTATE_MEMBERS_MAX},
    metadata::{Key, Metadata, MetadataError, MetadataRef},
};

/// Which trace a call belongs to, and the span that it was made in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<Box<str>>,
}

/// Why a `traceparent` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceContextError {
    /// It is not `00-<32 hex digits>-<16>-<2>`.
    #[error(
        "traceparent is not `00-`, 32 hex digits, `-`, 16 hex digits, `-`, 2 hex digits, all in \
         lower case"
    )]
    Malformed,
    /// An id in it is zero, which is none.
    #[error("traceparent has an id that is zero; draw one at random")]
    ZeroId,
}

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_LEN: usize = 55;

/// The flag that says that the caller may have recorded the trace.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// A context of two ids, of which neither may be zero, that is sampled or not.
    ///
    /// # Errors
    ///
    /// Where an id is zero.
    pub fn new(
        trace_id: [u8; 16],
        span_id: [u8; 8],
        is_sampled: bool,
    ) -> Result<Self, TraceContextError> {
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceContextError::ZeroId);
        }
        Ok(Self { trace_id, span_id, flags: u8::from(is_sampled) * SAMPLED, state: None })
    }

    /// Reads a `traceparent`. Of a version after 00 it is read what 00 has.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn parse(traceparent: &[u8]) -> Result<Self, TraceContextError> {
        let malformed = TraceContextError::Malformed;
        let (head, rest) = traceparent.split_at_checked(TRACEPARENT_LEN).ok_or(malformed)?;
        let [version] = hex(&head[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        if !is_whole || [head[2], head[35], head[52]] != *b"---" {
            return Err(malformed);
        }
        let [flags] = hex(&head[53..])?;
        let mut context = Self::new(hex(&head[3..35])?, hex(&head[36..52])?, false)?;
        context.flags = flags & SAMPLED;
        Ok(context)
    }

    /// The context in metadata; none where there is none, or none that is valid. A `tracestate`
    /// that is not is left out.
    pub fn of(metadata: &MetadataRef<'_>) -> Option<Self> {
        let mut context = Self::parse(metadata.get(Key::TRACEPARENT)?).ok()?;
        context.set_state(metadata.get_str(Key::TRACESTATE).unwrap_or_default());
        Some(context)
    }

    /// Puts the context into metadata, in place of one that is there.
    ///
    /// # Errors
    ///
    /// Where the entries would be too many or too long. `tracestate` goes without saying: where it
    /// alone finds no room it is left out.
    pub fn insert_into(&self, metadata: &mut Metadata) -> Result<(), MetadataError> {
        metadata.insert(Key::TRACEPARENT, self.traceparent())?;
        let state = self.state();
        let had_other = metadata.as_ref().get(Key::TRACESTATE).is_some();
        if had_other || !state.is_empty() {
            // Systems that add to it cope with its absence, but not with that of another trace.
            if metadata.insert(Key::TRACESTATE, state).is_err() && had_other {
                metadata.insert(Key::TRACESTATE, "")?;
            }
        }
        Ok(())
    }

    /// The `traceparent`, of version 00.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_LEN] {
        let mut text = [b'-'; TRACEPARENT_LEN];
        text[..2].copy_from_slice(b"00");
        write_hex(&mut text[3..35], &self.trace_id);
        write_hex(&mut text[36..52], &self.span_id);
        write_hex(&mut text[53..], &[self.flags]);
        text
    }

    /// The same trace, in another span.
    ///
    /// # Errors
    ///
    /// Where the id is zero.
    pub fn in_span(&self, span_id: [u8; 8]) -> Result<Self, TraceContextError> {
        if span_id == [0; 8] {
            return Err(TraceContextError::ZeroId);
        }
        Ok(Self { span_id, ..self.clone() })
    }

    /// Sets what tracing systems add, as `vendor=value` and commas between. What is not so, of
    /// more than 32 members or 512 bytes, is left out.
    pub fn set_state(&mut self, tracestate: &str) {
        self.state = is_state(tracestate).then(|| tracestate.into());
    }

    /// Which trace it is.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that the call was made in.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What tracing systems have added; empty where nothing.
    pub fn state(&self) -> &str {
        self.state.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is ASCII.
        f.write_str(core::str::from_utf8(&self.traceparent()).unwrap_or_default())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// Whether a text is a `tracestate` with something in it.
fn is_state(text: &str) -> bool {
    if text.is_empty() || text.len() > TRACESTATE_LEN_MAX {
        return false;
    }
    let mut members = 0;
    text.split(',').map(|member| member.trim_matches([' ', '\t'])).all(|member| {
        members += 1;
        let is_member = member.is_empty() || member.split_once('=').is_some_and(is_pair);
        is_member && members <= TRACESTATE_MEMBERS_MAX
    })
}

fn is_pair((key, value): (&str, &str)) -> bool {
    let is_key =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_value = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=256).contains(&key.len())
        && key.as_bytes()[0].is_ascii_alphanumeric()
        && key.bytes().all(is_key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(is_value)
}

/// As many bytes as the digits say, all of which are in lower case.
fn hex<const N: usize>(digits: &[u8]) -> Result<[u8; N], TraceContextError> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

fn digit(digit: u8) -> Result<u8, TraceContextError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(TraceContextError::Malformed),
    }
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}
