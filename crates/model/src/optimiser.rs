//! From a gradient to a step. An optimiser keeps its own state apart from the weights; weights, gradient and state are
//! slices of the same length (the trained prefix of a model's weights).

use littoral_tensor::Real;

/// Gradient descent with momentum, as in PyTorch: `g += weight_decay w; v = momentum v + g; w -= learning_rate v`.
///
/// Momentum 0 keeps no state. The velocity begins at zero.
#[derive(Clone, Debug)]
pub struct Sgd<T> {
    pub learning_rate: T,
    /// In 0..1.
    pub momentum: T,
    /// At least 0. Added to the gradient.
    pub weight_decay: T,
    velocity: Vec<T>,
}

impl<T: Real> Sgd<T> {
    pub fn new(len: usize, learning_rate: T, momentum: T, weight_decay: T) -> Self {
        let state = if momentum == T::ZERO { 0 } else { len };
        Self { learning_rate, momentum, weight_decay, velocity: vec![T::ZERO; state] }
    }

    /// Forgets the velocity, so that another client can use the same room.
    pub fn reset(&mut self) {
        self.velocity.fill(T::ZERO);
    }

    /// # Panics
    /// If the lengths differ.
    pub fn step(&mut self, weights: &mut [T], gradient: &[T]) {
        assert_eq!(weights.len(), gradient.len(), "weights and gradient");
        let (rate, momentum, decay) = (self.learning_rate, self.momentum, self.weight_decay);
        if self.velocity.is_empty() {
            for (w, g) in weights.iter_mut().zip(gradient) {
                *w -= rate * (*g + decay * *w);
            }
            return;
        }
        assert_eq!(weights.len(), self.velocity.len(), "weights and velocity");
        for ((w, g), v) in weights.iter_mut().zip(gradient).zip(&mut self.velocity) {
            *v = momentum * *v + (*g + decay * *w);
            *w -= rate * *v;
        }
    }
}

/// Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay (AdamW, Loshchilov and Hutter 2019); decay 0 is Adam.
#[derive(Clone, Debug)]
pub struct Adam<T> {
    pub learning_rate: T,
    /// Share of the past in the mean of gradients; usually 0.9.
    pub beta1: T,
    /// Share of the past in the mean of their squares; usually 0.999.
    pub beta2: T,
    /// Keeps the quotient finite; usually 1e-8.
    pub epsilon: T,
    /// At least 0. `w -= learning_rate * weight_decay * w`, apart from the gradient.
    pub weight_decay: T,
    mean: Vec<T>,
    square: Vec<T>,
    /// beta1 and beta2 to the number of steps made.
    powers: [f64; 2],
}

impl<T: Real> Adam<T> {
    pub fn new(len: usize, learning_rate: T) -> Self {
        Self {
            learning_rate,
            beta1: T::from_f64(0.9),
            beta2: T::from_f64(0.999),
            epsilon: T::from_f64(1e-8),
            weight_decay: T::ZERO,
            mean: vec![T::ZERO; len],
            square: vec![T::ZERO; len],
            powers: [1.0; 2],
        }
    }

    /// Forgets the moments, so that another client can use the same room.
    pub fn reset(&mut self) {
        self.mean.fill(T::ZERO);
        self.square.fill(T::ZERO);
        self.powers = [1.0; 2];
    }

    /// # Panics
    /// If the lengths differ.
    pub fn step(&mut self, weights: &mut [T], gradient: &[T]) {
        assert_eq!(weights.len(), gradient.len(), "weights and gradient");
        assert_eq!(weights.len(), self.mean.len(), "weights and moments");
        self.powers[0] *= self.beta1.to_f64();
        self.powers[1] *= self.beta2.to_f64();
        // The bias corrections, folded into the two factors that need them.
        let rate = T::from_f64(self.learning_rate.to_f64() / (1.0 - self.powers[0]));
        let scale = T::from_f64(1.0 / (1.0 - self.powers[1]));
        let (beta1, beta2, epsilon) = (self.beta1, self.beta2, self.epsilon);
        let shrink = T::ONE - self.learning_rate * self.weight_decay;
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((w, g), (mean, square)) in weights.iter_mut().zip(gradient).zip(moments) {
            *mean = beta1 * *mean + (T::ONE - beta1) * *g;
            *square = beta2 * *square + (T::ONE - beta2) * *g * *g;
            *w = *w * shrink - rate * *mean / ((*square * scale).sqrt() + epsilon);
        }
    }
}
