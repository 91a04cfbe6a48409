//! Where the prompts come from: a file, or seeds.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use xc2_edge::{
    evaluation::scenes::{EvalCase, Task},
    system::text,
};

use crate::cli::seeds::Seeds;

/// Which prompt.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Of a file, from 1.
    Line(usize),
    /// Of the scene.
    Seed(u64),
}

/// Prompts one by one, and how many they are.
pub struct Source {
    pub papers: Box<dyn Iterator<Item = (Place, EvalCase)>>,
    pub total: usize,
}

impl Source {
    /// The prompts of a file, one JSON object a line.
    pub fn file(path: &Path, limit: usize) -> anyhow::Result<Self> {
        let name = path.display();
        let text = text::read(path).with_context(|| name.to_string())?;
        let parse = |(number, line)| {
            let paper = serde_json::from_str(line).with_context(|| format!("{name}:{number}"))?;
            Ok((Place::Line(number), paper))
        };
        let lines = (1..).zip(text.lines()).take(limit);
        let papers: Vec<_> = lines.map(parse).collect::<anyhow::Result<_>>()?;
        Ok(Self {
            total: papers.len(),
            papers: Box::new(papers.into_iter()),
        })
    }

    /// Every task about the scene of every seed.
    pub fn seeds(seeds: &Seeds, tasks: Vec<Task>, limit: usize) -> Self {
        let total = limit.min(seeds.len() * tasks.len());
        let of_seed = move |seed| {
            let paper = move |task: Task| (Place::Seed(seed), task.paper(seed));
            tasks.clone().into_iter().map(paper)
        };
        Self {
            total,
            papers: Box::new(seeds.0.clone().flat_map(of_seed).take(total)),
        }
    }
}
