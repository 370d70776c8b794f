//! What a call costs each side besides CPU time: switches, syscalls, copies, instructions.
//!
//! Everything is read by the main thread when measuring begins and when it ends. Syscalls and
//! copies are what the sides count of themselves anyway; switches are the kernel's count for each
//! thread; instructions and cycles are the processor's, where it has counters that this process
//! may use. Nothing here is on the path of a call.
//!
//! Allocations are those of the whole process, as its allocator counts them (`allocations`): of both
//! sides where both are in it.

use std::{io, time::Instant};

use perf_event::{
    Builder, Counter,
    events::{Event, Hardware},
};
use ringcall::ShardCounters;
use serde::Serialize;

use crate::{
    allocations::{Allocations, ProcessCost},
    generator::median,
    measure::{Run, ServerFigures},
    threads::{self, Switches, Threads},
};

/// What is watched of both sides while it is measured.
pub(crate) struct Watch {
    /// None where the server is another process.
    server: Option<Side>,
    client: Side,
    /// Sides of the run in this process.
    sides: u32,
    /// What is to be known of instructions and cycles.
    note: Option<String>,
}

/// What was read of both sides at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    server: Option<SideReading>,
    client: SideReading,
    allocations: Option<Allocations>,
    at: Instant,
}

/// What calls cost, each side by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Costs {
    /// None where the server is another process.
    pub(crate) server: Option<SideCost>,
    pub(crate) client: SideCost,
    pub(crate) process: ProcessCost,
    /// What is to be known of instructions and cycles: why there are none, or which are missing.
    pub(crate) note: Option<String>,
}

/// What a call costs one side. Every figure is the mean of the calls that were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct SideCost {
    /// Times that a thread gave its core up to wait; none where a thread ended before.
    pub(crate) voluntary_switches: Option<f64>,
    /// Times that it was taken from a thread.
    pub(crate) involuntary_switches: Option<f64>,
    /// Calls of `io_uring_enter`.
    pub(crate) enters: f64,
    pub(crate) sends: f64,
    /// Frames that were received and copied; none for a floor, which does not count them.
    pub(crate) copies: Option<f64>,
    pub(crate) bytes_copied: Option<f64>,
    /// None where the processor has no counters for this process.
    pub(crate) instructions: Option<f64>,
    pub(crate) cycles: Option<f64>,
}

/// The threads of a side, with the processor's counters of each.
struct Side {
    threads: Threads,
    hardware: Vec<HardwareCounters>,
}

/// The processor's counters of one thread.
struct HardwareCounters {
    instructions: Counter,
    cycles: Counter,
}

#[derive(Clone, Copy, Debug)]
struct SideReading {
    switches: Option<Switches>,
    hardware: Option<HardwareCounts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct HardwareCounts {
    instructions: u64,
    cycles: u64,
}

impl Watch {
    /// Begins to watch the threads that there are now: those of a run that is ready to begin.
    pub(crate) fn begin(is_server_here: bool) -> Self {
        let server = is_server_here.then(|| Threads::named(threads::SERVER));
        let client = Threads::named(threads::CLIENT);
        let all: Vec<&Threads> = server.iter().chain([&client]).collect();
        let (mut hardware, note) = count(&all);
        let client_hardware = hardware.pop().unwrap_or_default();
        let server_hardware = hardware.pop().unwrap_or_default();
        Self {
            server: server.map(|threads| Side { threads, hardware: server_hardware }),
            client: Side { threads: client, hardware: client_hardware },
            sides: 1 + u32::from(is_server_here),
            note,
        }
    }

    /// What was counted up to now.
    pub(crate) fn read(&mut self) -> Reading {
        Reading {
            server: self.server.as_mut().map(Side::read),
            client: self.client.read(),
            allocations: Allocations::of_this_process(),
            at: Instant::now(),
        }
    }

    /// What the calls of a run cost between two readings.
    pub(crate) fn costs(
        self,
        run: &Run,
        server: Option<ServerFigures>,
        (began, ended): (Reading, Reading),
    ) -> Costs {
        // Each count is over the time of whoever took it, as CPU time is.
        let calls = (ended.at - began.at).as_secs_f64() * run.calls_per_s;
        let server = server.zip(began.server.zip(ended.server)).map(|(figures, readings)| {
            let calls_of_figures = figures.elapsed.as_secs_f64() * run.calls_per_s;
            let is_ringcall = run.target.serves_ringcall();
            let counted = SideCost::counted(&figures.counters, calls_of_figures, is_ringcall);
            counted.with(readings, calls)
        });
        let is_ringcall = run.target.calls_ringcall();
        let client = SideCost::counted(&run.client, run.calls as f64, is_ringcall);
        let allocated = began.allocations.zip(ended.allocations);
        let process = ProcessCost::of(self.sides, allocated, calls);
        let client = client.with((began.client, ended.client), calls);
        Costs { server, client, process, note: self.note }
    }
}

impl Costs {
    /// The median of each figure over repeats; none where one of them has none.
    pub(crate) fn of_repeats<'a>(repeats: impl Iterator<Item = Option<&'a Self>>) -> Option<Self> {
        let repeats: Vec<&Self> = repeats.collect::<Option<_>>()?;
        let servers: Option<Vec<SideCost>> = repeats.iter().map(|it| it.server).collect();
        let clients: Vec<SideCost> = repeats.iter().map(|it| it.client).collect();
        Some(Self {
            server: servers.map(|servers| SideCost::median(&servers)),
            client: SideCost::median(&clients),
            process: ProcessCost::median(repeats.iter().map(|it| it.process)),
            note: repeats.iter().find_map(|it| it.note.clone()),
        })
    }
}

impl SideCost {
    /// What a side has counted of itself.
    fn counted(counters: &ShardCounters, calls: f64, is_ringcall: bool) -> Self {
        let copies = counters.frames_copied_straddle
            + counters.frames_copied_misaligned
            + counters.frames_copied_pressure
            + counters.frames_copied_large;
        Self {
            enters: per_call(counters.enters, calls),
            sends: per_call(counters.sends, calls),
            copies: is_ringcall.then(|| per_call(copies, calls)),
            bytes_copied: is_ringcall.then(|| per_call(counters.bytes_copied, calls)),
            ..Self::default()
        }
    }

    /// The same with what the kernel and the processor have counted of its threads.
    fn with(self, (began, ended): (SideReading, SideReading), calls: f64) -> Self {
        let switches = began.switches.zip(ended.switches).map(|(began, ended)| ended - began);
        let hardware = began.hardware.zip(ended.hardware);
        let counted = |count: fn(HardwareCounts) -> u64| {
            hardware.map(|(began, ended)| per_call(count(ended) - count(began), calls))
        };
        Self {
            voluntary_switches: switches.map(|it| per_call(it.voluntary, calls)),
            involuntary_switches: switches.map(|it| per_call(it.involuntary, calls)),
            instructions: counted(|counts| counts.instructions),
            cycles: counted(|counts| counts.cycles),
            ..self
        }
    }

    /// The median of each figure.
    fn median(of: &[Self]) -> Self {
        let mid = |figure: fn(&Self) -> f64| median(of.iter().map(figure).collect());
        let perhaps = |figure: fn(&Self) -> Option<f64>| {
            of.iter().map(figure).collect::<Option<Vec<f64>>>().map(median)
        };
        Self {
            voluntary_switches: perhaps(|it| it.voluntary_switches),
            involuntary_switches: perhaps(|it| it.involuntary_switches),
            enters: mid(|it| it.enters),
            sends: mid(|it| it.sends),
            copies: perhaps(|it| it.copies),
            bytes_copied: perhaps(|it| it.bytes_copied),
            instructions: perhaps(|it| it.instructions),
            cycles: perhaps(|it| it.cycles),
        }
    }
}

impl Side {
    fn read(&mut self) -> SideReading {
        SideReading { switches: self.threads.switches(), hardware: self.hardware() }
    }

    /// What the processor has counted of all threads; none where it does not count.
    fn hardware(&mut self) -> Option<HardwareCounts> {
        if self.hardware.is_empty() {
            return None;
        }
        self.hardware.iter_mut().try_fold(HardwareCounts::default(), |sum, of| {
            Some(HardwareCounts {
                instructions: sum.instructions + of.instructions.read().ok()?,
                cycles: sum.cycles + of.cycles.read().ok()?,
            })
        })
    }
}

/// Has the processor count for the threads of each side: all of them, or none. The kernel's part
/// of a call is counted where that is permitted. Gives what is to be known of the counts as well.
fn count(sides: &[&Threads]) -> (Vec<Vec<HardwareCounters>>, Option<String>) {
    let events = [Hardware::INSTRUCTIONS, Hardware::CPU_CYCLES];
    match count_with(sides, events, true) {
        Ok(counters) => return (counters, None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return (Vec::new(), Some(no_hardware(&error))),
    }
    let only = "instructions and cycles are those in user space: to count the kernel's too, run \
                `sysctl kernel.perf_event_paranoid=1`";
    match count_with(sides, events, false) {
        Ok(counters) => (counters, Some(only.to_owned())),
        Err(error) => (Vec::new(), Some(no_hardware(&error))),
    }
}

/// Has two events counted for each thread, from now on and not for threads that it starts.
fn count_with<E: Event + Copy>(
    sides: &[&Threads],
    [instructions, cycles]: [E; 2],
    in_kernel: bool,
) -> io::Result<Vec<Vec<HardwareCounters>>> {
    let counter = |id: u32, event: E| {
        let mut builder = Builder::new(event);
        builder.observe_pid(id.cast_signed()).exclude_kernel(!in_kernel).enabled(true).build()
    };
    let of_thread = |id: &u32| {
        Ok(HardwareCounters {
            instructions: counter(*id, instructions)?,
            cycles: counter(*id, cycles)?,
        })
    };
    sides.iter().map(|threads| threads.ids().iter().map(of_thread).collect()).collect()
}

/// Why there are no instructions and cycles.
fn no_hardware(error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": allow it with `sysctl kernel.perf_event_paranoid=2`, and where it is a container by \
             its profile"
        }
        // What the kernel says of an event that nothing here can count.
        io::ErrorKind::NotFound => {
            ": this processor, or what it is a virtual one of, has no such \
                                    counters"
        }
        _ => "",
    };
    format!("instructions and cycles are not counted: perf_event_open: {error}{cure}")
}

/// A count per call, to four digits: there are no more in it.
pub(crate) fn per_call(count: u64, calls: f64) -> f64 {
    if count == 0 || calls <= 0.0 {
        return 0.0;
    }
    let figure = count as f64 / calls;
    let scale = 10_f64.powi(3 - figure.log10().floor() as i32);
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{sync::mpsc::channel, thread, time::Duration};

    use perf_event::events::Software;

    use super::*;
    use crate::{report::sample, target::Target};

    fn side(voluntary: u64, instructions: Option<u64>) -> SideReading {
        let counts = |instructions| HardwareCounts { instructions, cycles: 2 * instructions };
        SideReading {
            switches: Some(Switches { voluntary, involuntary: 3 }),
            hardware: instructions.map(counts),
        }
    }

    fn watch() -> Watch {
        let nobody = || Side { threads: Threads::named(&[]), hardware: Vec::new() };
        Watch { server: Some(nobody()), client: nobody(), sides: 2, note: Some("why".to_owned()) }
    }

    /// What a run cost that made a thousand calls in a second.
    fn costs(target: Target, instructions: [Option<u64>; 2]) -> Costs {
        let mut run = sample::run(target, 1, 1.0, 1.0);
        (run.calls, run.calls_per_s) = (1000, 1000.0);
        let at = Instant::now();
        let [began, ended] = instructions;
        let allocated = |count| Some(Allocations { count, bytes: 100 * count });
        let began = Reading {
            server: Some(side(100, began)),
            client: side(0, began),
            allocations: allocated(500),
            at,
        };
        let at = at + Duration::from_secs(1);
        let ended = Reading {
            server: Some(side(350, ended)),
            client: side(2000, ended),
            allocations: allocated(530),
            at,
        };
        let server =
            ServerFigures { counters: run.server.unwrap(), elapsed: Duration::from_secs(2) };
        watch().costs(&run, Some(server), (began, ended))
    }

    #[test]
    fn each_count_is_over_the_time_in_which_it_was_counted() {
        let Costs { server, client, process, note } =
            costs(Target::Ringcall, [Some(1_000_000), Some(6_000_000)]);
        let server = server.unwrap();
        assert_eq!(server.voluntary_switches, Some(0.25));
        assert_eq!(server.involuntary_switches, Some(0.0));
        assert_eq!([server.instructions, server.cycles], [Some(5000.0), Some(10_000.0)]);
        // The server counted for twice as long.
        assert_eq!([server.enters, client.enters], [0.125, 0.25]);
        assert_eq!([client.copies, client.bytes_copied], [Some(0.01), Some(0.96)]);
        assert_eq!(client.voluntary_switches, Some(2.0));
        assert_eq!([process.allocations, process.bytes_allocated], [Some(0.03), Some(3.0)]);
        assert_eq!(process.sides, 2);
        assert_eq!(note.as_deref(), Some("why"));
    }

    #[test]
    fn a_floor_has_no_copies_and_a_machine_without_counters_no_instructions() {
        let costs = costs(Target::Floor, [None, None]);
        for side in [costs.server.unwrap(), costs.client] {
            assert_eq!([side.copies, side.bytes_copied], [None, None]);
            assert_eq!([side.instructions, side.cycles], [None, None]);
            assert!(side.sends > 0.0);
        }
    }

    #[test]
    fn repeats_give_the_median_of_each_figure_that_all_of_them_have() {
        let with = |enters, cycles| {
            let client = SideCost { enters, cycles, ..SideCost::default() };
            Costs { server: None, client, process: ProcessCost::default(), note: None }
        };
        let all = [with(3.0, Some(9.0)), with(1.0, None), with(2.0, Some(8.0))];
        let costs = Costs::of_repeats(all.iter().map(Some)).unwrap();
        assert_eq!(costs.client.enters, 2.0);
        assert_eq!(costs.client.cycles, None);
        assert_eq!(costs.server, None);
        assert_eq!(Costs::of_repeats([Some(&all[0]), None].into_iter()), None);
    }

    #[test]
    fn a_figure_per_call_has_four_digits_and_some_is_never_none() {
        assert_eq!(per_call(1, 3.0), 0.3333);
        assert_eq!(per_call(123_456, 10.0), 12_350.0);
        assert_eq!(per_call(1, 3e7), 3.333e-8);
        assert_eq!(per_call(0, 3.0), 0.0);
    }

    /// With events that every machine has; not every one lets a process count them.
    #[test]
    fn events_are_counted_for_the_threads_of_a_side_alone() {
        let (go_on, goes_on) = channel::<()>();
        let (passed, has_passed) = channel();
        let body = move || {
            // Each wait is a switch.
            while goes_on.recv().is_ok() {
                passed.send(()).unwrap();
            }
        };
        let thread = thread::Builder::new().name("counted-0".to_owned()).spawn(body).unwrap();
        go_on.send(()).unwrap();
        has_passed.recv().unwrap();
        let threads = Threads::named(&["counted-"]);
        let nobody = Threads::named(&[]);
        let events = [Software::CONTEXT_SWITCHES, Software::TASK_CLOCK];
        // Switches happen in the kernel.
        let mut hardware = match count_with(&[&nobody, &threads], events, true) {
            Ok(hardware) => hardware,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                drop(go_on);
                return thread.join().unwrap();
            }
        };
        for _ in 0..100 {
            go_on.send(()).unwrap();
            has_passed.recv().unwrap();
        }
        let mut side = Side { threads, hardware: hardware.pop().unwrap() };
        let counts = side.hardware().unwrap();
        assert!(counts.cycles > 0, "{counts:?}");
        let mut side = Side { threads: nobody, hardware: hardware.pop().unwrap() };
        assert!(side.hardware().is_none() && hardware.is_empty());
        drop(go_on);
        thread.join().unwrap();
    }

    #[test]
    fn a_machine_without_counters_says_so() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error());
        let why = no_hardware(&error);
        assert!(why.contains("perf_event_open: No such file or directory"), "{why}");
        assert!(why.contains("no such counters"), "{why}");
    }
}
