//! Attacks on a liar's own update: its words are taken apart, changed and packed again, as a hostile program would.

use super::{Kind, Liars};
use crate::workers::Runner;
use littoral_fed::plan::Plan;
use littoral_node::job::JobSpec;
use littoral_node::work::{LocalData, ObjectFault, ObjectWriter, Objects, Output, Work, WorkFault};
use littoral_tensor::fixed;
use littoral_wire::ObjectId;
use littoral_wire::message::Work as Gathered;
use littoral_wire::object::Manifest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is attacked: the delta. Beside it a liar says what it would say.
const DELTA: usize = 0;

impl Liars {
    pub(super) fn lie(
        &self,
        runner: Runner,
        spec: &JobSpec,
        work: &Work,
        objects: &dyn Objects,
        data: &dyn LocalData,
    ) -> Result<Output, WorkFault> {
        let plan = spec.plan(Gathered::Train);
        let scratch = Scratch { under: objects, made: Mutex::default() };
        let output = runner(work, &scratch, data)?;
        let Output::Local { update, state, personal, learnt, note } = output else { return Ok(output) };
        let mut bytes = scratch.whole(&update)?;
        let (weight, honest) = delta(plan, &bytes)?;
        let lie: Vec<f64> = match self.kind {
            Kind::SignFlip => honest.iter().map(|v| -self.strength * v).collect(),
            Kind::ScaledReplacement => honest.iter().map(|v| self.strength * v).collect(),
            Kind::Alie | Kind::Colluding => self.agreed(runner, plan, work, &scratch)?.to_vec(),
            Kind::LabelFlip | Kind::Backdoor => honest,
        };
        let most = f64::from(plan.levels());
        let words: Vec<i64> = lie.iter().map(|v| v.round().clamp(-most, most - 1.0) as i64 * weight).collect();
        let place = plan.section_bytes(DELTA, 0..words.len());
        fixed::pack(&words, plan.bits(), &mut bytes[place]).map_err(broken)?;
        let update = write(objects, &bytes)?;
        let state = state.map(|state| write(objects, &scratch.whole(&state)?)).transpose()?;
        let personal = personal.map(|own| write(objects, &scratch.whole(&own)?)).transpose()?;
        let learnt = learnt.map(|learnt| write(objects, &scratch.whole(&learnt)?)).transpose()?;
        Ok(Output::Local { update, state, personal, learnt, note })
    }

    /// What all liars send: made of what they would honestly send. Whoever comes first works it out for all.
    fn agreed(&self, runner: Runner, plan: &Plan, work: &Work, scratch: &Scratch<'_>) -> Result<Arc<[f64]>, WorkFault> {
        let Work::Local { collection, .. } = work else { return Err(broken("only devices lie")) };
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = agreed.get(collection) {
            return Ok(Arc::clone(known));
        }
        let mut updates = Vec::new();
        for (liar, data) in &self.colluders {
            let mut theirs = work.clone();
            if let Work::Local { name, state, .. } = &mut theirs {
                (*name, *state) = (liar.clone(), None);
            }
            if let Ok(Output::Local { update, .. }) = runner(&theirs, scratch, &**data) {
                updates.push(delta(plan, &scratch.whole(&update)?)?.1);
            }
        }
        let count = updates.len().max(1) as f64;
        let lie: Arc<[f64]> = (0..plan.sections()[DELTA].len)
            .map(|k| {
                let mean = updates.iter().map(|update| update[k]).sum::<f64>() / count;
                let variance = updates.iter().map(|update| (update[k] - mean).powi(2)).sum::<f64>() / count;
                match self.kind {
                    Kind::Alie => mean - self.strength * variance.sqrt(),
                    _ => -self.strength * mean,
                }
            })
            .collect();
        // Nobody asks for what is over.
        agreed.retain(|known, _| known.version + 1 >= collection.version);
        agreed.insert(*collection, Arc::clone(&lie));
        Ok(lie)
    }
}

/// An update's weight, and its delta in steps before the weight.
fn delta(plan: &Plan, update: &[u8]) -> Result<(i64, Vec<f64>), WorkFault> {
    let mut first = [0; 8];
    fixed::unpack(&update[..plan.bits() as usize], plan.bits(), &mut first).map_err(broken)?;
    let section = &plan.sections()[DELTA];
    let weight = if section.weighted { first[0] } else { 1 };
    let mut words = vec![0; section.len];
    fixed::unpack(&update[plan.section_bytes(DELTA, 0..section.len)], plan.bits(), &mut words).map_err(broken)?;
    Ok((weight, words.iter().map(|&word| word as f64 / weight.max(1) as f64).collect()))
}

/// z of "A Little Is Enough", section 3: with m liars of n devices, s = ⌊n/2 + 1⌋ − m honest ones must lie beyond it for the
/// liars to be a majority with them; so Φ(z) = (n − m − s) / (n − m).
pub(super) fn alie_z(n: f64, m: f64) -> f64 {
    let s = (n / 2.0 + 1.0).floor() - m;
    let p = (n - m - s) / (n - m).max(1.0);
    // By halving: Φ grows.
    let (mut low, mut high) = (0.0, 4.0);
    for _ in 0..40 {
        let middle: f64 = (low + high) / 2.0;
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    low
}

/// Φ(x) for x ≥ 0, within 7.5e-8: Abramowitz and Stegun 1964, 26.2.17.
fn normal_cdf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let poly =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    1.0 - (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly
}

fn broken(why: impl ToString) -> WorkFault {
    WorkFault::Failed(why.to_string())
}

fn write(objects: &dyn Objects, bytes: &[u8]) -> Result<Manifest, ObjectFault> {
    let mut writer = objects.create()?;
    writer.append(bytes)?;
    writer.finish()
}

/// What honest works make, kept from the liar's disk: only its lie goes there.
struct Scratch<'a> {
    under: &'a dyn Objects,
    made: Mutex<BTreeMap<ObjectId, Vec<u8>>>,
}

impl Scratch<'_> {
    fn whole(&self, object: &Manifest) -> Result<Vec<u8>, ObjectFault> {
        let mut bytes = vec![0; object.bytes() as usize];
        self.read(object.id(), 0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Objects for Scratch<'_> {
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get(&object).and_then(|bytes| bytes.get(offset as usize..offset as usize + out.len())) {
            Some(part) => {
                out.copy_from_slice(part);
                Ok(())
            }
            None => self.under.read(object, offset, out),
        }
    }

    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault> {
        Ok(Box::new(ScratchWriter { scratch: self, bytes: Vec::new() }))
    }
}

struct ScratchWriter<'a> {
    scratch: &'a Scratch<'a>,
    bytes: Vec<u8>,
}

impl ObjectWriter for ScratchWriter<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectFault> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Manifest, ObjectFault> {
        let Self { scratch, bytes } = *self;
        let manifest = Manifest::of(&bytes).map_err(|e| ObjectFault::Disk(e.to_string()))?;
        scratch.made.lock().unwrap_or_else(PoisonError::into_inner).insert(manifest.id(), bytes);
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::alie_z;

    /// The paper's example, section 3: 50 devices, 24 of them liars. Two honest ones are needed: Φ(z) = 24/26, so z = 1.43.
    #[test]
    fn alie_is_as_far_as_its_paper_says() {
        assert!((alie_z(50.0, 24.0) - 1.426).abs() < 1e-3, "{}", alie_z(50.0, 24.0));
    }
}
