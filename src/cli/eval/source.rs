//! The source of the prompts: a file, or seeds.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use xc2_edge::{
    evaluation::scenes::{EvalCase, Task},
    system::text,
};

use crate::cli::seeds::Seeds;

/// Identifies a prompt.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Line of the file, from 1.
    Line(usize),
    /// Seed of the scene.
    Seed(u64),
}

/// An iterator over prompts, and their number.
pub struct Source {
    pub cases: Box<dyn Iterator<Item = (Place, EvalCase)>>,
    pub total: usize,
}

impl Source {
    /// The prompts of a file, one JSON object a line.
    pub fn file(path: &Path, limit: usize) -> anyhow::Result<Self> {
        let name = path.display();
        let text = text::read(path).with_context(|| name.to_string())?;
        let parse = |(number, line)| {
            let case = serde_json::from_str(line).with_context(|| format!("{name}:{number}"))?;
            Ok((Place::Line(number), case))
        };
        let lines = (1..).zip(text.lines()).take(limit);
        let cases: Vec<_> = lines.map(parse).collect::<anyhow::Result<_>>()?;
        Ok(Self {
            total: cases.len(),
            cases: Box::new(cases.into_iter()),
        })
    }

    /// Every task about the scene of every seed.
    pub fn seeds(seeds: &Seeds, tasks: Vec<Task>, limit: usize) -> Self {
        let total = limit.min(seeds.len() * tasks.len());
        let of_seed = move |seed| {
            let case = move |task: Task| (Place::Seed(seed), task.case(seed));
            tasks.clone().into_iter().map(case)
        };
        Self {
            total,
            cases: Box::new(seeds.0.clone().flat_map(of_seed).take(total)),
        }
    }
}
