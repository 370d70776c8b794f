//! Every example is a server too, which ends in order when it is told to. `cargo test` builds the
//! examples of its package.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// Starts an example as a server, tells it to end, and expects it to end well.
fn ends_well(name: &str, signal: Signal) {
    let test = env::current_exe().unwrap();
    let examples = test.parent().unwrap().with_file_name("examples");
    let mut server = Command::new(examples.join(name))
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} does not run: {error}"));
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    // Somebody is there who has not said anything.
    let peer = TcpStream::connect(address.trim()).unwrap();
    kill_process(Pid::from_raw(server.id().cast_signed()).unwrap(), signal).unwrap();
    let status = server.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{name} ended with {status}");
    drop(peer);
}

#[test]
fn every_example_serves_at_an_address_until_it_is_told_to_end() {
    let mut examples = 0;
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() == Some("rs".as_ref()) {
            let name = path.file_stem().and_then(|name| Path::new(name).to_str()).unwrap();
            ends_well(name, Signal::TERM);
            ends_well(name, Signal::INT);
            examples += 1;
        }
    }
    assert!(examples > 0);
}
