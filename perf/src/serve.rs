//! `serve`: the server on its own, for a `load` on another host.

use std::{thread, time::Duration};

use crate::{
    args::ServeArgs, cores, error::Failure, host, interrupt::Interrupt, report::print,
    server::Server,
};

/// Time for the calls that are in flight when it is interrupted.
const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// Serves until it is interrupted, then drains and prints what it has counted.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let cores = cores::of_server(&cores::available()?, args.cores.as_ref())?;
    let interrupt = Interrupt::watch()?;
    host::raise_file_limit();
    let server = Server::start(args.target, args.address, &cores, args.spin)?;
    // The address first and on a line of its own: scripts wait for it.
    print(&format!("{}\n", server.address()))?;
    eprintln!("{} serves on core {cores} until Ctrl-C", args.target);
    while !interrupt.is_set() {
        thread::sleep(Duration::from_millis(50));
    }
    let sample = server.sample()?;
    match server {
        // Calls that were accepted are answered; a second signal does not wait for them.
        Server::Ringcall(server) => {
            server.drain(DRAIN_GRACE);
            server.join()?;
        }
        server @ Server::Floor(_) => server.stop()?,
    }
    let counted = sample.counters.iter().filter(|(_, count)| *count > 0);
    let lines: String = counted.map(|(name, count)| format!("{name:<26} {count:>20}\n")).collect();
    print(&lines)
}
