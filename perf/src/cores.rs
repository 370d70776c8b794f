//! Which cores a run uses: those that were named, or one of its own for each side.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{error::Failure, parse::CoreList};

/// The cores of both sides of a bench.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) server: CoreList,
    pub(crate) client: CoreList,
}

impl Cores {
    /// Whether a core has threads of both sides: then they take its time from each other.
    pub(crate) fn are_shared(&self) -> bool {
        self.server.0.iter().any(|core| self.client.0.contains(core))
    }
}

/// The cores that this process may use, in order.
///
/// # Errors
///
/// What the kernel says where it does not tell.
pub fn available() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect())
}

/// The cores of a bench: the client on the first there is and the server on the second, unless
/// others are named.
pub(crate) fn of_bench(
    available: &[usize],
    server: Option<&CoreList>,
    client: Option<&CoreList>,
) -> Result<Cores, Failure> {
    let client = of_client(available, client)?;
    let server = match server {
        Some(named) => check(available, named)?,
        None => {
            let other = available.iter().find(|core| !client.0.contains(core));
            CoreList(vec![other.or(available.first()).copied().unwrap_or(0)])
        }
    };
    Ok(Cores { server, client })
}

/// The cores of a client.
pub(crate) fn of_client(
    available: &[usize],
    named: Option<&CoreList>,
) -> Result<CoreList, Failure> {
    match named {
        Some(named) => check(available, named),
        None => Ok(CoreList(vec![available.first().copied().unwrap_or(0)])),
    }
}

/// The cores of a server on its own.
pub(crate) fn of_server(
    available: &[usize],
    named: Option<&CoreList>,
) -> Result<CoreList, Failure> {
    match named {
        Some(named) => check(available, named),
        None => Ok(CoreList(available.to_vec())),
    }
}

/// The cores of what goes on beside a load: the first two that neither side uses, or the only one,
/// or else the client's first.
pub(crate) fn beside(
    available: &[usize],
    (server, client): (&CoreList, &CoreList),
    named: Option<&CoreList>,
) -> Result<CoreList, Failure> {
    if let Some(named) = named {
        return check(available, named);
    }
    let is_free = |core: &&usize| !server.0.contains(core) && !client.0.contains(core);
    let free: Vec<usize> = available.iter().filter(is_free).take(2).copied().collect();
    if !free.is_empty() {
        return Ok(CoreList(free));
    }
    Ok(CoreList(client.0.iter().take(1).copied().collect()))
}

/// Pins this thread to a core, and with it every thread that it starts from now on.
///
/// # Errors
///
/// Where there is no such core, or this process may not use it.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

fn check(available: &[usize], named: &CoreList) -> Result<CoreList, Failure> {
    match named.0.iter().find(|core| !available.contains(core)) {
        None => Ok(named.clone()),
        Some(core) => {
            let available = CoreList(available.to_vec()).to_string();
            Err(Failure::NoSuchCore { core: *core, available })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn list(cores: &[usize]) -> CoreList {
        CoreList(cores.to_vec())
    }

    #[test]
    fn each_side_has_a_core_of_its_own_where_there_are_two() {
        let cores = of_bench(&[0, 1, 2], None, None).unwrap();
        assert_eq!(cores, Cores { server: list(&[1]), client: list(&[0]) });
        assert!(!cores.are_shared());
        let cores = of_bench(&[4, 6], None, None).unwrap();
        assert_eq!(cores, Cores { server: list(&[6]), client: list(&[4]) });
    }

    #[test]
    fn both_sides_share_the_only_core() {
        let cores = of_bench(&[0], None, None).unwrap();
        assert_eq!(cores, Cores { server: list(&[0]), client: list(&[0]) });
        assert!(cores.are_shared());
    }

    #[test]
    fn the_server_makes_way_for_a_client_that_names_its_core() {
        let cores = of_bench(&[0, 1], None, Some(&list(&[1]))).unwrap();
        assert_eq!(cores.server, list(&[0]));
    }

    #[test]
    fn what_goes_on_beside_a_load_has_cores_of_its_own_where_there_are_some() {
        let sides = (&list(&[1]), &list(&[0]));
        let of = |available: &[usize]| beside(available, sides, None).unwrap();
        assert_eq!(of(&[0, 1]), list(&[0]));
        assert_eq!(of(&[0, 1, 2]), list(&[2]));
        assert_eq!(of(&[0, 1, 2, 3, 4]), list(&[2, 3]));
        let named = list(&[1]);
        assert_eq!(beside(&[0, 1, 2], sides, Some(&named)).unwrap(), named);
        assert!(beside(&[0, 1], sides, Some(&list(&[5]))).is_err());
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let failure = of_bench(&[0, 1], Some(&list(&[1, 7])), None).unwrap_err();
        let text = "core 7 is not there for this process, which may use 0,1";
        assert_eq!(failure.to_string(), text);
    }
}
