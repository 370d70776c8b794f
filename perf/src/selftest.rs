//! `selftest`: shows that the harness tells the truth about a server that stops.
//!
//! A server in a process of its own is stopped again and again for a known time while calls are due
//! at a known rate. How long they take then follows from arithmetic alone: a call that is due in a
//! stop waits for its end, so that of calls due evenly as many wait for longer than a time as the
//! stops are longer than it. What the harness reports of an open load must be that. The same stops
//! under a closed loop show what would have been claimed instead: while the server stops hardly any
//! call is made, so that hardly any is slow ("coordinated omission", Gil Tene).

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{self, Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    args::SelftestArgs,
    cores,
    error::Failure,
    extras::Beside,
    generator::{Arrivals, Clock, Rate, Spacing},
    host,
    interrupt::Interrupt,
    lengths::{Length, Lengths, Precision, Warmup, percentile_name},
    load::{self, LoadPlan, Outcome, Pace},
    measure::Run,
    parse::CoreList,
    progress::Progress,
    report::{print, time},
    target::Target,
    workload::Workload,
};

/// Largest error of a percentile, as a part of what it must be.
const ERROR_MAX: f64 = 0.05;

/// Percentiles that are checked where a stop decides them.
const CHECKED: [f64; 6] = [0.90, 0.95, 0.98, 0.99, 0.995, 0.999];

/// Shortest time that is checked, as a part of a stop: of shorter ones the scheduler's delays are
/// too large a part.
const CHECKED_FROM: f64 = 0.2;

/// Time before the first stop that is measured.
const WARMUP: Duration = Duration::from_millis(500);

/// A server in a process of its own, which ends with this one, also where that is killed.
struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

/// The stops of a server, by the generator's clock.
struct Stops {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u64, u64)>>,
}

/// Runs the test and prints what it has found.
pub(crate) fn selftest(args: &SelftestArgs) -> Result<(), Failure> {
    let available = cores::available().map_err(Failure::Cores)?;
    let cores = cores::of_bench(&available, None, None)?;
    if args.stop * 2 > args.every {
        return Err(Failure::StopsTooLong { stop: args.stop, every: args.every });
    }
    let interrupt = Interrupt::watch()?;
    host::raise_file_limit();
    let server = ServerProcess::start(&cores.server.to_string())?;
    let lengths = Lengths {
        warmup: Warmup::For(WARMUP),
        length: Length::For(args.duration),
        precision: Precision { quantile: 0.99, relative: 1.0 },
    };
    let rate = Arrivals::Rated(Rate::Flat(args.rate), Spacing::Even);
    let progress = Progress::begin(2 * (WARMUP + args.duration));
    // As many in flight as become due in a stop, and half as many again.
    let due_in_stop = args.rate * args.stop.as_secs_f64() * 1.5;
    let depth = (due_in_stop / 4.0).ceil().clamp(1.0, 4096.0) as u32;
    let run = |pace: Pace, depth| {
        let plan = LoadPlan {
            cores: cores.client.clone(),
            spin: Duration::ZERO,
            lengths,
            pace,
            sizes: None,
            seed: 1,
            beside: Beside::default(),
            beside_cores: CoreList(Vec::new()),
            counts_cost: false,
            idle: 0,
        };
        let workload = Workload { connections: 4, depth, size: 64 };
        let stops = Stops::begin(server.pid()?, args.stop, args.every);
        let watch = (&interrupt, &progress);
        let outcome = load::run(Target::Ringcall, workload, server.address, None, &plan, watch);
        let stops = stops.end()?;
        match outcome? {
            Outcome::Whole(run) => Ok((run, stops)),
            Outcome::Cut(_) => Err(Failure::Interrupted),
        }
    };
    progress.say("open load, server stopped again and again".to_owned());
    let (open, stops) = run(Pace::Open(rate), depth)?;
    progress.say("the same as a closed loop".to_owned());
    let (closed, _) = run(Pace::Closed, 1)?;
    progress.end();
    drop(server);
    let checks = checks(&open, &stops);
    print(&table(args, &open, &closed, &checks))?;
    match checks.iter().max_by(|a, b| a.error().total_cmp(&b.error())) {
        None => Err(Failure::NothingToCheck),
        Some(worst) if worst.error() > ERROR_MAX => Err(Failure::SelftestFailed {
            percentile: percentile_name(worst.quantile),
            error_percent: worst.error() * 100.0,
        }),
        Some(_) => Ok(()),
    }
}

/// A percentile: what it must be, and what was reported.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Check {
    quantile: f64,
    expected_ns: f64,
    reported_ns: f64,
}

impl Check {
    fn error(&self) -> f64 {
        (self.reported_ns - self.expected_ns).abs() / self.expected_ns
    }
}

/// The percentiles that stops decide, of those that are looked at.
fn checks(run: &Run, stops: &[(u64, u64)]) -> Vec<Check> {
    let length: Duration = run.series.iter().map(|slice| slice.length).sum();
    let end_ns = run.began_ns + length.as_nanos() as u64;
    // Calls are recorded when they are answered: those of a stop when it ends, or with what they
    // had waited when measuring ends before it does.
    let within = stops.iter().filter(|(begun, end)| *end >= run.began_ns && *begun < end_ns);
    let lengths: Vec<f64> =
        within.map(|(begun, end)| ((*end).min(end_ns) - begun) as f64).collect();
    let longest = lengths.iter().copied().fold(0.0, f64::max);
    let all_ns = length.as_nanos() as f64;
    CHECKED
        .iter()
        .filter_map(|quantile| {
            let expected_ns = expected(&lengths, all_ns, *quantile)?;
            let reported_ns = run.latencies.at(*quantile) as f64;
            let check = Check { quantile: *quantile, expected_ns, reported_ns };
            (expected_ns >= longest * CHECKED_FROM).then_some(check)
        })
        .collect()
}

/// What calls due evenly take at a quantile where the server stops for these lengths in a time:
/// the length that the stops exceed, together, by the part of the time that is above the quantile.
/// None where no stop decides it.
fn expected(stops_ns: &[f64], all_ns: f64, quantile: f64) -> Option<f64> {
    let above = |length: f64| stops_ns.iter().map(|stop| (stop - length).max(0.0)).sum::<f64>();
    let wanted = (1.0 - quantile) * all_ns;
    if above(0.0) <= wanted {
        return None;
    }
    let (mut low, mut high) = (0.0, stops_ns.iter().copied().fold(0.0, f64::max));
    // It falls with the length: halved until the nanosecond is found.
    while high - low > 1.0 {
        let middle = (low + high) / 2.0;
        if above(middle) > wanted { low = middle } else { high = middle }
    }
    Some(high)
}

fn table(args: &SelftestArgs, open: &Run, closed: &Run, checks: &[Check]) -> String {
    let mut text = format!(
        "A server stopped for {:?} every {:?}, under {:.0} calls/s that were due evenly for {:?}.\n\n\
         percentile   must be  reported   error   a closed loop claims\n",
        args.stop, args.every, args.rate, args.duration
    );
    for check in checks {
        let Check { quantile, expected_ns, reported_ns } = *check;
        text += &format!(
            "{:<10}  {:>8}  {:>8}  {:>4.1} %   {:>8}\n",
            percentile_name(quantile),
            time(expected_ns),
            time(reported_ns),
            check.error() * 100.0,
            time(closed.latencies.at(quantile) as f64),
        );
    }
    let slow = |run: &Run| run.latencies.histogram().count_between(1_000_000, u64::MAX);
    text += &format!(
        "\nCalls over 1 ms: {} of {} in the open load, {} of {} in the closed loop, which makes no \
         call while\nit waits for one.\n",
        slow(open),
        open.calls,
        slow(closed),
        closed.calls
    );
    text
}

impl ServerProcess {
    fn start(cores: &str) -> Result<Self, Failure> {
        let program = env::current_exe().map_err(Failure::ServerProcess)?;
        let mut child = Command::new(program)
            .args(["serve", "--address", "127.0.0.1:0", "--cores", cores])
            .args(["--parent", &process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Failure::ServerProcess)?;
        let mut line = String::new();
        let stdout = child.stdout.take().map(BufReader::new);
        let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_line(&mut line));
        let address = read.ok().and_then(|_| line.trim().parse().ok());
        // From here on it ends with this.
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Self { child, address: address.unwrap_or(unknown) };
        match address {
            Some(_) => Ok(server),
            None => Err(Failure::Silent { target: Target::Ringcall }),
        }
    }

    fn pid(&self) -> Result<Pid, Failure> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        pid.ok_or(Failure::Silent { target: Target::Ringcall })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Also where it is stopped at the moment.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stops {
    /// Stops a process for a time, again and again, until it is told to end.
    fn begin(pid: Pid, length: Duration, every: Duration) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let clock = Clock::new();
            let mut stops = Vec::new();
            while !told.load(Ordering::Relaxed) {
                thread::sleep(every - length);
                if kill_process(pid, Signal::STOP).is_err() {
                    break;
                }
                let begun_ns = clock.now_ns();
                thread::sleep(length);
                let _ = kill_process(pid, Signal::CONT);
                stops.push((begun_ns, clock.now_ns()));
            }
            stops
        });
        Self { is_over, thread }
    }

    /// Ends it. Gives when each stop began and ended.
    fn end(self) -> Result<Vec<(u64, u64)>, Failure> {
        self.is_over.store(true, Ordering::Relaxed);
        let panicked = Failure::Panicked { target: Target::Ringcall, side: "selftest" };
        self.thread.join().map_err(|_| panicked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    /// Ten stops of 100 ms in 10 s: a tenth of the calls wait, evenly from 0 to 100 ms.
    #[test]
    fn the_percentiles_of_equal_stops_are_those_of_an_even_distribution() {
        let stops = [100e6; 10];
        for (quantile, milliseconds) in [(0.95, 50.0), (0.99, 90.0), (0.999, 99.0)] {
            let found = expected(&stops, 10e9, quantile).unwrap();
            assert!((found / 1e6 - milliseconds).abs() < 0.001, "{quantile}: {found}");
        }
        assert_eq!(expected(&stops, 10e9, 0.5), None);
    }

    #[test]
    fn a_longer_stop_decides_the_tail() {
        // 10 + 90 ms of waiting: the last thousandth of 10 s, 10 ms, is all in the longer one.
        let found = expected(&[10e6, 90e6], 10e9, 0.999).unwrap();
        assert!((found - 80e6).abs() < 2.0, "{found}");
    }
}
