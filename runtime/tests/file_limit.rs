//! A server whose process has as many files open as it may: those who are there are served, and
//! others are accepted once there are descriptors again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    io::{BufRead, BufReader, Write, stdin},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use ringcall::ShardConfig;
use support::{
    child::{as_child, is_child, limited},
    echo::{self, Blob, EchoClient},
    raw::{Peer, archive, call, hello, reply, request},
    server::counters,
    wait::{until, watched},
};

/// Files that the server's process may have open: enough to start, and for some connections.
const FILES_MAX: u64 = 64;

/// No test, but what a child does: serves until its input ends, and prints for each line of it what
/// was counted.
#[test]
fn child_that_serves() {
    if !is_child() {
        return;
    }
    let server = echo::serve(ShardConfig::new());
    println!("serves {}", server.address());
    for line in stdin().lines() {
        line.unwrap();
        let counters = counters(&server);
        println!("counts {} {}", counters.connections_accepted, counters.accept_errors);
    }
}

/// A server in a process of its own.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let mut command = limited("-n", FILES_MAX);
        let command = as_child(&mut command, "child_that_serves");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let address = said(&mut output, "serves ").parse().unwrap();
        Self { child, input, output, address }
    }

    /// Connections that were accepted, and how often that failed.
    fn counts(&mut self) -> (usize, u64) {
        self.input.write_all(b"\n").unwrap();
        let said = said(&mut self.output, "counts ");
        let (accepted, errors) = said.split_once(' ').unwrap();
        (accepted.parse().unwrap(), errors.parse().unwrap())
    }

    /// A peer that has said HELLO, accepted or not.
    fn connect(&self) -> Peer {
        let mut peer = Peer::connect(self.address);
        peer.send(&hello());
        peer
    }

    /// Waits until accepting has failed, and failed again when it was tried again.
    fn fails_to_accept(&mut self) {
        let (_, errors) = self.counts();
        until("accepting fails twice more", || self.counts().1 >= errors + 2);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is to be done about a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a child says behind a word.
fn said(output: &mut BufReader<ChildStdout>, word: &str) -> String {
    for line in output.lines() {
        // The test's name stands before the first of them.
        if let Some((_, said)) = line.unwrap().split_once(word) {
            return said.to_owned();
        }
    }
    panic!("the child has ended")
}

/// A call on an open connection is answered.
#[track_caller]
fn is_served(peer: &mut Peer, round: u32) {
    let body = archive(&Blob::new(round.into(), 100));
    peer.send(&request(call(0, 1 + round), EchoClient::ECHO, &body));
    assert_eq!(peer.frame(), reply(call(0, 1 + round), &body));
}

#[test]
fn a_server_with_as_many_files_as_it_may_have_serves_on_and_accepts_again() {
    watched(|| {
        let mut server = Process::start();
        let mut open = Vec::new();
        while server.counts().1 == 0 {
            assert!(open.len() < FILES_MAX as usize, "there is no limit");
            open.push(server.connect());
            until("it is accepted or not", || {
                let (accepted, errors) = server.counts();
                accepted == open.len() || errors > 0
            });
        }
        let (accepted, _) = server.counts();
        assert!(accepted > 8, "only {accepted} were accepted");
        // Connected by the kernel, and in a queue since: the first comes first.
        let mut waiting = open.split_off(accepted);
        waiting.extend((0..4).map(|_| server.connect()));
        for peer in &mut open {
            peer.expect_hello();
        }
        for round in 0..3 {
            server.fails_to_accept();
            open.iter_mut().for_each(|peer| is_served(peer, round));
        }
        assert_eq!(server.counts().0, accepted);

        // One goes and one comes.
        for round in 3..5 {
            drop(open.remove(0));
            let mut next = waiting.remove(0);
            next.expect_hello();
            open.push(next);
            open.iter_mut().for_each(|peer| is_served(peer, round));
            server.fails_to_accept();
        }
        // All go, and all come.
        drop(open);
        waiting.extend((0..8).map(|_| server.connect()));
        for peer in &mut waiting {
            peer.expect_hello();
            is_served(peer, 0);
        }
        assert_eq!(server.counts().0, accepted + 2 + waiting.len());
    });
}
