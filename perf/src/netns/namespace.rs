//! Network namespaces, and the commands of iproute2 that make them and what is in them.
//!
//! A namespace has the name of the process that made it (`ringcall-PID-server`), so that one that
//! was killed leaves behind what the next run knows to be nobody's. Names are there for whoever
//! wants to look in while it runs: `ip netns exec ringcall-PID-client ss -ti`.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{self, Command},
    thread,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, geteuid, kill_process, test_kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::NetnsError;

/// Where iproute2 has a file for each namespace.
const DIRECTORY: &str = "/var/run/netns";

/// The two sides; each has a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetSide {
    Server,
    Client,
}

/// A network namespace of this process. Dropping it removes it.
pub(super) struct Namespace {
    name: String,
}

impl NetSide {
    pub(super) const BOTH: [Self; 2] = [Self::Server, Self::Client];

    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

impl Namespace {
    /// Makes the namespace of one side, with nothing in it.
    pub(super) fn create(side: NetSide) -> Result<Self, NetnsError> {
        let namespace = Self { name: format!("ringcall-{}-{}", process::id(), side.name()) };
        let cure = "the kernel must have network namespaces and a container the right to make them \
                    (CAP_SYS_ADMIN)";
        // Where it fails half-way, dropping `namespace` clears up.
        ip(&["netns", "add", &namespace.name], cure)?;
        Ok(namespace)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs something within the namespace, and what it starts stays there. It runs on a thread of
    /// its own, since a thread that has entered a namespace is of no use outside.
    pub(super) fn within<T: Send>(
        &self,
        what: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<io::Result<T>, NetnsError> {
        let entered = || -> io::Result<io::Result<T>> {
            let file = File::open(format!("{DIRECTORY}/{}", self.name))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(what())
        };
        let ended = thread::scope(|scope| {
            let thread = thread::Builder::new().name("namespace".to_owned());
            let panicked = |_| Err(io::Error::other("its thread panicked"));
            thread.spawn_scoped(scope, entered)?.join().unwrap_or_else(panicked)
        });
        ended.map_err(|source| NetnsError::Enter { name: self.name.clone(), source })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !fs::exists(format!("{DIRECTORY}/{}", self.name)).unwrap_or(true) {
            return;
        }
        if let Err(error) = delete(&self.name) {
            eprintln!("warning: {error}");
        }
    }
}

/// Refuses what cannot be made, and removes what runs that were killed have left.
pub(super) fn prepare() -> Result<(), NetnsError> {
    if !geteuid().is_root() {
        return Err(NetnsError::NotRoot);
    }
    let listed = ip(&["netns", "list"], "it lists the network namespaces")?;
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        if owner(name).is_some_and(|owner| !is_alive(owner)) {
            remove_leftover(name);
        }
    }
    Ok(())
}

/// Runs `ip` and gives what it printed; where it fails, `cure` says what to do.
pub(super) fn ip(args: &[&str], cure: &'static str) -> Result<String, NetnsError> {
    run("ip", args, cure)
}

/// Runs `tc` as [`ip`].
pub(super) fn tc(args: &[&str], cure: &'static str) -> Result<String, NetnsError> {
    run("tc", args, cure)
}

fn run(command: &'static str, args: &[&str], cure: &'static str) -> Result<String, NetnsError> {
    // In a process group of its own, so that a Ctrl-C does not stop it half-way.
    let output = Command::new(command).args(args).process_group(0).output();
    let output = output.map_err(|source| NetnsError::NoCommand { command, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default().trim_start_matches("Error: ");
    let command = format!("{command} {}", args.join(" "));
    Err(NetnsError::Refused { command, said: said.to_owned(), cure })
}

fn delete(name: &str) -> Result<(), NetnsError> {
    ip(&["netns", "del", name], "remove it by the same command").map(drop)
}

/// The process that made a namespace, by its name; none where it is not ours.
fn owner(name: &str) -> Option<Pid> {
    let (pid, side) = name.strip_prefix("ringcall-")?.split_once('-')?;
    NetSide::BOTH.iter().find(|it| it.name() == side)?;
    // As it is written here, without sign or zeros before it.
    let pid = pid.parse().ok().filter(|number: &i32| number.to_string() == pid)?;
    Pid::from_raw(pid)
}

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid) != Err(Errno::SRCH)
}

/// Removes a namespace whose owner is gone, with the children that were left in it. Another run may
/// be doing so too, thus nothing here is an error.
fn remove_leftover(name: &str) {
    let own = comm("self");
    let pids = ip(&["netns", "pids", name], "it lists the processes").unwrap_or_default();
    for pid in pids.lines().filter(|pid| own.is_some() && comm(pid) == own) {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    if delete(name).is_ok() {
        eprintln!("note: removed {name}, which a run that was killed has left");
    }
}

/// The name of a process's program.
fn comm(pid: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_owner_of_a_namespace_is_in_its_name() {
        let pid = |raw| Pid::from_raw(raw).unwrap();
        assert_eq!(owner("ringcall-4711-server"), Some(pid(4711)));
        assert_eq!(owner("ringcall-1-client"), Some(pid(1)));
    }

    #[test]
    fn a_namespace_of_another_name_is_nobodys() {
        for name in [
            "",
            "ringcall",
            "ringcall-4711",
            "ringcall-4711-",
            "ringcall-4711-probe",
            "ringcall-4711-server-2",
            "ringcall--server",
            "ringcall--1-server",
            "ringcall-+1-server",
            "ringcall-0-server",
            "ringcall-01-server",
            "ringcall-99999999999-server",
            "my-ringcall-4711-server",
        ] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_alive(rustix::process::getpid()));
    }

    #[test]
    fn a_command_that_is_missing_is_named_with_its_package() {
        let error = run("no-such-command-of-iproute2", &[], "").unwrap_err().to_string();
        assert!(error.starts_with("cannot run `no-such-command-of-iproute2`: "), "{error}");
        assert!(error.ends_with("; the package iproute2 has it"), "{error}");
    }

    #[test]
    fn a_command_that_fails_is_shown_with_what_it_said_and_the_cure() {
        let error = run("sh", &["-c", "echo Error: no >&2; exit 2"], "try another").unwrap_err();
        let expected = "`sh -c echo Error: no >&2; exit 2` failed: no; try another";
        assert_eq!(error.to_string(), expected);
    }
}
