//! How close one model's next-token distributions are to another's, and how clear its choices.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::llama::argmax;

/// A model's distributions beside a reference's, over tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closeness {
    n_tokens: usize,
    /// Sum of the divergences, in nats.
    kl: f64,
    n_same_top: usize,
}

impl Closeness {
    /// Adds a token: the logits of both, `[n_vocab]`.
    pub fn see(&mut self, reference: &[f32], model: &[f32]) {
        self.n_tokens += 1;
        self.kl += divergence(reference, model);
        self.n_same_top += usize::from(argmax(reference) == argmax(model));
    }

    /// Adds all tokens of another.
    pub fn add(&mut self, other: &Self) {
        self.n_tokens += other.n_tokens;
        self.kl += other.kl;
        self.n_same_top += other.n_same_top;
    }

    /// Mean Kullback-Leibler divergence (reference || model), in nats per token.
    pub fn mean_kl(&self) -> f64 {
        self.kl / self.n_tokens as f64
    }

    /// Share of tokens of which the likeliest is the same, 0 to 1.
    pub fn same_top(&self) -> f64 {
        self.n_same_top as f64 / self.n_tokens as f64
    }
}

impl Serialize for Closeness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Closeness", 3)?;
        out.serialize_field("tokens", &self.n_tokens)?;
        out.serialize_field("mean_kl", &self.mean_kl())?;
        out.serialize_field("same_top", &self.same_top())?;
        out.end()
    }
}

/// By how much the right tokens lead.
#[derive(Clone, Debug, PartialEq)]
pub struct Margins {
    n_tokens: usize,
    sum: f64,
    least: f32,
}

impl Default for Margins {
    fn default() -> Self {
        Self {
            n_tokens: 0,
            sum: 0.0,
            least: f32::INFINITY,
        }
    }
}

impl Margins {
    /// Adds a token: logits `[n_vocab]`, and which of them should be the largest.
    pub fn see(&mut self, logits: &[f32], right: i32) {
        let margin = margin(logits, right);
        self.n_tokens += 1;
        self.sum += f64::from(margin);
        self.least = self.least.min(margin);
    }

    /// Adds all tokens of another.
    pub fn add(&mut self, other: &Self) {
        self.n_tokens += other.n_tokens;
        self.sum += other.sum;
        self.least = self.least.min(other.least);
    }

    /// The least; infinite if no token was seen.
    pub fn least(&self) -> f32 {
        self.least
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.sum / self.n_tokens as f64
    }
}

impl Serialize for Margins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Margins", 2)?;
        out.serialize_field("least_margin", &self.least())?;
        out.serialize_field("mean_margin", &self.mean())?;
        out.end()
    }
}

/// Kullback-Leibler divergence of the distributions of two rows of logits, in nats.
fn divergence(reference: &[f32], model: &[f32]) -> f64 {
    let (p, q) = (log_sum_exp(reference), log_sum_exp(model));
    let pairs = reference.iter().zip(model);
    let term = |(r, m): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(*r) - p, f64::from(*m) - q);
        log_p.exp() * (log_p - log_q)
    };
    pairs.map(term).sum()
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let above = |l: &f32| (f64::from(*l) - f64::from(most)).exp();
    f64::from(most) + logits.iter().map(above).sum::<f64>().ln()
}

/// The logit of `right` less the largest of the others.
fn margin(logits: &[f32], right: i32) -> f32 {
    let right = right as usize;
    let others = logits.iter().enumerate().filter(|(i, _)| *i != right);
    logits[right] - others.fold(f32::NEG_INFINITY, |most, (_, l)| most.max(*l))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_probabilities() {
        let ln = |p: [f64; 2]| p.map(|v| v.ln() as f32);
        let (half, skew) = (ln([0.5, 0.5]), ln([0.25, 0.75]));
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((divergence(&half, &skew) - expected).abs() < 1e-6);
        // Logits count up to a constant, however large.
        assert_eq!(divergence(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!(divergence(&[1.0, 2.0], &[1001.0, 1002.0]).abs() < 1e-9);
        assert!(divergence(&[1.0, -500.0], &[-500.0, 1.0]) > 400.0);
    }

    #[test]
    fn tokens_are_counted_and_averaged() {
        let mut all = Closeness::default();
        all.see(&[0.0, 1.0], &[0.0, 1.0]);
        let mut other = Closeness::default();
        other.see(&[0.0, 1.0], &[1.0, 0.0]);
        all.add(&other);
        assert_eq!(all.same_top(), 0.5);
        assert_eq!(all.mean_kl(), divergence(&[0.0, 1.0], &[1.0, 0.0]) / 2.0);
    }

    #[test]
    fn margins_are_negative_where_another_token_leads() {
        let mut margins = Margins::default();
        margins.see(&[1.0, 5.0, 2.0], 1);
        margins.see(&[1.0, 5.0, 2.0], 2);
        assert_eq!((margins.least(), margins.mean()), (-3.0, 0.0));
    }
}
