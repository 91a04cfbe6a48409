//! Questions about one picture, drawn as in `models/train/tasks/questions.py`.

use super::{
    Draw, Scene, Thing,
    wording::{article, at},
};

const SHORT_FORMS: [&str; 5] = [
    "{} Answer the question using a single word or phrase.",
    "{} Answer with one word.",
    "{} Short answer:",
    "{}\nAnswer the question using a single word or phrase.",
    "Answer the question using a single word or phrase.{}",
];
/// Percentage of questions that ask for one or two words.
const SHORT: usize = 35;
/// Maximum number of attempts to find a question that fits the scene.
const TRIES: usize = 50;
const COLOR_WORDS: [&str; 4] = ["color", "color", "color", "colour"];
const IMAGE_WORDS: [&str; 3] = ["image", "image", "picture"];

/// Topic of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Count,
    Color,
    Shape,
    Size,
    Place,
    Background,
}

/// A question with its answer as a sentence and in one or two words.
struct Question {
    text: String,
    full: String,
    short: String,
}

/// A question and its only right answer; `None` if nothing fits the scene.
pub(super) fn question(draw: &mut Draw, scene: &Scene, topic: Topic) -> Option<(String, String)> {
    let asked = (0..TRIES).find_map(|_| topic.question(draw, scene))?;
    if draw.chance(SHORT) {
        let form = draw.pick(&SHORT_FORMS);
        return Some((form.replace("{}", &asked.text), asked.short));
    }
    Some((asked.text, asked.full))
}

impl Topic {
    fn question(self, draw: &mut Draw, scene: &Scene) -> Option<Question> {
        match self {
            Self::Count => Some(count(draw, scene)),
            Self::Background => Some(background(draw, scene)),
            Self::Color => color(draw, scene),
            Self::Shape => shape(draw, scene),
            Self::Size => size(draw, scene),
            Self::Place => place(draw, scene),
        }
    }
}

fn count(draw: &mut Draw, scene: &Scene) -> Question {
    let image = draw.pick(&IMAGE_WORDS);
    let forms = [
        "How many objects are in the {}?",
        "How many objects are there in the {}?",
        "How many things are in this {}?",
        "What is the number of objects in the {}?",
        "How many shapes are there?",
        "How many objects are there?",
        "Count the objects.",
    ];
    Question {
        text: draw.pick(&forms).replace("{}", image),
        full: scene.count_sentence(),
        short: scene.things.len().to_string(),
    }
}

fn background(draw: &mut Draw, scene: &Scene) -> Question {
    let word = draw.pick(&COLOR_WORDS);
    let forms = [
        "What {} is the background?",
        "What is the background {}?",
        "What is the {} of the background?",
    ];
    let ground = scene.ground.name();
    Question {
        text: draw.pick(&forms).replace("{}", word),
        full: format!("The background is {ground}."),
        short: ground.to_owned(),
    }
}

// The form is drawn even if no name is found, as in the training.

fn color(draw: &mut Draw, scene: &Scene) -> Option<Question> {
    let thing = &scene.things[draw.below(scene.things.len())];
    let word = draw.pick(&COLOR_WORDS);
    let name = reference(draw, scene, thing, Topic::Color);
    let form = draw.below(3);
    let name = name?;
    let text = match form {
        0 => format!("What {word} is the {name}?"),
        1 => format!("What is the {word} of the {name}?"),
        _ => format!("Which {word} does the {name} have?"),
    };
    let short = thing.color.name().to_owned();
    let full = format!("The {name} is {short}.");
    Some(Question { text, full, short })
}

fn shape(draw: &mut Draw, scene: &Scene) -> Option<Question> {
    let thing = &scene.things[draw.below(scene.things.len())];
    let name = reference(draw, scene, thing, Topic::Shape);
    let forms = [
        "What shape is the {}?",
        "What is the shape of the {}?",
        "Which shape is the {}?",
        "What is the {}?",
    ];
    let form = draw.pick(&forms);
    let name = name?;
    let short = thing.noun();
    Some(Question {
        text: form.replace("{}", &name),
        full: format!("The {name} is {}.", article(&short)),
        short,
    })
}

fn size(draw: &mut Draw, scene: &Scene) -> Option<Question> {
    let thing = &scene.things[draw.below(scene.things.len())];
    let name = reference(draw, scene, thing, Topic::Size);
    let forms = [
        "What size is the {}?",
        "Is the {} small or large?",
        "How big is the {}?",
    ];
    let form = draw.pick(&forms);
    let name = name?;
    let short = thing.size.name().to_owned();
    Some(Question {
        text: form.replace("{}", &name),
        full: format!("The {name} is {short}."),
        short,
    })
}

fn place(draw: &mut Draw, scene: &Scene) -> Option<Question> {
    let thing = &scene.things[draw.below(scene.things.len())];
    let name = reference(draw, scene, thing, Topic::Place);
    let image = draw.pick(&IMAGE_WORDS);
    let name = name?;
    let text = match draw.below(4) {
        0 => format!("Where is the {name}?"),
        1 => format!("Where is the {name} in the {image}?"),
        2 => format!("What is the position of the {name}?"),
        _ => format!("Where can I find the {name}?"),
    };
    Some(Question {
        text,
        full: format!("The {name} is {}.", at(thing.place())),
        short: thing.place().to_owned(),
    })
}

/// Words that identify this thing and do not give away the answer; `None` if there are none.
fn reference(draw: &mut Draw, scene: &Scene, thing: &Thing, asked: Topic) -> Option<String> {
    let is_only = |name: &dyn Fn(&Thing) -> String| {
        scene
            .things
            .iter()
            .filter(|t| name(t) == name(thing))
            .count()
            == 1
    };
    let mut ways = Vec::new();
    let mut add = |n: usize, way: String| ways.extend(std::iter::repeat_n(way, n));
    if asked != Topic::Color && asked != Topic::Shape {
        if is_only(&Thing::color_noun) {
            add(3, thing.color_noun());
        }
        if asked != Topic::Size && is_only(&Thing::full) {
            add(1, thing.full());
        }
    }
    if asked != Topic::Shape && is_only(&Thing::noun) {
        add(2, thing.noun());
    }
    let color = |t: &Thing| t.color.name().to_owned();
    if asked != Topic::Color && is_only(&color) {
        let n = if asked == Topic::Shape { 3 } else { 1 };
        add(n, color(thing) + " object");
    }
    if asked != Topic::Place {
        add(1, format!("object {}", at(thing.place())));
    }
    (!ways.is_empty()).then(|| draw.pick(&ways))
}
