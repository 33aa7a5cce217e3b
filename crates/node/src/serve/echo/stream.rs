//! A stream of a server's answer, event by event.

use super::answer::Answer;
use crate::serve::upstream::events::{Events, data, is_done};
use crate::serve::upstream::{Unanswered, innermost, shown};
use axum::body::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

/// What events say, up to the end, an error, or an event of more than so many bytes.
pub fn answers(
    pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    event_bytes_max: usize,
) -> BoxStream<'static, Result<Answer, Unanswered>> {
    let begin = Some((pieces, Events::default()));
    let next = move |state: Option<(BoxStream<'static, reqwest::Result<Bytes>>, Events)>| async move {
        let (mut pieces, mut held) = state?;
        loop {
            while let Some(event) = held.next() {
                // The last piece may have had the end of a longer one.
                if event.len() > event_bytes_max {
                    return Some((Err(too_long(event_bytes_max)), None));
                }
                let Some(said) = data(event) else { continue };
                if is_done(&said) {
                    return None;
                }
                let said = read(&said);
                let state = said.is_ok().then_some((pieces, held));
                return Some((said, state));
            }
            if held.rest().len() > event_bytes_max {
                return Some((Err(too_long(event_bytes_max)), None));
            }
            match pieces.next().await {
                None => return None,
                Some(Ok(piece)) => held.push(&piece),
                Some(Err(why)) => return Some((Err(innermost(&why).into()), None)),
            }
        }
    };
    stream::unfold(begin, next).boxed()
}

fn too_long(bytes_max: usize) -> Unanswered {
    format!("an event of at most {bytes_max} bytes expected").into()
}

fn read(said: &[u8]) -> Result<Answer, Unanswered> {
    let answer: Answer = serde_json::from_slice(said)
        .map_err(|why| Unanswered::with_words("events as JSON expected", shown(&why.to_string())))?;
    match answer.error {
        Some(error) => Err(Unanswered::with_words("an error", shown(&error.message.unwrap_or_default()))),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(pieces: &[&str], bytes_max: usize) -> Vec<Result<Option<String>, String>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from(piece.to_string()))).collect();
        let answers = answers(stream::iter(pieces).boxed(), bytes_max);
        let told = |answer: Answer| answer.choice.text;
        answers.map(|answer| answer.map(told).map_err(Unanswered::in_its_words)).collect().await
    }

    #[tokio::test]
    async fn events_are_heard_up_to_the_end_and_long_ones_refused() {
        let event = |text: &str| format!("data: {{\"choices\": [{{\"text\": \"{text}\"}}]}}\r\n\r\n");
        let text = |text: &str| Ok(Some(text.to_owned()));
        let all = [event("a"), ": ping\n\n".into(), event("b"), "data: [DONE]\n\n".into(), event("c")].concat();
        assert_eq!(heard(&[&all[..7], &all[7..60], &all[60..]], 100).await, [text("a"), text("b")]);
        let long = event(&"x".repeat(90));
        let refused = Err("an event of at most 100 bytes expected".to_owned());
        assert_eq!(heard(&[&event("a"), &long, &event("b")], 100).await, [text("a"), refused.clone()]);
        // It is not waited for.
        assert_eq!(heard(&[&long[..60], &long[60..110]], 100).await, [refused]);
        let error = "data: {\"error\": {\"message\": \"no room\"}}\n\n";
        assert_eq!(heard(&[error, &event("a")], 100).await, [Err("an error: no room".into())]);
    }
}
