//! The turns of a conversation, and the requests built from them.

use std::path::{Path, PathBuf};

use serde_json::json;
use xc2_edge::{
    engine::{Picture, Request},
    language::prompt::Chat,
};

/// A picture of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub path: PathBuf,
    /// Its own maximum number of tiles.
    pub hd_num: Option<u32>,
}

impl From<&Shown> for Picture {
    fn from(shown: &Shown) -> Self {
        let picture = Self::File(shown.path.clone());
        match shown.hd_num {
            None => picture,
            Some(hd_num) => Self::WithTiles {
                picture: Box::new(picture),
                hd_num,
            },
        }
    }
}

/// A question with its pictures, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    images: Vec<Shown>,
    query: String,
    answer: String,
}

/// A conversation.
pub struct Conversation {
    system: String,
    /// Marks the place of a picture in a text.
    marker: String,
    turns: Vec<Turn>,
    /// Whether later pictures are numbered in the prompt, as the 2.5 models expect.
    numbers_pictures: bool,
    /// Pictures of the next question.
    pending: Vec<Shown>,
}

impl Conversation {
    /// Starts with a system prompt, which may be empty, and pictures for the first question.
    pub fn new(system: String, marker: String, pending: Vec<PathBuf>) -> Self {
        let shown = |path| Shown { path, hd_num: None };
        Self {
            system,
            marker,
            turns: Vec::new(),
            numbers_pictures: false,
            pending: pending.into_iter().map(shown).collect(),
        }
    }

    /// The same with numbered pictures, as the 2.5 models expect, if `numbers_pictures`.
    pub fn with_numbers(self, numbers_pictures: bool) -> Self {
        Self {
            numbers_pictures,
            ..self
        }
    }

    /// Adds a picture to the next question; returns how many it has now.
    pub fn add_image(&mut self, picture: Shown) -> usize {
        self.pending.push(picture);
        self.pending.len()
    }

    /// Pictures of the next question.
    pub fn pending(&self) -> &[Shown] {
        &self.pending
    }

    /// Removes the pictures of the next question; returns how many.
    pub fn drop_pending(&mut self) -> usize {
        std::mem::take(&mut self.pending).len()
    }

    /// Whether there are no turns yet.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Removes everything but the system prompt.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.pending.clear();
    }

    /// The request that asks `text` as the next turn; other fields are as in `like`.
    pub fn request(&self, text: &str, like: &Request) -> Request {
        let images = self.turns.iter().flat_map(|t| &t.images);
        let history = self
            .turns
            .iter()
            .map(|t| (t.query.clone(), t.answer.clone()));
        Request {
            images: images.chain(&self.pending).map(Picture::from).collect(),
            chat: Chat {
                system: self.system.clone(),
                history: history.collect(),
                query: self.query(text),
                ..Chat::default()
            },
            ..like.clone()
        }
    }

    /// The question with a marker for each of its pictures: in front, unless the text has markers.
    fn query(&self, text: &str) -> String {
        if text.contains(&self.marker) {
            return text.to_owned();
        }
        let n_before: usize = self.turns.iter().map(|turn| turn.images.len()).sum();
        let n = self.pending.len();
        if !self.numbers_pictures || n_before + n <= 1 {
            return self.marker.repeat(n) + text;
        }
        let numbers = n_before + 1..=n_before + n;
        let numbered = numbers.map(|i| format!("Image{i} {}; ", self.marker));
        numbered.collect::<String>() + text
    }

    /// Adds a turn.
    pub fn push(&mut self, text: &str, answer: String) {
        self.turns.push(Turn {
            query: self.query(text),
            images: std::mem::take(&mut self.pending),
            answer,
        });
    }

    /// The content of a file of this name: JSON if it ends in `.json`, else Markdown.
    pub fn as_file(&self, name: &Path) -> String {
        match name.extension() {
            Some(json) if json.eq_ignore_ascii_case("json") => self.as_json(),
            _ => self.as_markdown(),
        }
    }

    fn as_json(&self) -> String {
        let paths =
            |t: &Turn| -> Vec<PathBuf> { t.images.iter().map(|i| i.path.clone()).collect() };
        let turn = |t: &Turn| {
            [
                json!({"role": "user", "images": paths(t), "text": t.query}),
                json!({"role": "assistant", "text": t.answer}),
            ]
        };
        let system =
            (!self.system.is_empty()).then(|| json!({"role": "system", "text": self.system}));
        let turns = self.turns.iter().flat_map(turn);
        let all: Vec<_> = system.into_iter().chain(turns).collect();
        format!("{:#}\n", serde_json::Value::Array(all))
    }

    fn as_markdown(&self) -> String {
        let mut text = String::new();
        for turn in &self.turns {
            text += "## Question\n\n";
            for image in &turn.images {
                text += &format!("![](<{}>)\n\n", image.path.display());
            }
            // The pictures above replace the markers in front.
            let query = turn.query.trim_start_matches(&self.marker);
            text += &format!("{query}\n\n## Answer\n\n{}\n\n", turn.answer);
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Shown {
        Shown {
            path: path.into(),
            hd_num: None,
        }
    }

    fn conversation() -> Conversation {
        let pending = vec![PathBuf::from("a.png")];
        Conversation::new("Be brief.".to_owned(), "<ImageHere>".to_owned(), pending)
    }

    #[test]
    fn every_turn_keeps_its_pictures_in_their_places() {
        let mut talk = conversation();
        talk.push("What is this?", "A cat.".to_owned());
        assert_eq!(talk.add_image(shown("b c.png")), 1);
        talk.add_image(shown("d.png"));
        let request = talk.request("And these?", &Request::default());
        let expected = Chat {
            system: "Be brief.".to_owned(),
            history: vec![("<ImageHere>What is this?".to_owned(), "A cat.".to_owned())],
            query: "<ImageHere><ImageHere>And these?".to_owned(),
            ..Chat::default()
        };
        assert_eq!(request.chat, expected);
        let names: Vec<_> = request.images.iter().map(name).collect();
        assert_eq!(names, ["a.png", "b c.png", "d.png"]);
        // A request does not change the conversation: a question that fails can be asked again.
        assert_eq!(talk.pending().len(), 2);
    }

    fn name(picture: &Picture) -> &str {
        match picture {
            Picture::File(path) => path.to_str().unwrap(),
            _ => panic!("a file"),
        }
    }

    #[test]
    fn later_pictures_are_numbered_for_the_2_5_models() {
        let mut talk = conversation().with_numbers(true);
        talk.push("What is this?", "A cat.".to_owned());
        talk.add_image(shown("b.png"));
        let request = talk.request("And this?", &Request::default());
        assert_eq!(request.chat.history[0].0, "<ImageHere>What is this?");
        assert_eq!(request.chat.query, "Image2 <ImageHere>; And this?");
    }

    #[test]
    fn a_picture_keeps_its_own_number_of_tiles() {
        let mut talk = conversation();
        talk.add_image(Shown {
            hd_num: Some(4),
            ..shown("b.png")
        });
        let request = talk.request("Which?", &Request::default());
        assert!(matches!(request.images[0], Picture::File(_)));
        assert!(matches!(
            request.images[1],
            Picture::WithTiles { hd_num: 4, .. }
        ));
    }

    #[test]
    fn a_text_may_place_its_pictures() {
        let talk = conversation();
        let request = talk.request("Look: <ImageHere>!", &Request::default());
        assert_eq!(request.chat.query, "Look: <ImageHere>!");
    }

    #[test]
    fn clearing_keeps_the_system_prompt() {
        let mut talk = conversation();
        talk.push("Hi", "Hello".to_owned());
        talk.add_image(shown("b.png"));
        talk.clear();
        assert!(talk.is_empty());
        let request = talk.request("Hi", &Request::default());
        assert_eq!((request.images.len(), request.chat.history.len()), (0, 0));
        assert_eq!(request.chat.system, "Be brief.");
    }

    #[test]
    fn it_is_written_as_markdown_or_json() {
        let mut talk = conversation();
        talk.push("What is this?", "A cat.".to_owned());
        talk.push("Sure?", "Yes.".to_owned());
        let expected = "## Question\n\n![](<a.png>)\n\nWhat is this?\n\n## Answer\n\nA cat.\n\n\
                        ## Question\n\nSure?\n\n## Answer\n\nYes.\n";
        assert_eq!(talk.as_file(Path::new("talk.md")), expected);
        let json: serde_json::Value =
            serde_json::from_str(&talk.as_file(Path::new("talk.JSON"))).unwrap();
        assert_eq!(json[0], json!({"role": "system", "text": "Be brief."}));
        let asked =
            json!({"role": "user", "images": ["a.png"], "text": "<ImageHere>What is this?"});
        assert_eq!(json[1], asked);
        assert_eq!(json[4], json!({"role": "assistant", "text": "Yes."}));
    }
}
