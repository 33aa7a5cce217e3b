//! Operators: whose commands the cloud carries out, and how far.
//!
//! There is always one who may administer, or nobody could let another in: the last of them is neither withdrawn nor
//! given a lesser right.

use super::command::Right;
use super::{Effect, Row, Table, Write, fleet_row, put};
use littoral_wire::NodeId;
use littoral_wire::codec::Wire;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An operator, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Operator {
    pub name: String,
    pub right: Right,
}

/// The change would leave nobody who may administer; the one who is left has this name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LastOne(pub String);

/// By key.
#[derive(Debug, Default)]
pub(super) struct Operators(BTreeMap<NodeId, Operator>);

impl Operators {
    pub fn restore(&mut self, row: &Row) {
        if row.key.table == Table::Operator
            && let (Ok(id), Ok(operator)) = (NodeId::from_bytes(&row.key.item), serde_json::from_slice(&row.value))
        {
            self.0.insert(id, operator);
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Another replica has withdrawn it.
    pub fn forget(&mut self, key: NodeId) {
        self.0.remove(&key);
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Operator)> {
        self.0.iter().map(|(key, operator)| (*key, operator))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn right(&self, key: NodeId) -> Option<Right> {
        self.0.get(&key).map(|operator| operator.right)
    }

    pub fn name(&self, key: NodeId) -> String {
        self.0.get(&key).map_or_else(|| key.short(), |operator| operator.name.clone())
    }

    /// Lets a key in. One that is in gets this name and this right instead.
    pub fn add(&mut self, key: NodeId, name: &str, right: Right, effects: &mut Vec<Effect>) -> Result<(), LastOne> {
        if right < Right::Administer {
            self.others_administer(key)?;
        }
        let operator = Operator { name: name.into(), right };
        effects.push(put(fleet_row(Table::Operator, &key.0), serde_json::to_vec(&operator).unwrap_or_default()));
        self.0.insert(key, operator);
        Ok(())
    }

    /// From now on the key is a stranger's.
    pub fn revoke(&mut self, key: NodeId, effects: &mut Vec<Effect>) -> Result<(), LastOne> {
        self.others_administer(key)?;
        if self.0.remove(&key).is_some() {
            effects.push(Effect::Store(vec![Write::Delete { key: fleet_row(Table::Operator, &key.0) }]));
        }
        Ok(())
    }

    /// May somebody administer without this key, or could it not do so itself?
    fn others_administer(&self, key: NodeId) -> Result<(), LastOne> {
        let administers = |operator: &Operator| operator.right == Right::Administer;
        match self.0.get(&key).filter(|operator| administers(operator)) {
            Some(operator) if !self.0.iter().any(|(other, o)| *other != key && administers(o)) => {
                Err(LastOne(operator.name.clone()))
            }
            _ => Ok(()),
        }
    }
}
