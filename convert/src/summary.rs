//! The summary of a conversion: a table of parts, types and sizes.

use std::{collections::BTreeMap, fmt};

use xc2_edge::{model::quant::GgmlType, system::units::human};

use crate::{plan::Plan, tensor_map::Part};

/// Counts and sizes of a plan, by part and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary(BTreeMap<(Part, GgmlType), Line>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    n_tensors: usize,
    n_elements: usize,
    n_bytes: usize,
}

impl Line {
    fn add(&mut self, other: Self) {
        self.n_tensors += other.n_tensors;
        self.n_elements += other.n_elements;
        self.n_bytes += other.n_bytes;
    }
}

impl Summary {
    /// The summary of a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut lines: BTreeMap<_, Line> = BTreeMap::new();
        for write in &plan.writes {
            lines
                .entry((write.part, write.target.ty))
                .or_default()
                .add(Line {
                    n_tensors: 1,
                    n_elements: write.target.shape.iter().product(),
                    n_bytes: write.n_bytes(),
                });
        }
        Self(lines)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |part: &dyn fmt::Display, ty: &dyn fmt::Display, line: Line| {
            let Line {
                n_tensors,
                n_elements,
                n_bytes,
            } = line;
            let size = human(n_bytes as u64);
            writeln!(
                f,
                "{part:<10} {ty:<5} {n_tensors:>8} {:>10} {size:>10}",
                Count(n_elements)
            )
        };
        let mut total = Line::default();
        for ((part, ty), entry) in &self.0 {
            line(part, ty, *entry)?;
            total.add(*entry);
        }
        line(&"total", &"", total)?;
        Ok(())
    }
}

/// The head of the table.
pub const SUMMARY_HEAD: &str = "part       type   tensors    weights       size";

/// A number of weights as text.
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n @ 0..1_000_000 => format!("{:.1} K", n as f64 / 1e3),
            n @ 1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
            n => format!("{:.2} G", n as f64 / 1e9),
        };
        f.pad(&text)
    }
}
