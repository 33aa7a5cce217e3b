//! Masked sums: the steps before devices send and after the sum is closed.
//!
//! ```text
//!   wait ──> keys ──> (nonces) ──> shares ──> upload ──> close ──> (agree) ──> reveal ──> apply
//! ```
//!
//! In brackets: only if the cloud may lie ([`ThreatName::Active`]). Who does not answer a step in time is out of the
//! collection; before shares that costs nothing, after them the others help to take its masks away. Who takes part is
//! fixed with the keys: from then on nobody is asked in another's place.
//!
//! # Crashes
//!
//! [`Record::Committed`] is durable before any device is asked: a cloud that comes back while devices train takes the keys
//! that they send then. [`Record::Keyed`] is durable before any device can send masked words, and [`Record::Survivors`]
//! before any device is asked to reveal: a cloud that comes back goes on from there, with the same survivors. One that comes
//! back between keys and [`Record::Keyed`] gives the attempt up as soon as a device shows that it has gone on.

use super::members::MemberState;
use super::settings::Phase;
use super::{Effect, Millis, Record, Round, Settings, Stage};
use crate::dp::Sampling;
use crate::masks::cloud::{Masking, Say};
use crate::masks::{self, SealingStep};
use littoral_wire::NodeId;
use littoral_wire::codec::Wire;

impl Round {
    /// A masked collection begins.
    pub(super) fn begin_masking(&mut self, effects: &mut Vec<Effect>) {
        if self.settings.masked.is_none() {
            return;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.entropy);
        hasher.update(b"littoral/secagg/cloud\0");
        hasher.update(&self.collection.to_bytes());
        let secret = *hasher.finalize().as_bytes();
        effects.push(Effect::Record(Record::Committed { collection: self.collection, secret }));
        self.masking = self.masking_with(secret);
    }

    fn masking_with(&self, secret: [u8; 32]) -> Option<Masking> {
        self.settings.masked.as_ref().map(|masked| {
            let format = masked.format(self.collection.work);
            let context = masks::context(self.collection, &masked.job, self.model.id(), format);
            Masking::begin(masked.agreement.clone(), context, format, secret)
        })
    }

    /// The cloud is back: devices may be training, or have gone on to steps that it has forgotten.
    pub(super) fn resume_masking(&mut self, secret: [u8; 32]) {
        self.masking = self.masking_with(secret).map(Masking::resumed);
    }

    /// What devices are told before they send keys; `None` where the sum is not masked.
    pub fn commitment(&self) -> Option<[u8; 32]> {
        self.masking.as_ref().map(Masking::commitment)
    }

    /// A device's step. Returns whether anything may have come of it: who is not in the cohort costs a look-up.
    pub(super) fn sealing(
        &mut self,
        device: NodeId,
        step: SealingStep,
        body: &[u8],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let (Some(masking), Some(member)) = (&mut self.masking, self.members.get(&device)) else { return false };
        if matches!(member.state, MemberState::Out { .. } | MemberState::Expelling { .. }) {
            return false;
        }
        let counted = matches!(member.state, MemberState::In(_));
        let group = self.presence.get(&device).map_or(device, |attached| attached.edge);
        match masking.hear(device, group, step, body) {
            Ok(says) => effects.extend(says.into_iter().map(said)),
            // Its words are in a sum, which stands or falls without its help.
            Err(why) if counted => {
                masking.forget(device);
                self.declined(device, why, effects);
            }
            Err(why) => self.shut_out(device, why, effects),
        }
        true
    }

    /// It takes no part in this collection any more, and its edge shall take nothing from it.
    fn shut_out(&mut self, device: NodeId, why: String, effects: &mut Vec<Effect>) {
        self.release_member(device, effects);
        self.refuse(device, why, effects);
    }

    fn release_member(&self, device: NodeId, effects: &mut Vec<Effect>) {
        let number = self.members.get(&device).and_then(|member| member.state.number());
        if let Some((number, desk)) = number.and_then(|number| Some((number, self.desks.get(&number)?))) {
            let (edge, incarnation) = (desk.edge, self.incarnation(number));
            effects.push(Effect::Release { edge, incarnation, device });
        }
    }

    /// What this device waits for, said again: it is back, or its edge is.
    pub(super) fn say_again(&self, device: NodeId, effects: &mut Vec<Effect>) {
        if let Some(say) = self.masking.as_ref().and_then(|masking| masking.again(device)) {
            effects.push(said(say));
        }
    }

    /// Keys, nonces, shares: is the step over?
    pub(super) fn try_phase(&mut self, now: Millis, phase: Phase, until: Millis, effects: &mut Vec<Effect>) {
        if self.masking.as_ref().is_some_and(Masking::is_stale) {
            return self.abort(now, "the cloud was restarted while keys were exchanged".into(), effects);
        }
        let (min, target) = (self.settings.cohort.min as usize, self.settings.cohort.target as usize);
        let Some(masking) = &self.masking else {
            return self.abort(now, "the cloud was restarted while keys were exchanged".into(), effects);
        };
        let answered = masking.answered();
        let expected = if phase == Phase::Keys { self.members.tally().1 } else { masking.expected() };
        let enough = phase == Phase::Keys && answered >= target && self.settings.sampling == Sampling::Present;
        if enough || (answered >= min && (answered >= expected || now >= until)) {
            self.next_phase(now, phase, effects);
        } else if now >= until {
            let why = format!("{answered} of the {min} devices needed at least were ready with {}", name(phase));
            self.abort(now, why, effects);
        } else if expected < min && !(phase == Phase::Keys && self.top_up(effects)) {
            let why = format!("{expected} of the {min} updates needed at least can come{}", self.who_is_out());
            self.abort(now, why, effects);
        }
    }

    fn next_phase(&mut self, now: Millis, phase: Phase, effects: &mut Vec<Effect>) {
        let Some(masking) = &mut self.masking else { return };
        let (says, in_time) = match masking.next(self.register.as_deref()) {
            Ok(next) => next,
            Err(why) => return self.abort(now, why, effects),
        };
        let (left_out, next) = (masking.take_left_out(), masking.phase());
        if next == Phase::Upload {
            let directory = masking.to_bytes();
            effects.push(Effect::Record(Record::Keyed { collection: self.collection, directory }));
        }
        if next == Phase::Shares {
            self.sessions = masking.sessions().to_vec();
            effects.push(Effect::Keyed { collection: self.collection, sessions: self.sessions.clone() });
        }
        effects.extend(says.into_iter().map(said));
        let until = now + if next == Phase::Upload { self.settings.deadline_ms } else { self.settings.close_ms };
        self.stage = Stage::Collect { phase: next, until };
        effects.push(Effect::Wake { at: until });
        // Whoever did not answer is out, and whose group is too small.
        let late: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(device, m)| !in_time.contains(device) && !matches!(m.state, MemberState::Out { .. }))
            .map(|(device, _)| *device)
            .collect();
        for device in late {
            match left_out.get(&device) {
                Some(why) => self.shut_out(device, why.clone(), effects),
                None => {
                    self.release_member(device, effects);
                    let why = format!("was not ready with {} when enough others were", name(phase));
                    self.set(device, MemberState::Out { why });
                }
            }
        }
    }

    /// Could the sum over those who are in be opened?
    pub(super) fn can_open(&self) -> Result<(), String> {
        let Some(masking) = &self.masking else { return Ok(()) };
        masking.can_open(|device| self.members.get(device).is_some_and(|m| matches!(m.state, MemberState::In(_))))
    }

    /// Fewest updates that make a version of this collection.
    pub(super) fn fewest(&self) -> usize {
        let masked = self.masking.as_ref().map_or(0, Masking::minimum);
        masked.max(self.settings.cohort.min as usize)
    }

    /// All partials are kept: from now on it is fixed whose updates are in the sum.
    pub(super) fn fix_survivors(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let kept = self.kept_partials();
        let mut devices: Vec<NodeId> = kept.iter().flat_map(|k| k.devices.iter().copied()).collect();
        devices.sort_unstable();
        effects.push(Effect::Record(Record::Survivors { collection: self.collection, devices: devices.clone() }));
        match self.open_with(now, &devices) {
            Ok(says) => effects.extend(says.into_iter().map(said)),
            Err(why) => return self.abort(now, why, effects),
        }
        if let Stage::Open { until, .. } = self.stage {
            effects.push(Effect::Wake { at: until });
        }
    }

    /// The same when the cloud is back, from the record.
    pub(super) fn open_with(&mut self, now: Millis, devices: &[NodeId]) -> Result<Vec<Say>, String> {
        let masking = self.masking.as_mut().ok_or("the keys of this collection are lost")?;
        let says = masking.survivors(devices)?;
        let phase = masking.phase();
        self.stage = Stage::Open { phase, until: self.until_opened(now, phase) };
        Ok(says)
    }

    /// A sum is opened as soon as enough was revealed; to give it up earlier would cost a whole round.
    fn until_opened(&self, now: Millis, phase: Phase) -> Millis {
        let Settings { close_ms, deadline_ms, .. } = self.settings;
        now + if phase == Phase::Reveal { close_ms.max(deadline_ms) } else { close_ms }
    }

    /// Agree, reveal: can the sum be opened?
    pub(super) fn try_reveal(&mut self, now: Millis, phase: Phase, until: Millis, effects: &mut Vec<Effect>) {
        let Some(masking) = &mut self.masking else {
            return self.abort(now, "the keys of this collection are lost".into(), effects);
        };
        let all = masking.answered() >= masking.expected();
        if phase == Phase::Agree && (all || now >= until) {
            match masking.next(None) {
                Ok((says, _)) => effects.extend(says.into_iter().map(said)),
                Err(why) => return self.abort(now, why, effects),
            }
            let until = self.until_opened(now, Phase::Reveal);
            self.stage = Stage::Open { phase: Phase::Reveal, until };
            effects.push(Effect::Wake { at: until });
        } else if phase == Phase::Reveal {
            match masking.open() {
                Ok(()) => self.apply(effects),
                // More may come.
                Err(_) if !all && now < until => {}
                Err(why) => self.abort(now, why, effects),
            }
        }
    }

    /// The cloud is back: keys are fixed, devices may be sending.
    pub(super) fn restore_masking(&mut self, now: Millis, directory: &[u8]) {
        let Some(masked) = &self.settings.masked else { return };
        let Ok(masking) = Masking::restored(masked.agreement.clone(), directory) else { return };
        let sharing = masking.sharing();
        self.sessions = masking.sessions().to_vec();
        self.masking = Some(masking);
        let out: Vec<NodeId> = self.members.iter().map(|(d, _)| *d).filter(|d| !sharing.contains(d)).collect();
        let why = "was not ready with shares when enough others were";
        out.into_iter().for_each(|device| self.set(device, MemberState::Out { why: why.into() }));
        self.stage = Stage::Collect { phase: Phase::Upload, until: now + self.settings.deadline_ms };
    }
}

fn said(Say { devices, step, body }: Say) -> Effect {
    Effect::Sealing { devices, step, body }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Keys => "keys",
        Phase::Nonces => "nonces",
        Phase::Shares => "shares",
        Phase::Upload => "updates",
        Phase::Agree => "signatures",
        Phase::Reveal => "what opens the sum",
    }
}
