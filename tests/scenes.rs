//! Drawn scenes against the pictures that the training's renderer makes.

mod common;

use std::fs;

use serde_json::{Value, json};
use xc2_edge::{
    image::{Orientation, open},
    scenes::{MAX_SIDE, Scene, SceneError, render},
};

fn recorded() -> Vec<Value> {
    let text = fs::read_to_string(common::reference("scenes/scenes.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn scene(data: &Value) -> Scene {
    serde_json::from_value(data.clone()).unwrap()
}

#[test]
fn pictures_are_those_of_the_training() {
    for record in recorded() {
        let file = record["file"].as_str().unwrap();
        let expected = open(&common::reference("scenes").join(file), Orientation::Ignore).unwrap();
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

/// The largest of everything: overflow would panic where it is checked, or show as a wrong picture.
#[test]
fn the_extremes_can_be_drawn() {
    let mut scene = scene(&recorded()[0]["scene"]);
    for thing in &mut scene.things {
        (thing.r, thing.stretch, thing.pen, thing.turn) = (1024, 512, 256, 45);
        thing.kind = xc2_edge::scenes::Kind::Ring;
    }
    assert_eq!(render(&scene, MAX_SIDE).unwrap().width(), MAX_SIDE as u32);
}
