//! docs/wire.md: its examples, fingerprints and tables are those of the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ringcall_codec::{
    Algorithm, CallId, CallOptions, Code, Event, Field, Flags, Header, Key, Kind, Message,
    Metadata, MethodInfo, MethodKind, Scratch, ServerTimes, Session, SessionConfig, ShardPlace,
    Status, compress_frame, features, layout::layout_of_struct, sum_frame,
};
use rkyv::{Archive, Serialize};
use support::{aligned, frames_of};

const DOC: &str = include_str!("../../docs/wire.md");
const LIMITS: &str = include_str!("../src/limits.rs");

#[derive(Archive, Serialize)]
struct Hello {
    name: String,
}

impl Field for Hello {
    const LAYOUT: u64 = layout_of_struct(
        &[("name", String::LAYOUT)],
        size_of::<ArchivedHello>(),
        align_of::<ArchivedHello>(),
    );
}

impl Message for Hello {}

#[derive(Archive, Serialize)]
struct Greeting {
    text: String,
    visits: u64,
}

impl Field for Greeting {
    const LAYOUT: u64 = layout_of_struct(
        &[("text", String::LAYOUT), ("visits", u64::LAYOUT)],
        size_of::<ArchivedGreeting>(),
        align_of::<ArchivedGreeting>(),
    );
}

impl Message for Greeting {}

const METHODS: &[MethodInfo] = &[
    MethodInfo::unary(HELLO, "Greeter.hello", Hello::LAYOUT, Greeting::LAYOUT),
    MethodInfo { kind: MethodKind::OneWay, ..NOTED },
];
const NOTED: MethodInfo = MethodInfo::unary(NOTE, "Greeter.note", Hello::LAYOUT, 0);
const HELLO: u32 = method_id("Greeter.hello");
const NOTE: u32 = method_id("Greeter.note");

/// FNV-1a (32 bits), as the macros compute it.
const fn method_id(name: &str) -> u32 {
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name.as_bytes()[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

/// The bytes of the example with this name: those before the `;` of each line.
fn example(name: &str) -> Vec<u8> {
    let start = DOC.find(&format!("```text {name}\n")).unwrap_or_else(|| panic!("no {name}"));
    let lines = DOC[start..].lines().skip(1).take_while(|line| *line != "```");
    let bytes = lines.flat_map(|line| line.split(';').next().unwrap().split_whitespace());
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Compares bytes with an example, and prints them where they differ.
fn assert_example(name: &str, bytes: &[u8]) {
    let lines: String = bytes
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>() + "\n")
        .collect();
    assert!(bytes == example(name), "{name} is\n{lines}");
}

/// Takes what one end says, compares it with an example, and gives it to the other end.
fn say(name: &str, from: &mut Session, to: &mut Session) -> Vec<Event> {
    assert_example(name, from.output());
    hand_over(from, to)
}

/// Takes what one end says and gives it to the other end.
fn hand_over(from: &mut Session, to: &mut Session) -> Vec<Event> {
    let bytes = std::mem::take(from.output());
    let is_hello = bytes[8..16] == *b"ringcall";
    let before = if is_hello { Vec::new() } else { support::hello() };
    let frames = frames_of(&[&before[..], &bytes].concat());
    let said = frames[usize::from(!is_hello)..].iter();
    said.map(|(header, payload)| to.handle_frame(header, &aligned(payload)).unwrap()).collect()
}

fn hello(name: &str) -> Hello {
    Hello { name: name.to_owned() }
}

#[test]
fn the_worked_example_is_what_the_sessions_say() {
    let (config, shard) = (SessionConfig::default(), ShardPlace { index: 0, count: 2 });
    let mut client = Session::client(&config, METHODS, &[]);
    let mut server = Session::server(&config, shard, &[], METHODS);
    let mut scratch = Scratch::default();
    let none = CallOptions::default();
    assert_eq!(say("client-hello", &mut client, &mut server), [Event::Opened]);
    assert_eq!(say("server-hello", &mut server, &mut client), [Event::Opened]);

    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "acme").unwrap();
    let metadata = metadata.as_bytes();
    let options = CallOptions { deadline_us: Some(5_000), metadata, ..none };
    let ada = client.call(&mut scratch, HELLO, options, &hello("Ada")).unwrap();
    let runs = |call| [Event::Call { call, method: HELLO }];
    assert_eq!(say("request", &mut client, &mut server), runs(ada));
    assert_eq!(server.deadline_us(ada), Some(5_000));
    let mallory = client.call(&mut scratch, HELLO, none, &hello("Mallory")).unwrap();
    assert_eq!(say("second-request", &mut client, &mut server), runs(mallory));
    let eve = client.call(&mut scratch, HELLO, none, &hello("Eve")).unwrap();
    assert_eq!(say("third-request", &mut client, &mut server), runs(eve));
    let number = client.one_way(&mut scratch, NOTE, none, &hello("Bob")).unwrap();
    let one_way = Event::OneWay { number, method: NOTE };
    assert_eq!(say("one-way", &mut client, &mut server), [one_way]);

    let status = Status::new(Code::PermissionDenied, "not you").not_executed();
    assert!(server.refuse(mallory, &status));
    let failed = Event::Failed(mallory, status);
    assert_eq!(say("status", &mut server, &mut client), [failed]);
    let status = Status::new(Code::NotFound, "no such guest");
    server.end_one_way(number, Err(&status));
    let notice = Event::Notice { number, status };
    assert_eq!(say("notice", &mut server, &mut client), [notice]);

    client.abandon(eve);
    assert_eq!(say("cancel", &mut client, &mut server), [Event::Stop(eve)]);
    assert!(server.end_stopped(eve, &Status::new(Code::Internal, "it was told to")));
    assert_eq!(say("cancelled", &mut server, &mut client), [Event::Abandoned]);

    client.release(mallory);
    let again = client.call(&mut scratch, HELLO, none, &hello("Mallory")).unwrap();
    assert_eq!(say("later-request", &mut client, &mut server), runs(again));
    let status = Status::new(Code::ResourceExhausted, "too often");
    let status = status.with_details(&hello("tomorrow")).unwrap();
    assert!(server.refuse(again, &status));
    let failed = Event::Failed(again, status);
    assert_eq!(say("detailed-status", &mut server, &mut client), [failed]);

    let greeting = Greeting { text: "Hello, Ada!".to_owned(), visits: 1 };
    server.reply(&mut scratch, ada, &[], &greeting).unwrap();
    assert_eq!(say("reply", &mut server, &mut client), [Event::Reply(ada)]);
    client.release(ada);
    client.release(again);

    let mut due = Vec::new();
    client.handle_timeout(client.next_timeout_us(), &mut due).unwrap();
    // The deadline of a call that was answered.
    assert!(client.output().is_empty());
    client.handle_timeout(client.next_timeout_us(), &mut due).unwrap();
    assert!(due.is_empty());
    assert_eq!(say("ping", &mut client, &mut server), [Event::Nothing]);
    assert_eq!(say("pong", &mut server, &mut client), [Event::Pong(0)]);

    let status = Status::new(Code::Unavailable, "the server stops");
    server.drain(&status);
    let drains = [Event::Draining(status), Event::Nothing];
    assert_eq!(say("drain", &mut server, &mut client), drains);
    assert_eq!(say("drain-pong", &mut client, &mut server), [Event::Pong(0)]);
    assert!(server.is_drained());
    let status = Status::new(Code::Unavailable, "every call has ended");
    server.go_away(&status);
    assert_eq!(say("goaway", &mut server, &mut client), [Event::GoAway(status)]);
}

/// The rows of the table under this heading, cell by cell, without the marks of code.
fn table(heading: &str) -> Vec<Vec<String>> {
    let start = DOC.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let lines = DOC[start + 1..].lines().skip_while(|line| !line.starts_with('|'));
    let cells = |line: &str| {
        let inside = line.trim_matches('|').split('|');
        inside.map(|cell| cell.trim().replace('`', "")).collect()
    };
    lines.take_while(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

#[test]
fn the_kinds_are_those_of_the_code() {
    let rows = table("### Kinds");
    for (number, row) in (1..).zip(&rows) {
        let kind = support::KINDS.into_iter().find(|kind| *kind as u8 == number).unwrap();
        assert_eq!(row[..2], [number.to_string(), kind.to_string()]);
    }
    assert_eq!(rows.len(), support::KINDS.len());
}

#[test]
fn the_flags_are_those_of_the_code() {
    let rows = table("### Flags");
    let flags = |name: &str| match name {
        "END" => Some(Flags::END),
        "NOT_EXECUTED" => Some(Flags::NOT_EXECUTED),
        "CHECKSUM" => Some(Flags::CHECKSUM),
        "COMPRESSED" => Some(Flags::COMPRESSED),
        "DETAILS" => Some(Flags::DETAILS),
        "CALLEE" => Some(Flags::CALLEE),
        "STREAM" => Some(Flags::STREAM),
        "IN_PARTS" => Some(Flags::IN_PARTS),
        _ => None,
    };
    let mut used = 0;
    for row in &rows {
        let flags = flags(&row[1]).unwrap_or_else(|| panic!("{row:?}"));
        let bit = support::header(Kind::Request);
        let bit = Header { flags, ..bit }.encode()[7];
        assert_eq!(row[0], format!("{bit:#04x}"));
        used += 1;
    }
    assert_eq!(used, 8);
}

#[test]
fn the_features_are_those_of_the_code() {
    let rows: Vec<_> = table("#### Features").into_iter().map(|row| row[..2].to_vec()).collect();
    let features = [
        ("CHECKSUM", features::CHECKSUM),
        ("LZ4", features::LZ4),
        ("ZSTD", features::ZSTD),
        ("KEYS", features::KEYS),
        ("SHARDS", features::SHARDS),
    ];
    let expected = features.map(|(name, bit)| vec![format!("{bit:#04x}"), name.to_owned()]);
    assert_eq!(rows, expected);
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (0x82f6_3b78 * (sum & 1)))
    })
}

#[test]
fn the_examples_of_packed_bodies_are_what_is_packed() {
    let mut summed = example("request");
    sum_frame(&mut summed, 0, crc32c);
    assert_example("summed-request", &summed);

    let reply = Header { call: CallId::new(0, 1), ..support::header(Kind::Response) };
    let mut packed = support::frame(reply, &[7; 100]);
    compress_frame(&mut packed, 0, Algorithm::Lz4, &mut Vec::new(), |body, out| {
        // In LZ4's block format: a byte as it is, then what repeats it from one byte back, then
        // the last five as they are.
        assert_eq!(body, [7; 100]);
        out.extend([0x1f, 7, 1, 0, 75, 0x50, 7, 7, 7, 7, 7]);
        true
    });
    assert_example("compressed-reply", &packed);
}

#[test]
fn the_keys_are_those_of_the_code() {
    let rows: Vec<_> = table("### Keys").into_iter().map(|row| row[..2].to_vec()).collect();
    let keys = [
        ("AUTHORIZATION", Key::AUTHORIZATION),
        ("TRACEPARENT", Key::TRACEPARENT),
        ("TRACESTATE", Key::TRACESTATE),
        ("IDEMPOTENCY_KEY", Key::IDEMPOTENCY_KEY),
        ("USER_AGENT", Key::USER_AGENT),
        ("TENANT", Key::TENANT),
        ("LOCALE", Key::LOCALE),
        ("TIMES", Key::TIMES),
    ];
    let expected: Vec<_> =
        keys.iter().map(|(name, key)| vec![key.get().to_string(), (*name).to_owned()]).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_example_of_metadata_is_what_is_encoded() {
    let mut metadata = Metadata::new();
    metadata.insert(Key::LOCALE, "de").unwrap().insert_named("a.b", "value").unwrap();
    assert_example("metadata", metadata.as_bytes());
}

#[test]
fn the_examples_of_times_are_what_is_asked_and_told() {
    assert_example("times-wanted", ServerTimes::WANTED);

    let (config, shard) = (SessionConfig::default(), ShardPlace::default());
    let mut client = Session::client(&config, METHODS, &[]);
    let mut server = Session::server(&config, shard, &[], METHODS);
    hand_over(&mut client, &mut server);
    hand_over(&mut server, &mut client);
    let mut scratch = Scratch::default();
    let options = CallOptions { metadata: ServerTimes::WANTED, ..CallOptions::default() };
    let ada = client.call(&mut scratch, HELLO, options, &hello("Ada")).unwrap();
    hand_over(&mut client, &mut server);
    let mut metadata = Metadata::new();
    ServerTimes::reserve(&mut metadata).unwrap();
    server.reply(&mut scratch, ada, metadata.as_bytes(), &hello("Ada")).unwrap();
    let (queue, handler) = (Duration::from_nanos(1_500), Duration::from_nanos(250));
    ServerTimes { queue, handler }.write(server.output(), 0);
    assert_example("timed-reply", server.output());
}

#[test]
fn the_fingerprints_are_those_of_the_code() {
    let rows: Vec<_> = DOC
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let fingerprint = cells.get(3)?.strip_prefix("`0x")?.strip_suffix('`')?;
            let number = u64::from_str_radix(fingerprint, 16).unwrap();
            if fingerprint.len() != 16 {
                // A shorter number is none.
                return None;
            }
            Some((cells[1].trim_matches('`').to_owned(), number))
        })
        .collect();
    let expected = [
        ("bool", bool::LAYOUT),
        ("u8", u8::LAYOUT),
        ("u64", u64::LAYOUT),
        ("()", <()>::LAYOUT),
        ("String", String::LAYOUT),
        ("&str", <&str>::LAYOUT),
        ("Vec<u8>", <Vec<u8>>::LAYOUT),
        ("Option<u64>", <Option<u64>>::LAYOUT),
        ("[u8; 16]", <[u8; 16]>::LAYOUT),
        ("(u8, u64)", <(u8, u64)>::LAYOUT),
        ("Hello", Hello::LAYOUT),
        ("Greeting", Greeting::LAYOUT),
        ("Payment", support::Payment::LAYOUT),
    ];
    let expected = expected.map(|(name, layout)| (name.to_owned(), layout));
    let table: Vec<_> =
        expected.iter().map(|(name, layout)| format!("{name} {layout:#018x}")).collect();
    assert_eq!(rows, expected, "{table:#?}");
}

#[test]
fn every_limit_in_the_table_is_that_of_the_code() {
    use ringcall_codec::limits::*;
    let values: [(&str, u64); 33] = [
        ("HEADER_LEN", HEADER_LEN as u64),
        ("FRAME_ALIGN", FRAME_ALIGN as u64),
        ("FRAME_LEN_MAX_DEFAULT", FRAME_LEN_MAX_DEFAULT.into()),
        ("FRAME_LEN_MAX_FLOOR", FRAME_LEN_MAX_FLOOR.into()),
        ("FRAME_LEN_MAX_CEILING", FRAME_LEN_MAX_CEILING.into()),
        ("CALLS_IN_FLIGHT_MAX_DEFAULT", CALLS_IN_FLIGHT_MAX_DEFAULT.into()),
        ("CALLS_IN_FLIGHT_MAX_CEILING", CALLS_IN_FLIGHT_MAX_CEILING.into()),
        ("MESSAGE_DEPTH_MAX", MESSAGE_DEPTH_MAX as u64),
        ("HELLO_METHODS_MAX", HELLO_METHODS_MAX as u64),
        ("HELLO_BODY_LEN_MAX", HELLO_BODY_LEN_MAX as u64),
        ("STATUS_MESSAGE_LEN_MAX", STATUS_MESSAGE_LEN_MAX as u64),
        ("STATUS_DETAILS_LEN_MAX", STATUS_DETAILS_LEN_MAX as u64),
        ("STATUS_BODY_LEN_MAX", STATUS_BODY_LEN_MAX as u64),
        ("METADATA_LEN_MAX", METADATA_LEN_MAX as u64),
        ("METADATA_ENTRIES_MAX", METADATA_ENTRIES_MAX as u64),
        ("METADATA_NAME_LEN_MAX", METADATA_NAME_LEN_MAX as u64),
        ("TRACESTATE_LEN_MAX", TRACESTATE_LEN_MAX as u64),
        ("TRACESTATE_MEMBERS_MAX", TRACESTATE_MEMBERS_MAX as u64),
        ("CANCELS_PER_SECOND_MAX", CANCELS_PER_SECOND_MAX.into()),
        ("PINGS_PER_SECOND_MAX", PINGS_PER_SECOND_MAX.into()),
        ("STREAM_WINDOW_DEFAULT", STREAM_WINDOW_DEFAULT.into()),
        ("CONNECTION_WINDOW_DEFAULT", CONNECTION_WINDOW_DEFAULT.into()),
        ("WINDOW_FLOOR", WINDOW_FLOOR.into()),
        ("WINDOW_CEILING", WINDOW_CEILING.into()),
        ("ITEM_COST_MIN", ITEM_COST_MIN.into()),
        ("PART_LEN", PART_LEN as u64),
        ("PARTS_AT_ONCE_MAX", PARTS_AT_ONCE_MAX as u64),
        ("LONG_FRAMES_MAX", LONG_FRAMES_MAX as u64),
        ("HELLO_US_DEFAULT", HELLO_US_DEFAULT),
        ("FRAME_START_US_DEFAULT", FRAME_START_US_DEFAULT),
        ("BYTES_PER_S_MIN_DEFAULT", BYTES_PER_S_MIN_DEFAULT),
        ("PING_AFTER_US_DEFAULT", PING_AFTER_US_DEFAULT),
        ("PING_ANSWER_US_DEFAULT", PING_ANSWER_US_DEFAULT),
    ];
    let rows: Vec<_> = table("## Limits").into_iter().map(|row| row[..2].to_vec()).collect();
    let expected: Vec<_> =
        values.iter().map(|(name, value)| vec![(*name).to_owned(), value.to_string()]).collect();
    assert_eq!(rows, expected);
    let count = LIMITS.lines().filter(|line| line.starts_with("pub const ")).count();
    assert_eq!(count, values.len(), "a limit is missing");
}
