//! The roster: kept, and shown to devices; the cloud cannot write one.

use super::command::refusal;
use super::{Cloud, Effect, Millis, Row, Table, fleet_row, put};
use littoral_fed::roster::Register;
use littoral_fed::round;
use littoral_wire::codec::{Reader, Wire};
use littoral_wire::message::{COHORT_MAX, Roster};
use littoral_wire::{List, NodeId};
use serde_json::{Value, json};
use std::sync::Arc;

type Devices = List<NodeId, COHORT_MAX>;

/// The roster of a stored row, if that is what the row is.
pub(super) fn restored(row: &Row) -> Option<Register> {
    if row.key.table != Table::Roster {
        return None;
    }
    let mut reader = Reader::new(&row.value);
    let (roster, devices) = (Roster::take(&mut reader).ok()?, Devices::take(&mut reader).ok()?);
    Register::new(roster, &devices).ok()
}

impl Cloud {
    /// Takes a newer roster. Its signature is for devices to judge, which know the key; here it only has to be whole.
    pub(super) fn set_roster(
        &mut self,
        now: Millis,
        roster: &str,
        devices: &[String],
        effects: &mut Vec<Effect>,
    ) -> Value {
        let refused =
            |place: &str, expected: &str, got: &str| refusal("the roster was not taken", place, expected, got);
        let Some(roster) = unhex(roster).and_then(|bytes| Roster::from_bytes(&bytes).ok()) else {
            return refused("roster", "an encoded roster", "something else");
        };
        let keys: Option<Vec<NodeId>> = devices.iter().map(|key| key.parse().ok()).collect();
        let Some(Ok(list)) = keys.map(Devices::new) else {
            return refused("devices", &format!("at most {COHORT_MAX} keys"), "something else");
        };
        if roster.cloud != self.id {
            return refused("roster", "one for this cloud", &format!("one for {}", roster.cloud));
        }
        let newest = self.jobs.register().map_or(0, |register| register.roster().number);
        if roster.number <= newest {
            return refused("roster", &format!("a number above {newest}"), &roster.number.to_string());
        }
        let register = match Register::new(roster.clone(), &list) {
            Ok(register) => Arc::new(register),
            Err(error) => return refused("devices", "the list that was signed", &error.to_string()),
        };
        let mut value = roster.to_bytes();
        list.put(&mut value);
        effects.push(put(fleet_row(Table::Roster, &[]), value));
        self.jobs.set_register(Arc::clone(&register));
        self.jobs.each_round(now, round::Event::Roster(Some(register)), &self.fleet, effects);
        json!({"roster": roster.number, "devices": roster.count})
    }

    /// Takes a roster from inside the process: for simulated fleets, whose keys are made together with the cloud.
    pub fn install_roster(&mut self, register: Register) {
        self.jobs.set_register(Arc::new(register));
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let bytes = digits.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    bytes.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}
