//! A conversation about a picture. The session keeps keys and values, so each turn computes its new tokens only; the
//! cache keeps the picture on disk, so the next run does not encode it.
//!
//! ```text
//! cargo run --release --example conversation -- target/xc2-scenes.gguf models/scenes/three-shapes.png CACHE_DIR
//! ```

use std::{error::Error, path::Path};

use xc2_edge::{Chat, Engine, EngineOptions, Request, engine::cache::CacheOptions};

/// The marker shows where the picture is. Earlier turns keep theirs.
const QUESTIONS: [&str; 2] = ["<ImageHere>How many objects are there?", "Is there a star?"];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture, cache] = &args[..] else {
        return Err("usage: conversation MODEL PICTURE CACHE_DIR".into());
    };
    let options = EngineOptions {
        cache: Some(CacheOptions {
            dir: cache.into(),
            max_bytes: CacheOptions::DEFAULT_MAX_BYTES,
        }),
        ..EngineOptions::default()
    };
    let engine = Engine::load(Path::new(model), options)?;
    let mut session = engine.session();
    let mut history = Vec::new();
    for question in QUESTIONS {
        let chat = Chat {
            system: engine.container().info().prompt.system.clone(),
            query: question.to_owned(),
            history: history.clone(),
            ..Chat::default()
        };
        let request = Request {
            images: vec![picture.as_str().into()],
            chat,
            n_predict: 128,
            ..Request::default()
        };
        let answer = session.answer(&request, &mut ())?;
        println!("{question} {}", answer.text);
        eprintln!(
            "{} of {} positions reused",
            answer.timings.n_reused, answer.n_prompt
        );
        history.push((question.to_owned(), answer.text));
    }
    Ok(())
}
