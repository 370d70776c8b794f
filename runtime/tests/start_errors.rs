//! Servers and clients that cannot start as they are told to: the error says what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    cell::Cell,
    future::Future,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use ringcall::{
    ConnectError, Placement, RunConfig, ServeError, ServerBuilder, ShardConfig, ShardError,
    prelude::*, ring::RingError,
};
use support::{
    server::usable_cores,
    station::{ANY_PORT, Number, Porter, StationClient, StationServer, cores, run},
    text::assert_says,
    wait::watched,
};

/// The error of a server that cannot start.
#[track_caller]
fn refusal(builder: ServerBuilder, address: SocketAddr) -> String {
    let server = builder.serve(address, |_| -> StationServer<Porter> { panic!("no shard starts") });
    server.map(drop).unwrap_err().to_string()
}

#[test]
fn a_port_in_use_is_an_error_that_says_what_to_do() {
    // It does not share its port.
    let holder = TcpListener::bind(ANY_PORT).unwrap();
    let address = holder.local_addr().unwrap();
    for shards in [1, 2] {
        let error = refusal(Server::builder().cores(cores(shards)), address);
        assert_says(&error, &[&address.to_string(), "another program", "ss -ltnp"]);
    }
}

#[test]
fn an_address_of_another_host_is_an_error_that_says_what_to_do() {
    // Set aside for documentation: nobody has it.
    let address = "192.0.2.1:0".parse().unwrap();
    let error = refusal(Server::builder().cores(cores(1)), address);
    assert_says(&error, &["192.0.2.1", "ip address"]);
}

#[test]
fn a_core_that_does_not_exist_is_an_error_that_says_which_do() {
    let available = usable_cores();
    let named: Vec<_> = available.iter().map(usize::to_string).collect();
    for core in [1023, 1024, usize::MAX] {
        let error = refusal(Server::builder().cores([available[0], core]), ANY_PORT);
        assert_says(&error, &[&format!("core {core} is not there"), "node 0 has cores"]);
        let error = RunConfig::new().core(core).run(async {}).unwrap_err();
        assert_says(&error.to_string(), &[&format!("core {core}"), &named.join(", ")]);
    }
}

#[test]
fn no_core_or_too_many_are_an_error_that_says_how_many() {
    let first = usable_cores()[0];
    let error = refusal(Server::builder().cores([]), ANY_PORT);
    assert_says(&error, &["0 cores", "1 to 1024"]);
    let error = refusal(Server::builder().cores([first; 1025]), ANY_PORT);
    assert_says(&error, &["1025 cores", "1 to 1024"]);
    let error = refusal(Server::builder().placement(Placement::threads().count(0)), ANY_PORT);
    assert_says(&error, &["0 cores", "1 to 1024"]);
}

#[test]
fn a_placement_that_the_host_has_no_cores_for_is_an_error_that_says_what_it_has() {
    let none = Placement::physical().skip(usable_cores());
    for (placement, says) in [
        (Placement::threads().node(1023), "node 1023 is not there"),
        (Placement::threads().count(1025), "1025 shards are wanted"),
        (none, "the placement leaves 0 cores"),
    ] {
        let error = refusal(Server::builder().placement(placement), ANY_PORT);
        assert_says(&error, &[says, "node 0 has cores"]);
    }
}

#[test]
fn a_name_without_an_address_is_an_error() {
    let none: &[SocketAddr] = &[];
    let server = Server::builder().cores(cores(1));
    let server = server.serve(none, |_| -> StationServer<Porter> { panic!("no shard starts") });
    assert!(matches!(server, Err(ServeError::NoAddress)));
    let client = run(async { StationClient::connect(none).await.map(drop) });
    assert!(matches!(client, Err(ConnectError::NoAddress)));
}

#[test]
fn a_setting_out_of_bounds_is_an_error_that_says_the_bounds() {
    let new = ShardConfig::new;
    let cases: [(ShardConfig, &[&str]); 21] = [
        (new().ring_entries(0), &["ring_entries is 0", "8 to 32768"]),
        (new().ring_entries(4), &["ring_entries is 4", "8 to 32768"]),
        (new().ring_entries(9), &["ring_entries is 9", "power of two"]),
        (new().ring_entries(65_536), &["ring_entries is 65536", "8 to 32768"]),
        (new().ring_entries(u32::MAX), &["ring_entries", "8 to 32768"]),
        (new().receive_buffers(0, 4096), &["receive_buffers count is 0", "4 to 32768"]),
        (new().receive_buffers(2, 4096), &["receive_buffers count is 2", "4 to 32768"]),
        (new().receive_buffers(100, 4096), &["count is 100", "power of two"]),
        (new().receive_buffers(65_535, 4096), &["count is 65535", "32768"]),
        (new().receive_buffers(8, 0), &["receive_buffers len is 0", "multiple of 4096"]),
        (new().receive_buffers(8, 4095), &["len is 4095", "multiple of 4096"]),
        (new().receive_buffers(8, 6000), &["len is 6000", "multiple of 4096"]),
        (new().receive_buffers(8, (1 << 20) + 4096), &["len is 1052672", "1 MiB"]),
        (new().receive_buffers(32_768, 1 << 20), &["1 GiB"]),
        (new().frame_len_max(0), &["frame_len_max is 0", "64 KiB to 1 GiB"]),
        (new().frame_len_max(65_535), &["frame_len_max is 65535", "64 KiB"]),
        (new().frame_len_max((1 << 30) + 1), &["frame_len_max is 1073741825", "1 GiB"]),
        (new().calls_in_flight_max(0), &["calls_in_flight_max is 0", "1 to 1048576"]),
        (new().calls_in_flight_max((1 << 20) + 1), &["is 1048577", "1 to 1048576"]),
        (new().send_buffer_max(0), &["send_buffer_max is 0", "at least 4096"]),
        (new().send_buffer_max(4095), &["send_buffer_max is 4095", "at least 4096"]),
    ];
    for (config, texts) in cases {
        let server = Server::builder().cores(cores(1)).shard(config.clone());
        assert_says(&refusal(server, ANY_PORT), texts);
        let error = RunConfig::new().shard(config).run(async {}).unwrap_err();
        assert_says(&error.to_string(), texts);
    }
}

#[test]
fn settings_at_their_bounds_are_accepted() {
    watched(|| {
        let new = ShardConfig::new;
        let cases = [
            new().ring_entries(8),
            new().ring_entries(32_768),
            new().receive_buffers(4, 4096),
            new().receive_buffers(4, 1 << 20),
            new().receive_buffers(32_768, 4096),
            new().frame_len_max(65_536),
            new().frame_len_max(1 << 30),
            new().calls_in_flight_max(1),
            new().calls_in_flight_max(1 << 20),
            new().send_buffer_max(4096),
            new().send_buffer_max(usize::MAX),
            new().spin(Duration::from_micros(50)),
        ];
        for config in cases {
            let server = Server::builder().cores(cores(1)).shard(config.clone());
            let server = server.serve(ANY_PORT, |_| {
                StationServer::new(Porter { served: Cell::new(0), waiting: Arc::default() })
            });
            let server = match server {
                Err(ServeError::Shard(ShardError::Ring(RingError::Memlock { .. }))) => {
                    println!("not tried, as too little memory may be locked: {config:?}");
                    continue;
                }
                server => server.unwrap(),
            };
            let run = RunConfig::new().shard(config).run(async {
                let station = StationClient::connect(server.address()).await.unwrap();
                for number in 0..100 {
                    let reply = station.add(&Number { number }).await.unwrap();
                    assert_eq!(reply.number, number + 1);
                    let reply = station.wait(&Number { number }).await.unwrap();
                    assert_eq!(reply.number, number + 1);
                }
            });
            run.unwrap();
        }
    });
}

#[test]
fn a_client_without_an_executor_is_an_error_that_says_what_to_do() {
    let mut connect = Box::pin(StationClient::connect(ANY_PORT));
    let mut cx = TaskContext::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = connect.as_mut().poll(&mut cx) else {
        panic!("there is no executor")
    };
    assert!(matches!(error, ConnectError::Shard(ShardError::NoExecutor)));
    assert_says(&error.to_string(), &["no executor", "ringcall::run"]);
}

#[test]
fn running_inside_of_an_executor_is_an_error_that_says_what_to_do() {
    run(async {
        let error = ringcall::run(async {}).unwrap_err();
        assert!(matches!(error, ShardError::ExecutorRuns));
        assert_says(&error.to_string(), &["already", "await"]);
        // The one that runs goes on.
        ringcall::sleep(Duration::from_micros(10)).await;
    });
}
