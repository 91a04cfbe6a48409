//! Asks a question about a picture and prints the answer as the model writes it.
//!
//! ```text
//! cargo run --release --example ask -- target/xc2-scenes.gguf models/scenes/three-shapes.png 'How many objects are there?'
//! ```

use std::{
    error::Error,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
};

use xc2_edge::{Chat, Engine, EngineOptions, Observer, Request};

struct Print;

impl Observer for Print {
    fn text(&mut self, text: &str) -> ControlFlow<()> {
        print!("{text}");
        match io::stdout().flush() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()), // the reader is gone
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture, question] = &args[..] else {
        return Err("usage: ask MODEL PICTURE QUESTION".into());
    };
    let engine = Engine::load(Path::new(model), EngineOptions::default())?;
    let chat = Chat {
        system: engine.container().info().prompt.system.clone(),
        query: question.clone(),
        ..Chat::default()
    };
    let request = Request {
        images: vec![picture.as_str().into()],
        chat,
        n_predict: 256,
        ..Request::default()
    };
    let answer = engine.answer(&request, &mut Print)?;
    println!();
    eprintln!("{} tokens, {}", answer.ids.len(), answer.timings);
    Ok(())
}
