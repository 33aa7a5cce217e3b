//! Vectors of texts.

use super::ask::{CHAT, chat, with};
use super::client::{answer, post, stream};
use super::server::Server;
use serde_json::{Value, json};

const EMBEDDINGS: &str = "/v1/embeddings";

fn vectors(reply: &Value) -> Vec<Vec<f64>> {
    let data = reply["data"].as_array().unwrap();
    assert!(data.iter().enumerate().all(|(at, one)| one["index"] == at && one["object"] == "embedding"));
    let vector = |one: &Value| one["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    data.iter().map(vector).collect()
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn a_text_has_the_same_vector_whoever_else_asks() {
    let server = Server::start(&[]);
    let texts: Vec<String> = (1..40).map(|count| "a sea and a shore ".repeat(count)).collect();
    let alone: Vec<Vec<f64>> = [0, 7, 38]
        .iter()
        .flat_map(|at| vectors(&answer(server.at, EMBEDDINGS, &json!({"input": texts[*at]}))))
        .collect();
    let endless = json!({"max_tokens": 60_000, "logit_bias": {"257": -100}});
    let mut writing = stream(server.at, CHAT, &with(chat("x"), endless));
    writing.event().unwrap();
    let reply = answer(server.at, EMBEDDINGS, &json!({"input": texts, "model": "tiny", "encoding_format": "float"}));
    let together = vectors(&reply);
    assert_eq!([0, 7, 38].map(|at| together[at].clone()).as_slice(), alone);
    assert!(together.iter().all(|vector| vector.len() == 64 && (length(vector) - 1.0).abs() < 1e-6));
    let bytes: usize = texts.iter().map(String::len).sum();
    assert_eq!(reply["usage"], json!({"prompt_tokens": bytes, "total_tokens": bytes}));
}

#[test]
fn vectors_come_as_they_are_asked_for() {
    let server = Server::start(&[]);
    let text = "asked";
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    let ask = |fields: Value| answer(server.at, EMBEDDINGS, &with(json!({"input": text}), fields));
    let whole = &vectors(&ask(json!({})))[0];
    // A token is a byte.
    assert_eq!(&vectors(&ask(json!({"input": ids})))[0], whole);
    assert_eq!(vectors(&ask(json!({"input": [ids, ids]}))), [whole.clone(), whole.clone()]);
    let short = &vectors(&ask(json!({"dimensions": 3})))[0];
    let part = length(&whole[..3]);
    assert!(short.len() == 3 && (length(short) - 1.0).abs() < 1e-6);
    assert!(short.iter().zip(whole).all(|(short, whole)| (short - whole / part).abs() < 1e-6));
    let base64 = ask(json!({"encoding_format": "base64"}));
    // 64 times 4 bytes, three of them in four characters.
    assert_eq!(base64["data"][0]["embedding"].as_str().unwrap().len(), (256usize).div_ceil(3) * 4);
}

#[test]
fn what_has_no_vector_is_refused_by_name() {
    let server = Server::start(&[]);
    let refused = |fields: Value, param: &str| {
        let reply = post(server.at, EMBEDDINGS, &with(json!({"input": "x"}), fields.clone()));
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{fields}: {}", reply.body);
    };
    refused(json!({"input": null}), "input");
    refused(json!({"input": ""}), "input");
    refused(json!({"input": []}), "input");
    refused(json!({"input": ["x", ""]}), "input");
    refused(json!({"input": [9999]}), "input");
    refused(json!({"input": vec!["x"; 2049]}), "input");
    refused(json!({"input": "x".repeat(65_537)}), "input");
    refused(json!({"dimensions": 65}), "dimensions");
    refused(json!({"encoding_format": "int8"}), "encoding_format");
    refused(json!({"colour": "red"}), "colour");
}
