//! Hints: what the user can do about an error.

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

/// The hint for `error`, if there is one.
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
            "do not list text files; in a folder, only pictures are captioned"
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
        return Some("choose another name with `--out`, or move the existing file".to_owned());
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
            "`xc2-edge info -m MODEL --checksum` checks whether the file is intact"
        }
        EngineError::Memory {
            remedies,
            smaller_model,
            ..
        } => return Some(memory(remedies, smaller_model.as_ref())),
        EngineError::Image(error) if error.is_out_of_memory() => {
            "use a larger `--max-memory`, if you set one, a smaller picture, or, with 4khd and 2.5 models, fewer \
             tiles (`--hd-num`); `--no-memory-check` tries anyway"
        }
        EngineError::Image(error) if error.is_truncated() => {
            "`--allow-truncated` accepts it; missing pixels become grey"
        }
        EngineError::Prompt(PromptError::Markers { .. }) => {
            "remove the markers to put the pictures before the question"
        }
        EngineError::Prompt(PromptError::Empty) => "give a question with `-p`, or an `--image`",
        _ => return None,
    };
    Some(text.to_owned())
}

fn journal(error: &JournalError) -> Option<String> {
    let text = match error {
        JournalError::Busy { .. } => {
            "wait for it, or give each process its own file (and its own shard, with `--shard`)"
        }
        JournalError::OtherSettings { .. } => {
            "give another `-o`, or the same options as when the file was started"
        }
        JournalError::InvalidRecord { .. } => {
            "nothing was changed; fix that line, or give another `-o`"
        }
        JournalError::NotAFile { path, .. } if path.is_dir() => {
            let file = path.join("captions.jsonl");
            return Some(format!("name a file: `-o {}`", file.display()));
        }
        JournalError::NotAFile { .. } => "without `-o`, records go to stdout",
        JournalError::Io { .. } | JournalError::Text { .. } => return None,
    };
    Some(text.to_owned())
}

fn library(error: &LibraryError) -> Option<String> {
    let text = match error {
        LibraryError::NoIndex { dir, .. } => {
            return Some(format!(
                "create one with `xc2-edge index {} -m MODEL`, or give its path with `--index FILE`",
                dir.display()
            ));
        }
        LibraryError::ReadOnly { .. } => {
            "use `--index FILE` to put the index elsewhere; `search` and `compose` take the same option"
        }
        LibraryError::NotAnIndex { .. } => "give another file with `--index`",
        LibraryError::OtherFiles { index, .. } => {
            return Some(format!(
                "nothing was changed; mount the pictures or give their directory. If they were deleted, \
                 remove {} and index again",
                index.display()
            ));
        }
        LibraryError::Version { path, .. } | LibraryError::Index { path, .. } => {
            return Some(format!("remove {} and index again", path.display()));
        }
        LibraryError::Busy { .. } => "wait until the other `xc2-edge index` has finished",
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
    let remedies: Vec<String> = options.chain(model).collect();
    match &remedies[..] {
        [] => "no option makes this model fit here; `--no-memory-check` tries anyway".to_owned(),
        remedies => format!(
            "use {}; `--no-memory-check` tries anyway",
            remedies.join(", or ")
        ),
    }
}

fn too_long(n_prompt: usize, n_image: usize, max: usize) -> String {
    let larger = (n_prompt + 256).next_multiple_of(256);
    if n_prompt < max {
        format!("use a larger context: `--ctx-size {}`", larger.min(max))
    } else if n_image > 0 {
        format!(
            "this model takes at most {max} tokens: shorten the question, give fewer pictures, or, if it cuts them into \
             tiles, fewer tiles (`--hd-num`)"
        )
    } else {
        format!("this model takes at most {max} tokens: shorten the question")
    }
}

fn container(error: &ContainerError) -> Option<String> {
    let text = match error {
        ContainerError::NotOurs { .. } => {
            "xc2-edge reads files made by xc2-convert, which contain decoder, vision tower and adapter"
        }
        ContainerError::Gguf(GgufError::Io(io))
            if io.kind() == std::io::ErrorKind::IsADirectory =>
        {
            "give the .gguf file; convert a checkpoint directory with `xc2-convert DIR OUT.gguf`"
        }
        ContainerError::Gguf(GgufError::Magic { .. }) => {
            "`-m` expects a model made with `xc2-convert DIR OUT.gguf`"
        }
        ContainerError::Gguf(GgufError::Truncated { .. }) => {
            "the file is incomplete: download or convert it again"
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
    fn only_sufficient_remedies_are_suggested() {
        let remedy = |options: &str, need| Remedy {
            options: options.to_owned(),
            need,
        };
        let two = [
            remedy("--kv-type q8_0", 2_000_000_000),
            remedy("--ctx-size 2048", 1_900_000_000),
        ];
        let expected = "use `--kv-type q8_0` (needs 2.0 GB), or `--ctx-size 2048` (needs 1.9 GB); \
                        `--no-memory-check` tries anyway";
        assert_eq!(memory(&two, None), expected);
        let model = remedy("--q4_k", 1_200_000_000);
        assert!(memory(&[], Some(&model)).contains("converted with `--q4_k` (about 1.2 GB)"));
        assert!(memory(&[], None).starts_with("no option"));
    }
}
