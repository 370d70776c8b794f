//! Inputs to begin with: one of each thing that a target reads, made by the codec itself.

use ringcall_codec::{
    Code, Decoder, Interleaver, Key, Message, Metadata, Piece, Scratch, Session, SessionConfig,
    ShardPlace, Status,
};

use crate::{
    hello::{FIXED_LEN, METHODS},
    input::{Buffer, decode},
    message::{Borrowed, Colour, Drawing, Nest, Nothing, Point, Shape},
};

/// A client's HELLO, as it travels.
pub fn hello() -> Vec<u8> {
    std::mem::take(Session::client(&SessionConfig::default(), METHODS, &[]).output())
}

/// Every seed: the target's name, the seed's, its bytes.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes| seeds.push((target, format!("seed-{name}"), bytes));
    for (name, bytes) in decoder() {
        add("decoder", name, bytes);
    }
    for (name, bytes) in message() {
        add("message", name, bytes);
    }
    for (name, bytes) in hellos() {
        add("hello", name, bytes);
    }
    for (name, bytes) in session() {
        add("session", name, bytes);
    }
    for (name, bytes) in metadata() {
        add("metadata", name, bytes);
    }
    for (name, bytes) in packed() {
        add("packed", name, bytes);
    }
    seeds
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn decoder() -> Seeds {
    let stream = conversation();
    let with = |options: u8, cuts: &[u8]| [&[options, cuts.len() as u8], cuts, &stream].concat();
    vec![
        ("whole", with(0, &[])),
        ("bytewise", with(0, &[0])),
        ("headers", with(2, &[31, 15, 47])),
        ("taken-out", with(0x1c, &[39, 7, 63])),
        ("skipped", with(0x14, &[33, 1, 200])),
        ("nothing", vec![1, 1, 8]),
        ("in-parts", [&[2, 3, 47, 200, 15][..], &in_parts()].concat()),
        ("made-of-parts", [&[0x21, 1, 60][..], MADE].concat()),
        ("parts-in-place", [&[0x63, 3, 47, 200, 33][..], MADE].concat()),
        ("parts-refused", [&[0x25, 1, 70, 0x14, 40, 3][..], MADE].concat()),
        ("parts-no-memory", [&[0x65, 1, 70][..], MADE, &[0x24, 90, 1, 0x1a, 0, 0]].concat()),
        ("parts-too-many", [&[0x21, 1, 60][..], &[0x34, 9, 0].repeat(17)].concat()),
        ("part-of-none", vec![0x21, 1, 60, 0x34, 9, 0, 0x0d, 16, 1]),
    ]
}

/// Two frames in parts and one between them, as choices.
const MADE: &[u8] = &[
    0x34, 50, 3, 0x37, 4, 0, 0x45, 200, 1, 0x31, 30, 0x38, 2, 1, 0x39, 9, 0, 0x0a, 0, 0, 0x0a, 0, 1,
];

/// A stream whose long frames come in parts.
fn in_parts() -> Vec<u8> {
    let (mut client, _, mut scratch) = open();
    let mut interleaver = Interleaver::new(64);
    for text in ["long ".repeat(60), "short".to_owned(), "longer ".repeat(50)] {
        let options = ringcall_codec::CallOptions::default();
        client.call(&mut scratch, 7, options, &Colour::Named(text)).expect("it is open");
        interleaver.push(std::mem::take(client.output()));
    }
    let mut stream = hello();
    while let Some(Piece { bytes, range, .. }) = interleaver.next_piece() {
        stream.extend_from_slice(&bytes[range]);
        interleaver.sent(bytes);
    }
    stream
}

/// A stream with a frame of almost every kind.
fn conversation() -> Vec<u8> {
    let (mut client, mut server, mut scratch) = open();
    let mut stream = hello();
    let metadata = example_metadata();
    for text in ["", "short", &"long ".repeat(50)] {
        let request = Colour::Named(text.to_owned());
        let options =
            ringcall_codec::CallOptions { metadata: metadata.as_bytes(), ..Default::default() };
        let call = client.call(&mut scratch, 7, options, &request).expect("it is open");
        client.one_way(&mut scratch, 9, options, &request).expect("it is open");
        client.abandon(call);
    }
    client.drain(&Status::new(Code::Unavailable, "enough"));
    stream.append(client.output());
    server.go_away(&Status::new(Code::Unavailable, "the server stops"));
    stream.append(server.output());
    stream
}

/// Two ends that have said HELLO.
fn open() -> (Session, Session, Scratch) {
    let config = SessionConfig::default();
    let mut client = Session::client(&config, METHODS, &[]);
    let mut server = Session::server(&config, ShardPlace::default(), &[], METHODS);
    carry(&mut client, &mut server);
    carry(&mut server, &mut client);
    (client, server, Scratch::default())
}

fn carry(from: &mut Session, to: &mut Session) {
    let bytes = std::mem::take(from.output());
    let mut decoder = Decoder::<Buffer>::new(u32::MAX);
    let carried =
        decode(&mut decoder, &bytes, |header, payload| to.handle_frame(header, payload).map(drop));
    carried.expect("what a session says is heard");
}

fn message() -> Seeds {
    let shapes = || {
        let circle = Shape::Circle(Point(-1, 2), Colour::Grey(3));
        let named = Shape::Circle(Point(4, -5), Colour::Named("ultramarine".to_owned()));
        let path = Shape::Path {
            points: vec![Point(1, 2), Point(3, 4)],
            name: Some("a name of some length".to_owned()),
        };
        vec![Shape::Empty, circle, named, path]
    };
    let drawing = Drawing {
        shapes: shapes(),
        first: shapes().pop().map(Box::new),
        corners: [Point(0, 0), Point(i32::MAX, i64::MIN)],
        marks: (1, 'ß', true, (), Some(500), u128::MAX),
        names: vec![vec![], vec!["a".to_owned(), "a longer text".to_owned()]],
        title: "a title that is not short".to_owned(),
    };
    let mut nest = Nest { inner: None };
    for _ in 1..64 {
        nest = Nest { inner: Some(Box::new(nest)) };
    }
    let borrowed = Borrowed {
        text: "borrowed",
        bytes: &[1, 2, 3],
        point: &Point(1, 2),
        words: vec!["one", "two", "a word that is longer"],
        maybe: Some(&[4; 20]),
    };
    let mut seeds = vec![
        ("drawing", archive(0, &drawing)),
        ("nest", archive(2, &nest)),
        ("nothing", archive(3, &Nothing)),
        ("colour", archive(4, &Colour::Named("a shade of green".to_owned()))),
        ("borrowed", archive(5, &borrowed)),
    ];
    for (name, shape) in ["empty", "circle", "named", "path"].into_iter().zip(shapes()) {
        seeds.push((name, archive(1, &shape)));
    }
    seeds
}

/// The archive of a message behind the byte that chooses its type.
fn archive<T: Message>(choice: u8, message: &T) -> Vec<u8> {
    let (mut client, _, mut scratch) = open();
    client.call(&mut scratch, 7, Default::default(), message).expect("it is open");
    let frame = client.output();
    let body_len = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    [&[choice], &frame[32..32 + body_len]].concat()
}

fn hellos() -> Seeds {
    let mut goaway = Session::client(&SessionConfig::default(), METHODS, &[]);
    goaway.output().clear();
    goaway.go_away(&Status::new(Code::Unavailable, "full"));
    let goaway = std::mem::take(goaway.output());
    let frame = hello();
    let fixed = &frame[..32 + FIXED_LEN];
    let mut none = fixed.to_vec();
    none[32 + FIXED_LEN - 4] = 0;
    // Asks for a shard of two, or of ten.
    let of_shard = |index: u8, count: u8| {
        let mut asks = frame.clone();
        asks[32] |= 0x10;
        (asks[32 + 24], asks[32 + 26]) = (index, count);
        [&[6], &asks[..]].concat()
    };
    vec![
        ("to-client", [&[0], &frame[..]].concat()),
        ("to-server", [&[2], &frame[..]].concat()),
        ("no-methods", [&[3], &none[..]].concat()),
        ("other-shard", of_shard(0, 2)),
        ("this-shard", of_shard(1, 2)),
        ("no-such-shard", of_shard(9, 10)),
        ("goaway", [&[2], &goaway[..32 + 4]].concat()),
    ]
}

fn session() -> Seeds {
    vec![
        ("call", vec![1, 0, 0, 5, 3, 0x84, 0, 0x83, 7, 0]),
        ("calls-both-ways", vec![1, 0, 1, 40, 0x80, 0, 9, 12, 0x84, 0, 4, 2, 12, 7, 0, 0x87, 0]),
        ("one-way", vec![1, 0, 4, 5, 12, 0x8b, 1, 12]),
        ("abandoned", vec![1, 0, 0, 5, 3, 6, 0, 3, 0x84, 3, 12]),
        ("deadline", vec![5, 0, 0x22, 5, 3, 8, 200, 4, 12, 0x84, 3, 12]),
        ("pieces", vec![0, 2, 20, 2, 50, 3, 0x82, 33, 0x83, 0, 0, 200, 2, 35, 3, 0x84, 0, 0x83]),
        ("drained", vec![1, 0, 0, 5, 0x89, 0, 0, 6, 12, 0x84, 0, 12]),
        ("idle", vec![3, 8, 255, 24, 12, 8, 255, 24, 12]),
        ("closed", vec![1, 0, 0, 5, 3, 0x8a, 12]),
        ("changed", vec![1, 0, 0, 5, 13, 0, 6, 1, 12]),
        ("put-in", [&[1, 13, 2, 0, 32][..], &[0; 6], &[8], &[0; 25], &[12]].concat()),
        ("full", [&[1][..], &[0, 0, 3].repeat(6), &[12], &[0x84, 0].repeat(4), &[12]].concat()),
        // A call that is a stream, and items from both ends; one is taken, one end says its last.
        (
            "stream",
            [&[1, 0x10, 0, 5, 12][..], &[0x0e, 0, 9, 0x8e, 0, 20, 12], &[0xae, 0, 0x3e, 0, 12]]
                .concat(),
        ),
        (
            "stream-credit",
            [&[1, 0x10, 0, 5, 12][..], &[0x8e, 2, 255].repeat(6), &[12], &[0x2e, 0].repeat(5)]
                .concat(),
        ),
        (
            "stream-both-ways",
            [
                &[1, 0x10, 0, 5, 0x90, 0, 9, 12][..],
                &[0x0e, 0x05, 200, 0x8e, 0x0d, 200, 0x12, 70, 0x92, 90].repeat(4),
                &[12, 0x84, 0, 4, 2, 12, 0x2e, 0],
            ]
            .concat(),
        ),
        // Long requests, between them short ones; pieces, and parts to their places.
        (
            "in-parts",
            [
                &[0x11, 0x60, 0, 90, 0, 0, 5, 0x40, 1, 200, 0, 4, 9][..],
                &[0x12, 100, 0x02, 33, 0, 0, 5].repeat(8),
                &[12, 0x84, 0, 0x84, 2, 12],
            ]
            .concat(),
        ),
        ("parts-refused", vec![1, 0x9f, 0x60, 0, 90, 0x60, 4, 90, 0, 0, 5, 2, 200, 12, 0x8f, 12]),
        // The rest of a long item comes behind the next call in its slot.
        (
            "item-overtaken",
            vec![1, 0x10, 0, 5, 12, 14, 5, 200, 2, 33, 0x84, 0, 0x83, 7, 0, 0, 0, 5, 12],
        ),
        // An item waits for the long request of its call, and another takes the rest of the credit.
        ("credit-overtaken", vec![1, 0x10, 0, 5, 0x70, 0, 255, 14, 8, 9, 14, 5, 255, 12]),
        ("parts-closed", vec![1, 0x60, 0, 90, 0, 0, 5, 0x06, 200, 10, 12]),
    ]
}

fn example_metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, "blue").expect("short enough");
    metadata.insert(Key::TRACEPARENT, "00-0af7651916cd43dd-b7ad6b7169203331-01").expect("so is it");
    metadata.insert_named("x-retries", [3]).expect("a valid name");
    metadata
}

fn metadata() -> Seeds {
    let block = example_metadata().as_bytes().to_vec();
    let mut longest = Metadata::new();
    longest.insert(Key::LOCALE, vec![7; 8187]).expect("as long as one can be");
    let many: Vec<u8> = (1..=66).flat_map(|number| [number, 1, number]).collect();
    vec![
        ("read", [&[0], &block[..]].concat()),
        ("read-longest", [&[0], longest.as_bytes()].concat()),
        ("build", [&[1, 1, 3][..], b"abc", &[0x84, 2], b"name", b"xy", &[1, 1], b"z"].concat()),
        ("build-reserved", [&[1, 0x8a, 1][..], b"ringcall.xv"].concat()),
        ("build-many", [&[1], &many[..]].concat()),
        ("build-long", [&[1, 1, 0xff], &[5; 127][..], &[2, 0xff], &[6; 127]].concat()),
    ]
}

fn packed() -> Seeds {
    // As choices: metadata, level, a frame before it, the bit that flips, runs.
    let made =
        [&[1, 2, 20, 1, 9, 3, 200][..], b"abc", &[9, 30], b"a phrase ", &[1, 90, 0]].concat();
    let with = |options: u8| [&[options][..], &made].concat();
    // Its length, then how it is compressed, then what a compressor makes of forty zeros.
    let head = [&[40, 0, 0, 0][..], &[0; 4]].concat();
    let lz4 = [&head[..], &lz4_flex::block::compress(&[0; 40])].concat();
    let zstd = zstd::bulk::compress(&[0; 40], 3).expect("zeros can be compressed");
    let zstd = [&head[..], &zstd].concat();
    let read = |options: u8, bytes: &[u8]| [&[options, 0, 7][..], bytes].concat();
    vec![
        ("lz4", with(0x11)),
        ("lz4-summed", with(0x35)),
        ("zstd", with(0x19)),
        ("zstd-summed", with(0x3f)),
        ("summed", with(0x23)),
        ("read-lz4", read(0x02, &lz4)),
        ("read-lz4-summed", read(0x32, &lz4)),
        ("read-zstd", read(0x0e, &zstd)),
        ("read-zstd-twice", read(0x0e, &[&zstd[..], &zstd[8..]].concat())),
        ("read-too-long", read(0x02, &[0xff; 20])),
        ("read-sum", read(0x70, &[5; 20])),
        ("read-wrong-sum", read(0x10, &lz4)),
    ]
}
