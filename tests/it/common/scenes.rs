//! The trained model, and questions about drawn scenes.

use std::sync::LazyLock;

use xc2_convert::mix::Preset;
use xc2_edge::{
    engine::{Engine, EngineOptions, Picture, Request},
    evaluation::scenes::{Draw, Scene, render},
    language::prompt::Chat,
};

/// One thread: tests run in parallel, and llama.cpp's threads wait for each other.
pub fn options() -> EngineOptions {
    EngineOptions {
        n_threads: 1,
        ..EngineOptions::default()
    }
}

/// The trained model in F16, loaded once.
pub fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| fresh_engine(options()));
    &ENGINE
}

/// A new engine that has encoded no pictures.
pub fn fresh_engine(options: EngineOptions) -> Engine {
    Engine::load(&super::trained(Preset::F16), options).unwrap()
}

/// The picture of a seed's scene.
pub fn picture(seed: u64) -> Picture {
    let side = engine().preprocessor().image_size() as usize;
    let scene = Scene::draw(&mut Draw::new(seed));
    Picture::Pixels(render(&scene, side).unwrap())
}

/// A question about the pictures of some seeds, with the model's own system text.
pub fn ask(seeds: &[u64], query: &str) -> Request {
    let system = engine().container().info().prompt.system.clone();
    let chat = Chat {
        system,
        query: query.to_owned(),
        ..Chat::default()
    };
    Request {
        images: seeds.iter().map(|seed| picture(*seed)).collect(),
        chat,
        n_predict: 96,
        ..Request::default()
    }
}
