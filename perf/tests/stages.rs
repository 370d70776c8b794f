//! `stages` as it is run: against a server of its own, one elsewhere, and what is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    thread,
};

fn perf(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcall-perf"));
    command.args(args);
    command
}

/// A run of a time as short as can be; what is measured then means nothing.
fn stages(args: &[&str]) -> Output {
    let short = ["stages", "--duration", "200ms", "--warmup", "10ms", "--rate", "500"];
    perf(&[&short, args].concat()).output().unwrap()
}

fn stdout_of(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The last line on standard error, of a run that has failed.
fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "it printed results");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    stderr.lines().last().unwrap_or_default().to_owned()
}

/// A server, with the address that it printed.
struct Serve {
    child: Child,
    address: String,
}

impl Serve {
    fn start(target: &str) -> Self {
        let mut child = perf(&["serve", "--address", "127.0.0.1:0", "--target", target])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The medians of the table in nanoseconds, by stage.
fn medians(table: &str) -> Vec<(String, f64)> {
    let rows = table.lines().skip_while(|line| !line.starts_with("stage ")).skip(1);
    let rows = rows.take_while(|line| !line.is_empty());
    rows.map(|row| {
        let (before, _) = row.split_once(" µs").unwrap();
        let (name, median) = before.rsplit_once(' ').unwrap();
        (name.trim().to_owned(), median.parse::<f64>().unwrap() * 1000.0)
    })
    .collect()
}

/// Every stage is there, unless the kernel gives no stamps and the program has said so.
fn assert_is_whole(output: &Output) {
    let table = stdout_of(output);
    let medians = medians(&table);
    let names: Vec<&str> = medians.iter().map(|(name, _)| name.as_str()).collect();
    if String::from_utf8_lossy(&output.stderr).contains("timestamps") {
        assert!(names.ends_with(&["server queue", "handler", "total"]), "{table}");
    } else {
        let expected = [
            "client queue",
            "client kernel out",
            "wire and server kernel",
            "server queue",
            "handler",
            "client kernel in, wake-up",
            "total",
        ];
        assert_eq!(names, expected);
    }
    let total_ns = medians.last().unwrap().1;
    assert!(total_ns > 0.0, "{table}");
    assert!(table.contains(" calls at 500 a second in 200ms, after 10ms"), "{table}");
}

#[test]
fn a_server_of_its_own_is_measured() {
    assert_is_whole(&stages(&[]));
    let output = stages(&["--spin", "50us", "--size", "70000"]);
    assert_is_whole(&output);
    let table = stdout_of(&output);
    assert!(table.contains("spinning 50µs") && table.contains("70000 B each way"), "{table}");
}

#[test]
fn a_server_elsewhere_is_measured() {
    let server = Serve::start("ringcall");
    let output = stages(&[&server.address]);
    assert_is_whole(&output);
    assert!(stdout_of(&output).contains(&format!("server at {}", server.address)));
}

#[test]
fn what_is_no_server_is_told_as_such() {
    let floor = Serve::start("floor");
    let text = error_of(&stages(&[&floor.address]));
    assert!(text.starts_with(&format!("error: {} does not echo (", floor.address)), "{text}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let web = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 256]);
    });
    let text = error_of(&stages(&[&address]));
    let expected = "is `ringcall-perf serve --target ringcall` running there?";
    assert!(text.starts_with(&format!("error: {address} does not echo (")), "{text}");
    assert!(text.ends_with(expected), "{text}");
    web.join().unwrap();
}

#[test]
fn nobody_there_is_told_as_such() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = error_of(&stages(&[&free]));
    assert!(text.starts_with(&format!("error: cannot connect to {free}: ")), "{text}");
}

#[test]
fn what_cannot_be_is_refused() {
    let text = error_of(&stages(&["--core", "1000"]));
    assert!(text.starts_with("error: core 1000 is not there for this process"), "{text}");
    for args in [&["--rate", "0"][..], &["127.0.0.1:1", "--spin", "50us"], &["--size", "7"]] {
        assert_eq!(perf(&[&["stages"], args].concat()).output().unwrap().status.code(), Some(2));
    }
}
