//! Writes a short article with two pictures in their places, as Markdown.
//!
//! ```text
//! cargo run --release --example article -- target/xc2-scenes.gguf article.md PICTURE PICTURE
//! ```

use std::{error::Error, path::Path};

use xc2_edge::{
    Engine, EngineOptions, Picture, SamplerOptions,
    compose::{
        Brief, ComposeOptions, Composer, Count, EngineChatModel, Language, Prompts, Watch,
        output::{self, Format},
    },
};

/// Reports nothing while the article is written.
struct Silent;

impl Watch for Silent {}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, target, pictures @ ..] = &args[..] else {
        return Err("usage: article MODEL TARGET.md PICTURE..".into());
    };
    let engine = Engine::load(Path::new(model), EngineOptions::default())?;
    let prompts = Prompts::load(Language::En, None)?;
    let mut model = EngineChatModel::new(&engine, SamplerOptions::default(), None);
    let options = ComposeOptions {
        n_predict: 400,
        count: Count::Exactly(pictures.len()),
        ..ComposeOptions::default()
    };
    let mut silent = Silent;
    let mut composer = Composer::new(&mut model, &prompts, options, &mut silent);
    for picture in pictures {
        composer.add_picture(std::path::absolute(picture)?, Picture::File(picture.into()));
    }
    let brief = Brief {
        title: "Shapes".to_owned(),
        ..Brief::default()
    };
    let composition = composer.compose(Language::En, &brief, None)?;
    output::write(&composition, Format::Markdown, Path::new(target))?;
    println!("{} pictures in {target}", composition.pictures.len());
    Ok(())
}
