//! Routing: the hash of keys, HELLOs that want a shard, calls with keys, and calls that another
//! shard runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallOptions, Code, Event, Flags, Header, HeaderError, HelloError, Kind, MethodInfo, RoutingKey,
    Scratch, Session, SessionConfig, SessionError, ShardKey, ShardPlace, Status, features,
    hash_parts,
};
use rkyv::{Archive, Archived, Serialize, api::high::HighSerializer, rancor, ser::allocator};
use support::{Blob, ECHO, METHODS, aligned, frame, frames_of, header};

const DOC: &str = include_str!("../../docs/wire.md");

/// Every type that can be a key.
#[derive(Archive, Serialize)]
struct Keys<'a> {
    numbers: (bool, u8, u16, u32),
    more: (u64, i8, i16, i32),
    wide: (i64, u128, i128, char),
    text: String,
    boxed: Box<str>,
    #[rkyv(with = rkyv::with::InlineAsBox)]
    borrowed: &'a str,
    bytes: Vec<u8>,
    array: [u8; 5],
    tuple: (String, u64),
    one: (u32,),
    three: (u8, String, Vec<u8>),
}

fn keys(number: u64, text: &str) -> Keys<'_> {
    let bytes = text.as_bytes();
    Keys {
        numbers: (number & 1 == 1, number as u8, number as u16, number as u32),
        more: (number, number as i8, number as i16, number as i32),
        wide: (number as i64, u128::MAX - u128::from(number), -i128::from(number), 'é'),
        text: text.to_owned(),
        boxed: text.into(),
        borrowed: text,
        bytes: bytes.to_vec(),
        array: (number as u32).to_le_bytes().iter().chain(&[1]).copied().collect::<Vec<_>>()[..]
            .try_into()
            .unwrap(),
        tuple: (text.to_owned(), number),
        one: (number as u32,),
        three: (7, text.to_owned(), bytes.to_vec()),
    }
}

fn archive_of<T>(value: &T) -> rkyv::util::AlignedVec
where
    T: for<'a> Serialize<
        HighSerializer<rkyv::util::AlignedVec, allocator::ArenaHandle<'a>, rancor::Error>,
    >,
{
    rkyv::to_bytes::<rancor::Error>(value).unwrap()
}

#[test]
fn a_key_and_its_archive_hash_alike() {
    for number in [0, 1, 127, 128, 255, 65_535, u32::MAX.into(), u64::MAX] {
        for text in ["", "Ada", "a text that does not stand inline in its string", "é"] {
            let native = keys(number, text);
            let bytes = archive_of(&native);
            let archived = rkyv::access::<Archived<Keys<'_>>, rancor::Error>(&bytes).unwrap();
            assert_eq!(native.numbers.shard_hash(), archived.numbers.shard_hash());
            assert_eq!(native.more.shard_hash(), archived.more.shard_hash());
            assert_eq!(native.wide.shard_hash(), archived.wide.shard_hash());
            assert_eq!(native.text.shard_hash(), archived.text.shard_hash());
            assert_eq!(native.boxed.shard_hash(), archived.boxed.shard_hash());
            assert_eq!(native.borrowed.shard_hash(), archived.borrowed.shard_hash());
            assert_eq!(native.bytes.shard_hash(), archived.bytes.shard_hash());
            assert_eq!(native.array.shard_hash(), archived.array.shard_hash());
            assert_eq!(native.tuple.shard_hash(), archived.tuple.shard_hash());
            assert_eq!(native.one.shard_hash(), archived.one.shard_hash());
            assert_eq!(native.three.shard_hash(), archived.three.shard_hash());
        }
    }
}

#[test]
fn one_key_has_one_hash_however_it_is_written() {
    assert_eq!(7_u8.shard_hash(), 7_i64.shard_hash());
    assert_eq!((-7_i8).shard_hash(), (-7_i64).shard_hash());
    assert_eq!(true.shard_hash(), 1_u32.shard_hash());
    assert_eq!("Ada".shard_hash(), b"Ada".shard_hash());
    assert_eq!("Ada".shard_hash(), b"Ada".to_vec().shard_hash());
    assert_eq!(("Ada", 7_u8).shard_hash(), (String::from("Ada"), 7_u64).shard_hash());
    // Where one part ends and the next begins counts.
    assert_ne!(("ab", "c").shard_hash(), ("a", "bc").shard_hash());
    assert_ne!(("Ada",).shard_hash(), "Ada".shard_hash());
}

#[test]
fn the_hashes_are_those_of_the_document() {
    let keys: &[(&str, u64)] = &[
        ("`\"\"`", "".shard_hash()),
        ("`\"Ada\"`", "Ada".shard_hash()),
        ("`\"a key of more than sixteen bytes\"`", "a key of more than sixteen bytes".shard_hash()),
        ("`0`", 0_u32.shard_hash()),
        ("`7`", 7_u8.shard_hash()),
        ("`-1`", (-1_i32).shard_hash()),
        ("`2^127` (`u128`)", (1_u128 << 127).shard_hash()),
        ("`(\"Ada\", 7)`", ("Ada", 7_u64).shard_hash()),
    ];
    let mut missing = String::new();
    for (key, hash) in keys {
        let travels = RoutingKey::from_hash(*hash);
        let owner = travels.owner(4);
        let row = format!("| {key} | `{hash:#018x}` | `{:#010x}` | {owner} |", travels.to_wire());
        if !DOC.lines().any(|line| line == row) {
            missing += &(row + "\n");
        }
    }
    assert!(missing.is_empty(), "docs/wire.md lacks\n{missing}");
}

#[test]
fn zero_is_no_key() {
    assert_eq!(RoutingKey::from_wire(0), None);
    assert_eq!(RoutingKey::from_hash(0x1234_5678).to_wire(), 1);
    assert_eq!(RoutingKey::from_hash(u64::MAX).to_wire(), u32::MAX);
}

#[test]
fn every_shard_owns_as_much_as_the_others() {
    const KEYS: u64 = 100_000;
    for count in [1, 2, 3, 4, 7, 64] {
        let mut owned = vec![0_u64; usize::from(count)];
        for key in 0..KEYS {
            owned[usize::from(RoutingKey::of(&key).owner(count))] += 1;
        }
        let fair = KEYS / u64::from(count);
        assert!(owned.iter().all(|owned| owned.abs_diff(fair) < fair / 8), "{owned:?}");
    }
    assert_eq!(RoutingKey::from_hash(u64::MAX).owner(4), 3);
    assert_eq!(RoutingKey::from_hash(u64::MAX).owner(0), 0);
    assert_eq!(hash_parts([1, 2]), hash_parts([1, 2]));
}

const PLACE: ShardPlace = ShardPlace { index: 1, count: 4 };

fn config() -> SessionConfig {
    SessionConfig { features: features::KEYS | features::SHARDS, ..SessionConfig::default() }
}

fn server() -> Session {
    Session::server(&config(), PLACE, &[], METHODS)
}

/// Takes what one end says and gives it to the other end, frame by frame.
fn give(from: &mut Session, to: &mut Session) -> Vec<Result<Event, SessionError>> {
    let bytes = std::mem::take(from.output());
    let is_first = bytes.get(8..16) == Some(b"ringcall");
    let before = if is_first { Vec::new() } else { support::hello() };
    let frames = frames_of(&[&before[..], &bytes].concat());
    let said = frames[usize::from(!is_first)..].iter();
    said.map(|(header, payload)| to.handle_frame(header, &aligned(payload))).collect()
}

fn client_of(index: u16, count: u16) -> Session {
    let place = ShardPlace { index, count };
    Session::client_of_shard(&config(), place, METHODS, &[])
}

#[test]
fn a_client_of_another_shard_is_handed_over_before_a_word_was_said() {
    for wanted in [0, 2, 3] {
        let (mut client, mut server) = (client_of(wanted, 4), server());
        assert_eq!(give(&mut client, &mut server), [Ok(Event::WrongShard(wanted))]);
        assert!(server.output().is_empty() && !server.is_open());
    }
    // The number of shards is the client's idea, and may be old.
    let (mut client, mut server) = (client_of(3, 9), server());
    assert_eq!(give(&mut client, &mut server), [Ok(Event::WrongShard(3))]);
}

#[test]
fn a_client_of_this_shard_and_one_of_none_stay() {
    for mut client in [client_of(1, 4), client_of(1, 2), Session::client(&config(), METHODS, &[])] {
        let mut server = server();
        assert_eq!(give(&mut client, &mut server), [Ok(Event::Opened)]);
        assert_eq!(give(&mut server, &mut client), [Ok(Event::Opened)]);
        assert_eq!(client.shard(), Some(PLACE));
    }
}

#[test]
fn a_server_without_shards_lets_a_client_be_where_it_arrived() {
    let mut server = Session::server(&SessionConfig::default(), PLACE, &[], METHODS);
    assert_eq!(give(&mut client_of(3, 4), &mut server), [Ok(Event::Opened)]);
}

#[test]
fn a_shard_that_there_is_not_is_refused_with_the_number_of_those_that_there_are() {
    let (mut client, mut server) = (client_of(4, 5), server());
    let error = SessionError::Hello(HelloError::NoSuchShard { index: 4, count: 4 });
    assert_eq!(give(&mut client, &mut server), [Err(error.clone())]);
    server.go_away(&error.status());
    let told = give(&mut server, &mut client);
    let status =
        Status::new(Code::InvalidArgument, "there is no shard 4: the server has 4; route to these");
    assert_eq!(told, [Ok(Event::Opened), Ok(Event::GoAway(status))]);
    assert_eq!(client.shard(), Some(PLACE));
}

#[test]
fn a_connection_that_is_declined_is_told_why_in_place_of_a_hello() {
    let (mut client, mut server) = (client_of(3, 4), server());
    give(&mut client, &mut server);
    let status = Status::new(Code::Unavailable, "the shard stops");
    server.decline(&status);
    assert_eq!(give(&mut server, &mut client), [Ok(Event::GoAway(status.clone()))]);
    // One that is open is not.
    let mut server = self::server();
    give(&mut client_of(1, 4), &mut server);
    server.output().clear();
    server.decline(&status);
    assert!(server.output().is_empty() && server.is_open());
}

/// Ends of an open connection.
fn open(client: &SessionConfig, server: &SessionConfig) -> (Session, Session) {
    let mut client = Session::client(client, METHODS, &[]);
    let mut server = Session::server(server, PLACE, &[], METHODS);
    give(&mut client, &mut server);
    give(&mut server, &mut client);
    (client, server)
}

fn keyed(key: u64) -> CallOptions<'static> {
    CallOptions { key: Some(RoutingKey::of(&key)), ..CallOptions::default() }
}

fn first_header(session: &mut Session) -> Header {
    Header::parse(session.output().first_chunk().unwrap()).unwrap()
}

#[test]
fn a_key_travels_where_both_sides_know_of_keys() {
    let plain = SessionConfig::default();
    for (server_config, travels) in [(config(), true), (plain, false)] {
        let (mut client, mut server) = open(&config(), &server_config);
        let mut scratch = Scratch::default();
        let key = if travels { RoutingKey::of(&7_u64).to_wire() } else { 0 };
        let call = client.call(&mut scratch, ECHO, keyed(7), &Blob::new(1, 1)).unwrap();
        assert_eq!(first_header(&mut client).aux, key);
        assert_eq!(give(&mut client, &mut server), [Ok(Event::Call { call, method: ECHO })]);
        client.one_way(&mut scratch, ECHO, keyed(7), &Blob::new(1, 1)).unwrap();
        assert_eq!(first_header(&mut client).aux, key);
        let stream = CallOptions { is_stream: true, ..keyed(7) };
        give(&mut client, &mut server);
        client.call(&mut scratch, ECHO, stream, &Blob::new(1, 1)).unwrap();
        assert_eq!(first_header(&mut client).aux, 0);
    }
}

#[test]
fn a_key_that_was_not_agreed_on_ends_the_connection() {
    for kind in [Kind::Request, Kind::OneWay] {
        let (_, mut server) = open(&SessionConfig::default(), &config());
        let request = Header { aux: 1, ..header(kind) };
        let error = SessionError::Header(HeaderError::ReservedField("aux"));
        assert_eq!(server.handle_frame(&request, b""), Err(error));
    }
    let stream = Header { aux: 1, flags: Flags::STREAM, ..header(Kind::Request) };
    let bytes = frame(stream, b"");
    let parsed = Header::parse(bytes.first_chunk().unwrap());
    assert_eq!(parsed, Err(HeaderError::ReservedField("aux")));
}

const OTHER: ShardPlace = ShardPlace { index: 3, count: 4 };

/// A call that came to one shard and is run by another: the ends of the connection, the relay, and
/// the call's frame.
fn passed(options: CallOptions<'_>) -> (Session, Session, Session, Header, Vec<u8>) {
    let (mut client, mut server) = open(&config(), &config());
    client.call(&mut Scratch::default(), ECHO, options, &Blob::new(1, 9)).unwrap();
    let bytes = std::mem::take(client.output());
    let (header, payload) = frames_of(&[&support::hello()[..], &bytes].concat())[1].clone();
    let payload = aligned(&payload).to_vec();
    let event = server.handle_frame(&header, &payload).unwrap();
    assert_eq!(event, Event::Call { call: header.call, method: ECHO });
    let mut relay = Session::relay(&config(), OTHER, METHODS, server.reply_len_max());
    assert_eq!(relay.handle_frame(&header, &payload), Ok(event));
    (client, server, relay, header, payload)
}

fn pass_back(relay: &mut Session, server: &mut Session) -> usize {
    let said = std::mem::take(relay.output());
    let mut seen = 0;
    let passed = server.pass_on(&said, |output, from| {
        assert!(from < output.len());
        seen += 1;
    });
    assert_eq!(seen, passed);
    passed
}

#[test]
fn what_a_relay_answers_is_passed_on() {
    let (mut client, mut server, mut relay, header, _) = passed(keyed(7));
    relay.reply(&mut Scratch::default(), header.call, &[], &Blob::new(2, 100)).unwrap();
    assert_eq!(pass_back(&mut relay, &mut server), 1);
    assert_eq!(give(&mut server, &mut client), [Ok(Event::Reply(header.call))]);
    assert_eq!((server.calls_running(), relay.calls_running()), (0, 0));

    let (mut client, mut server, mut relay, header, _) = passed(keyed(7));
    let status = Status::new(Code::NotFound, "nothing here").not_executed();
    relay.refuse(header.call, &status);
    assert_eq!(pass_back(&mut relay, &mut server), 1);
    assert_eq!(give(&mut server, &mut client), [Ok(Event::Failed(header.call, status))]);
}

#[test]
fn an_answer_that_nobody_waits_for_is_dropped() {
    let (_, mut server, mut relay, header, _) = passed(keyed(7));
    server.refuse(header.call, &Status::new(Code::Unavailable, "the server stops"));
    server.output().clear();
    relay.reply(&mut Scratch::default(), header.call, &[], &Blob::new(2, 1)).unwrap();
    assert_eq!(pass_back(&mut relay, &mut server), 0);
    assert!(server.output().is_empty());
}

#[test]
fn a_call_that_was_stopped_fails_for_the_reason_that_is_known_where_it_came() {
    let options = CallOptions { deadline_us: Some(500), ..keyed(7) };
    let (mut client, mut server, mut relay, header, _) = passed(options);
    let mut events = Vec::new();
    server.handle_timeout(500, &mut events).unwrap();
    assert_eq!(events, [Event::Stop(header.call)]);
    let cancel = Header { kind: Kind::Cancel, ..support::header(Kind::Cancel) };
    let cancel = Header { call: header.call, ..cancel };
    assert_eq!(relay.handle_frame(&cancel, b""), Ok(Event::Stop(header.call)));
    assert!(relay.end_stopped(header.call, &Status::new(Code::Internal, "")));
    assert_eq!(pass_back(&mut relay, &mut server), 1);
    let status = Status::new(Code::DeadlineExceeded, "");
    assert_eq!(give(&mut server, &mut client), [Ok(Event::Failed(header.call, status))]);
}

#[test]
fn a_notice_is_passed_on_and_nothing_else() {
    let (mut client, mut server, mut relay, _, payload) = passed(keyed(7));
    let number = client.one_way(&mut Scratch::default(), ECHO, keyed(7), &Blob::new(1, 9)).unwrap();
    give(&mut client, &mut server);
    let one_way =
        Header { kind: Kind::OneWay, call: ringcall_codec::CallId(number), ..header(Kind::OneWay) };
    let one_way = Header { body_len: payload.len() as u32, code: ECHO, ..one_way };
    assert_eq!(relay.handle_frame(&one_way, &payload), Ok(Event::OneWay { number, method: ECHO }));
    let status = Status::new(Code::NotFound, "no such line");
    relay.end_one_way(number, Err(&status));
    relay.go_away(&Status::new(Code::Unavailable, "the shard stops"));
    assert_eq!(pass_back(&mut relay, &mut server), 1);
    assert_eq!(give(&mut server, &mut client), [Ok(Event::Notice { number, status })]);
}

#[test]
fn a_relay_makes_no_calls_and_is_never_due() {
    const METHOD: MethodInfo = METHODS[0];
    let (.., mut relay, header, _) = passed(keyed(7));
    assert_eq!(relay.next_timeout_us(), u64::MAX);
    let none = CallOptions::default();
    assert!(relay.call(&mut Scratch::default(), METHOD.id, none, &Blob::new(1, 1)).is_err());
    assert_eq!(relay.deadline_us(header.call), None);
}
