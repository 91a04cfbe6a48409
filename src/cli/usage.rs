//! What was meant by an argument that a command does not know.

use clap::{
    Parser,
    error::{ContextKind, ContextValue, Error},
};

use super::Args;

/// The command line; ends the program if it is wrong, or asks for help.
pub fn parse() -> Args {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Args::try_parse().unwrap_or_else(|error| with_tip(error, &words).exit())
}

/// Puts a tip in place of clap's, which goes by letters alone, where we know better.
fn with_tip(mut error: Error, words: &[String]) -> Error {
    let unknown = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(unknown)) => unknown.clone(),
        _ => return error,
    };
    let is_unknown = error.kind() == clap::error::ErrorKind::UnknownArgument;
    if let Some(tip) = tip(words, &unknown).filter(|_| is_unknown) {
        if error.remove(ContextKind::SuggestedArg).is_some() {
            error.remove(ContextKind::Usage); // it shows the same option
        }
        let tips = ContextValue::StyledStrs(vec![tip.to_owned().into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// What to type in place of `unknown`.
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
            "pictures are named without an option: `xc2-edge caption -m GGUF PATH`"
        }
        "--csv" if is("caption") => "`--format csv`, or an output whose name ends in .csv",
        "--json" | "--jsonl" if is("caption") => "records are JSON, one a line, without an option",
        "--xmp" if is("caption") => {
            "`--embed DIR` puts copies of the pictures in DIR, with their captions as XMP"
        }
        "--image" | "--images" if is("index") => {
            "the directory is named without an option: `xc2-edge index -m GGUF DIR`"
        }
        option if option.starts_with('-') => return None,
        file if file.ends_with(".gguf") => "a model is named with `-m`",
        _ if is("run") => "a picture is named with `--image`, a question with `-p`",
        _ if is("compose") => "a picture is named with `--image`, what to write about with `-p`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_told_where_it_is_known() {
        for (line, told) in [
            (
                "caption -m m.gguf --image a.png",
                "pictures are named without",
            ),
            ("caption -m m.gguf a.png --xmp", "`--embed DIR`"),
            ("caption -m m.gguf a.png --csv", "`--format csv`"),
            ("caption -m m.gguf a.png --json", "without an option"),
            ("caption -m m.gguf a.png --outptu x", "'--output'"),
            ("index -m m.gguf --image a.png", "the directory is named"),
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
            assert!(tips.len() == 1 && tips[0].contains(told), "{message}");
        }
    }
}
