//! `fleet.toml`: devices and links as somebody measured them and wrote them down.
//!
//! Numbers are in the units that people have (MB of 10^6 bytes, Mbit/s, ms); [`Fleet`] has bytes and seconds. A wrong file
//! is refused with its line, the field, what is allowed and what was found.

use crate::config::ConfigError;
use littoral_infer::split::plan::{
    BYTES_MAX, DEVICES_MAX, Device, Fleet, Link, PlanError, RATE_MAX, RATE_MIN, SECONDS_MAX,
};
use serde::Deserialize;

/// The commented sample.
pub const FLEET_SAMPLE_TOML: &str = include_str!("fleet.toml");
/// Of a name, also of a host's.
const NAME_BYTES_MAX: usize = 64;
/// Where one device is the fleet, and nothing is sent.
const ALONE: Link = Link { rtt_s: 0.0, bytes_per_s: 1e8 };
/// Each pair once.
const LINKS_MAX: usize = DEVICES_MAX * (DEVICES_MAX - 1) / 2;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetFile {
    head: Option<String>,
    /// One device needs none.
    network: Option<LinkText>,
    device: Vec<DeviceText>,
    #[serde(default)]
    link: Vec<PairText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkText {
    rtt_ms: f64,
    mbit_per_s: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairText {
    between: Vec<String>,
    rtt_ms: f64,
    mbit_per_s: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceText {
    name: String,
    memory_mb: f64,
    read_mb_per_s: f64,
    prefill_gflops: f64,
    #[serde(default = "overhead_us")]
    overhead_us: f64,
    #[serde(default)]
    disk_free_mb: f64,
    #[serde(default = "disk_read_mb_per_s")]
    disk_read_mb_per_s: f64,
    host: Option<String>,
}

fn overhead_us() -> f64 {
    20.0
}

fn disk_read_mb_per_s() -> f64 {
    500.0
}

/// Which table of the file, and which field in it.
struct Place {
    /// `[[device]]`, and the how many-th from 0.
    header: &'static str,
    nth: usize,
    /// For people: `device desk`.
    table: String,
}

type Wrong = (Place, &'static str, String, String);

impl FleetFile {
    /// From a text; `file` is for messages.
    pub fn parse(toml: &str, file: &str) -> Result<Fleet, ConfigError> {
        let text: Self = toml::from_str(toml).map_err(|e| ConfigError::of_toml(&e, toml, file))?;
        text.fleet().map_err(|(place, field, expected, got)| {
            let name = if place.table.is_empty() { field.to_owned() } else { format!("{}, {field}", place.table) };
            ConfigError::new(file, line_of(toml, place.header, place.nth, field), &name, &expected, &got)
        })
    }

    /// A fleet as such a file, all links between pairs included.
    pub fn write(fleet: &Fleet) -> String {
        use std::fmt::Write;
        let quoted = |name: &str| toml::Value::String(name.to_owned()).to_string();
        // Within what is read, which are whole numbers of other units.
        let rates = |link: Link| {
            let (rtt_ms, mbit_per_s) = (link.rtt_s * 1e3, (link.bytes_per_s * 8.0 / 1e6).min(RATE_MAX / 1e9));
            format!("rtt_ms = {rtt_ms:?}\nmbit_per_s = {mbit_per_s:?}\n")
        };
        let (devices, mut text) = (fleet.devices(), String::new());
        let mut pairs = (0..devices.len()).flat_map(|to| (0..to).map(move |from| (from, to))).peekable();
        let usual = pairs.peek().map_or(ALONE, |(from, to)| fleet.link(*from, *to));
        // A String takes all.
        let _ = write!(text, "head = {}\n\n[network]\n{}", quoted(&devices[fleet.head()].name), rates(usual));
        for device in devices {
            let _ = write!(text, "\n[[device]]\nname = {}\n", quoted(&device.name));
            let megabytes = |bytes: u64| (bytes as f64 / 1e6).min((BYTES_MAX as f64 / 1e6).floor());
            let per_s = |rate: f64, unit: f64| (rate / unit).min(RATE_MAX / 1e9);
            for (field, value) in [
                ("memory_mb", megabytes(device.memory_bytes)),
                ("read_mb_per_s", per_s(device.read_bytes_per_s, 1e6)),
                ("prefill_gflops", per_s(device.prefill_flops_per_s, 1e9)),
                ("overhead_us", device.overhead_s * 1e6),
                ("disk_free_mb", megabytes(device.disk_free_bytes)),
                ("disk_read_mb_per_s", per_s(device.disk_read_bytes_per_s, 1e6)),
            ] {
                let _ = writeln!(text, "{field} = {value:?}");
            }
            if let Some(host) = &device.host {
                let _ = writeln!(text, "host = {}", quoted(host));
            }
        }
        for (from, to) in pairs {
            let [a, b] = [from, to].map(|device| quoted(&devices[device].name));
            let _ = write!(text, "\n[[link]]\nbetween = [{a}, {b}]\n{}", rates(fleet.link(from, to)));
        }
        text
    }

    fn fleet(&self) -> Result<Fleet, Wrong> {
        let top = || Place { header: "", nth: 0, table: String::new() };
        let count = self.device.len();
        if !(1..=DEVICES_MAX).contains(&count) {
            return Err((top(), "device", format!("1 to {DEVICES_MAX} tables [[device]]"), count.to_string()));
        }
        if self.link.len() > LINKS_MAX {
            return Err((top(), "link", format!("at most {LINKS_MAX}"), self.link.len().to_string()));
        }
        let devices: Vec<Device> = (0..count).map(|nth| self.device(nth)).collect::<Result<_, _>>()?;
        let index = |name: &str| devices.iter().position(|device| device.name == name);
        let known = || format!("one of the devices: {}", names(&devices));
        let head = match &self.head {
            None => 0,
            Some(name) => index(name).ok_or_else(|| (top(), "head", known(), format!("{name:?}")))?,
        };
        let network = Place { header: "[network]", nth: 0, table: "network".to_owned() };
        let usual = match self.network {
            Some(network_text) => link(network, network_text)?,
            None if count == 1 => ALONE,
            None => {
                let expected = format!("a table [network] with rtt_ms and mbit_per_s between {count} devices");
                return Err((top(), "network", expected, "none".to_owned()));
            }
        };
        let mut links = Vec::new();
        for (nth, pair) in self.link.iter().enumerate() {
            let place = || Place { header: "[[link]]", nth, table: format!("link {}", nth + 1) };
            let [from_name, to_name] = pair.between.as_slice() else {
                return Err((place(), "between", "two devices".to_owned(), format!("{} names", pair.between.len())));
            };
            let find = |name| index(name).ok_or_else(|| (place(), "between", known(), format!("{name:?}")));
            let (from, to) = (find(from_name)?, find(to_name)?);
            if from == to {
                return Err((place(), "between", "two devices".to_owned(), format!("{from_name:?} twice")));
            }
            let again =
                |other: &(usize, usize, Link)| (other.0, other.1) == (from, to) || (other.1, other.0) == (from, to);
            if links.iter().any(again) {
                let pair = format!("{from_name:?} and {to_name:?} again");
                return Err((place(), "between", "each pair once".to_owned(), pair));
            }
            links.push((from, to, link(place(), LinkText { rtt_ms: pair.rtt_ms, mbit_per_s: pair.mbit_per_s })?));
        }
        // All bounds were looked at; this is for those that come later.
        Fleet::new(devices, head, usual, &links).map_err(|e: PlanError| {
            let (field, expected, got) = e.parts();
            (top(), "device", format!("{field}: {expected}"), got)
        })
    }

    fn device(&self, nth: usize) -> Result<Device, Wrong> {
        let text = &self.device[nth];
        let place = || Place { header: "[[device]]", nth, table: format!("device {}", nth + 1) };
        for (field, name) in [("name", Some(&text.name)), ("host", text.host.as_ref())] {
            let Some(name) = name else { continue };
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
                let expected = format!("1 to {NAME_BYTES_MAX} bytes that can be printed");
                return Err((place(), field, expected, format!("{name:?}")));
            }
        }
        if self.device[..nth].iter().any(|before| before.name == text.name) {
            return Err((place(), "name", "names that differ".to_owned(), format!("{:?} again", text.name)));
        }
        let place = || Place { table: format!("device {}", text.name), ..place() };
        let number = |field: &'static str, got: f64, least: f64, most: f64, unit: f64| match got >= least && got <= most
        {
            true => Ok(got * unit),
            false => Err((place(), field, format!("{least} to {most}"), got.to_string())),
        };
        let bytes =
            |field, got| number(field, got, 0.0, (BYTES_MAX as f64 / 1e6).floor(), 1e6).map(|bytes| bytes as u64);
        let per_s = |field, got| number(field, got, RATE_MIN / 1e6, RATE_MAX / 1e9, 1e6);
        Ok(Device {
            name: text.name.clone(),
            memory_bytes: bytes("memory_mb", text.memory_mb)?,
            read_bytes_per_s: per_s("read_mb_per_s", text.read_mb_per_s)?,
            overhead_s: number("overhead_us", text.overhead_us, 0.0, SECONDS_MAX * 1e6, 1e-6)?,
            prefill_flops_per_s: number("prefill_gflops", text.prefill_gflops, RATE_MIN / 1e6, RATE_MAX / 1e9, 1e9)?,
            disk_free_bytes: bytes("disk_free_mb", text.disk_free_mb)?,
            disk_read_bytes_per_s: per_s("disk_read_mb_per_s", text.disk_read_mb_per_s)?,
            host: text.host.clone(),
        })
    }
}

fn link(place: Place, text: LinkText) -> Result<Link, Wrong> {
    let LinkText { rtt_ms, mbit_per_s } = text;
    let (rtt_ms_max, mbit_min, mbit_max) = (SECONDS_MAX * 1e3, RATE_MIN * 8.0 / 1e6, RATE_MAX / 1e9);
    if !(rtt_ms >= 0.0 && rtt_ms <= rtt_ms_max) {
        return Err((place, "rtt_ms", format!("0 to {rtt_ms_max}"), rtt_ms.to_string()));
    }
    if !(mbit_per_s >= mbit_min && mbit_per_s <= mbit_max) {
        return Err((place, "mbit_per_s", format!("{mbit_min} to {mbit_max}"), mbit_per_s.to_string()));
    }
    Ok(Link { rtt_s: rtt_ms / 1e3, bytes_per_s: mbit_per_s * 1e6 / 8.0 })
}

fn names(devices: &[Device]) -> String {
    devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The line that sets `field` in the `nth` table with this header, else the header's; 0 if neither is found, as in tables that
/// are written inline.
fn line_of(toml: &str, header: &str, nth: usize, field: &str) -> usize {
    let lines = || toml.lines().map(str::trim).enumerate();
    let begins = |line: &str| line.starts_with(header);
    let start = match header {
        "" => Some(0),
        _ => lines().filter(|(_, line)| begins(line)).nth(nth).map(|(index, _)| index + 1),
    };
    let Some(start) = start else { return 0 };
    let sets = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == field);
    let mut own = lines().skip(start).take_while(|(_, line)| !line.starts_with('['));
    own.find(|(_, line)| sets(line)).map_or(start, |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_a_fleet_in_bytes_and_seconds() {
        let fleet = FleetFile::parse(FLEET_SAMPLE_TOML, "f").unwrap();
        let (names, desk): (Vec<_>, _) =
            (fleet.devices().iter().map(|d| d.name.as_str()).collect(), &fleet.devices()[0]);
        assert_eq!((names, fleet.head()), (vec!["desk", "laptop", "board"], 0));
        assert_eq!((desk.memory_bytes, desk.read_bytes_per_s, desk.prefill_flops_per_s), (8_000_000_000, 2e10, 3e11));
        assert!((desk.overhead_s - 2e-5).abs() < 1e-12);
        assert_eq!((desk.disk_free_bytes, desk.disk_read_bytes_per_s), (50_000_000_000, 2e9));
        assert_eq!(fleet.link(1, 0), Link { rtt_s: 0.003, bytes_per_s: 25e6 });
        assert_eq!(fleet.link(1, 2), Link { rtt_s: 0.0004, bytes_per_s: 125e6 });
    }

    #[test]
    fn what_is_written_is_read_as_the_same_fleet() {
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} is not {b}");
        for toml in
            [FLEET_SAMPLE_TOML.to_owned(), FLEET_SAMPLE_TOML.replace("# host", "host").replace("board", "a\\\"b")]
        {
            let fleet = FleetFile::parse(&toml, "f").unwrap();
            let again = FleetFile::parse(&FleetFile::write(&fleet), "again").unwrap();
            assert_eq!((again.devices().len(), again.head()), (fleet.devices().len(), fleet.head()));
            for (a, b) in again.devices().iter().zip(fleet.devices()) {
                assert_eq!((&a.name, &a.host), (&b.name, &b.host));
                // Units are other ones in the file, and rounding is too.
                near(a.memory_bytes as f64, b.memory_bytes as f64);
                near(a.read_bytes_per_s, b.read_bytes_per_s);
                near(a.prefill_flops_per_s, b.prefill_flops_per_s);
                near(a.disk_read_bytes_per_s, b.disk_read_bytes_per_s);
            }
            for (from, to) in [(0, 1), (0, 2), (1, 2)] {
                near(again.link(from, to).rtt_s, fleet.link(from, to).rtt_s);
                near(again.link(from, to).bytes_per_s, fleet.link(from, to).bytes_per_s);
            }
        }
    }

    #[test]
    fn mistakes_are_named_by_line_and_field() {
        for (from, to, line, field, expected, got) in [
            ("head = \"desk\"", "head = \"desc\"", 6, "head", "one of the devices: desk, laptop, board", "\"desc\""),
            ("rtt_ms = 0.4", "rtt_ms = -1", 10, "network, rtt_ms", "0 to 60000", "-1"),
            ("rtt_ms = 0.4", "rtt_ms = nan", 10, "network, rtt_ms", "0 to 60000", "NaN"),
            ("mbit_per_s = 200", "mbit_per_s = 0", 43, "link 1, mbit_per_s", "0.008 to 1000000000", "0"),
            (
                "memory_mb = 6000",
                "memory_mb = 1e12",
                25,
                "device laptop, memory_mb",
                "0 to 1125899906",
                "1000000000000",
            ),
            (
                "read_mb_per_s = 4000",
                "read_mb_per_s = 0",
                34,
                "device board, read_mb_per_s",
                "0.001 to 1000000000",
                "0",
            ),
            ("name = \"board\"", "name = \"desk\"", 32, "device 3, name", "names that differ", "\"desk\" again"),
            ("name = \"board\"", "name = \"a\\u001b[2J\"", 32, "device 3, name", "1 to 64 bytes", "u{1b}"),
            ("\"laptop\"]", "\"desk\"]", 41, "link 1, between", "two devices", "\"desk\" twice"),
            ("\"laptop\"]", "\"phone\"]", 41, "link 1, between", "desk, laptop, board", "\"phone\""),
            ("\"laptop\"]", "\"laptop\", \"board\"]", 41, "link 1, between", "two devices", "3 names"),
            (
                "memory_mb = 6000",
                "memory = 6000",
                25,
                "device.memory",
                "memory_mb? known: name",
                "unknown field memory",
            ),
            ("memory_mb = 6000", "", 23, "device.memory_mb", "a value", "nothing"),
            ("[network]", "[netwrk]", 9, "netwrk", "network? known: head", "unknown field netwrk"),
        ] {
            assert!(FLEET_SAMPLE_TOML.contains(from), "{from}");
            let text = FLEET_SAMPLE_TOML.replacen(from, to, 1);
            let error = FleetFile::parse(&text, "fleet.toml").unwrap_err();
            assert_eq!((error.line, error.field.as_str()), (line, field), "{to}: {error}");
            assert!(error.expected.contains(expected) && error.got.contains(got), "{to}: {error}");
            assert!(!error.to_string().contains(char::is_control));
        }
        let again =
            format!("{FLEET_SAMPLE_TOML}\n[[link]]\nbetween = [\"laptop\", \"desk\"]\nrtt_ms = 1\nmbit_per_s = 1\n");
        assert_eq!(FleetFile::parse(&again, "f").unwrap_err().field, "link 2, between");
    }

    #[test]
    fn a_fleet_has_one_device_and_not_too_many() {
        let text = |devices: usize| {
            let device =
                |n| format!("[[device]]\nname = \"m{n}\"\nmemory_mb = 1\nread_mb_per_s = 1\nprefill_gflops = 1\n");
            let devices: String = (0..devices).map(device).collect();
            format!("[network]\nrtt_ms = 1\nmbit_per_s = 1\n{devices}")
        };
        assert_eq!(FleetFile::parse(&text(64), "f").unwrap().devices().len(), 64);
        assert_eq!(FleetFile::parse(&text(65), "f").unwrap_err().got, "65");
        assert!(FleetFile::parse(&text(0), "f").is_err());
        assert_eq!(FleetFile::parse(&format!("device = []\n{}", text(0)), "f").unwrap_err().got, "0");
        let without = |devices| text(devices).split_once("[[").map(|(_, tables)| format!("[[{tables}")).unwrap();
        assert_eq!(FleetFile::parse(&without(1), "f").unwrap().devices().len(), 1);
        assert_eq!(FleetFile::parse(&without(2), "f").unwrap_err().field, "network");
    }
}
