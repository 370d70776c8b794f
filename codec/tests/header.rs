//! Headers: every field at its place, and every bit that has no meaning refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, Flags, Header, HeaderError, Kind, MAGIC,
    limits::{METADATA_LEN_MAX, STATUS_BODY_LEN_MAX},
};
use support::{KINDS, Random, header};

#[test]
fn a_header_has_every_field_at_its_place() {
    let header = Header {
        body_len: 0x0000_0304,
        meta_len: 0x0102,
        kind: Kind::Response,
        flags: Flags::NOT_EXECUTED,
        call: CallId::new(0x1112_1314, 0x2122_2324),
        code: 0x3132_3334,
        time_us: 0x4142_4344,
        aux: 0x5152_5354,
    };
    let bytes = [
        0x04, 0x03, 0x00, 0x00, 0x02, 0x01, 0x03, 0x02, // body_len, meta_len, kind, flags
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
        bytes[6] = KINDS[random.below(KINDS.len())] as u8;
        for reserved in [4, 5, 7, 28, 29, 30, 31] {
            bytes[reserved] &= if random.below(64) == 0 { 0xff } else { 0 };
        }
        if bytes[6] != Kind::Response as u8 || random.below(2) == 0 {
            bytes[20..28].fill(0);
        }
        match KINDS.into_iter().find(|kind| *kind as u8 == bytes[6]) {
            Some(Kind::Hello) => bytes[8..16].copy_from_slice(b"ringcall"),
            Some(Kind::GoAway) => bytes[8..16].fill(0),
            Some(Kind::Item) => bytes[16..20].fill(0),
            Some(Kind::Credit) => {
                bytes[..4].fill(0);
                bytes[16..20].fill(0);
                bytes[24] = 1;
            }
            Some(Kind::Part) => bytes[16..20].fill(0),
            Some(Kind::Cancel | Kind::Ping | Kind::Pong) => {
                bytes[..4].fill(0);
                bytes[16..20].fill(0);
            }
            _ => {}
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
    let of_len = |body_len, meta_len| Header { body_len, meta_len, ..header(Kind::Request) };
    let frame_len = |body_len| of_len(body_len, 0).frame_len();
    assert_eq!(frame_len(0), 32);
    assert_eq!(frame_len(1), 48);
    assert_eq!(frame_len(16), 48);
    assert_eq!(frame_len(17), 64);
    assert_eq!(frame_len(u32::MAX), (1 << 32) + 32);
    // And its metadata between the two.
    assert_eq!(of_len(1, 3).frame_len(), 96);
    assert_eq!(of_len(1, 3).payload_len(), 49);
    assert_eq!(of_len(u32::MAX, u16::MAX).frame_len(), (1 << 32) + 32 + 65_535 * 16);
}

#[test]
fn unknown_kinds_are_refused() {
    for kind in (0..=u8::MAX).filter(|kind| !(1..=12).contains(kind)) {
        let mut bytes = header(Kind::Request).encode();
        bytes[6] = kind;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::UnknownKind(kind)));
    }
}

#[test]
fn flags_without_a_meaning_are_refused() {
    let meant = |kind| match kind {
        Kind::Response => vec![Flags::NOT_EXECUTED, Flags::DETAILS],
        Kind::GoAway => vec![Flags::END],
        Kind::Request => vec![Flags::STREAM, Flags::CHECKSUM, Flags::COMPRESSED, Flags::IN_PARTS],
        Kind::OneWay => vec![Flags::CHECKSUM, Flags::COMPRESSED, Flags::IN_PARTS],
        Kind::Item => {
            vec![Flags::END, Flags::CALLEE, Flags::CHECKSUM, Flags::COMPRESSED, Flags::IN_PARTS]
        }
        Kind::Credit => vec![Flags::CALLEE],
        _ => Vec::new(),
    };
    for kind in KINDS {
        for bit in 0..8 {
            let flags = 1 << bit;
            // A status has other flags than a reply, where that makes a difference.
            let code = if kind == Kind::Response { 13 } else { header(kind).code };
            // Credit of the connection has none.
            let call = if kind == Kind::Credit { CallId::new(0, 1) } else { header(kind).call };
            let mut bytes = Header { code, call, ..header(kind) }.encode();
            bytes[7] = flags;
            let parsed = Header::parse(&bytes);
            if let Ok(header) = &parsed {
                assert_eq!(header.encode()[7], flags);
                assert!(meant(kind).contains(&header.flags), "{kind} {flags}");
            } else {
                assert_eq!(parsed, Err(HeaderError::ReservedFlags { flags, kind }));
                let is_meant =
                    |meant: &Flags| Header { flags: *meant, ..header(kind) }.encode()[7] == flags;
                assert!(!meant(kind).iter().any(is_meant), "{kind} {flags}");
            }
        }
    }
}

#[test]
fn a_reply_has_no_flags_of_a_status() {
    for flags in [Flags::NOT_EXECUTED, Flags::DETAILS, Flags::NOT_EXECUTED.with(Flags::DETAILS)] {
        let header = Header { flags, ..header(Kind::Response) };
        let bytes = header.encode();
        let refused = HeaderError::ReservedFlags { flags: bytes[7], kind: Kind::Response };
        assert_eq!(Header::parse(&bytes), Err(refused));
        let status = Header { code: 1, ..header }.encode();
        assert_eq!(Header::parse(&status).unwrap().flags, flags);
    }
}

#[test]
fn a_body_that_is_no_message_is_not_packed() {
    let status = Header { code: 13, ..header(Kind::Response) };
    let end = Header { flags: Flags::END, ..header(Kind::Item) };
    for packed in [Flags::CHECKSUM, Flags::COMPRESSED, Flags::PACKED] {
        let parse = |header: Header| {
            let flags = header.flags.with(packed);
            let bytes = Header { flags, ..header }.encode();
            let refused = HeaderError::ReservedFlags { flags: bytes[7], kind: header.kind };
            (Header::parse(&bytes).map(|header| header.flags), flags, refused)
        };
        for kind in [Kind::Request, Kind::OneWay, Kind::Response, Kind::Item] {
            let (parsed, flags, _) = parse(header(kind));
            assert_eq!(parsed, Ok(flags), "{kind}");
        }
        for none in [status, end, header(Kind::Notice), header(Kind::GoAway), header(Kind::Hello)] {
            let (parsed, _, refused) = parse(none);
            assert_eq!(parsed, Err(refused));
        }
    }
}

#[test]
fn reserved_fields_must_be_zero() {
    for kind in KINDS {
        let parse = |at: usize, byte: u8| {
            let mut bytes = header(kind).encode();
            bytes[at] = byte;
            Header::parse(&bytes)
        };
        let reserved = |field| Err(HeaderError::ReservedField(field));
        for at in 28..32 {
            assert_eq!(parse(at, 0x80), reserved("check"));
        }
        for at in 24..28 {
            match kind {
                Kind::Request | Kind::OneWay | Kind::Response | Kind::Item | Kind::Credit => {
                    assert!(parse(at, 0x80).is_ok());
                }
                _ => assert_eq!(parse(at, 0x80), reserved("aux")),
            }
        }
        for at in 20..24 {
            match kind {
                Kind::Request | Kind::OneWay | Kind::Response => assert!(parse(at, 0x80).is_ok()),
                _ => assert_eq!(parse(at, 0x80), reserved("time_us")),
            }
        }
        for at in 16..20 {
            match kind {
                Kind::Item | Kind::Credit | Kind::Cancel | Kind::Ping | Kind::Pong | Kind::Part => {
                    assert_eq!(parse(at, 0x80), reserved("code"));
                }
                Kind::Hello => {}
                _ => assert!(parse(at, 0x80).is_ok()),
            }
        }
        for (at, byte) in [(4, 1), (5, 1)] {
            match kind {
                Kind::Request | Kind::OneWay | Kind::Response => assert!(parse(at, byte).is_ok()),
                _ => assert_eq!(parse(at, byte), reserved("meta_len")),
            }
        }
    }
}

#[test]
fn metadata_is_bounded_by_its_header() {
    for kind in [Kind::Request, Kind::OneWay, Kind::Response] {
        let parse = |meta_len| Header::parse(&Header { meta_len, ..header(kind) }.encode());
        assert_eq!(parse(512).unwrap().meta_bytes(), METADATA_LEN_MAX);
        assert_eq!(parse(513), Err(HeaderError::MetadataTooLong { meta_len: 8208 }));
        assert_eq!(parse(u16::MAX), Err(HeaderError::MetadataTooLong { meta_len: 1_048_560 }));
    }
}

#[test]
fn a_frame_of_its_call_alone_has_no_body() {
    for kind in [Kind::Credit, Kind::Cancel, Kind::Ping, Kind::Pong] {
        let parse = |body_len| Header::parse(&Header { body_len, ..header(kind) }.encode());
        assert!(parse(0).is_ok());
        for body_len in [1, u32::MAX] {
            assert_eq!(parse(body_len), Err(HeaderError::BodyNotAllowed { body_len, kind }));
        }
    }
}

#[test]
fn the_end_of_items_has_no_body() {
    let kind = Kind::Item;
    for flags in [Flags::NONE, Flags::CALLEE] {
        let item = Header { body_len: 9, aux: 3, flags, ..header(kind) };
        assert_eq!(Header::parse(&item.encode()), Ok(item));
        let end = Header { flags: flags.with(Flags::END), ..item };
        let refused = Err(HeaderError::BodyNotAllowed { body_len: 9, kind });
        assert_eq!(Header::parse(&end.encode()), refused);
        assert!(Header::parse(&Header { body_len: 0, ..end }.encode()).is_ok());
    }
}

#[test]
fn credit_is_not_zero() {
    let none = Header { aux: 0, ..header(Kind::Credit) };
    assert_eq!(Header::parse(&none.encode()), Err(HeaderError::ReservedField("aux")));
}

#[test]
fn credit_of_a_connection_has_no_side() {
    let credit = Header { flags: Flags::CALLEE, ..header(Kind::Credit) };
    let refused = HeaderError::ReservedFlags { flags: 0x20, kind: Kind::Credit };
    assert_eq!(Header::parse(&credit.encode()), Err(refused));
    let of_stream = Header { call: CallId::new(0, 1), ..credit };
    assert_eq!(Header::parse(&of_stream.encode()), Ok(of_stream));
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
    for kind in [Kind::Response, Kind::GoAway, Kind::Notice] {
        let parse = |body_len| {
            Header::parse(&Header { body_len, code: 14, ..header(kind) }.encode())
                .map(|header| header.body_len)
        };
        assert_eq!(parse(1024), Ok(1024));
        assert_eq!(parse(1025), refused(kind, 1025));
        assert_eq!(parse(u32::MAX), refused(kind, u32::MAX));
    }
    let detailed = |body_len| {
        let header = Header { body_len, code: 14, flags: Flags::DETAILS, ..header(Kind::Response) };
        Header::parse(&header.encode()).map(|header| header.body_len)
    };
    let longest = STATUS_BODY_LEN_MAX as u32;
    assert_eq!(detailed(longest), Ok(longest));
    assert_eq!(detailed(longest + 1), refused(Kind::Response, longest + 1));
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
