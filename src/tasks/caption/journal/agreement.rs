//! Whether the records of a file were made as further ones will be.

use crate::tasks::caption::{Fields, Format, Settings, journal::gist::stated};

/// What is known after the records read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreement {
    /// A record states the template.
    states_template: bool,
    /// A record of ours has a blank in its place.
    leaves_out_template: bool,
}

/// What was made otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: &'static str,
    pub expected: String,
    pub found: String,
}

impl Agreement {
    /// Takes a record into account. What it does not say, because a person left it out, is no contradiction.
    ///
    /// # Errors
    /// If it was made with other settings.
    pub fn take(
        &mut self,
        fields: &Fields,
        format: Format,
        settings: &Settings,
    ) -> Result<(), Difference> {
        let said = |name: &str| stated(fields, name).map(|text| plain(&text));
        let (model, prompt) = (said("model"), said("prompt"));
        let is_ours = model.is_some() || prompt.is_some();
        let template = match said("template").filter(|_| is_ours) {
            None if is_ours && fields.contains("template") => {
                self.leaves_out_template = true;
                None
            }
            // As this program writes a record without a template.
            None if is_ours && format == Format::Jsonl => Some(String::new()),
            template => template,
        };
        let own_template = settings.template.clone().unwrap_or_default();
        let pairs = [
            ("model", &settings.model, model),
            ("prompt", &settings.prompt, prompt),
            ("template", &own_template, template.clone()),
        ];
        for (what, expected, found) in pairs {
            if let Some(found) = found.filter(|found| *found != plain(expected)) {
                let expected = expected.clone();
                return Err(Difference {
                    what,
                    expected,
                    found,
                });
            }
        }
        self.states_template |= template.is_some_and(|template| !template.is_empty());
        Ok(())
    }

    /// Judges what only all records together tell: where none of them states a template, blanks say that there
    /// was none; beside records that do, they are values that somebody's program lost.
    ///
    /// # Errors
    /// If the captions were made without the template.
    pub fn finish(self, settings: &Settings) -> Result<(), Difference> {
        match &settings.template {
            Some(expected) if self.leaves_out_template && !self.states_template => {
                Err(Difference {
                    what: "template",
                    expected: expected.clone(),
                    found: String::new(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// An editor may have changed the line breaks in a prompt, too.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "sks, {caption}";

    fn settings(template: Option<&str>) -> Settings {
        Settings {
            model: "m.gguf".into(),
            prompt: "What?".into(),
            template: template.map(str::to_owned),
        }
    }

    /// Whether records with these templates can be followed by others with `own`.
    fn agree(own: Option<&str>, format: Format, templates: &[&str]) -> bool {
        let (mut agreement, settings) = (Agreement::default(), settings(own));
        let is_ok = templates.iter().all(|template| {
            let fields = [
                ("model", "m.gguf"),
                ("prompt", "What?"),
                ("template", template),
            ];
            agreement.take(&fields.into(), format, &settings).is_ok()
        });
        is_ok && agreement.finish(&settings).is_ok()
    }

    #[test]
    fn a_blank_template_agrees_unless_all_are_blank_and_there_is_one() {
        for format in [Format::Jsonl, Format::Csv] {
            for blank in ["", "NaN", "NA", "None", "nan", "<NA>", "null"] {
                assert!(agree(None, format, &[blank, blank]), "{blank}");
                assert!(agree(Some(TEMPLATE), format, &[blank, TEMPLATE]), "{blank}");
                assert!(!agree(Some(TEMPLATE), format, &[blank]), "{blank}");
                assert!(!agree(None, format, &[blank, TEMPLATE]), "{blank}");
            }
            assert!(!agree(Some(TEMPLATE), format, &["a {caption}"]));
        }
    }

    #[test]
    fn a_record_without_the_field_is_one_without_a_template_in_json_alone() {
        let ours: Fields = [("model", "m.gguf")].into();
        let theirs: Fields = [("caption", "mine")].into();
        let with = settings(Some(TEMPLATE));
        for (fields, format, is_ok) in [
            (&ours, Format::Jsonl, false),
            (&ours, Format::Csv, true),
            (&theirs, Format::Jsonl, true),
        ] {
            let taken = Agreement::default().take(fields, format, &with);
            assert_eq!(taken.is_ok(), is_ok);
        }
    }

    #[test]
    fn words_for_missing_values_contradict_no_model_and_no_prompt() {
        let fields: Fields = [("model", "NaN"), ("prompt", "None"), ("template", "NaN")].into();
        let taken = Agreement::default().take(&fields, Format::Csv, &settings(Some(TEMPLATE)));
        assert_eq!(taken, Ok(()));
        let fields: Fields = [("model", "other.gguf")].into();
        let taken = Agreement::default().take(&fields, Format::Csv, &settings(None));
        assert_eq!(taken.unwrap_err().what, "model");
    }
}
