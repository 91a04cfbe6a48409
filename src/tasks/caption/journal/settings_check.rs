//! Checks that the records of a file were made with the settings of this run.

use crate::tasks::caption::{Fields, Format, Settings, journal::entry::present};

/// State of the check after the records read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct SettingsCheck {
    /// A record has a template.
    has_template: bool,
    /// A record of this program has an empty template.
    has_empty_template: bool,
}

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub what: &'static str,
    pub expected: String,
    pub found: String,
}

impl SettingsCheck {
    /// Checks a record. Fields that a user removed are ignored.
    ///
    /// # Errors
    /// If it was made with other settings.
    pub fn add(
        &mut self,
        fields: &Fields,
        format: Format,
        settings: &Settings,
    ) -> Result<(), Mismatch> {
        let value = |name: &str| present(fields, name).map(|text| normalized(&text));
        let (model, prompt) = (value("model"), value("prompt"));
        let is_ours = model.is_some() || prompt.is_some();
        let template = match value("template").filter(|_| is_ours) {
            None if is_ours && fields.contains("template") => {
                self.has_empty_template = true;
                None
            }
            // This is how this program writes a record without a template.
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
            if let Some(found) = found.filter(|found| *found != normalized(expected)) {
                let expected = expected.clone();
                return Err(Mismatch {
                    what,
                    expected,
                    found,
                });
            }
        }
        self.has_template |= template.is_some_and(|template| !template.is_empty());
        Ok(())
    }

    /// Checks empty templates, which needs all records: if no record has a template, empty ones mean that there
    /// was none; otherwise another program lost the values.
    ///
    /// # Errors
    /// If the captions were made without the template.
    pub fn finish(self, settings: &Settings) -> Result<(), Mismatch> {
        match &settings.template {
            Some(expected) if self.has_empty_template && !self.has_template => Err(Mismatch {
                what: "template",
                expected: expected.clone(),
                found: String::new(),
            }),
            _ => Ok(()),
        }
    }
}

/// Normalizes line breaks, which an editor may have changed.
fn normalized(text: &str) -> String {
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

    /// Whether records with `own` may be appended to records with these templates.
    fn matches(own: Option<&str>, format: Format, templates: &[&str]) -> bool {
        let (mut check, settings) = (SettingsCheck::default(), settings(own));
        let is_ok = templates.iter().all(|template| {
            let fields = [
                ("model", "m.gguf"),
                ("prompt", "What?"),
                ("template", template),
            ];
            check.add(&fields.into(), format, &settings).is_ok()
        });
        is_ok && check.finish(&settings).is_ok()
    }

    #[test]
    fn an_empty_template_matches_unless_all_are_empty_and_one_is_expected() {
        for format in [Format::Jsonl, Format::Csv] {
            for blank in ["", "NaN", "NA", "None", "nan", "<NA>", "null"] {
                assert!(matches(None, format, &[blank, blank]), "{blank}");
                assert!(
                    matches(Some(TEMPLATE), format, &[blank, TEMPLATE]),
                    "{blank}"
                );
                assert!(!matches(Some(TEMPLATE), format, &[blank]), "{blank}");
                assert!(!matches(None, format, &[blank, TEMPLATE]), "{blank}");
            }
            assert!(!matches(Some(TEMPLATE), format, &["a {caption}"]));
        }
    }

    #[test]
    fn an_absent_field_means_no_template_only_in_json() {
        let ours: Fields = [("model", "m.gguf")].into();
        let theirs: Fields = [("caption", "mine")].into();
        let with = settings(Some(TEMPLATE));
        for (fields, format, is_ok) in [
            (&ours, Format::Jsonl, false),
            (&ours, Format::Csv, true),
            (&theirs, Format::Jsonl, true),
        ] {
            let result = SettingsCheck::default().add(fields, format, &with);
            assert_eq!(result.is_ok(), is_ok);
        }
    }

    #[test]
    fn markers_of_missing_values_match_any_setting() {
        let fields: Fields = [("model", "NaN"), ("prompt", "None"), ("template", "NaN")].into();
        let result = SettingsCheck::default().add(&fields, Format::Csv, &settings(Some(TEMPLATE)));
        assert_eq!(result, Ok(()));
        let fields: Fields = [("model", "other.gguf")].into();
        let result = SettingsCheck::default().add(&fields, Format::Csv, &settings(None));
        assert_eq!(result.unwrap_err().what, "model");
    }
}
