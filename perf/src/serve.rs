//! `serve`: the server on its own, for a `load` on another host.

use std::{thread, time::Duration};

use ringcall::ServerConfig;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::{
    allocations::Allocations,
    args::ServeArgs,
    cores,
    error::Failure,
    host,
    interrupt::Interrupt,
    parse::CoreList,
    report::{print, small},
    server::Server,
};

/// Time for the calls that are in flight when it is interrupted.
const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// Serves until it is interrupted, then drains and prints what it has counted: of allocations, all
/// since it began to serve, those of connections too.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    args.parent.map_or(Ok(()), end_with)?;
    let config = args.config.as_deref().map(ServerConfig::from_file).transpose()?;
    let of_file = config.as_ref().and_then(|config| config.cores.clone()).map(CoreList);
    let named = args.cores.as_ref().or(of_file.as_ref());
    let cores = cores::of_server(&cores::available().map_err(Failure::Cores)?, named)?;
    let interrupt = Interrupt::watch()?;
    host::raise_file_limit();
    let server = match config {
        None => Server::start(args.target, args.address, &cores, args.spin.unwrap_or_default())?,
        Some(_) if !args.target.serves_ringcall() => return Err(Failure::NoSettings),
        Some(mut config) => {
            config.cores = Some(cores.0.clone());
            if let Some(spin) = args.spin {
                config.shard = config.shard.spin(spin);
            }
            Server::with_config(args.address, config)?
        }
    };
    let before = Allocations::of_this_process();
    // The address first and on a line of its own: scripts wait for it.
    print(&format!("{}\n", server.address()))?;
    eprintln!("{} serves on core {cores} until Ctrl-C", args.target);
    while !interrupt.is_set() {
        thread::sleep(Duration::from_millis(50));
    }
    let sample = server.sample()?;
    let allocated = before.zip(Allocations::of_this_process());
    match server {
        // Calls that were accepted are answered; a second signal does not wait for them.
        Server::Ringcall(server) => {
            server.drain(DRAIN_GRACE);
            server.join()?;
        }
        server @ Server::Floor(_) => server.stop()?,
    }
    let counted = sample.counters.iter().filter(|(_, count)| *count > 0);
    let mut lines: String =
        counted.map(|(name, count)| format!("{name:<26} {count:>20}\n")).collect();
    let calls = sample.counters.calls_inline + sample.counters.calls_spawned;
    if let Some((before, after)) = allocated {
        let count = after.since(before).count;
        lines += &format!("{:<26} {count:>20}\n", "allocations");
        if calls > 0 {
            let each = small(count as f64 / calls as f64);
            lines += &format!("{:<26} {each:>20}\n", "allocations_per_call");
        }
    }
    print(&lines)
}

/// Has the kernel kill this process when the one ends that has started it, however that ends. A
/// signal that asks would not do: a server that is stopped hears of none.
fn end_with(parent: i32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::ServerProcess(errno.into()))?;
    // It may have ended before the kernel knew.
    if getppid() == Pid::from_raw(parent) { Ok(()) } else { Err(Failure::Orphaned) }
}
