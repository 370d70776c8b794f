//! Streams with random traffic, ends of all sorts, and bytes that come in random pieces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{
    CallId, CallOptions, Code, Event, Flags, Kind, Scratch, Session, Status, StreamId,
};
use support::{
    Blob, Body, ECHO, Pair, Random,
    streams::{COST, WINDOW, frame_len, granted, names, windows},
    take_frames,
};

/// One direction of a connection, as an observer on the wire counts it.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// What the items that were sent cost the connection, in bytes.
    cost: u64,
    /// What the CREDIT frames that were sent grant the connection in the other direction.
    granted: u64,
}

impl Wire {
    /// Takes what a session has to send.
    fn carry(&mut self, session: &mut Session) {
        if session.output().is_empty() {
            return;
        }
        self.bytes.extend_from_slice(session.output());
        let frames = take_frames(session);
        let items = frames.iter().filter(|(header, _)| header.kind == Kind::Item);
        let items = items.filter(|(header, _)| !header.flags.contains(Flags::END));
        self.cost += items.map(|(header, _)| header.frame_len().max(COST.into())).sum::<u64>();
        self.granted += u64::from(granted(&frames).0);
    }

    /// Some of the bytes on their way, all of them at times.
    fn some(&mut self, random: &mut Random) -> Vec<u8> {
        let len = random.below(2 * self.bytes.len() + 1).min(self.bytes.len());
        self.bytes.drain(..len).collect()
    }
}

/// What an application at one end knows of its streams.
#[derive(Default)]
struct App {
    open: Vec<StreamId>,
    /// Items that came and wait to be taken, and the lengths of their frames.
    items: Vec<(StreamId, u64)>,
    /// Streams that are to end here, as their time is up or the caller gave up.
    told: Vec<CallId>,
    /// Calls made here that have their outcome.
    answered: Vec<CallId>,
}

impl App {
    fn note(&mut self, events: impl Iterator<Item = (Event, Body)>) {
        for (event, payload) in events {
            match event {
                Event::Call { call, .. } => self.open.push(names(call).1),
                Event::Item(stream) => self.items.push((stream, frame_len(&payload))),
                Event::Stop(call) => self.told.push(call),
                Event::Reply(call) | Event::Failed(call, _) => {
                    self.open.retain(|stream| *stream != names(call).0);
                    self.answered.push(call);
                }
                _ => {}
            }
        }
    }
}

/// One step of an application at either end: something that it may do at any time.
fn act(
    random: &mut Random,
    session: &mut Session,
    scratch: &mut Scratch,
    app: &mut App,
    (now_us, is_calm): (u64, bool),
) {
    let stream = (!app.open.is_empty()).then(|| app.open[random.below(app.open.len())]);
    let action = if is_calm { 4 + random.below(8) } else { random.below(12) };
    match (action, stream) {
        (0, _) if app.open.len() < 8 => {
            let left_us = 1 + random.below(2_000) as u64;
            let deadline_us = (random.below(3) == 0).then_some(now_us + left_us);
            let options =
                CallOptions { is_stream: true, deadline_us, now_us, ..CallOptions::default() };
            let call = session.call(scratch, ECHO, options, &Blob::new(0, 0)).unwrap();
            app.open.push(names(call).0);
        }
        (1..4, Some(stream)) => {
            for _ in 0..random.below(6) {
                // There may be no credit, or the stream be over.
                let len_max = 1 + random.below(6_000);
                let len = random.below(len_max);
                let _ = session.send_item(scratch, stream, &Blob::new(1, len));
            }
        }
        (4..8, _) if !app.items.is_empty() => {
            let (stream, frame_len) = app.items.swap_remove(random.below(app.items.len()));
            session.item_taken(stream, frame_len);
        }
        (8, Some(stream)) => session.end_items(stream),
        (9, Some(stream)) => {
            app.open.retain(|other| *other != stream);
            app.items.retain(|(other, _)| *other != stream);
            if stream.is_made_here {
                session.abandon(stream.call);
            } else {
                session.reply(scratch, stream.call, &[], &Blob::new(2, 0)).unwrap();
            }
        }
        (10, _) if !app.told.is_empty() => {
            let call = app.told.swap_remove(random.below(app.told.len()));
            let stream = names(call).1;
            app.open.retain(|other| *other != stream);
            app.items.retain(|(other, _)| *other != stream);
            // It may have replied all the same.
            session.end_stopped(call, &Status::new(Code::Internal, ""));
        }
        (11, _) if !app.answered.is_empty() => {
            let call = app.answered.swap_remove(random.below(app.answered.len()));
            app.items.retain(|(stream, _)| *stream != names(call).0);
            session.release(call);
        }
        _ => {}
    }
}

/// Streams of both ends with random traffic, bytes that come in random pieces, and ends of all
/// sorts: afterwards what was sent and not granted anew is what is always held back, less than half
/// a window.
#[test]
fn no_credit_is_lost_in_random_traffic() {
    for seed in 1..=24 {
        let mut random = Random::new(seed * 7_919);
        let window = WINDOW << random.below(3);
        let mut pair = Pair::open_both_ways_with(windows(WINDOW << random.below(3), window));
        let (mut up, mut down) = (Wire::default(), Wire::default());
        let (mut client, mut server) = (App::default(), App::default());
        for step in 0..4_500 {
            let is_calm = step >= 3_000;
            pair.now_us += random.below(20) as u64;
            let moment = (pair.now_us, is_calm);
            pair.client.set_now(pair.now_us);
            pair.server.set_now(pair.now_us);
            act(&mut random, &mut pair.client, &mut pair.scratch, &mut client, moment);
            act(&mut random, &mut pair.server, &mut pair.scratch, &mut server, moment);
            if step % 16 == 0 {
                pair.wait_until(pair.now_us).unwrap();
            }
            up.carry(&mut pair.client);
            down.carry(&mut pair.server);
            let piece = up.some(&mut random);
            pair.feed_server(&piece).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let piece = down.some(&mut random);
            pair.feed_client(&piece).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            client.note(pair.client_events.drain(..));
            server.note(pair.server_events.drain(..));
        }
        assert_eq!(pair.client.calls_made() + pair.server.calls_made(), 0, "seed {seed}");
        assert!(client.items.is_empty() && server.items.is_empty(), "seed {seed}");
        assert!(up.bytes.is_empty() && down.bytes.is_empty(), "seed {seed}");
        for (cost, granted) in [(up.cost, down.granted), (down.cost, up.granted)] {
            assert!(cost > 10 * u64::from(window), "seed {seed}: only {cost}");
            let held_back = cost - granted;
            assert!(held_back < u64::from(window / 2), "seed {seed}: {held_back} of {window}");
        }
    }
}
