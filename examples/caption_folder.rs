//! Captions the pictures of a folder, several at a time, and prints one line for each.
//!
//! ```text
//! cargo run --release --example caption_folder -- target/xc2-scenes.gguf models/scenes
//! ```
//!
//! The program's `caption` also keeps records, resumes, watches folders and writes captions into pictures.

use std::{error::Error, fs, path::Path};

use xc2_edge::{
    Chat, Engine, EngineError, EngineOptions, Request,
    caption::{Captioner, Job, Next},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder] = &args[..] else {
        return Err("usage: caption_folder MODEL FOLDER".into());
    };
    let engine = Engine::load(Path::new(model), EngineOptions::default())?;
    let chat = Chat {
        system: engine.container().info().prompt.system.clone(),
        query: "Please describe this image in detail.".to_owned(),
        ..Chat::default()
    };
    let request = Request {
        chat,
        n_predict: 128,
        ..Request::default()
    };
    let captioner = Captioner::new(&engine, request, None)?;

    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    let mut paths = paths.into_iter();
    // Called whenever the captioner can begin another picture.
    let next_job = |_idle: bool| {
        for path in paths.by_ref() {
            match captioner.open(&path).1 {
                Ok(opened) => {
                    return Next::Item(Job {
                        tag: path,
                        picture: opened.picture,
                        prompt: None,
                    });
                }
                Err(error) => eprintln!("{}: {error}", path.display()),
            }
        }
        Next::End
    };
    captioner.run(next_job, |path, answer| {
        println!("{}: {}", path.display(), answer?.text);
        Ok::<(), EngineError>(())
    })?;
    Ok(())
}
