//! Compares the next-token distributions of two models, and measures margins of a model's choices.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::language::llama::argmax;

/// Divergence of a model's distributions from a reference's, over the tokens of prompts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Divergence {
    /// Kept apart, because tokens of the same prompt are correlated.
    prompts: Vec<Prompt>,
}

/// Sums over the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Prompt {
    n_tokens: usize,
    /// Sum of divergences, in nats.
    kl: f64,
    n_same_top: usize,
}

impl Divergence {
    /// Adds a token to the last prompt (creates the first if there is none): the logits of both models,
    /// `[n_vocab]` each.
    pub fn add_token(&mut self, reference: &[f32], model: &[f32]) {
        if self.prompts.is_empty() {
            self.prompts.push(Prompt::default());
        }
        if let Some(prompt) = self.prompts.last_mut() {
            prompt.n_tokens += 1;
            prompt.kl += divergence(reference, model);
            prompt.n_same_top += usize::from(argmax(reference) == argmax(model));
        }
    }

    /// Adds all prompts of another comparison.
    pub fn add(&mut self, other: &Self) {
        self.prompts.extend(&other.prompts);
    }

    fn n_tokens(&self) -> usize {
        self.prompts.iter().map(|p| p.n_tokens).sum()
    }

    /// Mean Kullback-Leibler divergence (reference || model), in nats per token.
    pub fn mean_kl(&self) -> f64 {
        let kl: f64 = self.prompts.iter().map(|p| p.kl).sum();
        kl / self.n_tokens() as f64
    }

    /// The standard error of [`Self::mean_kl`] over the choice of prompts, in nats per token: for a ratio of
    /// sums, to first order. `None` for fewer than two prompts.
    ///
    /// Few tokens contribute most of the divergence, so with few prompts this error is uncertain itself.
    pub fn standard_error(&self) -> Option<f64> {
        let (n, mean) = (self.prompts.len() as f64, self.mean_kl());
        let squared = |p: &Prompt| (p.kl - mean * p.n_tokens as f64).powi(2);
        let squares: f64 = self.prompts.iter().map(squared).sum();
        let error = (squares * n / (n - 1.0)).sqrt() / self.n_tokens() as f64;
        (self.prompts.len() > 1).then_some(error)
    }

    /// Share of tokens at which the most likely token is the same, 0 to 1.
    pub fn same_top(&self) -> f64 {
        let same: usize = self.prompts.iter().map(|p| p.n_same_top).sum();
        same as f64 / self.n_tokens() as f64
    }
}

impl Serialize for Divergence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Divergence", 4)?;
        out.serialize_field("tokens", &self.n_tokens())?;
        out.serialize_field("mean_kl", &self.mean_kl())?;
        match self.standard_error() {
            Some(error) => out.serialize_field("kl_standard_error", &error)?,
            None => out.skip_field("kl_standard_error")?,
        }
        out.serialize_field("same_top", &self.same_top())?;
        out.end()
    }
}

/// Margins of the expected tokens: their logit minus the largest other logit.
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
    /// Adds a token: logits `[n_vocab]`, and the id of the expected token.
    pub fn add_token(&mut self, logits: &[f32], right: i32) {
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

    /// The smallest margin; infinite if there are no tokens.
    pub fn least(&self) -> f32 {
        self.least
    }

    /// The mean margin.
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

/// Kullback-Leibler divergence of two rows of logits, in nats.
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

/// The logit of `right` minus the largest other logit.
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
        // Adding a constant to all logits changes nothing.
        assert_eq!(divergence(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!(divergence(&[1.0, 2.0], &[1001.0, 1002.0]).abs() < 1e-9);
        assert!(divergence(&[1.0, -500.0], &[-500.0, 1.0]) > 400.0);
    }

    #[test]
    fn tokens_are_counted_and_averaged() {
        let mut all = Divergence::default();
        all.add_token(&[0.0, 1.0], &[0.0, 1.0]);
        let mut other = Divergence::default();
        other.add_token(&[0.0, 1.0], &[1.0, 0.0]);
        all.add(&other);
        assert_eq!(all.same_top(), 0.5);
        assert_eq!(all.mean_kl(), divergence(&[0.0, 1.0], &[1.0, 0.0]) / 2.0);
    }

    /// A comparison with the given divergence per token; two pieces, equally likely in the reference.
    fn with_divergences(prompts: &[&[f64]]) -> Divergence {
        let mut all = Divergence::default();
        for kls in prompts {
            let mut prompt = Divergence::default();
            for kl in *kls {
                // 1/2 ln (1/2 / p) + 1/2 ln (1/2 / (1 - p)) = kl
                let p = (1.0 + (1.0 - (-2.0 * kl).exp()).sqrt()) / 2.0;
                prompt.add_token(&[0.0, 0.0], &[p.ln() as f32, (1.0 - p).ln() as f32]);
            }
            all.add(&prompt);
        }
        all
    }

    #[test]
    fn the_standard_error_is_that_of_prompts() {
        // For prompts of equal length: the standard deviation of their means / sqrt(number of prompts).
        let [one, two, three] = [[0.1, 0.3], [0.5, 0.5], [0.4, 0.6]];
        let all = with_divergences(&[&one, &two, &three]);
        let means = [0.2, 0.5, 0.5];
        let variance = means.map(|m: f64| (m - 0.4).powi(2)).iter().sum::<f64>() / 2.0;
        let error = all.standard_error().unwrap();
        assert!((all.mean_kl() - 0.4).abs() < 1e-6);
        assert!((error - (variance / 3.0).sqrt()).abs() < 1e-6, "{error}");

        // Prompts are weighted by their tokens: if all tokens are equal, lengths do not matter.
        let alike = with_divergences(&[&[0.2], &[0.2, 0.2, 0.2], &[0.2, 0.2]]);
        assert!(alike.standard_error().unwrap() < 1e-7);
        // One prompt gives no estimate, however many tokens it has.
        assert_eq!(with_divergences(&[&[0.1, 0.2, 0.3]]).standard_error(), None);
        assert_eq!(Divergence::default().standard_error(), None);
    }

    /// The standard deviation of the means of many samples equals the mean of their standard errors.
    #[test]
    fn the_standard_error_is_the_scatter_of_means() {
        let mut state = 1_u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as f64 / f64::from(1_u32 << 31)
        };
        let (mut means, mut errors) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let prompts: Vec<Vec<f64>> = (0..50)
                .map(|_| {
                    // A factor common to the prompt's tokens, and independent factors.
                    let (common, length) = (draw(), 1 + (20.0 * draw()) as usize);
                    (0..length).map(|_| common * draw()).collect()
                })
                .collect();
            let prompts: Vec<&[f64]> = prompts.iter().map(Vec::as_slice).collect();
            let all = with_divergences(&prompts);
            means.push(all.mean_kl());
            errors.push(all.standard_error().unwrap());
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let centre = mean(&means);
        let squares: Vec<f64> = means.iter().map(|m| (m - centre).powi(2)).collect();
        let (scatter, error) = (mean(&squares).sqrt(), mean(&errors));
        assert!((error / scatter - 1.0).abs() < 0.15, "{error} of {scatter}");
    }

    #[test]
    fn margins_are_negative_where_another_token_leads() {
        let mut margins = Margins::default();
        margins.add_token(&[1.0, 5.0, 2.0], 1);
        margins.add_token(&[1.0, 5.0, 2.0], 2);
        assert_eq!((margins.least(), margins.mean()), (-3.0, 0.0));
    }
}
