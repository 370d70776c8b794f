//! `netns`: a server and a load in two network namespaces of this host, with a link between them.
//!
//! Both are this program again, as `serve` and `load`: what is measured is what two hosts would
//! measure. This process only makes the link, starts both, passes on what the load says and clears
//! up. Nothing that it makes outlives it, whoever ends it, but for SIGKILL: then the next run
//! removes what is left.
//!
//! One file each, in the order in which they are needed: `namespace` makes the two namespaces,
//! `setup` joins them, by `tun` and `link` where the link is emulated, `child` runs the two sides,
//! `report` says what the link did.

mod child;
mod error;
mod link;
mod namespace;
pub(crate) mod parse;
mod report;
mod setup;
mod tun;

use std::{
    ffi::OsString,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use clap::Args;

pub(crate) use self::error::NetnsError;
use self::{
    child::{Running, Signals, Wake},
    link::LinkPlan,
    namespace::{Namespace, NetSide},
    setup::LinkOptions,
    tun::EmulatedLink,
};
use crate::{
    args::{LoadArgs, NetnsArgs, ServeArgs},
    cores,
    error::Failure,
};

/// Where the server listens. Nobody else is in its namespace, so any port is free.
const PORT: u16 = 7000;

/// Time that the load has to end when it is told to: it looks some ten times a second.
const LOAD_END_MAX: Duration = Duration::from_secs(5);

/// Time that the server has to end, which drains for 10 s at most.
const SERVER_END_MAX: Duration = Duration::from_secs(15);

/// What the two sides are started with.
struct ChildArgs {
    serve: Vec<OsString>,
    load: Vec<OsString>,
}

/// Measures across a link between two namespaces; gives the exit status of the load.
pub(crate) fn netns(args: &NetnsArgs) -> Result<ExitCode, Failure> {
    // What is wrong in the arguments is said before anything is made.
    let options = link_options(args)?;
    let child_args = child_args(args)?;
    let mut signals = Signals::watch().map_err(Failure::Signals)?;
    namespace::prepare()?;

    // Dropped in the opposite order, on every way out of here: first the two sides, then the link,
    // then the namespaces.
    let server_net = Namespace::create(NetSide::Server)?;
    let client_net = Namespace::create(NetSide::Client)?;
    let mut link = setup::connect(&server_net, &client_net, &options)?;
    let mut server = Running::start(&server_net, "server", &child_args.serve, Stdio::piped())?;
    server.wait_serving(&mut signals)?;
    let mut load = Running::start(&client_net, "load", &child_args.load, Stdio::inherit())?;

    let loaded = watch(&mut load, &mut server, &mut link, &mut signals)?;
    let served = server.end(&mut signals, SERVER_END_MAX)?;
    eprint!("the server counted:\n{}", server.rest_of_output());
    if let Some(link) = link {
        // Before it stops: the devices go with it.
        let unread = [&server_net, &client_net].map(|net| tun::dropped(net, setup::DEVICE));
        eprint!("{}", report::describe(&link.stop()?, unread));
    }
    match loaded.code() {
        Some(0) if !served.success() => Err(NetnsError::ServerFailed(served).into()),
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
        None => Err(NetnsError::LoadKilled(loaded).into()),
    }
}

/// Waits for the end of the load, which is ended where the user asks for it, or where the server or
/// the link is gone.
fn watch(
    load: &mut Running,
    server: &mut Running,
    link: &mut Option<EmulatedLink>,
    signals: &mut Signals,
) -> Result<ExitStatus, Failure> {
    loop {
        let mut ends = vec![load.ended(), server.ended()];
        ends.extend(link.as_ref().map(EmulatedLink::ended));
        let wake = signals.wait(&ends, None);
        if wake.map_err(|source| NetnsError::Wait { what: "load", source })? == Wake::Signal {
            let status = load.end(signals, LOAD_END_MAX)?;
            // One that ends by itself says that it was interrupted.
            return if status.signal().is_some() { Err(Failure::Interrupted) } else { Ok(status) };
        }
        if let Some(status) = load.try_end()? {
            return Ok(status);
        }
        if let Some(status) = server.try_end()? {
            load.end(signals, LOAD_END_MAX)?;
            return Err(NetnsError::ServerEnded(status).into());
        }
        if let Some(link) = link.take_if(|link| link.has_ended()) {
            load.end(signals, LOAD_END_MAX)?;
            // It has failed, and this says why. The server would drain in vain.
            link.stop()?;
        }
    }
}

/// The link that is asked for.
fn link_options(args: &NetnsArgs) -> Result<LinkOptions, NetnsError> {
    let NetnsArgs { rate, delay, jitter, loss, reorder, seed, .. } = *args;
    let is_emulated = delay.is_some() || loss.is_some() || reorder.is_some();
    let plan = LinkPlan {
        delay: delay.unwrap_or_default(),
        jitter: jitter.unwrap_or_default(),
        loss: loss.unwrap_or_default(),
        reorder: reorder.unwrap_or_default(),
    };
    if plan.jitter > plan.delay {
        return Err(NetnsError::JitterExceedsDelay { jitter: plan.jitter, delay: plan.delay });
    }
    Ok(LinkOptions { rate, emulated: is_emulated.then_some(plan), seed })
}

/// The arguments of both sides, read here too: the server serves what the load measures, on another
/// core unless one is named.
fn child_args(args: &NetnsArgs) -> Result<ChildArgs, Failure> {
    let address = SocketAddr::from((setup::address(NetSide::Server), PORT)).to_string();
    let mut load: Vec<OsString> = vec!["load".into(), address.clone().into()];
    load.extend(args.load_args.iter().cloned());
    let loads: LoadArgs = parsed(&load)?;

    let target = loads.target.to_string();
    let fixed = ["serve", "--address", &address, "--target", &target];
    let mut serve: Vec<OsString> = fixed.map(OsString::from).into();
    serve.extend(args.server_args.split_whitespace().map(OsString::from));
    let serves: ServeArgs = parsed(&serve)?;
    let LoadArgs { run, .. } = &loads;
    let is_beside_open =
        run.beside_cores.is_none() && (run.probe.is_some() || run.slow_readers > 0);
    if serves.cores.is_some() && !is_beside_open {
        return Ok(ChildArgs { serve, load });
    }
    let available = cores::available().map_err(Failure::Cores)?;
    let cores = cores::of_bench(&available, serves.cores.as_ref(), run.client_cores.as_ref())?;
    if serves.cores.is_none() {
        serve.extend(["--cores".into(), cores.server.to_string().into()]);
    }
    if is_beside_open {
        // The server is on this machine, and only this process knows where.
        let beside = cores::beside(&available, (&cores.server, &cores.client), None)?;
        load.extend(["--beside-cores".into(), beside.to_string().into()]);
    }
    Ok(ChildArgs { serve, load })
}

/// The arguments of a command of this program, the first of which is its name.
fn parsed<T: Args>(args: &[OsString]) -> Result<T, clap::Error> {
    let name = args.first().map(|name| name.display().to_string()).unwrap_or_default();
    let command = clap::Command::new("ringcall-perf").bin_name(format!("ringcall-perf {name}"));
    let command = T::augment_args(command).no_binary_name(true);
    T::from_arg_matches(&command.try_get_matches_from(args.iter().skip(1))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(flags: &[&str]) -> NetnsArgs {
        let cli = Cli::try_parse_from([&["ringcall-perf", "netns"], flags].concat()).unwrap();
        let Some(Command::Netns(args)) = cli.command else { panic!("another command") };
        args
    }

    fn children(flags: &[&str]) -> ChildArgs {
        child_args(&args(flags)).unwrap()
    }

    fn usage_error(flags: &[&str]) -> String {
        match child_args(&args(flags)) {
            Err(Failure::Usage(error)) => error.to_string(),
            _ => panic!("{flags:?} are taken"),
        }
    }

    #[test]
    fn the_server_serves_what_the_load_measures() {
        let ChildArgs { serve, load } = children(&["--", "--target", "floor", "--depth", "2"]);
        let expected = ["load", "198.18.0.1:7000", "--target", "floor", "--depth", "2"];
        assert_eq!(load, expected);
        let expected = ["serve", "--address", "198.18.0.1:7000", "--target", "floor", "--cores"];
        assert_eq!(serve[..6], expected);
    }

    #[test]
    fn the_server_takes_flags_of_its_own() {
        let serve = children(&["--server-args", "--cores 0  --spin 5us"]).serve;
        assert_eq!(serve[5..], ["--cores", "0", "--spin", "5us"]);
        assert_eq!(serve[..5], ["serve", "--address", "198.18.0.1:7000", "--target", "ringcall"]);
    }

    #[test]
    fn a_probe_is_told_which_cores_neither_side_has() {
        let load = children(&["--", "--probe", "100"]).load;
        assert_eq!(load[2..5], ["--probe", "100", "--beside-cores"]);
        let load = children(&["--", "--slow-readers", "2", "--beside-cores", "0"]).load;
        assert_eq!(load[2..], ["--slow-readers", "2", "--beside-cores", "0"]);
    }

    #[test]
    fn what_either_side_would_refuse_is_refused_before_it_is_started() {
        let error = usage_error(&["--", "--nothing"]);
        assert!(error.contains("--nothing") && error.contains("ringcall-perf load"), "{error}");
        let error = usage_error(&["--", "10.0.0.1:7000"]);
        assert!(error.contains("10.0.0.1:7000"), "{error}");
        let error = usage_error(&["--server-args", "--depth 2"]);
        assert!(error.contains("--depth") && error.contains("ringcall-perf serve"), "{error}");
        let error = usage_error(&["--server-args", "--target floor"]);
        assert!(error.contains("--target") && error.contains("multiple times"), "{error}");
    }

    #[test]
    fn a_link_is_emulated_where_more_than_a_rate_is_asked_for() {
        let is_emulated = |flags: &[&str]| link_options(&args(flags)).unwrap().emulated.is_some();
        assert!(!is_emulated(&[]));
        assert!(!is_emulated(&["--rate", "1gbit"]));
        for flags in [["--delay", "0s"], ["--loss", "0%"], ["--reorder", "1%"]] {
            assert!(is_emulated(&flags), "{flags:?}");
        }
    }

    #[test]
    fn a_jitter_is_at_most_the_delay_that_it_varies() {
        let options = |jitter| link_options(&args(&["--delay", "1ms", "--jitter", jitter]));
        assert_eq!(options("1ms").unwrap().emulated.unwrap().jitter, Duration::from_millis(1));
        let error = options("2ms").unwrap_err().to_string();
        assert_eq!(error, "a jitter of 2ms is more than the delay of 1ms that it varies");
    }
}
