//! docs/wire.md: its worked example and its fingerprints are those of the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    ClientEvent, ClientSession, Code, Field, Limits, Message, MethodInfo, Scratch, ServerEvent,
    ServerSession, ShardPlace, Status, access, layout::layout_of_struct,
};
use rkyv::{Archive, Serialize};
use support::{aligned, frames_of};

const DOC: &str = include_str!("../../docs/wire.md");

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

const METHODS: &[MethodInfo] = &[MethodInfo {
    id: method_id("Greeter.hello"),
    name: "Greeter.hello",
    request: Hello::LAYOUT,
    reply: Greeting::LAYOUT,
}];

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

#[test]
fn the_worked_example_is_what_the_sessions_say() {
    let (limits, shard) = (Limits::default(), ShardPlace { index: 0, count: 2 });
    let mut client = ClientSession::new(METHODS, limits);
    let mut server = ServerSession::new(METHODS, limits, shard);
    let mut scratch = Scratch::default();

    let client_hello = std::mem::take(client.output());
    assert_example("client-hello", &client_hello);
    let (header, body) = frames_of(&client_hello).remove(0);
    assert_eq!(server.handle_frame(&header, &body), Ok(ServerEvent::Opened));
    let server_hello = std::mem::take(server.output());
    assert_example("server-hello", &server_hello);
    let (header, body) = frames_of(&server_hello).remove(0);
    assert_eq!(client.handle_frame(&header, &body), Ok(ClientEvent::Opened));

    for (name, example) in [("Ada", "request"), ("Mallory", "second-request")] {
        let hello = Hello { name: name.to_owned() };
        client.call(&mut scratch, METHODS[0].id, &hello).unwrap();
        let request = std::mem::take(client.output());
        assert_example(example, &request);
        let (header, body) = frames_of(&[&client_hello[..], &request].concat()).remove(1);
        let event = server.handle_frame(&header, &body);
        let call = header.call;
        assert_eq!(event, Ok(ServerEvent::Call { call, method: METHODS[0].id }));
        assert_eq!(access::<Hello>(&aligned(&body)).unwrap().name, name);
    }

    let calls: Vec<_> =
        frames_of(&[client_hello, example("request"), example("second-request")].concat())
            .iter()
            .map(|(header, _)| header.call)
            .collect();
    let status = Status::new(Code::PermissionDenied, "not you").not_executed();
    assert!(server.refuse(calls[2], &status));
    assert_example("status", server.output());
    server.output().clear();
    let greeting = Greeting { text: "Hello, Ada!".to_owned(), visits: 1 };
    server.reply(&mut scratch, calls[1], &greeting).unwrap();
    assert_example("reply", server.output());
    server.output().clear();
    server.go_away(&Status::new(Code::Unavailable, "the server stops"));
    assert_example("goaway", server.output());
}

#[test]
fn the_fingerprints_are_those_of_the_code() {
    let rows: Vec<_> = DOC
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let fingerprint = cells.get(3)?.strip_prefix("`0x")?.strip_suffix('`')?;
            let number = u64::from_str_radix(fingerprint, 16).unwrap();
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
    for (name, value) in [
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
    ] {
        let row = format!("| `{name}` | {value} |");
        assert!(DOC.contains(&row), "{row}");
    }
}
