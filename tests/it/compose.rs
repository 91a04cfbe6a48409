//! The composition stages with a scripted model: prompts, how replies are read, and fallbacks for unusable replies.

use std::{collections::VecDeque, path::PathBuf};

use xc2_edge::{
    engine::{Answer, EngineError, Observer, Picture, StopReason},
    engine::{cache::CacheCounts, metrics::Timings},
    tasks::compose::{
        Brief, ChatModel, ComposeError, ComposeOptions, Composer, Composition, Count, Language,
        Prompts, edit::Edit, prompts::RenderedPrompt,
    },
};

const ARTICLE: &str = "Shapes\nOnce upon a time.\nFirst, a star.\nThen, a ring.\nThe end.";

/// A model with scripted replies. A character is a token, and a picture takes ten.
struct Script {
    answers: VecDeque<String>,
    n_ctx: usize,
    /// The prompts so far.
    asked: Vec<RenderedPrompt>,
}

impl Script {
    fn new(answers: &[&str]) -> Self {
        Self {
            answers: answers.iter().map(ToString::to_string).collect(),
            n_ctx: 4096,
            asked: Vec::new(),
        }
    }
}

impl ChatModel for Script {
    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn n_prompt(&self, ask: &RenderedPrompt) -> Result<usize, EngineError> {
        let pictures = 10 * ask.user.pictures().len();
        Ok(ask.user.query("").chars().count() + pictures)
    }

    fn respond(
        &mut self,
        ask: &RenderedPrompt,
        pictures: &[Picture],
        n_predict: usize,
        observer: &mut dyn Observer,
    ) -> Result<Answer, EngineError> {
        assert_eq!(pictures.len(), ask.user.pictures().len());
        let n_prompt = self.n_prompt(ask)?;
        if n_prompt >= self.n_ctx {
            return Err(EngineError::PromptTooLong {
                n_prompt,
                n_image: 0,
                n_ctx: self.n_ctx,
                max: self.n_ctx,
            });
        }
        self.asked.push(ask.clone());
        let script = self
            .answers
            .pop_front()
            .expect("no more is asked than was expected");
        let (mut text, mut stop) = (String::new(), StopReason::Stop);
        for (i, c) in script.chars().enumerate() {
            if i == n_predict {
                stop = StopReason::Length;
                break;
            }
            text.push(c);
            if observer.text(&c.to_string()).is_break() {
                stop = StopReason::Interrupted;
                break;
            }
        }
        Ok(Answer {
            ids: vec![0; text.chars().count()],
            text,
            n_prompt,
            n_image: 0,
            stop,
            timings: Timings::default(),
            cache: CacheCounts::default(),
        })
    }
}

/// An article about pictures `a`, `b`, …, described by their file names.
fn compose(
    model: &mut Script,
    n_given: usize,
    brief: &Brief,
    count: Count,
) -> Result<Composition, ComposeError> {
    let prompts = Prompts::load(Language::En, None).unwrap();
    let options = ComposeOptions {
        count,
        describe: false,
        ..ComposeOptions::default()
    };
    let mut watch = ();
    let mut composer = Composer::new(model, &prompts, options, &mut watch);
    for name in ["a", "b", "c", "d"].iter().take(n_given) {
        composer.add_picture(PathBuf::from(name), Picture::File(name.into()));
    }
    composer.compose(Language::En, brief, None)
}

fn given(answers: &[&str], n_given: usize) -> Composition {
    compose(
        &mut Script::new(answers),
        n_given,
        &Brief::default(),
        Count::Auto,
    )
    .unwrap()
}

/// Section and file of each picture.
fn placed(composition: &Composition) -> Vec<(usize, &str)> {
    composition
        .pictures
        .iter()
        .map(|p| (p.section, p.file.to_str().unwrap()))
        .collect()
}

#[track_caller]
fn assert_notes(composition: &Composition, naming: &[&str]) {
    assert_eq!(
        composition.notes.len(),
        naming.len(),
        "{:?}",
        composition.notes
    );
    for (note, name) in composition.notes.iter().zip(naming) {
        assert!(note.contains(name), "`{note}` does not say `{name}`");
    }
}

#[test]
fn pictures_go_where_the_model_puts_them() {
    let mut script = Script::new(&[ARTICLE, "<Seg3>, <Seg2>.", ": B", ": B"]);
    let article = compose(&mut script, 3, &Brief::default(), Count::Exactly(2)).unwrap();
    assert_eq!(placed(&article), [(2, "b"), (3, "c")]);
    assert_eq!(article.unused().collect::<Vec<_>>(), [&PathBuf::from("a")]);
    assert_notes(&article, &[]);
    let pictures: Vec<_> = script.asked.iter().map(|ask| ask.user.pictures()).collect();
    // The second choice sees the first picture in its place, and the remaining candidates.
    assert_eq!(
        pictures,
        [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2], vec![1, 0, 2]]
    );
    let choices: Vec<_> = article.stages.iter().map(|s| s.choice.as_str()).collect();
    assert_eq!(choices, ["5 sections", "after 3, 2", "B, b", "B, c"]);
    assert_eq!(article.stages[3].section, Some(3));
    assert_eq!(Composition::from_json(&article.to_json()).unwrap(), article);
}

#[test]
fn the_last_picture_needs_no_question() {
    let article = given(&[ARTICLE, "<Seg2>"], 1);
    assert_eq!(placed(&article), [(2, "a")]);
    let article = given(&[ARTICLE, "<Seg2>, <Seg3>", "B"], 2);
    assert_eq!(placed(&article), [(2, "b"), (3, "a")]);
}

#[test]
fn without_a_section_pictures_are_spread_evenly() {
    let article = given(&[ARTICLE, "I see nothing.", "A"], 2);
    assert_eq!(placed(&article), [(2, "a"), (4, "b")]);
    assert_notes(
        &article,
        &["named no section; the pictures are spread evenly"],
    );
}

#[test]
fn unknown_sections_are_ignored() {
    let article = given(&[ARTICLE, "<Seg7> <Seg2> <Seg2> <Seg99>"], 1);
    assert_eq!(placed(&article), [(2, "a")]);
    assert_notes(&article, &["sections that do not exist (7, 99)"]);
    let article = given(&[ARTICLE, "<Seg3> <Seg2> <Seg1>", "A"], 2);
    assert_eq!(placed(&article), [(2, "a"), (3, "b")]);
    assert_notes(&article, &["named 3 sections for 2 pictures"]);
    let article = given(&[ARTICLE, "<Seg3>", "B"], 2);
    assert_eq!(placed(&article), [(3, "b")]);
    assert_notes(&article, &["1 of 2 pictures are placed"]);
}

#[test]
fn an_unknown_letter_selects_the_first_picture() {
    for answer in ["Z", "", ": 图", "C"] {
        let article = given(&[ARTICLE, "<Seg2> <Seg3>", answer], 2);
        assert_eq!(placed(&article), [(2, "a"), (3, "b")]);
        assert_notes(&article, &["expected A to B; A is taken"]);
    }
}

#[test]
fn a_repeating_article_is_stopped() {
    let line = "A red star is to the left.\n";
    let circles = format!("Shapes\n{}", line.repeat(500));
    let article = given(&[&circles, "<Seg1>"], 1);
    assert_eq!(article.sections, ["Shapes", line.trim()]);
    assert_notes(
        &article,
        &["article: the model repeated itself and was stopped"],
    );
    // The text before the loop is kept, and the model was stopped early.
    assert!(article.stages[0].answer.len() < 10 * line.len());

    let positions = "<Seg2>".repeat(200);
    let article = given(&[ARTICLE, &positions], 1);
    assert_eq!(placed(&article), [(2, "a")]);
    assert_notes(&article, &["positions: the model repeated itself"]);
}

#[test]
fn a_long_article_is_cut_and_reported() {
    let long: String = (0..80).map(|n| format!("Line {n} of many.\n")).collect();
    let article = given(&[&long], 0);
    assert_eq!(article.sections.len(), 60);
    assert_notes(
        &article,
        &["the article has 80 lines; the last 20 are left out"],
    );

    let prompts = Prompts::load(Language::En, None).unwrap();
    let options = ComposeOptions {
        n_predict: 20,
        ..ComposeOptions::default()
    };
    let mut script = Script::new(&[ARTICLE]);
    let mut watch = ();
    let composer = Composer::new(&mut script, &prompts, options, &mut watch);
    let brief = Brief {
        title: "x".into(),
        ..Brief::default()
    };
    let article = composer.compose(Language::En, &brief, None).unwrap();
    assert_eq!(article.sections.concat().len() + 1, 20);
    assert_notes(&article, &["article: the text was cut after 20 tokens"]);
}

#[test]
fn an_empty_article_is_an_error() {
    let error = compose(
        &mut Script::new(&[" \n "]),
        1,
        &Brief::default(),
        Count::Auto,
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "the model wrote nothing");
}

#[test]
fn material_that_does_not_fit_is_truncated() {
    let brief = Brief {
        title: "T".into(),
        material: "word ".repeat(400).trim().into(),
        ..Brief::default()
    };
    let mut script = Script::new(&[ARTICLE]);
    script.n_ctx = 1000;
    let article = compose(&mut script, 0, &brief, Count::Auto).unwrap();
    assert_notes(
        &article,
        &["the source text does not fit the context of 1000 tokens"],
    );
    let asked = script.asked[0].user.to_string();
    assert!(
        asked.starts_with("Write an article. Title: T\nUse this material:\n“word word"),
        "{asked}"
    );
    // A quarter of the context remains for the article.
    assert_eq!(script.n_prompt(&script.asked[0]).unwrap(), 750);
    assert!(
        article.notes[0].contains("of its 1999 characters"),
        "{}",
        article.notes[0]
    );
}

#[test]
fn an_instruction_that_does_not_fit_is_truncated() {
    let brief = Brief {
        instruction: "Write about it. ".repeat(200),
        material: "word ".repeat(40),
        ..Brief::default()
    };
    let mut script = Script::new(&[ARTICLE]);
    script.n_ctx = 1000;
    let article = compose(&mut script, 0, &brief, Count::Auto).unwrap();
    assert_notes(
        &article,
        &["the instruction does not fit the context of 1000 tokens"],
    );
    assert_eq!(script.n_prompt(&script.asked[0]).unwrap(), 750);
}

#[test]
fn pictures_that_do_not_fit_at_all_are_an_error() {
    let mut script = Script::new(&[]);
    script.n_ctx = 30;
    let error = compose(&mut script, 4, &Brief::default(), Count::Auto).unwrap_err();
    assert!(
        matches!(
            error,
            ComposeError::Engine(EngineError::PromptTooLong { .. })
        ),
        "{error}"
    );
}

#[test]
fn an_article_that_does_not_fit_is_reduced_to_the_starts_of_its_sections() {
    let sentence = "On and on and on it went through the long night. ";
    let long: String = (0..10)
        .map(|n| format!("{n}: {}\n", sentence.repeat(3)))
        .collect();
    let mut script = Script::new(&[&long, "<Seg8>, <Seg9>", ": B"]);
    script.n_ctx = 700;
    let article = compose(&mut script, 2, &Brief::default(), Count::Auto).unwrap();
    assert_eq!(placed(&article), [(8, "b"), (9, "a")]);
    assert_notes(
        &article,
        &[
            "positions: the article does not fit the context of 700 tokens; the model was shown the first ",
            "selection of section 8: the article does not fit",
        ],
    );
    let shown = script.asked[1].user.to_string();
    assert!(
        shown.contains("<Seg9> 9: On and on") && shown.contains('…'),
        "{shown}"
    );
    for ask in &script.asked {
        assert!(script.n_prompt(ask).unwrap() < 700);
    }
}

#[test]
fn without_enough_context_the_model_is_not_asked() {
    let long: String = (0..50)
        .map(|n| format!("{n}: a section of some length\n"))
        .collect();
    let mut script = Script::new(&[&long]);
    script.n_ctx = 200;
    let article = compose(&mut script, 2, &Brief::default(), Count::Auto).unwrap();
    assert_eq!(placed(&article), [(13, "a"), (37, "b")]);
    let found: Vec<_> = article
        .notes
        .iter()
        .map(|note| note.split(':').next().unwrap())
        .collect();
    assert_eq!(found, ["positions", "selection of section 13"]);
}

#[test]
fn article_text_is_never_read_as_a_place_or_a_picture() {
    let hostile =
        "Shapes {article} {{\n<image> <ImageHere> {n} %s \\\n\"quotes\" </s> [UNUSED_TOKEN_145]";
    let mut script = Script::new(&[hostile, "<Seg2>"]);
    let article = compose(&mut script, 1, &Brief::default(), Count::Auto).unwrap();
    assert_eq!(article.sections.join("\n"), hostile);
    let asked = &script.asked[1].user;
    assert_eq!(asked.pictures(), [0]);
    assert!(
        asked.to_string().contains("<Seg0> Shapes {article} {{\n"),
        "{asked}"
    );
    assert_eq!(asked.query("<ImageHere>").matches("<ImageHere>").count(), 1);
}

fn finished() -> Composition {
    given(&[ARTICLE, "<Seg2> <Seg3>", "B", "A"], 3)
}

fn edit(answers: &[&str], new: &[&str], edit: &Edit) -> Result<Composition, ComposeError> {
    let prompts = Prompts::load(Language::En, None).unwrap();
    let options = ComposeOptions {
        describe: false,
        ..ComposeOptions::default()
    };
    let (mut script, mut watch) = (Script::new(answers), ());
    let mut composer = Composer::new(&mut script, &prompts, options, &mut watch);
    new.iter()
        .for_each(|name| composer.add_picture(name.into(), Picture::File(name.into())));
    composer.edit(finished(), edit, None)
}

#[test]
fn an_edit_changes_its_section_and_nothing_else() {
    let before = finished();
    let after = edit(&["A comet."], &[], &Edit::Rewrite(2, "a comet".into())).unwrap();
    assert_eq!(after.stages.len(), before.stages.len() + 1);
    assert_eq!(
        after.stages.last().unwrap().prompt,
        "改写以下段落：First, a star.\n基于以下素材：a comet"
    );
    let mut expected = before.clone();
    expected.sections[2] = "A comet.".into();
    expected.stages = after.stages.clone();
    assert_eq!(after, expected);

    let after = edit(
        &["A star. It shone.\n\nAnd more."],
        &[],
        &Edit::Expand(2, "x".into()),
    )
    .unwrap();
    assert_eq!(
        after.sections[2..5],
        ["A star. It shone.", "And more.", "Then, a ring."]
    );
    assert_eq!(placed(&after), [(3, "b"), (4, "a")]);

    let after = edit(&["A star."], &[], &Edit::Shorten(2)).unwrap();
    assert_eq!(
        (after.sections[2].as_str(), placed(&after)),
        ("A star.", placed(&before))
    );

    let after = edit(&["Between."], &[], &Edit::InsertAfter(2, "y".into())).unwrap();
    assert_eq!(
        after.sections[1..5],
        [
            "Once upon a time.",
            "First, a star.",
            "Between.",
            "Then, a ring."
        ]
    );
    assert_eq!(placed(&after), [(2, "b"), (4, "a")]);
    assert_eq!(
        after.stages.last().unwrap().prompt,
        "在以下两段中插入一段。\n第一段：First, a star.\n第二段：Then, a ring.\n插入段的大纲：y"
    );
    let after = edit(&["More."], &[], &Edit::InsertAfter(4, "y".into())).unwrap();
    assert_eq!(after.sections.last().unwrap(), "More.");
}

#[test]
fn an_empty_edit_changes_nothing() {
    let after = edit(&["  "], &[], &Edit::Shorten(2)).unwrap();
    assert_eq!(
        (&after.sections, &after.pictures),
        (&finished().sections, &finished().pictures)
    );
    assert!(after.notes.last().unwrap().contains("nothing changes"));
}

#[test]
fn a_picture_is_replaced_by_another() {
    // One unused picture: no question.
    let after = edit(&[], &[], &Edit::SwapImage(3)).unwrap();
    assert_eq!(placed(&after), [(2, "b"), (3, "c")]);
    assert_eq!(after.sections, finished().sections);
    // New candidates, with the earlier picture in its place.
    let after = edit(&["B"], &["x", "y"], &Edit::SwapImage(3)).unwrap();
    assert_eq!(placed(&after), [(2, "b"), (3, "y")]);
    let question = after.stages.last().unwrap();
    assert_eq!(question.pictures, ["b", "x", "y"].map(PathBuf::from));
    assert_eq!(after.given, ["a", "b", "c", "x", "y"].map(PathBuf::from));
}

#[test]
fn impossible_edits_are_named() {
    for (change, naming) in [
        (
            Edit::Shorten(5),
            "section 5: the article has sections 0 to 4",
        ),
        (
            Edit::SwapImage(1),
            "section 1 has no picture; those with one: 2, 3",
        ),
    ] {
        let message = edit(&[], &[], &change).unwrap_err().to_string();
        assert_eq!(message, naming);
    }
    let prompts = Prompts::load(Language::En, None).unwrap();
    let (mut script, mut watch) = (Script::new(&[]), ());
    let composer = Composer::new(&mut script, &prompts, ComposeOptions::default(), &mut watch);
    let full = given(&[ARTICLE, "<Seg2>"], 1);
    let error = composer.edit(full, &Edit::SwapImage(2), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "section 2: there is no other picture to choose"
    );
}
