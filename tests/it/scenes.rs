//! Scenes, their texts and their pictures compared with those of the training.

use std::{fs, path::Path};

use serde_json::{Value, json};
use xc2_edge::{
    evaluation::scenes::{MAX_SIDE, REPORTED, Scene, SceneError, Task, Truth, render},
    vision::image::{Orientation, open},
};

fn recorded() -> Vec<Value> {
    lines(&crate::common::reference("scenes/scenes.jsonl"))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn scene(data: &Value) -> Scene {
    serde_json::from_value(data.clone()).unwrap()
}

#[test]
fn pictures_equal_those_of_the_training() {
    for record in recorded() {
        let file = record["file"].as_str().unwrap();
        let expected = open(
            &crate::common::reference("scenes").join(file),
            Orientation::Ignore,
        )
        .unwrap();
        let side = record["side"].as_u64().unwrap() as usize;
        let drawn = render(&scene(&record["scene"]), side).unwrap();
        assert!(drawn == expected, "{file} is drawn differently");
    }
}

#[test]
fn numbers_out_of_range_are_an_error() {
    let good = recorded()[0]["scene"].clone();
    let named = |scene: &Value, side| match render(&self::scene(scene), side) {
        Err(SceneError::Range { field, .. }) => field,
        Ok(_) => "",
    };
    assert_eq!(named(&good, 16), "");
    assert_eq!(named(&good, 0), "side");
    assert_eq!(named(&good, MAX_SIDE + 1), "side");
    for (field, value) in [
        ("cx", -1),
        ("cy", 4097),
        ("r", 1025),
        ("turn", 46),
        ("stretch", 0),
        ("rim", 257),
        ("pen", 257),
    ] {
        let mut bad = good.clone();
        bad["things"][0][field] = json!(value);
        assert_eq!(named(&bad, 16), field);
    }
    let mut digit = good.clone();
    digit["things"][0]["kind"] = json!("number");
    digit["things"][0]["digit"] = json!(-1);
    assert_eq!(named(&digit, 16), "digit");
    let mut crowd = good.clone();
    crowd["things"] = json!(vec![&good["things"][0]; 7]);
    assert_eq!(named(&crowd, 16), "things");
    let mut steep = good;
    steep["slope"] = json!([0, 2]);
    assert_eq!(named(&steep, 16), "slope");
}

/// The largest values: an overflow would panic in a checked build or give a wrong picture.
#[test]
fn the_extremes_can_be_drawn() {
    let mut scene = scene(&recorded()[0]["scene"]);
    for thing in &mut scene.things {
        (thing.r, thing.stretch, thing.pen, thing.turn) = (1024, 512, 256, 45);
        thing.kind = xc2_edge::evaluation::scenes::Kind::Ring;
    }
    assert_eq!(render(&scene, MAX_SIDE).unwrap().width(), MAX_SIDE as u32);
}

#[test]
fn scenes_of_seeds_equal_those_of_the_training() {
    let seeds = lines(&crate::common::reference("scenes/seeds.jsonl"));
    assert!(seeds.len() >= 200);
    for record in seeds {
        let seed = record["seed"].as_u64().unwrap();
        let drawn = serde_json::to_value(Scene::from_seed(seed)).unwrap();
        assert_eq!(drawn, record["scene"], "seed {seed}");
    }
}

/// Every seed gives a picture in range.
#[test]
fn every_seed_gives_a_scene_that_can_be_drawn() {
    for seed in REPORTED.take(5000) {
        Scene::from_seed(seed).check().unwrap();
    }
}

#[test]
fn questions_and_answers_equal_those_of_the_exam() {
    let papers = lines(&crate::common::reference("scenes/papers.jsonl"));
    for task in Task::ALL {
        assert!(papers.iter().any(|p| p["task"] == task.name()));
    }
    for record in papers {
        let is_named = |task: &Task| record["task"] == task.name();
        let task = Task::ALL.into_iter().find(is_named).unwrap();
        let seed = record["seed"].as_u64().unwrap();
        let case = task.case(seed);
        let words = (json!(case.query), json!(case.expected));
        let expected = (record["query"].clone(), record["expected"].clone());
        assert_eq!(words, expected, "{}, seed {seed}", task.name());
        let side = record["side"].as_u64().unwrap() as usize;
        let picture = render(&case.scenes[0], side).unwrap();
        let name = task.name();
        assert_eq!(
            crc32(&picture),
            record["crc"],
            "picture of {name}, seed {seed}"
        );
    }
}

/// As in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    let add = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, add)
}

/// The training's code made the gallery, at its own size.
#[test]
fn the_gallery_is_reproducible() {
    let gallery = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scenes");
    let truths = lines(&gallery.join("truth.jsonl"));
    assert!(!truths.is_empty());
    for expected in truths {
        let (file, seed) = (expected["file"].as_str().unwrap(), &expected["seed"]);
        let seed = seed.as_u64().unwrap();
        let scene = Scene::from_seed(seed);
        let truth = Truth::new(file.to_owned(), seed, &scene);
        assert_eq!(serde_json::to_value(truth).unwrap(), expected);
        let picture = open(&gallery.join(file), Orientation::Ignore).unwrap();
        let drawn = render(&scene, picture.width() as usize).unwrap();
        assert!(drawn == picture, "{file} is drawn differently");
    }
}
