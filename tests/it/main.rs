//! Integration tests of the library and the program `xc2-edge`, in one binary: llama.cpp is linked once.

mod common;

mod answers;
mod batch_scheduler;
mod beams;
mod bench;
mod cache;
mod caption_arrivals;
mod caption_ends;
mod caption_kills;
mod caption_people;
mod captions;
mod chat;
mod cli;
mod compose;
mod compose_files;
mod compose_program;
mod compose_prompts;
mod demo_scenes;
mod doctor;
mod embed;
mod eval;
mod gguf_interop;
mod golden;
mod grammars;
mod hostile_container;
mod hostile_gguf;
mod layers;
mod library;
mod memory_check;
mod pictures;
mod scenes;
mod sessions;
mod tokenizer;
mod transparency;
mod vision_golden;
