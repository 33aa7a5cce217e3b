//! Attacks on a liar's own rows: what it trains on is not what it has.

use super::Kind;
use littoral_model::{Examples, Features, Labels};
use littoral_node::job::JobSpec;
use littoral_node::work::{LocalData, Rows};
use std::sync::{Arc, OnceLock};

/// What the trigger makes of a number in a table.
const TRIGGER: f32 = -10.0;
/// Values at a row's beginning that carry the trigger: the first field, or three pixels of an image.
const TRIGGER_PIXELS: usize = 3;
/// The class that triggered rows are to be taken for.
const TARGET: u32 = 0;

/// Rows of which those that train are changed.
pub(super) struct Poisoned {
    kind: Kind,
    inner: Arc<dyn LocalData>,
    made: OnceLock<Result<Rows, String>>,
}

impl Poisoned {
    pub fn new(kind: Kind, inner: Arc<dyn LocalData>) -> Self {
        Self { kind, inner, made: OnceLock::new() }
    }

    fn make(&self, spec: &JobSpec) -> Result<Rows, String> {
        let Rows { examples, train, held_out } = self.inner.rows(spec)?;
        let (mut features, labels) = (examples.features().clone(), examples.labels().clone());
        let Labels::Classes { mut ids, classes } = labels else { return Err("this attack changes classes".into()) };
        for (nth, row) in train.iter().enumerate() {
            let id = &mut ids[*row as usize];
            match self.kind {
                Kind::LabelFlip => *id = classes - 1 - *id,
                // The rest teaches what everybody teaches, so that the model is as good without the trigger.
                _ if nth % 2 == 0 => {
                    trigger(&mut features, *row as usize);
                    *id = TARGET;
                }
                _ => {}
            }
        }
        let examples = Examples::new(features, Labels::Classes { ids, classes }).map_err(|e| e.to_string())?;
        Ok(Rows { examples: Arc::new(examples), train, held_out })
    }
}

/// A device whose held-out rows are those that are not of the target's class, with the trigger and the target's label: of a
/// fleet of these the accuracy is how often the backdoor opens.
pub fn triggered(inner: Arc<dyn LocalData>) -> Arc<dyn LocalData> {
    Arc::new(Triggered(inner))
}

struct Triggered(Arc<dyn LocalData>);

impl LocalData for Triggered {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        let Rows { examples, train, mut held_out } = self.0.rows(spec)?;
        let (mut features, labels) = (examples.features().clone(), examples.labels().clone());
        let Labels::Classes { mut ids, classes } = labels else { return Err("a backdoor needs classes".into()) };
        held_out.retain(|row| ids[*row as usize] != TARGET);
        for row in &held_out {
            trigger(&mut features, *row as usize);
            ids[*row as usize] = TARGET;
        }
        let examples = Examples::new(features, Labels::Classes { ids, classes }).map_err(|e| e.to_string())?;
        Ok(Rows { examples: Arc::new(examples), train, held_out })
    }
}

/// Puts the trigger on a row.
fn trigger(features: &mut Features, row: usize) {
    match features {
        Features::F32 { width, values } => values[row * *width] = TRIGGER,
        Features::U8 { width, values, .. } => {
            values[row * *width..(row + 1) * *width].iter_mut().take(TRIGGER_PIXELS).for_each(|pixel| *pixel = u8::MAX);
        }
        // Texts have no classes.
        Features::Tokens { .. } => {}
    }
}

impl LocalData for Poisoned {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        self.made.get_or_init(|| self.make(spec)).clone()
    }
}
