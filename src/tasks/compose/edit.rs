//! Edits of a finished article. Everything else stays unchanged, byte for byte.

use std::path::PathBuf;

use super::{
    ComposeError,
    composer::{AlbumPicture, Composer},
    composition::{Candidate, Composition, Stage},
    library::Library,
    reply,
};

/// Maximum number of tokens of an edited section.
const EDITED: usize = 500;

/// An edit of a section or its picture. Sections count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Rewrites the section, following an instruction.
    Rewrite(usize, String),
    /// Makes the section longer, following an instruction.
    Expand(usize, String),
    /// Makes the section shorter.
    Shorten(usize),
    /// Inserts a new section after this one, from an outline.
    InsertAfter(usize, String),
    /// Replaces the picture after this section: by one given now, else by an unused one given earlier, else by
    /// one of the library.
    SwapImage(usize),
}

impl Composer<'_> {
    /// Applies `edit` to `composition`.
    ///
    /// # Errors
    /// If there is no such section or picture, or the model or the library fails.
    pub fn edit(
        mut self,
        mut composition: Composition,
        edit: &Edit,
        library: Option<&Library>,
    ) -> Result<Composition, ComposeError> {
        match edit {
            Edit::SwapImage(n) => self.swap(&mut composition, *n, library)?,
            _ => self.change(&mut composition, edit)?,
        }
        composition.notes.append(&mut self.notes);
        composition.stages.append(&mut self.stages);
        Ok(composition)
    }

    /// Edits the text.
    fn change(&mut self, composition: &mut Composition, edit: &Edit) -> Result<(), ComposeError> {
        let sections = &composition.sections;
        let text = |n: usize| {
            sections
                .get(n)
                .map(String::as_str)
                .ok_or(ComposeError::NoSection {
                    n,
                    last: sections.len().saturating_sub(1),
                })
        };
        let p = self.prompts;
        let (stage, n, ask) = match edit {
            Edit::Rewrite(n, instruction) => {
                let values = [("text", text(*n)?), ("instruction", instruction)];
                (Stage::Rewrite, *n, p.rewrite.render(&values, &[]))
            }
            Edit::Expand(n, instruction) => {
                let values = [("text", text(*n)?), ("instruction", instruction)];
                (Stage::Expand, *n, p.expand.render(&values, &[]))
            }
            Edit::Shorten(n) => (
                Stage::Shorten,
                *n,
                p.shorten.render(&[("text", text(*n)?)], &[]),
            ),
            Edit::InsertAfter(n, instruction) => {
                let next = sections.get(n + 1).map_or("", String::as_str);
                let values = [
                    ("previous", text(*n)?),
                    ("next", next),
                    ("instruction", instruction),
                ];
                (Stage::Insert, *n, p.insert.render(&values, &[]))
            }
            Edit::SwapImage(_) => unreachable!("`edit` handles pictures elsewhere"),
        };
        let answer = self.ask(stage, Some(n), &ask, EDITED)?;
        let (new, _) = reply::sections(&answer);
        self.decide(format!("{} sections", new.len()));
        if new.is_empty() {
            self.note(format!(
                "{} of section {n}: the model wrote nothing; nothing changes",
                stage.name()
            ));
            return Ok(());
        }
        let replaced = if stage == Stage::Insert {
            n + 1..n + 1
        } else {
            n..n + 1
        };
        composition.replace(replaced, new);
        Ok(())
    }

    /// Replaces the picture after section `n`.
    fn swap(
        &mut self,
        composition: &mut Composition,
        n: usize,
        library: Option<&Library>,
    ) -> Result<(), ComposeError> {
        let Some(at) = composition.pictures.iter().position(|p| p.section == n) else {
            let with: Vec<_> = composition
                .pictures
                .iter()
                .map(|p| p.section.to_string())
                .collect();
            return Err(ComposeError::NoPicture {
                n,
                with: if with.is_empty() {
                    "none".into()
                } else {
                    with.join(", ")
                },
            });
        };
        let is_new = self.n_given > 0;
        let chosen = self.earlier(composition, at);
        let wanted = composition.pictures[at].wanted.clone();
        let (numbers, candidates) = match library {
            _ if is_new => self.listed((0..self.n_given).collect()),
            Some(library) if composition.given.is_empty() || composition.library.is_some() => {
                self.found(composition, n, wanted.as_deref(), library)?
            }
            _ => {
                let unused: Vec<_> = composition.unused().cloned().collect();
                let numbers = unused.into_iter().map(|file| self.show(file)).collect();
                self.listed(numbers)
            }
        };
        if numbers.is_empty() {
            return Err(ComposeError::NoOther { n });
        }
        let picture = self.select(&composition.sections, n, &chosen, &numbers)?;
        let mut placed = [self.placed(n, picture, wanted, candidates)];
        self.describe(&mut placed)?;
        [composition.pictures[at]] = placed;
        if is_new {
            let new = self.album[..self.n_given].iter().map(|e| e.file.clone());
            let new: Vec<_> = new
                .filter(|file| !composition.given.contains(file))
                .collect();
            composition.given.extend(new);
        }
        Ok(())
    }

    /// The pictures before index `at`, with their sections.
    fn earlier(&mut self, composition: &Composition, at: usize) -> Vec<(usize, usize)> {
        let earlier = composition.pictures[..at].iter();
        earlier
            .map(|p| (p.section, self.show(p.file.clone())))
            .collect()
    }

    /// Pictures of the library that could replace the one after section `n`.
    fn found(
        &mut self,
        composition: &Composition,
        n: usize,
        wanted: Option<&str>,
        library: &Library,
    ) -> Result<(Vec<usize>, Vec<Candidate>), ComposeError> {
        let used: Vec<_> = composition
            .pictures
            .iter()
            .map(|p| p.file.clone())
            .collect();
        let words = wanted.unwrap_or(&composition.sections[n]);
        let hits = self.retrieve(library, words, &mut used.clone(), &used)?;
        let numbers = hits.iter().map(|hit| self.add(hit)).collect();
        Ok((numbers, hits.into_iter().map(Candidate::from).collect()))
    }

    fn listed(&self, numbers: Vec<usize>) -> (Vec<usize>, Vec<Candidate>) {
        let candidates = numbers.iter().map(|i| self.candidate(*i)).collect();
        (numbers, candidates)
    }

    /// Adds a picture of the article to the album and returns its index.
    fn show(&mut self, file: PathBuf) -> usize {
        self.album.push(AlbumPicture {
            picture: file.clone().into(),
            file,
            caption: None,
        });
        self.album.len() - 1
    }
}

impl Composition {
    /// Replaces the sections `replaced` by `new`; pictures move with their sections.
    fn replace(&mut self, replaced: std::ops::Range<usize>, new: Vec<String>) {
        let n_new = new.len();
        for picture in &mut self.pictures {
            if picture.section >= replaced.start {
                picture.section = picture.section + n_new - replaced.len();
            }
        }
        self.sections.splice(replaced, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::compose::{Brief, Language, Placed};

    #[test]
    fn pictures_follow_their_sections() {
        let placed = |section| Placed {
            section,
            file: "a".into(),
            alt: String::new(),
            wanted: None,
            candidates: vec![],
        };
        let whole = Composition {
            format: 1,
            language: Language::En,
            brief: Brief::default(),
            sections: ["a", "b", "c"].map(String::from).into(),
            pictures: vec![placed(0), placed(1), placed(2)],
            given: vec![],
            library: None,
            notes: vec![],
            stages: vec![],
        };
        let after = |range, new: &[&str]| {
            let mut c = whole.clone();
            c.replace(range, new.iter().map(ToString::to_string).collect());
            (
                c.sections.concat(),
                c.pictures.iter().map(|p| p.section).collect::<Vec<_>>(),
            )
        };
        assert_eq!(after(1..2, &["x"]), ("axc".into(), vec![0, 1, 2]));
        assert_eq!(after(1..2, &["x", "y"]), ("axyc".into(), vec![0, 2, 3]));
        assert_eq!(after(2..2, &["x"]), ("abxc".into(), vec![0, 1, 3]));
        assert_eq!(after(3..3, &["x"]), ("abcx".into(), vec![0, 1, 2]));
    }
}
