//! The prompt format that the model was trained with.
//!
//! A turn is `[UNUSED_TOKEN_146]role\nbody[UNUSED_TOKEN_145]\n`. A prompt is the system turn, if there is a system
//! text, the turns of the history, the user's turn, and the start of an assistant turn. The place of `<s>` depends on
//! which of the original's callers is followed: see [`PromptLayout`].

use super::{PromptError, Sequence};
use crate::{
    language::llama::{SpecialText, Tokenizer},
    model::container::{BosRule, PromptInfo, UnmarkedImage},
};

/// A conversation up to the point where the model is to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// System text; empty for none.
    pub system: String,
    /// Earlier turns: query and answer. Queries include their picture markers.
    pub history: Vec<(String, String)>,
    /// The present question.
    pub query: String,
    /// A forced start of the answer.
    pub answer_prefix: String,
}

/// Where pictures are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PromptLayout {
    /// At their markers in the query, or before it if there are no markers; as in `chat()`.
    #[default]
    Chat,
    /// Directly after a single `<s>`, before all turns; as in the published evaluation.
    Evaluation,
}

/// Builds sequences from conversations.
#[derive(Clone, Debug)]
pub struct Template {
    /// The model's prompt format.
    pub prompt: PromptInfo,
    /// Where pictures are placed.
    pub layout: PromptLayout,
}

/// A piece of a prompt before tokenization.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Id(i32),
    Text(String),
    Image,
}

impl Template {
    /// The sequence of `chat` with pictures of the given numbers of positions.
    ///
    /// # Errors
    /// If there is neither a question nor a picture, or markers and pictures do not match.
    pub fn sequence(
        &self,
        chat: &Chat,
        images: &[usize],
        tokenizer: &Tokenizer,
    ) -> Result<Sequence, PromptError> {
        if chat.query.is_empty() && images.is_empty() {
            return Err(PromptError::Empty);
        }
        let pieces = self.with_images(self.turns(chat), images.len())?;
        let pieces = self.with_bos(pieces, !images.is_empty());
        Ok(tokenize(&pieces, images, tokenizer))
    }

    /// All turns, with markers as [`Piece::Image`].
    fn turns(&self, chat: &Chat) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if !chat.system.is_empty() {
            self.turn(&mut pieces, "system", &chat.system);
        }
        for (query, answer) in &chat.history {
            self.turn(&mut pieces, "user", query);
            self.turn(&mut pieces, "assistant", answer);
        }
        self.turn(&mut pieces, "user", &chat.query);
        pieces.push(Piece::Id(self.prompt.turn_start));
        pieces.push(Piece::Text(format!("assistant\n{}", chat.answer_prefix)));
        pieces
    }

    fn turn(&self, pieces: &mut Vec<Piece>, role: &str, body: &str) {
        pieces.push(Piece::Id(self.prompt.turn_start));
        // The role and the body are tokenized as one text, because a token may span the newline.
        let mut text = format!("{role}\n");
        for (i, part) in body.split(&self.prompt.image_marker).enumerate() {
            if i > 0 {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Image);
            }
            text.push_str(part);
        }
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Id(self.prompt.turn_end));
        pieces.push(Piece::Text("\n".to_owned()));
    }

    /// Matches the markers with the pictures, or places the pictures if there are no markers.
    fn with_images(
        &self,
        mut pieces: Vec<Piece>,
        n_images: usize,
    ) -> Result<Vec<Piece>, PromptError> {
        let n_markers = pieces.iter().filter(|p| **p == Piece::Image).count();
        if n_markers == n_images && self.layout == PromptLayout::Chat {
            return Ok(pieces);
        }
        if n_markers > 0 && self.layout == PromptLayout::Evaluation {
            return Err(PromptError::MarkersNotTaken {
                marker: self.prompt.image_marker.clone(),
            });
        }
        if n_markers > 0 {
            return Err(PromptError::Markers {
                marker: self.prompt.image_marker.clone(),
                markers: n_markers,
                images: n_images,
            });
        }
        let unmarked = self.prompt.unmarked_image;
        let at = match (self.layout, unmarked) {
            (PromptLayout::Evaluation, _) => 0,
            (PromptLayout::Chat, UnmarkedImage::Prompt) if n_images == 1 => 0,
            (PromptLayout::Chat, _) => split_last_query(&mut pieces),
        };
        if n_images > 1 && self.layout == PromptLayout::Chat && unmarked == UnmarkedImage::Prompt {
            number_images(&mut pieces, at, n_images);
        } else {
            pieces.splice(at..at, std::iter::repeat_n(Piece::Image, n_images));
        }
        Ok(pieces)
    }

    /// Inserts `<s>` by the rule of layout and model.
    fn with_bos(&self, pieces: Vec<Piece>, has_images: bool) -> Vec<Piece> {
        let bos = Piece::Id(self.prompt.bos);
        let every =
            self.prompt.bos_rule == BosRule::EverySegment && self.layout == PromptLayout::Chat;
        if !every {
            return std::iter::once(bos).chain(pieces).collect();
        }
        if !has_images {
            // `chat()` writes one into the text, and its tokenizer adds another.
            return [bos.clone(), bos].into_iter().chain(pieces).collect();
        }
        let mut out = Vec::with_capacity(pieces.len() + 4);
        let mut at_segment_start = true;
        for piece in pieces {
            if piece == Piece::Text(String::new()) {
                continue; // an empty segment gets no `<s>`
            }
            if piece != Piece::Image && at_segment_start {
                out.push(bos.clone());
            }
            at_segment_start = piece == Piece::Image;
            out.push(piece);
        }
        out
    }
}

/// Splits the last user turn after `user\n` and returns the place for pictures. (The original 2.0 models put a picture
/// without a marker after the whole prompt, where no training sample has one.)
fn split_last_query(pieces: &mut Vec<Piece>) -> usize {
    let is_user = |p: &Piece| matches!(p, Piece::Text(text) if text.starts_with("user\n"));
    let at = pieces
        .iter()
        .rposition(is_user)
        .expect("there is a user turn");
    if let Piece::Text(text) = &mut pieces[at] {
        let query = text.split_off("user\n".len());
        pieces.insert(at + 1, Piece::Text(query));
    }
    at + 1
}

/// Inserts `Image1 <image>; Image2 <image>; ` between the pieces before `at`, which end with `user\n`, and the query:
/// the form in which the 2.5 models take several pictures. Neighbouring texts are joined, because a token may span
/// them.
fn number_images(pieces: &mut Vec<Piece>, at: usize, n_images: usize) {
    let mut text = match &mut pieces[at - 1] {
        Piece::Text(text) => std::mem::take(text),
        _ => String::new(),
    };
    let mut numbered = Vec::with_capacity(2 * n_images + 1);
    for i in 1..=n_images {
        text.push_str(&format!("Image{i} "));
        numbered.push(Piece::Text(std::mem::replace(&mut text, "; ".to_owned())));
        numbered.push(Piece::Image);
    }
    if let Some(Piece::Text(query)) = pieces.get(at) {
        text.push_str(query);
    }
    numbered.push(Piece::Text(text));
    pieces.splice(at - 1..=at, numbered);
}

fn tokenize(pieces: &[Piece], images: &[usize], tokenizer: &Tokenizer) -> Sequence {
    let mut sequence = Sequence::default();
    let mut images = images.iter().enumerate();
    for piece in pieces {
        match piece {
            Piece::Id(id) => sequence.push_tokens(&[*id]),
            Piece::Text(text) => {
                sequence.push_tokens(&tokenizer.encode(text, SpecialText::Plain));
            }
            Piece::Image => {
                let (index, n_tokens) = images.next().expect("as many markers as pictures");
                sequence.push_image(index, *n_tokens);
            }
        }
    }
    sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(layout: PromptLayout, bos_rule: BosRule) -> Template {
        let prompt = PromptInfo {
            system: String::new(),
            image_marker: "<ImageHere>".to_owned(),
            turn_start: 46,
            turn_end: 45,
            bos: 1,
            eos: 2,
            bos_rule,
            unmarked_image: UnmarkedImage::Query,
        };
        Template { prompt, layout }
    }

    fn pieces(template: &Template, query: &str, n_images: usize) -> Vec<Piece> {
        let chat = Chat {
            query: query.to_owned(),
            ..Chat::default()
        };
        let pieces = template
            .with_images(template.turns(&chat), n_images)
            .unwrap();
        template.with_bos(pieces, n_images > 0)
    }

    fn text(s: &str) -> Piece {
        Piece::Text(s.to_owned())
    }

    #[test]
    fn every_non_empty_segment_begins_with_bos() {
        use Piece::{Id, Image};
        let t = template(PromptLayout::Chat, BosRule::EverySegment);
        let rest = [Id(45), text("\n"), Id(46), text("assistant\n")];
        let mut expected = vec![
            Id(1),
            Id(46),
            text("user\n"),
            Image,
            Image,
            Id(1),
            text("why?"),
        ];
        expected.extend(rest.clone());
        assert_eq!(pieces(&t, "<ImageHere><ImageHere>why?", 2), expected);
        let mut expected = vec![Id(1), Id(46), text("user\na "), Image, Id(1)];
        expected.extend(rest);
        assert_eq!(pieces(&t, "a <ImageHere>", 1), expected);
    }

    #[test]
    fn text_without_pictures_begins_with_two_bos() {
        let t = template(PromptLayout::Chat, BosRule::EverySegment);
        assert_eq!(
            pieces(&t, "hi", 0)[..3],
            [Piece::Id(1), Piece::Id(1), Piece::Id(46)]
        );
        let once = template(PromptLayout::Chat, BosRule::Once);
        assert_eq!(pieces(&once, "hi", 0)[..2], [Piece::Id(1), Piece::Id(46)]);
    }

    #[test]
    fn pictures_without_markers_are_placed_before_the_query() {
        let t = template(PromptLayout::Chat, BosRule::EverySegment);
        let marked = pieces(&t, "<ImageHere><ImageHere>what?", 2);
        assert_eq!(pieces(&t, "what?", 2), marked);
    }

    #[test]
    fn the_2_5_models_take_one_picture_first_and_number_several() {
        use Piece::{Id, Image};
        let mut t = template(PromptLayout::Chat, BosRule::Once);
        t.prompt.unmarked_image = UnmarkedImage::Prompt;
        let one = [Id(1), Image, Id(46), text("user\nwhat?"), Id(45)];
        assert_eq!(pieces(&t, "what?", 1)[..5], one);
        let marked = pieces(&t, "Image1 <ImageHere>; Image2 <ImageHere>; what?", 2);
        assert_eq!(pieces(&t, "what?", 2), marked);
    }

    #[test]
    fn the_evaluation_layout_puts_pictures_after_the_only_bos() {
        let t = template(PromptLayout::Evaluation, BosRule::EverySegment);
        let expected = [
            Piece::Id(1),
            Piece::Image,
            Piece::Id(46),
            text("user\nwhat?"),
        ];
        assert_eq!(pieces(&t, "what?", 1)[..4], expected);
    }

    #[test]
    fn unmatched_markers_are_an_error() {
        let t = template(PromptLayout::Chat, BosRule::EverySegment);
        let chat = Chat {
            query: "<ImageHere>?".to_owned(),
            ..Chat::default()
        };
        let error = t.with_images(t.turns(&chat), 2).unwrap_err();
        let marker = "<ImageHere>".to_owned();
        assert_eq!(
            error,
            PromptError::Markers {
                marker,
                markers: 1,
                images: 2
            }
        );
    }
}
