//! Results of an evaluation.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use serde::Serialize;
use xc2_edge::evaluation::{
    divergence::{Divergence, Margins},
    scenes::{EvalCase, Unaskable},
};

use super::source::Place;

/// Result of one prompt.
pub struct Grade {
    pub answer: String,
    /// Comparison with the reference model, if there is one.
    pub against: Option<Against>,
}

/// A comparison of the model with the reference model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Against {
    /// Along the reference's answers.
    #[serde(flatten)]
    pub divergence: Divergence,
    /// Along the expected answers.
    #[serde(flatten)]
    pub margins: Margins,
}

/// Number of prompts, and how many answers are as expected.
#[derive(Clone, Debug, Default, Serialize)]
struct Score {
    prompts: usize,
    /// Answers equal to the expected one.
    right: usize,
    /// Answers equal to the model's answer in PyTorch, where recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_recorded: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Against>,
}

impl Score {
    fn add(&mut self, case: &EvalCase, grade: &Grade) {
        self.prompts += 1;
        self.right += usize::from(grade.answer == case.expected);
        if let Some(greedy) = &case.greedy {
            *self.as_recorded.get_or_insert(0) += usize::from(grade.answer == *greedy);
        }
        if let Some(against) = &grade.against {
            let sum = self.against.get_or_insert_default();
            sum.divergence.add(&against.divergence);
            sum.margins.add(&against.margins);
        }
    }
}

/// An answer that differs from the expected or the recorded one.
#[derive(Debug, Serialize)]
struct Departure {
    #[serde(flatten)]
    place: Place,
    task: String,
    /// Margin of the recorded answer: near zero, rounding may decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    margin: Option<f64>,
    expected: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<String>,
    answer: String,
}

/// The comparison for one prompt.
#[derive(Debug, Serialize)]
struct Compared {
    #[serde(flatten)]
    place: Place,
    task: String,
    #[serde(flatten)]
    against: Against,
}

/// Results of all prompts.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    all: Score,
    /// By group or task, in the order of the prompts.
    rows: Vec<(String, Score)>,
    /// Prompts that were skipped, by reason.
    skipped: BTreeMap<String, usize>,
    departures: Vec<Departure>,
    /// With a reference model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compared: Vec<Compared>,
}

impl Report {
    pub fn add(&mut self, place: Place, case: &EvalCase, grade: Grade, by_task: bool) {
        self.all.add(case, &grade);
        let name = if by_task { &case.task } else { &case.group };
        self.row(name).add(case, &grade);
        let is_recorded = case.greedy.as_ref().is_none_or(|g| *g == grade.answer);
        if grade.answer != case.expected || !is_recorded {
            self.departures.push(Departure {
                place,
                task: case.task.clone(),
                margin: case.margin,
                expected: case.expected.clone(),
                recorded: case.greedy.clone(),
                answer: grade.answer,
            });
        }
        if let Some(against) = grade.against {
            self.compared.push(Compared {
                place,
                task: case.task.clone(),
                against,
            });
        }
    }

    fn row(&mut self, name: &str) -> &mut Score {
        let known = self.rows.iter().position(|(row, _)| row == name);
        let index = known.unwrap_or_else(|| {
            self.rows.push((name.to_owned(), Score::default()));
            self.rows.len() - 1
        });
        &mut self.rows[index].1
    }

    pub fn skip(&mut self, reason: &Unaskable) {
        *self.skipped.entry(reason.to_string()).or_default() += 1;
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22} prompts    right", "")?;
        if self.all.as_recorded.is_some() {
            write!(f, "  as PyTorch")?;
        }
        if self.all.against.is_some() {
            write!(
                f,
                "  KL, nats/token  std. error  same top  least margin  mean margin"
            )?;
        }
        writeln!(f)?;
        let rows = self.rows.iter().map(|(name, score)| (name.as_str(), score));
        for (name, score) in rows.chain([("all", &self.all)]) {
            writeln!(f, "{name:<22} {score}")?;
        }
        for (reason, n) in &self.skipped {
            writeln!(f, "{n} skipped: {reason}")?;
        }
        Ok(())
    }
}

impl Display for Score {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = |n: usize| 100.0 * n as f64 / self.prompts.max(1) as f64;
        write!(f, "{:>7} {:>6.1} %", self.prompts, percent(self.right))?;
        if let Some(same) = self.as_recorded {
            write!(f, " {:>8.1} %", percent(same))?;
        }
        if let Some(Against {
            divergence,
            margins,
        }) = &self.against
        {
            let (kl, same) = (divergence.mean_kl(), 100.0 * divergence.same_top());
            let error = divergence.standard_error();
            let error = error.map_or_else(|| "-".to_owned(), |error| format!("{error:.1e}"));
            let (least, mean) = (margins.least(), margins.mean());
            write!(
                f,
                " {kl:>15.2e} {error:>11} {same:>7.2} % {least:>13.2} {mean:>12.2}"
            )?;
        }
        Ok(())
    }
}
