//! Every example runs and says what it should. `cargo test` builds the examples of its package.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{env, fs, process::Command};

/// Runs an example as its header says to, and gives what it prints.
fn output_of(name: &str) -> String {
    // This test is target/<profile>/deps/<name>, the examples are in target/<profile>/examples.
    let test = env::current_exe().unwrap();
    let examples = test.parent().unwrap().with_file_name("examples");
    let output = Command::new(examples.join(name)).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{name} does not run: {error}; `cargo test` builds it, with `--test` it does not");
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}: {errors}", output.status);
    assert!(errors.is_empty(), "{name} complains: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn greeter_greets() {
    assert_eq!(output_of("greeter"), "Hello, world!\n");
}

#[test]
fn opentelemetry_has_one_trace_of_four_spans() {
    let output = output_of("opentelemetry");
    let spans: Vec<Vec<&str>> =
        output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(spans.len(), 4, "{output}");
    assert!(spans.iter().all(|span| span[0] == spans[0][0] && span[5] == "Shop.order"));
    // From the one that has no parent to the one that is none.
    let mut parent = "0000000000000000";
    for kind in ["client", "server", "client", "server"] {
        let span = spans.iter().find(|span| span[3] == parent).unwrap();
        assert_eq!(span[4], kind, "{output}");
        parent = span[1];
    }
}

#[test]
fn arithmetic_answers_and_tells_why_it_cannot() {
    let expected = "\
        2 + 3 = 5\n\
        2 - 3 = -1\n\
        7 / 2 = 3\n\
        7 / 0 has no answer: division by zero\n\
        -9223372036854775808 / -1 failed: out of range: more than 64 bits\n";
    assert_eq!(output_of("arithmetic"), expected);
}

#[test]
fn sharded_kv_finds_every_value_at_the_shard_that_owns_it() {
    let output = output_of("sharded_kv");
    let names = ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Tony"];
    assert_eq!(output.lines().count(), names.len() + 1);
    assert_eq!(output.lines().last().unwrap(), "0 calls came to a shard that was not theirs");
    for (line, name) in output.lines().zip(names) {
        // As many shards as this machine has cores.
        let (shard, value) = line.split_once(" says ").unwrap();
        assert_eq!(value, format!("Some(\"Hello, {name}!\")"));
        let (index, count) = shard.trim_start_matches("shard ").split_once(" of ").unwrap();
        assert!(index.parse::<u16>().unwrap() < count.parse().unwrap(), "{line}");
    }
}

#[test]
fn long_operation_is_asked_for_waited_for_and_cancelled() {
    let expected = "\
        the long one: 0 % are done\n\
        the short one: 168 primes\n\
        the long one: cancelled: the operation was cancelled\n";
    assert_eq!(output_of("long_operation"), expected);
}

#[test]
fn each_example_is_here_and_says_how_to_run_it() {
    let tests = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples.rs"));
    let tests = tests.unwrap();
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(tests.contains(&format!("output_of(\"{name}\")")), "{name} is not tested");
        let command = format!("`cargo run --release -p ringcall-examples --example {name}`");
        assert!(fs::read_to_string(&path).unwrap().contains(&command), "{name} has no command");
    }
}

#[test]
fn blocking_calls_without_an_executor() {
    let expected = "\
        5 words\n\
        3 words\n\
        2 words\n\
        4 words\n\
        no answer: deadline exceeded\n\
        4 words\n";
    assert_eq!(output_of("blocking"), expected);
}

#[test]
fn interceptors_ask_for_a_token_and_tell_how_calls_end() {
    let expected = "\
        client: Greeter.hello ended with \"ok\"\n\
        client: Greeter.hello ended with \"unauthenticated\"\n\
        server: Greeter.hello ended with Failed(Unauthenticated)\n\
        server: Greeter.hello ended with Replied\n";
    let output = output_of("interceptors");
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n") + "\n", expected);
}

#[test]
fn streams_go_in_either_direction_and_both() {
    let expected = "\
        2 3 5 7 11 13 17 19 23 29 are 10 primes\n\
        the sum is 435\n\
        100000 squares, the last is 10000000000\n";
    assert_eq!(output_of("streams"), expected);
}

#[test]
fn subscribe_tells_a_slow_listener_what_it_missed_and_disconnects_another() {
    let expected = "\
        every: 999 cents\n\
        last: 999 cents\n\
        every: 1001 cents\n\
        last: 1001 cents\n\
        server: a listener has missed 936 prices\n\
        last: 936 cents, the oldest that was kept\n\
        every: resource exhausted: more than 64 items waited to be taken\n";
    assert_eq!(output_of("subscribe"), expected);
}

#[test]
fn web_answers_with_what_it_was_answered() {
    let expected = "\
        /greet/world: HTTP/1.1 200 OK: Hello, world!\n\
        /greet/nobody: HTTP/1.1 404 Not Found: not found: there is nobody\n";
    assert_eq!(output_of("web"), expected);
}

#[test]
fn beside_tokio_serves_calls_and_stops() {
    assert_eq!(output_of("beside_tokio"), "99 cents\n199 cents\n299 cents\nclosed: unavailable\n");
}

#[test]
fn main_loop_has_calls_on_their_way() {
    assert_eq!(output_of("main_loop"), "1000 rounds, the sum is 249500\n");
}

#[test]
fn sharded_state_is_asked_for_where_it_is() {
    let expected = "\
        Ada has 3 points\n\
        Grace has 4 points\n\
        Ada has 8 points\n\
        all have 12 points\n";
    assert_eq!(output_of("sharded_state"), expected);
}
