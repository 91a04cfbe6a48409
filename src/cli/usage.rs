//! Tips for unknown arguments.

use clap::{
    Parser,
    error::{ContextKind, ContextValue, Error},
};

use super::Args;

/// Parses the command line; exits if it is wrong or asks for help.
pub fn parse() -> Args {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Args::try_parse().unwrap_or_else(|error| with_tip(error, &words).exit())
}

/// Replaces clap's tip, which only compares spellings, if we have a better one.
fn with_tip(mut error: Error, words: &[String]) -> Error {
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(unknown)) => unknown.clone(),
        _ => return error,
    };
    let is_unknown = error.kind() == clap::error::ErrorKind::UnknownArgument;
    if let Some(tip) = tip(words, &unknown).filter(|_| is_unknown) {
        if error.remove(ContextKind::SuggestedArg).is_some() {
            error.remove(ContextKind::Usage); // it repeats clap's suggestion
        }
        let tips = ContextValue::StyledStrs(vec![tip.to_owned().into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// What to type instead of `unknown`.
fn tip(words: &[String], unknown: &str) -> Option<&'static str> {
    let is = |command: &str| {
        words
            .iter()
            .skip(1)
            .find(|word| !word.starts_with('-'))
            .is_some_and(|w| w == command)
    };
    Some(match unknown {
        "--image" | "--images" | "--input" if is("caption") => {
            "give pictures without an option: `xc2-edge caption -m GGUF PATH`"
        }
        "--csv" if is("caption") => "use `--format csv`, or an output file that ends in .csv",
        "--json" | "--jsonl" if is("caption") => "records are JSON, one per line, by default",
        "--xmp" if is("caption") => {
            "use `--embed DIR` to write copies of the pictures to DIR, with captions as XMP"
        }
        "--image" | "--images" if is("index") => {
            "give the directory without an option: `xc2-edge index -m GGUF DIR`"
        }
        option if option.starts_with('-') => return None,
        file if file.ends_with(".gguf") => "give the model with `-m`",
        _ if is("run") => "give a picture with `--image`, a question with `-p`",
        _ if is("compose") => "give a picture with `--image`, the topic with `-p`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_arguments_get_tips() {
        for (line, tip) in [
            ("caption -m m.gguf --image a.png", "give pictures without"),
            ("caption -m m.gguf a.png --xmp", "`--embed DIR`"),
            ("caption -m m.gguf a.png --csv", "`--format csv`"),
            ("caption -m m.gguf a.png --json", "by default"),
            ("caption -m m.gguf a.png --outptu x", "'--output'"),
            ("index -m m.gguf --image a.png", "give the directory"),
            ("info m.gguf", "`-m`"),
            ("-v run -m m.gguf a.png", "`--image`"),
            ("run m.gguf --image a.png", "`-m`"),
        ] {
            let words: Vec<String> = ["xc2-edge"]
                .into_iter()
                .chain(line.split(' '))
                .map(str::to_owned)
                .collect();
            let error = Args::try_parse_from(&words).unwrap_err();
            let message = with_tip(error, &words).to_string();
            assert!(!message.contains("--temp"), "{message}");
            let tips: Vec<_> = message.lines().filter(|l| l.contains("tip: ")).collect();
            assert!(tips.len() == 1 && tips[0].contains(tip), "{message}");
        }
    }
}
