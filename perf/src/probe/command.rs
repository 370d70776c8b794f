//! `stages`: where the time of a call goes, against a server here or elsewhere.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Probe, Stages, table};
use crate::{
    args::StagesArgs,
    bench::resolve,
    cores,
    error::Failure,
    host::Host,
    interrupt::Interrupt,
    parse::CoreList,
    report::print,
    server::Server,
    target::Target,
    workload::{Workload, size_text},
};

/// Measures against a server at an address, or else one in this process on a core of its own.
pub(crate) fn stages(args: &StagesArgs) -> Result<(), Failure> {
    let available = cores::available().map_err(Failure::Cores)?;
    let named = args.core.map(|core| CoreList(vec![core]));
    let cores = cores::of_bench(&available, None, named.as_ref())?;
    let interrupt = Interrupt::watch()?;
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build: its figures mean nothing; use --release");
    }
    let (server, address) = match &args.address {
        Some(address) => (None, resolve(address)?),
        None => {
            if cores.are_shared() {
                eprintln!("warning: there is only one core: server and probe take its time");
            }
            let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let server = Server::start(Target::Ringcall, here, &cores.server, args.spin)?;
            let address = server.address();
            (Some(server), address)
        }
    };
    let probe = Probe {
        address,
        core: cores.client.0.first().copied().unwrap_or(0),
        rate: args.rate,
        size: args.size,
        warmup: args.warmup,
        duration: args.duration,
    };
    let stages = probe.run(|| interrupt.is_set())?;
    if let Some(server) = server {
        server.stop()?;
    }
    interrupt.check()?;
    if stages.total.count == 0 {
        let workload = workload(&probe).to_string();
        return Err(Failure::NoCalls { workload });
    }
    for warning in &stages.warnings {
        eprintln!("warning: {warning}");
    }
    print(&report(&probe, args, &cores.server, &stages))
}

fn workload(probe: &Probe) -> Workload {
    Workload { connections: 1, depth: 1, size: probe.size }
}

/// The table, under what it was measured with.
fn report(probe: &Probe, args: &StagesArgs, server_cores: &CoreList, stages: &Stages) -> String {
    let host = Host::describe();
    let server = match &args.address {
        Some(address) => format!("server at {address}"),
        None if args.spin.is_zero() => format!("server here on core {server_cores}, no spinning"),
        None => format!("server here on core {server_cores}, spinning {:?}", args.spin),
    };
    format!(
        "{kernel} · {cpu}, {cores} cores · commit {commit}\n\
         {server} · probe on core {core} · {size} each way\n\
         {count} calls at {rate} a second in {duration:?}, after {warmup:?}\n\n{table}\n\
         share: the stage's median over the total's. Medians of stages need not add up.\n",
        kernel = host.kernel,
        cpu = host.cpu,
        cores = host.cores,
        commit = host.commit.get(..12).unwrap_or(&host.commit),
        core = probe.core,
        size = size_text(workload(probe).body_len()),
        count = stages.total.count,
        rate = probe.rate,
        duration = probe.duration,
        warmup = probe.warmup,
        table = table::table(stages),
    )
}
