//! What joins the two namespaces: a veth pair, or two TUN devices with an emulated link between
//! them; addresses and the limit of the rate are the same on both.

use std::net::Ipv4Addr;

use super::{
    NetnsError,
    link::{LinkDirection, LinkPlan, PACKETS_MAX},
    namespace::{Namespace, NetSide, ip, tc},
    tun::{self, EmulatedLink},
};
use crate::{error::Failure, netns::parse::BitsPerSecond};

/// The device in either namespace.
pub(super) const DEVICE: &str = "link0";

/// Bytes of 10 full frames: less than that at a time and a slow link would be a slower one.
const BURST_MIN_BYTES: u64 = 10 * 1514;

/// Bytes that may wait for a slow link: what a sender has in flight at first, several times over.
const QUEUE_MIN_BYTES: u64 = 64 * 1024;

/// What link is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkOptions {
    /// Without a limit where none.
    pub(super) rate: Option<BitsPerSecond>,
    /// A veth pair where none.
    pub(super) emulated: Option<LinkPlan>,
    pub(super) seed: u64,
}

/// How a rate is kept: the parameters of the token bucket filter, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TokenBucket {
    /// What may be sent at once after a silence: a millisecond's worth.
    burst: u64,
    /// What may wait, beside that: ten milliseconds' worth, about what a port of a switch has. More
    /// is dropped.
    queue: u64,
}

/// The address of a side: of the range that RFC 2544 sets aside for measurements between hosts, so
/// that it is nobody's. Every run has the same, since no two see each other.
pub(super) fn address(side: NetSide) -> Ipv4Addr {
    match side {
        NetSide::Server => Ipv4Addr::new(198, 18, 0, 1),
        NetSide::Client => Ipv4Addr::new(198, 18, 0, 2),
    }
}

/// Joins the namespaces. Gives the link where it is emulated; the kernel has it otherwise, and it
/// goes with the namespaces.
pub(super) fn connect(
    server: &Namespace,
    client: &Namespace,
    options: &LinkOptions,
) -> Result<Option<EmulatedLink>, Failure> {
    let sides = [(server, NetSide::Server), (client, NetSide::Client)];
    let Some(plan) = options.emulated else {
        add_veth(server, client)?;
        sides.iter().try_for_each(|(namespace, side)| bring_up(namespace, *side, options.rate))?;
        return Ok(None);
    };
    let devices = [tun::open(server, DEVICE)?, tun::open(client, DEVICE)?];
    sides.iter().try_for_each(|(namespace, side)| bring_up(namespace, *side, options.rate))?;
    let directions = [
        LinkDirection::new(plan, options.seed, PACKETS_MAX)?,
        // Not the same packets both ways.
        LinkDirection::new(plan, !options.seed, PACKETS_MAX)?,
    ];
    Ok(Some(EmulatedLink::start(devices, directions)?))
}

fn add_veth(server: &Namespace, client: &Namespace) -> Result<(), NetnsError> {
    let cure = "the kernel must have veth devices (`modprobe veth`) and a container the right \
                to make them (CAP_NET_ADMIN)";
    let peer = ["peer", "name", DEVICE, "netns", client.name()];
    let add = ["link", "add", DEVICE, "netns", server.name(), "type", "veth"];
    ip(&[&add[..], &peer].concat(), cure).map(drop)
}

/// Gives the device of a side its address and its limit, and turns it on.
fn bring_up(
    namespace: &Namespace,
    side: NetSide,
    rate: Option<BitsPerSecond>,
) -> Result<(), NetnsError> {
    let address = format!("{}/30", address(side));
    let cure = "look into the namespace while it is there with `ip -n NAME address`";
    ip(&["-n", namespace.name(), "address", "add", &address, "dev", DEVICE], cure)?;
    if let Some(rate) = rate {
        let TokenBucket { burst, queue } = TokenBucket::of(rate);
        let (bits, burst, limit) =
            (format!("{}bit", rate.0), format!("{burst}b"), format!("{}b", burst + queue));
        let add = ["-n", namespace.name(), "qdisc", "add", "dev", DEVICE, "root", "tbf"];
        let how = ["rate", &bits, "burst", &burst, "limit", &limit];
        let cure = "the kernel must have the token bucket filter (`modprobe sch_tbf`) for --rate";
        tc(&[&add[..], &how].concat(), cure)?;
    }
    ip(&["-n", namespace.name(), "link", "set", DEVICE, "up"], cure).map(drop)
}

impl TokenBucket {
    fn of(rate: BitsPerSecond) -> Self {
        let bytes_per_ms = rate.0 / 8 / 1000;
        Self {
            burst: bytes_per_ms.max(BURST_MIN_BYTES),
            queue: (10 * bytes_per_ms).max(QUEUE_MIN_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_rate_lets_a_millisecond_pass_at_once_and_ten_wait() {
        let bucket = TokenBucket::of(BitsPerSecond(1_000_000_000));
        assert_eq!(bucket, TokenBucket { burst: 125_000, queue: 1_250_000 });
    }

    #[test]
    fn a_slow_link_still_takes_whole_frames() {
        let bucket = TokenBucket::of(BitsPerSecond(64_000));
        assert_eq!(bucket, TokenBucket { burst: 15_140, queue: 65_536 });
    }
}
