//! `compose`, `index` and `search` with the trained model.

use std::{fs, path::Path};

use crate::common::program::{assert_fails, path, stderr, stdout, xc2_edge, xc2_edge_with_stdin};
use serde_json::Value;
use xc2_convert::mix::Preset;
use xc2_edge::{
    evaluation::scenes::CompositionCase,
    tasks::compose::{
        ComposeOptions, Composer, EngineChatModel, Language, Library, Prompts, library::INDEX,
    },
};

fn model() -> String {
    path(&crate::common::trained(Preset::F16))
}

/// Pictures of seeds, `scene-07200.png` and so on.
fn scenes(seeds: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let output = xc2_edge(&["demo-scenes", seeds, &path(dir.path()), "--size", "168"]);
    assert!(output.status.success(), "{}", stderr(&output));
    dir
}

#[track_caller]
fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn pictures_stand_where_the_article_mentions_them() {
    let args = [
        "eval",
        "-t",
        "1",
        "-m",
        &model(),
        "--composition",
        "52000..52003",
        "--json",
    ];
    let output = xc2_edge(&args);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for order in ["as_given", "shuffled"] {
        assert_eq!(report[order]["articles"], 3, "{report}");
        assert_eq!(report[order]["articles_right"], 3, "{report}");
    }
    assert_eq!(report["same_letters"]["pictures_right"], 0, "{report}");
}

#[test]
fn each_picture_is_encoded_once_and_prompts_are_shared() {
    let engine = crate::common::scenes::fresh_engine(crate::common::scenes::options());
    let commission = (52100..)
        .map(CompositionCase::from_seed)
        .find(|c| c.scenes.len() == 3)
        .unwrap();
    let prompts = Prompts::load(Language::En, None).unwrap();
    let mut model = EngineChatModel::new(&engine, Default::default(), None);
    let mut watch = ();
    let mut composer = Composer::new(&mut model, &prompts, ComposeOptions::default(), &mut watch);
    for (i, scene) in commission.scenes.iter().enumerate() {
        let picture = xc2_edge::evaluation::scenes::render(scene, 168).unwrap();
        composer.add_picture(
            i.to_string().into(),
            xc2_edge::engine::Picture::Pixels(picture),
        );
    }
    let brief = xc2_edge::tasks::compose::Brief {
        instruction: commission.instruction.clone(),
        ..Default::default()
    };
    let article = composer.compose(Language::En, &brief, None).unwrap();
    assert_eq!(article.pictures.len(), 3);
    let sum = |count: fn(&xc2_edge::tasks::compose::StageRecord) -> usize| {
        article.stages.iter().map(count).sum::<usize>()
    };
    assert_eq!(sum(|s| s.n_encoded), 3, "{:#?}", article.stages);
    assert!(sum(|s| s.pictures.len()) > 9);
    // The prompt for positions starts like that for the article: three pictures.
    let positions = &article.stages[1];
    assert!(
        positions.n_prompt - positions.n_prefill >= 3 * 144,
        "{positions:?}"
    );
}

#[test]
fn an_article_is_written_edited_and_rewritten() {
    let dir = scenes("52200..52203");
    let pictures = [0, 1, 2].map(|i| path(&dir.path().join(format!("scene-5220{i}.png"))));
    let (article, page) = (dir.path().join("a.json"), dir.path().join("a.md"));
    let output = xc2_edge(&[
        "compose",
        "-t",
        "1",
        "-m",
        &model(),
        "-p",
        "Write a story about these pictures.",
        "--image",
        &pictures[0],
        "--image",
        &pictures[1],
        "--image",
        &pictures[2],
        "--images",
        "2",
        "--out",
        &path(&article),
        "--out",
        &path(&page),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let written = json(&article);
    let sections: Vec<_> = written["sections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap())
        .collect();
    assert_eq!(stdout(&output).trim(), sections.join("\n"));
    assert!(stderr(&output).contains("stages in"), "{}", stderr(&output));
    assert_eq!(written["pictures"].as_array().unwrap().len(), 2);
    assert!(
        fs::read_to_string(&page)
            .unwrap()
            .contains("](a_files/01-scene-5220")
    );

    let output = xc2_edge(&[
        "compose",
        "-t",
        "1",
        "-m",
        &model(),
        "--edit",
        &path(&article),
        "--expand",
        "2",
        "a small green star",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Of the stages in the file, only the last ran now.
    let told = "1 stage in";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    let changed = json(&article);
    let is_same = |n: usize| changed["sections"][n] == written["sections"][n];
    let differing: Vec<_> = (0..sections.len()).filter(|n| !is_same(*n)).collect();
    assert_eq!(differing, [2]);
    assert!(
        changed["sections"][2]
            .as_str()
            .unwrap()
            .contains("a small green star")
    );
    assert_eq!(changed["pictures"], written["pictures"]);

    let output = xc2_edge(&[
        "compose",
        "-t",
        "1",
        "-m",
        &model(),
        "--edit",
        &path(&article),
        "--swap-image",
        "3",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let swapped = json(&article);
    assert_eq!(swapped["sections"], changed["sections"]);
    let files = |article: &Value| {
        let pictures = article["pictures"].as_array().unwrap().clone();
        pictures
            .into_iter()
            .map(|p| (p["section"].clone(), p["file"].clone()))
            .collect::<Vec<_>>()
    };
    let n_same = files(&swapped)
        .iter()
        .filter(|p| files(&changed).contains(p))
        .count();
    assert_eq!(n_same, 1, "{:?} {:?}", files(&swapped), files(&changed));
}

#[test]
fn a_library_is_indexed_searched_and_used() {
    let dir = scenes("52300..52312");
    let library = path(dir.path());
    fs::write(dir.path().join("broken.png"), "no picture").unwrap();
    let index = || xc2_edge(&["index", &library, "-t", "1", "-m", &model()]);
    let output = index();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("12 captioned, 1 unreadable"),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("broken.png"),
        "{}",
        stderr(&output)
    );
    fs::remove_file(dir.path().join("broken.png")).unwrap();
    assert!(stdout(&index()).contains("0 captioned, 12 known"));

    let truth = fs::read_to_string(dir.path().join("truth.jsonl")).unwrap();
    let truth: Vec<Value> = truth
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let caption = truth[5]["caption"].as_str().unwrap();
    let output = xc2_edge(&["search", &library, caption, "-n", "1", "--json"]);
    let hits: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        hits[0]["file"]
            .as_str()
            .unwrap()
            .ends_with("scene-52305.png"),
        "{hits}"
    );
    assert_eq!(hits[0]["caption"], caption);

    // An outline about two of the pictures: they are found, chosen and placed.
    let subject = |i: usize| {
        let thing = &truth[i]["things"][0];
        let word = |name: &str| thing[name].as_str().unwrap().to_owned();
        format!("a {} {} {}", word("size"), word("color"), word("shape"))
    };
    let outline = dir.path().join("outline.txt");
    fs::write(&outline, format!("1. {}\n2. {}\n", subject(0), subject(1))).unwrap();
    let article = dir.path().join("a.json");
    let output = xc2_edge(&[
        "compose",
        "-t",
        "1",
        "-m",
        &model(),
        "--outline",
        &path(&outline),
        "--library",
        &library,
        "--images",
        "2",
        "--out",
        &path(&article),
        "--out",
        &path(&dir.path().join("a.html")),
        "--quiet",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let article = json(&article);
    for placed in article["pictures"].as_array().unwrap() {
        assert_eq!(
            placed["candidates"].as_array().unwrap().len().clamp(1, 4),
            placed["candidates"].as_array().unwrap().len()
        );
        let section = &article["sections"][placed["section"].as_u64().unwrap() as usize];
        let wanted = placed["wanted"].as_str().unwrap();
        assert!(
            section.as_str().unwrap().contains(&wanted[2..]),
            "{wanted}: {section}"
        );
        let alt = placed["alt"].as_str().unwrap();
        assert!(truth.iter().any(|t| t["caption"] == alt), "{alt}");
    }
    assert_eq!(
        article["pictures"].as_array().unwrap().len(),
        2,
        "{article:#}"
    );
    let stages: Vec<_> = article["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages[..4], ["article", "positions", "caption", "caption"]);
}

#[test]
fn an_empty_library_gives_an_article_without_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let library = path(dir.path());
    let article = dir.path().join("a.json");
    let compose = [
        "compose",
        "-t",
        "1",
        "-m",
        &model(),
        "-p",
        "Write a story about a large red star.",
        "--library",
        &library,
        "--out",
        &path(&article),
    ];
    assert_fails(&compose, &[INDEX, "hint: ", "xc2-edge index"]);
    Library::create(dir.path()).unwrap();
    let output = xc2_edge(&compose);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("note: ")
            && stderr(&output).contains("the library has no pictures")
    );
    assert_eq!(json(&article)["pictures"], Value::Array(vec![]));
    assert!(
        json(&article)["notes"][0]
            .as_str()
            .unwrap()
            .contains("no pictures")
    );
}

#[test]
fn an_unreadable_article_is_reported_before_the_model_is_loaded() {
    let article = r#"{"format": 1, "language": "en", "sections": ["A fox."], "pictures": [],
        "brief": {"instruction": "", "title": "", "outline": "", "material": ""},
        "given": [], "library": null, "notes": [], "stages": []}"#;
    // The path of a pipe is not a place for a file.
    let edit = [
        "compose",
        "-m",
        "/nowhere.gguf",
        "--edit",
        "/dev/fd/0",
        "--shorten",
        "0",
    ];
    let output = xc2_edge_with_stdin(&edit, article.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    let naming = "--edit /dev/fd/0: cannot be written (use `--out`";
    assert!(message.contains(naming), "{message}");

    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir.path().join("a.json"));
    let elsewhere = [&edit[..], &["--out", &out]].concat();
    let output = xc2_edge_with_stdin(&elsewhere, article.as_bytes());
    assert!(
        stderr(&output).contains("nowhere.gguf"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn usage_errors_are_reported_before_the_model_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let not_json = path(&dir.path().join("a.json"));
    fs::write(&not_json, "{}").unwrap();
    let m = ["-m", "/nowhere.gguf"];
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["nothing to write about", "`--image`"]),
        (&["-p", "x", "--out", "a.pdf"], &["a.pdf", ".html"]),
        (&["-p", "x", "--out", "/nowhere/a.md"], &["/nowhere"]),
        (
            &["--edit", &not_json, "--shorten", "1"],
            &["a.json", "expected the JSON of an article"],
        ),
        (&["--outline", "/nowhere.txt"], &["/nowhere.txt"]),
        (
            &["-p", "x", "--library", "/nowhere"],
            &["/nowhere", "expected a directory"],
        ),
        (
            &["-p", "x", "--prompts", &path(dir.path())],
            &["zh/positions.toml"],
        ),
    ];
    for (args, naming) in cases {
        assert_fails(&[&["compose"], &m[..], args].concat(), naming);
    }
    assert_fails(
        &["search", &path(dir.path()), "x"],
        &["found no index", "hint: ", "xc2-edge index"],
    );
    let usage: [&[&str]; 4] = [
        &["--edit", &not_json],
        &["--shorten", "1"],
        &["--edit", &not_json, "--shorten", "1", "--swap-image", "1"],
        &["--article", "x", "-p", "y"],
    ];
    for args in usage {
        let output = xc2_edge(&[&["compose"], &m[..], args].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}
