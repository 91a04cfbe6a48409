//! Evaluates compositions about drawn pictures: is every picture next to the section about it?

use std::{
    fmt::{self, Display, Formatter},
    io::Write,
    path::PathBuf,
};

use serde::Serialize;
use xc2_edge::{
    engine::{Engine, Picture},
    evaluation::scenes::{CompositionCase, render},
    language::llama::SamplerOptions,
    tasks::compose::{
        Brief, ChatModel, ComposeOptions, Composer, Composition, EngineChatModel, Language, Prompts,
    },
};

use crate::cli::{progress::Progress, seeds::Seeds};

/// Number of articles and pictures, and how many are right.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Score {
    articles: usize,
    /// Articles with every picture at the section about it.
    articles_right: usize,
    pictures: usize,
    pictures_right: usize,
}

/// An article with a misplaced or missing picture.
#[derive(Debug, Serialize)]
struct Departure {
    seed: u64,
    shuffled: bool,
    sections: Vec<String>,
    /// Section and index of each placed picture.
    placed: Vec<(usize, usize)>,
    notes: Vec<String>,
}

/// Results of all seeds.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The model writes about the pictures and places them.
    as_given: Score,
    /// The same articles, the pictures given in another order.
    shuffled: Score,
    /// The score if the model had chosen the same letters as before.
    same_letters: Score,
    departures: Vec<Departure>,
}

/// Composes an article for each seed, places its pictures again in another order, and prints how often they
/// are at the section about them.
pub fn run(engine: &Engine, seeds: &Seeds, json: bool) -> anyhow::Result<()> {
    let mut report = Report::default();
    let mut progress = Progress::default();
    for (done, seed) in seeds.0.clone().enumerate() {
        progress.update("compose", done, seeds.len());
        report.add(engine, seed)?;
    }
    progress.clear();
    let mut stdout = std::io::stdout();
    match json {
        true => writeln!(stdout, "{}", serde_json::to_string(&report)?)?,
        false => write!(stdout, "{report}")?,
    }
    Ok(())
}

impl Report {
    fn add(&mut self, engine: &Engine, seed: u64) -> anyhow::Result<()> {
        let case = CompositionCase::from_seed(seed);
        let n = case.scenes.len();
        let in_order: Vec<usize> = (0..n).collect();
        let article = place(engine, &case, &in_order, None)?;
        let before = numbers(&article);
        self.as_given.add(&case, &article.sections, &before);
        self.note(seed, false, &case, &article);

        // Each picture at another position than before.
        let rotated: Vec<usize> = (0..n).map(|i| (i + 1) % n).collect();
        let again = place(engine, &case, &rotated, Some(article.sections))?;
        self.shuffled.add(&case, &again.sections, &numbers(&again));
        self.note(seed, true, &case, &again);
        let kept: Vec<_> = before
            .iter()
            .map(|(section, i)| (*section, rotated[*i]))
            .collect();
        self.same_letters.add(&case, &again.sections, &kept);
        Ok(())
    }

    fn note(&mut self, seed: u64, shuffled: bool, case: &CompositionCase, article: &Composition) {
        let placed = numbers(article);
        if n_right(case, &article.sections, &placed) < case.scenes.len() {
            self.departures.push(Departure {
                seed,
                shuffled,
                sections: article.sections.clone(),
                placed,
                notes: article.notes.clone(),
            });
        }
    }
}

impl Score {
    fn add(&mut self, case: &CompositionCase, sections: &[String], placed: &[(usize, usize)]) {
        let (n, right) = (case.scenes.len(), n_right(case, sections, placed));
        self.articles += 1;
        self.articles_right += usize::from(right == n);
        self.pictures += n;
        self.pictures_right += right;
    }
}

/// The article of a case with its pictures given in `order`: written by the model, or from existing
/// `sections`. The file name of a picture is its index.
fn place(
    engine: &Engine,
    case: &CompositionCase,
    order: &[usize],
    sections: Option<Vec<String>>,
) -> anyhow::Result<Composition> {
    let language = match case.is_chinese {
        true => Language::Zh,
        false => Language::En,
    };
    let prompts = Prompts::load(language, None)?;
    let options = ComposeOptions {
        describe: false,
        ..ComposeOptions::default()
    };
    let mut model = EngineChatModel::new(engine, SamplerOptions::default(), None);
    let model: &mut dyn ChatModel = &mut model;
    let mut watch = ();
    let mut composer = Composer::new(model, &prompts, options, &mut watch);
    let side = engine.preprocessor().image_size() as usize;
    for i in order {
        let picture = Picture::Pixels(render(&case.scenes[*i], side)?);
        composer.add_picture(PathBuf::from(i.to_string()), picture);
    }
    let brief = Brief {
        instruction: case.instruction.clone(),
        ..Brief::default()
    };
    Ok(match sections {
        Some(sections) => composer.illustrate(language, &brief, sections, None)?,
        None => composer.compose(language, &brief, None)?,
    })
}

/// Section and index of each placed picture.
fn numbers(article: &Composition) -> Vec<(usize, usize)> {
    let number = |file: &PathBuf| file.to_string_lossy().parse().expect("files are numbers");
    article
        .pictures
        .iter()
        .map(|p| (p.section, number(&p.file)))
        .collect()
}

fn n_right(case: &CompositionCase, sections: &[String], placed: &[(usize, usize)]) -> usize {
    let is_right = |(section, i): &&(usize, usize)| case.speaks_of(&sections[*section], *i);
    placed.iter().filter(is_right).count()
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
        writeln!(f, "{:<34} articles  all right  pictures    right", "")?;
        for (name, score) in [
            ("written and placed", self.as_given),
            ("placed in another order", self.shuffled),
            ("as if the same letters were chosen", self.same_letters),
        ] {
            let (articles, pictures) = (score.articles, score.pictures);
            writeln!(
                f,
                "{name:<34} {articles:>8} {:>8.1} % {pictures:>9} {:>6.1} %",
                percent(score.articles_right, articles),
                percent(score.pictures_right, pictures)
            )?;
        }
        for d in &self.departures {
            let order = if d.shuffled { " in another order" } else { "" };
            let placed: Vec<_> = d
                .placed
                .iter()
                .map(|(s, i)| format!("{i} after {s}"))
                .collect();
            writeln!(f, "seed {}{order}: {}", d.seed, placed.join(", "))?;
        }
        Ok(())
    }
}
