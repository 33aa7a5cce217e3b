//! `littoral run`: text from a model, here.
//!
//! Read in this order: [`answer`] (one answer), [`conversation`] (what was said), [`chat`] (the loop), [`command`] and
//! [`settings`] (what begins with `/`), [`lines`] (where words come from), [`form`].

mod answer;
mod chat;
mod command;
pub mod conversation;
mod form;
mod interrupt;
mod lines;
mod settings;

use crate::llm;
use crate::output::{self, Failure};
use answer::Writer;
use conversation::{Conversation, Role};
use littoral_infer::engine::{Engine, Limits};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_model::lm::CacheType;
use settings::Settings;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, a name of `littoral models`, or hf:owner/repo/file.gguf. What is not here is fetched. Without one,
    /// smollm2-135m-instruct.
    model: Option<PathBuf>,
    /// What to answer; without it, a chat in the terminal, or an answer to each line of standard input.
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// The prompt where no model is given: `littoral run -p "…"`.
    #[arg(short = 'p', long = "prompt", value_name = "PROMPT", conflicts_with = "prompt")]
    prompt_flag: Option<String>,
    /// What the model is told before.
    #[arg(long)]
    system: Option<String>,
    /// Go on with the text as it is, without the model's chat template.
    #[arg(long)]
    raw: bool,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 512, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0: the most probable token each time.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f32,
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    top_k: usize,
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// Each answer is JSON that fits the JSON schema in this file.
    #[arg(long, value_name = "FILE", group = "form")]
    json_schema: Option<PathBuf>,
    /// Each answer matches this regular expression as a whole.
    #[arg(long, group = "form")]
    regex: Option<String>,
    /// Each answer is derived from `start` of the grammar in this file (llguidance's Lark).
    #[arg(long, value_name = "FILE", group = "form")]
    grammar: Option<PathBuf>,
    /// The same seed gives the same text.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// The type in which keys and values of earlier tokens are kept; q8_0 takes half the memory of f16.
    #[arg(long, value_name = "TYPE", default_value_t = CacheType::F16, value_parser = crate::llm::cache_type())]
    cache_type: CacheType,
    /// Threads; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Do not keep what is typed in a chat for the next one.
    #[arg(long)]
    no_history: bool,
}

impl Args {
    fn settings(&self) -> Settings {
        let sampling = SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..SamplingParams::default()
        };
        Settings { sampling, max_tokens: self.max_tokens as usize }
    }
}

/// The ids of one question as a chat renders it, or as it is where a model has no chats.
pub fn prompt_ids(model: &Model, text: &str) -> Result<Vec<u32>, Failure> {
    let mut conversation = Conversation::new(None, false);
    conversation.push(Role::User, text);
    conversation.ids(model)
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let settings = args.settings();
    if let Err(error) = settings.sampling.validate() {
        return Err(Failure::usage("sampling", "values within their ranges", error));
    }
    let pool = llm::pool(args.threads.map(usize::from));
    let named = crate::named::here_or_fetched(args.model.as_deref())?;
    let model = Arc::new(llm::load(&named.path, &pool)?);
    let engine = Engine::new(model.clone(), args.cache_type, Limits::default())?;
    let constraint = form::constraint(args, &model)?;
    let mut writer = Writer { engine, pool, constraint, settings };
    let mut conversation = Conversation::new(args.system.as_deref(), args.raw);
    let Some(prompt) = args.prompt.as_ref().or(args.prompt_flag.as_ref()) else {
        return chat::chat(&named.name, writer, conversation, json, !args.no_history);
    };
    conversation.push(Role::User, prompt);
    let ids = conversation.ids(&model)?;
    let never = AtomicBool::new(false);
    let answer = writer.answer(ids, &never, &mut |piece| {
        if !json {
            output::piece(piece);
        }
    })?;
    if json {
        output::object(&answer.to_json());
    } else {
        output::line("");
        output::aside(&answer.to_string());
    }
    Ok(())
}
