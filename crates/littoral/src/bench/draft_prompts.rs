//! Eight prompts for drafts, of four kinds: what is written after them is easy to foresee, or hard.

/// A prompt for a chat.
pub struct Prompt {
    pub name: &'static str,
    pub text: &'static str,
}

pub const PROMPTS: [Prompt; 8] = [
    Prompt {
        name: "code-1",
        text: "Write a Python class `Matrix` with __init__, __add__, __mul__, transpose and __repr__. Only the code.",
    },
    Prompt {
        name: "code-2",
        text: "Write a function in Rust that parses lines `key=value` into a HashMap<String, String> and returns an error with \
               the line number for a line without `=`. Only the code.",
    },
    Prompt {
        name: "json-1",
        text: "Give me a JSON array of six objects, each with the fields name, latitude, longitude and country, for six \
               large harbours of the world.",
    },
    Prompt {
        name: "json-2",
        text: "Turn this into JSON with one object per line, fields id, item and price: 1 rope 12.50; 2 anchor 89.00; 3 lamp \
               24.90; 4 compass 45.00; 5 chart 18.75; 6 bucket 7.20.",
    },
    Prompt { name: "answer-1", text: "Why does the tide rise twice a day? Explain it to a ten-year-old." },
    Prompt {
        name: "answer-2",
        text: "What is the difference between a process and a thread? Answer in a few paragraphs.",
    },
    Prompt { name: "prose-1", text: "Write a short story about a lighthouse keeper who finds a letter in a bottle." },
    Prompt { name: "prose-2", text: "Describe a fishing village early in the morning, in the style of an old novel." },
];
