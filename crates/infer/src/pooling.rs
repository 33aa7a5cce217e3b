//! From the vectors of a text's tokens to one vector for the text.

use littoral_model::lm::Architecture;
use littoral_tensor::gguf::{Gguf, GgufError};

/// Which tokens a text's vector is made of. The numbers are GGUF's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    Mean = 1,
    /// The first.
    Cls = 2,
    Last = 3,
}

impl Pooling {
    /// What the file says under `pooling_type`; the mean if it says nothing, or that nothing is pooled. `None`: it is a
    /// model that ranks, and gives no vectors.
    pub(crate) fn of(gguf: &Gguf<'_>, architecture: Architecture) -> Result<Option<Self>, GgufError> {
        let entry = gguf.metadata().get(&format!("{architecture}.pooling_type"));
        Ok(match entry.map(|entry| entry.u32()).transpose()? {
            None | Some(0 | 1) => Some(Self::Mean),
            Some(2) => Some(Self::Cls),
            Some(3) => Some(Self::Last),
            Some(_) => None,
        })
    }
}

/// The vector of a text whose tokens come one after the other. In f64 and in their order, so that its bits depend on the
/// text only.
pub(crate) struct Pooled {
    pooling: Pooling,
    sum: Vec<f64>,
    tokens: usize,
}

impl Pooled {
    pub fn new(pooling: Pooling, width: usize) -> Self {
        Self { pooling, sum: vec![0.0; width], tokens: 0 }
    }

    pub fn add(&mut self, vector: &[f32]) {
        match self.pooling {
            Pooling::Cls if self.tokens > 0 => {}
            Pooling::Last => self.sum = vector.iter().map(|x| f64::from(*x)).collect(),
            Pooling::Mean | Pooling::Cls => {
                self.sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        }
        self.tokens += 1;
    }

    /// Of length 1: its direction is all that it says, and the mean's is the sum's.
    pub fn vector(&self) -> Vec<f32> {
        unit(&self.sum).into_iter().map(|x| x as f32).collect()
    }
}

/// A vector of length 1 in the same direction; zeros stay zeros.
pub fn unit(vector: &[f64]) -> Vec<f64> {
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| if length > 0.0 { x / length } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pooling_takes_its_tokens() {
        let vector = |pooling| {
            let mut pooled = Pooled::new(pooling, 2);
            [[3.0, 0.0], [0.0, 0.0], [0.0, 4.0]].iter().for_each(|token| pooled.add(token));
            pooled.vector()
        };
        assert_eq!(vector(Pooling::Mean), [0.6, 0.8]);
        assert_eq!(vector(Pooling::Cls), [1.0, 0.0]);
        assert_eq!(vector(Pooling::Last), [0.0, 1.0]);
        assert_eq!(unit(&[0.0, 0.0]), [0.0, 0.0]);
    }
}
