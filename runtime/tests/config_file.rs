//! Settings from a file: each key, and what is wrong in words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{cell::Cell, collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

use ringcall::{Compression, ConfigFileError, ServerConfig, ShardConfig, SocketConfig, prelude::*};
use support::{
    station::{ANY_PORT, Porter, StationServer, cores},
    text::assert_says,
};

/// The file that documents every key.
const EXAMPLE: &str = include_str!("../../examples/ringcall.toml");

/// The document with a row for every key.
const TUNING: &str = include_str!("../../docs/tuning.md");

fn with_shard(shard: ShardConfig) -> ServerConfig {
    let mut config = ServerConfig::new();
    config.shard = shard;
    config
}

fn with_socket(socket: SocketConfig) -> ServerConfig {
    let mut config = ServerConfig::new();
    config.socket = socket;
    config
}

/// Every key with a value that is not its default, and the same set in code.
fn every_key() -> Vec<(&'static str, &'static str, &'static str, ServerConfig)> {
    let ms = Duration::from_millis;
    let s = Duration::from_secs;
    let shard = ShardConfig::new;
    let (mut of_cores, mut of_backlog) = (ServerConfig::new(), ServerConfig::new());
    of_cores.cores = Some(vec![1, 0, 1]);
    of_backlog.backlog = 9;
    let of_shard = [
        ("spin_us", "20", shard().spin(Duration::from_micros(20))),
        ("receive_buffers", "512", shard().receive_buffers(512, 16_384)),
        ("receive_buffer_bytes", "8192", shard().receive_buffers(1024, 8192)),
        ("ring_entries", "64", shard().ring_entries(64)),
        ("send_buffer_max_bytes", "65536", shard().send_buffer_max(65_536)),
        ("frame_len_max_bytes", "65536", shard().frame_len_max(65_536)),
        ("calls_in_flight_max", "3", shard().calls_in_flight_max(3)),
        ("calls_max", "4", shard().calls_max(4)),
        ("memory_max_bytes", "5", shard().memory_max(5)),
        ("stream_window_bytes", "4096", shard().stream_windows(4096, 16 << 20)),
        ("connection_window_bytes", "8192", shard().stream_windows(256 << 10, 8192)),
        ("deadline_min_ms", "0.5", {
            shard().deadlines(Duration::from_micros(500), Duration::MAX)
        }),
        ("deadline_max_ms", "250", shard().deadlines(Duration::ZERO, ms(250))),
        ("deadline_default_ms", "7.25", shard().default_deadline(Duration::from_micros(7250))),
        ("compression", "\"zstd:7\"", shard().compression(Compression::Zstd(7), 4096)),
        ("compress_from_bytes", "99", shard().compression(Compression::None, 99)),
        ("checksums", "true", shard().checksums(true)),
        ("hello_timeout_s", "0.001", shard().hello_timeout(ms(1))),
        ("frame_timeout_s", "2", shard().frame_timeout(s(2), 65_536)),
        ("frame_bytes_per_s_min", "9", shard().frame_timeout(s(5), 9)),
        ("keepalive_after_s", "1.5", shard().keepalive(ms(1500), s(10))),
        ("keepalive_answer_s", "3", shard().keepalive(s(30), s(3))),
        ("idle_timeout_s", "60", shard().idle_timeout(s(60))),
        ("age_max_s", "3600", shard().age_max(s(3600), 0)),
        ("age_jitter_percent", "20", shard().age_max(Duration::ZERO, 20)),
        ("metrics", "false", shard().metrics(false)),
        ("slow_call_us", "250", shard().slow_call(Duration::from_micros(250))),
    ];
    let socket = SocketConfig::new;
    let of_socket = [
        ("so_rcvbuf_bytes", "65536", socket().receive_buffer_bytes(65_536)),
        ("so_sndbuf_bytes", "131072", socket().send_buffer_bytes(131_072)),
        ("tcp_keepalive_s", "60", socket().keepalive(s(60))),
        ("busy_poll_us", "50", socket().busy_poll(Duration::from_micros(50))),
    ];
    let mut keys = vec![("", "cores", "[1, 0, 1]", of_cores), ("", "backlog", "9", of_backlog)];
    keys.extend(of_shard.map(|(key, value, it)| ("shard", key, value, with_shard(it))));
    keys.extend(of_socket.map(|(key, value, it)| ("socket", key, value, with_socket(it))));
    keys
}

/// The keys of a file, commented out or not, as `shard.spin_us`.
fn keys_of(text: &str) -> BTreeSet<String> {
    let mut table = "";
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if !line.starts_with("# ")
            && let Some((key, _)) = line.trim_start_matches('#').split_once(" = ")
        {
            keys.insert(format!("{table}.{key}"));
        }
    }
    keys
}

fn refusal(text: &str) -> String {
    ServerConfig::from_toml(text).unwrap_err().to_string()
}

#[test]
fn each_key_sets_what_it_names_and_is_written_again() {
    for (table, key, value, expected) in every_key() {
        let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let config = ServerConfig::from_toml(&format!("{head}{key} = {value}\n")).unwrap();
        assert_eq!(format!("{config:?}"), format!("{expected:?}"), "{key}");
        assert_ne!(format!("{config:?}"), format!("{:?}", ServerConfig::new()), "{key}");
        let written = config.to_toml();
        let set: Vec<&str> = written
            .lines()
            .filter(|line| !line.starts_with(['#', '[']) && !line.is_empty())
            .collect();
        assert_eq!(set, [format!("{key} = {value}")]);
        let again = ServerConfig::from_toml(&written).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"), "{key}");
    }
}

#[test]
fn no_key_is_forgotten_by_a_test_the_example_or_the_document() {
    let written = keys_of(&ServerConfig::new().to_toml());
    let tested = every_key().into_iter().map(|(table, key, ..)| format!("{table}.{key}")).collect();
    assert_eq!(written, tested);
    for key in &written {
        let (table, name) = key.split_once('.').unwrap();
        let row = match table {
            "" => format!("| `{name}` |"),
            _ => format!("| `[{table}]` `{name}` |"),
        };
        assert!(TUNING.contains(&row), "docs/tuning.md has no row that begins with {row}");
    }
}

/// What the file must be is printed where it is not.
#[test]
fn the_example_is_the_defaults() {
    let written = ServerConfig::new().to_toml();
    assert!(EXAMPLE.ends_with(&written), "examples/ringcall.toml must end with:\n{written}");
    let (head, _) = EXAMPLE.split_once(&written).unwrap();
    assert!(head.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{head}");
    // As it is, and with every default named that there is.
    let commented = ServerConfig::from_toml(EXAMPLE).unwrap();
    let named: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut named = ServerConfig::from_toml(&named).unwrap();
    assert_eq!(named.cores.take(), Some(vec![0, 1]));
    // Of what has no default the example names one.
    named.socket = SocketConfig::new();
    named.shard = named.shard.deadlines(Duration::ZERO, Duration::MAX);
    assert_eq!(format!("{commented:?}"), format!("{:?}", ServerConfig::new()));
    let mut default = ServerConfig::new();
    default.shard = default.shard.slow_call(Duration::from_millis(1));
    assert_eq!(format!("{named:?}"), format!("{default:?}"));
}

#[test]
fn a_key_that_does_not_exist_is_refused_with_the_nearest() {
    for (text, says) in [
        ("spin = 5", &["line 1", "no setting `spin`", "`spin_us`, in the table [shard]"][..]),
        ("\n[shard]\nring_entires = 5", &["line 3", "`ring_entires`", "nearest is `ring_entries`"]),
        ("spin_us = 5", &["line 1", "`spin_us`", "belongs in the table [shard]"]),
        ("[shard]\ncores = [1]", &["line 2", "`cores`", "belongs before the first table"]),
        (
            "[socket]\nbusy_poll = 1",
            &["line 2", "nearest is `busy_poll_us`, in the table [socket]"],
        ),
        ("[shards]\n", &["line 1", "no setting `shards`"]),
        ("shard.spin.us = 1", &["line 1", "no setting `spin`", "nearest is `spin_us`"]),
    ] {
        assert_says(&refusal(text), says);
    }
}

#[test]
fn a_value_of_a_wrong_type_is_refused_with_what_is_wanted() {
    for (text, says) in [
        ("[shard]\nspin_us = \"50us\"", &["line 2", "`spin_us = \"50us\"`", "number of micro"][..]),
        ("[shard]\nspin_us = -1", &["`spin_us = -1`", "not negative"]),
        ("[shard]\nspin_us = nan", &["`spin_us = nan`", "number of microseconds"]),
        ("[shard]\nspin_us = inf", &["`spin_us = inf`", "number of microseconds"]),
        ("[shard]\nspin_us = 99999999999999999999", &["number of microseconds"]),
        ("[shard]\ndeadline_default_ms = 4294968", &["milliseconds from 0 to 4294967"]),
        ("[shard]\nring_entries = 64.0", &["`ring_entries = 64.0`", "whole number"]),
        ("[shard]\nreceive_buffers = 65536", &["whole number up to 65535"]),
        ("[shard]\nage_jitter_percent = 256", &["whole number up to 255"]),
        ("[shard]\nchecksums = 1", &["`checksums = 1`", "true or false"]),
        ("[shard]\ncompression = \"gzip\"", &["`compression = \"gzip\"`", "\"lz4\"", "\"zstd:3\""]),
        ("[shard]\ncompression = \"zstd:\"", &["\"zstd:3\""]),
        ("cores = 2", &["`cores = 2`", "as [0, 1]"]),
        ("cores = []", &["`cores = []`", "1 to 1024 cores"]),
        ("cores = [0, \"1\"]", &["as [0, 1]"]),
        ("backlog = true", &["`backlog = true`", "whole number"]),
        ("shard = 1", &["line 1", "`shard = 1`", "write [shard]"]),
        ("[socket]\nbusy_poll_us = [1]", &["`busy_poll_us = [1]`", "microseconds"]),
    ] {
        assert_says(&refusal(text), says);
    }
}

#[test]
fn an_impossible_value_is_refused_with_its_bounds() {
    for (text, says) in [
        ("backlog = 0", &["line 1: `backlog = 0`: must be at least 1"][..]),
        ("[shard]\nring_entries = 1000", &["line 2", "`ring_entries = 1000`", "power of two"]),
        ("[shard]\nreceive_buffers = 1000", &["`receive_buffers = 1000`", "power of two"]),
        ("[shard]\nreceive_buffer_bytes = 1000", &["multiple of 4096"]),
        (
            "[shard]\nreceive_buffers = 32768\nreceive_buffer_bytes = 65536",
            &["line 2", "`receive_buffers = 32768`", "1 GiB in all"],
        ),
        ("[shard]\nsend_buffer_max_bytes = 0", &["`send_buffer_max_bytes = 0`", "at least 4096"]),
        ("[shard]\nframe_len_max_bytes = 1", &["from 64 KiB to 1 GiB"]),
        ("[shard]\ncalls_in_flight_max = 0", &["`calls_in_flight_max = 0`", "from 1"]),
        ("[shard]\ncalls_max = 0", &["`calls_max = 0`", "at least 1"]),
        ("[shard]\nstream_window_bytes = 1", &["`stream_window_bytes = 1`", "from 4096"]),
        ("[shard]\nconnection_window_bytes = 1", &["`connection_window_bytes = 1`"]),
        (
            "[shard]\ndeadline_max_ms = 1\ndeadline_min_ms = 2",
            &["line 3", "`deadline_min_ms = 2`", "at most the longest"],
        ),
        (
            "[shard]\ndeadline_max_ms = 5\ndeadline_default_ms = 6",
            &["line 3", "`deadline_default_ms = 6`", "between"],
        ),
        ("[shard]\ncompression = \"zstd:20\"", &["`compression = \"zstd:20\"`", "from 1 to 19"]),
        ("[shard]\nkeepalive_after_s = 0.01", &["`keepalive_after_s = 0.01`", "at least 100 ms"]),
        ("[shard]\nage_jitter_percent = 101", &["from 0 to 100"]),
        ("[socket]\ntcp_keepalive_s = 0.5", &["`tcp_keepalive_s = 0.5`", "whole seconds"]),
        ("[socket]\nso_rcvbuf_bytes = 1", &["`so_rcvbuf_bytes = 1`", "from 4096"]),
        ("[socket]\nso_sndbuf_bytes = 1", &["`so_sndbuf_bytes = 1`", "from 4096"]),
        ("[socket]\nbusy_poll_us = 3_000_000_000", &["line 2", "35 minutes"]),
    ] {
        assert_says(&refusal(text), says);
    }
}

#[test]
fn a_text_that_is_no_toml_is_refused_with_its_line() {
    for (text, line) in [
        ("cores = [0\nbacklog = 5\n", "line "),
        ("\n\nbacklog 5\n", "line 3"),
        ("backlog = 5\nbacklog = 6\n", "line 2: duplicate key"),
        ("[shard]\n[shard]\n", "line 2"),
        ("backlog = \"\u{0}\"", "line 1"),
    ] {
        assert_says(&refusal(text), &[line]);
    }
    // Deep nesting and long values must not take the stack, nor the screen.
    assert_says(&refusal(&("cores = ".to_owned() + &"[".repeat(100_000))), &["line 1"]);
    let long = refusal(&format!("[shard]\ncompression = \"{}\"", "x".repeat(100_000)));
    assert!(long.len() < 300, "{long}");
}

/// A file that is gone at the end of a test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> Self {
        let name = format!("ringcall-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn an_error_in_a_file_names_it() {
    let file = TempFile::new("wrong.toml", b"# of mine\n[shard]\nspin_us = true\n");
    let error = ServerConfig::from_file(&file.0).unwrap_err().to_string();
    assert_says(&error, &[&format!("{}, line 3: `spin_us = true`", file.0.display())]);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
    let error = ServerConfig::from_file("/no/such/ringcall.toml").unwrap_err();
    assert!(matches!(error, ConfigFileError::Read { .. }));
    assert_says(&error.to_string(), &["/no/such/ringcall.toml", "No such file"]);
    let binary = TempFile::new("binary.toml", &[0xff; 16]);
    let error = ServerConfig::from_file(&binary.0).unwrap_err().to_string();
    assert_says(&error, &["cannot read", "UTF-8"]);
    // Endless, and of zeros.
    let error = ServerConfig::from_file("/dev/zero").unwrap_err();
    assert!(matches!(error, ConfigFileError::TooLong { .. }), "{error}");
    assert_says(&error.to_string(), &["/dev/zero", "1048576 bytes"]);
}

#[test]
fn a_server_runs_with_the_settings_of_a_file() {
    let core = cores(1)[0];
    let text = format!("cores = [{core}]\nbacklog = 16\n[shard]\nspin_us = 5\nring_entries = 64\n");
    let file = TempFile::new("right.toml", text.as_bytes());
    let config = ServerConfig::from_file(&file.0).unwrap();
    let server = Server::builder().config(config);
    let porter = |_| Porter { served: Cell::default(), waiting: Arc::default() };
    let server = server.serve(ANY_PORT, move |shard| StationServer::new(porter(shard))).unwrap();
    assert_eq!(server.counters().len(), 1);
    server.stop();
    server.join().unwrap();
}
