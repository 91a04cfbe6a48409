//! Whole compositions about drawn pictures: does every picture stand where the article speaks of it?

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

/// How many articles and pictures there are, and how many of them are right.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Score {
    articles: usize,
    /// With every picture in the section that speaks of it.
    articles_right: usize,
    pictures: usize,
    pictures_right: usize,
}

/// An article with a picture in the wrong place, or in none.
#[derive(Debug, Serialize)]
struct Departure {
    seed: u64,
    shuffled: bool,
    sections: Vec<String>,
    /// Section and number of each picture.
    placed: Vec<(usize, usize)>,
    notes: Vec<String>,
}

/// What came of all seeds.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The model writes about the pictures and places them.
    as_given: Score,
    /// The same articles, the pictures given in another order.
    shuffled: Score,
    /// What that would be if the model chose the letters that it chose before.
    same_letters: Score,
    departures: Vec<Departure>,
}

/// Composes an article for each seed, places the pictures again in another order, and tells how
/// often they stand where the article speaks of them.
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
        let commission = CompositionCase::from_seed(seed);
        let n = commission.scenes.len();
        let in_order: Vec<usize> = (0..n).collect();
        let article = place(engine, &commission, &in_order, None)?;
        let before = numbers(&article);
        self.as_given.add(&commission, &article.sections, &before);
        self.note(seed, false, &commission, &article);

        // Each in another place than before.
        let turned: Vec<usize> = (0..n).map(|i| (i + 1) % n).collect();
        let again = place(engine, &commission, &turned, Some(article.sections))?;
        self.shuffled
            .add(&commission, &again.sections, &numbers(&again));
        self.note(seed, true, &commission, &again);
        let kept: Vec<_> = before
            .iter()
            .map(|(section, i)| (*section, turned[*i]))
            .collect();
        self.same_letters.add(&commission, &again.sections, &kept);
        Ok(())
    }

    fn note(
        &mut self,
        seed: u64,
        shuffled: bool,
        commission: &CompositionCase,
        article: &Composition,
    ) {
        let placed = numbers(article);
        if n_right(commission, &article.sections, &placed) < commission.scenes.len() {
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
    fn add(
        &mut self,
        commission: &CompositionCase,
        sections: &[String],
        placed: &[(usize, usize)],
    ) {
        let (n, right) = (
            commission.scenes.len(),
            n_right(commission, sections, placed),
        );
        self.articles += 1;
        self.articles_right += usize::from(right == n);
        self.pictures += n;
        self.pictures_right += right;
    }
}

/// The article of a commission, its pictures given in an order: written, or with `sections` that
/// there are. A picture's file is its number.
fn place(
    engine: &Engine,
    commission: &CompositionCase,
    order: &[usize],
    sections: Option<Vec<String>>,
) -> anyhow::Result<Composition> {
    let language = match commission.is_chinese {
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
        let picture = Picture::Pixels(render(&commission.scenes[*i], side)?);
        composer.add_picture(PathBuf::from(i.to_string()), picture);
    }
    let brief = Brief {
        instruction: commission.instruction.clone(),
        ..Brief::default()
    };
    Ok(match sections {
        Some(sections) => composer.illustrate(language, &brief, sections, None)?,
        None => composer.compose(language, &brief, None)?,
    })
}

/// Section and number of each picture.
fn numbers(article: &Composition) -> Vec<(usize, usize)> {
    let number = |file: &PathBuf| file.to_string_lossy().parse().expect("files are numbers");
    article
        .pictures
        .iter()
        .map(|p| (p.section, number(&p.file)))
        .collect()
}

fn n_right(commission: &CompositionCase, sections: &[String], placed: &[(usize, usize)]) -> usize {
    let is_right = |(section, i): &&(usize, usize)| commission.speaks_of(&sections[*section], *i);
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
