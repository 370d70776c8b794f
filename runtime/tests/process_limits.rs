//! What a process is not given: io_uring, lockable memory, descriptors. A child of each test is short
//! of one of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell,
    process::{Command, Stdio},
    sync::Arc,
};

use ringcall::prelude::*;
use support::{
    child::{as_child, is_child, limited},
    station::{ANY_PORT, Porter, StationServer, cores},
    text::assert_says,
    wait::watched,
};

/// No test, but what a child does: starts a server and a client, and prints how that fails.
#[test]
fn child_that_cannot_start() {
    if !is_child() {
        return;
    }
    let server = Server::builder().cores(cores(2));
    let server = server.serve(ANY_PORT, |_| {
        StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
    });
    match server {
        Ok(_) => println!("server: started"),
        Err(error) => println!("server: {error}"),
    }
    match ringcall::run(async {}) {
        Ok(()) => println!("client: started"),
        Err(error) => println!("client: {error}"),
    }
}

/// Runs the child by a command that takes its command line, and gives what it printed of a server
/// and of a client.
fn start_child(command: &mut Command) -> [String; 2] {
    let child = as_child(command, "child_that_cannot_start").output().unwrap();
    let printed = String::from_utf8(child.stdout).unwrap();
    let said = |who: &str| {
        let line = printed.lines().find_map(|line| line.split_once(who));
        let (_, said) = line.unwrap_or_else(|| {
            let error = String::from_utf8_lossy(&child.stderr);
            panic!("the child says nothing of its {who}\n{printed}\n{error}")
        });
        said.to_owned()
    };
    [said("server: "), said("client: ")]
}

#[test]
fn the_child_starts_where_nothing_is_in_its_way() {
    watched(|| {
        let said = start_child(&mut Command::new("env"));
        assert_eq!(said, ["started", "started"]);
    });
}

#[test]
fn too_little_lockable_memory_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_child(&mut limited("-l", 64)) {
            assert_says(&said, &["65536 bytes", "ulimit -l", "LimitMEMLOCK="]);
        }
    });
}

#[test]
fn too_few_descriptors_are_an_error_that_says_what_to_do() {
    watched(|| {
        // Each thing that is opened is in turn the one that cannot be.
        for descriptors in 4.. {
            let said = start_child(&mut limited("-n", descriptors));
            for said in said.iter().filter(|said| *said != "started") {
                assert_says(said, &["open files", "ulimit -n", "LimitNOFILE="]);
            }
            if said == ["started", "started"] {
                assert!(descriptors > 12, "{descriptors} descriptors suffice");
                break;
            }
        }
    });
}

/// What a server and a client say where system calls fail that make a ring; nothing where strace
/// cannot be used.
fn start_with_fault(fault: &str) -> Option<[String; 2]> {
    let probe = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not installed, or may not trace");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null"]);
    strace.args(["-e", "trace=io_uring_setup"]);
    strace.args(["-e", &format!("inject=io_uring_setup:{fault}")]);
    Some(start_child(&mut strace))
}

#[test]
fn a_forbidden_io_uring_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_with_fault("error=EPERM").into_iter().flatten() {
            assert_says(&said, &["forbidden", "kernel.io_uring_disabled", "seccomp"]);
        }
    });
}

#[test]
fn a_missing_io_uring_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_with_fault("error=ENOSYS").into_iter().flatten() {
            assert_says(&said, &["no io_uring", "Linux 6.1"]);
        }
    });
}

#[test]
fn a_ring_that_the_kernel_has_no_memory_for_is_an_error_that_says_what_to_do() {
    watched(|| {
        for said in start_with_fault("error=ENOMEM").into_iter().flatten() {
            assert_says(&said, &["memory", "ulimit -l", "LimitMEMLOCK="]);
        }
    });
}

#[test]
fn a_ring_that_fails_later_is_an_error_and_not_a_panic() {
    watched(|| {
        // The first ring tries whether there can be any; then come those of the executor, and of
        // the shard.
        for nth in 2..=5 {
            let fault = format!("error=EPERM:when={nth}");
            if let Some([server, _]) = start_with_fault(&fault) {
                assert_says(&server, &["io_uring"]);
                assert!(!server.contains("panicked"), "{nth}: {server}");
            }
        }
    });
}
