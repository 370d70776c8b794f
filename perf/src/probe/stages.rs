//! Where a call's time went: its times taken apart into stages, and a histogram of each.
//!
//! The stages of one call add up to its whole time. Medians and percentiles of stages do not add
//! up to those of the whole: the call in the middle of one stage is not that of another.

use std::io;

use hdrhistogram::Histogram;
use ringcall::ServerTimes;
use serde::Serialize;

use super::clock::nanos;
use crate::error::Failure;

/// Longest time that is told apart from longer ones, in nanoseconds: 60 s.
const TIME_MAX_NS: u64 = 60_000_000_000;

/// Decimal digits of a time that are kept.
const TIME_DIGITS: u8 = 3;

/// The times of one call, in nanoseconds of CLOCK_MONOTONIC where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallTimes {
    /// When the call was to be made.
    pub(super) intended_ns: u64,
    /// Before the system call that sent it.
    pub(super) sent_ns: u64,
    /// It came to the queue before the device.
    pub(super) queued_ns: Option<u64>,
    /// The device's driver was given it.
    pub(super) driver_out_ns: Option<u64>,
    /// The server's kernel has acknowledged it.
    pub(super) acknowledged_ns: Option<u64>,
    /// The kernel was given the reply.
    pub(super) driver_in_ns: Option<u64>,
    /// After the system call that received the reply.
    pub(super) received_ns: u64,
    /// What the server told.
    pub(super) server: Option<ServerTimes>,
    /// From the NIC's stamp of the request to that of the reply, by the NIC's clock.
    pub(super) nic_to_nic_ns: Option<u64>,
}

/// Where the time of a probe's calls went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Stages {
    /// In the order in which a call goes through them; those that some call had.
    pub(crate) stages: Vec<Stage>,
    /// From a call's intended time until the probe had its reply.
    pub(crate) total: Stage,
    /// What else was seen of the same time; no part of the sum.
    pub(crate) details: Vec<Stage>,
    /// What could not be measured, and why.
    pub(crate) warnings: Vec<String>,
}

/// A part of the calls' time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// Calls in which it was measured.
    pub(crate) count: u64,
    pub(crate) mean_ns: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
}

/// The parts that a call's time is taken apart into. Those in the middle are one where the kernel
/// gives no stamps, or the server tells no times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    ClientQueue,
    ClientKernelOut,
    WireAndServerKernel,
    WireAndServer,
    WireAndKernels,
    AllBetween,
    ServerQueue,
    Handler,
    ClientKernelIn,
}

impl Part {
    /// In the order in which a call goes through them.
    const ALL: [Self; 9] = [
        Self::ClientQueue,
        Self::ClientKernelOut,
        Self::WireAndServerKernel,
        Self::WireAndServer,
        Self::WireAndKernels,
        Self::AllBetween,
        Self::ServerQueue,
        Self::Handler,
        Self::ClientKernelIn,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ClientQueue => "client queue",
            Self::ClientKernelOut => "client kernel out",
            Self::WireAndServerKernel => "wire and server kernel",
            Self::WireAndServer => "wire and server",
            Self::WireAndKernels => "wire and both kernels",
            Self::AllBetween => "wire, kernels and server",
            Self::ServerQueue => "server queue",
            Self::Handler => "handler",
            Self::ClientKernelIn => "client kernel in, wake-up",
        }
    }
}

impl CallTimes {
    fn total_ns(&self) -> u64 {
        self.received_ns.saturating_sub(self.intended_ns)
    }

    /// The parts of the call's time. What the server says may be anything: a part that would be
    /// longer than what it is a part of is as long.
    fn for_each_part(&self, mut part: impl FnMut(Part, u64)) {
        part(Part::ClientQueue, self.sent_ns.saturating_sub(self.intended_ns));
        // The rest is taken apart from the outside in.
        let kernel = self.driver_out_ns.zip(self.driver_in_ns);
        let (from_ns, to_ns) = kernel.unwrap_or((self.sent_ns, self.received_ns));
        if kernel.is_some() {
            part(Part::ClientKernelOut, from_ns.saturating_sub(self.sent_ns));
            part(Part::ClientKernelIn, self.received_ns.saturating_sub(to_ns));
        }
        let between_ns = to_ns.saturating_sub(from_ns);
        let whole = if kernel.is_some() { Part::WireAndServer } else { Part::AllBetween };
        let Some(server) = self.server else { return part(whole, between_ns) };
        let queue_ns = nanos(server.queue).min(between_ns);
        let handler_ns = nanos(server.handler).min(between_ns - queue_ns);
        let rest = if kernel.is_some() { Part::WireAndServerKernel } else { Part::WireAndKernels };
        part(rest, between_ns - queue_ns - handler_ns);
        part(Part::ServerQueue, queue_ns);
        part(Part::Handler, handler_ns);
    }
}

/// Histograms of all parts.
pub(super) struct Recorder {
    parts: Vec<Histogram<u64>>,
    total: Histogram<u64>,
    queued: Histogram<u64>,
    acknowledged: Histogram<u64>,
    nic_to_nic: Histogram<u64>,
    without_stamps: u64,
    without_server: u64,
}

impl Recorder {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            parts: Part::ALL.iter().map(|_| histogram()).collect::<Result<_, _>>()?,
            total: histogram()?,
            queued: histogram()?,
            acknowledged: histogram()?,
            nic_to_nic: histogram()?,
            without_stamps: 0,
            without_server: 0,
        })
    }

    pub(super) fn record(&mut self, times: &CallTimes) {
        self.total.saturating_record(times.total_ns());
        times.for_each_part(|part, ns| {
            if let Some(histogram) = self.parts.get_mut(part as usize) {
                histogram.saturating_record(ns);
            }
        });
        if let Some(queued_ns) = times.queued_ns {
            self.queued.saturating_record(queued_ns.saturating_sub(times.sent_ns));
        }
        if let Some((out_ns, acknowledged_ns)) = times.driver_out_ns.zip(times.acknowledged_ns) {
            self.acknowledged.saturating_record(acknowledged_ns.saturating_sub(out_ns));
        }
        if let Some(ns) = times.nic_to_nic_ns {
            self.nic_to_nic.saturating_record(ns);
        }
        let has_stamps = times.driver_out_ns.is_some() && times.driver_in_ns.is_some();
        self.without_stamps += u64::from(!has_stamps);
        self.without_server += u64::from(times.server.is_none());
    }

    /// What was recorded. `refused` is why the kernel gives no stamps, where it was asked in vain.
    pub(super) fn finish(self, refused: Option<&io::Error>) -> Stages {
        let warnings = self.warnings(refused);
        let parts = Part::ALL.into_iter().zip(&self.parts);
        let stages = parts.map(|(part, histogram)| Stage::of(part.name(), histogram));
        let details = [
            ("send to device queue", &self.queued),
            ("driver to acknowledgement", &self.acknowledged),
            ("NIC to NIC, by its clock", &self.nic_to_nic),
        ];
        let details = details.map(|(name, histogram)| Stage::of(name, histogram));
        Stages {
            stages: stages.filter(|stage| stage.count > 0).collect(),
            total: Stage::of("total", &self.total),
            details: details.into_iter().filter(|stage| stage.count > 0).collect(),
            warnings,
        }
    }

    fn warnings(&self, refused: Option<&io::Error>) -> Vec<String> {
        let calls = self.total.len();
        let mut warnings = Vec::new();
        if let Some(error) = refused {
            warnings.push(format!(
                "the kernel refuses timestamps ({error}): its part cannot be told from the wire's"
            ));
        } else if self.without_stamps > 0 {
            warnings.push(format!(
                "the kernel gave no timestamps for {} of {calls} calls: its part in them cannot be \
                 told from the wire's",
                self.without_stamps
            ));
        }
        if self.without_server > 0 {
            warnings.push(format!(
                "the server told no times of {} of {calls} calls: its part in them cannot be told \
                 from the wire's",
                self.without_server
            ));
        }
        warnings
    }
}

impl Stage {
    fn of(name: &'static str, histogram: &Histogram<u64>) -> Self {
        Self {
            name,
            count: histogram.len(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
        }
    }
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, TIME_MAX_NS, TIME_DIGITS)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;

    /// A call in which everything was measured.
    fn whole() -> CallTimes {
        CallTimes {
            intended_ns: 1_000,
            sent_ns: 1_100,
            queued_ns: Some(1_250),
            driver_out_ns: Some(1_300),
            acknowledged_ns: Some(1_700),
            driver_in_ns: Some(9_300),
            received_ns: 10_000,
            server: Some(server(500, 70)),
            nic_to_nic_ns: Some(7_000),
        }
    }

    fn server(queue_ns: u64, handler_ns: u64) -> ServerTimes {
        let [queue, handler] = [queue_ns, handler_ns].map(Duration::from_nanos);
        ServerTimes { queue, handler }
    }

    fn parts_of(times: &CallTimes) -> Vec<(&'static str, u64)> {
        let mut parts = Vec::new();
        times.for_each_part(|part, ns| parts.push((part, ns)));
        parts.sort_by_key(|(part, _)| *part as usize);
        parts.into_iter().map(|(part, ns)| (part.name(), ns)).collect()
    }

    #[test]
    fn a_call_is_taken_apart_in_order() {
        let expected = [
            ("client queue", 100),
            ("client kernel out", 200),
            ("wire and server kernel", 7_430),
            ("server queue", 500),
            ("handler", 70),
            ("client kernel in, wake-up", 700),
        ];
        assert_eq!(parts_of(&whole()), expected);
    }

    #[test]
    fn parts_have_their_places_among_the_histograms() {
        for (place, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, place);
        }
    }

    #[test]
    fn what_was_not_measured_is_part_of_what_is_around_it() {
        let no_stamps = CallTimes { driver_in_ns: None, ..whole() };
        let expected = [
            ("client queue", 100),
            ("wire and both kernels", 8_330),
            ("server queue", 500),
            ("handler", 70),
        ];
        assert_eq!(parts_of(&no_stamps), expected);
        let no_server = CallTimes { server: None, ..whole() };
        let expected = [
            ("client queue", 100),
            ("client kernel out", 200),
            ("wire and server", 8_000),
            ("client kernel in, wake-up", 700),
        ];
        assert_eq!(parts_of(&no_server), expected);
        let neither = CallTimes { server: None, ..no_stamps };
        let expected = [("client queue", 100), ("wire, kernels and server", 8_900)];
        assert_eq!(parts_of(&neither), expected);
    }

    #[test]
    fn the_parts_of_a_call_are_its_whole_time_whatever_the_server_says() {
        let longest = u64::from(u32::MAX);
        let told = [(0, 0), (500, 70), (8_000, 0), (0, 8_000), (7_999, 2), (longest, longest)];
        for (queue_ns, handler_ns) in told {
            for call in [whole(), CallTimes { driver_out_ns: None, ..whole() }] {
                let call = CallTimes { server: Some(server(queue_ns, handler_ns)), ..call };
                let sum: u64 = parts_of(&call).iter().map(|(_, ns)| ns).sum();
                assert_eq!(sum, call.total_ns(), "{queue_ns} and {handler_ns}");
            }
        }
    }

    #[test]
    fn stages_are_those_that_were_measured() {
        let mut recorder = Recorder::new().unwrap();
        for _ in 0..3 {
            recorder.record(&whole());
        }
        recorder.record(&CallTimes { queued_ns: None, nic_to_nic_ns: None, ..whole() });
        let stages = recorder.finish(None);
        let counts = |stages: &[Stage]| -> Vec<_> {
            stages.iter().map(|stage| (stage.name, stage.count)).collect()
        };
        assert_eq!(stages.stages.len(), 6);
        assert!(stages.stages.iter().all(|stage| stage.count == 4));
        let details = [
            ("send to device queue", 3),
            ("driver to acknowledgement", 4),
            ("NIC to NIC, by its clock", 3),
        ];
        assert_eq!(counts(&stages.details), details);
        // Three digits of a time are kept.
        assert!(stages.total.p50_ns.abs_diff(9_000) < 10, "{:?}", stages.total);
        assert_eq!(stages.total.count, 4);
        assert_eq!(stages.details[1].p999_ns, 400);
        assert!(stages.warnings.is_empty());
    }

    #[test]
    fn what_could_not_be_measured_is_said() {
        let mut recorder = Recorder::new().unwrap();
        recorder.record(&whole());
        recorder.record(&CallTimes { driver_out_ns: None, server: None, ..whole() });
        let warnings = recorder.finish(None).warnings;
        assert!(warnings[0].starts_with("the kernel gave no timestamps for 1 of 2 calls"));
        assert!(warnings[1].starts_with("the server told no times of 1 of 2 calls"));
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let warnings = Recorder::new().unwrap().finish(Some(&refused)).warnings;
        assert_eq!(warnings.len(), 1);
        let text = "the kernel refuses timestamps (permission denied): its part";
        assert!(warnings[0].starts_with(text), "{warnings:?}");
    }
}
