//! Audits: a request that was kept for its score is asked of both models, as greedily as when the router was calibrated, beside the
//! answer that its client gets. Whether the small model's answer was worse goes to the watch over the calibration.
//!
//! One at a time: while one is carried out, those that are drawn are not.

use super::ask::Kind;
use super::line::Client;
use super::routed::{Asking, Only};
use super::routes::Served;
use super::writer::{Asked, By, End, Said};
use littoral_infer::route::answer::same;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// Whose turn it is: nobody's who asked for something.
const OURS: Client = [0; 32];
const PATIENCE: Duration = Duration::from_secs(300);
/// Of an answer of the server above: what it says beside the text, and for each token that the text may have.
const ANSWER_BYTES: usize = 64 << 10;
const TOKEN_BYTES: usize = 256;

pub struct Audit {
    kind: Kind,
    asked: Asked,
    /// As it came, if the large model is asked over HTTP.
    fields: Option<Map<String, Value>>,
}

/// As much of an answer as is compared.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Message>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl Audit {
    /// `None`: such a request is none to be compared.
    pub fn new(kind: Kind, asked: &[Asked], fields: Option<&Map<String, Value>>) -> Option<Self> {
        let [Asked::Text { request, stop, prompt_logprobs: None }] = asked else { return None };
        let echoes = fields.is_some_and(|fields| fields.contains_key("echo"));
        if request.constraint.is_some() || echoes {
            return None;
        }
        let mut request = request.clone();
        (request.sampling.temperature, request.top_logprobs) = (0.0, None);
        let asked = Asked::Text { request, stop: stop.clone(), prompt_logprobs: None };
        Some(Self { kind, asked, fields: fields.cloned() })
    }

    pub fn begin(self, served: &Arc<Served>) {
        let Ok(alone) = served.auditing.clone().try_acquire_owned() else { return };
        let served = served.clone();
        tokio::spawn(async move {
            let _alone = alone;
            let done = tokio::time::timeout(PATIENCE, self.carry_out(&served)).await;
            match done.unwrap_or_else(|_| Err("it took too long".into())) {
                Ok(worse) => {
                    served.metrics.audited(worse);
                    served.writer.audited(worse);
                }
                Err(why) => tracing::info!("an audit was not carried out: {why}"),
            }
        });
    }

    async fn carry_out(self, served: &Served) -> Result<bool, String> {
        let large = match (&self.fields, &served.upstream) {
            (Some(fields), Some(_)) => self.server(served, fields.clone()).await?,
            _ => self.own(served, Only::Upstream).await?,
        };
        let small = self.own(served, Only::Here).await?;
        Ok(!same(&small, &large))
    }

    /// What a model behind the writer says.
    async fn own(&self, served: &Served, only: Only) -> Result<String, String> {
        let asking = Asking { kind: self.kind, only: Some(only), ..Asking::here(None) };
        let said = served.writer.ask(OURS, vec![self.asked.clone()], asking).await;
        whole(said.map_err(|_| "it was not taken in".to_owned())?, only).await
    }

    async fn server(&self, served: &Served, mut fields: Map<String, Value>) -> Result<String, String> {
        let Some(upstream) = &served.upstream else { return Err("there is no server above".into()) };
        for field in [super::ask::asking::LOCAL_ONLY, "stream", "stream_options", "logprobs", "top_logprobs", "seed"] {
            fields.remove(field);
        }
        fields.insert("temperature".into(), json!(0));
        fields.insert("model".into(), json!(upstream.asked_for()));
        let tokens = match &self.asked {
            Asked::Text { request, .. } => request.max_tokens.min(served.model.context()),
            Asked::Vectors { .. } => 0,
        };
        let bytes_max = ANSWER_BYTES + TOKEN_BYTES * tokens;
        let said = upstream.say(self.kind.path(), &Value::Object(fields), bytes_max, PATIENCE).await;
        let said: Answer = said.map_err(|why| why.to_string())?;
        let choice = said.choices.into_iter().next();
        let text = choice.and_then(|choice| choice.message.and_then(|message| message.content).or(choice.text));
        text.ok_or_else(|| "the server above gave no text".into())
    }
}

/// All of an answer, if `only` wrote it.
async fn whole(mut said: UnboundedReceiver<Said>, only: Only) -> Result<String, String> {
    let mut text = String::new();
    while let Some(said) = said.recv().await {
        match said {
            Said::Text { piece, .. } => text += &piece.text,
            Said::Ended { why: End::Stop | End::Length, share, .. } => {
                let here = share.parts.iter().any(|(by, _)| *by == By::Here);
                let other = only == Only::Upstream && here;
                return if other { Err("the machine above did not write all of it".into()) } else { Ok(text) };
            }
            // Why may be told in words of the request.
            Said::Ended { .. } => return Err("an answer came to no end of its own".into()),
            Said::Placed { .. } | Said::Away { .. } | Said::Started { .. } | Said::Vector { .. } => {}
            Said::Prompt { .. } => {}
        }
    }
    Err("the server stops".into())
}
