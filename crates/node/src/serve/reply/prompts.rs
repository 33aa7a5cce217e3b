//! What a completion says of its prompt: `echo`, as OpenAI has it, and `prompt_logprobs` and `return_token_ids`, as vLLM has
//! them. Of the first token, before which there is nothing, all of them say null.

use super::form::{Form, Whole, finite};
use crate::serve::words::Token;
use littoral_infer::engine::PromptToken;
use littoral_infer::sample::TokenLogProb;
use serde_json::{Map, Value, json};

/// Adds it to a choice.
pub fn tell(form: &Form, prompt: &[u32], choice: &Whole, value: &mut Value) {
    let told = &form.told;
    if told.token_ids {
        value["prompt_token_ids"] = json!(prompt);
        value["token_ids"] = choice.tokens.iter().map(|token| token.id).collect();
    }
    if told.prompt_logprobs {
        let entries = choice.prompt.iter().map(|token| ranked(form, token));
        value["prompt_logprobs"] = std::iter::once(Value::Null).chain(entries).collect();
    }
    if told.echo {
        let text = form.model.tokeniser.decode(prompt) + &choice.text;
        value["text"] = json!(text);
        if form.logprobs {
            value["logprobs"] = echoed(form, prompt, choice);
        }
    }
}

/// The token itself and the best ones, by their ids.
fn ranked(form: &Form, token: &PromptToken) -> Value {
    let entry = |id: u32, logprob: f32, rank: usize| json!({"logprob": finite(logprob), "rank": rank, "decoded_token": form.text(id).0});
    let best = token.top.iter().zip(1..).map(|(top, rank)| (top.id.to_string(), entry(top.id, top.logprob, rank)));
    let own = (token.id.to_string(), entry(token.id, token.logprob, token.rank));
    Value::Object(best.chain([own]).collect::<Map<String, Value>>())
}

/// Prompt and answer as one list of tokens.
fn echoed(form: &Form, prompt: &[u32], choice: &Whole) -> Value {
    let mut tokens: Vec<Token> = Vec::with_capacity(prompt.len() + choice.tokens.len());
    tokens.extend(prompt.first().map(|id| Token { id: *id, logprob: 0.0, top: Vec::new() }));
    let top = |token: &PromptToken| token.top.iter().take(form.told.echo_top).copied().collect::<Vec<TokenLogProb>>();
    tokens.extend(choice.prompt.iter().map(|token| Token { id: token.id, logprob: token.logprob, top: top(token) }));
    tokens.extend(choice.tokens.iter().cloned());
    let mut value = form.tokens(&tokens, 0);
    value["token_logprobs"][0] = Value::Null;
    value["top_logprobs"][0] = Value::Null;
    value
}
