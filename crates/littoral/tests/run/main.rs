//! `littoral run` as people and programs use it: a real process over a pipe or a pseudo-terminal, and a tiny made-up model.

mod commands;
mod stream;
mod terminal;
#[path = "../serve/tiny.rs"]
mod tiny;
mod world;
