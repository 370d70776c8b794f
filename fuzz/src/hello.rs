//! A first frame opens the connection where `docs/wire.md` says so, and nowhere else; whatever it
//! was, this side ends the connection in whole frames.
//!
//! Input: a byte of options, a header, its payload.

use ringcall_codec::{
    Code, Decoder, Event, Field, Flags, Header, Kind, MAGIC, MethodInfo, MethodKind, Session,
    SessionConfig, ShardPlace, Status, VERSION_MAX, VERSION_MIN, features,
    limits::{
        FRAME_LEN_MAX_DEFAULT, FRAME_LEN_MAX_FLOOR, HEADER_LEN, HELLO_METHODS_MAX, WINDOW_CEILING,
        WINDOW_FLOOR,
    },
};

use crate::{input::Buffer, input::decode, message::Point};

/// Length of a HELLO's body before its methods, in bytes.
pub const FIXED_LEN: usize = 32;

/// What the session serves and calls. One is listed in `seeds.rs` too.
pub const METHODS: &[MethodInfo] = &[method(7, "Fuzz.seven"), method(9, "Fuzz.nine")];

const fn method(id: u32, name: &'static str) -> MethodInfo {
    let (kind, timeout_us) = (MethodKind::Unary, 0);
    let (request, reply) = (Point::LAYOUT, Point::LAYOUT);
    let (idempotent, no_cancel, shard_by) = (false, false, false);
    MethodInfo { id, name, request, reply, kind, timeout_us, idempotent, no_cancel, shard_by }
}

/// Gives a first frame to a session, twice.
pub fn run(data: &[u8]) {
    let Some((options, data)) = data.split_first() else { return };
    let Some((bytes, payload)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let mut bytes = *bytes;
    // The decoder gives a payload of the length that the header declares.
    bytes[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    if options & 0x01 != 0 {
        bytes[4..16].copy_from_slice(&[0, 0, Kind::Hello as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes[8..16].copy_from_slice(&MAGIC.to_le_bytes());
    }
    let Ok(header) = Header::parse(&bytes) else { return };
    if header.payload_len() != payload.len() as u64 {
        return;
    }

    let knows_shards = options & 0x04 != 0;
    let features = if knows_shards { features::SHARDS | features::KEYS } else { 0 };
    let config = SessionConfig { features, ..SessionConfig::default() };
    let mut session = if options & 0x02 == 0 {
        Session::client(&config, METHODS, &[])
    } else {
        Session::server(&config, ShardPlace { index: 1, count: 2 }, &[], METHODS)
    };
    let outcome = session.handle_frame(&header, payload);
    let is_hello = header.kind == Kind::Hello;
    let is_acceptable = is_hello && is_acceptable(header.code, payload);
    let is_server = options & 0x02 != 0;
    let wanted = wanted_shard(payload).filter(|_| is_acceptable && is_server && knows_shards);
    if let Some(0) = wanted {
        // The server is shard 1 of 2.
        assert_eq!(outcome, Ok(Event::WrongShard(0)));
        assert!(session.output().is_empty());
        session.decline(&Status::new(Code::Unavailable, "full"));
        let declined = Header::parse(session.output().first_chunk().expect("it was told why"));
        assert!(declined.is_ok_and(|header| header.kind == Kind::GoAway));
        return;
    }
    let opens = is_acceptable && wanted.is_none_or(|wanted| wanted < 2);
    assert_eq!(outcome == Ok(Event::Opened), opens, "{header:?}: {outcome:?}");
    assert_eq!(session.is_open(), opens);
    if !opens && header.kind != Kind::GoAway {
        let error = outcome.expect_err("no other frame comes first");
        session.go_away(&error.status());
        assert_ends_well(&mut session, true);
        return;
    }
    // There is one HELLO.
    if is_hello {
        let again = session.handle_frame(&header, payload).expect_err("it came before");
        session.go_away(&again.status());
        assert_ends_well(&mut session, true);
    } else {
        assert_ends_well(&mut session, false);
    }
}

/// The shard that an acceptable HELLO asks for.
fn wanted_shard(body: &[u8]) -> Option<u16> {
    let place = body.get(24..28)?;
    let asks = body[0] & 0x10 != 0 && (place[2], place[3]) != (0, 0);
    asks.then(|| u16::from_le_bytes([place[0], place[1]]))
}

/// Whether a HELLO is one, written down once more from `docs/wire.md`.
fn is_acceptable(code: u32, body: &[u8]) -> bool {
    let (version_min, version_max) = (code as u16, (code >> 16) as u16);
    let u16_at = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if version_min > version_max || version_min > VERSION_MAX || version_max < VERSION_MIN {
        return false;
    }
    if body.len() < FIXED_LEN {
        return false;
    }
    let (index, shards, methods) = (u16_at(24), u16_at(26), u32_at(28) as usize);
    let is_placed = index < shards || (index, shards) == (0, 0);
    if methods > HELLO_METHODS_MAX || body.len() != FIXED_LEN + 24 * methods || !is_placed {
        return false;
    }
    if u32_at(8) < FRAME_LEN_MAX_FLOOR || u32_at(12) == 0 {
        return false;
    }
    let windows = WINDOW_FLOOR..=WINDOW_CEILING;
    if !windows.contains(&u32_at(16)) || !windows.contains(&u32_at(20)) {
        return false;
    }
    let entries: Vec<_> = (0..methods).map(|method| FIXED_LEN + 24 * method).collect();
    let ascend = entries.windows(2).all(|pair| u32_at(pair[0]) < u32_at(pair[1]));
    ascend
        && entries.iter().all(|at| {
            let is_ours = METHODS.iter().any(|method| method.id == u32_at(*at));
            let agrees = u64_at(at + 8) == Point::LAYOUT && u64_at(at + 16) == Point::LAYOUT;
            u32_at(at + 4) == 0 && (agrees || !is_ours)
        })
}

/// What goes out is whole frames, from HELLO to GOAWAY where that was said.
fn assert_ends_well(session: &mut Session, said_goaway: bool) {
    let output = std::mem::take(session.output());
    let mut decoder = Decoder::<Buffer>::new(FRAME_LEN_MAX_DEFAULT);
    let mut frames = Vec::new();
    let decoded = decode(&mut decoder, &output, |header, _| {
        frames.push(*header);
        Ok(())
    });
    assert_eq!(decoded, Ok(()));
    assert!(decoder.is_between_frames());
    let first = frames.first().map(|header| header.kind);
    assert!(first.is_none() || first == Some(Kind::Hello), "{frames:?}");
    if said_goaway {
        let last = frames.last().expect("GOAWAY was said");
        assert!(last.kind == Kind::GoAway && last.flags.contains(Flags::END), "{frames:?}");
        assert!(!session.is_open());
    }
}
