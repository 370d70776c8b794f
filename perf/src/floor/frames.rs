//! What the floor's client sends: frames made beforehand, for either of two servers.
//!
//! A floor echoes any bytes. A server of ringcall is greeted first, and then each frame is a call
//! of the echo, into which nothing but its id is written before it is sent. Either answers with
//! as many bytes, so that the client counts them and looks at none while it measures; whether
//! they are the right ones is looked at before and after.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use ringcall::limits::{FRAME_LEN_MAX_DEFAULT, HEADER_LEN};
use ringcall_codec::{
    CallId, CallOptions, Event, Header, Kind, Scratch, Session, SessionConfig, Status,
};

use super::frame;
use crate::{
    target::{EchoClient, Payload, Target},
    workload::Workload,
};

/// Where in a frame the id of its call stands.
const CALL_ID: std::ops::Range<usize> = 8..16;

/// The ids of a connection's calls. Call `s` has slot `s % depth`: it is sent when at most
/// `depth - 1` are in flight, and replies come in the order of the calls, as the echo never waits;
/// so the slot's last call is over.
pub(crate) struct CallIds {
    depth: u32,
    slot: u32,
    generation: u32,
}

impl CallIds {
    fn new(depth: u32) -> Self {
        Self { depth, slot: 0, generation: 1 }
    }

    /// Writes the next ids into frames.
    #[inline]
    pub(crate) fn number(&mut self, frames: &mut [u8], frame_len: usize) {
        for frame in frames.chunks_exact_mut(frame_len) {
            let call = CallId::new(self.slot, self.generation);
            frame[CALL_ID].copy_from_slice(&call.0.to_le_bytes());
            self.slot += 1;
            if self.slot == self.depth {
                self.slot = 0;
                // Zero is the generation of no call.
                self.generation = self.generation.wrapping_add(1).max(1);
            }
        }
    }
}

/// Makes a new connection ready: gives the frame to be sent on it, and the ids to be written into
/// it where it is a call.
pub(crate) fn open(
    stream: &mut TcpStream,
    target: Target,
    workload: Workload,
    patience: Duration,
) -> io::Result<(Vec<u8>, Option<CallIds>)> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    if !target.serves_ringcall() {
        return Ok((frame(workload.frame_len()), None));
    }
    let request = request(stream, workload.payload_len())?;
    if request.len() != workload.frame_len() {
        return Err(wrong(format_args!("a call takes {} bytes", request.len())));
    }
    Ok((request, Some(CallIds::new(workload.depth))))
}

/// Greets a server of ringcall and gives the frame of a call to it.
fn request(stream: &mut TcpStream, payload_len: usize) -> io::Result<Vec<u8>> {
    let mut session = Session::client(&SessionConfig::default(), EchoClient::METHODS, &[]);
    stream.write_all(session.output())?;
    session.output().clear();
    let (header, body) = read_frame(stream)?;
    match session.handle_frame(&header, &body).map_err(io::Error::other)? {
        Event::Opened => {}
        Event::GoAway(status) => return Err(wrong(status)),
        _ => return Err(wrong(format_args!("a {} frame came instead of HELLO", header.kind))),
    }
    let payload = vec![0x5a; payload_len];
    let payload = Payload { bytes: &payload };
    let method = EchoClient::METHODS.first().map_or(0, |method| method.id);
    let options = CallOptions::default();
    session.call(&mut Scratch::default(), method, options, &payload).map_err(io::Error::other)?;
    Ok(std::mem::take(session.output()))
}

/// Sends a frame, to a server that has none in flight, and looks whether the right one comes
/// back.
pub(crate) fn check(stream: &mut TcpStream, frame: &[u8], is_call: bool) -> io::Result<()> {
    stream.write_all(frame)?;
    if is_call {
        return check_reply(stream, frame);
    }
    let mut echo = vec![0; frame.len()];
    stream.read_exact(&mut echo)?;
    if echo == frame { Ok(()) } else { Err(wrong("other bytes came back")) }
}

fn check_reply(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    let sent = header_of(request)?;
    let (header, body) = read_frame(stream)?;
    if header.kind != Kind::Response || header.call != sent.call {
        let Header { kind, call, .. } = header;
        return Err(wrong(format_args!("{kind} {call} came back to call {}", sent.call)));
    }
    if header.code != 0 {
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(wrong(Status::new(ringcall::Code::from_u32(header.code), text)));
    }
    let body_end = HEADER_LEN + sent.body_len as usize;
    if request.get(HEADER_LEN..body_end) == Some(&body) {
        Ok(())
    } else {
        Err(wrong("another body came back"))
    }
}

/// Receives a frame; its body without the padding.
fn read_frame(stream: &mut TcpStream) -> io::Result<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head)?;
    let header = header_of(&head)?;
    if header.frame_len() > u64::from(FRAME_LEN_MAX_DEFAULT) {
        return Err(wrong(format_args!("a frame of {} bytes came", header.frame_len())));
    }
    let mut body = vec![0; header.frame_len() as usize - HEADER_LEN];
    stream.read_exact(&mut body)?;
    body.truncate(header.body_len as usize);
    Ok((header, body))
}

fn header_of(frame: &[u8]) -> io::Result<Header> {
    let head = frame.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    Header::parse(head).map_err(io::Error::other)
}

fn wrong(what: impl fmt::Display) -> io::Error {
    io::Error::other(what.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn id_of(frame: &[u8]) -> (u32, u32) {
        let call = CallId(u64::from_le_bytes(frame[CALL_ID].try_into().unwrap()));
        (call.slot(), call.generation())
    }

    #[test]
    fn slots_take_turns_and_each_use_has_a_later_generation() {
        let mut ids = CallIds::new(3);
        let mut frames = vec![0; 4 * 48];
        ids.number(&mut frames, 48);
        let found: Vec<_> = frames.chunks(48).map(id_of).collect();
        assert_eq!(found, [(0, 1), (1, 1), (2, 1), (0, 2)]);
        ids.number(&mut frames[48..96], 48);
        assert_eq!(id_of(&frames[48..]), (1, 2));
    }

    #[test]
    fn no_call_has_generation_zero() {
        let mut ids = CallIds { generation: u32::MAX, ..CallIds::new(1) };
        let mut frames = vec![0; 2 * 48];
        ids.number(&mut frames, 48);
        assert_eq!([id_of(&frames), id_of(&frames[48..])], [(0, u32::MAX), (0, 1)]);
    }

    #[test]
    fn an_id_is_where_a_header_has_it() {
        let mut ids = CallIds::new(9);
        let mut frames = frame(48).repeat(2);
        frames.chunks_mut(48).for_each(|frame| {
            frame[..HEADER_LEN].fill(0);
            frame[6] = Kind::Request as u8;
        });
        ids.number(&mut frames, 48);
        assert_eq!(header_of(&frames[48..]).unwrap().call, CallId::new(1, 1));
    }
}
