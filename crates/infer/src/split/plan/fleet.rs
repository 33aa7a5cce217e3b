//! Devices and what lies between them, as measured.

use super::error::PlanError;

/// Devices of a fleet: a set of them is a word.
pub const DEVICES_MAX: usize = 64;
/// Of the memory that a device gives, this share stays free: allocators, pages of files, growth of caches.
pub const HEADROOM: f64 = 0.2;
/// Bounds on what is measured: no machine is outside of them, and no sum overflows within them.
pub const BYTES_MAX: u64 = 1 << 50;
pub const RATE_MIN: f64 = 1e3;
pub const RATE_MAX: f64 = 1e18;
pub const SECONDS_MAX: f64 = 60.0;

/// A machine, or a process on one, that can have a range of layers.
#[derive(Clone, PartialEq, Debug)]
pub struct Device {
    /// Unique in the fleet.
    pub name: String,
    /// That it gives; [`HEADROOM`] of it stays free.
    pub memory_bytes: u64,
    /// Of weights, while one token is computed; decoding is bound by it.
    pub read_bytes_per_s: f64,
    /// Per layer and pass, beside reading: threads that meet, attention's fixed costs.
    pub overhead_s: f64,
    /// While a prompt is read: multiplications and additions, each counted.
    pub prefill_flops_per_s: f64,
    /// For layers that it keeps for others.
    pub disk_free_bytes: u64,
    pub disk_read_bytes_per_s: f64,
    /// Devices of one host share its cores: their stages take turns. `None`: a host of its own.
    pub host: Option<String>,
}

impl Device {
    /// Bytes that a plan may use.
    pub fn usable_bytes(&self) -> u64 {
        (self.memory_bytes as f64 * (1.0 - HEADROOM)) as u64
    }

    /// Do both run on the same machine?
    pub fn shares_host(&self, other: &Self) -> bool {
        self.name == other.name || self.host.is_some() && self.host == other.host
    }
}

/// From one device to another; both ways alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Link {
    /// There and back, of a message without a body.
    pub rtt_s: f64,
    pub bytes_per_s: f64,
}

impl Link {
    /// From the first byte that is sent to the last that is there.
    pub fn hop_s(&self, bytes: f64) -> f64 {
        self.rtt_s / 2.0 + self.transfer_s(bytes)
    }

    /// That the link is busy. What is on its way does not hinder what comes after it.
    pub fn transfer_s(&self, bytes: f64) -> f64 {
        bytes / self.bytes_per_s
    }
}

/// All devices, which of them is the head, and the links between them.
#[derive(Clone, PartialEq, Debug)]
pub struct Fleet {
    devices: Vec<Device>,
    head: usize,
    /// Row by row; of a device to itself: nothing.
    links: Vec<Link>,
}

impl Fleet {
    /// `links` between pairs of devices that differ from the usual `link`; the last of a pair counts.
    ///
    /// # Errors
    /// No device or more than [`DEVICES_MAX`], names that are empty or not unique, numbers out of bounds, a head or a pair
    /// that is not of the fleet.
    pub fn new(
        devices: Vec<Device>,
        head: usize,
        link: Link,
        links: &[(usize, usize, Link)],
    ) -> Result<Self, PlanError> {
        let n = devices.len();
        within("devices", n as f64, 1.0, DEVICES_MAX as f64)?;
        within("head", head as f64, 0.0, n as f64 - 1.0)?;
        for (index, device) in devices.iter().enumerate() {
            let name = &device.name;
            if name.is_empty() || devices[..index].iter().any(|before| before.name == *name) {
                return Err(PlanError::field(format!("device {}: name", index + 1), "a name of its own", name));
            }
            let field = |field: &str| format!("device {name}: {field}");
            within(&field("memory_bytes"), device.memory_bytes as f64, 0.0, BYTES_MAX as f64)?;
            within(&field("read_bytes_per_s"), device.read_bytes_per_s, RATE_MIN, RATE_MAX)?;
            within(&field("overhead_s"), device.overhead_s, 0.0, SECONDS_MAX)?;
            within(&field("prefill_flops_per_s"), device.prefill_flops_per_s, RATE_MIN, RATE_MAX)?;
            within(&field("disk_free_bytes"), device.disk_free_bytes as f64, 0.0, BYTES_MAX as f64)?;
            within(&field("disk_read_bytes_per_s"), device.disk_read_bytes_per_s, RATE_MIN, RATE_MAX)?;
        }
        let check = |field: &str, link: &Link| {
            within(&format!("{field}: rtt_s"), link.rtt_s, 0.0, SECONDS_MAX)?;
            within(&format!("{field}: bytes_per_s"), link.bytes_per_s, RATE_MIN, RATE_MAX)
        };
        check("link", &link)?;
        let none = Link { rtt_s: 0.0, bytes_per_s: f64::INFINITY };
        let mut all: Vec<Link> = (0..n * n).map(|at| if at / n == at % n { none } else { link }).collect();
        for (index, &(from, to, link)) in links.iter().enumerate() {
            let field = format!("link {}", index + 1);
            if from >= n || to >= n || from == to {
                return Err(PlanError::field(field, "two devices of the fleet", format!("{from} and {to}")));
            }
            check(&field, &link)?;
            (all[from * n + to], all[to * n + from]) = (link, link);
        }
        Ok(Self { devices, head, links: all })
    }

    /// In the order that was given.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The index of the device that serves.
    pub fn head(&self) -> usize {
        self.head
    }

    /// # Panics
    /// If one of them is not of the fleet.
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.links[from * self.devices.len() + to]
    }
}

/// A NaN is within nothing.
pub(super) fn within(field: &str, got: f64, least: f64, most: f64) -> Result<(), PlanError> {
    match got >= least && got <= most {
        true => Ok(()),
        false => Err(PlanError::field(field.to_owned(), &format!("{least} to {most}"), got)),
    }
}
