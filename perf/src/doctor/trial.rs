//! Whether a server starts here with these settings, and answers a call: features are found by
//! trying, as the runtime does, whose errors say what is missing.

use std::net::{Ipv4Addr, SocketAddr};

use ringcall::ServerConfig;

use super::{
    finding::{Finding, State},
    report::shard_count,
};
use crate::{
    error::Failure,
    server::Server,
    target::{EchoClient, Payload},
};

pub(super) fn finding(config: &ServerConfig) -> Finding {
    judge(config.cores.as_ref().map_or(0, Vec::len), serve_and_call(config))
}

fn judge(shards: usize, outcome: Result<(), Failure>) -> Finding {
    let (topic, why) = ("server", "it shows that every feature is there that a server uses");
    match outcome {
        Ok(()) => {
            let found =
                format!("one with {} started here and answered a call", shard_count(shards));
            Finding::ok(topic, found, why)
        }
        Err(failure) => {
            Finding { state: State::Stop, ..Finding::ok(topic, failure.to_string(), why) }
        }
    }
}

fn serve_and_call(config: &ServerConfig) -> Result<(), Failure> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::with_config(any_port, config.clone())?;
    let address = server.address();
    let called = ringcall::run(async move {
        let echo = EchoClient::connect(address).await?;
        let reply = echo.echo(&Payload { bytes: &[7; 64] }).await;
        let failed =
            |status: ringcall::Status| Failure::CallsFailed { count: 1, first: status.to_string() };
        reply.map(drop).map_err(failed)
    });
    called??;
    server.stop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::fake::assert_finds;

    #[test]
    fn a_server_that_starts_is_good_and_one_that_does_not_says_why() {
        assert_finds(&judge(2, Ok(())), State::Ok, "2 shards started", "");
        let failure = Failure::Ring(ringcall::ring::RingError::Missing);
        assert_finds(&judge(2, Err(failure)), State::Stop, "this kernel has no io_uring", "");
    }
}
