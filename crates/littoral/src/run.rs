//! `littoral run`: text from a model, here.

use crate::llm;
use crate::output::{self, Failure};
use littoral_infer::constrain::Constraint;
use littoral_infer::engine::{Engine, Event, Finish, Limits, Request};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_model::text::{Detokeniser, Json, Prompt};
use littoral_tensor::pool::Pool;
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, a name of `littoral models`, or hf:owner/repo/file.gguf. What is not here is fetched. Without one,
    /// smollm2-135m-instruct.
    model: Option<PathBuf>,
    /// What to answer; without it, a chat in the terminal.
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
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0: the most probable token each time.
    #[arg(long, default_value_t = 0.7)]
    temperature: f32,
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    #[arg(long, default_value_t = 1.0)]
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
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Args {
    fn sampling(&self) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..SamplingParams::default()
        }
    }
}

/// One answer, and how long it took.
struct Answer {
    text: String,
    ids: Vec<u32>,
    prompt_tokens: usize,
    ttft: Duration,
    /// From the first token to the last.
    decoding: Duration,
    finish: Finish,
}

impl Answer {
    fn tokens_per_s(&self) -> f64 {
        let steps = self.ids.len().saturating_sub(1) as f64;
        if steps > 0.0 { steps / self.decoding.as_secs_f64() } else { 0.0 }
    }
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    if let Err(error) = args.sampling().validate() {
        return Err(Failure::usage("sampling", "values within their ranges", error));
    }
    let pool = llm::pool(args.threads.map(usize::from));
    let named = crate::named::here_or_fetched(args.model.as_deref())?;
    let model = Arc::new(llm::load(&named.path, &pool)?);
    let constraint = constraint(args, &model)?;
    let mut engine = Engine::new(model.clone(), Limits::default());
    let mut conversation = Conversation::new(args.system.as_deref());
    let Some(prompt) = args.prompt.as_ref().or(args.prompt_flag.as_ref()) else {
        return chat(args, constraint.as_ref(), &mut engine, &pool, conversation);
    };
    let ids = conversation.ids(&model, prompt, args.raw)?;
    let answer = answer(args, constraint.as_ref(), &mut engine, &pool, ids, &mut |piece| {
        if !json {
            show(piece);
        }
    })?;
    if json {
        output::object(&json!({
            "text": answer.text,
            "ids": answer.ids,
            "prompt_tokens": answer.prompt_tokens,
            "decode_tok_s": answer.tokens_per_s(),
            "ttft_s": answer.ttft.as_secs_f64(),
        }));
    } else {
        output::line("");
        tell(&answer);
    }
    Ok(())
}

/// A schema or a grammar in a file; what is longer is refused in any case.
const FORM_BYTES_MAX: u64 = 1 << 20;

fn constraint(args: &Args, model: &Model) -> Result<Option<Constraint>, Failure> {
    let read = |path: &PathBuf| -> Result<String, Failure> {
        let refused = |why: &dyn std::fmt::Display| {
            Failure::new("no answer", path.display().to_string(), "a readable text file of at most 1 MiB", why)
        };
        let (mut bytes, file) = (Vec::new(), File::open(path).map_err(|e| refused(&e))?);
        file.take(FORM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| refused(&e))?;
        if bytes.len() as u64 > FORM_BYTES_MAX {
            return Err(refused(&"more"));
        }
        String::from_utf8(bytes).map_err(|e| refused(&e))
    };
    let place = match (&args.json_schema, &args.grammar, &args.regex) {
        (Some(path), _, _) | (_, Some(path), _) => path.display().to_string(),
        (None, None, Some(_)) => "--regex".to_owned(),
        (None, None, None) => return Ok(None),
    };
    let refused = |why: &dyn std::fmt::Display| Failure::new("no answer", &place, "a form that text can have", why);
    let index = model.index().map_err(|e| refused(&e))?;
    let constraint = match (&args.json_schema, &args.grammar, &args.regex) {
        (Some(path), _, _) => Constraint::json_schema(index, &read(path)?),
        (_, Some(path), _) => Constraint::grammar(index, &read(path)?),
        (_, _, expression) => Constraint::regex(index, expression.as_deref().unwrap_or_default()),
    };
    constraint.map(Some).map_err(|e| refused(&e))
}

/// What has been said so far.
struct Conversation {
    messages: Vec<Json>,
    system: usize,
}

impl Conversation {
    fn new(system: Option<&str>) -> Self {
        let messages: Vec<Json> = system.iter().map(|text| Json::message("system", text)).collect();
        Self { system: messages.len(), messages }
    }

    /// The ids of all so far and this, up to where the answer begins.
    fn ids(&mut self, model: &Model, said: &str, raw: bool) -> Result<Vec<u32>, Failure> {
        let Some(template) = model.template.as_ref().filter(|_| !raw) else {
            return Ok(model.tokeniser.encode_document(said, false));
        };
        self.messages.push(Json::message("user", said));
        let token = |id: Option<u32>| id.and_then(|id| model.tokeniser.token(id)).unwrap_or_default();
        let prompt = Prompt {
            messages: &self.messages,
            add_generation_prompt: true,
            bos: token(model.tokeniser.bos()),
            eos: token(model.tokeniser.eos()),
            ..Prompt::default()
        };
        let text = template
            .render(&prompt)
            .map_err(|e| Failure::new("no prompt", "the model's chat template", "a conversation that it takes", e))?;
        Ok(model.tokeniser.encode(&text, true))
    }

    fn answered(&mut self, text: &str) {
        self.messages.push(Json::message("assistant", text));
    }

    fn forget(&mut self) {
        self.messages.truncate(self.system);
    }
}

/// A conversation over the terminal, until its end.
fn chat(
    args: &Args,
    constraint: Option<&Constraint>,
    engine: &mut Engine,
    pool: &Pool,
    mut conversation: Conversation,
) -> Result<(), Failure> {
    let model = engine.model().clone();
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    if terminal {
        output::talk(&format!("{}: /clear begins anew, /exit ends, Ctrl-D too", model.name));
    }
    loop {
        if terminal {
            show("> ");
        }
        let mut said = String::new();
        if stdin.lock().read_line(&mut said).unwrap_or(0) == 0 {
            return Ok(());
        }
        match said.trim() {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            "/clear" => conversation.forget(),
            command if command.starts_with('/') => output::talk("there are /clear and /exit"),
            said => {
                let ids = conversation.ids(&model, said, args.raw)?;
                let answer = answer(args, constraint, engine, pool, ids, &mut show)?;
                conversation.answered(&answer.text);
                output::line("");
                if terminal {
                    tell(&answer);
                }
            }
        }
    }
}

fn answer(
    args: &Args,
    constraint: Option<&Constraint>,
    engine: &mut Engine,
    pool: &Pool,
    prompt: Vec<u32>,
    on_piece: &mut dyn FnMut(&str),
) -> Result<Answer, Failure> {
    let model = engine.model().clone();
    let (begun, prompt_tokens) = (Instant::now(), prompt.len());
    let request = Request {
        prompt,
        max_tokens: args.max_tokens as usize,
        sampling: args.sampling(),
        constraint: constraint.cloned(),
        top_logprobs: None,
        ignore_end: false,
    };
    let refused =
        |why: &dyn std::fmt::Display| Failure::new("no answer", "the prompt", "one that the model takes", why);
    engine.submit(request).map_err(|why| refused(&why))?;
    let mut words = Detokeniser::new(&model.tokeniser);
    let (mut text, mut ids) = (String::new(), Vec::new());
    let (mut first, mut last) = (None, begun);
    loop {
        for event in engine.step(pool) {
            match event {
                Event::Started { .. } | Event::Embedded { .. } => {}
                Event::Token { id, .. } => {
                    last = Instant::now();
                    first.get_or_insert(last);
                    ids.push(id);
                    let piece = words.push(id);
                    text.push_str(piece);
                    on_piece(piece);
                }
                Event::Finished { why: Finish::Failed(why), .. } => return Err(refused(&why)),
                Event::Finished { why, .. } => {
                    let piece = words.finish();
                    text.push_str(piece);
                    on_piece(piece);
                    let first = first.unwrap_or(last);
                    let (ttft, decoding) = (first - begun, last - first);
                    return Ok(Answer { text, ids, prompt_tokens, ttft, decoding, finish: why });
                }
            }
        }
    }
}

fn show(piece: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
}

fn tell(answer: &Answer) {
    let full = if answer.finish == Finish::Context { "; the context is full" } else { "" };
    output::talk(&format!(
        "{} tokens read, the first written after {:.2} s, {} tokens at {:.1} tok/s{full}",
        answer.prompt_tokens,
        answer.ttft.as_secs_f64(),
        answer.ids.len(),
        answer.tokens_per_s(),
    ));
}
