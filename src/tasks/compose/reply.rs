//! Parses the model's answers, stage by stage.

/// Maximum number of sections of an article; further ones are dropped.
pub const MAX_SECTIONS: usize = 60;

/// The sections of an article: its lines that are not empty. The second value is the number of those beyond
/// [`MAX_SECTIONS`], which are dropped.
pub fn sections(text: &str) -> (Vec<String>, usize) {
    let lines = text.trim().split('\n').map(str::trim_start);
    let mut sections: Vec<_> = lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let n_more = sections.len().saturating_sub(MAX_SECTIONS);
    sections.truncate(MAX_SECTIONS);
    (sections, n_more)
}

/// The sections that an answer names as `<Seg3>`, without duplicates, in the order of the answer. The second
/// value lists the numbers that are out of range.
pub fn positions(answer: &str, n_sections: usize) -> (Vec<usize>, Vec<String>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for rest in answer.split("<Seg").skip(1) {
        let Some((number, _)) = rest.split_once('>') else {
            continue;
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        match number.parse().ok().filter(|n| *n < n_sections) {
            Some(n) if known.contains(&n) => {}
            Some(n) => known.push(n),
            None => unknown.push(number.to_owned()),
        }
    }
    (known, unknown)
}

/// The caption in an answer: the text before `end`, on one line.
pub fn caption(answer: &str, end: &str) -> String {
    let caption = match end.is_empty() {
        true => answer,
        false => answer.split(end).next().unwrap_or_default(),
    };
    caption.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Which of `n` candidates an answer chooses: its first capital letter, `A` for 0. `None` if there is no such
/// letter or it is out of range.
pub fn choice(answer: &str, n: usize) -> Option<usize> {
    let letter = answer.bytes().find(u8::is_ascii_uppercase)?;
    Some(usize::from(letter - b'A')).filter(|index| *index < n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_are_dropped() {
        let (lines, more) = sections("\n Title\n\n  one \n \t\r\n two\n");
        assert_eq!(
            (lines, more),
            (vec!["Title".into(), "one ".into(), "two".into()], 0)
        );
        let long = "x\n".repeat(MAX_SECTIONS + 3);
        assert_eq!(
            (sections(&long).0.len(), sections(&long).1),
            (MAX_SECTIONS, 3)
        );
        assert_eq!(sections(" \n "), (vec![], 0));
    }

    #[test]
    fn positions_are_in_range_and_named_once() {
        let answer =
            "<Seg4>, <Seg2>，<Seg4><Seg9>, <Seg 1> <Segx> <Seg> <Seg0 <Seg99999999999999999999>";
        let (known, unknown) = positions(answer, 5);
        assert_eq!(known, [4, 2]);
        assert_eq!(unknown, ["9", "99999999999999999999"]);
        assert_eq!(positions("none of them", 5), (vec![], vec![]));
    }

    #[test]
    fn captions_end_at_the_quote() {
        assert_eq!(caption(" A red\n star \" and more\"", "\""), "A red star");
        assert_eq!(caption("never closed", "\""), "never closed");
        assert_eq!(caption("\"", "\""), "");
        assert_eq!(caption("a", ""), "a");
    }

    #[test]
    fn a_choice_is_the_first_capital() {
        assert_eq!(choice(": B", 3), Some(1));
        assert_eq!(choice("图C。A", 3), Some(2));
        for nothing in ["Z", ": D", "", "c", "图"] {
            assert_eq!(choice(nothing, 3), None, "{nothing}");
        }
    }
}
