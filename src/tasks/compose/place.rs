//! The stages that choose the places of pictures, and the pictures.

use std::path::{Path, PathBuf};

use super::{
    ComposeError,
    composer::{AlbumPicture, Composer, Count, SHORT_ANSWER},
    composition::{Candidate, Placed, Stage},
    fit::abridge,
    library::{Absence, Hit, Library},
    prompts::letter,
    reply,
};

/// Maximum number of tokens of a choice.
const CHOICE: usize = 10;
/// Context positions reserved for an answer that names sections or a caption.
const ANSWER_RESERVE: usize = 48;
/// Number of candidates for a place.
pub const CANDIDATES: usize = 4;
/// Number of characters of a caption that are searched for, as in the published demo.
pub const SEARCHED: usize = 53;
/// If the model may choose the number of pictures but names no section: one picture per this many sections.
const SECTIONS_TO_A_PICTURE: usize = 3;

impl Composer<'_> {
    /// Places the user's pictures.
    pub(super) fn place_given(&mut self, sections: &[String]) -> Result<Vec<Placed>, ComposeError> {
        let given: Vec<usize> = (0..self.n_given).collect();
        let count = match self.options.count {
            Count::Auto => self.n_given,
            Count::Exactly(n) => n.min(self.n_given),
        };
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut positions = self.positions(sections, &given, Some(count))?;
        positions.sort_unstable();
        let (mut left, mut chosen, mut placed) = (given, Vec::new(), Vec::new());
        for section in positions {
            let picture = self.select(sections, section, &chosen, &left)?;
            let candidates = left.iter().map(|i| self.candidate(*i)).collect();
            left.retain(|other| *other != picture);
            chosen.push((section, picture));
            placed.push(self.placed(section, picture, None, candidates));
        }
        if placed.len() < count {
            self.note(format!(
                "{} of {count} pictures are placed: the model named no more sections",
                placed.len()
            ));
        }
        Ok(placed)
    }

    /// Places pictures of a library.
    pub(super) fn place_found(
        &mut self,
        sections: &[String],
        library: &Library,
    ) -> Result<Vec<Placed>, ComposeError> {
        let count = match self.options.count {
            Count::Auto => None,
            Count::Exactly(n) => Some(n),
        };
        if count == Some(0) {
            return Ok(Vec::new());
        }
        if library.is_empty()? {
            self.note(format!(
                "{}: the library has no pictures, so the article has none",
                library.dir().display()
            ));
            return Ok(Vec::new());
        }
        let given: Vec<usize> = (0..self.n_given).collect();
        let positions = self.positions(sections, &given, count)?;
        let captions = self.captions(sections, &positions)?;

        let mut wanted = captions;
        wanted.sort_by_key(|(section, _)| *section);
        let (mut chosen, mut placed, mut returned) = (Vec::new(), Vec::new(), Vec::new());
        for (section, caption) in wanted {
            let used: Vec<_> = chosen
                .iter()
                .map(|(_, i): &(_, usize)| self.album[*i].file.clone())
                .collect();
            let hits = self.retrieve(library, &caption, &mut returned, &used)?;
            if hits.is_empty() {
                self.note(format!(
                    "section {section}: the library has no picture for `{caption}`; none is placed"
                ));
                continue;
            }
            let candidates: Vec<usize> = hits.iter().map(|hit| self.add(hit)).collect();
            let picture = self.select(sections, section, &chosen, &candidates)?;
            chosen.push((section, picture));
            let listed = hits.into_iter().map(Candidate::from).collect();
            placed.push(self.placed(section, picture, Some(caption), listed));
        }
        Ok(placed)
    }

    /// The sections that a picture should follow: at most `count`, without duplicates, in the order in which the
    /// model names them.
    fn positions(
        &mut self,
        sections: &[String],
        pictures: &[usize],
        count: Option<usize>,
    ) -> Result<Vec<usize>, ComposeError> {
        let count = count.map(|n| n.min(sections.len()));
        let prompt = &self.prompts.positions;
        let ask = |sections: &[String]| prompt.render(pictures, sections, count);
        let n_spread = count.unwrap_or(sections.len().div_ceil(SECTIONS_TO_A_PICTURE));
        let Some((ask, most)) = abridge(&*self.model, sections, ANSWER_RESERVE, ask)? else {
            self.note(format!(
                "positions: the article does not fit the context of {} tokens; the pictures are \
                 spread evenly",
                self.model.n_ctx()
            ));
            return Ok(spread(sections.len(), n_spread));
        };
        self.note_abridged("positions", most);
        let answer = self.ask(Stage::Positions, None, &ask, SHORT_ANSWER)?;
        let (mut positions, unknown) = reply::positions(&answer, sections.len());
        if !unknown.is_empty() {
            self.note(format!(
                "positions: the model named sections that do not exist ({}); they are ignored",
                unknown.join(", ")
            ));
        }
        if let Some(count) = count.filter(|count| positions.len() > *count) {
            self.note(format!(
                "positions: the model named {} sections for {count} pictures; the first are taken",
                positions.len()
            ));
            positions.truncate(count);
        }
        if positions.is_empty() {
            positions = spread(sections.len(), n_spread);
            self.note(
                "positions: the model named no section; the pictures are spread evenly".into(),
            );
        }
        let named: Vec<_> = positions.iter().map(ToString::to_string).collect();
        self.decide(format!("after {}", named.join(", ")));
        Ok(positions)
    }

    /// A caption of the picture that should follow each of `positions`.
    fn captions(
        &mut self,
        sections: &[String],
        positions: &[usize],
    ) -> Result<Vec<(usize, String)>, ComposeError> {
        let prompt = &self.prompts.caption;
        let mut captions: Vec<(usize, String)> = Vec::new();
        for section in positions {
            let ask = |sections: &[String]| prompt.render(sections, *section, &captions);
            let mut caption = String::new();
            match abridge(&*self.model, sections, ANSWER_RESERVE, ask)? {
                Some((ask, most)) => {
                    self.note_abridged(&format!("caption of section {section}"), most);
                    let answer = self.ask(Stage::Caption, Some(*section), &ask, SHORT_ANSWER)?;
                    caption = reply::caption(&answer, &prompt.end);
                    self.decide(caption.clone());
                }
                None => self.note(format!(
                    "caption of section {section}: the article does not fit the context of {} tokens",
                    self.model.n_ctx()
                )),
            }
            if caption.is_empty() {
                self.note(format!(
                    "section {section}: no caption; its text is searched for instead"
                ));
                caption.clone_from(&sections[*section]);
            }
            captions.push((*section, caption));
        }
        Ok(captions)
    }

    /// The best pictures of the library for a caption: of those not returned before, as in the published demo;
    /// if there are none, of all that are not in the article.
    pub(super) fn retrieve(
        &mut self,
        library: &Library,
        caption: &str,
        returned: &mut Vec<PathBuf>,
        used: &[PathBuf],
    ) -> Result<Vec<Hit>, ComposeError> {
        let words: String = caption.chars().take(SEARCHED).collect();
        let mut search = library.search(&words, CANDIDATES, returned)?;
        if search.hits.is_empty() {
            search = library.search(&words, CANDIDATES, used)?;
        }
        for file in &search.missing {
            self.note(missing_note(file));
        }
        returned.extend(search.hits.iter().map(|hit| hit.file.clone()));
        Ok(search.hits)
    }

    /// Lets the model choose which of `candidates` follows `section`; `chosen` are the earlier choices as
    /// (section, picture).
    pub(super) fn select(
        &mut self,
        sections: &[String],
        section: usize,
        chosen: &[(usize, usize)],
        candidates: &[usize],
    ) -> Result<usize, ComposeError> {
        let first = candidates[0];
        if candidates.len() == 1 {
            return Ok(first);
        }
        let prompt = &self.prompts.selection;
        let ask = |sections: &[String]| prompt.render(sections, chosen, candidates);
        let Some((ask, most)) = abridge(&*self.model, &sections[..=section], CHOICE, ask)? else {
            self.note(format!(
                "selection of section {section}: the candidates do not fit the context of {} \
                 tokens; the first is taken",
                self.model.n_ctx()
            ));
            return Ok(first);
        };
        self.note_abridged(&format!("selection of section {section}"), most);
        let answer = self.ask(Stage::Selection, Some(section), &ask, CHOICE)?;
        let index = reply::choice(&answer, candidates.len()).unwrap_or_else(|| {
            let (answer, last) = (answer.trim(), letter(candidates.len() - 1));
            self.note(format!(
                "selection of section {section}: the model said `{answer}`, expected A to {last}; \
                 A is taken"
            ));
            0
        });
        let file = self.album[candidates[index]].file.display().to_string();
        self.decide(format!("{}, {file}", letter(index)));
        Ok(candidates[index])
    }

    fn note_abridged(&mut self, what: &str, most: Option<usize>) {
        if let Some(most) = most {
            self.note(format!(
                "{what}: the article does not fit the context of {} tokens; the model was shown \
                 the first {most} characters of each section",
                self.model.n_ctx()
            ));
        }
    }

    pub(super) fn candidate(&self, picture: usize) -> Candidate {
        Candidate {
            file: self.album[picture].file.clone(),
            caption: None,
            score: None,
        }
    }

    /// Adds a search result to the album, unless it is there, and returns its index.
    pub(super) fn add(&mut self, hit: &Hit) -> usize {
        let known = self.album[self.n_given..]
            .iter()
            .position(|e| e.file == hit.file);
        known.map_or_else(
            || {
                self.album.push(AlbumPicture {
                    file: hit.file.clone(),
                    picture: hit.file.clone().into(),
                    caption: Some(hit.caption.clone()),
                });
                self.album.len() - 1
            },
            |index| index + self.n_given,
        )
    }
}

/// The note about a picture of the library that was left out.
fn missing_note(file: &Path) -> String {
    format!("{}: {}", file.display(), Absence::of(file))
}

/// `count` sections at equal distances, without the first, which is a headline if there are more.
fn spread(n_sections: usize, count: usize) -> Vec<usize> {
    let first = usize::from(n_sections > 1);
    let n = n_sections - first;
    let count = count.min(n);
    (0..count)
        .map(|i| first + (2 * i + 1) * n / (2 * count))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn notes_tell_missing_from_unreadable_pictures() {
        let dir = tempfile::tempdir().unwrap();
        symlink("loop", dir.path().join("loop")).unwrap(); // fails for every user
        let note = |name: &str| missing_note(&dir.path().join(name));
        assert!(
            note("a.png").contains("a.png: not found; "),
            "{}",
            note("a.png")
        );
        let unreadable = note("loop/a.png");
        assert!(
            unreadable.contains("loop/a.png: cannot be read: "),
            "{unreadable}"
        );
    }

    #[test]
    fn pictures_are_spread_over_the_body() {
        assert_eq!(spread(5, 2), [2, 4]);
        assert_eq!(spread(5, 9), [1, 2, 3, 4]);
        assert_eq!(spread(1, 3), [0]);
        assert_eq!(spread(2, 1), [1]);
        for n in 1..40 {
            for count in 0..12 {
                let places = spread(n, count);
                assert!(places.iter().all(|p| *p < n) && places.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
