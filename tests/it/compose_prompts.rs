//! Prompts of the composition stages, byte for byte and id for id, compared with recordings that Python and
//! sentencepiece made without our code.

use std::fs;

use serde::Deserialize;
use xc2_edge::{
    language::prompt::{Chat, PromptLayout, Run, Template},
    model::container::{BosRule, PromptInfo, UnmarkedImage},
    tasks::compose::{
        Language, Prompts,
        prompts::{PlainPrompt, PromptsError, RenderedPrompt},
    },
};

#[derive(Deserialize)]
struct Line {
    stage: String,
    made_of: MadeOf,
    user: String,
    assistant: String,
    /// -1 for each picture.
    ids: Vec<i32>,
}

/// The inputs of a prompt; each stage uses some of them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MadeOf {
    n: usize,
    instruction: String,
    sections: Vec<String>,
    count: String,
    places: Vec<usize>,
    captions: Vec<String>,
    text: String,
    previous: String,
    next: String,
}

fn lines() -> Vec<Line> {
    let text = fs::read_to_string(crate::common::reference("composition/stages.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn ask(prompts: &Prompts, stage: &str, of: &MadeOf) -> RenderedPrompt {
    let pictures: Vec<usize> = (0..of.n).collect();
    let edit = |prompt: &PlainPrompt| {
        let values = [
            ("text", of.text.as_str()),
            ("instruction", &of.instruction),
            ("previous", &of.previous),
            ("next", &of.next),
        ];
        prompt.render(&values, &[])
    };
    match stage {
        "article" => prompts.article.render(&pictures, &of.instruction),
        "positions" => prompts
            .positions
            .render(&pictures, &of.sections, of.count.parse().ok()),
        "caption" => {
            let (last, earlier) = of.places.split_last().unwrap();
            let earlier: Vec<_> = earlier
                .iter()
                .copied()
                .zip(of.captions.iter().cloned())
                .collect();
            prompts.caption.render(&of.sections, *last, &earlier)
        }
        "selection" => {
            let (last, earlier) = of.places.split_last().unwrap();
            let chosen: Vec<_> = earlier.iter().copied().zip(0..).collect();
            let candidates: Vec<usize> = (earlier.len()..earlier.len() + of.n).collect();
            prompts
                .selection
                .render(&of.sections[..=*last], &chosen, &candidates)
        }
        "rewrite" => edit(&prompts.rewrite),
        "expand" => edit(&prompts.expand),
        "shorten" => edit(&prompts.shorten),
        "insert" => edit(&prompts.insert),
        stage => panic!("{stage}"),
    }
}

#[test]
fn prompts_equal_the_recordings() {
    for language in [Language::En, Language::Zh] {
        let prompts = Prompts::load(language, None).unwrap();
        for line in lines() {
            let ask = ask(&prompts, &line.stage, &line.made_of);
            assert_eq!(ask.user.to_string(), line.user);
            assert_eq!(ask.assistant, line.assistant);
            // Pictures come in the order of their numbers.
            let pictures = ask.user.pictures();
            assert!(pictures.is_sorted(), "{pictures:?}");
        }
    }
}

#[test]
fn ids_equal_those_of_sentencepiece() {
    let tokenizer = crate::common::vocabulary("tokenizer/tokenizer.model", 92544);
    let prompts = Prompts::load(Language::En, None).unwrap();
    let template = Template {
        prompt: PromptInfo {
            system: String::new(),
            image_marker: "<ImageHere>".into(),
            turn_start: 92543,
            turn_end: 92542,
            bos: 1,
            eos: 2,
            bos_rule: BosRule::Once,
            unmarked_image: UnmarkedImage::Query,
        },
        layout: PromptLayout::Chat,
    };
    for line in lines() {
        let ask = ask(&prompts, &line.stage, &line.made_of);
        let chat = Chat {
            query: ask.user.query("<ImageHere>"),
            answer_prefix: ask.assistant.clone(),
            ..Chat::default()
        };
        let sequence = template
            .sequence(&chat, &vec![256; ask.user.pictures().len()], &tokenizer)
            .unwrap();
        let ids = sequence.runs().iter().flat_map(|run| match run {
            Run::Tokens(ids) => ids.clone(),
            Run::Image { .. } => vec![-1],
        });
        assert_eq!(ids.collect::<Vec<_>>(), line.ids, "{}", line.user);
    }
}

#[test]
fn a_custom_directory_replaces_single_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let load = |language| Prompts::load(language, Some(dir.path()));
    assert!(matches!(
        load(Language::En),
        Err(PromptsError::Nothing { .. })
    ));

    write("zh/shorten.toml", "user = 'Shorter: {text}'");
    let shorten = |language| {
        let ask = load(language)
            .unwrap()
            .shorten
            .render(&[("text", "a")], &[]);
        ask.user.to_string()
    };
    assert_eq!(shorten(Language::En), "Shorter: a");
    write(
        "en/shorten.toml",
        "user = 'In English: {text}'\nassistant = 'x'",
    );
    assert_eq!(shorten(Language::En), "In English: a");
    assert_eq!(shorten(Language::Zh), "Shorter: a");

    for (text, naming) in [
        (
            "user = '{txt}'",
            &["`{txt}`", "expected `{text}`", "`user`"][..],
        ),
        ("user = 'a {text'", &["expected `}`"]),
        ("user = '<image>{text}'", &["1 `<image>`; expected 0"]),
        ("usr = 'a'", &["usr"]),
        ("user = ", &["shorten.toml"]),
    ] {
        write("zh/shorten.toml", text);
        let message = load(Language::Zh).unwrap_err().to_string();
        for name in naming {
            assert!(message.contains(name), "{message}");
        }
    }
}
