//! The cores that the interrupts of the NIC go to, against those of the shards.

use super::{
    Shards,
    finding::Finding,
    nic::{NO_NIC, Nic},
    system::{System, ranges},
};

/// Parts of the names of interrupts that bring no packets. Those for packets that were sent are
/// few, and cost little.
const NOT_RECEIVING: [&str; 6] = ["config", "async", "ctrl", "mgmt", "event", "output"];

/// Most commands that are written out.
const COMMANDS_MAX: usize = 8;

/// An interrupt of the NIC's queues.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interrupt {
    number: u32,
    /// The cores that it goes to.
    cores: Vec<usize>,
}

pub(super) fn finding(system: &System, shards: &Shards, nic: Option<&Nic>) -> Finding {
    let topic = "NIC interrupts";
    let why =
        "a shard whose core serves them has less time than its neighbours: apart, or as many each";
    let Some(nic) = nic else { return Finding::unknown(topic, NO_NIC, why) };
    let interrupts = of_nic(system, &nic.name);
    if interrupts.is_empty() {
        return Finding::unknown(topic, "none is named after the interface or its device", why);
    }
    let mut on: Vec<usize> = interrupts.iter().flat_map(|it| it.cores.iter().copied()).collect();
    on.sort_unstable();
    on.dedup();
    // Where one may go to several cores, each counts.
    let served = |core: &usize| interrupts.iter().filter(|it| it.cores.contains(core)).count();
    let of_shards: Vec<usize> = shards.cores.iter().map(served).collect();
    let (least, most) = (of_shards.iter().min().copied(), of_shards.iter().max().copied());
    let found = format!("{} on core {}", interrupts.len(), ranges(&on));
    if most == Some(0) {
        return Finding::ok(topic, format!("{found}, apart from the shards"), why);
    }
    if least == most {
        return Finding::ok(topic, format!("{found}, as many for each shard"), why);
    }
    let found = format!("{found}, not as many for each shard");
    match cure(system, shards, &interrupts) {
        Some(command) => Finding::change(topic, found, why, command),
        // Whether a core is better spent on a shard is for a measurement to say.
        None => {
            let idle: Vec<usize> =
                shards.cores.iter().filter(|core| served(core) == 0).copied().collect();
            let command = format!("leave their cores to them: --cores {}", ranges(&idle));
            Finding::note(topic, found, why, command)
        }
    }
}

/// What brings the interrupts to other cores; none where there are none, and too few of them for
/// each shard to have one.
fn cure(system: &System, shards: &Shards, interrupts: &[Interrupt]) -> Option<String> {
    let apart: Vec<usize> =
        shards.available.iter().filter(|core| !shards.cores.contains(core)).copied().collect();
    // Spread over the cores without a shard; over the shards where there are as many or more.
    let to = match (apart.as_slice(), interrupts.len() >= shards.cores.len()) {
        ([_, ..], _) => apart,
        ([], true) => shards.cores.clone(),
        ([], false) => return None,
    };
    let mut commands: Vec<String> = interrupts
        .iter()
        .zip(to.iter().cycle())
        .take(COMMANDS_MAX)
        .map(|(it, core)| format!("echo {core} > /proc/irq/{}/smp_affinity_list", it.number))
        .collect();
    if interrupts.len() > COMMANDS_MAX {
        commands.push(format!("and so on, {} in all", interrupts.len()));
    }
    if is_balanced(system) {
        commands.insert(0, "systemctl disable --now irqbalance".to_owned());
    }
    Some(commands.join("; "))
}

/// Whether a program moves interrupts by itself.
fn is_balanced(system: &System) -> bool {
    let is_pid = |name: &&String| name.chars().all(|c| c.is_ascii_digit());
    let names = system.names("proc").unwrap_or_default();
    names.iter().filter(is_pid).any(|pid| {
        system.line(&format!("proc/{pid}/comm")).is_some_and(|comm| comm == "irqbalance")
    })
}

/// The interrupts that are named after the interface, or after its device.
fn of_nic(system: &System, name: &str) -> Vec<Interrupt> {
    let device = system.target_name(&format!("sys/class/net/{name}/device"));
    let text = system.text("proc/interrupts").unwrap_or_default();
    let is_of = |action: &str| {
        let of = |owner: &str| {
            action.match_indices(owner).any(|(at, _)| {
                // `eth1` is not `eth10`, nor `veth1`.
                let before = action.get(..at).and_then(|text| text.chars().next_back());
                let after = action.get(at + owner.len()..).and_then(|text| text.chars().next());
                !before.is_some_and(char::is_alphanumeric)
                    && !after.is_some_and(char::is_alphanumeric)
            })
        };
        of(name) || device.as_deref().is_some_and(of)
    };
    text.lines()
        .filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let number = number.trim().parse().ok()?;
            let action = rest.split_whitespace().next_back()?;
            if !receives(action) || !is_of(action) {
                return None;
            }
            Some(Interrupt { number, cores: cores_of(system, number)? })
        })
        .collect()
}

/// Whether an interrupt of this name may tell of packets that came.
fn receives(action: &str) -> bool {
    let action = action.to_lowercase();
    let sends_only = action.contains("tx") && !action.contains("rx");
    !sends_only && !NOT_RECEIVING.iter().any(|word| action.contains(word))
}

/// The cores that an interrupt goes to: where it really does, or where it may.
fn cores_of(system: &System, number: u32) -> Option<Vec<usize>> {
    let read = |file: &str| system.cores(&format!("proc/irq/{number}/{file}"));
    read("effective_affinity_list").or_else(|| read("smp_affinity_list"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        fake::{self, FakeSystem, assert_finds},
        finding::State::{self, *},
    };

    const INTERRUPTS: &str = "           CPU0       CPU1\n\
        \x20 8:          1          0  IO-APIC   8-edge      rtc0\n\
        \x2031:          0          0  PCI-MSI 1-edge      eth1-config\n\
        \x2032:          9          0  PCI-MSI 2-edge      eth1-rx-0\n\
        \x2033:          0          9  PCI-MSI 3-edge      eth1-rx-1\n\
        \x2034:          0          9  PCI-MSI 3-edge      eth10-rx-1\n\
        \x2035:          0          9  PCI-MSI 4-edge      eth1-tx-1\n\
        LOC:          5          5   Local timer interrupts\n";

    /// A host whose interrupts 32 and 33 go to these cores.
    fn host(first: &str, second: &str) -> FakeSystem {
        FakeSystem::with(&[
            ("proc/interrupts", INTERRUPTS),
            ("proc/irq/31/smp_affinity_list", "0\n"),
            ("proc/irq/32/smp_affinity_list", "0-7\n"),
            ("proc/irq/32/effective_affinity_list", first),
            ("proc/irq/33/smp_affinity_list", second),
            ("proc/irq/34/smp_affinity_list", "0\n"),
            ("proc/irq/35/smp_affinity_list", "0\n"),
        ])
    }

    #[track_caller]
    fn check(fake: &FakeSystem, shards: &Shards, (state, says, command): (State, &str, &str)) {
        let nic = Nic { name: "eth1".to_owned(), ..Nic::default() };
        assert_finds(&finding(&fake.system(), shards, Some(&nic)), state, says, command);
    }

    #[test]
    fn interrupts_belong_apart_from_the_shards_or_one_to_each() {
        let shards = fake::shards(&[0, 1], 4);
        check(&host("2\n", "3\n"), &shards, (Ok, "2 on core 2-3, apart", ""));
        check(&host("0\n", "1\n"), &shards, (Ok, "2 on core 0-1, as many for each", ""));
    }

    #[test]
    fn interrupts_of_one_shard_alone_are_to_be_moved() {
        let skewed = host("0\n", "0\n");
        let elsewhere = "echo 2 > /proc/irq/32/smp_affinity_list; echo 3 > /proc/irq/33/smp";
        check(
            &skewed,
            &fake::shards(&[0, 1], 4),
            (Change, "not as many for each shard", elsewhere),
        );
        let spread = "echo 0 > /proc/irq/32/smp_affinity_list; echo 1 > /proc/irq/33/smp";
        check(&skewed, &fake::shards(&[0, 1], 2), (Change, "2 on core 0", spread));
        let fewer = fake::shards(&[0, 1, 2], 3);
        check(&skewed, &fewer, (Note, "2 on core 0", "--cores 1-2"));
        skewed.write("proc/77/comm", "irqbalance\n");
        let command = "systemctl disable --now irqbalance; echo 0 >";
        check(&skewed, &fake::shards(&[0, 1], 2), (Change, "", command));
    }

    #[test]
    fn interrupts_that_are_not_found_are_unknown() {
        let shards = fake::shards(&[0], 1);
        check(&FakeSystem::with(&[]), &shards, (Unknown, "none is named", ""));
        let found = finding(&host("0\n", "0\n").system(), &shards, None);
        assert_finds(&found, Unknown, "--interface", "");
    }

    /// As those of virtio are: `virtio2-input.0`.
    #[test]
    fn interrupts_may_be_named_after_the_device() {
        let fake = FakeSystem::with(&[
            ("proc/interrupts", "  38:  0  1  PCI-MSIX-0000:00:03.0 1-edge virtio2-input.0\n"),
            ("proc/irq/38/smp_affinity_list", "3\n"),
            ("sys/devices/virtio2/vendor", ""),
            ("sys/class/net/eth1/address", ""),
        ]);
        fake.link("sys/class/net/eth1/device", "../../../devices/virtio2");
        check(&fake, &fake::shards(&[0], 4), (Ok, "1 on core 3, apart", ""));
    }
}
