//! A request for an article about drawn pictures, as in `models/train/tasks/composition.py`, and whether a section
//! is about a picture.

use super::{Draw, Scene};

/// Percentage of pictures with one thing (the others have two), and of things that are digits.
const LONE: usize = 75;
const DIGITS: usize = 7;
const GENRES: [&str; 5] = [
    "a story",
    "an article",
    "a diary page",
    "a guide",
    "chinese",
];
const FORMS: [&str; 5] = [
    "Write {} about {}.",
    "Write {} based on {}.",
    "Please write {} with {}.",
    "please write {} based on {}.",
    "Write {} for {}.",
];
const CHINESE_FORMS: [&str; 3] = [
    "请根据图片写一篇文章。",
    "根据图片写一篇作文。",
    "请看图写一篇短文。",
];

/// A request for an article about some pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompositionCase {
    /// What to write.
    pub instruction: String,
    /// The scenes of the pictures, in the order given.
    pub scenes: Vec<Scene>,
    /// Whether the article is in Chinese.
    pub is_chinese: bool,
}

impl CompositionCase {
    /// The case of a seed, with two or three pictures whose first things differ.
    pub fn from_seed(seed: u64) -> Self {
        let draw = &mut Draw::new(seed);
        let genre = draw.pick(&GENRES);
        let count = draw.pick(&[2, 2, 3]);
        let scenes = subjects(draw, count);
        let is_chinese = genre == "chinese";
        let instruction = if is_chinese {
            draw.pick(&CHINESE_FORMS).to_owned()
        } else {
            let what = draw.pick(&["these pictures", "the images"]);
            draw.pick(&FORMS)
                .replacen("{}", genre, 1)
                .replacen("{}", what, 1)
        };
        Self {
            instruction,
            scenes,
            is_chinese,
        }
    }

    /// Whether a section is about picture `index`: it names everything in the picture, and nothing that only
    /// another picture shows.
    pub fn speaks_of(&self, section: &str, index: usize) -> bool {
        let subject = |scene: &Scene| match self.is_chinese {
            true => scene.subject_chinese(),
            false => scene.subject(),
        };
        // Whole words: `a large red star` is not part of `a large red starfish`.
        let names = |subject: &str| {
            section.match_indices(subject).any(|(at, _)| {
                let next = section[at + subject.len()..].chars().next();
                self.is_chinese || !next.is_some_and(char::is_alphanumeric)
            })
        };
        let right = subject(&self.scenes[index]);
        let others = self
            .scenes
            .iter()
            .map(subject)
            .filter(|other| !right.contains(other.as_str()));
        names(&right) && !others.into_iter().any(|other| names(&other))
    }
}

/// Scenes of one or two things, whose first things differ.
fn subjects(draw: &mut Draw, count: usize) -> Vec<Scene> {
    let mut scenes: Vec<Scene> = Vec::new();
    while scenes.len() < count {
        let things = if draw.chance(LONE) { 1 } else { 2 };
        let scene = Scene::draw_of(draw, Some(things), DIGITS);
        let first = scene.things[0].color_noun();
        if scenes
            .iter()
            .all(|other| other.things[0].color_noun() != first)
        {
            scenes.push(scene);
        }
    }
    scenes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_two_or_three_pictures_that_differ() {
        let all: Vec<_> = (0..200).map(CompositionCase::from_seed).collect();
        assert!(all.iter().all(|c| (2..=3).contains(&c.scenes.len())));
        assert!(all.iter().any(|c| c.is_chinese) && all.iter().any(|c| c.scenes.len() == 3));
        assert_eq!(all[7], CompositionCase::from_seed(7));
        for c in &all {
            for (i, scene) in c.scenes.iter().enumerate() {
                let section = match c.is_chinese {
                    true => format!("首先，我看到了{}。它像一座山。", scene.subject_chinese()),
                    false => format!("First, Mia saw {}. It rolled.", scene.subject()),
                };
                assert!(c.speaks_of(&section, i), "{section}");
                let others = (0..c.scenes.len()).filter(|other| *other != i);
                assert!(
                    others
                        .into_iter()
                        .all(|other| !c.speaks_of(&section, other)),
                    "{section}"
                );
            }
        }
    }
}
