//! What the simulator has found, each with its story, and as small as it can be told.
//!
//! A seed is kept too, as long as it means the same: what a seed does changes with the plan.

use ringcall_codec::{
    CallOptions, Code, Event, Header, Patience, Scratch, Session, SessionConfig, ShardPlace, Status,
};

use crate::{
    letter::{Letter, METHODS, UNARY, aligned},
    plan::{MS, SECOND},
    world,
};

/// Seeds 1711, 4221, 5398, 7206, 8096, 8907 and 9296. A drain sends a PING, and the session took
/// the time of the last bytes for the time at which it was sent. On a connection that had been
/// quiet for longer than the patience for an answer, the peer was given up in the same instant,
/// with "the peer gives no sign of life", and its calls were lost.
#[test]
fn a_drain_after_a_silence_gives_the_peer_its_time_to_answer() {
    let patience = Patience { ping_after_us: 0, ping_answer_us: 500 * MS, ..Patience::default() };
    let (mut client, mut server) = open(patience);
    let now_us = 3 * SECOND;
    server.set_now(now_us);
    server.drain(&Status::new(Code::Unavailable, "drained"));
    assert_eq!(server.next_timeout_us(), now_us + 500 * MS);
    assert_eq!(server.handle_timeout(now_us, &mut Vec::new()), Ok(()));
    carry(&mut server, &mut client, now_us);
    let events = carry(&mut client, &mut server, now_us + 70);
    assert_eq!(events, [Event::Pong(70)], "the round trip is that of the drain's PING");
    assert!(server.is_drained());
}

/// The same staleness, for idleness: an answer given long after the last bytes counted as given
/// with them, and the connection was drained as idle at once.
#[test]
fn idleness_begins_when_the_answer_is_given() {
    let patience = Patience { idle_us: SECOND, ping_after_us: 0, ..Patience::default() };
    let (mut client, mut server) = open(patience);
    let scratch = &mut Scratch::default();
    let call = client.call(scratch, UNARY, CallOptions::default(), &Letter::new(1, 0, 9)).unwrap();
    assert_eq!(
        carry(&mut client, &mut server, 100),
        [Event::Call { call, method: UNARY }],
        "a call has come"
    );
    let now_us = 5 * SECOND;
    server.set_now(now_us);
    server.reply(scratch, call, &[], &Letter::new(1, 0, 9)).unwrap();
    assert_eq!(server.next_timeout_us(), now_us + SECOND);
    assert_eq!(server.handle_timeout(now_us, &mut Vec::new()), Ok(()));
    assert!(!server.drains());
}

/// Seed 1663 and thirteen others. Where the bytes that came always ended inside of a part, no part
/// was seen to end, and the time of the first counted for all of them: "a frame began and did not
/// end in time", though every part had come quickly. (`a_part_has_its_own_time` in
/// `parts_of_sessions.rs`.)
///
/// Seed 1472. Items of two streams overtook each other in parts, so that a short one came when the
/// longer had taken all credit of the connection, which it had not when it was sent: "beyond its
/// credit". (`items_that_overtake_each_other_are_within_their_credit`.)
///
/// Before there was a seed: a RESPONSE that waited in parts was given up with the last word of a
/// drain (`the_last_word_is_the_last`), a PONG overtook a REQUEST that it vouched for
/// (`a_pong_waits_for_all_that_was_sent_before_it`), and the next REQUEST of a slot overtook an ITEM
/// of the last (`a_slot_is_not_used_again_before_its_last_call_has_come`).
#[test]
fn seeds_that_failed_keep_every_promise() {
    for seed in [1472, 1663, 3522, 3733, 5526, 5882, 7910, 7980, 8432, 10106, 11118, 13129, 13687] {
        world::run(seed, false);
    }
}

/// A client and a server that have said HELLO, at the time zero.
fn open(patience: Patience) -> (Session, Session) {
    let config = SessionConfig { patience, ..SessionConfig::default() };
    let mut client = Session::client(&SessionConfig::default(), METHODS, &[]);
    let mut server = Session::server(&config, ShardPlace { index: 0, count: 1 }, &[], METHODS);
    assert_eq!(carry(&mut client, &mut server, 0), [Event::Opened]);
    assert_eq!(carry(&mut server, &mut client, 0), [Event::Opened]);
    (client, server)
}

/// Carries what one end has to say to the other, and gives what it means there.
fn carry(from: &mut Session, to: &mut Session, now_us: u64) -> Vec<Event> {
    let bytes = std::mem::take(from.output());
    to.handle_bytes(now_us);
    let (mut at, mut events) = (0, Vec::new());
    while at < bytes.len() {
        let header = Header::parse(bytes[at..].first_chunk().unwrap()).unwrap();
        let payload = at + 32..at + 32 + header.payload_len() as usize;
        events.push(to.handle_frame(&header, &aligned(&bytes[payload])).unwrap());
        at += header.frame_len() as usize;
    }
    events
}
