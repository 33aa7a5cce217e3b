//! Eligibility: in what state a device must be to take part in a job, and in what state it is.
//!
//! A job asks ([`Eligibility`], `[eligibility]`), the device answers by itself from what its host reads ([`Conditions`]): it
//! declines with the reason, and nothing of its state leaves it but that sentence. It is asked when a request comes, not while
//! it trains. What is not known is not fulfilled.

use super::JobError;
use serde::{Deserialize, Serialize};

/// What a job asks of a device's state. The default asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eligibility {
    /// On mains power.
    pub charging: bool,
    /// Nobody works on it.
    pub idle: bool,
    /// On a network that is not paid by the byte.
    pub unmetered: bool,
    /// Memory that is free, in MB; 0: not asked for.
    pub memory_mb: u64,
}

/// A device's state, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charging: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmetered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
}

/// 1 TB.
const MEMORY_MB_MAX: u64 = 1_000_000;

impl Conditions {
    /// What is known here, else what is known there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            charging: self.charging.or(other.charging),
            idle: self.idle.or(other.idle),
            unmetered: self.unmetered.or(other.unmetered),
            memory_mb: self.memory_mb.or(other.memory_mb),
        }
    }
}

impl Eligibility {
    pub(super) fn check(&self) -> Result<(), JobError> {
        match self.memory_mb > MEMORY_MB_MAX {
            true => Err(JobError::new("eligibility.memory_mb", format!("0 to {MEMORY_MB_MAX}"), self.memory_mb)),
            false => Ok(()),
        }
    }

    /// Why a device in this state takes no part; `None`: it does.
    pub fn unmet(&self, now: &Conditions) -> Option<String> {
        let states = [
            ("charging", self.charging, now.charging, "on mains power", "on battery"),
            ("idle", self.idle, now.idle, "an idle device", "one that is used"),
            ("unmetered", self.unmetered, now.unmetered, "an unmetered network", "a metered one"),
        ];
        for (name, asked, is, expected, otherwise) in states {
            let got = match (asked, is) {
                (false, _) | (true, Some(true)) => continue,
                (true, Some(false)) => otherwise.to_owned(),
                (true, None) => unknown(name),
            };
            return Some(format!("eligibility.{name}: {expected} expected, got {got}"));
        }
        let got = match now.memory_mb {
            _ if self.memory_mb == 0 => return None,
            Some(free) if free >= self.memory_mb => return None,
            // In steps, so that the reason is a new one only now and then.
            Some(free) => format!("less than {} MB", (free / 100 + 1) * 100),
            None => unknown("memory_mb"),
        };
        Some(format!("eligibility.memory_mb: {} MB of free memory expected, got {got}", self.memory_mb))
    }

    /// For people: what is asked for; `None`: nothing.
    pub fn remark(&self) -> Option<String> {
        let asked = [(self.charging, "charging"), (self.idle, "idle"), (self.unmetered, "on an unmetered network")];
        let mut asked: Vec<String> =
            asked.into_iter().filter(|(asked, _)| *asked).map(|(_, name)| name.to_owned()).collect();
        if self.memory_mb > 0 {
            asked.push(format!("with {} MB of free memory", self.memory_mb));
        }
        (!asked.is_empty()).then(|| format!("only devices that are {}", asked.join(", ")))
    }
}

fn unknown(name: &str) -> String {
    format!("a device that cannot tell: set `{name}` or `command` under [conditions] in its device.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_must_be_known_and_so() {
        let all = Eligibility { charging: true, idle: true, unmetered: true, memory_mb: 512 };
        let good = Conditions { charging: Some(true), idle: Some(true), unmetered: Some(true), memory_mb: Some(512) };
        assert_eq!(all.unmet(&good), None);
        assert_eq!(Eligibility::default().unmet(&Conditions::default()), None);
        for (now, reason) in [
            (
                Conditions { charging: Some(false), ..good },
                "eligibility.charging: on mains power expected, got on battery",
            ),
            (
                Conditions { idle: Some(false), ..good },
                "eligibility.idle: an idle device expected, got one that is used",
            ),
            (
                Conditions { unmetered: Some(false), ..good },
                "eligibility.unmetered: an unmetered network expected, got a metered one",
            ),
            (
                Conditions { memory_mb: Some(511), ..good },
                "eligibility.memory_mb: 512 MB of free memory expected, got less than 600 MB",
            ),
        ] {
            assert_eq!(all.unmet(&now).as_deref(), Some(reason));
            assert_eq!(Eligibility::default().unmet(&now), None);
        }
        let unknown = all.unmet(&Conditions { unmetered: None, ..good }).expect("not known");
        assert!(unknown.contains("cannot tell: set `unmetered`"), "{unknown}");
        assert_eq!(good.or(Conditions::default()), good);
        assert_eq!(
            Conditions { idle: None, ..good }.or(Conditions { idle: Some(false), ..Conditions::default() }).idle,
            Some(false)
        );
    }
}
