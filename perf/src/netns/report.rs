//! What an emulated link did, in words.

use std::fmt::Write;

use super::{
    NetnsError,
    link::{LinkCounts, LinkDirection},
};

/// Two lines: from the server to the client, and back. `unread` are the packets each way that the
/// kernel dropped before the link saw them, where that is known.
pub(super) fn describe(
    directions: &[LinkDirection; 2],
    unread: [Result<u64, NetnsError>; 2],
) -> String {
    let mut text = String::new();
    let names = ["server → client", "client → server"];
    for ((name, direction), unread) in names.iter().zip(directions).zip(unread) {
        let LinkCounts { arrived, lost, dropped, held_back, overtaken, left } = direction.counts();
        let unread = unread.map_or_else(|_| "?".to_owned(), |unread| unread.to_string());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "link {name}: {arrived} packets, {lost} lost, {dropped} dropped by the full queue, \
             {unread} by the full device, {held_back} held back, {overtaken} overtaken"
        );
        if left > 0 {
            let delays_ns = direction.delays_ns();
            // All three at the same end of their bucket.
            let [min, median, max] =
                [delays_ns.min(), delays_ns.value_at_quantile(0.5), delays_ns.max()]
                    .map(|ns| delays_ns.highest_equivalent(ns) as f64 / 1e3);
            let _ = write!(text, "; delay {min:.1} µs min, {median:.1} median, {max:.1} max");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;
    use crate::netns::{link::LinkPlan, parse::PartsPerMillion};

    #[test]
    fn both_directions_are_told_apart_and_one_without_packets_has_no_delay() {
        let plan = LinkPlan { delay: Duration::from_micros(200), ..LinkPlan::default() };
        let mut from_server = LinkDirection::new(plan, 1, 1).unwrap();
        from_server.handle_arrival(Duration::ZERO, &[0]);
        from_server.handle_arrival(Duration::ZERO, &[0]);
        assert!(from_server.take_due(Duration::from_micros(256)).is_some());
        let plan = LinkPlan { loss: PartsPerMillion(1_000_000), ..LinkPlan::default() };
        let mut from_client = LinkDirection::new(plan, 1, 1).unwrap();
        from_client.handle_arrival(Duration::ZERO, &[0]);
        let unknown = Err(NetnsError::LinkPanicked);
        let text = describe(&[from_server, from_client], [Ok(3), unknown]);
        let expected = "link server → client: 2 packets, 0 lost, 1 dropped by the full queue, \
                        3 by the full device, 0 held back, 0 overtaken; delay 256.1 µs min, \
                        256.1 median, 256.1 max\n\
                        link client → server: 1 packets, 1 lost, 0 dropped by the full queue, \
                        ? by the full device, 0 held back, 0 overtaken\n";
        assert_eq!(text, expected);
    }
}
