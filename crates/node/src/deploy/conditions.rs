//! In what state this machine is: from a command that says so, else as far as Linux tells.
//!
//! | condition | from |
//! |---|---|
//! | `charging` | `/sys/class/power_supply`: a mains or USB supply that is online, or a battery that charges or is full; without any supply the machine has no battery and is on mains |
//! | `idle` | `/proc/loadavg`: the load of the last minute for each core is below `idle_load` |
//! | `unmetered` | `nmcli`, where NetworkManager is: no connection is metered, and one is known not to be |
//! | `memory_mb` | `/proc/meminfo`: `MemAvailable` |
//!
//! What cannot be found out is as the configuration says, else not known. A command prints one JSON object with any of the
//! four; it has a few seconds, and what it prints is bounded.

use crate::config::ConditionsConfig;
use crate::host::{Handle, OnReport};
use crate::job::Conditions;
use crate::role::{Event, Report};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(30);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// What a command may print.
const OUTPUT_BYTES_MAX: u64 = 4_096;

/// Tells a device's role its state, now and whenever it changes, until the role's run ends.
pub(super) fn watch(handle: &Handle, config: &ConditionsConfig, base: &Path, on_report: OnReport) {
    let (send, config, base) = (handle.sender(), config.clone(), base.to_owned());
    tokio::spawn(async move {
        let (mut known, mut complained) = (None, String::new());
        loop {
            let now = match found(&config, &base).await {
                Ok(found) => found,
                Err(what) => {
                    if what != complained {
                        complained.clone_from(&what);
                        on_report(Report::Warning { what });
                    }
                    Conditions::default()
                }
            };
            let now = now.or(config.assumed());
            if known != Some(now) {
                known = Some(now);
                if !send(Event::Conditions(now)) {
                    return;
                }
            }
            sleep(EVERY).await;
        }
    });
}

/// What is found out now; an error is a sentence.
async fn found(config: &ConditionsConfig, base: &Path) -> Result<Conditions, String> {
    let mut words = config.command.split_whitespace();
    if let Some(program) = words.next() {
        let words: Vec<&str> = words.collect();
        let wrong = |got: String| format!("conditions.command: one JSON object expected, got {got}");
        let said = output(program, &words, base).await.map_err(wrong)?;
        return serde_json::from_str(&said).map_err(|e| wrong(format!("{e}: {}", said.trim())));
    }
    let idle_load = config.idle_load;
    let files = tokio::task::spawn_blocking(move || of_files(Path::new("/"), idle_load)).await.unwrap_or_default();
    let metered = output("nmcli", &["-g", "GENERAL.METERED", "device", "show"], base).await;
    Ok(Conditions { unmetered: metered.ok().and_then(|said| unmetered(&said)), ..files })
}

/// What a program prints, if it ends well and in time.
async fn output(program: &str, words: &[&str], base: &Path) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(words)
        .current_dir(if base.as_os_str().is_empty() { Path::new(".") } else { base })
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("no program: {e}"))?;
    let out = child.stdout.take();
    let run = async {
        let mut bytes = Vec::new();
        if let Some(out) = out {
            out.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes).await.map_err(|e| e.to_string())?;
        }
        if bytes.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(format!("more than {OUTPUT_BYTES_MAX} bytes"));
        }
        let status = child.wait().await.map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("a failure, {status}"));
        }
        String::from_utf8(bytes).map_err(|_| "bytes that are not UTF-8".into())
    };
    // Dropped at the limit, the child is killed.
    let late = |_| Err(format!("nothing within {} s", COMMAND_TIMEOUT.as_secs()));
    timeout(COMMAND_TIMEOUT, run).await.unwrap_or_else(late)
}

/// `root`: `/`, but for tests.
fn of_files(root: &Path, idle_load: f64) -> Conditions {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()) as f64;
    let load = read(root.join("proc/loadavg")).and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let memory = read(root.join("proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        // In kB, which are 1,024 bytes.
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024 / 1_000_000)
    });
    let charging = std::fs::read_dir(root.join("sys/class/power_supply")).ok().map(|supplies| {
        let (mut battery, mut power) = (false, false);
        for supply in supplies.flatten().map(|entry| entry.path()) {
            let of = |name: &str| read(supply.join(name)).unwrap_or_default();
            // A mouse has a battery of its own.
            if of("scope") == "Device" {
                continue;
            }
            match of("type").as_str() {
                "Battery" => {
                    battery = true;
                    power |= matches!(of("status").as_str(), "Charging" | "Full");
                }
                "" => {}
                _ => power |= of("online") == "1",
            }
        }
        power || !battery
    });
    Conditions { charging, idle: load.map(|load| load < idle_load * cores), unmetered: None, memory_mb: memory }
}

/// Of what `nmcli` says of each network device: `yes`, `no`, either `(guessed)`, or `unknown`.
fn unmetered(said: &str) -> Option<bool> {
    let any = |answer: &str| said.lines().any(|line| line.trim().starts_with(answer));
    if any("yes") { Some(false) } else { any("no").then_some(true) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_of_a_laptop_are_understood() {
        let root = std::env::temp_dir().join(format!("littoral-conditions-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("writes");
        };
        write("proc/loadavg", "0.01 0.50 0.40 1/300 4242\n");
        write("proc/meminfo", "MemTotal:  8000000 kB\nMemFree:  1 kB\nMemAvailable:    1000000 kB\n");
        write("sys/class/power_supply/mouse/type", "Battery\n");
        write("sys/class/power_supply/mouse/scope", "Device\n");
        let is = |idle_load| of_files(&root, idle_load);
        assert_eq!(is(0.75).charging, Some(true), "no battery: a machine on mains");
        write("sys/class/power_supply/BAT0/type", "Battery\n");
        write("sys/class/power_supply/BAT0/status", "Discharging\n");
        write("sys/class/power_supply/AC/type", "Mains\n");
        write("sys/class/power_supply/AC/online", "0\n");
        assert_eq!(
            is(0.75),
            Conditions { charging: Some(false), idle: Some(true), unmetered: None, memory_mb: Some(1_024) }
        );
        write("sys/class/power_supply/AC/online", "1\n");
        assert_eq!((is(0.75).charging, is(0.0).idle), (Some(true), Some(false)));
        fs::remove_dir_all(&root).expect("removes");
        assert_eq!(is(0.75), Conditions::default());
        assert_eq!(
            (unmetered("no (guessed)\n\nunknown\n"), unmetered("no\nyes\n"), unmetered("unknown\n")),
            (Some(true), Some(false), None)
        );
    }

    #[tokio::test]
    async fn a_command_says_what_it_knows_or_is_refused() {
        let found = |command: &str| {
            let config = ConditionsConfig { command: command.into(), ..ConditionsConfig::default() };
            async move { found(&config, Path::new("")).await }
        };
        let said = found("echo {\"idle\":true,\"memory_mb\":900}").await;
        assert_eq!(said, Ok(Conditions { idle: Some(true), memory_mb: Some(900), ..Conditions::default() }));
        for (command, part) in [
            ("echo {\"idel\":true}", "unknown field `idel`"),
            ("echo yes", "expected value"),
            ("false", "a failure"),
            ("littoral-no-such-program", "no program"),
            ("yes", "more than 4096 bytes"),
        ] {
            let error = found(command).await.expect_err(command);
            assert!(error.starts_with("conditions.command:") && error.contains(part), "{error}");
        }
    }
}
