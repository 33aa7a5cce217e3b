//! Masked sums: from a trained update to masked words, and on to opening the sum.
//!
//! A trained update stays on the disk as plain words that nobody is served, until keys are exchanged and masks can be laid
//! on. **Before the first masked byte leaves**, the masked words are durable together with what is left of the session: the
//! shares of others that this device holds, and which kind it has revealed to whom. **Before a share leaves**, its kind is
//! durable. A restart before the first of these loses the keys, so the device drops out; after it, it sends the same bytes.

use super::{Device, Sealed, TaskStage, describe, sealed_key};
use crate::job::JobSpec;
use crate::role::{Effect, Report, RowKey, Table, WorkId, Write};
use crate::work::Work;
use littoral_fed::masks::device::{Joining, Masked, Next, Terms, Who};
use littoral_fed::masks::{self, SealingStep};
use littoral_wire::codec::Wire;
use littoral_wire::object::Manifest;
use littoral_wire::{Blob, Collection, JobId, Message};
use std::sync::Arc;

/// A trained update that waits for its masks.
#[derive(Debug)]
pub(super) struct Masking {
    /// The update's words as they are: these never leave.
    pub plain: Manifest,
    /// The device's state if the update is included.
    pub pending: Option<Manifest>,
    /// What the device has of its own if the update is included.
    pub personal: Option<Manifest>,
    /// Gone while masks are being laid on.
    joining: Option<Joining>,
    /// What was said last, until it is answered.
    said: Said,
    /// The masks are being laid on; what will be left of the session.
    pub laying: Option<(WorkId, Masked)>,
}

/// A step and its body, to be said again.
pub(super) type Said = (SealingStep, Vec<u8>);

/// The newest roster that this device has seen.
pub(super) fn roster_key() -> RowKey {
    RowKey { table: Table::Roster, job: JobId(0), version: 0, item: Vec::new() }
}

impl Device {
    fn who(&self) -> Who<'_> {
        let identity = &self.identity;
        Who { key: &identity.key, cloud: identity.cloud, roster: identity.roster, newest_roster: self.newest_roster }
    }

    /// Trained; keys are next.
    pub(super) fn begin_masking(
        &mut self,
        collection: Collection,
        spec: &JobSpec,
        (plain, pending, personal): (Manifest, Option<Manifest>, Option<Manifest>),
        effects: &mut Vec<Effect>,
    ) {
        let (Some(masked), Some(task)) = (&spec.settings().masked, self.tasks.get(&collection)) else { return };
        let format = masked.format(collection.work);
        let Some(commitment) = task.commitment else {
            return self.give_up(collection, "a commitment of the cloud expected, got none".into(), effects);
        };
        // All that a session is bound to is the same for all; a stricter device could only be alone in it.
        let (least, asked) = (self.identity.group_min, masked.agreement.group_min);
        if asked < least {
            let why = format!(
                "secure_aggregation.group_min: {least} or more expected by this device's configuration, got {asked}: sums of \
                 fewer updates would be opened"
            );
            return self.give_up(collection, why, effects);
        }
        let terms = Terms {
            agreement: masked.agreement.clone(),
            context: masks::context(collection, &masked.job, task.model.id(), format),
            format,
            group_min: asked,
            commitment,
        };
        // Counted on: should the same collection be begun anew, it has other keys.
        let mut subject = collection.to_bytes();
        self.next_work.put(&mut subject);
        self.next_work += 1;
        let begun = Joining::begin(&terms, &self.who(), self.identity.entropy.draw("secagg", &subject));
        let (joining, said) = match begun {
            Ok(begun) => begun,
            Err(why) => return self.give_up(collection, why, effects),
        };
        if let (true, Some(link)) = (cfg!(feature = "broken-plain-update"), self.edge) {
            effects.push(Effect::SendChunk { link, object: plain.id(), index: 0 });
        }
        if let Some(task) = self.tasks.get_mut(&collection) {
            let masking = Masking { plain, pending, personal, joining: Some(joining), said, laying: None };
            task.stage = TaskStage::Masking(Box::new(masking));
        }
        self.say_step(collection, effects);
    }

    /// Says what was said last of this collection.
    pub(super) fn say_step(&self, collection: Collection, effects: &mut Vec<Effect>) {
        let said = match (self.sealed.get(&collection), self.tasks.get(&collection).map(|task| &task.stage)) {
            (Some(sealed), _) => sealed.said.as_ref(),
            (None, Some(TaskStage::Masking(masking))) if masking.laying.is_none() => Some(&masking.said),
            _ => None,
        };
        if let (Some(link), Some((step, body))) = (self.edge, said)
            && let Ok(body) = Blob::new(body.clone())
        {
            effects.push(Effect::Send { link, message: Message::Sealing { collection, step: *step, body } });
        }
    }

    /// A step from the cloud.
    pub(super) fn step_of_sealing(
        &mut self,
        collection: Collection,
        step: SealingStep,
        body: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        if self.sealed.contains_key(&collection) {
            return self.open(collection, step, body, effects);
        }
        let Some(task) = self.tasks.get_mut(&collection) else { return };
        let TaskStage::Masking(masking) = &mut task.stage else { return };
        let Some(joining) = masking.joining.take() else { return };
        let next = joining.hear(step, body, &self.who());
        let Some(TaskStage::Masking(masking)) = self.tasks.get_mut(&collection).map(|task| &mut task.stage) else {
            return;
        };
        match next {
            Ok(Next::Same(joining)) => masking.joining = Some(joining),
            Ok(Next::Say { joining, said, roster }) => {
                (masking.joining, masking.said) = (Some(joining), said);
                if let Some(number) = roster.filter(|number| *number > self.newest_roster) {
                    self.newest_roster = number;
                    let value = number.to_le_bytes().to_vec();
                    effects.push(Effect::Store(vec![Write::Put { key: roster_key(), value }]));
                }
                self.say_step(collection, effects);
            }
            Ok(Next::Mask { masks, left }) => {
                let id = WorkId(self.next_work);
                self.next_work += 1;
                masking.laying = Some((id, left));
                let work = Work::Mask { collection, plain: masking.plain.clone(), masks: Arc::new(masks) };
                effects.push(Effect::Work { id, work: Box::new(work) });
            }
            Err(why) => self.give_up(collection, why, effects),
        }
    }

    /// The masks are on: from here on the device sends these bytes or none.
    pub(super) fn masked(&mut self, id: WorkId, update: Manifest, effects: &mut Vec<Effect>) {
        let ours = |task: &super::Task| matches!(&task.stage, TaskStage::Masking(m) if m.laying.as_ref().is_some_and(|(laying, _)| *laying == id));
        let Some(collection) = self.tasks.iter().find(|(_, task)| ours(task)).map(|(c, _)| *c) else { return };
        let Some(task) = self.tasks.remove(&collection) else { return };
        let TaskStage::Masking(masking) = task.stage else { return };
        let Masking { plain, pending, personal, laying, .. } = *masking;
        let masks = laying.map(|(_, left)| left);
        self.keep_sealed(
            collection,
            &task.spec,
            Sealed { update, pending, personal, absorbed: false, masks, said: None, note: None },
            effects,
        );
        effects.push(Effect::Drop(plain.id()));
    }

    /// The sum is closed: survivors, signatures, shares.
    fn open(&mut self, collection: Collection, step: SealingStep, body: &[u8], effects: &mut Vec<Effect>) {
        let Some(Sealed { masks: Some(masks), .. }) = self.sealed.get(&collection) else { return };
        match masks.clone().hear(step, body, &self.who()) {
            Ok(None) => {}
            Ok(Some((masks, said))) => {
                let Some(sealed) = self.sealed.get_mut(&collection) else { return };
                (sealed.masks, sealed.said) = (Some(masks), Some(said));
                let write = Write::Put { key: sealed_key(collection), value: sealed.to_bytes() };
                effects.push(Effect::Store(vec![write]));
                self.say_step(collection, effects);
            }
            Err(why) => {
                let what = format!("{}: nothing was revealed: {why}", describe(collection));
                effects.push(Effect::Report(Report::Warning { what }));
            }
        }
    }

    /// This device takes no part in the collection, and its plain update goes.
    fn give_up(&mut self, collection: Collection, why: String, effects: &mut Vec<Effect>) {
        let plain = self.tasks.remove(&collection).and_then(|task| task.stage.plain().map(Manifest::id));
        self.decline(collection, why, effects);
        effects.extend(plain.map(Effect::Drop));
    }
}
