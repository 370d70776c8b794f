//! `doctor`: what of this host is in the way of a server, why, and the command that changes it.
//!
//! It reads and changes nothing. Each file is a topic: it reads from a [`System`], which tests put
//! elsewhere, and gives [`Finding`]s. What cannot be read is unknown, and never taken for good.

mod cpu;
mod finding;
mod interrupts;
mod kernel;
mod limits;
mod network;
mod nic;
mod numa;
mod report;
mod system;
mod trial;
mod virtualization;

#[cfg(test)]
mod fake;

use std::{path::Path, process::ExitCode};

use ringcall::ServerConfig;

use self::{
    finding::{Finding, State},
    nic::Nic,
    system::System,
};
use crate::{args::DoctorArgs, cores, error::Failure, parse::CoreList, report::print};

/// Exit status where something is to be changed.
const CHANGE: u8 = 1;

/// Exit status where ringcall cannot run here, or the arguments are wrong, as that of clap.
const CANNOT_RUN: u8 = 2;

/// What the host is asked to run.
#[derive(Clone, Debug)]
struct Shards {
    /// The core of each shard.
    cores: Vec<usize>,
    /// All cores that the process may use.
    available: Vec<usize>,
    /// Connections that may wait to be accepted, for each shard.
    backlog: u32,
}

/// Looks at the host and says what is to be changed.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    examine(args).or_else(|failure| match failure {
        Failure::Output(_) => Err(failure),
        failure => {
            eprintln!("error: {failure}");
            Ok(ExitCode::from(CANNOT_RUN))
        }
    })
}

fn examine(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut config = match &args.config {
        Some(path) => ServerConfig::from_file(path)?,
        None => ServerConfig::new(),
    };
    let available = cores::available().map_err(Failure::Cores)?;
    let of_file = config.cores.clone().map(CoreList);
    let named = args.cores.as_ref().or(of_file.as_ref());
    let CoreList(cores) = cores::of_server(&available, named)?;
    config.cores = Some(cores.clone());
    let shards = Shards { cores, available, backlog: config.backlog };

    let system = System::at(Path::new("/"));
    let interface = match &args.interface {
        Some(name) => Some(nic::named(&system, name)?),
        None => nic::of_default_route(&system),
    };
    let mut findings = findings(&system, &shards, interface.as_ref());
    findings.push(trial::finding(&config));
    let nic = interface.as_ref().map(|nic| nic.name.as_str());
    print(&match args.json {
        true => report::json(&shards, nic, &findings),
        false => report::table(&shards, nic, &findings),
    })?;
    Ok(ExitCode::from(status(&findings)))
}

/// Everything that can be read, in the order of the report.
fn findings(system: &System, shards: &Shards, nic: Option<&Nic>) -> Vec<Finding> {
    let mut findings = kernel::findings(system);
    findings.extend(limits::findings(system, shards));
    findings.extend(cpu::findings(system, shards));
    findings.push(virtualization::finding(system, shards));
    findings.push(numa::finding(system, shards, nic));
    findings.extend(nic::findings(system, shards, nic));
    findings.push(interrupts::finding(system, shards, nic));
    findings.extend(network::findings(system, shards));
    findings
}

fn status(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.state).max() {
        Some(State::Stop) => CANNOT_RUN,
        Some(State::Change) => CHANGE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_worst_finding_decides_the_exit_status() {
        let ok = || Finding::ok("a", "b".to_owned(), "c");
        let unknown = || Finding::unknown("a", "b", "c");
        let change = || Finding::change("a", "b".to_owned(), "c", "d".to_owned());
        assert_eq!(status(&[ok(), unknown()]), 0);
        assert_eq!(status(&[change(), ok(), unknown()]), 1);
        let stop = Finding { state: State::Stop, ..ok() };
        assert_eq!(status(&[change(), stop, ok()]), 2);
    }

    #[test]
    fn nothing_that_cannot_be_read_is_called_good() {
        let system = System::at(Path::new("/nowhere/at/all"));
        let shards = fake::shards(&[0, 1], 2);
        let findings = findings(&system, &shards, None);
        assert!(findings.len() >= 15, "{findings:#?}");
        for finding in findings {
            assert_eq!(finding.state, State::Unknown, "{finding:?}");
        }
    }
}
