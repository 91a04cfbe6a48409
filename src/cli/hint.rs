//! What a person can do about an error.

use xc2_edge::{
    engine::EngineError,
    engine::memory::Remedy,
    language::prompt::PromptError,
    model::{container::ContainerError, gguf::GgufError},
    system::units::human,
    tasks::{
        caption::{JournalError, SidecarError},
        compose::{ComposeError, library::LibraryError, output::OutputError},
    },
};

/// Advice for `error`, if there is any beyond the message.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref() {
        return journal(error);
    }
    if let Some(SidecarError::Clash { .. }) = error.downcast_ref() {
        let text = "rename one of them, or write records with `-o` instead";
        return Some(text.to_owned());
    }
    if let Some(SidecarError::Itself { path }) = error.downcast_ref() {
        let is_text = path.extension().is_some_and(|ending| ending == "txt");
        let text = if is_text {
            "leave text files out; of a folder, pictures alone are taken"
        } else {
            "give another directory with `--embed`"
        };
        return Some(text.to_owned());
    }
    match error.downcast_ref::<ComposeError>() {
        Some(ComposeError::Engine(source)) => return engine(source),
        Some(ComposeError::Library(source)) => return library(source),
        _ => {}
    }
    if let Some(source) = error.downcast_ref::<LibraryError>() {
        return library(source);
    }
    if let Some(OutputError::Occupied { .. }) = error.downcast_ref() {
        return Some("give another name with `--out`, or move what is there".to_owned());
    }
    engine(error.downcast_ref::<EngineError>()?)
}

fn engine(error: &EngineError) -> Option<String> {
    let text = match error {
        EngineError::Container { source, .. } => return container(source),
        EngineError::PromptTooLong {
            n_prompt,
            n_image,
            max,
            ..
        } => {
            return Some(too_long(*n_prompt, *n_image, *max));
        }
        EngineError::NotFinite => {
            "`xc2-edge info -m MODEL --checksum` tells whether the file is whole"
        }
        EngineError::Memory {
            remedies,
            smaller_model,
            ..
        } => return Some(memory(remedies, smaller_model.as_ref())),
        EngineError::Image(error) if error.is_for_want_of_memory() => {
            "a larger `--max-memory`, if you set one, or a smaller picture; `--no-memory-check` tries anyway"
        }
        EngineError::Image(error) if error.is_truncated() => {
            "`--allow-truncated` takes what is there of it, and grey for the rest"
        }
        EngineError::Prompt(PromptError::Markers { .. }) => {
            "leave the markers out, and the pictures stand before the question"
        }
        EngineError::Prompt(PromptError::Empty) => "give a question with `-p`, or an `--image`",
        _ => return None,
    };
    Some(text.to_owned())
}

fn journal(error: &JournalError) -> Option<String> {
    let text = match error {
        JournalError::Busy { .. } => {
            "wait for it, or give each process a file of its own (and a share, with `--shard`)"
        }
        JournalError::OtherSettings { .. } => {
            "give another `-o`, or the options with which the file was begun"
        }
        JournalError::NoRecord { .. } => {
            "nothing was changed; correct that line, or give another `-o`"
        }
        JournalError::NotAFile { path, .. } if path.is_dir() => {
            let file = path.join("captions.jsonl");
            return Some(format!("name a file: `-o {}`", file.display()));
        }
        JournalError::NotAFile { .. } => "leave `-o` out, and records go to stdout",
        JournalError::Io { .. } | JournalError::Text { .. } => return None,
    };
    Some(text.to_owned())
}

fn library(error: &LibraryError) -> Option<String> {
    let text = match error {
        LibraryError::NoIndex { dir, .. } => {
            return Some(format!(
                "`xc2-edge index {} -m MODEL` makes one; `--index FILE` names one that is elsewhere",
                dir.display()
            ));
        }
        LibraryError::ReadOnly { .. } => {
            "`--index FILE` puts the index elsewhere; `search` and `compose` take the same option"
        }
        LibraryError::NotAnIndex { .. } => "give another file with `--index`",
        LibraryError::OtherFiles { index, .. } => {
            return Some(format!(
                "nothing was changed; mount the pictures or give their directory. If they are gone for \
                 good, remove {} and index again",
                index.display()
            ));
        }
        LibraryError::Version { path, .. } | LibraryError::Index { path, .. } => {
            return Some(format!("remove {} and index again", path.display()));
        }
        LibraryError::Busy { .. } => "wait until the other `xc2-edge index` is done",
        _ => return None,
    };
    Some(text.to_owned())
}

fn memory(remedies: &[Remedy], smaller_model: Option<&Remedy>) -> String {
    let options = remedies
        .iter()
        .map(|r| format!("`{}` (needs {})", r.options, human(r.need)));
    let model = smaller_model.map(|r| {
        let need = human(r.need);
        format!("a model converted with `{}` (about {need})", r.options)
    });
    let ways: Vec<String> = options.chain(model).collect();
    match &ways[..] {
        [] => "no option makes this model fit here; `--no-memory-check` tries anyway".to_owned(),
        ways => format!(
            "this is enough: {}; `--no-memory-check` tries anyway",
            ways.join(", or ")
        ),
    }
}

fn too_long(n_prompt: usize, n_image: usize, max: usize) -> String {
    let larger = (n_prompt + 256).next_multiple_of(256);
    if n_prompt < max {
        format!("ask for a larger context: `--ctx-size {}`", larger.min(max))
    } else if n_image > 0 {
        format!(
            "this model takes at most {max} tokens: shorten the question or give fewer pictures"
        )
    } else {
        format!("this model takes at most {max} tokens: shorten the question")
    }
}

fn container(error: &ContainerError) -> Option<String> {
    let text = match error {
        ContainerError::NotOurs { .. } => {
            "xc2-edge reads the files of xc2-convert, which hold the decoder, the tower and the \
             adapter together"
        }
        ContainerError::Gguf(GgufError::Io(io))
            if io.kind() == std::io::ErrorKind::IsADirectory =>
        {
            "give the .gguf file; a checkpoint directory is converted with `xc2-convert DIR OUT.gguf`"
        }
        ContainerError::Gguf(GgufError::Magic { .. }) => {
            "`-m` names a model, as `xc2-convert DIR OUT.gguf` makes it of a checkpoint"
        }
        ContainerError::Gguf(GgufError::Truncated { .. }) => {
            "the copy is incomplete: fetch or convert it again"
        }
        ContainerError::Version { .. } => "update xc2-edge, or convert the checkpoint again",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_enough_is_advised() {
        let remedy = |options: &str, need| Remedy {
            options: options.to_owned(),
            need,
        };
        let two = [
            remedy("--kv-type q8_0", 2_000_000_000),
            remedy("--ctx-size 2048", 1_900_000_000),
        ];
        let expected = "this is enough: `--kv-type q8_0` (needs 2.0 GB), or `--ctx-size 2048` \
                        (needs 1.9 GB); `--no-memory-check` tries anyway";
        assert_eq!(memory(&two, None), expected);
        let model = remedy("--q4_k", 1_200_000_000);
        assert!(memory(&[], Some(&model)).contains("converted with `--q4_k` (about 1.2 GB)"));
        assert!(memory(&[], None).starts_with("no option"));
    }
}
