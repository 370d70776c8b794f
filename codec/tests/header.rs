//! Headers: every field at its place, and every bit that has no meaning refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{CallId, Flags, Header, HeaderError, Kind, MAGIC};
use support::{Random, header};

const KINDS: [Kind; 4] = [Kind::Hello, Kind::Request, Kind::Response, Kind::GoAway];

#[test]
fn a_header_has_every_field_at_its_place() {
    let header = Header {
        body_len: 0x0000_0304,
        kind: Kind::Response,
        flags: Flags::NOT_EXECUTED,
        call: CallId::new(0x1112_1314, 0x2122_2324),
        code: 0x3132_3334,
        time_us: 0x4142_4344,
        aux: 0x5152_5354,
    };
    let bytes = [
        0x04, 0x03, 0x00, 0x00, 0x00, 0x00, 0x03, 0x02, // body_len, meta_len, kind, flags
        0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21, // slot, generation
        0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, // code, time_us
        0x54, 0x53, 0x52, 0x51, 0x00, 0x00, 0x00, 0x00, // aux, check
    ];
    assert_eq!(header.encode(), bytes);
    assert_eq!(Header::parse(&bytes), Ok(header));
}

#[test]
fn a_hello_begins_with_ringcall_in_place_of_a_call() {
    assert_eq!(&header(Kind::Hello).encode()[8..16], b"ringcall");
    assert_eq!(MAGIC, 0x6c6c_6163_676e_6972);
}

#[test]
fn every_header_that_parses_encodes_to_the_same_bytes() {
    let mut random = Random::new(1);
    let mut parsed = 0;
    for _ in 0..200_000 {
        let mut bytes: [u8; 32] = random.bytes(32).try_into().unwrap();
        // Wholly random bytes are refused at once: most reserved fields are made right.
        bytes[6] = KINDS[random.below(4)] as u8;
        for reserved in [4, 5, 7, 28, 29, 30, 31] {
            bytes[reserved] &= if random.below(64) == 0 { 0xff } else { 0 };
        }
        if bytes[6] == Kind::Request as u8 || random.below(2) == 0 {
            bytes[20..28].fill(0);
        }
        if random.below(2) == 0 {
            bytes[2..4].fill(0);
            bytes[1] &= 3;
        }
        if let Ok(header) = Header::parse(&bytes) {
            parsed += 1;
            assert_eq!(header.encode(), bytes);
        }
    }
    assert!(parsed > 10_000, "only {parsed} were headers");
}

#[test]
fn random_bytes_are_no_header_and_no_panic() {
    let mut random = Random::new(2);
    for _ in 0..100_000 {
        let bytes: [u8; 32] = random.bytes(32).try_into().unwrap();
        assert!(Header::parse(&bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_frame_is_its_header_and_body_padded_to_sixteen() {
    let frame_len = |body_len| Header { body_len, ..header(Kind::Request) }.frame_len();
    assert_eq!(frame_len(0), 32);
    assert_eq!(frame_len(1), 48);
    assert_eq!(frame_len(16), 48);
    assert_eq!(frame_len(17), 64);
    assert_eq!(frame_len(u32::MAX), (1 << 32) + 32);
}

#[test]
fn unknown_kinds_are_refused() {
    for kind in (0..=u8::MAX).filter(|kind| ![1, 2, 3, 10].contains(kind)) {
        let mut bytes = header(Kind::Request).encode();
        bytes[6] = kind;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::UnknownKind(kind)));
    }
}

#[test]
fn flags_without_a_meaning_are_refused() {
    for kind in KINDS {
        for bit in 0..8 {
            let flags = 1 << bit;
            let mut bytes = Header { code: 13, ..header(kind) }.encode();
            if kind == Kind::Hello {
                bytes = header(kind).encode();
            }
            bytes[7] = flags;
            let parsed = Header::parse(&bytes);
            if kind == Kind::Response && flags == 0x02 {
                assert!(parsed.unwrap().flags.contains(Flags::NOT_EXECUTED));
            } else {
                assert_eq!(parsed, Err(HeaderError::ReservedFlags { flags, kind }));
            }
        }
    }
}

#[test]
fn a_reply_that_no_handler_made_is_refused() {
    let header = Header { flags: Flags::NOT_EXECUTED, ..header(Kind::Response) };
    let refused = HeaderError::ReservedFlags { flags: 0x02, kind: Kind::Response };
    assert_eq!(Header::parse(&header.encode()), Err(refused));
}

#[test]
fn reserved_fields_must_be_zero() {
    let everywhere = [(4, "meta_len"), (5, "meta_len"), (28, "check"), (31, "check")];
    for kind in KINDS {
        for (at, field) in everywhere {
            let mut bytes = header(kind).encode();
            bytes[at] = 0x80;
            assert_eq!(Header::parse(&bytes), Err(HeaderError::ReservedField(field)));
        }
        for at in 20..28 {
            let field = if at < 24 { "time_us" } else { "aux" };
            let mut bytes = header(kind).encode();
            bytes[at] = 0x80;
            let parsed = Header::parse(&bytes);
            match kind {
                Kind::Response => assert!(parsed.is_ok()),
                _ => assert_eq!(parsed, Err(HeaderError::ReservedField(field))),
            }
        }
    }
}

#[test]
fn a_goaway_belongs_to_no_call() {
    let header = Header { call: CallId::new(0, 1), ..header(Kind::GoAway) };
    let refused = HeaderError::ReservedField("call_id");
    assert_eq!(Header::parse(&header.encode()), Err(refused));
}

#[test]
fn a_hello_of_another_magic_is_refused() {
    for byte in 0..8 {
        let mut bytes = header(Kind::Hello).encode();
        bytes[8 + byte] ^= 0x20;
        let magic = MAGIC ^ 0x20 << (8 * byte);
        assert_eq!(Header::parse(&bytes), Err(HeaderError::WrongMagic(magic)));
    }
}

#[test]
fn the_text_of_a_status_is_bounded_by_its_header() {
    let refused = |kind, body_len| Err(HeaderError::StatusTooLong { body_len, kind });
    for kind in [Kind::Response, Kind::GoAway] {
        let parse = |body_len| {
            Header::parse(&Header { body_len, code: 14, ..header(kind) }.encode())
                .map(|header| header.body_len)
        };
        assert_eq!(parse(1024), Ok(1024));
        assert_eq!(parse(1025), refused(kind, 1025));
        assert_eq!(parse(u32::MAX), refused(kind, u32::MAX));
    }
    let reply = Header { body_len: u32::MAX, ..header(Kind::Response) };
    assert_eq!(Header::parse(&reply.encode()), Ok(reply));
}

#[test]
fn errors_say_what_was_received() {
    let text = |error: HeaderError| error.to_string();
    assert_eq!(text(HeaderError::UnknownKind(47)), "frame of unknown kind 47");
    assert_eq!(
        text(HeaderError::ReservedFlags { flags: 0x82, kind: Kind::Request }),
        "flags 0x82 hold bits that are reserved in a REQUEST frame"
    );
    assert_eq!(
        text(HeaderError::WrongMagic(0x2054_5445_2f31_2e31)),
        "not a ringcall peer: wrong magic 0x205454452f312e31"
    );
    assert_eq!(
        text(HeaderError::StatusTooLong { body_len: 1025, kind: Kind::GoAway }),
        "status of 1025 bytes in a GOAWAY frame, the limit is 1024"
    );
}
