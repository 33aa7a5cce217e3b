//! Somebody who asks, over HTTP, and reads the stream.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Without a word for so long a stream is broken.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub prompt: &'static str,
    pub tokens: u32,
    pub temperature: f32,
    pub seed: usize,
}

#[derive(Default)]
pub struct Answer {
    /// Who wrote, and what, one after the other.
    pub parts: Vec<(String, String)>,
    pub tokens: BTreeMap<String, u64>,
    pub longest_pause_s: f64,
    /// Why it has no end.
    pub fault: Option<String>,
}

impl Answer {
    pub fn text(&self) -> String {
        self.parts.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Who wrote the first part.
    pub fn by(&self) -> Option<&str> {
        self.parts.first().map(|(by, _)| by.as_str())
    }
}

/// `url`: `http://place`.
pub fn ask(url: &str, question: &Question, local_only: bool) -> Answer {
    let mut answer = Answer::default();
    if let Err(why) = read(url, question, local_only, &mut answer) {
        answer.fault = Some(why);
    }
    answer
}

fn read(url: &str, question: &Question, local_only: bool, answer: &mut Answer) -> Result<(), String> {
    let told = |e: std::io::Error| e.to_string();
    let at = url.strip_prefix("http://").unwrap_or(url);
    let Question { prompt, tokens, temperature, seed } = question;
    let body = json!({
        "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": temperature, "seed": seed,
        "stream": true, "stream_options": {"include_usage": true}, "local_only": local_only,
    });
    let body = body.to_string();
    let mut stream = TcpStream::connect(at).map_err(told)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
    // Of this version, so that what comes is not cut into chunks.
    let head = format!("POST /v1/chat/completions HTTP/1.0\r\nhost: {at}\r\ncontent-type: application/json");
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).map_err(told)?;
    let (mut ended, mut last) = (false, None::<Instant>);
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(told)?;
        let Some(event) = line.strip_prefix("data: ") else { continue };
        if event == "[DONE]" {
            ended = true;
            continue;
        }
        let event: Value = serde_json::from_str(event).map_err(|e| format!("{e}: {event}"))?;
        if !event["error"].is_null() {
            return Err(event["error"].to_string());
        }
        if let Some(counts) = event["usage"]["littoral"]["tokens"].as_object() {
            answer.tokens = counts.iter().map(|(by, count)| (by.clone(), count.as_u64().unwrap_or(0))).collect();
        }
        let Some(text) = event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()) else {
            continue;
        };
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            answer.longest_pause_s = answer.longest_pause_s.max((now - last).as_secs_f64());
        }
        // A server with nobody above does not say who it is.
        let by = event["littoral"]["by"].as_str().unwrap_or("cloud");
        match answer.parts.last_mut().filter(|(other, _)| other == by) {
            Some((_, before)) => before.push_str(text),
            None => answer.parts.push((by.to_owned(), text.to_owned())),
        }
    }
    if ended { Ok(()) } else { Err("it ended without [DONE]".into()) }
}
