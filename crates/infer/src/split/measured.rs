//! A fleet as it was measured: what machines said of themselves and the head's links to them, as the planner's numbers.
//!
//! Who measures is the host. What machines say is bounded here: numbers that no machine has become the nearest that one may
//! have.

use super::plan::{BYTES_MAX, Device, Fleet, Link, PlanError, RATE_MAX, RATE_MIN, SECONDS_MAX};
use littoral_wire::pipeline::Profile;

/// Of a disk that nobody could measure.
pub const DISK_READ_BYTES_PER_S: f64 = 500e6;
const NAME_CHARS_MAX: usize = 16;

/// A machine, and the head's link to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    pub profile: Profile,
    pub link: Link,
}

impl Measured {
    /// Why it can have no layers, however fast it is.
    pub fn out(&self) -> Option<&'static str> {
        let Profile { timed_bytes, disk_free_bytes, .. } = self.profile;
        (timed_bytes == 0 && disk_free_bytes == 0)
            .then_some("out: it has no copy of the model's file, and no disk for layers (--standby-mb)")
    }
}

/// The head is the first device, the machines follow in their order.
///
/// Between two machines nobody measured: the longer of their round trips to the head and the slower of their rates are
/// taken, as if all were on one network and each had its own way to it.
///
/// # Errors
/// Too many machines.
pub fn fleet(head: &Profile, machines: &[Measured]) -> Result<Fleet, PlanError> {
    let profiles: Vec<&Profile> =
        std::iter::once(head).chain(machines.iter().map(|machine| &machine.profile)).collect();
    let mut devices: Vec<Device> = Vec::new();
    for profile in &profiles {
        let name = free_name(&profile.name, &devices);
        let same = |other: &&&Profile| other.host == profile.host;
        let shared = profile.host != [0; 16] && profiles.iter().filter(same).count() > 1;
        devices.push(device(profile, name, shared));
    }
    let mut links = Vec::new();
    for (at, machine) in machines.iter().enumerate() {
        let own = bounded(machine.link);
        links.push((0, at + 1, own));
        for (before, other) in machines[..at].iter().enumerate() {
            let other = bounded(other.link);
            let rtt_s = own.rtt_s.max(other.rtt_s);
            links.push((before + 1, at + 1, Link { rtt_s, bytes_per_s: own.bytes_per_s.min(other.bytes_per_s) }));
        }
    }
    Fleet::new(devices, 0, Link { rtt_s: 0.0, bytes_per_s: RATE_MAX }, &links)
}

fn device(profile: &Profile, name: String, shared: bool) -> Device {
    let rate = |per_s: u64| (per_s as f64).clamp(RATE_MIN, RATE_MAX);
    Device {
        name,
        // Where the system does not tell, nothing is known to be too little.
        memory_bytes: if profile.memory_bytes == 0 { BYTES_MAX } else { profile.memory_bytes.min(BYTES_MAX) },
        read_bytes_per_s: rate(profile.read_bytes_per_s),
        // It is in the rate.
        overhead_s: 0.0,
        prefill_flops_per_s: rate(profile.prefill_flops_per_s),
        disk_free_bytes: profile.disk_free_bytes.min(BYTES_MAX),
        disk_read_bytes_per_s: match profile.disk_read_bytes_per_s {
            0 => DISK_READ_BYTES_PER_S,
            known => rate(known),
        },
        host: shared.then(|| profile.host.iter().take(4).map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// Of what a machine calls itself, what can be printed; with a number where others have that name.
fn free_name(name: &str, taken: &[Device]) -> String {
    let plain: String = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    let plain = if plain.is_empty() { "machine".to_owned() } else { plain };
    let free = |name: &String| taken.iter().all(|device| device.name != *name);
    let numbered = (2..).map(|n| format!("{plain}-{n}"));
    std::iter::once(plain.clone()).chain(numbered).find(free).unwrap_or(plain)
}

fn bounded(link: Link) -> Link {
    // A NaN is none of them, and becomes the worst.
    let rtt_s = if link.rtt_s >= 0.0 { link.rtt_s.min(SECONDS_MAX) } else { SECONDS_MAX };
    let bytes_per_s = if link.bytes_per_s >= RATE_MIN { link.bytes_per_s.min(RATE_MAX) } else { RATE_MIN };
    Link { rtt_s, bytes_per_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, host: u8, read: u64) -> Profile {
        Profile {
            name: name.into(),
            host: [host; 16],
            memory_bytes: 4_000,
            disk_free_bytes: 5,
            disk_read_bytes_per_s: 0,
            read_bytes_per_s: read,
            prefill_flops_per_s: 7_000,
            timed_bytes: 1,
        }
    }

    fn measured(name: &str, host: u8, rtt_s: f64, bytes_per_s: f64) -> Measured {
        Measured { profile: profile(name, host, 9_000), link: Link { rtt_s, bytes_per_s } }
    }

    #[test]
    fn machines_become_devices_and_those_of_one_host_say_so() {
        let machines = [measured("a", 1, 1e-3, 1e8), measured("head", 0, 2e-3, 1e7), measured("a", 0, f64::NAN, -1.0)];
        let fleet = fleet(&profile("head", 1, 0), &machines).unwrap();
        let names: Vec<_> = fleet.devices().iter().map(|device| device.name.as_str()).collect();
        assert_eq!((names, fleet.head()), (vec!["head", "a", "head-2", "a-2"], 0));
        let hosts: Vec<_> = fleet.devices().iter().map(|device| device.host.as_deref()).collect();
        // Those that do not know where they run have no host in common.
        assert_eq!(hosts, [Some("01010101"), Some("01010101"), None, None]);
        assert_eq!((fleet.devices()[0].read_bytes_per_s, fleet.devices()[1].read_bytes_per_s), (RATE_MIN, 9e3));
        assert_eq!(fleet.link(1, 0), Link { rtt_s: 1e-3, bytes_per_s: 1e8 });
        assert_eq!(fleet.link(1, 2), Link { rtt_s: 2e-3, bytes_per_s: 1e7 });
        assert_eq!(fleet.link(3, 0), Link { rtt_s: SECONDS_MAX, bytes_per_s: RATE_MIN });
    }

    #[test]
    fn names_can_be_printed_and_memory_that_is_not_told_is_enough() {
        let mut odd = measured("\u{1b}[2J", 0, 0.0, f64::INFINITY);
        (odd.profile.memory_bytes, odd.profile.disk_free_bytes) = (0, u64::MAX);
        odd.profile.disk_read_bytes_per_s = u64::MAX;
        let fleet = fleet(&profile("", 0, 1), &[odd]).unwrap();
        let [head, odd] = fleet.devices() else { panic!("two devices") };
        assert_eq!((head.name.as_str(), odd.name.as_str()), ("machine", "[2J"));
        assert_eq!(
            (odd.memory_bytes, odd.disk_free_bytes, fleet.link(0, 1).bytes_per_s),
            (BYTES_MAX, BYTES_MAX, RATE_MAX)
        );
        assert_eq!((head.disk_read_bytes_per_s, odd.disk_read_bytes_per_s), (DISK_READ_BYTES_PER_S, RATE_MAX));
    }
}
