//! Compares computed with recorded values.

/// Deviation of values from the expected ones.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Deviation {
    /// Largest absolute difference.
    pub max: f64,
    /// Mean absolute difference.
    pub mean: f64,
    /// Root mean square of the difference, relative to the spread of the expected values.
    pub rel_rms: f64,
    /// Cosine similarity after subtracting the means.
    pub cosine: f64,
}

impl Deviation {
    /// Compares two lists of equal length. A value that is not finite, on either side, counts as an infinite
    /// difference.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn between(found: &[f32], expected: &[f32]) -> Self {
        assert_eq!(found.len(), expected.len(), "as many values as expected");
        let n = found.len().max(1) as f64;
        let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let (mean_f, mean_e) = (mean(found), mean(expected));
        let (mut max, mut sum, mut squares) = (0.0f64, 0.0, 0.0);
        let (mut dot, mut norm_f, mut norm_e) = (0.0, 0.0, 0.0);
        for (f, e) in found.iter().zip(expected) {
            let (f, e) = (f64::from(*f), f64::from(*e));
            let d = if (f - e).is_finite() {
                (f - e).abs()
            } else {
                f64::INFINITY
            };
            max = max.max(d);
            sum += d;
            squares += d * d;
            dot += (f - mean_f) * (e - mean_e);
            norm_f += (f - mean_f).powi(2);
            norm_e += (e - mean_e).powi(2);
        }
        let rel_rms = if squares == 0.0 {
            0.0
        } else {
            (squares / norm_e).sqrt()
        };
        let cosine = if squares == 0.0 {
            1.0
        } else {
            dot / (norm_f * norm_e).sqrt()
        };
        Self {
            max,
            mean: sum / n,
            rel_rms,
            cosine,
        }
    }
}

/// The result of one stage.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stage {
    /// Name of the stage.
    pub name: String,
    /// The deviation, for numeric stages.
    pub deviation: Option<Deviation>,
    /// The tolerance, as text.
    pub tolerance: String,
    /// Whether the stage is within its tolerance.
    pub ok: bool,
    /// Additional information, for example the first difference.
    pub note: String,
}

impl Stage {
    /// A stage whose recorded shape differs from the model's: never within tolerance.
    pub fn mismatch(name: &str, n_found: usize, n_expected: usize) -> Self {
        Self {
            name: name.to_owned(),
            deviation: None,
            tolerance: "as many values".to_owned(),
            ok: false,
            note: format!("expected {n_expected} values as recorded, found {n_found}"),
        }
    }

    /// A numeric stage with an absolute tolerance for each value.
    pub fn absolute(name: &str, found: &[f32], expected: &[f32], tolerance: f64) -> Self {
        if found.len() != expected.len() {
            return Self::mismatch(name, found.len(), expected.len());
        }
        let deviation = Deviation::between(found, expected);
        Self {
            name: name.to_owned(),
            deviation: Some(deviation),
            tolerance: format!("max {tolerance:.0e}"),
            ok: deviation.max <= tolerance,
            note: String::new(),
        }
    }

    /// A numeric stage with a tolerance for all values together.
    pub fn relative(
        name: &str,
        found: &[f32],
        expected: &[f32],
        (rel_rms, cosine): (f64, f64),
    ) -> Self {
        if found.len() != expected.len() {
            return Self::mismatch(name, found.len(), expected.len());
        }
        let deviation = Deviation::between(found, expected);
        Self {
            name: name.to_owned(),
            deviation: Some(deviation),
            tolerance: format!("rms {rel_rms}, cos {cosine}"),
            ok: deviation.rel_rms <= rel_rms && deviation.cosine >= cosine,
            note: format!("rms {:.4}, cos {:.5}", deviation.rel_rms, deviation.cosine),
        }
    }

    /// A numeric stage without tolerance; it only must be finite.
    pub fn reported(name: &str, found: &[f32], expected: &[f32]) -> Self {
        let stage = Self::relative(name, found, expected, (f64::INFINITY, -1.0));
        if stage.deviation.is_none_or(|d| !d.max.is_finite()) {
            return Self { ok: false, ..stage };
        }
        Self {
            tolerance: "reported only".to_owned(),
            ok: true,
            ..stage
        }
    }

    /// A stage whose values must be equal.
    pub fn equal<T: PartialEq + std::fmt::Debug>(name: &str, found: &[T], expected: &[T]) -> Self {
        let differs = |i: &usize| found.get(*i) != expected.get(*i);
        let first = (0..found.len().max(expected.len())).find(differs);
        let item = |list: &[T], i| {
            list.get(i)
                .map_or("nothing".to_owned(), |v| format!("{v:?}"))
        };
        Self {
            name: name.to_owned(),
            deviation: None,
            tolerance: "equal".to_owned(),
            ok: first.is_none(),
            note: first.map_or(String::new(), |i| {
                format!(
                    "at {i}: expected {}, found {}",
                    item(expected, i),
                    item(found, i)
                )
            }),
        }
    }

    /// The same stage with a note.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_no_deviation() {
        let d = Deviation::between(&[1.0, -2.0], &[1.0, -2.0]);
        assert_eq!((d.max, d.mean, d.rel_rms, d.cosine), (0.0, 0.0, 0.0, 1.0));
    }

    #[test]
    fn nan_and_infinity_never_pass() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(!Stage::absolute("x", &[bad, 0.0], &[0.0, 1.0], 1e9).ok);
            assert!(!Stage::relative("x", &[bad, 0.0], &[0.0, 1.0], (1e9, -1.0)).ok);
            assert!(!Stage::absolute("x", &[0.0, 1.0], &[bad, 0.0], 1e9).ok);
            assert!(!Stage::relative("x", &[0.0, 1.0], &[bad, 0.0], (1e9, -1.0)).ok);
            assert!(!Stage::reported("x", &[bad, 0.0], &[0.0, 1.0]).ok);
        }
    }

    #[test]
    fn a_different_number_of_values_never_passes() {
        assert!(!Stage::absolute("x", &[1.0], &[], 1e9).ok);
        assert!(!Stage::relative("x", &[], &[1.0], (1e9, -1.0)).ok);
        assert!(!Stage::reported("x", &[], &[1.0]).ok);
    }

    #[test]
    fn the_first_difference_is_named() {
        let stage = Stage::equal("ids", &[1, 2], &[1, 3, 4]);
        assert!(!stage.ok);
        assert_eq!(stage.note, "at 1: expected 3, found 2");
        assert_eq!(
            Stage::equal("ids", &[1], &[1, 3]).note,
            "at 1: expected 3, found nothing"
        );
    }
}
